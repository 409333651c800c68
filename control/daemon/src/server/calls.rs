//! What each method does, after its caller's role was looked at.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use novacron_control_api::configuration::{Key, Security};
use novacron_control_api::control::{
    CONTROL_VERSION, CallerInfo, ConfigValue, ConfigValues, ControlCall, Feature, Features, Health,
    HealthState, MethodInfo, MigrationOutcome, NodeInfo, RecentEvents, Role, TokenList,
};
use novacron_control_api::limits::API_VERSION;
use novacron_control_api::{Call, Envelope, ErrorCode, RpcError, SessionId, SessionRef};
use opentelemetry::KeyValue;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::bootstrap::Bootstrap;
use crate::features;
use crate::health::Board;
use crate::limits::{GATEWAY_ANSWER, GATEWAY_MARGIN};
use crate::node::Node;
use crate::records;
use crate::server::access::{Who, role};
use crate::server::books::{Books, Recorded};
use crate::server::discover;
use crate::server::tokens::{self, Holder};
use crate::traces::{TracedCall, of};

/// How the node is, for whoever asks.
pub(crate) struct Status {
    board: Arc<Board>,
    /// Its components hold this: weak, so that neither keeps the other.
    bootstrap: OnceLock<Weak<Bootstrap>>,
}

impl Status {
    pub(crate) fn new(board: Arc<Board>) -> Self {
        Self { board, bootstrap: OnceLock::new() }
    }

    pub(crate) fn of(&self, bootstrap: &Arc<Bootstrap>) {
        // Set once, before anything is started.
        let _ = self.bootstrap.set(Arc::downgrade(bootstrap));
    }

    pub(crate) async fn health(&self) -> Health {
        match self.bootstrap.get().and_then(Weak::upgrade) {
            Some(bootstrap) => self.board.look(&bootstrap).await,
            None => Health { ready: false, state: HealthState::Stopped, components: Vec::new() },
        }
    }
}

/// What all connections share.
pub(crate) struct Calls {
    pub(crate) node: Arc<Node>,
    books: Arc<Books>,
    status: Arc<Status>,
    own_uid: u32,
    turns: Semaphore,
}

fn value<T: Serialize>(of: &T) -> Result<Value, RpcError> {
    serde_json::to_value(of).map_err(|error| {
        let message = format!("the answer cannot be written: {error}");
        RpcError::new(ErrorCode::InternalError, message, "the answer", "report it")
    })
}

impl Calls {
    pub(crate) fn new(node: Arc<Node>, books: Arc<Books>, status: Arc<Status>) -> Self {
        let turns = usize::try_from(node.at_start().system.max_concurrency.get()).unwrap_or(1);
        let own_uid = rustix::process::geteuid().as_raw();
        Self { node, books, status, own_uid, turns: Semaphore::new(turns) }
    }

    pub(crate) fn role(&self, who: &Who) -> Option<Role> {
        let resolved = self.node.resolved();
        let security = &resolved.configuration.security;
        if is_over(security, who) { None } else { role(security, self.own_uid, who) }
    }

    /// Carries out a request of a caller. Subscriptions and watches are the connection's own; here they are only
    /// looked at.
    pub(crate) async fn carry_out(
        &self,
        who: &mut Who,
        request: Envelope,
    ) -> (Option<ControlCall>, Result<Value, RpcError>) {
        // A caller that waits for its turn sends nothing more meanwhile.
        let Ok(_turn) = self.turns.acquire().await else { return (None, Err(stopping())) };
        let info = MethodInfo::find(&request.method);
        let name = info.map_or("unknown", |info| info.name);
        let began = Instant::now();
        let (call, result) = self.judged(who, request).await;
        if self.node.traces.is_on() {
            let traced = TracedCall {
                method: name,
                changes: info.is_some_and(|info| info.changes),
                caller: &who.to_string(),
                origin: who.origin(),
                session: call.as_ref().and_then(session_of),
                error: result.as_ref().err().map(|error| (error.name(), error.message.as_str())),
                more: call.as_ref().map(attributes).unwrap_or_default(),
            };
            self.node.traces.call(traced, began.elapsed());
        }
        let outcome = match &result {
            Ok(_) => "done",
            Err(error) if error.known_code() == Some(ErrorCode::Forbidden) => "refused",
            Err(_) => "failed",
        };
        self.node.metrics.call(name, outcome);
        (call, result)
    }

