//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use novacron_control_api::{Codec, Endpoint, SessionId};

use crate::session::SessionCommand;

/// Exit codes, as the help states them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed or cancelled; the guest is at the source
  2  wrong usage
  3  the outcome is unknown: run 'novactl recover', nothing was started or quit since
  4  refused; nothing was changed, the message says why";

/// Moves running VMs through NovaCron gateways, and looks at gateways.
#[derive(Debug, Parser)]
#[command(name = "novactl", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Migrate a running VM through two gateways
    ///
    /// Holds both QMP sockets. The destination QEMU must have been started with -S -incoming defer. The guest is
    /// started at the destination only after the source said 'completed', and only when it runs there does the
    /// source QEMU quit; before that, every failure leaves the guest running at the source.
    #[command(after_help = MIGRATE_EXAMPLES)]
    Migrate(Box<MigrateArgs>),
    /// Settle what a crash or a cut left of a migration
    ///
    /// Looks at both QEMUs and at the journal, does what is certain and refuses to guess the rest (exit code 4).
    /// Without arguments it takes the only unsettled migration of the state directory.
    #[command(after_help = RECOVER_EXAMPLES)]
    Recover(RecoverArgs),
    /// List the sessions of a gateway: the live ones and the last 64 that ended
    #[command(after_help = "Example:\n  novactl sessions --gateway /run/novacron/gateway.sock")]
    Sessions(GatewayArgs),
    /// Show one session
    #[command(
        after_help = "Example:\n  novactl show 00c0ffee00c0ffee --gateway /run/novacron/gateway.sock --json"
    )]
    Show(SessionArgs),
    /// Cancel one session: both sides fail cleanly and the hypervisors' sockets are closed
    #[command(
        after_help = "Example:\n  novactl cancel 00c0ffee00c0ffee --gateway /run/novacron/gateway.sock"
    )]
    Cancel(SessionArgs),
    /// Sessions of hypervisors that others drive: libvirt, Proxmox, OpenStack, KubeVirt, a person
    #[command(subcommand)]
    Session(SessionCommand),
    /// Show a gateway's version, listeners and state
    #[command(after_help = "Example:\n  novactl info --gateway /run/novacron/gateway.sock")]
    Info(GatewayArgs),
    /// List the paths that a gateway probes, their modes, and who answers probes
    #[command(after_help = "Example:\n  novactl paths --gateway /run/novacron/gateway.sock")]
    Paths(GatewayArgs),
    /// Show what is measured of the path to a peer, and the mode that follows
    #[command(after_help = PROBE_EXAMPLES)]
    Probe(crate::paths::ProbeArgs),
    /// Make a site's authorities; issue, list, rotate and revoke certificates
    Keys(Box<crate::keys::args::KeysArgs>),
    /// Let two sites trust each other's gateways, with a one-use code or by files
    Pair(Box<crate::pair::args::PairArgs>),
    /// Say on one screen whether this site and a peer can talk; changes nothing
    ///
    /// Looks at names, ports, certificates, the key exchange, the path's MTU, and, where their sockets are given, at both
    /// gateways' and hypervisors' versions and at the clocks. Exit code 1 when something stands in the way.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Box<crate::doctor::DoctorArgs>),
    /// Show a node: what it is, how it is, what it carries
    #[command(after_help = crate::node::args::STATUS_EXAMPLES)]
    Status(crate::node::args::NodeArgs),
    /// Show how every component of a node is
    #[command(after_help = crate::node::args::HEALTH_EXAMPLES)]
    Health(crate::node::args::NodeArgs),
    /// Show what happened at a node, and what happens
    #[command(after_help = crate::node::args::EVENTS_EXAMPLES)]
    Events(crate::node::args::EventsArgs),
    /// Show what a node recorded: sessions, migrations, paths
    #[command(subcommand)]
    History(crate::node::args::HistoryCommand),
    /// Show, verify or export a node's audit log
    #[command(subcommand)]
    Audit(crate::node::args::AuditCommand),
    /// Look at a node, have it read its configuration again, drain its gateway
    #[command(subcommand)]
    Node(crate::node::args::NodeCommand),
    /// Make, list and take back tokens of a node's callers
    #[command(subcommand)]
    Token(crate::node::args::TokenCommand),
    /// Print a shell's completion of this command
    Completion(crate::shell::CompletionArgs),
    /// Write the manual's pages
    Man(crate::shell::ManArgs),
    /// Check, print and describe a node's configuration
    Config(Box<crate::config::args::ConfigArgs>),
}

