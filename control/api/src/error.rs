//! Errors as the control socket carries them.

use serde::{Deserialize, Serialize};

/// Every error a gateway answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The line was not JSON.
    ParseError,
    /// The object was not a JSON-RPC 2.0 request.
    InvalidRequest,
    /// No such method.
    MethodNotFound,
    /// The parameters were missing, unknown, of a wrong type or out of range.
    InvalidParams,
    /// The gateway failed in a way it has no name for.
    InternalError,
    /// A live session already has this id.
    SessionExists,
    /// No session has this id.
    SessionUnknown,
    /// The peer gateway could not be reached in time.
    PeerUnreachable,
    /// The peer gateway answered and said no (version, token, unknown session, limit).
    PeerRefused,
    /// The address to listen on could not be bound.
    BindFailed,
    /// The gateway is draining and takes no new sessions.
    Draining,
    /// A limit of the gateway is reached.
    LimitReached,
    /// The session failed.
    SessionFailed,
    /// The caller's role does not reach for it, or nobody knows the caller.
    Forbidden,
    /// The control process cannot reach its gateway.
    GatewayLost,
    /// The idempotency key was used with other parameters.
    KeyReused,
    /// The configuration cannot be taken; what was in force still is.
    ConfigurationRefused,
    /// What must be written down first could not be.
    NotRecorded,
    /// How it ended was reported otherwise before.
    AlreadySettled,
}

impl ErrorCode {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 19] = [
        Self::ParseError,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::InvalidParams,
        Self::InternalError,
        Self::SessionExists,
        Self::SessionUnknown,
        Self::PeerUnreachable,
        Self::PeerRefused,
        Self::BindFailed,
        Self::Draining,
        Self::LimitReached,
        Self::SessionFailed,
        Self::Forbidden,
        Self::GatewayLost,
        Self::KeyReused,
        Self::ConfigurationRefused,
        Self::NotRecorded,
        Self::AlreadySettled,
    ];

    /// The number on the wire: JSON-RPC 2.0, section 5.1, and its range for servers.
    pub fn number(self) -> i64 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::InternalError => -32603,
            Self::SessionExists => -32001,
            Self::SessionUnknown => -32002,
            Self::PeerUnreachable => -32003,
            Self::PeerRefused => -32004,
            Self::BindFailed => -32005,
            Self::Draining => -32006,
            Self::LimitReached => -32007,
            Self::SessionFailed => -32008,
            Self::Forbidden => -32020,
            Self::GatewayLost => -32021,
            Self::KeyReused => -32022,
            Self::ConfigurationRefused => -32023,
            Self::NotRecorded => -32024,
            Self::AlreadySettled => -32025,
        }
    }

    /// The stable name, in `data.code`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ParseError => "parse_error",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::InvalidParams => "invalid_params",
            Self::InternalError => "internal_error",
            Self::SessionExists => "session_exists",
            Self::SessionUnknown => "session_unknown",
            Self::PeerUnreachable => "peer_unreachable",
            Self::PeerRefused => "peer_refused",
            Self::BindFailed => "bind_failed",
            Self::Draining => "draining",
            Self::LimitReached => "limit_reached",
            Self::SessionFailed => "session_failed",
            Self::Forbidden => "forbidden",
            Self::GatewayLost => "gateway_lost",
            Self::KeyReused => "key_reused",
            Self::ConfigurationRefused => "configuration_refused",
            Self::NotRecorded => "not_recorded",
            Self::AlreadySettled => "already_settled",
        }
    }

    /// The code of a number; `None` for a number this version does not know.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

/// What a person or a program needs beyond the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// The stable name of the error, as [`ErrorCode::name`].
    pub code: String,
    /// What was lost; `nothing` when nothing was.
    pub lost: String,
    /// What to do now.
    pub next: String,
}

/// The `error` member of a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// The number, one of [`ErrorCode`] or unknown to this version.
    pub code: i64,
    /// What happened, in a sentence.
    pub message: String,
    /// The rest; absent from servers that are not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<ErrorData>>,
}

impl RpcError {
    /// An error of this code: what happened, what was lost, what to do.
    pub fn new(
        code: ErrorCode,
        message: impl Into<String>,
        lost: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        let data = ErrorData { code: code.name().to_owned(), lost: lost.into(), next: next.into() };
        Self { code: code.number(), message: message.into(), data: Some(Box::new(data)) }
    }

    /// The code, when this version knows it.
    pub fn known_code(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.code)
    }

    /// The stable name: from the data, else from the number, else `unknown_error`.
    pub fn name(&self) -> &str {
        match &self.data {
            Some(data) => &data.code,
            None => self.known_code().map_or("unknown_error", ErrorCode::name),
        }
    }
}
