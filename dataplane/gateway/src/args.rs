//! The command line.

use crate::limits::{
    CONNECTIONS_MAX, CONTENT_MEMORY_BYTES, DELTA_MEMORY_BYTES, HOST_SESSIONS_MAX, PATHS_MAX, SESSIONS_MAX,
    TENANT_SESSIONS_MAX,
};
use crate::registry::SessionLimits;
use crate::told::{Congestion, Told, UNDECIDED};
use clap::{Parser, ValueEnum};
use novacron_control_api::Endpoint;
use novacron_protocol::limits::{MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MAX};
use novacron_protocol::mode::{Mode, Thresholds};
use novacron_transport::limits::SHARDS_MAX;
use novacron_transport::shard::{CpuList, Topology};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Carries live migrations between sites: hypervisors connect here, the far gateway connects to theirs.
///
/// The gateway does nothing until it is told to over its control socket; `novactl` does that.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  A destination's gateway, for a laboratory on one machine:
    novacron-gateway --control /run/novacron/b.sock --listen tcp:127.0.0.1:9090 --insecure-plaintext
  A source's gateway, which only dials:
    novacron-gateway --control /run/novacron/a.sock --identity /etc/novacron/identity
  Four shards, of CPUs 2 to 7 those that stand together; JSON logs, session records kept:
    novacron-gateway --control /run/novacron/a.sock --identity /etc/novacron/identity --shards 4 --cpus 2-7 --log-format json --records /var/log/novacron/sessions.jsonl"
)]
pub(crate) struct Args {
    /// Unix socket that takes commands: JSON-RPC 2.0, one object a line
    #[arg(long, value_name = "PATH")]
    pub(crate) control: PathBuf,

    /// File that says which other users of this host may command the gateway, and in the name of which tenants (TOML: a table
    /// [[caller]] with uid and tenants for each). With it the control socket is open to all, and who is not named is refused;
    /// without it the socket is its owner's alone
    #[arg(long, value_name = "FILE")]
    pub(crate) callers: Option<PathBuf>,

