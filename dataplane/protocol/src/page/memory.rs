//! What each end of a lane remembers of it.

use super::store::PageStore;
use super::terms::LaneTerms;
use super::window::{Window, WindowDecoder, WindowEncoder};

/// What one end remembers of one lane: the last versions of its pages, and its end of the zstd window.
pub struct LaneMemory<W> {
    pub(super) store: PageStore,
    pub(super) window: Option<W>,
}

/// What an encoder remembers: what its decoder will have decoded.
pub type EncoderMemory = LaneMemory<WindowEncoder>;

/// What a decoder remembers.
pub type DecoderMemory = LaneMemory<WindowDecoder>;

#[expect(private_bounds, reason = "a lane has these two ends and no other")]
impl<W: Window> LaneMemory<W> {
    /// Of a lane that has carried nothing.
    pub fn new(terms: LaneTerms) -> Self {
        Self { store: PageStore::new(terms.pages), window: terms.window_log.map(W::new) }
    }

    /// Bytes taken, tables included.
    pub fn held_bytes(&self) -> u64 {
        self.store.held_bytes() + self.window.as_ref().map_or(0, W::held_bytes)
    }

    /// Pages whose last version is kept.
    pub fn pages(&self) -> usize {
        self.store.pages()
    }
}

/// Guest bytes stay out of logs.
impl<W> std::fmt::Debug for LaneMemory<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneMemory").field("pages", &self.store.pages()).finish_non_exhaustive()
    }
}
