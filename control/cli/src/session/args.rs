//! The command line of `novactl session`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use novacron_control_api::{Endpoint, Label, Origin};

use crate::args::{CodecArg, GatewayArgs, SessionArgs, peer, socket_path};
use novacron_control_api::SessionId;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Open a session for a hypervisor that somebody else drives: libvirt, Proxmox, OpenStack, KubeVirt, a person
    ///
    /// Needs no monitor of a hypervisor. Announces the session at the gateway of either site, or of both where both
    /// control sockets can be reached, and prints the addresses to use with the lines for virsh and QMP.
    #[command(after_help = OPEN_EXAMPLES)]
    Open(Box<OpenArgs>),
    /// Make a session's secret for the two sites to share: 64 hex digits in a file of its owner alone
    #[command(after_help = "Example:\n  novactl session token /run/vm1.token")]
    Token {
        /// The file; it must not exist
        file: PathBuf,
    },
    /// List the sessions of a gateway
    #[command(after_help = "Example:\n  novactl session list --gateway /run/novacron/gateway.sock")]
    List(GatewayArgs),
    /// Show one session
    #[command(
        after_help = "Example:\n  novactl session show 00c0ffee00c0ffee --gateway /run/novacron/gateway.sock"
    )]
    Show(SessionArgs),
    /// Close one session at both gateways, wherever it stands
    ///
    /// A session that has ended is left as it is. One that holds the source's sockets, because the destination may run
    /// the guest, is closed with --release only.
    #[command(
        after_help = "Example:\n  novactl session close 00c0ffee00c0ffee --gateway /run/novacron/gateway.sock"
    )]
    Close(CloseArgs),
}

const OPEN_EXAMPLES: &str = "\
Examples:
  Both control sockets are here; libvirt uses one port at both ends:
    novactl session open --source-gateway /run/gw-a.sock --destination-gateway /run/gw-b.sock \\
      --peer tcp:192.0.2.1:7400 --listen tcp:198.51.100.1:49200 --connect tcp:192.0.2.20:49200 --from 198.51.100.7

  Each site's operator at their own gateway, with one secret; the destination's comes first:
    novactl session token vm1.token                          (and take the file to the other site)
    novactl session open --session 00c0ffee00c0ffee --token-file vm1.token \\
      --destination-gateway /run/gw-b.sock --at unix:/run/vm1/migration.sock --disk unix:/run/vm1/disk.sock
    novactl session open --session 00c0ffee00c0ffee --token-file vm1.token \\
      --source-gateway /run/gw-a.sock --peer tcp:192.0.2.1:7400 \\
      --at unix:/run/vm1/migration.sock --disk unix:/run/vm1/disk.sock --from uid:107

The secret comes from --token-file, from standard input (--token-file -), or from NOVACRON_SESSION_TOKEN; never from the
command line, which others can read.";

/// A labelled endpoint as it is typed: `unix:/run/disk.sock`, or `vda=unix:/run/vda.sock` where there are several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: Option<String>,
    pub(crate) endpoint: Endpoint,
}

impl Named {
    /// Its label among those of a kind.
    pub(crate) fn label(&self, kind: &str) -> Result<Label, String> {
        let text = self.name.as_ref().map_or_else(|| kind.to_owned(), |name| format!("{kind}-{name}"));
        text.parse().map_err(|error| format!("{error}"))
    }
}

fn named(text: &str) -> Result<Named, String> {
    let (name, endpoint) = match text.split_once('=') {
        Some((name, endpoint)) if !name.contains(':') => (Some(name.to_owned()), endpoint),
        _ => (None, text),
    };
    let named = Named { name, endpoint: endpoint.parse().map_err(|error| format!("{error}"))? };
    named.label("disk").map(|_| named)
}

/// Who may connect; `any` is to be said in so many words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromArg {
    Any,
    Only(Origin),
}

fn from(text: &str) -> Result<FromArg, String> {
    if text == "any" {
        return Ok(FromArg::Any);
    }
    text.parse().map(FromArg::Only).map_err(|error| format!("{error}; or 'any'"))
}

