//! A parser that knows no hypervisor yet: every byte is opaque.

use super::{Phase, Span, StreamKind, StreamProgress};

/// Walks one direction of a hypervisor's connection.
#[derive(Debug, Default)]
pub struct Parser {
    progress: StreamProgress,
}

impl Parser {
    /// At the start of a stream.
    pub fn new() -> Self {
        Parser { progress: StreamProgress { kind: StreamKind::Unknown, phase: Phase::Setup } }
    }

    /// Names what `input` consists of; returns how many of its bytes the spans cover.
    pub fn parse(&mut self, input: &[u8], _more: bool, spans: &mut Vec<Span>) -> usize {
        spans.push(Span::Opaque { len: input.len() as u32 });
        input.len()
    }

    /// What was found so far.
    pub fn progress(&self) -> &StreamProgress {
        &self.progress
    }
}
