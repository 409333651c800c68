//! `node`: what a control process can tell of its node beside status and health, and the two things that can be done to it.

use std::time::Duration;

use clap::{Args, Subcommand};
use novacron_control_api::DrainResult;
use novacron_control_api::control::{CallerInfo, ConfigValues, Environment, Features, Reloaded};
use serde::Serialize;
use serde_json::{Value, json};

use super::Node;
use super::args::NodeArgs;
use crate::keys::{Failed, Said};
use crate::limits::RPC_ANSWER;
use crate::report::{EXIT_DONE, EXIT_FAILED};
use crate::sessions::{json as as_json, printable};

const EXAMPLES: &str = "\
Examples:
  novactl node caller                                  who you are to the node, and what you may do
  novactl node environment                             exit code 1 when the host is short of something
  novactl node reload                                  after a change of the configuration file
  novactl node drain --timeout 10m                     before the gateway is stopped";

/// A node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Who the caller is taken for, and what it may do
    #[command(after_help = EXAMPLES)]
    Caller(NodeArgs),
    /// What the host has, and what it lacks and what that costs
    #[command(after_help = EXAMPLES)]
    Environment(NodeArgs),
    /// Which features new sessions get
    #[command(after_help = EXAMPLES)]
    Features(NodeArgs),
    /// Every value of the configuration that is in force, and where it was written
    #[command(after_help = EXAMPLES)]
    Config(NodeArgs),
    /// Have the configuration read again: all of it is taken, or none
    #[command(after_help = EXAMPLES)]
    Reload(NodeArgs),
    /// Have the gateway take no new sessions; running ones finish, or fail cleanly at the deadline
    #[command(after_help = EXAMPLES)]
    Drain(DrainArgs),
    /// Print the methods of the control socket, as an OpenRPC document
    #[command(after_help = EXAMPLES)]
    Methods(NodeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Time for running sessions
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Carries one of them out.
pub(crate) fn node(command: &NodeCommand) -> Result<Said, Failed> {
    match command {
        NodeCommand::Caller(args) => {
            let found: CallerInfo = Node::connect(args)?.call("caller.info", &json!({}))?;
            let role = found.role.map_or_else(|| "none".to_owned(), |role| role.to_string());
            let text = format!("caller  {}\nrole    {role}\n", printable(&found.caller));
            Ok(either(args, &found, text))
        }
        NodeCommand::Environment(args) => {
            let found: Environment = Node::connect(args)?.call("node.environment", &json!({}))?;
            let exit = if found.short.is_empty() { EXIT_DONE } else { EXIT_FAILED };
            Ok(Said { exit, ..either(args, &found, environment(&found)) })
        }
        NodeCommand::Features(args) => {
            let found: Features = Node::connect(args)?.call("features.get", &json!({}))?;
            Ok(either(args, &found, features(&found)))
        }
        NodeCommand::Config(args) => {
            let found: ConfigValues = Node::connect(args)?.call("config.get", &json!({}))?;
            Ok(either(args, &found, values(&found)))
        }
        NodeCommand::Reload(args) => {
            let found: Reloaded = Node::connect(args)?.call("config.reload", &json!({}))?;
            Ok(either(args, &found, reloaded(&found)))
        }
        NodeCommand::Drain(args) => {
            let mut node = Node::connect(&args.node)?;
            let timeout_ms = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
            let params = json!({"timeout_ms": timeout_ms});
            let found: DrainResult =
                node.call_within(args.timeout.saturating_add(RPC_ANSWER * 3), "gateway.drain", &params)?;
            let text = format!(
                "the gateway takes no new sessions; {} were running, {} of them failed at the deadline\n",
                found.running, found.cancelled
            );
            Ok(either(&args.node, &found, text))
        }
        NodeCommand::Methods(args) => {
            let document: Value = Node::connect(args)?.call("rpc.discover", &json!({}))?;
            Ok(Said::done(as_json(&document)))
        }
    }
}

fn either<T: Serialize>(args: &NodeArgs, found: &T, text: String) -> Said {
    Said::done(if args.json { as_json(found) } else { text })
}

fn environment(found: &Environment) -> String {
    let mut text = format!("{:<24}  VALUE\n", "FOUND");
    for one in &found.findings {
        text += &format!("{:<24}  {}\n", printable(&one.name), printable(&one.value));
    }
    text += &format!("{:<24}  {}: {}\n", "mode", found.mode, printable(&found.mode_reason));
    for one in &found.short {
        let how = if one.fatal { "MISSING" } else { "short" };
        text += &format!(
            "{how} {}: {}; {}\n",
            printable(&one.name),
            printable(&one.missing),
            printable(&one.costs)
        );
    }
    text
}

fn features(found: &Features) -> String {
    let mut text =
        format!("{:<16}  {:<8}  {:<6}  {:>10}  {:>10}\n", "FEATURE", "ENABLED", "BUILT", "WITH", "WITHOUT");
    for one in &found.features {
        text += &format!(
            "{:<16}  {:<8}  {:<6}  {:>10}  {:>10}\n",
            one.name,
            if one.enabled { "yes" } else { "no" },
            if one.built { "yes" } else { "no" },
            one.sessions_with,
            one.sessions_without
        );
    }
    text + &format!("for {} % of new sessions\n", found.rollout_percentage)
}

fn values(found: &ConfigValues) -> String {
    let mut text = format!("{:<36}  {:<32}  {:<28}  TAKES EFFECT\n", "KEY", "VALUE", "FROM");
    for one in &found.values {
        text += &format!(
            "{:<36}  {:<32}  {:<28}  {}\n",
            one.key,
            printable(&one.value.to_string()),
            printable(&one.from),
            one.takes_effect
        );
    }
    text
}

fn reloaded(found: &Reloaded) -> String {
    let listed = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
    let mut text = format!(
        "in force now         {}\nafter a restart      {}\n",
        listed(&found.in_force),
        listed(&found.after_restart)
    );
    for warning in &found.warnings {
        text += &format!("warning: {}\n", printable(warning));
    }
    text
}
