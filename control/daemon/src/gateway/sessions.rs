//! The sessions of the gateway, as last seen: the orchestrator's memory of what runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use novacron_control_api::{Call, Reason, SessionId, SessionList, SessionRecord, SessionState, Timestamp};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::events::Events;
use crate::gateway::{Gateway, is_lost};
use crate::limits::{ENDED_KEPT, SESSIONS_LOOK};
use crate::metrics::Metrics;

#[derive(Default)]
struct Seen {
    records: BTreeMap<SessionId, SessionRecord>,
    /// Ended ones, in the order they were seen to end; the oldest are forgotten.
    ended: VecDeque<SessionId>,
    /// When the gateway last answered.
    answered: Option<Instant>,
    first_look_done: bool,
}

/// What is known of sessions.
pub(crate) struct Sessions {
    gateway: Arc<Gateway>,
    seen: Mutex<Seen>,
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
        Self { gateway, seen: Mutex::default(), events, metrics }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, session: SessionId) -> Option<SessionRecord> {
        self.seen().records.get(&session).cloned()
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
            let text = format!("session {session} failed: the gateway's process ended");
            self.events.tell("session.ended", &session.to_string(), text, json!({"state": "failed"}));
        }
        self.forget(&mut seen);
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
            seen.records.insert(session, record);
        }
        self.forget(&mut seen);
        for state in STATES {
            let count = seen.records.values().filter(|record| record.state == state).count();
            self.metrics.sessions(word(state), count);
        }
    }

    fn forget(&self, seen: &mut Seen) {
        while seen.ended.len() > ENDED_KEPT {
            if let Some(oldest) = seen.ended.pop_front() {
                seen.records.remove(&oldest);
            }
        }
    }
}
