//! Hypervisor streams: what a migration stream consists of, found without changing a byte of it.
//!
//! A [`Parser`] walks the bytes that a hypervisor writes and names what they are ([`Span`]); [`assemble`] turns
//! spans, literals and pages back into the same bytes. Whatever the parser does not know is [`Span::Opaque`]: a
//! mistake costs compression, never exactness.
//!
//! Read from QEMU 7.2 and later: the main connection (`migration/savevm.c`, `migration/ram.c`), multifd
//! connections (`migration/multifd.c`) and the postcopy preempt connection. Page headers are read, page bodies
//! are stepped over.
//!
//! ```mermaid
//! flowchart LR
//!   bytes --> sniff
//!   sniff -->|QEVM, version 3| main_stream --> ram
//!   sniff -->|multifd handshake| multifd
//!   sniff -->|RAM record| ram
//!   sniff -->|TLS, anything else| opaque[opaque for ever]
//!   main_stream -->|not understood| opaque
//! ```

mod blocks;
mod bytes;
mod emit;
mod main_stream;
mod multifd;
mod parser;
mod progress;
mod ram;
mod sniff;
mod span;
#[cfg(any(test, feature = "synthetic"))]
pub mod synthetic;
#[cfg(test)]
mod tests;
mod writer;

pub use parser::Parser;
pub use progress::{StreamKind, StreamPhase, StreamProgress};
pub use span::{BlockId, PAGE_RECORD_BYTES, Span, WORD_BYTES, ZERO_RECORD_BYTES};
pub use writer::{AssembleError, PageSource, assemble};
