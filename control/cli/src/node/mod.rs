//! `status`, `health`, `events`, `history`, `audit`, `token` and `node`: a node as its control process tells of it.

pub(crate) mod args;
mod audit;
mod history;
mod look;
mod token;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use novacron_control_api::control::{
    CallerInfo, EVENT, EVENTS_LOST, Event, EventsLost, Features, Health, HealthState, NodeInfo, RecentEvents,
};
use novacron_control_api::{Id, Incoming, RpcError, SessionList, parse_incoming, to_line};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::args::{EventsArgs, NodeArgs, Place};
pub(crate) use self::audit::audit;
pub(crate) use self::history::history;
pub(crate) use self::look::node;
pub(crate) use self::token::token;
use crate::keys::{Failed, Said};
use crate::limits::RPC_ANSWER;
use crate::lines::Lines;
use crate::remote::{self, Remote};
use crate::report::{EXIT_DONE, EXIT_FAILED};
use crate::sessions::{json as as_json, printable};

/// One connection to a control process.
struct Node {
    lines: Lines,
    path: String,
    next_id: i64,
}

fn failed(path: &str, what: &str) -> Failed {
    Failed::Words(format!("the control process at {path} {what}"))
}

fn explained(path: &str, error: &RpcError) -> Failed {
    let next = error.data.as_ref().map_or_else(String::new, |data| format!("; next: {}", data.next));
    failed(path, &format!("says: {} [{}]{next}", error.message, error.name()))
}

impl Node {
    /// Connects, and shows the caller's token where there is one.
    fn connect(args: &NodeArgs) -> Result<Self, Failed> {
        let path = args.control.to_string();
        let unreached = |why: String| failed(&path, &format!("cannot be reached: {why}"));
        let lines = match &args.control {
            Place::Socket(socket) => Lines::connect(socket).map_err(|error| {
                unreached(format!("{error}; start it (novacron-control), or name its socket with --control"))
            })?,
            Place::Remote { host, port } => {
                let identity = args.identity.clone().or_else(remote::default_identity);
                let identity = identity
                    .ok_or_else(|| unreached("name the folder of your certificate with --identity".into()))?;
                let (node, by_token) = (args.node_name.as_deref(), args.token_file.is_some());
                let remote = Remote { host, port: *port, identity: &identity, node, by_token };
                Lines::over(remote.connect().map_err(unreached)?)
            }
        };
        let mut node = Self { lines, path, next_id: 1 };
        if let Some(file) = &args.token_file {
            let secret = novacron_keys::store::read_secret(file)?;
            // What is no text is no token; the node says so.
            let token = String::from_utf8_lossy(secret.expose());
            let _: CallerInfo = node.call("caller.identify", &json!({"token": token.trim()}))?;
        }
        Ok(node)
    }

    fn call<T: DeserializeOwned>(&mut self, method: &str, params: &Value) -> Result<T, Failed> {
        self.call_within(RPC_ANSWER, method, params)
    }

    fn call_within<T: DeserializeOwned>(
        &mut self,
        within: Duration,
        method: &str,
        params: &Value,
    ) -> Result<T, Failed> {
        let id = self.next_id;
        self.next_id += 1;
        let deadline = Instant::now() + within;
        let line = to_line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let lost = |why: String| failed(&self.path, &format!("gave no answer to {method}: {why}"));
        self.lines.write(&line, deadline).map_err(|why| lost(why.to_string()))?;
        loop {
            let line = self.lines.read_line(deadline).map_err(|why| lost(why.to_string()))?;
            match parse_incoming(&line).map_err(|why| lost(why.to_string()))? {
                Incoming::Response { id: Id::Number(answered), result } if answered == id => {
                    let value = result.map_err(|error| explained(&self.path, &error))?;
                    return serde_json::from_value(value).map_err(|why| lost(why.to_string()));
                }
                Incoming::Response { id: Id::Null, result: Err(error) } => {
                    return Err(explained(&self.path, &error));
                }
                Incoming::Response { .. } | Incoming::Notification { .. } => {}
            }
        }
    }
}

