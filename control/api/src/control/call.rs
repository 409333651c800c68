//! Methods of the control process: the table that roles, parsing and the OpenRPC document share.

use serde_json::{Map, Value};

use super::{
    AuditCheck, AuditPage, HistoryPage, Identify, MigrationReport, PathHistoryPage, Role, Subscription,
    TokenRevoke, TokenRotate,
};
use crate::error::{ErrorCode, RpcError};
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::method::{Call, invalid_params, nothing, shortened, typed};

/// A call on the control process.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlCall {
    /// `rpc.discover`: the OpenRPC document.
    Discover,
    /// `node.info`.
    NodeInfo,
    /// `node.health`.
    NodeHealth,
    /// `node.environment`.
    NodeEnvironment,
    /// `config.get`.
    ConfigGet,
    /// `config.reload`.
    ConfigReload,
    /// `features.get`.
    FeaturesGet,
    /// `caller.info`.
    CallerInfo,
    /// `caller.identify`.
    CallerIdentify(Identify),
    /// `events.subscribe`.
    EventsSubscribe(Subscription),
    /// `events.recent`.
    EventsRecent,
    /// `history.sessions`.
    HistorySessions(HistoryPage),
    /// `history.migrations`.
    HistoryMigrations(HistoryPage),
    /// `history.paths`.
    HistoryPaths(PathHistoryPage),
    /// `migration.report`.
    MigrationReport(MigrationReport),
    /// `token.list`.
    TokenList,
    /// `token.rotate`.
    TokenRotate(TokenRotate),
    /// `token.revoke`.
    TokenRevoke(TokenRevoke),
    /// `audit.list`.
    AuditList(AuditPage),
    /// `audit.verify`.
    AuditVerify(AuditCheck),
    /// A method of the gateway, carried out there.
    Gateway(Call),
}

/// What a method answers with: for documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The type of this name.
    Type(&'static str),
    /// An OpenRPC document.
    Document,
}

/// A method, as roles and documents need it.
#[derive(Debug, Clone, Copy)]
pub struct MethodInfo {
    /// Its name.
    pub name: &'static str,
    /// The least role that may call it; `None`: whoever is connected.
    pub role: Option<Role>,
    /// Whether it changes something: then it is written to the audit log and takes an `idempotency_key`.
    pub changes: bool,
    /// What it does.
    pub about: &'static str,
    /// The type of its parameters; `None`: it takes none.
    pub params: Option<&'static str>,
    /// What it answers with.
    pub answer: Answer,
}

const fn method(
    name: &'static str,
    role: Role,
    changes: bool,
    params: Option<&'static str>,
    answer: &'static str,
    about: &'static str,
) -> MethodInfo {
    MethodInfo { name, role: Some(role), changes, about, params, answer: Answer::Type(answer) }
}

