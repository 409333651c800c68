//! The books over a real store in a folder.

use std::sync::atomic::{AtomicU32, Ordering};

use novacron_store::StoreOptions;
use novacron_store::audit::AuditEntry;

use super::*;

struct Kept {
    folder: tempfile::TempDir,
    books: Arc<Books>,
    done: Arc<AtomicU32>,
}

async fn kept() -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let records = Arc::new(Records::default());
    records.open(Store::open(StoreOptions::embedded(folder.path())).await.unwrap());
    Kept { folder, books: Arc::new(Books::new(records)), done: Arc::default() }
}

fn call(key: Option<&str>, params: Value) -> Recorded {
    Recorded {
        caller: "uid:0".into(),
        role: "admin".into(),
        origin: "unix",
        method: "session.cancel",
        key: key.map(str::to_owned),
        meant: params.to_string(),
        params,
    }
}

impl Kept {
    async fn carry_out(&self, of: Recorded) -> Result<Value, RpcError> {
        let done = Arc::clone(&self.done);
        let work = async move { Ok(json!({"time": done.fetch_add(1, Ordering::SeqCst) + 1})) };
        self.books.carry_out(of, work).await
    }

    fn done(&self) -> u32 {
        self.done.load(Ordering::SeqCst)
    }

    async fn log(&self) -> Vec<AuditEntry> {
        self.books.records.store().unwrap().audit_entries(0, 100).await.unwrap()
    }

    /// Ends the process, as far as a store can tell, and starts the next.
    async fn again(&mut self) {
        drop(self.books.records.close());
        let records = Arc::new(Records::default());
        records.open(Store::open(StoreOptions::embedded(self.folder.path())).await.unwrap());
        self.books = Arc::new(Books::new(records));
    }
}

fn code(result: Result<Value, RpcError>) -> Option<ErrorCode> {
    result.unwrap_err().known_code()
}

