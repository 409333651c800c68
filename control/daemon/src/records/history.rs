//! What callers ask the records for.

use std::future::Future;

use novacron_control_api::control::{
    AuditCheck, AuditList, AuditPage, AuditRecord, AuditVerified, HistoryPage, MigrationHistory, PathHistory,
    PathHistoryPage, SessionHistory,
};
use novacron_control_api::{ErrorCode, RpcError, SessionId, SessionRecord, to_line};
use novacron_store::audit::{AuditEntry, Head};
use novacron_store::limits::CACHE_LIFE_MAX;
use novacron_store::{AuditFault, Cursor, Page, StoreError};
use serde::Serialize;

use crate::limits::{HISTORY_ANSWER_BYTES_MAX, HISTORY_ITEMS_MAX};
use crate::node::Node;

pub(super) fn away(error: &StoreError) -> RpcError {
    let next = "node.health tells how the database is; call again when it is up";
    RpcError::new(ErrorCode::NotRecorded, error.to_string(), "nothing", next)
}

fn invalid(what: String) -> RpcError {
    RpcError::new(ErrorCode::InvalidParams, what, "nothing", "correct the call")
}

fn page(after: Option<&str>) -> Result<Option<Cursor>, RpcError> {
    after.map(str::parse).transpose().map_err(|error: StoreError| invalid(error.to_string()))
}

/// Asks for fewer items until the answer is short enough to be a line: records have no fixed size.
async fn fitting<T, F>(items_max: u32, ask: impl Fn(u32) -> F) -> Result<T, RpcError>
where
    T: Serialize,
    F: Future<Output = Result<T, StoreError>>,
{
    let mut items_max = items_max.clamp(1, HISTORY_ITEMS_MAX);
    loop {
        let answer = ask(items_max).await.map_err(|error| away(&error))?;
        if items_max == 1 || to_line(&answer).len() <= HISTORY_ANSWER_BYTES_MAX {
            return Ok(answer);
        }
        items_max /= 2;
    }
}

/// `history.sessions`.
pub(crate) async fn sessions(node: &Node, asked: &HistoryPage) -> Result<SessionHistory, RpcError> {
    let store = node.records.store().map_err(|error| away(&error))?;
    let (store, after) = (&store, page(asked.after.as_deref())?);
    let after = &after;
    fitting(asked.items_max, |items_max| async move {
        let found = store.sessions(asked.which, &Page { after: after.clone(), items_max }).await?;
        Ok(SessionHistory { sessions: found.items, next: found.next.map(|next| next.to_string()) })
    })
    .await
}

/// `history.migrations`.
pub(crate) async fn migrations(node: &Node, asked: &HistoryPage) -> Result<MigrationHistory, RpcError> {
    let store = node.records.store().map_err(|error| away(&error))?;
    let (store, after) = (&store, page(asked.after.as_deref())?);
    let after = &after;
    fitting(asked.items_max, |items_max| async move {
        let found = store.migrations(asked.which, &Page { after: after.clone(), items_max }).await?;
        Ok(MigrationHistory { migrations: found.items, next: found.next.map(|next| next.to_string()) })
    })
    .await
}

/// `history.paths`.
pub(crate) async fn path_samples(node: &Node, asked: &PathHistoryPage) -> Result<PathHistory, RpcError> {
    let store = node.records.store().map_err(|error| away(&error))?;
    let (store, after) = (&store, page(asked.after.as_deref())?);
    let after = &after;
    fitting(asked.items_max, |items_max| async move {
        let found = store.samples(&asked.peer, &Page { after: after.clone(), items_max }).await?;
        Ok(PathHistory { samples: found.items, next: found.next.map(|next| next.to_string()) })
    })
    .await
}

fn entry(entry: AuditEntry) -> AuditRecord {
    let AuditEntry { seq, draft, previous, hash } = entry;
    AuditRecord {
        seq,
        id: draft.id,
        at: draft.at,
        actor: draft.actor,
        role: draft.role,
        origin: draft.origin,
        method: draft.method,
        subject: draft.subject,
        outcome: draft.outcome.name().to_owned(),
        detail: draft.detail,
        previous,
        hash,
    }
}

