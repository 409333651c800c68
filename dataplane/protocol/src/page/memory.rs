//! What each end of a lane remembers of it.

use std::sync::Arc;

use super::content::{ContentKey, KnownContent, ReceivedContent, SentContent};
use super::store::PageStore;
use super::terms::LaneTerms;
use super::window::{Window, WindowDecoder, WindowEncoder};

/// What one end remembers of one lane: the last versions of its pages, and its end of the zstd window.
#[expect(private_bounds, reason = "a lane has these two ends and no other")]
pub struct LaneMemory<W: Window> {
    pub(super) store: PageStore,
    pub(super) window: Option<W>,
    /// What this end needs of the content store, where there is one.
    pub(super) content: Option<W::Content>,
    /// What the last part was about.
    pub(super) last: W::Last,
}

/// What an encoder remembers: what its decoder will have decoded.
pub type EncoderMemory = LaneMemory<WindowEncoder>;

/// What a decoder remembers.
pub type DecoderMemory = LaneMemory<WindowDecoder>;

#[expect(private_bounds, reason = "a lane has these two ends and no other")]
impl<W: Window> LaneMemory<W> {
    /// Of a lane that has carried nothing.
    pub fn new(terms: LaneTerms) -> Self {
        Self {
            store: PageStore::new(terms.pages),
            window: terms.window_log.map(W::new),
            content: None,
            last: W::Last::default(),
        }
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

impl EncoderMemory {
    /// Pages may be references to what the far side's store is known to hold.
    pub fn with_content(mut self, known: Option<Arc<KnownContent>>) -> Self {
        self.content = known;
        self
    }

    /// What the part encoded last carries whole, and what it refers to.
    pub fn take_content(&mut self) -> SentContent {
        std::mem::take(&mut self.last)
    }
}

impl DecoderMemory {
    /// Parts may refer to the content store of this key.
    pub fn with_content(mut self, key: Option<Arc<ContentKey>>) -> Self {
        self.content = key;
        self
    }

    /// What the part decoded last brought whole, and what it left to be put in.
    pub fn take_content(&mut self) -> ReceivedContent {
        std::mem::take(&mut self.last)
    }
}

/// Guest bytes stay out of logs.
impl<W: Window> std::fmt::Debug for LaneMemory<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneMemory").field("pages", &self.store.pages()).finish_non_exhaustive()
    }
}
