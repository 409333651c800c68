//! Two gateways on this machine, and sessions between them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use novacron_testbed::session::{unix, wait_ended};
use novacron_testbed::{Gateway, GatewayOptions, Scratch, Session};
use serde_json::{Value, json};

use crate::limits::SESSION_END_WAIT;

/// A source's and a destination's gateway over loopback TCP.
pub(crate) struct Pair {
    pub(crate) source: Gateway,
    pub(crate) destination: Gateway,
}

/// What is chosen of a session; the rest is as it is by default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choices {
    pub(crate) digest: bool,
    /// Whether the destination may run its guest by itself: not where `cont` is ours.
    pub(crate) destination_may_start: bool,
}

impl Pair {
    /// Starts both.
    pub(crate) fn start(scratch: &Scratch) -> Result<Self> {
        let destination = Gateway::start(scratch, "gateway-b", &GatewayOptions::default())?;
        let dials = GatewayOptions { listen: false, ..GatewayOptions::default() };
        let source = Gateway::start(scratch, "gateway-a", &dials)?;
        Ok(Self { source, destination })
    }

    /// Opens a session: who connects to `listen` reaches `connect`.
    pub(crate) fn open(&self, listen: &Path, connect: &Path, choices: Choices) -> Result<Session> {
        let session = Session::new()?;
        let options =
            json!({"digest": choices.digest, "destination_may_start": choices.destination_may_start});
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
