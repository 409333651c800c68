//! Hypervisor streams: what a migration stream consists of, found without changing a byte of it.
//!
//! A parser walks the bytes that a hypervisor writes and names what they are ([`Span`]); a writer turns spans,
//! literals and pages back into the same bytes. Whatever the parser does not know is [`Span::Opaque`]: a
//! mistake costs compression, never exactness.

mod span;

pub use span::{BlockId, PAGE_RECORD_BYTES, Span, WORD_BYTES, ZERO_RECORD_BYTES};

mod parser;
mod progress;
pub use parser::Parser;
pub use progress::{Phase, StreamKind, StreamProgress};
