//! A scripted gateway: the control socket and the ways in which its session can end.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use novacron_control_api::{
    Call, ErrorCode, GatewayInfo, LineBuffer, Notification, OpenResult, Request, RequestFault, Response,
    RpcError, SessionId, SessionList, SessionOpen, SessionRecord, SessionSide, WatchResult, method,
    parse_envelope, parse_request,
};
use serde_json::{Value, json};

use crate::world::{Shared, State, locked, unlink};

/// The one session of a world.
pub(crate) struct Session {
    pub(crate) id: Option<SessionId>,
    /// Options as the source's caller gave them.
    pub(crate) options: Value,
    /// Every session that was announced, and at which side.
    pub(crate) opened: Vec<(String, SessionOpen)>,
    state: &'static str,
    reason: Option<(&'static str, &'static str)>,
    pub(crate) gateways_alive: [bool; 2],
}

impl Default for Session {
    fn default() -> Self {
        let (options, opened) = (Value::Null, Vec::new());
        Self { id: None, options, opened, state: "running", reason: None, gateways_alive: [true; 2] }
    }
}

impl Session {
    /// It failed late: the source's sockets stay open.
    pub(crate) fn hold(&mut self) {
        (self.state, self.reason) = ("held", Some(("outage", "no stream")));
    }

    /// Ends it, once.
    pub(crate) fn end(&mut self, state: &'static str, reason: Option<(&'static str, &'static str)>) {
        if matches!(self.state, "running" | "held") {
            (self.state, self.reason) = (state, reason);
        }
    }
}

fn index(role: &str) -> usize {
    usize::from(role == "destination")
}

/// Serves a control socket until its gateway is no longer alive.
pub(crate) fn serve(role: &'static str, path: &Path, state: &Shared) {
    let listener = UnixListener::bind(path).expect("a socket");
    listener.set_nonblocking(true).expect("non-blocking");
    let (path, state) = (path.to_owned(), state.clone());
    std::thread::spawn(move || {
        while locked(&state).session.gateways_alive[index(role)] {
            match listener.accept() {
                Ok((stream, _)) => {
                    let state = state.clone();
                    std::thread::spawn(move || connection(role, stream, &state));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(2)),
                Err(error) => panic!("{error}"),
            }
        }
        unlink(&path);
    });
}

fn connection(role: &'static str, mut stream: UnixStream, state: &Shared) {
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    let mut lines = LineBuffer::new();
    let mut chunk = [0; 4096];
    while locked(state).session.gateways_alive[index(role)] {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => lines.feed(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        }
        while let Some(line) = lines.next_line().expect("a bounded line") {
            let request = match parse_request(&line) {
                Ok(request) => request,
                Err(fault) => {
                    let response = beyond(role, &line, fault, &mut locked(state));
                    if stream.write_all(&response.to_line()).is_err() {
                        return;
                    }
                    continue;
                }
            };
            let watching = matches!(request.call, Call::SessionWatch(_));
            let response = answer(role, &request, &mut locked(state));
            if stream.write_all(&response.to_line()).is_err()
                || (watching && !watch(role, &mut stream, state))
            {
                return;
            }
        }
    }
}

/// Answers what a gateway does not know: as one, or as a control process.
fn beyond(role: &'static str, line: &[u8], fault: RequestFault, state: &mut State) -> Response {
    let envelope = parse_envelope(line).expect("what novactl sends is a request");
    let id = envelope.id.expect("an id");
    match (envelope.method.as_str(), state.faults.keeps_books) {
        ("node.info", true) => {
            let info = json!({"node_id": role, "version": "0.1.0", "control_version": 3, "api_version": 2, "pid": 1,
                "started_at": "2026-11-21T00:00:00.000Z", "uptime_ms": 1000, "mode": "unknown", "mode_forced": false});
            Response::result(id, &info)
        }
        ("migration.report", true) => {
            let params = envelope.params.expect("parameters");
            state
                .log
                .push(format!("{role}:migration.report {}", params["outcome"].as_str().expect("an outcome")));
            state.reports.push((role, params.clone()));
            if state.faults.reports_refused {
                let error = RpcError::new(
                    ErrorCode::Forbidden,
                    "migration.report is for operators",
                    "nothing",
                    "ask",
                );
                return Response::error(id, error);
            }
            let record = json!({"session": params["session"], "label": "", "tenant": "", "actor": "uid:0",
                "outcome": params["outcome"], "reason": null, "started_at": "2026-11-21T00:00:00.000Z",
                "ended_at": "2026-11-21T00:00:01.000Z", "downtime_ms": params["downtime_ms"], "source": null,
                "destination": null, "peer": null});
            Response::result(id, &record)
        }
        _ => fault.into_response().expect("an answer"),
    }
}