    async fn judged(
        &self,
        who: &mut Who,
        request: Envelope,
    ) -> (Option<ControlCall>, Result<Value, RpcError>) {
        let Envelope { method, params, .. } = request;
        let Some(info) = MethodInfo::find(&method) else {
            // The parser knows how to say what there is.
            return (None, ControlCall::parse(&method, None).map(|_| Value::Null));
        };
        let held = self.role(who);
        if let Some(needed) = info.role.filter(|needed| held.is_none_or(|held| held < *needed)) {
            if info.changes {
                let params = hidden(params.unwrap_or_default());
                self.books.refused(&self.recorded(who, held, info, None, &params)).await;
            }
            let refused = match is_over(&self.node.resolved().configuration.security, who) {
                true => token_refused(TOKEN_OVER),
                false => forbidden(who, held, info.name, needed),
            };
            return (None, Err(refused));
        }
        let params = params.unwrap_or_else(|| json!({}));
        let mut filled = params.clone();
        let given = match (info.name, filled.as_object_mut()) {
            ("session.open", Some(members)) => self.fill(members),
            _ => None,
        };
        let (call, key) = match ControlCall::parse(info.name, Some(filled)) {
            Ok(parsed) => parsed,
            Err(error) => return (None, Err(error)),
        };
        if !info.changes {
            let result = self.look(who, &call).await;
            return (Some(call), result);
        }
        let recorded = self.recorded(who, held, info, key, &params);
        let (node, asked, caller) = (Arc::clone(&self.node), call.clone(), who.to_string());
        let result =
            self.books.carry_out(recorded, async move { change(&node, asked, given, &caller).await }).await;
        (Some(call), result)
    }

    /// The configuration's choices for a new session, where its caller named one that can be read.
    fn fill(&self, members: &mut serde_json::Map<String, Value>) -> Option<features::Given> {
        let session: SessionId = members.get("session")?.as_str()?.parse().ok()?;
        Some(features::apply(&self.node.resolved().configuration, session, members))
    }

    fn recorded(
        &self,
        who: &Who,
        held: Option<Role>,
        info: &MethodInfo,
        key: Option<String>,
        params: &Value,
    ) -> Recorded {
        let mut meant = params.clone();
        if let Some(members) = meant.as_object_mut() {
            members.remove("idempotency_key");
        }
        let role = held.map_or_else(|| "none".to_owned(), |role| role.to_string());
        let text = meant.to_string();
        Recorded {
            caller: who.to_string(),
            role,
            origin: who.origin(),
            method: info.name,
            key,
            meant: text,
            params: hidden(meant),
        }
    }

    /// Calls that change nothing.
    async fn look(&self, who: &mut Who, call: &ControlCall) -> Result<Value, RpcError> {
        let node = &self.node;
        match call {
            ControlCall::Discover => Ok(discover::document()),
            ControlCall::CallerInfo => value(&self.caller(who)),
            ControlCall::CallerIdentify(shown) => {
                *who = Who::Token(self.token(&shown.token)?);
                value(&self.caller(who))
            }
            ControlCall::NodeInfo => value(&self.info()),
            ControlCall::NodeHealth => value(&self.status.health().await),
            ControlCall::NodeEnvironment => value(&node.environment()),
            ControlCall::ConfigGet => value(&self.values()),
            ControlCall::FeaturesGet => value(&self.features()),
            ControlCall::EventsRecent => {
                let (kept, _) = node.events.subscribe();
                value(&RecentEvents { events: kept.iter().map(|event| (**event).clone()).collect() })
            }
            ControlCall::EventsSubscribe(_) => Ok(Value::Null),
            ControlCall::Gateway(Call::SessionGet(named)) => {
                match node.gateway.look(Call::SessionGet(named.clone())).await {
                    // The gateway forgets after 64 sessions, or with its process; this process after a while.
                    Err(error) => {
                        let found = match node.sessions.get(named.session) {
                            Some(record) => Some(record),
                            None => records::ended_session(node, named.session).await,
                        };
                        found.map_or(Err(error), |record| value(&record))
                    }
                    found => found,
                }
            }
            ControlCall::Gateway(Call::SessionWatch(params)) => {
                let named = SessionRef { session: params.session };
                node.gateway.look(Call::SessionGet(named)).await.map(|_| json!({"watching": true}))
            }
            ControlCall::HistorySessions(asked) => value(&records::sessions(node, asked).await?),
            ControlCall::HistoryMigrations(asked) => value(&records::migrations(node, asked).await?),
            ControlCall::HistoryPaths(asked) => value(&records::path_samples(node, asked).await?),
            ControlCall::AuditList(asked) => value(&records::audit_list(node, asked).await?),
            ControlCall::AuditVerify(asked) => value(&records::audit_verify(node, asked).await?),
            ControlCall::Gateway(call) => node.gateway.look(call.clone()).await,
            ControlCall::TokenList => tokens_of(node, Ok).await,
            ControlCall::ConfigReload
            | ControlCall::MigrationReport(_)
            | ControlCall::TokenRotate(_)
            | ControlCall::TokenRevoke(_) => Err(stopping()),
        }
    }

