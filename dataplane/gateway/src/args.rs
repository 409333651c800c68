//! The command line.

use crate::limits::{
    CONNECTIONS_MAX, DELTA_MEMORY_BYTES, HOST_SESSIONS_MAX, SESSIONS_MAX, TENANT_SESSIONS_MAX,
};
use crate::registry::SessionLimits;
use clap::{Parser, ValueEnum};
use novacron_control_api::Endpoint;
use novacron_protocol::limits::{MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MAX};
use novacron_transport::limits::SHARDS_MAX;
use novacron_transport::shard::{CpuList, Topology};
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

    /// Keep every system call. Without this the gateway gives up those that it never makes: starting programs, mounting, reading
    /// other processes' memory, loading modules and the like
    #[arg(long)]
    pub(crate) unconfined: bool,

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
        for listen in &self.listen {
            if matches!(listen, Endpoint::Unix(_)) {
                return Err(format!(
                    "--listen {listen}: peer gateways connect over tcp, as in tcp:127.0.0.1:9090"
                ));
            }
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
    fn times() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "3", "3h", "-1s", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
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
