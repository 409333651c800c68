//! Calls on a gateway's control socket.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use novacron_control_api::{Call, Id, Incoming, RpcError, SessionRecord, method, parse_incoming, to_line};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::limits::RPC_ANSWER;
use crate::lines::{Lines, is_gone};

/// Why a call on a gateway gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    /// Nothing listens at the socket.
    #[error("no gateway listens on {path}: {why}; start it, or correct the path")]
    Gone { path: String, why: String },
    /// The socket cannot be used.
    #[error("the gateway's control socket {path} cannot be used: {why}")]
    Unreachable { path: String, why: String },
    /// The answer never came, or is not understood.
    #[error(
        "the gateway at {path} gave no answer to {method} ({why}); whether it was carried out is unknown"
    )]
    Lost { path: String, method: &'static str, why: String },
    /// The gateway is there, and says nothing of a session that it should tell of.
    #[error("the gateway at {path} has said nothing for {} s: its process hangs", .silence.as_secs())]
    Silent { path: String, silence: Duration },
    /// The gateway is older than what it is asked for.
    #[error(
        "the gateway at {path} speaks version {speaks} of the control socket, and this needs {needs}; nothing was opened, upgrade the gateway"
    )]
    Old { path: String, speaks: u32, needs: u32 },
    /// The gateway answered with an error.
    #[error("the gateway at {path} says: {}", explained(.error))]
    Answered { path: String, error: Box<RpcError> },
}

fn explained(error: &RpcError) -> String {
    match &error.data {
        Some(data) => {
            format!("{} [{}]; lost: {}; next: {}", error.message, data.code, data.lost, data.next)
        }
        None => format!("{} [{}]", error.message, error.code),
    }
}

impl GatewayError {
    /// A stable name for reports.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Gone { .. } => "gateway_gone",
            Self::Unreachable { .. } => "gateway_unreachable",
            Self::Lost { .. } => "gateway_lost",
            Self::Silent { .. } => "gateway_silent",
            Self::Old { .. } => "gateway_old",
            Self::Answered { error, .. } => error.name(),
        }
    }
}

/// One connection to a gateway.
pub(crate) struct Gateway {
    path: PathBuf,
    lines: Lines,
    next_id: i64,
}

impl Gateway {
    /// Connects.
    pub(crate) fn connect(path: &Path) -> Result<Self, GatewayError> {
        let lines = Lines::connect(path).map_err(|error| {
            let (path, why) = (path.display().to_string(), error.to_string());
            match is_gone(&error) {
                true => GatewayError::Gone { path, why },
                false => GatewayError::Unreachable { path, why },
            }
        })?;
        Ok(Self { path: path.to_owned(), lines, next_id: 1 })
    }

    /// Calls and waits for the result.
    pub(crate) fn call<T: DeserializeOwned>(
        &mut self,
        call: Call,
        wait: Duration,
    ) -> Result<T, GatewayError> {
        self.ask(call.method(), &call.params(), wait)
    }

    /// The same for any method, also those that only a control process has.
    pub(crate) fn ask<T: DeserializeOwned>(
        &mut self,
        method: &'static str,
        params: &Value,
        wait: Duration,
    ) -> Result<T, GatewayError> {
        let lost =
            |path: &Path, why: String| GatewayError::Lost { path: path.display().to_string(), method, why };
        let deadline = Instant::now() + wait;
        let id = self.next_id;
        self.next_id += 1;
        let line = to_line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        self.lines.write(&line, deadline).map_err(|why| lost(&self.path, why.to_string()))?;
        loop {
            let line = self.lines.read_line(deadline).map_err(|why| lost(&self.path, why.to_string()))?;
            match parse_incoming(&line).map_err(|why| lost(&self.path, why.to_string()))? {
                Incoming::Response { id: Id::Number(answered), result } if answered == id => {
                    let value: Value = result.map_err(|error| GatewayError::Answered {
                        path: self.path.display().to_string(),
                        error: Box::new(error),
                    })?;
                    return serde_json::from_value(value).map_err(|why| lost(&self.path, why.to_string()));
                }
                // A parse error that the gateway could not give an id to is about the only line that was sent.
                Incoming::Response { id: Id::Null, result: Err(error) } => {
                    let path = self.path.display().to_string();
                    return Err(GatewayError::Answered { path, error: Box::new(error) });
                }
                Incoming::Response { .. } | Incoming::Notification { .. } => {}
            }
        }
    }

    /// The next record of a watched session and whether it is the last; `None` when none comes in time.
    pub(crate) fn next_record(
        &mut self,
        wait: Duration,
    ) -> Result<Option<(SessionRecord, bool)>, GatewayError> {
        let lost = |path: &Path, why: String| GatewayError::Lost {
            path: path.display().to_string(),
            method: "session.watch",
            why,
        };
        let deadline = Instant::now() + wait;
        loop {
            let line = self.lines.poll_line(deadline).map_err(|why| lost(&self.path, why.to_string()))?;
            let Some(line) = line else { return Ok(None) };
            let incoming = parse_incoming(&line).map_err(|why| lost(&self.path, why.to_string()))?;
            let Incoming::Notification { method, params } = incoming else { continue };
            let ended = method == method::SESSION_ENDED;
            if ended || method == method::SESSION_PROGRESS {
                let record =
                    serde_json::from_value(params).map_err(|why| lost(&self.path, why.to_string()))?;
                return Ok(Some((record, ended)));
            }
        }
    }
}

/// One call on a fresh connection.
pub(crate) fn call<T: DeserializeOwned>(path: &Path, call: Call) -> Result<T, GatewayError> {
    Gateway::connect(path)?.call(call, RPC_ANSWER)
}
