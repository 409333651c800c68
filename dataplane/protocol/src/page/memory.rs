//! What each end of a lane remembers of it.

use super::store::PageStore;
use super::terms::LaneTerms;
use super::window::{WindowDecoder, WindowEncoder};

/// What an encoder remembers of one lane: what its decoder will have decoded.
pub struct EncoderMemory {
    pub(super) store: PageStore,
    pub(super) window: Option<WindowEncoder>,
}

impl EncoderMemory {
    /// Of a lane that has carried nothing.
    pub fn new(terms: LaneTerms) -> Self {
        let window = terms.window_log.map(WindowEncoder::new);
        Self { store: PageStore::new(terms.pages), window }
    }

    /// Bytes taken, tables included.
    pub fn held_bytes(&self) -> u64 {
        self.store.held_bytes() + self.window.as_ref().map_or(0, WindowEncoder::held_bytes)
    }

    /// Pages whose last version is kept.
    pub fn pages(&self) -> usize {
        self.store.pages()
    }
}

/// What a decoder remembers of one lane.
pub struct DecoderMemory {
    pub(super) store: PageStore,
    pub(super) window: Option<WindowDecoder>,
}

impl DecoderMemory {
    /// Of a lane that has carried nothing.
    pub fn new(terms: LaneTerms) -> Self {
        let window = terms.window_log.map(WindowDecoder::new);
        Self { store: PageStore::new(terms.pages), window }
    }

    /// Bytes taken, tables included.
    pub fn held_bytes(&self) -> u64 {
        self.store.held_bytes() + self.window.as_ref().map_or(0, WindowDecoder::held_bytes)
    }

    /// Pages whose last version is kept.
    pub fn pages(&self) -> usize {
        self.store.pages()
    }
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for EncoderMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncoderMemory").field("pages", &self.pages()).finish_non_exhaustive()
    }
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for DecoderMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderMemory").field("pages", &self.pages()).finish_non_exhaustive()
    }
}
