//! What may be written while the database is away: records that must not be lost.
//!
//! Each is idempotent. Written twice, as after a lost answer or a restart in the middle of a replay, it is stored once.

use novacron_control_api::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::{AuditDraft, check_text};
use crate::error::StoreError;
use crate::limits::{RECORD_BYTES_MAX, SAMPLES_AT_ONCE_MAX, TEXT_BYTES_MAX};
use crate::record::{MigrationRecord, PathSample, SeenSession, session_name};
use crate::statement::Statement;

/// One record on its way into the database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Write {
    /// A session as seen.
    Session(Box<SeenSession>),
    /// A migration as it stands.
    Migration(Box<MigrationRecord>),
    /// Samples of paths.
    Samples(Vec<PathSample>),
    /// An entry of the audit log, chained when it is stored.
    Audit(Box<AuditDraft>),
    /// What a call with an idempotency key was answered.
    Answer {
        /// Whose key.
        caller: String,
        /// The key.
        key: String,
        /// The answer.
        answer: String,
    },
}

impl Write {
    /// Checks every bound, so that what is spooled can be stored later.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Session(seen) => {
                check_name("a gateway's name", &seen.gateway)?;
                json("a session's record", &seen.record).map(drop)
            }
            Self::Migration(record) => json("a migration's record", record).map(drop),
            Self::Samples(samples) if samples.len() > SAMPLES_AT_ONCE_MAX => {
                let what = format!("{} samples at once; {SAMPLES_AT_ONCE_MAX} are taken", samples.len());
                Err(StoreError::Unfit { what })
            }
            Self::Samples(samples) => samples.iter().try_for_each(|sample| {
                check_name("a sample's peer", &sample.peer)?;
                check_name("a sample's measurer", &sample.measured_by)
            }),
            Self::Audit(draft) => draft.check(),
            Self::Answer { caller, key, answer } => {
                check_name("a caller's name", caller)?;
                check_name("an idempotency key", key)?;
                check_text("an answer", answer, RECORD_BYTES_MAX)
            }
        }
    }

    /// The statements that store it; none for an audit entry, which needs the head first.
    pub(crate) fn statements(&self) -> Result<Vec<Statement>, StoreError> {
        Ok(match self {
            Self::Session(seen) => vec![session(seen)?],
            Self::Migration(record) => vec![migration(record)?],
            Self::Samples(samples) => samples.iter().map(sample).collect(),
            Self::Audit(_) => Vec::new(),
            Self::Answer { caller, key, answer } => vec![Statement::write(
                "UPDATE claims SET answer = $1 WHERE caller = $2 AND idempotency_key = $3 AND answer IS NULL",
                vec![answer.as_str().into(), caller.as_str().into(), key.as_str().into()],
            )],
        })
    }
}

/// Checks a text that names something, which may not be empty.
pub(crate) fn check_name(what: &'static str, text: &str) -> Result<(), StoreError> {
    if text.is_empty() {
        return Err(StoreError::Unfit { what: format!("{what} is empty") });
    }
    check_text(what, text, TEXT_BYTES_MAX)
}

/// A record as it is stored.
pub(crate) fn json(what: &'static str, record: &impl Serialize) -> Result<String, StoreError> {
    let text = serde_json::to_string(record)
        .map_err(|error| StoreError::Unfit { what: format!("{what} cannot be written as JSON: {error}") })?;
    if text.len() > RECORD_BYTES_MAX {
        return Err(StoreError::TooLarge { what, bytes: text.len(), bytes_max: RECORD_BYTES_MAX });
    }
    Ok(text)
}

/// Milliseconds since 1970, as stored.
pub(crate) fn unix_ms(at: Timestamp) -> i64 {
    i64::try_from(at.unix_ms()).unwrap_or(i64::MAX)
}

fn session(seen: &SeenSession) -> Result<Statement, StoreError> {
    let record = &seen.record;
    // The stored name of a state is the one it has on the wire.
    let state = serde_json::to_value(record.state).ok().and_then(|state| state.as_str().map(str::to_owned));
    Ok(Statement::write(
        "INSERT INTO sessions (name, gateway, state, live, opened_at_ms, seen_at_ms, record) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO UPDATE SET state = excluded.state, \
         live = excluded.live, opened_at_ms = excluded.opened_at_ms, seen_at_ms = excluded.seen_at_ms, \
         record = excluded.record",
        vec![
            session_name(&seen.gateway, record.session).into(),
            seen.gateway.as_str().into(),
            state.unwrap_or_default().into(),
            (!record.state.is_ended()).into(),
            unix_ms(record.opened_at).into(),
            unix_ms(seen.seen_at).into(),
            json("a session's record", record)?.into(),
        ],
    ))
}

fn migration(record: &MigrationRecord) -> Result<Statement, StoreError> {
    Ok(Statement::write(
        "INSERT INTO migrations (name, outcome, live, started_at_ms, record) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET outcome = excluded.outcome, live = excluded.live, \
         started_at_ms = excluded.started_at_ms, record = excluded.record",
        vec![
            record.session.to_string().into(),
            record.outcome.name().into(),
            record.outcome.is_live().into(),
            unix_ms(record.started_at).into(),
            json("a migration's record", record)?.into(),
        ],
    ))
}

fn sample(sample: &PathSample) -> Statement {
    Statement::write(
        "INSERT INTO path_samples (peer, at_ms, measured_by, rtt_us, bandwidth_bytes_per_s, loss_ppm) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (peer, at_ms, measured_by) DO NOTHING",
        vec![
            sample.peer.as_str().into(),
            unix_ms(sample.at).into(),
            sample.measured_by.as_str().into(),
            sample.rtt_us.into(),
            sample.bandwidth_bytes_per_s.into(),
            sample.loss_ppm.into(),
        ],
    )
}