const MIGRATE_EXAMPLES: &str = "\
Example:
  novactl migrate \\
    --source-qmp /run/vm1.qmp      --source-gateway /run/gw-a.sock \\
    --destination-qmp /run/vm2.qmp --destination-gateway /run/gw-b.sock \\
    --peer tcp:127.0.0.1:7400";

const RECOVER_EXAMPLES: &str = "\
Examples:
  novactl recover                          the only unsettled migration
  novactl recover 00c0ffee00c0ffee         this one
  novactl recover --source-qmp /run/vm1.qmp --destination-qmp /run/vm2.qmp    without a journal";

const PROBE_EXAMPLES: &str = "\
Examples:
  novactl probe 192.0.2.2:7402 --gateway /run/gw-a.sock --watch
  novactl probe 192.0.2.2:7402 --gateway /run/gw-a.sock --mode internet     whatever is measured";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  novactl doctor tcp:gw.site-b.example:7400
  novactl doctor tcp:192.0.2.1:7400 --gateway /run/gw-a.sock --peer-gateway /run/gw-b.sock --json";

/// A unix socket, as a path or as `unix:/path`.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text.strip_prefix("unix:").unwrap_or(text));
    if text.starts_with("tcp:") || path.as_os_str().is_empty() {
        return Err("a unix socket is needed, as '/run/gateway.sock' or 'unix:/run/gateway.sock'".into());
    }
    std::path::absolute(&path).map_err(|error| error.to_string())
}

pub(crate) fn peer(text: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = text.parse().map_err(|error| format!("{error}"))?;
    match endpoint {
        Endpoint::Unix(_) => Err("gateways reach each other over tcp, as in 'tcp:192.0.2.1:7400'".into()),
        Endpoint::Tcp { port: 0, .. } => Err("port 0 cannot be dialled".into()),
        tcp => Ok(tcp),
    }
}

/// How the hypervisors and their gateways meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// Unix sockets in a private directory
    Unix,
    /// Loopback TCP
    Tcp,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CodecArg {
    /// Chosen batch by batch
    Adaptive,
    /// No compression
    None,
    /// lz4 always
    Lz4,
    /// zstd always
    Zstd,
}

impl From<CodecArg> for Codec {
    fn from(codec: CodecArg) -> Self {
        match codec {
            CodecArg::Adaptive => Self::Adaptive,
            CodecArg::None => Self::None,
            CodecArg::Lz4 => Self::Lz4,
            CodecArg::Zstd => Self::Zstd,
        }
    }
}

