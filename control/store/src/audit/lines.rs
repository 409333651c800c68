//! The log as JSON lines: one entry a line, as it is exported and kept elsewhere.

use std::io::{self, BufRead, Read, Write};

use super::chain::{Broken, Verifier};
use super::entry::{AuditEntry, Head};
use crate::limits::AUDIT_LINE_BYTES_MAX;

/// Writes one entry as a line.
///
/// # Errors
/// The writer's.
pub fn write_line(entry: &AuditEntry, to: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *to, entry)?;
    to.write_all(b"\n")
}

/// Why an exported log is not to be believed, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LineFault {
    /// The chain is broken.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A line is no entry.
    #[error("line {line} is no audit entry: {why}. Lines before it are intact")]
    Unreadable {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The file could not be read.
    #[error("line {line} cannot be read. Lines before it are intact")]
    Read {
        /// Its number, from 1.
        line: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Verifies an export that starts after `base`, and says where it ends. `kept` are heads from elsewhere.
///
/// # Errors
/// The first fault.
pub fn verify_lines(from: &mut impl BufRead, base: Head, kept: &[Head]) -> Result<Head, LineFault> {
    let mut verifier = kept.iter().fold(Verifier::new(base), |verifier, kept| verifier.expect(*kept));
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let limit = AUDIT_LINE_BYTES_MAX as u64 + 1;
        let read = from.by_ref().take(limit).read_until(b'\n', &mut text);
        if read.map_err(|source| LineFault::Read { line, source })? == 0 {
            break;
        }
        if text.len() > AUDIT_LINE_BYTES_MAX {
            return Err(LineFault::Unreadable {
                line,
                why: format!("longer than {AUDIT_LINE_BYTES_MAX} bytes"),
            });
        }
        let entry: AuditEntry = serde_json::from_slice(&text)
            .map_err(|error| LineFault::Unreadable { line, why: error.to_string() })?;
        // What JSON would let pass (more spaces, a second field of the same name) is a change as well.
        let mut written = Vec::with_capacity(text.len());
        write_line(&entry, &mut written).map_err(|source| LineFault::Read { line, source })?;
        if written != text {
            return Err(LineFault::Unreadable {
                line,
                why: "it is not written as the log writes it".to_owned(),
            });
        }
        verifier.push(&entry)?;
    }
    Ok(verifier.finish()?)
}
