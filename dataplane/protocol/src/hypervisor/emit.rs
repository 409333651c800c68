//! Pushing spans so that what continues is one span.

use super::span::{BlockId, Span};

/// Appends to a list of spans, joining each to the one before it where they continue each other. Spans that were
/// in the list before are left alone.
pub(super) struct Emitter<'a> {
    spans: &'a mut Vec<Span>,
    start: usize,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(spans: &'a mut Vec<Span>) -> Self {
        let start = spans.len();
        Self { spans, start }
    }

    /// Appends a span that covers at least one byte.
    pub(super) fn push(&mut self, span: Span) {
        if self.spans.len() > self.start
            && let Some(last) = self.spans.last_mut()
            && let Some(joined) = last.join(span)
        {
            *last = joined;
            return;
        }
        self.spans.push(span);
    }

    /// Appends `len` opaque bytes.
    pub(super) fn opaque(&mut self, mut len: usize) {
        while len > 0 {
            // A span counts in 32 bits; a longer run becomes several.
            let part = u32::try_from(len).unwrap_or(u32::MAX);
            self.push(Span::Opaque { len: part });
            len -= part as usize;
        }
    }

    /// Appends pages without headers.
    pub(super) fn bodies(&mut self, block: BlockId, offset: u64, count: u32) {
        self.push(Span::PageBodies { block, offset, count });
    }
}
