//! The command lines of `status`, `health` and `events`.

use std::path::PathBuf;

use clap::Args;

use crate::args::socket_path;

pub(crate) const STATUS_EXAMPLES: &str = "\
Examples:
  novactl status                                       exit code 1 when the node is not ready
  novactl status --control /run/novacron/control.sock --json";

pub(crate) const HEALTH_EXAMPLES: &str = "\
Examples:
  novactl health
  novactl health --json | jq '.components[] | select(.state != \"up\")'";

pub(crate) const EVENTS_EXAMPLES: &str = "\
Examples:
  novactl events                                       the last ones
  novactl events --watch --kind session --kind gateway those that follow too
  novactl events --watch --json | jq .text";

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Control socket of the node's control process
    #[arg(long, value_name = "SOCKET", value_parser = socket_path, env = "NOVACRON_CONTROL", default_value = "/run/novacron/control.sock")]
    pub(crate) control: PathBuf,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Go on with what happens from now
    #[arg(long)]
    pub(crate) watch: bool,
    /// Only kinds that begin so; repeatable
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Vec<String>,
}
