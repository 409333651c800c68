//! The audit log: who asked for what, and what came of it, in entries that are chained by their hashes.
//!
//! ```text
//! hash[n] = BLAKE3(context "novacron audit entry v1"; hash[n-1], seq, at_ms, id, actor, role, origin, method, subject,
//!                  outcome, detail)        numbers big-endian; texts with their length in front
//! ```
//!
//! **What this shows.** Whoever changes, removes, inserts or reorders entries between the first and the last is found,
//! by number: an entry that was changed no longer has its hash; one whose hash was made anew no longer fits the next.
//!
//! **What it does not show by itself.** Nothing in the chain says where it ends, and there is no key in it: whoever may
//! write the database can drop the last entries and set the head back, or write a chain of his own from some entry on.
//! Against that the head must be kept where he cannot write. It is in the database, in a file beside it
//! ([`anchor`]; after each entry), and every call that reads it is a place to keep it: printed, logged to another
//! host, read by a fleet manager. Whoever gives an old head to [`Verifier::expect`] learns whether what was there then
//! is there still. While the database is away, entries wait in the spool and are chained when they are stored: until
//! then nothing protects them but the file's mode.

pub mod anchor;
mod chain;
mod entry;
mod lines;

pub use chain::{Broken, Fault, Verifier, seal};
pub(crate) use entry::check_text;
pub(crate) use entry::random_id;
pub use entry::{AuditDraft, AuditEntry, AuditOutcome, Head};
pub use lines::{LineFault, verify_lines, write_line};
