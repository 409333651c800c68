//! What is written down of calls that change something: before, after, and the answer for a repeat.
//!
//! ```text
//! claim the key ── entry "begun", on disk ── the call ── entry "done" or "failed" ── the answer, for repeats
//!       │ used: its answer, or why not    └ cannot be: refused, and the key is free again
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use novacron_control_api::{ErrorCode, RpcError};
use novacron_store::audit::{AuditDraft, AuditOutcome};
use novacron_store::limits::AUDIT_DETAIL_BYTES_MAX;
use novacron_store::{Claim, Kept, Store, StoreError};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::limits::{CLAIM_WAIT, UNBEGUN_KEPT};
use crate::records::Records;

/// Caller and key.
type Name = (String, String);

/// The books: the store, and what only this process knows of its keys.
pub(crate) struct Books {
    records: Arc<Records>,
    /// Keys that were claimed, or may have been, for calls that were then not begun: the next call may have them. One
    /// claim is made at a time, so that of two callers with one key only one gets it.
    unbegun: tokio::sync::Mutex<BTreeSet<Name>>,
    /// Why an entry could not be written the last time.
    trouble: Mutex<Option<String>>,
}

/// A call that is to be written down.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) caller: String,
    pub(crate) role: String,
    /// `unix` or `tls`.
    pub(crate) origin: &'static str,
    pub(crate) method: &'static str,
    pub(crate) key: Option<String>,
    /// Parameters as they were meant: only a hash of them is kept, to tell a repeat from another call.
    pub(crate) meant: String,
    /// Secrets are hidden in them.
    pub(crate) params: Value,
}

