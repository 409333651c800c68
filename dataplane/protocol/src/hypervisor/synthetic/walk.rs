//! Driving a [`Parser`] as a gateway does, and rebuilding the stream from what it found.

use super::super::{AssembleError, BlockId, PageSource, Parser, Span, assemble};
use crate::limits::{CARRY_BYTES_MAX, PAGE_BYTES};

/// The next bytes of a stream as they come from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes; cut short at the end of the stream.
    pub bytes: usize,
    /// Whether the parser may hold back an incomplete record.
    pub more: bool,
}

/// Parses `stream` piece by piece, held-back bytes in front of the next piece; the pieces repeat until the
/// stream ends, whose last bytes are parsed without `more`. Returns the spans of all calls.
///
/// # Panics
/// When the parser breaks its promise: spans that do not cover what it consumed, empty spans, bytes held back
/// without leave or beyond [`CARRY_BYTES_MAX`].
pub fn walk(parser: &mut Parser, stream: &[u8], pieces: &[Piece]) -> Vec<Span> {
    let mut spans = Vec::new();
    let (mut consumed, mut arrived) = (0, 0);
    let mut pieces = pieces.iter().copied().filter(|piece| piece.bytes > 0).cycle();
    while consumed < stream.len() {
        let piece = pieces.next().unwrap_or(Piece { bytes: stream.len(), more: true });
        arrived = stream.len().min(arrived + piece.bytes);
        let input = &stream[consumed..arrived];
        let more = piece.more && arrived < stream.len();
        let before = spans.len();
        let bytes = parser.parse(input, more, &mut spans);
        let covered: usize = spans[before..].iter().map(Span::len).sum();
        assert_eq!(covered, bytes, "the spans cover what was consumed");
        assert!(spans[before..].iter().all(|span| !span.is_empty()), "no span is empty");
        let held = input.len() - bytes;
        assert!(held == 0 || (more && held <= CARRY_BYTES_MAX), "{held} bytes held back, more: {more}");
        consumed += bytes;
    }
    spans
}

/// Neighbouring spans joined where they continue each other: the same for every way to cut a stream.
pub fn join_all(spans: &[Span]) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut().and_then(|last| last.join(*span)) {
            Some(both) => *joined.last_mut().expect("join found one") = both,
            None => joined.push(*span),
        }
    }
    joined
}

/// Takes `stream` apart along `spans` and assembles it again. Equal bytes prove that the spans name what stands
/// there: literals and page bodies are taken by place, words are made anew.
///
/// # Errors
/// Those of [`assemble`].
///
/// # Panics
/// When the spans do not cover the stream.
pub fn rebuild(spans: &[Span], stream: &[u8]) -> Result<Vec<u8>, AssembleError> {
    let mut literals = Vec::new();
    let mut pages = Pages::default();
    let mut at = 0;
    for span in spans {
        let bytes = &stream[at..at + span.len()];
        at += span.len();
        match span {
            Span::Opaque { .. } => literals.extend_from_slice(bytes),
            Span::ZeroRecords { .. } => {}
            Span::PageRecords { .. } => {
                let records = bytes.chunks_exact(super::super::PAGE_RECORD_BYTES);
                pages.bodies.extend(records.filter_map(|record| record.last_chunk::<PAGE_BYTES>()));
            }
            Span::PageBodies { .. } => {
                pages.bodies.extend(bytes.chunks_exact(PAGE_BYTES).filter_map(|page| page.first_chunk()));
            }
        }
    }
    assert_eq!(at, stream.len(), "the spans cover the stream");
    let mut out = Vec::new();
    assemble(spans, &literals, &mut pages, stream.len(), &mut out)?;
    Ok(out)
}

/// The pages of a stream in its order.
#[derive(Default)]
struct Pages<'a> {
    bodies: Vec<&'a [u8; PAGE_BYTES]>,
    next: usize,
}

impl PageSource for Pages<'_> {
    fn page(&mut self, _: BlockId, _: u64) -> Option<&[u8; PAGE_BYTES]> {
        let page = self.bodies.get(self.next).copied();
        self.next += 1;
        page
    }
}
