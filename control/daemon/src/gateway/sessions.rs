//! The sessions of the gateway, as last seen: the orchestrator's memory of what runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use novacron_control_api::{Call, Reason, SessionId, SessionList, SessionRecord, SessionState, Timestamp};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::events::Events;
use crate::gateway::{Gateway, is_lost};
use crate::limits::{ENDED_KEPT, PROGRESS_RECORDED, SESSIONS_LOOK};
use crate::metrics::Metrics;

#[derive(Default)]
struct Seen {
    records: BTreeMap<SessionId, SessionRecord>,
    /// Ended ones, in the order they were seen to end; the oldest are forgotten.
    ended: VecDeque<SessionId>,
    /// When the gateway last answered.
    answered: Option<Instant>,
    first_look_done: bool,
    /// Those that stand otherwise than they are recorded.
    unrecorded: BTreeSet<SessionId>,
    /// When live ones were last taken to be recorded.
    taken: BTreeMap<SessionId, Instant>,
    /// Who ordered them, where that was over this process.
    opened_by: BTreeMap<SessionId, String>,
}

/// What is known of sessions.
pub(crate) struct Sessions {
    gateway: Arc<Gateway>,
    seen: Mutex<Seen>,
    changed: Notify,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
}

fn word(state: SessionState) -> &'static str {
    match state {
        SessionState::Waiting => "waiting",
        SessionState::Opening => "opening",
        SessionState::Running => "running",
        SessionState::Interrupted => "interrupted",
        SessionState::Held => "held",
        SessionState::Finished => "finished",
        SessionState::Failed => "failed",
    }
}

const STATES: [SessionState; 7] = [
    SessionState::Waiting,
    SessionState::Opening,
    SessionState::Running,
    SessionState::Interrupted,
    SessionState::Held,
    SessionState::Finished,
    SessionState::Failed,
];

impl Sessions {
    pub(crate) fn new(gateway: Arc<Gateway>, events: Arc<Events>, metrics: Arc<Metrics>) -> Self {
        Self { gateway, seen: Mutex::default(), changed: Notify::new(), events, metrics }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, session: SessionId) -> Option<SessionRecord> {
        self.seen().records.get(&session).cloned()
    }

    /// Remembers who orders a session, before it is opened. Whether that is new: then a failed opening forgets it.
    pub(crate) fn order(&self, session: SessionId, caller: &str) -> bool {
        let mut seen = self.seen();
        let new = !seen.opened_by.contains_key(&session);
        seen.opened_by.entry(session).or_insert_with(|| caller.to_owned());
        new
    }

    /// It was not opened after all.
    pub(crate) fn forget_order(&self, session: SessionId) {
        self.seen().opened_by.remove(&session);
    }

    /// Who ordered a session, where that was over this process.
    pub(crate) fn opened_by(&self, session: SessionId) -> Option<String> {
        self.seen().opened_by.get(&session).cloned()
    }