#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    /// Control socket of the gateway beside the source
    #[arg(
        long,
        value_name = "SOCKET",
        value_parser = socket_path,
        requires = "peer",
        required_unless_present = "destination_gateway"
    )]
    pub(crate) source_gateway: Option<PathBuf>,
    /// Control socket of the gateway beside the destination
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) destination_gateway: Option<PathBuf>,
    /// Where the source gateway dials the destination gateway
    #[arg(long, value_name = "tcp:HOST:PORT", value_parser = peer, requires = "source_gateway")]
    pub(crate) peer: Option<Endpoint>,
    /// The same address at both ends: the source's gateway listens there, the destination's connects there
    #[arg(long, value_name = "ENDPOINT", conflicts_with_all = ["listen", "connect"])]
    pub(crate) at: Option<Endpoint>,
    /// Where the source's gateway listens for the source's hypervisor
    #[arg(long, value_name = "ENDPOINT", requires = "source_gateway")]
    pub(crate) listen: Option<Endpoint>,
    /// Where the destination's gateway connects to the destination's hypervisor
    #[arg(long, value_name = "ENDPOINT", requires = "destination_gateway")]
    pub(crate) connect: Option<Endpoint>,
    /// A disk's connections (NBD), carried as they are; repeatable with names
    #[arg(long, value_name = "[NAME=]ENDPOINT", value_parser = named)]
    pub(crate) disk: Vec<Named>,
    /// The destination's end of a disk, where it is not the source's
    #[arg(long, value_name = "[NAME=]ENDPOINT", value_parser = named, requires = "destination_gateway")]
    pub(crate) connect_disk: Vec<Named>,
    /// Connections of something that controls the migration, carried as they are; repeatable with names
    #[arg(long, value_name = "[NAME=]ENDPOINT", value_parser = named)]
    pub(crate) control: Vec<Named>,
    /// The destination's end of a control connection, where it is not the source's
    #[arg(long, value_name = "[NAME=]ENDPOINT", value_parser = named, requires = "destination_gateway")]
    pub(crate) connect_control: Vec<Named>,
    /// Who may connect as the source's hypervisor: an address (tcp), uid:N (unix) or any; repeatable
    #[arg(long, value_name = "ORIGIN", value_parser = from, requires = "source_gateway")]
    pub(crate) from: Vec<FromArg>,
    /// The session's name, 16 hex digits, the same at both gateways [default: drawn, where both are named]
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<SessionId>,
    /// File with the session's secret, 64 hex digits; '-' is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How long to wait for the hypervisor's first connection, and at the destination for the peer gateway, in seconds
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) accept_timeout: u64,
    /// How long the source's side tries to open the session at a peer that has not heard of it yet, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) open_timeout: u64,
    /// End the session when no byte has moved for this many seconds; 0: never
    #[arg(long, value_name = "S", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) idle_timeout: u64,
    /// Connections at most, 1 to 257: QEMU's main one, one for each multifd channel, one for preempt, and the labelled
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=257))]
    pub(crate) connections: u32,
    /// The destination is started stopped (-S) and only runs when told to, as libvirt does it: closing the source's
    /// socket after a failure is then always safe, and no socket is held
    #[arg(long)]
    pub(crate) destination_stopped: bool,
    /// In whose name the session is opened; each tenant has a limit of its own
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) tenant: String,
    /// Page compression between the gateways
    #[arg(long, value_enum, default_value_t = CodecArg::Adaptive)]
    pub(crate) codec: CodecArg,
    /// Transport connections between the gateways at least, 1 to 512; there are more while they help
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) streams: u32,
    /// Part of a path that sessions share, against theirs, 1 to 1000: 200 gets twice what 100 does
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) weight: u32,
    /// Most encoded bytes that the gateways send for it, in Mbit/s, 1 to 1,000,000; without it: whatever the path takes
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate_limit: Option<u64>,
    /// How long the gateways outlive the loss of every stream, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) outage: u64,
    /// Free text for the gateways' records
    #[arg(long, default_value = "")]
    pub(crate) label: String,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CloseArgs {
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// Close the source's sockets that a failed session holds. Only when you know that the guest does not run at the
    /// destination: the source's guest may go on
    #[arg(long)]
    pub(crate) release: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labelled_endpoints_have_a_name_where_there_are_several() {
        let plain = named("unix:/run/a=b.sock").unwrap();
        assert_eq!((plain.name, plain.endpoint), (None, "unix:/run/a=b.sock".parse().unwrap()));
        let vda = named("vda=tcp:127.0.0.1:10809").unwrap();
        assert_eq!(vda.label("disk").unwrap().as_str(), "disk-vda");
        for wrong in ["", "vda=", "v a=unix:/x", "=unix:/x", "/run/x"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_are_said() {
        assert_eq!(from("any"), Ok(FromArg::Any));
        assert_eq!(from("uid:7"), Ok(FromArg::Only(Origin::User(7))));
        assert!(from("everybody").unwrap_err().contains("any"));
    }
}