    fn caller(&self, who: &Who) -> CallerInfo {
        CallerInfo { caller: who.to_string(), role: self.role(who) }
    }

    fn token(&self, token: &str) -> Result<Holder, RpcError> {
        let resolved = self.node.resolved();
        let Some(file) = &resolved.configuration.security.token_file else {
            return Err(token_refused("tokens are not taken here: security.token_file names no file"));
        };
        match tokens::holder(file, token) {
            Ok(Some(holder)) => Ok(holder),
            Ok(None) => Err(token_refused(TOKEN_OVER)),
            Err(why) => {
                tracing::error!("{why}");
                Err(token_refused("the file of tokens cannot be used; the log says why"))
            }
        }
    }

    fn info(&self) -> NodeInfo {
        let node = &self.node;
        let environment = node.environment();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        NodeInfo {
            node_id: node.node_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control_version: CONTROL_VERSION,
            api_version: API_VERSION,
            pid: std::process::id(),
            started_at: node.started_at,
            uptime_ms: millis(node.started.elapsed()),
            ready_after_ms: node.ready_after.get().copied().map(millis),
            mode_forced: !node.resolved().configuration.dwcp.forced_mode.word().is_empty(),
            mode: environment.mode,
            configuration_file: node.sources().file.as_ref().map(|path| path.display().to_string()),
        }
    }

    fn values(&self) -> ConfigValues {
        let resolved = self.node.resolved();
        let values = resolved.configuration.values().into_iter().map(|(key, value)| ConfigValue {
            key: key.to_owned(),
            value,
            from: resolved.origin(key).to_string(),
            takes_effect: Key::find(key).map_or("", |key| key.takes_effect.words()).to_owned(),
        });
        ConfigValues { values: values.collect() }
    }

    fn features(&self) -> Features {
        let resolved = self.node.resolved();
        let features = features::switches(&resolved.configuration).into_iter().map(|switch| {
            let (sessions_with, sessions_without) = self.node.metrics.feature_sessions(switch.name);
            Feature {
                name: switch.name.to_owned(),
                enabled: switch.enabled,
                built: switch.built,
                sessions_with,
                sessions_without,
            }
        });
        let rollout_percentage = resolved.configuration.dwcp.v3_rollout_percentage.get();
        Features { rollout_percentage, features: features.collect() }
    }
}

/// Calls that change something.
async fn change(
    node: &Arc<Node>,
    call: ControlCall,
    given: Option<features::Given>,
    caller: &str,
) -> Result<Value, RpcError> {
    match call {
        ControlCall::ConfigReload => {
            let reading = Arc::clone(node);
            let reloaded = tokio::task::spawn_blocking(move || reading.reload()).await;
            let reloaded = reloaded.unwrap_or_else(|error| Err(error.to_string()));
            let reloaded = reloaded.map_err(|why| {
                let next = "correct the file (`novactl config check`), then reload again; what was in force still is";
                RpcError::new(ErrorCode::ConfigurationRefused, why, "nothing", next)
            })?;
            value(&reloaded)
        }
        ControlCall::TokenRotate(asked) => {
            tokens_of(node, move |file| tokens::rotate(&file, &asked).map(|()| file)).await
        }
        ControlCall::TokenRevoke(asked) => {
            let how = move |file: PathBuf| match tokens::revoke(&file, &asked.name, asked.old_only)? {
                0 => Err(format!("{} has none of these tokens", asked.name)),
                _ => Ok(file),
            };
            tokens_of(node, how).await
        }
        ControlCall::MigrationReport(told) => value(&records::report(node, &told, caller).await?),
        ControlCall::Gateway(call) => {
            let wait = GATEWAY_MARGIN
                + match &call {
                    Call::SessionOpen(open) => Duration::from_millis(open.options.open_timeout_ms),
                    Call::GatewayDrain(params) => Duration::from_millis(params.timeout_ms),
                    _ => GATEWAY_ANSWER,
                };
            let opened = match &call {
                Call::SessionOpen(open) => Some(open.session),
                _ => None,
            };
            let ordered = opened.filter(|session| node.sessions.order(*session, caller));
            let result = node.gateway.carry_out(call, wait).await;
            if let (Err(_), Some(session)) = (&result, ordered)
                && node.sessions.get(session).is_none()
            {
                node.sessions.forget_order(session);
            }
            if let (Ok(_), Some(given)) = (&result, given) {
                node.metrics.feature("transport", given.transport);
                node.metrics.feature("compression", given.compression);
            }
            // Sessions change with these: whoever asks next should not see the state before.
            if let Err(error) = node.sessions.look().await {
                tracing::debug!("sessions cannot be listed after a call: {error}");
            }
            result
        }
        _ => Err(stopping()),
    }
}