#[tokio::test]
async fn a_call_stands_between_its_two_entries() {
    let kept = kept().await;
    kept.carry_out(call(None, json!({"session": "00c0ffee00c0ffee"}))).await.unwrap();
    let failed = kept.books.carry_out(call(Some("k"), json!({})), async {
        Err(RpcError::new(ErrorCode::GatewayLost, "gone", "nothing", "wait"))
    });
    assert_eq!(code(failed.await), Some(ErrorCode::GatewayLost));
    kept.books.refused(&call(None, json!({"session": "00c0ffee00c0ffee"}))).await;
    let log = kept.log().await;
    let outcomes: Vec<&str> = log.iter().map(|entry| entry.draft.outcome.name()).collect();
    assert_eq!(outcomes, ["begun", "done", "begun", "failed", "refused"]);
    assert_eq!((log[0].draft.subject.as_str(), log[0].draft.origin.as_str()), ("00c0ffee00c0ffee", "unix"));
    assert!(log[2].draft.detail.contains(r#""idempotency_key":"k""#), "{}", log[2].draft.detail);
    assert!(log[3].draft.detail.contains("gone"));
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_also_in_the_next_process() {
    let mut kept = kept().await;
    let first = kept.carry_out(call(Some("k"), json!({"a": 1}))).await.unwrap();
    assert_eq!(kept.carry_out(call(Some("k"), json!({"a": 1}))).await.unwrap(), first);
    assert_eq!(code(kept.carry_out(call(Some("k"), json!({"a": 2}))).await), Some(ErrorCode::KeyReused));
    kept.again().await;
    assert_eq!(kept.carry_out(call(Some("k"), json!({"a": 1}))).await.unwrap(), first);
    let mut other = call(Some("k"), json!({"a": 1}));
    other.caller = "uid:1".into();
    assert_ne!(kept.carry_out(other).await.unwrap(), first, "another caller's key");
    assert_eq!(kept.done(), 2);
    assert_eq!(kept.log().await.len(), 4, "a repeat is no call");
}

#[tokio::test]
async fn an_error_is_an_answer_too() {
    let kept = kept().await;
    let error = RpcError::new(ErrorCode::LimitReached, "m", "l", "n");
    let again = error.clone();
    let first = kept.books.carry_out(call(Some("k"), json!({})), async { Err(again) }).await;
    assert_eq!(first, Err(error.clone()));
    assert_eq!(kept.carry_out(call(Some("k"), json!({}))).await, Err(error));
    assert_eq!(kept.done(), 0);
}

#[tokio::test]
async fn what_was_begun_by_a_process_that_died_is_unknown() {
    let mut kept = kept().await;
    let of = call(Some("k"), json!({}));
    assert!(matches!(kept.books.claim(&of, "k").await, Ok(Known::New)));
    kept.books.begin(&of).await.unwrap();
    assert_eq!(code(kept.carry_out(of.clone()).await), Some(ErrorCode::LimitReached), "it is being done");
    kept.again().await;
    let error = kept.carry_out(of).await.unwrap_err();
    assert!(error.message.contains("was begun") && kept.done() == 0, "{error}");
}

#[tokio::test]
async fn of_many_with_one_key_one_is_carried_out() {
    let kept = Arc::new(kept().await);
    let calls = (0..16).map(|_| {
        let kept = Arc::clone(&kept);
        tokio::spawn(async move { kept.carry_out(call(Some("k"), json!({}))).await.is_ok() })
    });
    let calls: Vec<_> = calls.collect();
    let mut ok = 0;
    for call in calls {
        ok += u32::from(call.await.unwrap());
    }
    assert!(ok >= 1 && kept.done() == 1, "{ok} answers, carried out {} times", kept.done());
}

#[tokio::test]
async fn a_log_that_was_changed_refuses_everything() {
    let kept = kept().await;
    kept.books.records.set_broken("the audit log was changed".into());
    assert_eq!(code(kept.carry_out(call(None, json!({}))).await), Some(ErrorCode::NotRecorded));
    assert_eq!(kept.done(), 0);
}

#[tokio::test]
async fn without_a_store_nothing_is_done_and_a_key_stays_free() {
    let mut kept = kept().await;
    let store = kept.books.records.close().unwrap();
    assert_eq!(code(kept.carry_out(call(Some("k"), json!({}))).await), Some(ErrorCode::NotRecorded));
    assert_eq!(code(kept.carry_out(call(None, json!({}))).await), Some(ErrorCode::NotRecorded));
    assert_eq!(kept.done(), 0);
    kept.books.records.open(store);
    kept.carry_out(call(Some("k"), json!({}))).await.unwrap();
    kept.again().await;
    assert!(kept.carry_out(call(Some("k"), json!({}))).await.is_ok());
    assert_eq!(kept.done(), 1);
}

#[tokio::test]
async fn while_another_process_holds_the_database_calls_without_a_key_go_on() {
    let kept = kept().await;
    let holder = rusqlite::Connection::open(kept.folder.path().join("store.sqlite")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(code(kept.carry_out(call(Some("k"), json!({}))).await), Some(ErrorCode::NotRecorded));
    kept.carry_out(call(None, json!({}))).await.unwrap();
    let store = kept.books.records.store().unwrap();
    assert_eq!((store.health().spooled, store.health().spool_on_disk, kept.done()), (2, true, 1));
    drop(holder);
    store.drained().await;
    // The key was not used up, though it was asked for.
    kept.carry_out(call(Some("k"), json!({}))).await.unwrap();
    assert_eq!((kept.log().await.len(), kept.done()), (4, 2));
}

#[test]
fn a_detail_fits_an_entry() {
    assert_eq!(detail("params", &json!({"a": 1}), Some("k")), r#"{"idempotency_key":"k","params":{"a":1}}"#);
    let long = detail("params", &json!("x".repeat(2 * AUDIT_DETAIL_BYTES_MAX)), Some("k"));
    assert!(long.len() < 200 && long.contains("65538 bytes, left out"), "{long}");
}
