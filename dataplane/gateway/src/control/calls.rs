//! What each method does.

use super::caller::Caller;
use crate::path::Paths;
use crate::protection::Protection;
use crate::record;
use crate::registry::Registry;
use crate::shard::{Command, ShardHandle};
use novacron_control_api::limits::API_VERSION;
use novacron_control_api::{
    Call, Callers, CancelParams, DrainParams, DrainResult, Endpoint, ErrorCode, GatewayInfo, OpenResult,
    Reason, RpcError, SessionId, SessionList, SessionOpen, SessionRecord, SessionSide, SessionState,
    StreamBounds, Timestamp,
};
use novacron_protocol::wire::Version;
use serde_json::Value;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How long a shard may take to answer beyond the time that a call itself allows.
const SHARD_ANSWER_SLACK: Duration = Duration::from_secs(5);
/// How long a cancelled session may take to end before the caller is answered all the same.
const CANCEL_ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How often a wait for a session's end looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What the control socket's threads share.
pub(crate) struct Calls {
    pub(crate) registry: Arc<Registry>,
    pub(crate) paths: Arc<Paths>,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) protection: Arc<Protection>,
    /// Who may command the gateway in whose name; `None`: whoever can open its socket, in everybody's.
    pub(crate) callers: Option<Callers>,
    /// Where peers reach this gateway, with the ports that the system chose.
    pub(crate) listen: Vec<Endpoint>,
    pub(crate) streams: StreamBounds,
    pub(crate) started_at: Timestamp,
    pub(crate) started: Instant,
}

fn to_value<T: serde::Serialize>(value: &T) -> Result<Value, RpcError> {
    serde_json::to_value(value).map_err(|error| {
        RpcError::new(
            ErrorCode::InternalError,
            format!("the answer cannot be written: {error}"),
            "the answer",
            "report it",
        )
    })
}

fn unknown(session: SessionId) -> RpcError {
    let next = "`novactl sessions` lists what the gateway knows: live sessions and the last 64 ended ones";
    RpcError::new(ErrorCode::SessionUnknown, format!("there is no session {session} here"), "nothing", next)
}

impl Calls {
    /// Carries out a call in a caller's name; `session.watch` is the server's own.
    pub(crate) fn carry_out(&self, caller: &Caller, call: Call) -> Result<Value, RpcError> {
        let call = caller.may(call).inspect_err(|_| self.protection.refusals().count("wrong_caller"))?;
        match call {
            Call::GatewayInfo => to_value(&self.info()),
            Call::GatewayDrain(DrainParams { timeout_ms }) => {
                to_value(&self.drain(Duration::from_millis(timeout_ms), || false))
            }
            Call::PathList => to_value(&self.paths.list()),
            Call::PathProbe(named) => to_value(&self.paths.get(named.peer)?),
            Call::PathForce(forced) => to_value(&self.paths.force(forced.peer, forced.mode)?),
            Call::SessionOpen(open) => to_value(&self.open(*open)?),
            Call::SessionList => {
                let mut sessions = self.registry.list();
                sessions.retain(|record| caller.sees(record));
                to_value(&SessionList { sessions })
            }
            Call::SessionGet(named) => to_value(&self.get(caller, named.session)?),
            Call::SessionWatch(params) => to_value(&self.get(caller, params.session)?),
            Call::SessionCancel(CancelParams { session, reason }) => {
                self.get(caller, session)?;
                to_value(&self.cancel(session, &reason)?)
            }
            Call::SessionRelease(named) => {
                self.get(caller, named.session)?;
                to_value(&self.release(named.session)?)
            }
        }
    }