/// Shows the node: what it is, how it is, what it carries.
pub(crate) fn status(args: &NodeArgs) -> Result<Said, Failed> {
    let mut node = Node::connect(args)?;
    let info: NodeInfo = node.call("node.info", &json!({}))?;
    let health: Health = node.call("node.health", &json!({}))?;
    let features: Features = node.call("features.get", &json!({}))?;
    // A gateway that does not answer is told by the health.
    let sessions: Option<SessionList> = node.call("session.list", &json!({})).ok();
    let exit = if health.ready { EXIT_DONE } else { EXIT_FAILED };
    let live = sessions.map(|list| list.sessions.iter().filter(|record| !record.state.is_ended()).count());
    if args.json {
        let all = json!({"node": info, "health": health, "features": features, "live_sessions": live});
        return Ok(Said { text: as_json(&all), exit });
    }
    let ready = info.ready_after_ms.map_or_else(|| "not yet".to_owned(), |ms| format!("after {ms} ms"));
    let on: Vec<&str> = features
        .features
        .iter()
        .filter(|one| one.enabled && one.built)
        .map(|one| one.name.as_str())
        .collect();
    let mut text = format!(
        "node        {}\nversion     {}\npid         {}\nstarted     {} ({} s ago), ready {ready}\nmode        {}{}\n\
         state       {}\nsessions    {}\nfeatures    {} for {} % of new sessions\nfile        {}\n",
        printable(&info.node_id),
        info.version,
        info.pid,
        info.started_at,
        info.uptime_ms / 1000,
        info.mode,
        if info.mode_forced { ", forced" } else { "" },
        health.state.word(),
        live.map_or_else(|| "unknown: the gateway does not answer".to_owned(), |live| format!("{live} live")),
        if on.is_empty() { "none".to_owned() } else { on.join(", ") },
        features.rollout_percentage,
        info.configuration_file.unwrap_or_else(|| "none".to_owned()),
    );
    for one in
        health.components.iter().filter(|one| matches!(one.state, HealthState::Down | HealthState::Degraded))
    {
        text += &format!("{:<11} {}: {}\n", one.name, one.state.word(), printable(&one.detail));
    }
    Ok(Said { text, exit })
}

/// Shows every component.
pub(crate) fn health(args: &NodeArgs) -> Result<Said, Failed> {
    let health: Health = Node::connect(args)?.call("node.health", &json!({}))?;
    let exit = if health.ready { EXIT_DONE } else { EXIT_FAILED };
    if args.json {
        return Ok(Said { text: as_json(&health), exit });
    }
    let mut text = format!("{:<18}  {:<9}  DETAIL\n", "COMPONENT", "STATE");
    for one in &health.components {
        let name = if one.critical { format!("{} *", one.name) } else { one.name.clone() };
        text += &format!("{name:<18}  {:<9}  {}\n", one.state.word(), printable(&one.detail));
        for part in &one.parts {
            text += &format!(
                "  {:<16}  {:<9}  {}\n",
                printable(&part.name),
                part.state.word(),
                printable(&part.detail)
            );
        }
    }
    text += &format!(
        "\n{}; * the node cannot work without it\n",
        if health.ready { "ready" } else { "NOT ready" }
    );
    Ok(Said { text, exit })
}

fn line_of(event: &Event, json: bool) -> String {
    if json {
        return serde_json::to_string(event).unwrap_or_default() + "\n";
    }
    format!("{}  {:<16}  {}\n", event.at, event.kind, printable(&event.text))
}

/// Shows the last events, and with `--watch` those that follow.
pub(crate) fn events(args: &EventsArgs) -> Result<Said, Failed> {
    let mut node = Node::connect(&args.node)?;
    let json = args.node.json;
    // Subscribed first, so that nothing falls between what was and what comes.
    let subscribed: Option<Value> = match args.watch {
        true => Some(node.call("events.subscribe", &json!({"kinds": args.kind}))?),
        false => None,
    };
    let recent: RecentEvents = node.call("events.recent", &json!({}))?;
    let wanted =
        |event: &&Event| args.kind.is_empty() || args.kind.iter().any(|kind| event.kind.starts_with(kind));
    let text: String = recent.events.iter().filter(wanted).map(|event| line_of(event, json)).collect();
    if subscribed.is_none() {
        return Ok(Said::done(text));
    }
    let mut shown = recent.events.last().map_or(0, |event| event.number);
    let mut out = std::io::stdout();
    let mut say = |text: &str| out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if say(&text).is_err() {
        return Ok(Said::done(String::new()));
    }
    if std::io::stdout().is_terminal() && !json {
        eprintln!("watching; Ctrl-C ends it");
    }
    loop {
        let deadline = Instant::now() + Duration::from_secs(3600);
        let line =
            node.lines.poll_line(deadline).map_err(|why| failed(&node.path, &format!("is gone: {why}")))?;
        let Some(line) = line else { continue };
        let incoming = parse_incoming(&line).map_err(|why| failed(&node.path, &why.to_string()))?;
        let Incoming::Notification { method, params } = incoming else { continue };
        let text = if method == EVENT {
            let event: Event =
                serde_json::from_value(params).map_err(|why| failed(&node.path, &why.to_string()))?;
            if event.number <= shown {
                continue;
            }
            shown = event.number;
            line_of(&event, json)
        } else if method == EVENTS_LOST {
            let lost: EventsLost =
                serde_json::from_value(params).map_err(|why| failed(&node.path, &why.to_string()))?;
            format!("{} events were lost: this side was too slow\n", lost.count)
        } else {
            continue;
        };
        // Whoever reads has gone.
        if say(&text).is_err() {
            return Ok(Said::done(String::new()));
        }
    }
}
