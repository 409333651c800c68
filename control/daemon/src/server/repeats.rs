//! Answers to calls with an idempotency key, so that a repeat gets the first one's. They come back from the audit log
//! after a restart.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use novacron_control_api::{ErrorCode, RpcError};
use serde_json::{Value, json};

use crate::audit::{Entry, Stage};
use crate::limits::{IDEMPOTENCY_KEPT, IDEMPOTENCY_LIFETIME};

/// Caller, method, key.
type Name = (String, String, String);

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    params_hash: String,
    at: SystemTime,
    /// `None`: it was begun; `Some`: `{"result": ...}` or `{"error": ...}`.
    answer: Option<Value>,
    /// It is carried out now, by this process.
    under_way: bool,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Known {
    /// Nothing: carry it out.
    New,
    /// It was answered so.
    Answered(Result<Value, RpcError>),
    /// It is not carried out: why.
    Refused(RpcError),
}

/// The answers.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    kept: HashMap<Name, Kept>,
    order: VecDeque<(Name, SystemTime)>,
}

/// An answer as it is kept.
pub(crate) fn kept_answer(answer: &Result<Value, RpcError>) -> Value {
    match answer {
        Ok(value) => json!({"result": value}),
        Err(error) => json!({"error": error}),
    }
}

fn read_answer(kept: &Value) -> Option<Result<Value, RpcError>> {
    if let Some(result) = kept.get("result") {
        return Some(Ok(result.clone()));
    }
    serde_json::from_value(kept.get("error")?.clone()).ok().map(Err)
}

impl Repeats {
    /// A call under a key is about to be carried out.
    pub(crate) fn begin(
        &mut self,
        caller: &str,
        method: &str,
        key: &str,
        params_hash: &str,
        now: SystemTime,
    ) -> Known {
        self.forget(now);
        let name = (caller.to_owned(), method.to_owned(), key.to_owned());
        let Some(kept) = self.kept.get(&name) else {
            let kept = Kept { params_hash: params_hash.to_owned(), at: now, answer: None, under_way: true };
            self.keep(name, kept);
            return Known::New;
        };
        let refused = |code, message: &str, lost: &str, next: &str| {
            Known::Refused(RpcError::new(code, message, lost, next))
        };
        if kept.params_hash != params_hash {
            return refused(
                ErrorCode::KeyReused,
                "the idempotency key was used with other parameters",
                "nothing",
                "use a new key for another call",
            );
        }
        match (&kept.answer, kept.under_way) {
            (Some(answer), _) => match read_answer(answer) {
                Some(answer) => Known::Answered(answer),
                None => refused(
                    ErrorCode::InternalError,
                    "the kept answer cannot be read",
                    "the answer",
                    "look at the audit log",
                ),
            },
            (None, true) => refused(
                ErrorCode::LimitReached,
                "the same call is being carried out now",
                "nothing",
                "call again in a moment with the same key",
            ),
            (None, false) => refused(
                ErrorCode::InternalError,
                "the same call was begun and this process ended before its answer",
                "whether it was carried out is unknown",
                "look with session.list or node.info, then use a new key",
            ),
        }
    }

    /// It was not carried out after all: the key is free.
    pub(crate) fn abandon(&mut self, caller: &str, method: &str, key: &str) {
        self.kept.remove(&(caller.to_owned(), method.to_owned(), key.to_owned()));
    }

    /// It was answered.
    pub(crate) fn answered(
        &mut self,
        caller: &str,
        method: &str,
        key: &str,
        answer: &Result<Value, RpcError>,
    ) {
        if let Some(kept) = self.kept.get_mut(&(caller.to_owned(), method.to_owned(), key.to_owned())) {
            kept.answer = Some(kept_answer(answer));
            kept.under_way = false;
        }
    }

