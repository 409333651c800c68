//! Two gateways on this machine, and sessions between them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use novacron_lab::Site;
use novacron_testbed::session::{unix, wait_ended};
use novacron_testbed::{Gateway, GatewayOptions, Scratch, Security, Session};
use serde_json::{Value, json};

use crate::limits::SESSION_END_WAIT;

/// A source's and a destination's gateway over loopback TCP.
pub(crate) struct Pair {
    pub(crate) source: Gateway,
    pub(crate) destination: Gateway,
}

/// Where a gateway of a pair runs: here on loopback, or at a site of the lab.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Words before its command line.
    pub(crate) prefix: Vec<String>,
    /// Where it is reached.
    pub(crate) address: IpAddr,
}

impl Place {
    /// At a site of the lab.
    pub(crate) fn at(site: &Site) -> Self {
        Self { prefix: site.enter(), address: site.address() }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self { prefix: Vec::new(), address: Ipv4Addr::LOCALHOST.into() }
    }
}

/// What is chosen of a session; the rest is as it is by default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choices {
    pub(crate) digest: bool,
    /// Whether the destination may run its guest by itself: not where `cont` is ours.
    pub(crate) destination_may_start: bool,
    /// Always zstd at this level; otherwise the gateway's own choice.
    pub(crate) zstd_level: Option<u32>,
}

impl Default for Choices {
    fn default() -> Self {
        Self { digest: true, destination_may_start: true, zstd_level: None }
    }
}

impl Pair {
    /// Starts both.
    pub(crate) fn start(scratch: &Scratch) -> Result<Self> {
        let destination = Gateway::start(scratch, "gateway-b", &GatewayOptions::plaintext())?;
        let dials = GatewayOptions { listen: false, ..GatewayOptions::plaintext() };
        let source = Gateway::start(scratch, "gateway-a", &dials)?;
        Ok(Self { source, destination })
    }

    /// Starts both at these places, the source's first, protected so.
    pub(crate) fn between(
        scratch: &Scratch,
        name: &str,
        [near, far]: [&Place; 2],
        security: Security,
    ) -> Result<Self> {
        let options = |listen: bool, place: &Place| GatewayOptions {
            listen,
            address: place.address,
            prefix: place.prefix.clone(),
            security: security.clone(),
            ..GatewayOptions::default()
        };
        let destination = Gateway::start(scratch, &format!("gateway-b-{name}"), &options(true, far))?;
        let source = Gateway::start(scratch, &format!("gateway-a-{name}"), &options(false, near))?;
        Ok(Self { source, destination })
    }

    /// Starts both with so many shards: the source's, the destination's.
    pub(crate) fn with_shards(scratch: &Scratch, name: &str, source: u16, destination: u16) -> Result<Self> {
        let options = |listen: bool, shards: u16| GatewayOptions {
            listen,
            extra: vec!["--shards".to_owned(), shards.to_string()],
            ..GatewayOptions::default()
        };
        let destination = Gateway::start(scratch, &format!("gateway-b-{name}"), &options(true, destination))?;
        let source = Gateway::start(scratch, &format!("gateway-a-{name}"), &options(false, source))?;
        Ok(Self { source, destination })
    }

    /// Opens a session: who connects to `listen` reaches `connect`.
    pub(crate) fn open(&self, listen: &Path, connect: &Path, choices: Choices) -> Result<Session> {
        let session = Session::new()?;
        let mut options =
            json!({"digest": choices.digest, "destination_may_start": choices.destination_may_start});
        if let Some(level) = choices.zstd_level {
            (options["codec"], options["level"]) = (json!("zstd"), json!(level));
        }
        session
            .open(&self.source, &self.destination, (&unix(listen), &unix(connect)), &options)
            .context("opening a session at both gateways")?;
        Ok(session)
    }

    /// Waits until a session has ended at both gateways, as it should, and returns the source's record.
    pub(crate) fn finished(&self, session: &Session, choices: Choices) -> Result<Value> {
        let ended = |gateway| -> Result<Value> {
            let record = wait_ended(gateway, &session.id, SESSION_END_WAIT)?;
            ensure!(record["state"] == "finished", "the session failed: {}", record["reason"]);
            let expected = if choices.digest { json!(true) } else { Value::Null };
            ensure!(record["digest_equal"] == expected, "digest_equal is {}", record["digest_equal"]);
            Ok(record)
        };
        ended(&self.destination)?;
        ended(&self.source)
    }
}