    /// Waits until a session stands otherwise than it is recorded.
    pub(crate) async fn changed(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.seen().unrecorded.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Those sessions, as they stand now. Whoever takes them records them, or marks them again.
    pub(crate) fn take_unrecorded(&self) -> Vec<SessionRecord> {
        let mut seen = self.seen();
        let taken = std::mem::take(&mut seen.unrecorded);
        let records: Vec<SessionRecord> =
            taken.iter().filter_map(|session| seen.records.get(session).cloned()).collect();
        for record in &records {
            if record.state.is_ended() {
                seen.taken.remove(&record.session);
            } else {
                seen.taken.insert(record.session, Instant::now());
            }
        }
        records
    }

    /// It could not be recorded.
    pub(crate) fn record_again(&self, session: SessionId) {
        self.seen().unrecorded.insert(session);
        self.changed.notify_waiters();
    }

    /// Sessions that live, and how long ago the gateway last answered.
    pub(crate) fn live(&self) -> (usize, Option<Duration>) {
        let seen = self.seen();
        let live = seen.records.values().filter(|record| !record.state.is_ended()).count();
        (live, seen.answered.map(|at| at.elapsed()))
    }

    /// One look at all of them.
    pub(crate) async fn look(&self) -> Result<(), String> {
        match self.gateway.look_for::<SessionList>(Call::SessionList).await {
            Ok(list) => {
                self.take(list.sessions);
                Ok(())
            }
            Err(error) => Err(error.message),
        }
    }

    /// Looks again and again until this is dropped.
    pub(crate) async fn watch_over(&self) {
        loop {
            sleep(SESSIONS_LOOK).await;
            match self.gateway.look_for::<SessionList>(Call::SessionList).await {
                Ok(list) => self.take(list.sessions),
                Err(error) if is_lost(&error) => {}
                Err(error) => tracing::warn!("sessions cannot be listed: {}", error.message),
            }
        }
    }

    /// The gateway's process is gone, and its sessions with it.
    pub(crate) fn gateway_ended(&self) {
        let mut seen = self.seen();
        let live: Vec<SessionId> =
            seen.records.iter().filter(|(_, one)| !one.state.is_ended()).map(|(id, _)| *id).collect();
        for session in live {
            let Some(record) = seen.records.get_mut(&session) else { continue };
            record.state = SessionState::Failed;
            record.ended_at = Some(Timestamp::now());
            let message = "the gateway's process ended, and its hypervisors' sockets with it".to_owned();
            record.reason = Some(Reason { code: "gateway_lost".to_owned(), message });
            seen.ended.push_back(session);
            seen.unrecorded.insert(session);
            let text = format!("session {session} failed: the gateway's process ended");
            self.events.tell("session.ended", &session.to_string(), text, json!({"state": "failed"}));
        }
        self.forget(&mut seen);
        drop(seen);
        self.changed.notify_waiters();
    }

    fn take(&self, records: Vec<SessionRecord>) {
        let mut seen = self.seen();
        let first = !std::mem::replace(&mut seen.first_look_done, true);
        seen.answered = Some(Instant::now());
        for record in records {
            let before = seen.records.get(&record.session).map(|before| before.state);
            let (session, state) = (record.session, record.state);
            if before != Some(state) {
                let kind = match (before, state.is_ended()) {
                    (_, true) => "session.ended",
                    (None, false) if first => "session.found",
                    (None, false) => "session.opened",
                    (Some(_), false) => "session.state",
                };
                // What ended before this process began is history, not news.
                if !(first && state.is_ended()) {
                    let why =
                        record.reason.as_ref().map_or_else(String::new, |why| format!(": {}", why.message));
                    let text = format!("session {session} is {}{why}", word(state));
                    let data = json!({"state": word(state), "role": record.role, "tenant": record.tenant});
                    self.events.tell(kind, &session.to_string(), text, data);
                }
                if state.is_ended() {
                    seen.ended.push_back(session);
                }
            }
            let progress_is_old = !state.is_ended()
                && seen.taken.get(&session).is_some_and(|at| at.elapsed() >= PROGRESS_RECORDED);
            if before != Some(state) || progress_is_old {
                seen.unrecorded.insert(session);
            }
            seen.records.insert(session, record);
        }
        self.forget(&mut seen);
        if !seen.unrecorded.is_empty() {
            self.changed.notify_waiters();
        }
        for state in STATES {
            let count = seen.records.values().filter(|record| record.state == state).count();
            self.metrics.sessions(word(state), count);
        }
    }

    fn forget(&self, seen: &mut Seen) {
        while seen.ended.len() > ENDED_KEPT {
            if let Some(oldest) = seen.ended.pop_front() {
                seen.records.remove(&oldest);
                seen.opened_by.remove(&oldest);
                seen.taken.remove(&oldest);
                if seen.unrecorded.remove(&oldest) {
                    tracing::error!(session = %oldest, "forgotten before its end could be recorded");
                }
            }
        }
    }
}
