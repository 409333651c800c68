//! Which sessions there are: expected, live and ended. Shared by the control socket's threads and the shards;
//! no byte of a guest passes here.

use crate::limits::{RECORDS_PENDING_MAX, SESSIONS_MAX};
use novacron_control_api::limits::ENDED_SESSIONS_MAX;
use novacron_control_api::{
    ErrorCode, Reason, RpcError, SessionId, SessionOpen, SessionRecord, SessionState, Timestamp,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A destination's session that its caller announced and no peer has opened yet.
pub(crate) struct Expected {
    pub(crate) open: SessionOpen,
    pub(crate) record: SessionRecord,
    deadline: Instant,
}

/// Who opens an expected session is not who was announced.
pub(crate) struct Misfit;

/// A session that a shard runs.
struct Live {
    shard: usize,
    record: SessionRecord,
}

#[derive(Default)]
struct Sessions {
    expected: BTreeMap<u64, Expected>,
    live: BTreeMap<u64, Live>,
    ended: VecDeque<SessionRecord>,
    draining: bool,
    records_dropped: u64,
}

/// Which sessions there are.
pub(crate) struct Registry {
    sessions: Mutex<Sessions>,
    written: SyncSender<SessionRecord>,
}

/// What a gateway knows of a session that a peer speaks of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Finished,
    /// Why, in the caller's words for it and in a sentence.
    Failed(Option<Reason>),
    Never,
}

