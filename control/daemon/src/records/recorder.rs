//! Sessions and migrations on their way from what was seen into the store.

use std::sync::Arc;

use novacron_control_api::control::{SeenSession, Which};
use novacron_control_api::{Reason, Role, SessionRecord, SessionState, Timestamp};
use novacron_store::limits::PAGE_ITEMS_MAX;
use novacron_store::{Page, StoreError};
use tokio::time::sleep;

use super::migration::migration;
use crate::limits::RECORD_AGAIN;
use crate::node::Node;

/// Writes down what the sessions' memory marks as changed.
pub(crate) struct Recorder {
    node: Arc<Node>,
    /// Whether the last write failed: told once.
    failing: bool,
}

impl Recorder {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, failing: false }
    }

    /// Records until it is dropped; whoever holds the recorder meanwhile knows that nothing is half written. First,
    /// what the process before this one left open.
    pub(crate) async fn run_over(recorder: Arc<tokio::sync::Mutex<Self>>) {
        let node = Arc::clone(&recorder.lock().await.node);
        loop {
            let settled = recorder.lock().await.settle().await;
            let Err(error) = settled else { break };
            tracing::warn!("sessions of earlier runs are looked at again later: {error}");
            sleep(RECORD_AGAIN).await;
        }
        loop {
            node.sessions.changed().await;
            let all = recorder.lock().await.flush().await;
            if !all {
                sleep(RECORD_AGAIN).await;
            }
        }
    }

    /// Writes down everything that has changed. Whether all of it was kept; what was not is marked again.
    pub(crate) async fn flush(&mut self) -> bool {
        let mut all = true;
        for record in self.node.sessions.take_unrecorded() {
            let session = record.session;
            match self.keep(record).await {
                Ok(()) => self.failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(%session, "a session is not recorded, and is tried again: {error}");
                    }
                    self.node.sessions.record_again(session);
                    all = false;
                }
            }
        }
        all
    }

    /// The migration first: a session that is stored as ended needs nobody any more.
    async fn keep(&mut self, record: SessionRecord) -> Result<(), StoreError> {
        let store = self.node.records.store()?;
        let actor = self.node.sessions.opened_by(record.session);
        let mut written = self.node.records.written().await;
        let stored = written.get(&store, record.session, actor.is_some()).await?;
        let made = migration(stored.as_ref(), &record, actor.as_deref());
        let outcome = made.outcome.name();
        written.put(&store, made).await?;
        drop(written);
        // Once: what was recorded as ended before was traced then.
        let known = stored.as_ref().and_then(|one| match record.role {
            Role::Source => one.source.as_ref(),
            Role::Destination => one.destination.as_ref(),
        });
        if record.state.is_ended() && known.is_none() {
            self.node.traces.session_ended(&record, outcome);
        }
        let seen = SeenSession { gateway: self.node.node_id.clone(), seen_at: Timestamp::now(), record };
        store.save_session(seen).await?;
        Ok(())
    }

    /// Sessions that are recorded as live and that the gateway does not know: they ended while nobody looked. Those it
    /// knows are written down as they are now, unless their end was written down before.
    async fn settle(&mut self) -> Result<(), StoreError> {
        let store = self.node.records.store()?;
        let mut page = Page::of(PAGE_ITEMS_MAX);
        loop {
            let live = store.sessions(Which::Live, &page).await?;
            for seen in live.items {
                let session = seen.record.session;
                if seen.gateway == self.node.node_id && self.node.sessions.get(session).is_none() {
                    self.keep(unseen_end(seen.record)).await?;
                    tracing::warn!(%session, "it ended while no control process looked; how is not known");
                }
            }
            match live.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        for record in self.node.sessions.take_unrecorded() {
            let session = record.session;
            let stored = store.session(&self.node.node_id, session).await;
            let over = matches!(&stored, Ok(Some(seen)) if seen.record.state.is_ended());
            if !over && self.keep(record).await.is_err() {
                self.node.sessions.record_again(session);
            }
        }
        Ok(())
    }
}

/// A session that nobody saw end.
fn unseen_end(mut record: SessionRecord) -> SessionRecord {
    let message =
        "it ended while no control process looked, and the gateway no longer knows it: look at both \
                   hypervisors"
            .to_owned();
    record.state = SessionState::Failed;
    record.reason = Some(Reason { code: "unseen_end".to_owned(), message });
    record.ended_at = Some(Timestamp::now());
    record
}
