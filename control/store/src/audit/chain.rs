//! Making the chain, and finding where it is broken.

use novacron_control_api::Digest;

use super::entry::{AuditDraft, AuditEntry, Head};

/// Keeps these hashes apart from all others that BLAKE3 is used for.
const CONTEXT: &str = "novacron audit entry v1";

fn hash(seq: u64, previous: &Digest, draft: &AuditDraft) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&previous.0);
    hasher.update(&seq.to_be_bytes());
    hasher.update(&draft.at.unix_ms().to_be_bytes());
    let texts = [
        draft.id.as_str(),
        &draft.actor,
        &draft.role,
        &draft.origin,
        &draft.method,
        &draft.subject,
        draft.outcome.name(),
        &draft.detail,
    ];
    for text in texts {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The entry that follows `head`.
pub fn seal(head: Head, draft: AuditDraft) -> AuditEntry {
    let seq = head.seq + 1;
    AuditEntry { seq, hash: hash(seq, &head.hash, &draft), previous: head.hash, draft }
}

impl AuditEntry {
    /// Where the chain stands with this entry as its last.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }
}

/// In what way a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its content is not what was hashed.
    #[error("it was changed after it was written")]
    Changed,
    /// It says that another entry came before it.
    #[error("it does not follow the entry before it: one of the two was written anew, removed or moved")]
    Unlinked,
    /// Another number stands in its place.
    #[error("entry {found} stands in its place: it was removed, or entries were moved")]
    Missing {
        /// The number found.
        found: u64,
    },
    /// Nothing stands in its place, although a head says that it was there.
    #[error("it is gone, with all after it: the log once reached entry {last}")]
    Truncated {
        /// The last entry that there was.
        last: u64,
    },
    /// It is not the entry that a head of back then names.
    #[error("it is another than when its hash was kept: the log was written anew from here or before")]
    Rewritten,
    /// A kept head is older than the oldest entry, which retention has let go of.
    #[error("it was let go of by retention before it could be compared with its kept hash")]
    LetGo,
    /// It stands after the entry that the database says is the last.
    #[error("the database says that the log ends before it")]
    Beyond,
}

/// The first entry at which a chain is broken. Entries before it are as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the audit log is broken at entry {seq}: {fault}. Keep a copy as it is; entries before it are intact"
)]
pub struct Broken {
    /// Its number.
    pub seq: u64,
    /// How.
    pub fault: Fault,
}

/// Follows a chain, entry by entry.
#[derive(Debug, Clone)]
pub struct Verifier {
    at: Head,
    start: Head,
    expected: Vec<(Head, bool)>,
}

impl Verifier {
    /// Starts after `base`: [`Head::START`], or the last entry that retention has let go of.
    pub fn new(base: Head) -> Self {
        Self { at: base, start: base, expected: Vec::new() }
    }

    /// Expects the chain to pass through a head that was kept elsewhere.
    #[must_use]
    pub fn expect(mut self, kept: Head) -> Self {
        let met = kept == self.at;
        self.expected.push((kept, met));
        self
    }

    /// Where the chain stands.
    pub fn head(&self) -> Head {
        self.at
    }

    /// Follows one entry.
    ///
    /// # Errors
    /// [`Broken`]; the verifier stays where it was.
    pub fn push(&mut self, entry: &AuditEntry) -> Result<(), Broken> {
        let seq = self.at.seq + 1;
        let broken = |fault| Err(Broken { seq, fault });
        if entry.seq != seq {
            return broken(Fault::Missing { found: entry.seq });
        }
        if entry.previous != self.at.hash {
            return broken(Fault::Unlinked);
        }
        if entry.hash != hash(seq, &entry.previous, &entry.draft) {
            return broken(Fault::Changed);
        }
        for (kept, met) in &mut self.expected {
            if kept.seq == seq {
                if kept.hash != entry.hash {
                    return broken(Fault::Rewritten);
                }
                *met = true;
            }
        }
        self.at = entry.head();
        Ok(())
    }

    /// Ends: every head that was expected must have been met.
    ///
    /// # Errors
    /// [`Broken`] at the first entry that is missing at the end, or before the start.
    pub fn finish(self) -> Result<Head, Broken> {
        let mut unmet: Vec<Head> =
            self.expected.iter().filter(|(_, met)| !met).map(|(kept, _)| *kept).collect();
        unmet.sort_by_key(|kept| kept.seq);
        for kept in unmet {
            if kept.seq > self.at.seq {
                return Err(Broken { seq: self.at.seq + 1, fault: Fault::Truncated { last: kept.seq } });
            }
            if kept.seq == self.start.seq {
                return Err(Broken { seq: kept.seq, fault: Fault::Rewritten });
            }
            // A chain that starts at its first entry passes through every number, so only one that was cut at the
            // front gets here; what was let go of cannot be compared any more, and that is said.
            if kept.seq < self.start.seq && kept != Head::START {
                return Err(Broken { seq: kept.seq, fault: Fault::LetGo });
            }
        }
        Ok(self.at)
    }
}