    fn info(&self) -> GatewayInfo {
        GatewayInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire_versions: (Version::OLDEST as u16..=Version::NEWEST as u16).collect(),
            api_version: API_VERSION,
            pid: std::process::id(),
            shards: u32::try_from(self.shards.len()).unwrap_or(u32::MAX),
            listen: self.listen.clone(),
            draining: self.registry.is_draining(),
            started_at: self.started_at,
            security: Some(self.protection.security()),
            streams: Some(self.streams.clone()),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// A session's record, if the caller may know of it: who may not learns that there is none.
    pub(super) fn get(&self, caller: &Caller, session: SessionId) -> Result<SessionRecord, RpcError> {
        let found = self.registry.get(session).map(|(record, _)| record);
        found.filter(|record| caller.sees(record)).ok_or_else(|| unknown(session))
    }

    fn open(&self, open: SessionOpen) -> Result<OpenResult, RpcError> {
        let asked = record::asked(&open);
        let wait = Duration::from_millis(open.options.open_timeout_ms);
        match &open.side {
            SessionSide::Destination { .. } => {
                let session = open.session;
                let accept = Duration::from_millis(open.options.accept_timeout_ms);
                self.registry.expect(open, asked, accept)?;
                tracing::info!(%session, "session announced: waiting for the peer gateway to open it");
                Ok(OpenResult { session, listen: None, labelled: Vec::new() })
            }
            SessionSide::Source { .. } => {
                let session = open.session;
                let shard = (session.0 % self.shards.len() as u64) as usize;
                self.registry.begin(asked.clone(), open.options.connections_max, shard)?;
                let (answer, answered) = sync_channel(1);
                let command = Command::OpenSource { open: Box::new(open), record: Box::new(asked), answer };
                self.shards[shard].send(command).map_err(|_| self.shard_lost(session))?;
                match answered.recv_timeout(wait + SHARD_ANSWER_SLACK) {
                    Ok(result) => result,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                        Err(self.shard_lost(session))
                    }
                }
            }
        }
    }

    /// A shard did not answer: the session is not known to be open, and must not be taken for it.
    fn shard_lost(&self, session: SessionId) -> RpcError {
        let next = "look at the gateway's log, cancel the session, and open it again";
        RpcError::new(
            ErrorCode::InternalError,
            format!("the shard of session {session} did not answer"),
            "nothing",
            next,
        )
    }

    fn cancel(&self, session: SessionId, reason: &str) -> Result<SessionRecord, RpcError> {
        let text = if reason.is_empty() { "cancelled by a caller".to_owned() } else { reason.to_owned() };
        let api_reason = Reason { code: "cancelled".to_owned(), message: text.clone() };
        if let Some(record) = self.registry.end_expected(session.0, api_reason) {
            return Ok(record);
        }
        let (record, shard) = self.registry.get(session).ok_or_else(|| unknown(session))?;
        let Some(shard) = shard else { return Ok(record) };
        self.shards[shard]
            .send(Command::Cancel { session: session.0, reason: text })
            .map_err(|_| self.shard_lost(session))?;
        let deadline = Instant::now() + CANCEL_ANSWER_WAIT;
        loop {
            let record = self.get(&Caller::Owner, session)?;
            if record.state.is_ended() || record.state == SessionState::Held || Instant::now() >= deadline {
                return Ok(record);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn release(&self, session: SessionId) -> Result<SessionRecord, RpcError> {
        let (record, shard) = self.registry.get(session).ok_or_else(|| unknown(session))?;
        let (SessionState::Held, Some(shard)) = (record.state, shard) else {
            let message = format!("session {session} holds no sockets: only a session in state `held` does");
            let next = "nothing needs releasing; `novactl show` tells how the session stands";
            return Err(RpcError::new(ErrorCode::InvalidRequest, message, "nothing", next));
        };
        self.shards[shard]
            .send(Command::Release { session: session.0 })
            .map_err(|_| self.shard_lost(session))?;
        Ok(record)
    }

    /// Takes no new sessions, lets running ones finish until the deadline or until somebody is in a `hurry`, and
    /// fails the rest cleanly.
    pub(crate) fn drain(&self, timeout: Duration, hurry: impl Fn() -> bool) -> DrainResult {
        let running = self.registry.drain();
        tracing::info!(running, timeout_s = timeout.as_secs_f64(), "draining: no new sessions");
        // What no peer has opened yet has nothing to finish.
        for session in self.registry.running().0 {
            let message = "the gateway is shutting down; no byte had arrived".to_owned();
            self.registry.end_expected(session, Reason { code: "draining".to_owned(), message });
        }
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline && !hurry() && !self.registry.running().1.is_empty() {
            std::thread::sleep(LOOK_INTERVAL);
        }
        let left = self.registry.running().1;
        for (session, shard) in &left {
            let reason = "the gateway shut down before the session finished".to_owned();
            // A shard that is gone has no session left to fail.
            let _ = self.shards[*shard].send(Command::Cancel { session: *session, reason });
        }
        let deadline = Instant::now() + CANCEL_ANSWER_WAIT;
        while Instant::now() < deadline && !self.registry.running().1.is_empty() {
            std::thread::sleep(LOOK_INTERVAL);
        }
        DrainResult {
            running: u32::try_from(running).unwrap_or(u32::MAX),
            cancelled: u32::try_from(left.len()).unwrap_or(u32::MAX),
        }
    }
}

/// Where a shard answers a call.
pub(crate) type Answer = SyncSender<Result<OpenResult, RpcError>>;