fn answer(role: &'static str, request: &Request, state: &mut State) -> Response {
    let id = request.id.clone().expect("an id");
    let unknown = || {
        Response::error(
            id.clone(),
            RpcError::new(ErrorCode::SessionUnknown, "no such session", "nothing", "list"),
        )
    };
    match &request.call {
        Call::GatewayInfo => Response::result(id, &info(state)),
        Call::SessionOpen(open) => {
            state.log.push(format!("{role}:session.open"));
            if state.faults.refusals_before_open > 0 && role == "source" {
                state.faults.refusals_before_open -= 1;
                let error =
                    RpcError::new(ErrorCode::PeerRefused, "no such session was announced", "nothing", "wait");
                return Response::error(id, error);
            }
            if let Some((who, number)) = state.faults.open_refused
                && who == role
            {
                let code = ErrorCode::from_number(number).expect("a known code");
                return Response::error(
                    id,
                    RpcError::new(code, "the peer said no", "nothing", "look at the peer"),
                );
            }
            state.session.id = Some(open.session);
            let listen = match &open.side {
                SessionSide::Source { listen, .. } => {
                    state.session.options = serde_json::to_value(&open.options).expect("JSON");
                    Some(listen.clone())
                }
                SessionSide::Destination { .. } => None,
            };
            state.session.opened.push((role.to_owned(), (**open).clone()));
            Response::result(
                id,
                &OpenResult { session: open.session, listen, labelled: open.labelled.clone() },
            )
        }
        // No path is probed in this world.
        Call::PathList | Call::PathProbe(_) | Call::PathForce(_) => unknown(),
        Call::SessionList => {
            let sessions = state.session.id.map(|_| record(role, state)).into_iter().collect();
            Response::result(id, &SessionList { sessions })
        }
        Call::SessionGet(named) if Some(named.session) != state.session.id => unknown(),
        Call::SessionGet(_) => Response::result(id, &record(role, state)),
        Call::SessionCancel(named) if Some(named.session) != state.session.id => unknown(),
        Call::SessionCancel(_) => {
            state.log.push(format!("{role}:session.cancel"));
            state.session.end("failed", Some(("cancelled", "cancelled by its caller")));
            Response::result(id, &record(role, state))
        }
        Call::SessionWatch(_) => Response::result(id, &WatchResult { watching: true }),
        Call::SessionRelease(_) => {
            state.log.push(format!("{role}:session.release"));
            state.session.end("failed", None);
            Response::result(id, &record(role, state))
        }
        Call::GatewayDrain(_) => unknown(),
    }
}

/// Sends progress until the session ends; false when the connection is over.
fn watch(role: &'static str, stream: &mut UnixStream, state: &Shared) -> bool {
    for beat in 0..6000 {
        let (line, ended) = {
            let mut state = locked(state);
            if beat == 5 && state.faults.session_fails && role == "destination" {
                state.session.end("failed", Some(("digest_mismatch", "a batch did not match its digest")));
            }
            if beat == 5 && state.faults.gateway_vanishes && role == "source" {
                state.session.gateways_alive[0] = false;
            }
            if !state.session.gateways_alive[index(role)] {
                return false;
            }
            let ended = state.session.state != "running";
            let name = if ended { method::SESSION_ENDED } else { method::SESSION_PROGRESS };
            (Notification::new(name, &record(role, &state)).to_line(), ended)
        };
        if stream.write_all(&line).is_err() {
            return false;
        }
        if ended {
            return true;
        }
        sleep(Duration::from_millis(10));
    }
    false
}

fn info(state: &State) -> GatewayInfo {
    let info = json!({"version": "0.1.0", "wire_versions": [1], "api_version": state.api_version, "pid": 1, "shards": 1, "listen": ["tcp:127.0.0.1:7400"],
        "draining": state.draining, "started_at": "2026-11-21T00:00:00.000Z", "uptime_ms": 1000});
    serde_json::from_value(info).expect("a gateway's info")
}

fn record(role: &str, state: &State) -> SessionRecord {
    let reason = state.session.reason.map(|(code, message)| json!({"code": code, "message": message}));
    let record = json!({"session": state.session.id.expect("a session"), "label": "demo\u{1b}[2J", "role": role,
        "state": state.session.state, "reason": reason, "phase": "precopy", "iteration": 2,
        "opened_at": "2026-11-21T00:00:00.000Z", "elapsed_ms": 1500, "streams": {"open": 4, "ever": 4},
        "guest_bytes": 4000, "encoded_bytes": 1500, "wire_bytes_sent": 1600, "wire_bytes_received": 400,
        "pages": 2, "zero_pages": 1, "ram_total_bytes": 8192, "rate_bytes_per_s": 1000, "rtt_us": 50,
        "window_bytes": 65536, "tenant": "blue", "from": ["uid:107"], "refused_connections": 3,
        "labelled": [{"label": "disk", "endpoint": "unix:/run/d.sock"}], "codec": {"raw": 0, "lz4": 1, "zstd": 2}, "connections": [
            {"connection": 0, "direction": "forward", "position": 4000, "verified": 4000, "consumed": 4000,
                "digest": "11".repeat(32), "ended": true}], "digest_equal": true});
    serde_json::from_value(record).expect("a record")
}
