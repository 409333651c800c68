//! What is written down of calls that change something: before, after, and the answer for a repeat.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use novacron_control_api::{ErrorCode, RpcError};
use serde_json::Value;

use crate::audit::{Audit, Stage, Told};
use crate::server::repeats::{Known, Repeats, kept_answer};

/// The audit log and the answers, once they are open.
#[derive(Default)]
pub(crate) struct Books {
    audit: Mutex<Option<Arc<Audit>>>,
    repeats: Mutex<Repeats>,
    /// Why the log could not be written the last time.
    trouble: Mutex<Option<String>>,
}

/// A call that is to be written down.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) caller: String,
    pub(crate) role: String,
    pub(crate) method: &'static str,
    pub(crate) key: Option<String>,
    pub(crate) params_hash: String,
    /// Secrets are hidden in them.
    pub(crate) params: Value,
}

impl Recorded {
    fn told(&self) -> Told<'_> {
        Told {
            caller: &self.caller,
            role: &self.role,
            method: self.method,
            key: self.key.as_deref(),
            params_hash: &self.params_hash,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Books {
    pub(crate) fn open(&self, audit: Audit, repeats: Repeats) {
        *lock(&self.audit) = Some(Arc::new(audit));
        *lock(&self.repeats) = repeats;
    }

    pub(crate) fn head(&self) -> Option<(u64, String)> {
        lock(&self.audit).as_ref().map(|audit| audit.head())
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    async fn write(&self, stage: Stage, of: &Recorded, answer: Value) -> Result<(), String> {
        let Some(audit) = lock(&self.audit).clone() else {
            return Err("the audit log is not open".to_owned());
        };
        let of = of.clone();
        let params =
            if stage == Stage::Begun || stage == Stage::Refused { of.params.clone() } else { Value::Null };
        // It waits for the disk: not on a thread that others wait for.
        let written =
            tokio::task::spawn_blocking(move || audit.write(stage, &of.told(), params, answer)).await;
        let written = written.unwrap_or_else(|error| Err(error.to_string()));
        *lock(&self.trouble) = written.as_ref().err().cloned();
        written
    }

    /// A caller asked for what it may not do.
    pub(crate) async fn refused(&self, of: &Recorded) {
        if let Err(why) = self.write(Stage::Refused, of, Value::Null).await {
            tracing::error!("a refusal is not written down: {why}");
        }
    }

    /// Carries a call out between its two entries. It goes on when its caller hangs up.
    pub(crate) async fn carry_out<F>(self: &Arc<Self>, of: Recorded, work: F) -> Result<Value, RpcError>
    where
        F: Future<Output = Result<Value, RpcError>> + Send + 'static,
    {
        if let Some(key) = &of.key {
            let known =
                lock(&self.repeats).begin(&of.caller, of.method, key, &of.params_hash, SystemTime::now());
            match known {
                Known::New => {}
                Known::Answered(answer) => return answer,
                Known::Refused(error) => return Err(error),
            }
        }
        let books = Arc::clone(self);
        let whole = tokio::spawn(async move { books.between(of, work).await });
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

    async fn between(
        &self,
        of: Recorded,
        work: impl Future<Output = Result<Value, RpcError>>,
    ) -> Result<Value, RpcError> {
        if let Err(why) = self.write(Stage::Begun, &of, Value::Null).await {
            if let Some(key) = &of.key {
                lock(&self.repeats).abandon(&of.caller, of.method, key);
            }
            tracing::error!(caller = of.caller, method = of.method, "refused: {why}");
            let next = "make room or mend the disk, then call again";
            return Err(RpcError::new(
                ErrorCode::NotRecorded,
                format!("{why}: nothing was done"),
                "nothing",
                next,
            ));
        }
        let answer = work.await;
        let stage = if answer.is_ok() { Stage::Done } else { Stage::Failed };
        let kept = if of.key.is_some() { kept_answer(&answer) } else { Value::Null };
        tracing::info!(
            caller = of.caller,
            role = of.role,
            method = of.method,
            done = answer.is_ok(),
            "call carried out"
        );
        if let Err(why) = self.write(stage, &of, kept).await {
            tracing::error!(
                caller = of.caller,
                method = of.method,
                "carried out, but its end is not written down: {why}"
            );
        }
        if let Some(key) = &of.key {
            lock(&self.repeats).answered(&of.caller, of.method, key, &answer);
        }
        answer
    }
}
