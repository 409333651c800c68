//! Which sessions there are: expected, live and ended. Shared by the control socket's threads and the shards;
//! no byte of a guest passes here.

use crate::limits::RECORDS_PENDING_MAX;
use novacron_control_api::limits::ENDED_SESSIONS_MAX;
use novacron_control_api::{
    Endpoint, ErrorCode, Origin, Reason, RpcError, SessionId, SessionOpen, SessionRecord, SessionState,
    Timestamp,
};
use novacron_protocol::session::{Token, Witness};
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

/// How many sessions there may be at once, and whose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    pub(crate) all: usize,
    pub(crate) tenant: usize,
    pub(crate) host: usize,
    /// Connections that all of them may ask for.
    pub(crate) connections: usize,
}

/// A session that a shard runs.
struct Live {
    shard: usize,
    connections_max: u32,
    record: SessionRecord,
}

#[derive(Default)]
struct Sessions {
    expected: BTreeMap<u64, Expected>,
    live: BTreeMap<u64, Live>,
    /// With what proves a last word that has to be said again.
    ended: VecDeque<(SessionRecord, Option<Witness>)>,
    draining: bool,
    records_dropped: u64,
}

impl Sessions {
    /// Those that are expected or live.
    fn records(&self) -> impl Iterator<Item = &SessionRecord> {
        let expected = self.expected.values().map(|expected| &expected.record);
        expected.chain(self.live.values().map(|live| &live.record))
    }

    /// Connections that they may open.
    fn connections(&self) -> usize {
        let expected = self.expected.values().map(|expected| expected.open.options.connections_max as usize);
        expected.chain(self.live.values().map(|live| live.connections_max as usize)).sum()
    }
}

/// The hypervisors' host of a session: where they come from if that was said, else where they meet the gateway.
fn host_of(record: &SessionRecord) -> String {
    let address = record.from.iter().find(|origin| matches!(origin, Origin::Address(_)));
    match (address, record.listen.as_ref().or(record.connect.as_ref())) {
        (Some(address), _) => address.to_string(),
        (None, Some(Endpoint::Tcp { host, .. })) => host.clone(),
        (None, _) => "this host".to_owned(),
    }
}