/// Where a laboratory run stops until it is killed or its stdin closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HoldAt {
    /// The source said completed; cont was not sent
    Completed,
    /// cont was sent; its answer was not read
    ContSent,
    /// The guest runs at the destination; the source was not told to quit
    Running,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// QMP socket of the QEMU that runs the guest
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) source_qmp: PathBuf,
    /// QMP socket of the QEMU started with -S -incoming defer
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) destination_qmp: PathBuf,
    /// Control socket of the gateway beside the source
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) source_gateway: PathBuf,
    /// Control socket of the gateway beside the destination
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) destination_gateway: PathBuf,
    /// Where the source gateway dials the destination gateway
    #[arg(long, value_name = "tcp:HOST:PORT", value_parser = peer)]
    pub(crate) peer: Endpoint,
    /// How hypervisors and gateways meet
    #[arg(long, value_enum, default_value_t = Via::Unix)]
    pub(crate) via: Via,
    /// Directory for the private socket directory of --via unix [default: XDG_RUNTIME_DIR or the temporary one]
    #[arg(long, value_name = "DIR")]
    pub(crate) socket_dir: Option<PathBuf>,
    /// QEMU's max-bandwidth in bytes a second; 0 is unlimited
    #[arg(long, value_name = "BYTES/S", default_value_t = 0)]
    pub(crate) max_bandwidth: u64,
    /// QEMU's downtime-limit in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=2_000_000))]
    pub(crate) downtime_limit: u64,
    /// Page compression between the gateways
    #[arg(long, value_enum, default_value_t = CodecArg::Adaptive)]
    pub(crate) codec: CodecArg,
    /// zstd level, 0 to 22; 0 is zstd's own default
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=22))]
    pub(crate) level: u32,
    /// Transport connections between the gateways at least, 1 to 512; there are more while they help
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) streams: u32,
    /// Part of a path that sessions share, against theirs, 1 to 1000: 200 gets twice what 100 does
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) weight: u32,
    /// Most encoded bytes that the gateways send for it, in Mbit/s, 1 to 1,000,000; without it: whatever the path takes
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate_limit: Option<u64>,
    /// Ordered codec lanes, 1 to 64; at least as many as the source's gateway has shards
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) lanes: u32,
    /// Do not compute the running digests
    #[arg(long)]
    pub(crate) no_digest: bool,
    /// How long the gateways outlive the loss of every stream, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) outage: u64,
    /// Cancel when the source has not completed after this many seconds
    #[arg(long, value_name = "S", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=864_000))]
    pub(crate) timeout: u64,
    /// Free text for the gateways' records
    #[arg(long, default_value = "")]
    pub(crate) label: String,
    /// Where journals are kept [default: $XDG_STATE_HOME/novacron or ~/.local/state/novacron]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// One JSON object on stdout at the end
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Laboratory: stop at this step until killed or until stdin closes, to test recovery
    #[arg(long, value_enum, value_name = "STEP")]
    pub(crate) hold_at: Option<HoldAt>,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The migration: its 16 hex digits
    #[arg(conflicts_with_all = ["source_qmp", "destination_qmp"])]
    pub(crate) migration: Option<SessionId>,
    /// QMP socket of the source, when there is no journal
    #[arg(long, value_name = "SOCKET", value_parser = socket_path, requires = "destination_qmp")]
    pub(crate) source_qmp: Option<PathBuf>,
    /// QMP socket of the destination, when there is no journal
    #[arg(long, value_name = "SOCKET", value_parser = socket_path, requires = "source_qmp")]
    pub(crate) destination_qmp: Option<PathBuf>,
    /// How long to wait for a migration that is still under way, in seconds
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) wait: u64,
    /// Look and decide, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where journals are kept [default: $XDG_STATE_HOME/novacron or ~/.local/state/novacron]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// One JSON object on stdout at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Control socket of the gateway
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) gateway: PathBuf,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    /// The session: its 16 hex digits
    pub(crate) session: SessionId,
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// Bytes a second of so many Mbit/s; 0: no limit.
pub(crate) fn bytes_per_s(mbit: Option<u64>) -> u64 {
    mbit.unwrap_or_default() * 125_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sockets_are_paths_and_peers_are_tcp() {
        assert_eq!(socket_path("unix:/a/b"), Ok("/a/b".into()));
        assert_eq!(socket_path("/a/b"), Ok("/a/b".into()));
        assert!(socket_path("tcp:1.2.3.4:5").is_err());
        assert!(socket_path("").is_err());
        assert!(peer("tcp:127.0.0.1:7400").is_ok());
        assert!(peer("tcp:127.0.0.1:0").is_err());
        assert!(peer("unix:/a").is_err());
    }
}