    /// Takes in what the audit log says of an earlier run.
    pub(crate) fn remember(&mut self, entry: &Entry) {
        let Some(key) = &entry.key else { return };
        let name = (entry.caller.clone(), entry.method.clone(), key.clone());
        let at = SystemTime::from(entry.at);
        match entry.stage {
            Stage::Begun => {
                let params_hash = entry.params_hash.clone();
                self.keep(name, Kept { params_hash, at, answer: None, under_way: false });
            }
            Stage::Done | Stage::Failed => {
                if let Some(kept) = self.kept.get_mut(&name) {
                    kept.answer = Some(entry.answer.clone());
                }
            }
            Stage::Refused => {}
        }
    }

    fn keep(&mut self, name: Name, kept: Kept) {
        self.order.push_back((name.clone(), kept.at));
        self.kept.insert(name, kept);
        while self.order.len() > IDEMPOTENCY_KEPT {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((name, at)) = self.order.pop_front()
            && self.kept.get(&name).is_some_and(|kept| kept.at == at)
        {
            self.kept.remove(&name);
        }
    }

    fn forget(&mut self, now: SystemTime) {
        // A clock that was set back keeps answers longer, never shorter.
        let old = |at: &SystemTime| now.duration_since(*at).unwrap_or(Duration::ZERO) > IDEMPOTENCY_LIFETIME;
        while self.order.front().is_some_and(|(_, at)| old(at)) {
            self.drop_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_control_api::Timestamp;

    fn entry(stage: Stage, answer: Value) -> Entry {
        Entry {
            number: 1,
            at: Timestamp::now(),
            stage,
            caller: "uid:0".into(),
            role: "admin".into(),
            method: "m".into(),
            params: Value::Null,
            key: Some("k".into()),
            params_hash: "p".into(),
            answer,
        }
    }

    fn begin(repeats: &mut Repeats, params: &str) -> Known {
        repeats.begin("uid:0", "m", "k", params, SystemTime::now())
    }

    fn code(known: &Known) -> Option<ErrorCode> {
        match known {
            Known::Refused(error) => error.known_code(),
            _ => None,
        }
    }

    #[test]
    fn a_repeat_gets_the_first_answer() {
        let mut repeats = Repeats::default();
        assert_eq!(begin(&mut repeats, "p"), Known::New);
        assert_eq!(code(&begin(&mut repeats, "p")), Some(ErrorCode::LimitReached));
        repeats.answered("uid:0", "m", "k", &Ok(json!({"a": 1})));
        assert_eq!(begin(&mut repeats, "p"), Known::Answered(Ok(json!({"a": 1}))));
        assert_eq!(code(&begin(&mut repeats, "q")), Some(ErrorCode::KeyReused));
        assert_eq!(
            repeats.begin("uid:1", "m", "k", "p", SystemTime::now()),
            Known::New,
            "another caller's key"
        );
        repeats.abandon("uid:0", "m", "k");
        assert_eq!(begin(&mut repeats, "q"), Known::New);
    }

    #[test]
    fn the_audit_log_brings_answers_back() {
        let mut repeats = Repeats::default();
        repeats.remember(&entry(Stage::Begun, Value::Null));
        assert_eq!(
            code(&begin(&mut repeats, "p")),
            Some(ErrorCode::InternalError),
            "begun, and nobody knows more"
        );
        let error = RpcError::new(ErrorCode::LimitReached, "m", "l", "n");
        repeats.remember(&entry(Stage::Failed, kept_answer(&Err(error.clone()))));
        assert_eq!(begin(&mut repeats, "p"), Known::Answered(Err(error)));
    }

    #[test]
    fn answers_are_kept_for_a_day_and_not_without_bound() {
        let mut repeats = Repeats::default();
        let now = SystemTime::now();
        for at in 0..IDEMPOTENCY_KEPT + 10 {
            repeats.begin("c", "m", &at.to_string(), "p", now);
        }
        assert_eq!(repeats.kept.len(), IDEMPOTENCY_KEPT);
        repeats.begin("c", "m", "x", "p", now + IDEMPOTENCY_LIFETIME + Duration::from_secs(1));
        assert_eq!(repeats.kept.len(), 1);
    }
}