/// Does something to the file of tokens, and says which are taken then.
async fn tokens_of(
    node: &Arc<Node>,
    how: impl FnOnce(PathBuf) -> Result<PathBuf, String> + Send + 'static,
) -> Result<Value, RpcError> {
    let Some(file) = node.resolved().configuration.security.token_file.clone() else {
        let message = "tokens are not taken here: security.token_file names no file".to_owned();
        let next = "name one in the configuration; its lines are a name and a SHA-256 each";
        return Err(RpcError::new(ErrorCode::InvalidParams, message, "nothing", next));
    };
    let done = tokio::task::spawn_blocking(move || tokens::list(&how(file)?)).await;
    let found = done.unwrap_or_else(|error| Err(error.to_string())).map_err(|why| {
        let next = "correct what it says; the file of tokens is as it was";
        RpcError::new(ErrorCode::InvalidParams, why, "nothing", next)
    })?;
    value(&TokenList { tokens: found })
}

/// The session that a call is about.
fn session_of(call: &ControlCall) -> Option<SessionId> {
    match call {
        ControlCall::MigrationReport(told) => Some(told.session),
        ControlCall::Gateway(Call::SessionOpen(open)) => Some(open.session),
        ControlCall::Gateway(Call::SessionGet(named) | Call::SessionRelease(named)) => Some(named.session),
        ControlCall::Gateway(Call::SessionWatch(watch)) => Some(watch.session),
        ControlCall::Gateway(Call::SessionCancel(cancel)) => Some(cancel.session),
        _ => None,
    }
}

/// What a trace says of a call beside its name.
fn attributes(call: &ControlCall) -> Vec<KeyValue> {
    let ControlCall::MigrationReport(told) = call else { return Vec::new() };
    let outcome = MigrationOutcome::from(told.outcome).name();
    let times = [("novacron.downtime_ms", told.downtime_ms), ("novacron.total_ms", told.total_ms)];
    let times = times.into_iter().filter_map(|(key, ms)| Some(of(key, i64::try_from(ms?).ok()?)));
    std::iter::once(of("novacron.outcome", outcome)).chain(times).collect()
}

fn stopping() -> RpcError {
    RpcError::new(
        ErrorCode::Draining,
        "the control process is stopping",
        "nothing",
        "call again when it runs",
    )
}

/// Of a token that gives nothing, when it is shown or later on the same connection.
const TOKEN_OVER: &str = "the token is nobody's, or its time is over";

fn token_refused(message: &str) -> RpcError {
    let next = "check the token; an operator adds tokens to security.token_file";
    RpcError::new(ErrorCode::Forbidden, message, "nothing", next)
}

/// Whether this is the holder of a token that was taken back since, or whose time is over.
fn is_over(security: &Security, who: &Who) -> bool {
    let Who::Token(holder) = who else { return false };
    !security.token_file.as_ref().is_some_and(|file| tokens::holds(file, holder))
}

fn forbidden(who: &Who, held: Option<Role>, method: &str, needed: Role) -> RpcError {
    let message = match held {
        Some(held) => format!("{method} is for {needed}s; {who} is a {held}"),
        None => format!("{method} is for {needed}s; {who} has no role here"),
    };
    let next = "an administrator adds the caller to security.admins, .operators or .viewers; caller.info tells who is calling";
    RpcError::new(ErrorCode::Forbidden, message, "nothing", next)
}

/// Parameters without what must not be written down.
fn hidden(mut params: Value) -> Value {
    if let Some(token) = params.get_mut("token") {
        *token = json!("(hidden)");
    }
    params
}