    /// Where peer gateways reach this one, as tcp:host:port; repeatable. Without it the gateway only dials
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) listen: Vec<Endpoint>,

    /// Folder of the gateway's certificate and key, of the authorities that it believes and of what its peers may do, as
    /// `novactl keys` and `novactl pair` write it. It is read again on SIGHUP and when a file in it changes
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,

    /// Encrypt nothing and believe anybody, in place of --identity. For laboratories: whoever reaches the network between two
    /// such gateways can read the guests' memory
    #[arg(long, conflicts_with = "identity")]
    pub(crate) insecure_plaintext: bool,

    /// Threads that move bytes; two or more have a CPU each. 1 by default, or one for each of --cpus
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,

    /// CPUs for the shards, as 0-3,8. By default two or more shards take CPUs of one memory node, a core each
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpus: Option<CpuList>,

    /// Memory that a session may spend on remembering what it carried, so that pages that were sent before cost next to nothing.
    /// Both gateways spend the lesser of what they say; 0: nothing is remembered
    #[arg(long, default_value_t = MEMORY_BYTES_DEFAULT >> 20, value_parser = clap::value_parser!(u64).range(0..=MEMORY_BYTES_MAX >> 20), value_name = "MIB")]
    pub(crate) delta_budget: u64,

    /// The same of all sessions together: each takes at most half of what is left
    #[arg(long, default_value_t = DELTA_MEMORY_BYTES >> 20, value_parser = clap::value_parser!(u64).range(0..=MEMORY_BYTES_MAX >> 20), value_name = "MIB")]
    pub(crate) delta_memory: u64,

    /// Memory for pages that were received, so that a session need not bring again what another of its tenant and peer has brought. All
    /// of them together; each tenant and peer takes at most half of what is left; 0: nothing is kept
    #[arg(long, default_value_t = CONTENT_MEMORY_BYTES >> 20, value_parser = clap::value_parser!(u64).range(0..=MEMORY_BYTES_MAX >> 20), value_name = "MIB")]
    pub(crate) content_memory: u64,

    /// How long such pages are kept after the last session of their tenant and peer, as 10m or 30s, for guests that follow later. They
    /// are guests' memory: by default they go with the session
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "TIME")]
    pub(crate) content_keep: Duration,

    /// Keep every system call and privilege. Without this the gateway gives up those that it never makes: starting programs, mounting, reading
    /// other processes' memory, loading modules and the like
    #[arg(long)]
    pub(crate) unconfined: bool,

    /// What lies between this gateway and its peers, whatever is measured: it sets how many streams there are to each, which
    /// congestion control they have, and what sessions' codecs may choose. 'auto': streams and sessions follow what probes measure;
    /// where nothing is probed, they are as over the internet
    #[arg(long, default_value = "auto", value_enum, value_name = "MODE")]
    pub(crate) mode: ModeArg,

    /// Streams to a peer at first. 4 over the internet, 32 in a datacenter, as --mode says, unless told otherwise
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512), value_name = "COUNT")]
    pub(crate) streams_min: Option<u16>,

    /// Streams to a peer at most, while more of them move more. 16 over the internet, 512 in a datacenter, unless told otherwise
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512), value_name = "COUNT")]
    pub(crate) streams_max: Option<u16>,

    /// Congestion control of streams where the system has it. Over the internet bbr, which a loss does not slow down; in a
    /// datacenter cubic; `system`: whatever the system's default is
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) congestion: Option<Congestion>,

    /// How long running sessions may go on after SIGTERM, as 30s or 500ms; a second SIGTERM ends the gateway at once
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) drain_timeout: Duration,

    /// Sessions at once, expected ones included
    #[arg(long, default_value_t = SESSIONS_MAX, value_parser = sessions, value_name = "COUNT")]
    pub(crate) sessions_max: usize,

    /// Sessions at once of one tenant, as the caller of session.open names it
    #[arg(long, default_value_t = TENANT_SESSIONS_MAX, value_parser = sessions, value_name = "COUNT")]
    pub(crate) tenant_sessions_max: usize,

    /// Sessions at once of the hypervisors of one host: the address they come from, or the one they are reached at
    #[arg(long, default_value_t = HOST_SESSIONS_MAX, value_parser = sessions, value_name = "COUNT")]
    pub(crate) host_sessions_max: usize,

    /// Answer peers' probes of the path at this UDP address, and probe them from it. With --identity, peers whose streams come from, or
    /// go to, the same address are probed without more: keys are agreed on within the streams
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) probe_listen: Option<SocketAddr>,

    /// A peer to probe and to answer, also without streams, by the keys of --probe-secret; repeatable
    #[arg(long, value_name = "IP:PORT", requires = "probe_secret")]
    pub(crate) probe_peer: Vec<SocketAddr>,

    /// File of the secret that probes are authenticated with: 64 hexadecimal digits, the same at all peers, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "probe_listen")]
    pub(crate) probe_secret: Option<PathBuf>,

    /// Below this round trip, and above --mode-bandwidth, a path is a datacenter's
    #[arg(long, default_value = "10ms", value_parser = duration, value_name = "TIME")]
    pub(crate) datacenter_rtt: Duration,

    /// Above this round trip a path is the internet's
    #[arg(long, default_value = "50ms", value_parser = duration, value_name = "TIME")]
    pub(crate) internet_rtt: Duration,

    /// Below this bandwidth a path is the internet's
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "MBIT_S")]
    pub(crate) mode_bandwidth: u32,

    /// How often the mode of a path is looked at; a path that changes sharply is looked at at once
    #[arg(long, default_value = "30s", value_parser = interval, value_name = "TIME")]
    pub(crate) detection_interval: Duration,

    /// Whether the kernel answers probes, before they reach a socket. 'auto' takes what there is and says why it takes less; the
    /// others do not start where they cannot have it
    #[arg(long, default_value = "auto", value_enum, value_name = "HOW")]
    pub(crate) xdp: Xdp,

    /// Interface where probes come in, if it is not the one that has the address of --probe-listen
    #[arg(long, value_name = "NAME")]
    pub(crate) xdp_interface: Option<String>,

    /// Least severe message that is logged
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: tracing::Level,

    /// How messages are written to standard error
    #[arg(long, default_value = "text", value_enum)]
    pub(crate) log_format: LogFormat,

    /// File to which the record of every session is appended, a JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) records: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Xdp {
    /// In the driver, else behind it, else a socket
    Auto,
    /// A socket
    Off,
    /// In the driver
    Driver,
    /// Behind it
    Generic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    Auto,
    Datacenter,
    Internet,
    Hybrid,
}