/// What is known of a key.
enum Known {
    /// Nothing: carry it out.
    New,
    /// It was answered so.
    Answered(Result<Value, RpcError>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer as it is kept.
fn kept_answer(answer: &Result<Value, RpcError>) -> Value {
    match answer {
        Ok(value) => json!({"result": value}),
        Err(error) => json!({"error": error}),
    }
}

fn read_answer(kept: &str) -> Option<Result<Value, RpcError>> {
    let mut kept: Value = serde_json::from_str(kept).ok()?;
    if let Some(result) = kept.get_mut("result") {
        return Some(Ok(result.take()));
    }
    serde_json::from_value(kept.get("error")?.clone()).ok().map(Err)
}

fn not_recorded(why: &str) -> RpcError {
    let next = "node.health tells how the database is; make room or bring it back, then call again";
    RpcError::new(ErrorCode::NotRecorded, format!("{why}; nothing was done"), "nothing", next)
}

/// A detail that fits an entry: what is longer is named by its length, since no valid call is.
fn detail(name: &str, value: &Value, key: Option<&str>) -> String {
    let made = |value: &Value| {
        let mut all = serde_json::Map::new();
        all.insert(name.to_owned(), value.clone());
        all.extend(key.map(|key| ("idempotency_key".to_owned(), json!(key))));
        Value::Object(all).to_string()
    };
    let text = made(value);
    if text.len() <= AUDIT_DETAIL_BYTES_MAX {
        return text;
    }
    made(&json!(format!("({} bytes, left out)", value.to_string().len())))
}

impl Recorded {
    fn draft(&self, outcome: AuditOutcome, detail: String) -> Result<AuditDraft, StoreError> {
        let mut draft = AuditDraft::new(&self.caller, self.method, outcome)?;
        draft.role.clone_from(&self.role);
        self.origin.clone_into(&mut draft.origin);
        let subject = ["session", "peer"].iter().find_map(|name| self.params.get(name)?.as_str());
        // A caller who may not call may have written anything there.
        draft.subject = subject.unwrap_or_default().chars().filter(|c| *c != '\0').take(64).collect();
        draft.detail = detail;
        Ok(draft)
    }
}

impl Books {
    pub(crate) fn new(records: Arc<Records>) -> Self {
        Self { records, unbegun: tokio::sync::Mutex::default(), trouble: Mutex::default() }
    }

    /// Why the last entry could not be written.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    async fn write(&self, of: &Recorded, outcome: AuditOutcome, detail: String) -> Result<Kept, StoreError> {
        let written = async {
            let store = self.records.store()?;
            store.audit(of.draft(outcome, detail)?).await
        };
        let written = written.await;
        *lock(&self.trouble) = written.as_ref().err().map(ToString::to_string);
        written
    }

    /// A caller asked for what it may not do.
    pub(crate) async fn refused(&self, of: &Recorded) {
        let detail = detail("params", &of.params, None);
        if let Err(why) = self.write(of, AuditOutcome::Refused, detail).await {
            tracing::error!("a refusal is not written down: {why}");
        }
    }

    /// Carries a call out between its two entries. It goes on when its caller hangs up.
    pub(crate) async fn carry_out<F>(self: &Arc<Self>, of: Recorded, work: F) -> Result<Value, RpcError>
    where
        F: Future<Output = Result<Value, RpcError>> + Send + 'static,
    {
        let books = Arc::clone(self);
        let whole = tokio::spawn(async move {
            if let Some(why) = books.records.broken() {
                return Err(not_recorded(&why));
            }
            if let Some(key) = &of.key {
                match books.claim(&of, key).await? {
                    Known::New => {}
                    Known::Answered(answer) => return answer,
                }
            }
            books.between(of, work).await
        });
        whole.await.unwrap_or_else(|error| {
            let lost = "whether the call was carried out is unknown";
            Err(RpcError::new(
                ErrorCode::InternalError,
                error.to_string(),
                lost,
                "look at the log, then at the session",
            ))
        })
    }

    /// Asks the database whether the call is new.
    async fn claim(&self, of: &Recorded, key: &str) -> Result<Known, RpcError> {
        let name = (of.caller.clone(), key.to_owned());
        let store = self.records.store().map_err(|error| not_recorded(&error.to_string()))?;
        let request = format!("{} {}", of.method, of.meant);
        let Ok(mut unbegun) = timeout(CLAIM_WAIT, self.unbegun.lock()).await else {
            let why = format!(
                "other calls have waited for {} s for the database to look up their keys",
                CLAIM_WAIT.as_secs()
            );
            return Err(not_recorded(&why));
        };
        let claim = match store.claim(&of.caller, key, &request).await {
            Ok(claim) => claim,
            Err(error) => {
                // It may have been claimed all the same: its answer was lost.
                remember(&mut unbegun, name);
                let why = format!("the idempotency key cannot be looked up: {error}");
                return Err(not_recorded(&why));
            }
        };
        let never_begun = match claim {
            Claim::New | Claim::Running => unbegun.remove(&name),
            _ => false,
        };
        drop(unbegun);
        let refused =
            |code, message: &str, lost: &str, next: &str| Err(RpcError::new(code, message, lost, next));
        match claim {
            Claim::New => Ok(Known::New),
            Claim::Running if never_begun => Ok(Known::New),
            Claim::Running => refused(
                ErrorCode::LimitReached,
                "the same call is being carried out now, or its answer waits for the database",
                "nothing",
                "call again in a moment with the same key",
            ),
            Claim::Answered(answer) => match read_answer(&answer) {
                Some(answer) => Ok(Known::Answered(answer)),
                None => refused(
                    ErrorCode::InternalError,
                    "the kept answer cannot be read",
                    "the answer",
                    "look at the audit log",
                ),
            },
            Claim::Abandoned => refused(
                ErrorCode::InternalError,
                "the same call was begun and the process that did so ended before its answer",
                "whether it was carried out is unknown",
                "look with session.list or node.info, then use a new key",
            ),
            Claim::Other => refused(
                ErrorCode::KeyReused,
                "the idempotency key was used with another method or other parameters",
                "nothing",
                "use a new key for another call",
            ),
        }
    }

    /// Writes that the call is about to be done; where that is not on disk, the call is not done.
    async fn begin(&self, of: &Recorded) -> Result<(), RpcError> {
        let why = match self
            .write(of, AuditOutcome::Begun, detail("params", &of.params, of.key.as_deref()))
            .await
        {
            Ok(Kept::Stored | Kept::Spooled { on_disk: true }) => return Ok(()),
            Ok(Kept::Spooled { on_disk: false }) => {
                // It will be in the log once there is room, so the log must also say that nothing came of it.
                let why =
                    "neither the database nor the disk beside it takes the entry that comes before a call";
                let told = detail("error", &json!(why), of.key.as_deref());
                if let Err(error) = self.write(of, AuditOutcome::Refused, told).await {
                    tracing::error!(method = of.method, "that nothing was done is not written down: {error}");
                }
                *lock(&self.trouble) = Some(why.to_owned());
                why.to_owned()
            }
            Err(error) => error.to_string(),
        };
        if let Some(key) = &of.key {
            remember(&mut *self.unbegun.lock().await, (of.caller.clone(), key.clone()));
        }
        tracing::error!(caller = of.caller, method = of.method, "refused: {why}");
        Err(not_recorded(&why))
    }

    async fn between(
        &self,
        of: Recorded,
        work: impl Future<Output = Result<Value, RpcError>>,
    ) -> Result<Value, RpcError> {
        self.begin(&of).await?;
        let answer = work.await;
        let (outcome, told) = match &answer {
            Ok(_) => (AuditOutcome::Done, String::new()),
            Err(error) => (AuditOutcome::Failed, detail("error", &json!(error), None)),
        };
        tracing::info!(
            caller = of.caller,
            role = of.role,
            method = of.method,
            done = answer.is_ok(),
            "call carried out"
        );
        if let Err(why) = self.write(&of, outcome, told).await {
            tracing::error!(
                caller = of.caller,
                method = of.method,
                "carried out, but its end is not written down: {why}"
            );
        }
        if let Some(key) = &of.key {
            let text = kept_answer(&answer).to_string();
            let kept = match self.records.store() {
                Ok(store) => Store::answer(&store, &of.caller, key, text).await.map(drop),
                Err(error) => Err(error),
            };
            // A repeat is then told that it cannot be known whether it is over: it is not carried out twice.
            if let Err(why) = kept {
                tracing::error!(caller = of.caller, method = of.method, "its answer is not kept: {why}");
            }
        }
        answer
    }
}

/// Beyond the bound a key stays taken for a day, which is the safe side.
fn remember(unbegun: &mut BTreeSet<Name>, name: Name) {
    if unbegun.len() < UNBEGUN_KEPT {
        unbegun.insert(name);
    }
}

#[cfg(test)]
mod tests;
