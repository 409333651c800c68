//! Idempotency keys: a call that is repeated is not done twice.
//!
//! ```text
//! claim(caller, key, request) -> New        do it, then answer(caller, key, ...)
//!                             -> Answered   it was done: give this answer again
//!                             -> Running    this process is doing it
//!                             -> Abandoned  a process before this one began it and left no answer: look what came of it
//!                             -> Other      the key was used for another request: refuse
//! ```
//!
//! A claim is made in the database or not at all, since two processes must not both get it. The answer goes the way of
//! all records that must not be lost.

use crate::audit::check_text;
use crate::backend::Backend;
use crate::error::StoreError;
use crate::limits::{CLAIM_AGE_MAX, CLAIMS_MAX, RECORD_BYTES_MAX};
use crate::statement::{Done, Row, Statement, Value};
use crate::write::check_name;

/// What an idempotency key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody used it: the call is the caller's to do.
    New,
    /// The call was done, with this answer.
    Answered(String),
    /// This process has begun it and not answered yet.
    Running,
    /// An earlier process began it and left no answer. Whether it was done must be looked up; nothing does it again.
    Abandoned,
    /// The key belongs to another request of this caller.
    Other,
}

/// Makes a claim. Time is the store's steady clock.
pub(crate) async fn claim(
    backend: &Backend,
    instance: &str,
    caller: &str,
    key: &str,
    request: &str,
    now_ms: i64,
) -> Result<Claim, StoreError> {
    check_name("a caller's name", caller)?;
    check_name("an idempotency key", key)?;
    check_text("a request", request, RECORD_BYTES_MAX)?;
    // Requests may hold secrets: only their hash is kept.
    let request = blake3::hash(request.as_bytes()).to_hex().to_string();
    let life_ms = i64::try_from(CLAIM_AGE_MAX.as_millis()).unwrap_or(i64::MAX);
    let names: [Value; 2] = [caller.into(), key.into()];
    let expired = Statement::write(
        "DELETE FROM claims WHERE caller = $1 AND idempotency_key = $2 AND expires_at_ms <= $3",
        vec![names[0].clone(), names[1].clone(), now_ms.into()],
    );
    // The count stands in the same statement, so that a full table refuses and does not overflow.
    let make = Statement::write(
        "INSERT INTO claims (caller, idempotency_key, request, instance, claimed_at_ms, expires_at_ms) \
         SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT COUNT(*) FROM claims) < $7 \
         ON CONFLICT (caller, idempotency_key) DO NOTHING",
        vec![
            names[0].clone(),
            names[1].clone(),
            request.as_str().into(),
            instance.into(),
            now_ms.into(),
            now_ms.saturating_add(life_ms).into(),
            CLAIMS_MAX.into(),
        ],
    );
    let look = Statement::query(
        "SELECT request, instance, answer, claimed_at_ms FROM claims WHERE caller = $1 AND idempotency_key = $2",
        names.to_vec(),
    );
    let Done::All(answers) = backend.transact(vec![expired, make, look]).await? else {
        return Err(StoreError::Contended { what: "an idempotency key" });
    };
    let made = answers.get(1).is_some_and(|answer| answer.changed == 1);
    match answers.get(2).and_then(|answer| answer.rows.first()) {
        Some(_) if made => Ok(Claim::New),
        Some(row) => read(row, &request, instance),
        None => Err(StoreError::Unfit {
            what: format!("{CLAIMS_MAX} idempotency keys are in use; none is dropped before its time"),
        }),
    }
}

fn read(row: &Row, request: &str, instance: &str) -> Result<Claim, StoreError> {
    if row.text(0)? != request {
        return Ok(Claim::Other);
    }
    Ok(match row.optional_text(2)? {
        Some(answer) => Claim::Answered(answer.to_owned()),
        None if row.text(1)? == instance => Claim::Running,
        None => Claim::Abandoned,
    })
}