impl ModeArg {
    /// The mode that is forced, if one is.
    pub(crate) fn forced(self) -> Option<Mode> {
        match self {
            ModeArg::Auto => None,
            ModeArg::Datacenter => Some(Mode::Datacenter),
            ModeArg::Internet => Some(Mode::Internet),
            ModeArg::Hybrid => Some(Mode::Hybrid),
        }
    }
}

fn sessions(text: &str) -> Result<usize, String> {
    let wrong = || format!("'{text}' is not a number of sessions from 1 to {SESSIONS_MAX}");
    text.parse().ok().filter(|count| (1..=SESSIONS_MAX).contains(count)).ok_or_else(wrong)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time: write it as 30s or 500ms");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(wrong()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not from 1s to 60m");
    let within = Duration::from_secs(1)..=Duration::from_secs(3600);
    duration(text).ok().filter(|time| within.contains(time)).ok_or_else(wrong)
}

impl Args {
    /// How many shards there are to be.
    pub(crate) fn shards(&self) -> usize {
        let named = || self.cpus.as_ref().map_or(1, CpuList::len);
        self.shards.map_or_else(named, usize::from).clamp(1, SHARDS_MAX)
    }

    /// A CPU for each shard; empty: they are not pinned. An error: CPUs were named that this process may not use.
    pub(crate) fn placement(&self, machine: &Topology) -> Result<Vec<usize>, String> {
        let Some(named) = &self.cpus else {
            // One shard alone, of perhaps several gateways on a machine, is better placed by the kernel.
            let shards = self.shards();
            return Ok(if shards > 1 { machine.choose(shards, &CpuList::default()) } else { Vec::new() });
        };
        let forbidden = named.missing_in(&machine.allowed);
        if !forbidden.is_empty() {
            return Err(format!(
                "--cpus {named}: this process may not use {forbidden}, only {}; name others, or change its affinity",
                machine.allowed
            ));
        }
        Ok(machine.choose(self.shards(), named))
    }

    /// What of the modes' profiles is told otherwise.
    pub(crate) fn told(&self) -> Told {
        let count = |count: Option<u16>| count.map(usize::from);
        Told {
            streams_min: count(self.streams_min),
            streams_max: count(self.streams_max),
            congestion: self.congestion,
        }
    }

    /// Streams to a peer, least and most, and their congestion control, before anything is measured.
    pub(crate) fn streams(&self) -> ((usize, usize), Option<&'static str>) {
        let mode = self.mode.forced().unwrap_or(UNDECIDED);
        (self.told().streams(mode), self.told().congestion(mode))
    }

    /// Where modes part, and how often paths are looked at.
    pub(crate) fn thresholds(&self) -> Thresholds {
        Thresholds {
            datacenter_rtt_ns: self.datacenter_rtt.as_nanos() as f64,
            internet_rtt_ns: self.internet_rtt.as_nanos() as f64,
            bandwidth_bits_per_s: f64::from(self.mode_bandwidth) * 1e6,
            interval: self.detection_interval,
        }
    }

