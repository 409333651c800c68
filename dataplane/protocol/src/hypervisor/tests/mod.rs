//! What the parser finds in streams whose every byte is known.

mod captures;
mod cuts;
mod main_connection;
mod multifd_connection;

use super::synthetic::{Piece, join_all, rebuild, walk};
use super::{Parser, Span, StreamProgress};

/// All of `stream` in one call: its spans, joined, and what the parser then knows.
fn parse_whole(stream: &[u8]) -> (Vec<Span>, StreamProgress) {
    let mut parser = Parser::new();
    let spans = walk(&mut parser, stream, &[Piece { bytes: stream.len(), more: false }]);
    assert_eq!(rebuild(&spans, stream).unwrap(), stream);
    (join_all(&spans), parser.progress())
}

/// Spans of everything but the opaque bytes.
fn structure(spans: &[Span]) -> Vec<Span> {
    spans.iter().copied().filter(|span| !matches!(span, Span::Opaque { .. })).collect()
}