/// `audit.list`.
pub(crate) async fn audit_list(node: &Node, asked: &AuditPage) -> Result<AuditList, RpcError> {
    let store = &node.records.store().map_err(|error| away(&error))?;
    fitting(asked.items_max, |items_max| async move {
        let mut found = store.audit_entries(asked.after, items_max + 1).await?;
        let more = found.len() > items_max as usize;
        found.truncate(items_max as usize);
        let next = found.last().filter(|_| more).map(|last| last.seq);
        let head = store.audit_head().await?.to_string();
        Ok(AuditList { entries: found.into_iter().map(entry).collect(), next, head })
    })
    .await
}

/// `audit.verify`. A log that was changed is remembered: nothing that must be written to it is carried out any more.
pub(crate) async fn audit_verify(node: &Node, asked: &AuditCheck) -> Result<AuditVerified, RpcError> {
    let store = node.records.store().map_err(|error| away(&error))?;
    if asked.kept.len() > HISTORY_ITEMS_MAX as usize {
        return Err(invalid(format!("{HISTORY_ITEMS_MAX} heads are looked for at most")));
    }
    let kept: Result<Vec<Head>, StoreError> = asked.kept.iter().map(|head| head.parse()).collect();
    let kept = kept.map_err(|error| invalid(error.to_string()))?;
    match store.verify_audit(&kept).await {
        Ok(found) => Ok(AuditVerified {
            entries: found.entries,
            base: found.base.to_string(),
            head: found.head.to_string(),
        }),
        Err(AuditFault::Store(error)) => Err(away(&error)),
        Err(fault) => {
            let why = format!("the audit log was changed: {fault}");
            // A head that a caller made up is the caller's word alone.
            if kept.is_empty() || store.verify_audit(&[]).await.is_err() {
                node.records.set_broken(why.clone());
            }
            let next = "keep a copy of the database as it is; compare it with an export from before";
            Err(RpcError::new(ErrorCode::InternalError, why, "that the log is as it was written", next))
        }
    }
}

/// A session that ended so long ago that neither the gateway nor this process remembers it. Its record never changes
/// again, so it is cached.
pub(crate) async fn ended_session(node: &Node, session: SessionId) -> Option<SessionRecord> {
    let key = format!("session/{}/{session}", node.node_id);
    let cache = node.records.cache();
    if let Some(cache) = &cache
        && let Some(found) = cache.get(&key).await
        && let Ok(record) = serde_json::from_slice(&found)
    {
        return Some(record);
    }
    let record = node.records.store().ok()?.session(&node.node_id, session).await.ok()??.record;
    if let Some(cache) = &cache
        && record.state.is_ended()
        && let Ok(text) = serde_json::to_vec(&record)
    {
        cache.put(&key, text.into(), CACHE_LIFE_MAX).await;
    }
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_store::audit::{AuditDraft, AuditOutcome, seal, write_line};

    #[test]
    fn an_entry_is_written_to_callers_as_it_stands_in_an_export() {
        let mut draft = AuditDraft::new("uid:0", "session.open", AuditOutcome::Begun).unwrap();
        (draft.role, draft.origin) = ("admin".into(), "unix".into());
        (draft.subject, draft.detail) =
            ("00c0ffee00c0ffee".into(), "{\"params\":{\"label\":\"\u{e9}\\n\"}}".into());
        let sealed = seal(Head::START, draft);
        let mut line = Vec::new();
        write_line(&sealed, &mut line).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), String::from_utf8(to_line(&entry(sealed))).unwrap());
    }

    #[tokio::test]
    async fn an_answer_is_cut_to_a_line() {
        let asked = std::sync::Mutex::new(Vec::new());
        let answer = fitting(1_000_000, |items_max| {
            asked.lock().unwrap().push(items_max);
            async move { Ok(vec!["x".repeat(HISTORY_ANSWER_BYTES_MAX / 8); items_max as usize]) }
        });
        let answer = answer.await.unwrap();
        assert!(to_line(&answer).len() <= HISTORY_ANSWER_BYTES_MAX && !answer.is_empty());
        assert_eq!(asked.lock().unwrap()[0], HISTORY_ITEMS_MAX);
        // One item comes whatever its size: the store bounds that.
        let large = fitting(7, |_| async { Ok("x".repeat(HISTORY_ANSWER_BYTES_MAX)) }).await.unwrap();
        assert_eq!(large.len(), HISTORY_ANSWER_BYTES_MAX);
    }
}
