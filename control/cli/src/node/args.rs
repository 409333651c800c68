//! The command lines of `status`, `health`, `events`, `history` and `audit`.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use novacron_control_api::Endpoint;

pub(crate) use super::look::NodeCommand;
pub(crate) use super::token::TokenCommand;
use crate::args::socket_path;

pub(crate) const STATUS_EXAMPLES: &str = "\
Examples:
  novactl status                                       exit code 1 when the node is not ready
  novactl status --control /run/novacron/control.sock --json
  novactl status --control tcp:gw.site-a.example:9443 --identity ~/.config/novacron";

pub(crate) const HEALTH_EXAMPLES: &str = "\
Examples:
  novactl health
  novactl health --json | jq '.components[] | select(.state != \"up\")'";

pub(crate) const EVENTS_EXAMPLES: &str = "\
Examples:
  novactl events                                       the last ones
  novactl events --watch --kind session --kind gateway those that follow too
  novactl events --watch --json | jq .text";

/// Where a control process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here.
    Socket(PathBuf),
    /// On another host.
    Remote {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Remote { host, port } => Endpoint::Tcp { host: host.clone(), port: *port }.fmt(f),
        }
    }
}

fn place(text: &str) -> Result<Place, String> {
    if !text.starts_with("tcp:") {
        return socket_path(text).map(Place::Socket);
    }
    match crate::args::peer(text)? {
        Endpoint::Tcp { host, port } => Ok(Place::Remote { host, port }),
        Endpoint::Unix(_) => Err("a unix socket is named by its path".into()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node's control process: its unix socket here, or where it listens for a remote fleet, over mutual TLS
    #[arg(long, value_name = "SOCKET|tcp:HOST:PORT", value_parser = place, env = "NOVACRON_CONTROL", default_value = "/run/novacron/control.sock")]
    pub(crate) control: Place,
    /// Folder with caller.crt, caller.key and authorities.pem, for a node on another host [default: ~/.config/novacron]
    #[arg(long, value_name = "DIR", env = "NOVACRON_IDENTITY")]
    pub(crate) identity: Option<PathBuf>,
    /// File with a token of yours, readable by you alone
    #[arg(long, value_name = "FILE", env = "NOVACRON_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The node on another host must be this gateway of your site; else any of them may answer
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
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

const HISTORY_EXAMPLES: &str = "\
Examples:
  novactl history migrations                           the last ones, newest first
  novactl history sessions --which live --json | jq -r .record.session
  novactl history paths 192.0.2.2:7402 --last 2880     a day of one path";

const AUDIT_EXAMPLES: &str = "\
Examples:
  novactl audit list --last 20
  novactl audit verify --kept 812:9f86d081884c7d65...  is what was there then there still?
  novactl audit export > audit.jsonl                   prints the log's head on stderr: keep it elsewhere";

/// What a node recorded.
#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// Migrations: who ordered them, how they ended, and what they took
    ///
    /// 'novactl migrate' and 'recover' report completed, failed or cancelled, and times; of migrations that others drive it
    /// is known that every byte was delivered, and not where the guest runs.
    #[command(after_help = HISTORY_EXAMPLES)]
    Migrations(HistoryArgs),
    /// Sessions of the node's gateway, as they were last seen
    #[command(after_help = HISTORY_EXAMPLES)]
    Sessions(HistoryArgs),
    /// What the paths to a peer were like
    #[command(after_help = HISTORY_EXAMPLES)]
    Paths(PathHistoryArgs),
}

/// Which ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhichArg {
    /// All
    All,
    /// Those that had not ended when they were last seen
    Live,
    /// Those that have ended
    Ended,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Which ones
    #[arg(long, value_enum, default_value_t = WhichArg::All)]
    pub(crate) which: WhichArg,
    /// So many at most, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) last: u32,
}

#[derive(Debug, Args)]
pub(crate) struct PathHistoryArgs {
    /// The peer, as `novactl paths` writes it
    #[arg(value_name = "HOST:PORT")]
    pub(crate) peer: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// So many samples at most, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) last: u32,
}

/// The audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Who asked for what, and what came of it
    #[command(after_help = AUDIT_EXAMPLES)]
    List(AuditListArgs),
    /// Follow the whole log and say where it ends; exit code 1 when it was changed
    #[command(after_help = AUDIT_EXAMPLES)]
    Verify(AuditVerifyArgs),
    /// Verify the log, then write all of it as JSON lines
    #[command(after_help = AUDIT_EXAMPLES)]
    Export(AuditVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuditListArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// So many at most, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) last: u32,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// A head that was kept elsewhere: the log must still hold it; repeatable
    #[arg(long, value_name = "NUMBER:HASH")]
    pub(crate) kept: Vec<String>,
}