    /// How many sessions there may be at once, and whose.
    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            all: self.sessions_max,
            tenant: self.tenant_sessions_max,
            host: self.host_sessions_max,
            connections: CONNECTIONS_MAX,
        }
    }

    /// What no parser of single flags can find.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(cpus) = &self.cpus
            && cpus.len() < self.shards()
        {
            let (named, shards) = (cpus.len(), self.shards());
            return Err(format!("--cpus names {named} CPUs for {shards} shards: name one each or more"));
        }
        let mut bounds = Mode::ALL.map(|mode| self.told().streams(mode)).into_iter();
        if let Some((least, most)) = bounds.find(|(least, most)| least > most) {
            return Err(format!(
                "--streams-min {least} is more than --streams-max {most}: give one that is not"
            ));
        }
        if self.datacenter_rtt > self.internet_rtt {
            return Err(format!(
                "--datacenter-rtt {:?} is more than --internet-rtt {:?}: give one that is not",
                self.datacenter_rtt, self.internet_rtt
            ));
        }
        for listen in &self.listen {
            if matches!(listen, Endpoint::Unix(_)) {
                return Err(format!(
                    "--listen {listen}: peer gateways connect over tcp, as in tcp:127.0.0.1:9090"
                ));
            }
        }
        if let Some(listen) = self.probe_listen
            && (listen.ip().is_unspecified() || listen.port() == 0)
        {
            return Err(format!(
                "--probe-listen {listen}: name the address and port that peers know this gateway by, as in 192.0.2.1:7402"
            ));
        }
        if self.probe_listen.is_some() && self.probe_secret.is_none() && self.identity.is_none() {
            return Err("--probe-listen: without --identity nobody is known by streams; give --probe-secret and --probe-peer"
                .to_owned());
        }
        if self.probe_peer.len() > PATHS_MAX {
            return Err(format!("--probe-peer: at most {PATHS_MAX} paths are probed"));
        }
        if let Some(peer) = self.probe_peer.iter().find(|peer| Some(**peer) == self.probe_listen) {
            return Err(format!("--probe-peer {peer} is this gateway itself"));
        }
        if self.identity.is_none() && !self.insecure_plaintext {
            return Err("without --identity DIR this gateway could neither show who it is nor know its peers. \
                `novactl keys init` makes a site's keys, `novactl keys issue` a folder for this gateway and \
                `novactl pair` makes two sites known to each other. For a laboratory, --insecure-plaintext encrypts \
                nothing and believes anybody"
                .to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from(["novacron-gateway", "--control", "/tmp/c.sock"].iter().chain(args)).unwrap()
    }

    #[test]
    fn a_gateway_has_an_identity_or_says_that_it_has_none() {
        let refused = parse(&["--listen", "tcp:127.0.0.1:9090"]).check().unwrap_err();
        assert!(refused.contains("novactl keys") && refused.contains("--insecure-plaintext"), "{refused}");
        assert!(parse(&["--identity", "/etc/novacron"]).check().is_ok());
        assert!(parse(&["--listen", "tcp:0.0.0.0:9090", "--insecure-plaintext"]).check().is_ok());
        assert!(parse(&["--insecure-plaintext", "--listen", "unix:/tmp/x"]).check().is_err());
        let both = ["novacron-gateway", "--control", "/c", "--identity", "/i", "--insecure-plaintext"];
        assert!(Args::try_parse_from(both).is_err());
    }

    #[test]
    fn streams_are_bounded_by_the_mode_or_as_told() {
        for (args, streams, congestion) in [
            (&[][..], (4, 16), Some("bbr")),
            (&["--mode", "datacenter"], (32, 512), Some("cubic")),
            (&["--mode", "hybrid"], (4, 512), None),
            (&["--streams-max", "2"], (2, 2), Some("bbr")),
            (&["--streams-min", "64", "--congestion", "system"], (64, 64), None),
            (&["--streams-min", "2", "--streams-max", "8", "--congestion", "cubic"], (2, 8), Some("cubic")),
        ] {
            let args = parse(args);
            assert_eq!(args.streams(), (streams, congestion));
        }
        let why = parse(&["--insecure-plaintext", "--streams-min", "9", "--streams-max", "8"]).check();
        assert!(why.unwrap_err().contains("--streams-max 8"));
    }

    #[test]
    fn thresholds_are_as_told() {
        assert_eq!(parse(&[]).thresholds(), Thresholds::default());
        let told =
            parse(&["--datacenter-rtt", "2ms", "--mode-bandwidth", "400", "--detection-interval", "5s"]);
        let thresholds = told.thresholds();
        assert_eq!((thresholds.datacenter_rtt_ns, thresholds.bandwidth_bits_per_s), (2e6, 4e8));
        assert_eq!((thresholds.internet_rtt_ns, thresholds.interval), (50e6, Duration::from_secs(5)));
        let why = parse(&["--insecure-plaintext", "--datacenter-rtt", "60ms"]).check().unwrap_err();
        assert!(why.contains("--internet-rtt"), "{why}");
        let often = ["novacron-gateway", "--control", "/c", "--detection-interval", "10ms"];
        assert!(Args::try_parse_from(often).is_err());
    }

    #[test]
    fn times() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "3", "3h", "-1s", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn probes_need_an_address_and_a_secret() {
        let both = [
            "novacron-gateway",
            "--control",
            "/c",
            "--insecure-plaintext",
            "--probe-listen",
            "192.0.2.1:7402",
        ];
        let without = Args::try_parse_from(both).unwrap().check().unwrap_err();
        assert!(without.contains("--probe-secret"), "{without}");
        let known = parse(&["--identity", "/i", "--probe-listen", "192.0.2.1:7402"]);
        assert_eq!(known.check(), Ok(()));
        let peer =
            ["novacron-gateway", "--control", "/c", "--identity", "/i", "--probe-peer", "192.0.2.1:7402"];
        assert!(Args::try_parse_from(peer).is_err(), "no secret");
        for (listen, peer, fits) in [
            ("192.0.2.1:7402", "192.0.2.2:7402", true),
            ("[fd00::1]:7402", "[fd00::2]:7402", true),
            ("0.0.0.0:7402", "192.0.2.2:7402", false),
            ("192.0.2.1:0", "192.0.2.2:7402", false),
            ("192.0.2.1:7402", "192.0.2.1:7402", false),
        ] {
            let args = [
                "--insecure-plaintext",
                "--probe-secret",
                "/s",
                "--probe-listen",
                listen,
                "--probe-peer",
                peer,
            ];
            assert_eq!(parse(&args).check().is_ok(), fits, "{listen} {peer}");
        }
    }

    #[test]
    fn cpus_are_one_a_shard() {
        assert!(parse(&["--shards", "2", "--cpus", "0"]).check().is_err());
        assert!(parse(&["--insecure-plaintext", "--shards", "2", "--cpus", "0,1"]).check().is_ok());
        assert!(parse(&["--insecure-plaintext", "--shards", "2", "--cpus", "0-3,8"]).check().is_ok());
        let wrong = ["novacron-gateway", "--control", "/tmp/c.sock", "--cpus", "3-1"];
        assert!(Args::try_parse_from(wrong).is_err());
    }

    #[test]
    fn shards_are_as_many_as_asked_for_or_as_cpus_are_named() {
        let machine = Topology { allowed: "0-7".parse().unwrap(), ..Topology::default() };
        for (args, shards, placement) in [
            (&[][..], 1, &[][..]),
            (&["--cpus", "2"], 1, &[2]),
            (&["--cpus", "2-4"], 3, &[2, 3, 4]),
            (&["--shards", "2", "--cpus", "5-7"], 2, &[5, 6]),
            (&["--shards", "3"], 3, &[0, 1, 2]),
            // More than there are: the kernel places them.
            (&["--shards", "9"], 9, &[]),
        ] {
            let args = parse(args);
            assert_eq!((args.shards(), args.placement(&machine).unwrap()), (shards, placement.to_vec()));
        }
        let why = parse(&["--cpus", "6-9"]).placement(&machine).unwrap_err();
        assert!(why.contains("may not use 8-9, only 0-7"), "{why}");
    }
}