const METHODS: &[MethodInfo] = &[
    MethodInfo {
        name: "rpc.discover",
        role: None,
        changes: false,
        about: "This document.",
        params: None,
        answer: Answer::Document,
    },
    MethodInfo {
        name: "caller.info",
        role: None,
        changes: false,
        about: "Who the caller is taken for, and what it may do.",
        params: None,
        answer: Answer::Type("CallerInfo"),
    },
    MethodInfo {
        name: "caller.identify",
        role: None,
        changes: false,
        about: "Shows a token; the connection is its holder's from then on.",
        params: Some("Identify"),
        answer: Answer::Type("CallerInfo"),
    },
    method("node.info", Role::Viewer, false, None, "NodeInfo", "What the node is."),
    method("node.health", Role::Viewer, false, None, "Health", "How every component is."),
    method("node.environment", Role::Viewer, false, None, "Environment", "What the host has, and lacks."),
    method("config.get", Role::Viewer, false, None, "ConfigValues", "Every value and where it came from."),
    method(
        "config.reload",
        Role::Admin,
        true,
        None,
        "Reloaded",
        "Reads the configuration again: all of it is taken, or none.",
    ),
    method("features.get", Role::Viewer, false, None, "Features", "Which features new sessions get."),
    method(
        "events.subscribe",
        Role::Viewer,
        false,
        Some("Subscription"),
        "Subscribed",
        "Notifications `event` follow.",
    ),
    method("events.recent", Role::Viewer, false, None, "RecentEvents", "The last events of this run."),
    method(
        "history.sessions",
        Role::Viewer,
        false,
        Some("HistoryPage"),
        "SessionHistory",
        "Sessions as they were recorded, newest first.",
    ),
    method(
        "history.migrations",
        Role::Viewer,
        false,
        Some("HistoryPage"),
        "MigrationHistory",
        "Migrations as they were recorded, newest first.",
    ),
    method(
        "history.paths",
        Role::Viewer,
        false,
        Some("PathHistoryPage"),
        "PathHistory",
        "What the paths to a peer were like, newest first.",
    ),
    method(
        "migration.report",
        Role::Operator,
        true,
        Some("MigrationReport"),
        "MigrationRecord",
        "Tells how a migration ended, as its hypervisors show it: gateways see bytes alone.",
    ),
    method("token.list", Role::Admin, false, None, "TokenList", "Callers' tokens that are taken, by digest."),
    method(
        "token.rotate",
        Role::Admin,
        true,
        Some("TokenRotate"),
        "TokenList",
        "Takes a new token of a name, and the old ones for a while beside it.",
    ),
    method(
        "token.revoke",
        Role::Admin,
        true,
        Some("TokenRevoke"),
        "TokenList",
        "Takes a name's tokens back.",
    ),
    method(
        "audit.list",
        Role::Admin,
        false,
        Some("AuditPage"),
        "AuditList",
        "Who asked for what and what came of it, oldest first.",
    ),
    method(
        "audit.verify",
        Role::Admin,
        false,
        Some("AuditCheck"),
        "AuditVerified",
        "Follows the whole audit log, and says where it ends.",
    ),
    method("gateway.info", Role::Viewer, false, None, "GatewayInfo", "What the gateway is."),
    method(
        "gateway.drain",
        Role::Admin,
        true,
        Some("DrainParams"),
        "DrainResult",
        "The gateway takes no new sessions; running ones finish, or fail cleanly at the deadline.",
    ),
    method("path.list", Role::Viewer, false, None, "PathList", "What is known of the paths to peers."),
    method("path.probe", Role::Operator, false, Some("PathRef"), "PathRecord", "Measures a path now."),
    method(
        "path.force",
        Role::Operator,
        true,
        Some("ForceParams"),
        "PathRecord",
        "Sets a path's mode, whatever is measured.",
    ),
    method(
        "session.open",
        Role::Operator,
        true,
        Some("SessionOpen"),
        "OpenResult",
        "Announces a session. What its caller leaves open is chosen by the configuration.",
    ),
    method(
        "session.list",
        Role::Viewer,
        false,
        None,
        "SessionList",
        "Live sessions, and the last that ended.",
    ),
    method("session.get", Role::Viewer, false, Some("SessionRef"), "SessionRecord", "One session."),
    method(
        "session.watch",
        Role::Viewer,
        false,
        Some("WatchParams"),
        "WatchResult",
        "Notifications `session.progress` follow, then `session.ended`.",
    ),
    method(
        "session.cancel",
        Role::Operator,
        true,
        Some("CancelParams"),
        "SessionRecord",
        "Fails a session on both sides.",
    ),
    method(
        "session.release",
        Role::Operator,
        true,
        Some("SessionRef"),
        "SessionRecord",
        "Closes source sockets that a failed session holds.",
    ),
];

/// Every method.
pub fn methods() -> &'static [MethodInfo] {
    METHODS
}

impl MethodInfo {
    /// The method of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.name == name)
    }
}