/// Which sessions there are.
pub(crate) struct Registry {
    limits: SessionLimits,
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
    pub(crate) fn new(limits: SessionLimits) -> (Registry, Receiver<SessionRecord>) {
        let (written, records) = sync_channel(RECORDS_PENDING_MAX);
        (Registry { limits, sessions: Mutex::default(), written }, records)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // A thread that panicked while it held the lock left whole records: every change is one assignment.
        self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether a session may begin.
    fn room(&self, sessions: &Sessions, asked: &SessionRecord, connections: u32) -> Result<(), RpcError> {
        if sessions.draining {
            let next = "open the session at another gateway, or after the restart";
            return Err(RpcError::new(ErrorCode::Draining, "the gateway is shutting down", "nothing", next));
        }
        let session = asked.session;
        if sessions.expected.contains_key(&session.0) || sessions.live.contains_key(&session.0) {
            let message = format!("session {session} is already open here");
            return Err(RpcError::new(
                ErrorCode::SessionExists,
                message,
                "nothing",
                "choose another session id",
            ));
        }
        let refused = |message: String, flag: &str| {
            let next = format!(
                "wait until one of them ends or cancel one (`novactl sessions` lists them), or start the gateway with {flag}"
            );
            Err(RpcError::new(ErrorCode::LimitReached, message, "nothing", next))
        };
        let SessionLimits { all, tenant, host, connections: connections_max } = self.limits;
        if sessions.records().count() >= all {
            return refused(format!("the gateway carries {all} sessions at most"), "a larger --sessions-max");
        }
        if sessions.records().filter(|record| record.tenant == asked.tenant).count() >= tenant {
            let who =
                if asked.tenant.is_empty() { "sessions without a tenant" } else { "sessions of one tenant" };
            let message =
                format!("the gateway carries {tenant} {who} at most, and has as many of '{}'", asked.tenant);
            return refused(message, "a larger --tenant-sessions-max");
        }
        let from = host_of(asked);
        if sessions.records().filter(|record| host_of(record) == from).count() >= host {
            let message =
                format!("the gateway carries {host} sessions of one host at most, and has as many of {from}");
            return refused(message, "a larger --host-sessions-max");
        }
        let sum = sessions.connections().saturating_add(connections as usize);
        if sum > connections_max {
            let message = format!(
                "all sessions together may ask for {connections_max} connections, and this one would make it {sum}"
            );
            return refused(message, "nothing else: ask for fewer with connections_max");
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
        self.room(&sessions, &record, open.options.connections_max)?;
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
        let connections_max = expected.open.options.connections_max;
        sessions.live.insert(session, Live { shard, connections_max, record: expected.record.clone() });
        Some(Ok(expected))
    }

    /// A caller opens a source's session, which `shard` will run.
    pub(crate) fn begin(
        &self,
        record: SessionRecord,
        connections_max: u32,
        shard: usize,
    ) -> Result<(), RpcError> {
        let mut sessions = self.sessions();
        self.room(&sessions, &record, connections_max)?;
        sessions.live.insert(record.session.0, Live { shard, connections_max, record });
        Ok(())
    }

    /// A shard says how a live session stands.
    pub(crate) fn publish(&self, record: SessionRecord) {
        if let Some(live) = self.sessions().live.get_mut(&record.session.0) {
            live.record = record;
        }
    }

    /// A session has ended, with this last record.
    pub(crate) fn end(&self, record: SessionRecord, witness: Option<Witness>) {
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
        sessions.ended.push_back((record, witness));
    }

    /// An expected session ends before any peer opened it.
    pub(crate) fn end_expected(&self, session: u64, reason: Reason) -> Option<SessionRecord> {
        let Expected { open, mut record, .. } = self.sessions().expected.remove(&session)?;
        record.state = SessionState::Failed;
        record.reason = Some(reason);
        let now = Timestamp::now();
        record.elapsed_ms = now.unix_ms().saturating_sub(record.opened_at.unix_ms());
        record.ended_at = Some(now);
        self.end(record.clone(), Some(Witness::new(session, 0, Token::new(*open.token.expose()))));
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
            .find(|(record, _)| record.session == session)
            .map(|(record, _)| (record.clone(), None))
    }

    /// Every session: expected, live, then ended, the newest last.
    pub(crate) fn list(&self) -> Vec<SessionRecord> {
        let sessions = self.sessions();
        let now = Timestamp::now();
        let expected = sessions.expected.values().map(|expected| aged(&expected.record, now));
        let live = sessions.live.values().map(|live| aged(&live.record, now));
        expected.chain(live).chain(sessions.ended.iter().map(|(record, _)| record.clone())).collect()
    }

    /// What to tell a peer that speaks of a session which does not run.
    /// With what proves it, if this gateway was told of the session.
    pub(crate) fn known(&self, session: u64) -> (Known, Option<Witness>) {
        let sessions = self.sessions();
        match sessions.ended.iter().rev().find(|(record, _)| record.session.0 == session) {
            Some((record, witness)) if record.state == SessionState::Finished => {
                (Known::Finished, witness.clone())
            }
            Some((record, witness)) => (Known::Failed(record.reason.clone()), witness.clone()),
            None => (Known::Never, None),
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

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_control_api::{SessionSide, Token};

    const LIMITS: SessionLimits = SessionLimits { all: 80, tenant: 70, host: 66, connections: 4096 };

    fn open(id: u64, tenant: &str, from: &str) -> SessionOpen {
        let side = SessionSide::Source {
            peer: "tcp:192.0.2.1:7400".parse().unwrap(),
            listen: "tcp:198.51.100.1:0".parse().unwrap(),
        };
        let from = if from.is_empty() { Vec::new() } else { vec![from.parse().unwrap()] };
        SessionOpen {
            tenant: tenant.into(),
            from,
            ..SessionOpen::new(SessionId(id), Token::from_bytes([1; 32]), side)
        }
    }

    fn begin(registry: &Registry, open: &SessionOpen) -> Result<(), RpcError> {
        registry.begin(crate::record::asked(open), open.options.connections_max, 0)
    }

    fn refusal(registry: &Registry, open: &SessionOpen) -> String {
        let error = begin(registry, open).unwrap_err();
        assert_eq!(error.known_code(), Some(ErrorCode::LimitReached));
        format!("{} {}", error.message, error.data.unwrap().next)
    }

    #[test]
    fn sixty_four_sessions_at_once_and_then_each_limit_by_its_name() {
        let (registry, _ended) = Registry::new(LIMITS);
        for id in 0..66 {
            begin(&registry, &open(id, "blue", "192.0.2.7")).unwrap();
        }
        let said = refusal(&registry, &open(100, "red", "192.0.2.7"));
        assert!(said.contains("66 sessions of one host") && said.contains("192.0.2.7"), "{said}");
        assert!(said.contains("--host-sessions-max"), "{said}");
        for id in 66..70 {
            begin(&registry, &open(id, "blue", "")).unwrap();
        }
        let said = refusal(&registry, &open(100, "blue", "192.0.2.8"));
        assert!(
            said.contains("70 sessions of one tenant") && said.contains("--tenant-sessions-max"),
            "{said}"
        );
        for id in 70..80 {
            begin(&registry, &open(id, "red", "192.0.2.8")).unwrap();
        }
        let said = refusal(&registry, &open(100, "green", "192.0.2.9"));
        assert!(said.contains("80 sessions at most") && said.contains("--sessions-max"), "{said}");
        registry.end(crate::record::asked(&open(3, "blue", "")), None);
        begin(&registry, &open(100, "green", "192.0.2.9")).unwrap();
    }

    #[test]
    fn connections_of_all_sessions_are_counted_together() {
        let (registry, _ended) = Registry::new(SessionLimits { connections: 300, ..LIMITS });
        let mut large = open(1, "", "");
        large.options.connections_max = 257;
        begin(&registry, &large).unwrap();
        begin(&registry, &open(2, "", "")).unwrap();
        large.session = SessionId(3);
        let said = refusal(&registry, &large);
        assert!(said.contains("300 connections") && said.contains("connections_max"), "{said}");
    }
}
