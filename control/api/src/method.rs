//! Methods: a name and parameters become a typed call, or an error that says why not.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ErrorCode, RpcError};
use crate::gateway::DrainParams;
use crate::path::{ForceParams, PathRef};
use crate::session::{CancelParams, SessionOpen, SessionRef, WatchParams};

/// Notification that carries a record while a session is watched.
pub const SESSION_PROGRESS: &str = "session.progress";
/// Last notification of a watched session.
pub const SESSION_ENDED: &str = "session.ended";

/// A call on a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `gateway.info`, answered with [`crate::GatewayInfo`].
    GatewayInfo,
    /// `gateway.drain`, answered with [`crate::DrainResult`].
    GatewayDrain(DrainParams),
    /// `path.list`, answered with [`crate::PathList`].
    PathList,
    /// `path.probe`, answered with [`crate::PathRecord`].
    PathProbe(PathRef),
    /// `path.force`, answered with [`crate::PathRecord`].
    PathForce(ForceParams),
    /// `session.open`, answered with [`crate::OpenResult`].
    SessionOpen(Box<SessionOpen>),
    /// `session.list`, answered with [`crate::SessionList`].
    SessionList,
    /// `session.get`, answered with [`crate::SessionRecord`].
    SessionGet(SessionRef),
    /// `session.cancel`, answered with [`crate::SessionRecord`].
    SessionCancel(CancelParams),
    /// `session.release`, answered with [`crate::SessionRecord`].
    SessionRelease(SessionRef),
    /// `session.watch`, answered with [`crate::WatchResult`], then notifications.
    SessionWatch(WatchParams),
}

impl Call {
    /// Every method's name.
    pub const METHODS: [&str; 11] = [
        "gateway.info",
        "gateway.drain",
        "path.list",
        "path.probe",
        "path.force",
        "session.open",
        "session.list",
        "session.get",
        "session.cancel",
        "session.release",
        "session.watch",
    ];

    /// The method's name.
    pub fn method(&self) -> &'static str {
        match self {
            Self::GatewayInfo => "gateway.info",
            Self::GatewayDrain(_) => "gateway.drain",
            Self::PathList => "path.list",
            Self::PathProbe(_) => "path.probe",
            Self::PathForce(_) => "path.force",
            Self::SessionOpen(_) => "session.open",
            Self::SessionList => "session.list",
            Self::SessionGet(_) => "session.get",
            Self::SessionCancel(_) => "session.cancel",
            Self::SessionRelease(_) => "session.release",
            Self::SessionWatch(_) => "session.watch",
        }
    }

    /// The parameters as they are written.
    pub fn params(&self) -> Value {
        let params = match self {
            Self::GatewayInfo | Self::SessionList | Self::PathList => Ok(Value::Object(Map::new())),
            Self::GatewayDrain(params) => serde_json::to_value(params),
            Self::PathProbe(params) => serde_json::to_value(params),
            Self::PathForce(params) => serde_json::to_value(params),
            Self::SessionOpen(params) => serde_json::to_value(params),
            Self::SessionGet(params) | Self::SessionRelease(params) => serde_json::to_value(params),
            Self::SessionCancel(params) => serde_json::to_value(params),
            Self::SessionWatch(params) => serde_json::to_value(params),
        };
        // These types always serialise: their keys are strings and no number is a float.
        params.unwrap_or(Value::Null)
    }

    /// The call that a method's name and parameters mean. Absent parameters are an empty object.
    ///
    /// # Errors
    /// [`ErrorCode::MethodNotFound`] or [`ErrorCode::InvalidParams`]; nothing was done.
    pub fn parse(method: &str, params: Option<Value>) -> Result<Self, RpcError> {
        let params = params.unwrap_or_else(|| Value::Object(Map::new()));
        // Parameters by position are JSON-RPC, but every one of ours has a name.
        if !params.is_object() {
            return Err(invalid_params(method, "params must be an object"));
        }
        let call = match method {
            "gateway.info" => nothing(method, &params).map(|()| Self::GatewayInfo)?,
            "session.list" => nothing(method, &params).map(|()| Self::SessionList)?,
            "path.list" => nothing(method, &params).map(|()| Self::PathList)?,
            "path.probe" => Self::PathProbe(typed(method, params)?),
            "path.force" => Self::PathForce(typed(method, params)?),
            "gateway.drain" => Self::GatewayDrain(typed(method, params)?),
            "session.open" => Self::SessionOpen(Box::new(typed(method, params)?)),
            "session.get" => Self::SessionGet(typed(method, params)?),
            "session.cancel" => Self::SessionCancel(typed(method, params)?),
            "session.release" => Self::SessionRelease(typed(method, params)?),
            "session.watch" => Self::SessionWatch(typed(method, params)?),
            _ => {
                let next = format!("call one of {}", Self::METHODS.join(", "));
                let message = format!("there is no method '{}'", shortened(method));
                return Err(RpcError::new(ErrorCode::MethodNotFound, message, "nothing", next));
            }
        };
        let checked = match &call {
            Self::GatewayDrain(params) => params.check(),
            Self::SessionCancel(params) => params.check(),
            Self::SessionWatch(params) => params.check(),
            // `session.open` checks itself while it is parsed; the others have nothing to check.
            _ => Ok(()),
        };
        checked.map_err(|why| invalid_params(method, &why))?;
        Ok(call)
    }
}

pub(crate) fn nothing(method: &str, params: &Value) -> Result<(), RpcError> {
    match params.as_object().and_then(|members| members.keys().next()) {
        Some(name) => Err(invalid_params(method, &format!("unknown field `{}`", shortened(name)))),
        None => Ok(()),
    }
}

pub(crate) fn typed<T: DeserializeOwned>(method: &str, params: Value) -> Result<T, RpcError> {
    serde_json::from_value(params).map_err(|error| invalid_params(method, &error.to_string()))
}

pub(crate) fn invalid_params(method: &str, why: &str) -> RpcError {
    let message = format!("{method}: {}", shortened(why));
    RpcError::new(ErrorCode::InvalidParams, message, "nothing", "correct the parameters and call again")
}

/// What a caller sent is echoed in messages, but never at length.
pub(crate) fn shortened(text: &str) -> &str {
    match text.char_indices().nth(200) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