impl ControlCall {
    /// The call that a method's name and parameters mean, and its idempotency key, which is no parameter of the method.
    ///
    /// # Errors
    /// [`ErrorCode::MethodNotFound`] or [`ErrorCode::InvalidParams`]; nothing was done.
    pub fn parse(name: &str, params: Option<Value>) -> Result<(Self, Option<String>), RpcError> {
        let Some(info) = MethodInfo::find(name) else {
            let known: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
            let next = format!("call one of {}", known.join(", "));
            let message = format!("there is no method '{}'", shortened(name));
            return Err(RpcError::new(ErrorCode::MethodNotFound, message, "nothing", next));
        };
        let mut params = params.unwrap_or_else(|| Value::Object(Map::new()));
        let Some(members) = params.as_object_mut() else {
            return Err(invalid_params(name, "params must be an object"));
        };
        let key = if info.changes { members.remove("idempotency_key") } else { None };
        let key = key.map(|key| idempotency_key(name, &key)).transpose()?;
        let none = |call: Self| nothing(name, &params).map(|()| call);
        let call = match name {
            "rpc.discover" => none(Self::Discover)?,
            "node.info" => none(Self::NodeInfo)?,
            "node.health" => none(Self::NodeHealth)?,
            "node.environment" => none(Self::NodeEnvironment)?,
            "config.get" => none(Self::ConfigGet)?,
            "config.reload" => none(Self::ConfigReload)?,
            "features.get" => none(Self::FeaturesGet)?,
            "caller.info" => none(Self::CallerInfo)?,
            "events.recent" => none(Self::EventsRecent)?,
            // What fails here may hold the token: it is not repeated.
            "caller.identify" => Self::CallerIdentify(
                serde_json::from_value(params)
                    .map_err(|_| invalid_params(name, "expected the member token, a text, and no other"))?,
            ),
            "history.sessions" => Self::HistorySessions(typed(name, params)?),
            "history.migrations" => Self::HistoryMigrations(typed(name, params)?),
            "history.paths" => Self::HistoryPaths(typed(name, params)?),
            "migration.report" => Self::MigrationReport(typed(name, params)?),
            "token.list" => none(Self::TokenList)?,
            "token.rotate" => Self::TokenRotate(typed(name, params)?),
            "token.revoke" => Self::TokenRevoke(typed(name, params)?),
            "audit.list" => Self::AuditList(typed(name, params)?),
            "audit.verify" => Self::AuditVerify(typed(name, params)?),
            "events.subscribe" => Self::EventsSubscribe(typed(name, params)?),
            _ => Self::Gateway(Call::parse(name, Some(params))?),
        };
        Ok((call, key))
    }
}

fn idempotency_key(method: &str, key: &Value) -> Result<String, RpcError> {
    let fits = |text: &&str| {
        (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    key.as_str().filter(fits).map(str::to_owned).ok_or_else(|| {
        let why = format!(
            "idempotency_key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} letters, digits and signs, without spaces"
        );
        invalid_params(method, &why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_gateways_methods_are_all_here() {
        for name in Call::METHODS {
            assert!(MethodInfo::find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn every_method_is_parsed_or_asks_for_its_parameters() {
        for method in methods() {
            match ControlCall::parse(method.name, None) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.known_code(), Some(ErrorCode::InvalidParams), "{}", method.name);
                    assert!(method.params.is_some(), "{}: {error}", method.name);
                }
            }
        }
    }

    #[test]
    fn only_what_changes_something_takes_a_key() {
        let (_, key) = ControlCall::parse("config.reload", Some(json!({"idempotency_key": "a-1"}))).unwrap();
        assert_eq!(key.as_deref(), Some("a-1"));
        assert!(ControlCall::parse("node.info", Some(json!({"idempotency_key": "a"}))).is_err());
        for wrong in [json!(1), json!(""), json!("a b"), json!("x".repeat(129))] {
            assert!(ControlCall::parse("config.reload", Some(json!({"idempotency_key": wrong}))).is_err());
        }
    }

    #[test]
    fn a_token_is_never_repeated() {
        let secret = "s3cret-s3cret";
        let error = ControlCall::parse("caller.identify", Some(json!({"token": [secret]}))).unwrap_err();
        assert!(!format!("{error:?}").contains(secret));
        let (call, _) = ControlCall::parse("caller.identify", Some(json!({"token": secret}))).unwrap();
        assert!(!format!("{call:?}").contains(secret));
    }

    #[test]
    fn unknown_methods_and_wrong_types_are_told() {
        assert!(ControlCall::parse("node.inf", None).unwrap_err().message.contains("no method"));
        for (name, params) in [
            ("node.info", json!({"a": 1})),
            ("node.info", json!([])),
            ("events.subscribe", json!({"kinds": "session"})),
            ("session.get", json!({"session": 5})),
        ] {
            let error = ControlCall::parse(name, Some(params)).unwrap_err();
            assert_eq!(error.known_code(), Some(ErrorCode::InvalidParams));
        }
    }
}