impl Registry {
    /// An empty registry, and the records of ended sessions as they come.
    pub(crate) fn new() -> (Registry, Receiver<SessionRecord>) {
        let (written, records) = sync_channel(RECORDS_PENDING_MAX);
        (Registry { sessions: Mutex::default(), written }, records)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // A thread that panicked while it held the lock left whole records: every change is one assignment.
        self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn room(sessions: &Sessions, session: u64) -> Result<(), RpcError> {
        if sessions.draining {
            let next = "open the session at another gateway, or after the restart";
            return Err(RpcError::new(ErrorCode::Draining, "the gateway is shutting down", "nothing", next));
        }
        if sessions.expected.contains_key(&session) || sessions.live.contains_key(&session) {
            let message = format!("session {} is already open here", SessionId(session));
            return Err(RpcError::new(
                ErrorCode::SessionExists,
                message,
                "nothing",
                "choose another session id",
            ));
        }
        if sessions.expected.len() + sessions.live.len() >= SESSIONS_MAX {
            let message = format!("the gateway carries {SESSIONS_MAX} sessions at most");
            let next = "wait until a running session ends, or cancel one";
            return Err(RpcError::new(ErrorCode::LimitReached, message, "nothing", next));
        }
        Ok(())
    }

    /// A caller announces a destination's session.
    pub(crate) fn expect(
        &self,
        open: SessionOpen,
        record: SessionRecord,
        wait: Duration,
    ) -> Result<(), RpcError> {
        let mut sessions = self.sessions();
        Self::room(&sessions, open.session.0)?;
        let deadline = Instant::now() + wait;
        sessions.expected.insert(open.session.0, Expected { open, record, deadline });
        Ok(())
    }

    /// A peer opens a session at `shard`: the announcement, if there was one and it `fits`. One that does not stays.
    pub(crate) fn take_expected(
        &self,
        session: u64,
        shard: usize,
        fits: impl FnOnce(&SessionOpen) -> bool,
    ) -> Option<Result<Expected, Misfit>> {
        let mut sessions = self.sessions();
        if !fits(&sessions.expected.get(&session)?.open) {
            return Some(Err(Misfit));
        }
        let expected = sessions.expected.remove(&session)?;
        sessions.live.insert(session, Live { shard, record: expected.record.clone() });
        Some(Ok(expected))
    }

    /// A caller opens a source's session, which `shard` will run.
    pub(crate) fn begin(&self, record: SessionRecord, shard: usize) -> Result<(), RpcError> {
        let mut sessions = self.sessions();
        Self::room(&sessions, record.session.0)?;
        sessions.live.insert(record.session.0, Live { shard, record });
        Ok(())
    }

    /// A shard says how a live session stands.
    pub(crate) fn publish(&self, record: SessionRecord) {
        if let Some(live) = self.sessions().live.get_mut(&record.session.0) {
            live.record = record;
        }
    }

    /// A session has ended, with this last record.
    pub(crate) fn end(&self, record: SessionRecord) {
        let mut sessions = self.sessions();
        sessions.expected.remove(&record.session.0);
        sessions.live.remove(&record.session.0);
        // The records' writer must never hold up a session: a record that finds no room is counted.
        if self.written.try_send(record.clone()).is_err() {
            sessions.records_dropped += 1;
        }
        if sessions.ended.len() >= ENDED_SESSIONS_MAX {
            sessions.ended.pop_front();
        }
        sessions.ended.push_back(record);
    }

    /// An expected session ends before any peer opened it.
    pub(crate) fn end_expected(&self, session: u64, reason: Reason) -> Option<SessionRecord> {
        let mut record = self.sessions().expected.remove(&session)?.record;
        record.state = SessionState::Failed;
        record.reason = Some(reason);
        let now = Timestamp::now();
        record.elapsed_ms = now.unix_ms().saturating_sub(record.opened_at.unix_ms());
        record.ended_at = Some(now);
        self.end(record.clone());
        Some(record)
    }

    /// Expected sessions that waited too long.
    pub(crate) fn overdue(&self) -> Vec<u64> {
        let now = Instant::now();
        self.sessions()
            .expected
            .iter()
            .filter(|(_, e)| now >= e.deadline)
            .map(|(session, _)| *session)
            .collect()
    }

    /// The record of a session, and the shard that runs it.
    pub(crate) fn get(&self, session: SessionId) -> Option<(SessionRecord, Option<usize>)> {
        let sessions = self.sessions();
        let now = Timestamp::now();
        if let Some(expected) = sessions.expected.get(&session.0) {
            return Some((aged(&expected.record, now), None));
        }
        if let Some(live) = sessions.live.get(&session.0) {
            return Some((aged(&live.record, now), Some(live.shard)));
        }
        sessions
            .ended
            .iter()
            .rev()
            .find(|record| record.session == session)
            .map(|record| (record.clone(), None))
    }

    /// Every session: expected, live, then ended, the newest last.
    pub(crate) fn list(&self) -> Vec<SessionRecord> {
        let sessions = self.sessions();
        let now = Timestamp::now();
        let expected = sessions.expected.values().map(|expected| aged(&expected.record, now));
        let live = sessions.live.values().map(|live| aged(&live.record, now));
        expected.chain(live).chain(sessions.ended.iter().cloned()).collect()
    }

    /// What to tell a peer that speaks of a session which does not run.
    pub(crate) fn known(&self, session: u64) -> Known {
        let sessions = self.sessions();
        match sessions.ended.iter().rev().find(|record| record.session.0 == session) {
            Some(record) if record.state == SessionState::Finished => Known::Finished,
            Some(record) => Known::Failed(record.reason.clone()),
            None => Known::Never,
        }
    }

    /// Takes no more sessions. Returns those that are expected or run.
    pub(crate) fn drain(&self) -> usize {
        let mut sessions = self.sessions();
        sessions.draining = true;
        sessions.expected.len() + sessions.live.len()
    }

    /// Live sessions that hold their source's sockets until somebody decides.
    pub(crate) fn held(&self) -> usize {
        let sessions = self.sessions();
        sessions.live.values().filter(|live| live.record.state == SessionState::Held).count()
    }

    /// Whether the gateway is shutting down.
    pub(crate) fn is_draining(&self) -> bool {
        self.sessions().draining
    }

    /// Sessions that are expected, and live ones with their shards.
    pub(crate) fn running(&self) -> (Vec<u64>, Vec<(u64, usize)>) {
        let sessions = self.sessions();
        let live = sessions.live.iter().map(|(session, live)| (*session, live.shard)).collect();
        (sessions.expected.keys().copied().collect(), live)
    }
}

/// A record as of now: it grows older between two words from its shard.
fn aged(record: &SessionRecord, now: Timestamp) -> SessionRecord {
    let mut record = record.clone();
    record.elapsed_ms = now.unix_ms().saturating_sub(record.opened_at.unix_ms());
    record
}
