//! One entry, and where a chain ends.

use std::fmt;
use std::str::FromStr;

use novacron_control_api::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::limits::{AUDIT_DETAIL_BYTES_MAX, TEXT_BYTES_MAX};

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It is about to be done. An entry of what came of it follows, unless the process dies in between.
    Begun,
    /// It was done.
    Done,
    /// It was refused: not allowed, or not possible. Nothing was changed.
    Refused,
    /// It was tried and failed.
    Failed,
}

impl AuditOutcome {
    /// Its name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for AuditOutcome {
    type Err = StoreError;

    fn from_str(name: &str) -> Result<Self, StoreError> {
        [Self::Begun, Self::Done, Self::Refused, Self::Failed]
            .into_iter()
            .find(|outcome| outcome.name() == name)
            .ok_or_else(|| StoreError::Damaged { what: format!("'{name}' is no outcome of an audit entry") })
    }
}

/// What is to be written to the log. The store numbers and chains it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDraft {
    /// Tells this entry from all others, so that writing it twice stores it once: 32 hex digits, drawn at random.
    pub id: String,
    /// When, by this host's clock. The order of entries is that of their numbers, whatever the clock does.
    pub at: Timestamp,
    /// Who: a certificate's identity, `uid:1000`, a token's name. Never a secret.
    pub actor: String,
    /// In which role: `viewer`, `operator`, `admin`; empty where it had none.
    pub role: String,
    /// Over which way: `unix`, an address.
    pub origin: String,
    /// The call's method.
    pub method: String,
    /// What it was about: a session, a setting's name; may be empty.
    pub subject: String,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// More, as JSON; the caller has taken secrets out. May be empty.
    pub detail: String,
}

impl AuditDraft {
    /// An entry of now, with a fresh id and empty `role`, `origin`, `subject` and `detail`.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] where the system has no random numbers.
    pub fn new(
        actor: impl Into<String>,
        method: impl Into<String>,
        outcome: AuditOutcome,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            id: random_id()?,
            at: Timestamp::now(),
            actor: actor.into(),
            role: String::new(),
            origin: String::new(),
            method: method.into(),
            subject: String::new(),
            outcome,
            detail: String::new(),
        })
    }

    /// Checks every bound.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let texts = [
            ("an audit entry's id", &self.id),
            ("an audit entry's actor", &self.actor),
            ("an audit entry's role", &self.role),
            ("an audit entry's origin", &self.origin),
            ("an audit entry's method", &self.method),
            ("an audit entry's subject", &self.subject),
        ];
        for (what, text) in texts {
            check_text(what, text, TEXT_BYTES_MAX)?;
        }
        check_text("an audit entry's detail", &self.detail, AUDIT_DETAIL_BYTES_MAX)
    }
}

/// 128 random bits as hex.
pub(crate) fn random_id() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::Unfit { what: format!("no random number for an id: {error}") })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Checks what both databases can hold as text: bounded, without NUL (PostgreSQL has no such text).
pub(crate) fn check_text(what: &'static str, text: &str, bytes_max: usize) -> Result<(), StoreError> {
    if text.len() > bytes_max {
        return Err(StoreError::TooLarge { what, bytes: text.len(), bytes_max });
    }
    if text.contains('\0') {
        return Err(StoreError::Unfit { what: format!("{what} holds a NUL character") });
    }
    Ok(())
}

/// An entry as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// What it says.
    #[serde(flatten)]
    pub draft: AuditDraft,
    /// The hash of the entry before it; zeros for the first.
    pub previous: Digest,
    /// Its own hash, over all of the above.
    pub hash: Digest,
}

/// Where a chain stands: the number and hash of its last entry. Written as `SEQ:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last entry's number; 0 before the first.
    pub seq: u64,
    /// The last entry's hash.
    pub hash: Digest,
}

impl Head {
    /// Before the first entry.
    pub const START: Self = Self { seq: 0, hash: Digest([0; 32]) };
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let parsed = text
            .trim()
            .split_once(':')
            .and_then(|(seq, hash)| Some(Self { seq: seq.parse().ok()?, hash: hash.parse().ok()? }));
        parsed.ok_or_else(|| StoreError::Unfit {
            what: "an audit log's head is written NUMBER:HASH".to_owned(),
        })
    }
}
