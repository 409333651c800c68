//! Two gateways on this machine, and sessions between them.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use novacron_testbed::{Gateway, GatewayOptions, Scratch, wait};
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

/// A session's name.
pub(crate) struct SessionName(String);

impl Pair {
    /// Starts both.
    pub(crate) fn start(scratch: &Scratch) -> Result<Self> {
        let destination = Gateway::start(scratch, "gateway-b", &GatewayOptions::default())?;
        let dials = GatewayOptions { listen: false, ..GatewayOptions::default() };
        let source = Gateway::start(scratch, "gateway-a", &dials)?;
        Ok(Self { source, destination })
    }

    /// Opens a session: who connects to `listen` reaches `connect`.
    pub(crate) fn open(&self, listen: &Path, connect: &Path, choices: Choices) -> Result<SessionName> {
        let mut random = [0; 40];
        getrandom::fill(&mut random).map_err(|error| anyhow!("the system gives no random bytes: {error}"))?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (session, token) = (hex(&random[..8]), hex(&random[8..]));
        let unix = |path: &Path| format!("unix:{}", path.display());
        let options =
            json!({"digest": choices.digest, "destination_may_start": choices.destination_may_start});
        let open = |gateway: &Gateway, side: Value| -> Result<()> {
            let mut params = json!({"session": session, "token": token, "options": options});
            if let (Some(params), Value::Object(side)) = (params.as_object_mut(), side) {
                params.extend(side);
            }
            gateway.rpc()?.call("session.open", params).map(drop)
        };
        open(&self.destination, json!({"role": "destination", "connect": unix(connect)}))
            .context("announcing a session to the destination's gateway")?;
        let peer = self.destination.peer()?;
        open(&self.source, json!({"role": "source", "listen": unix(listen), "peer": peer}))
            .context("opening a session at the source's gateway")?;
        Ok(SessionName(session))
    }

    /// Waits until a session has ended at both gateways and returns the source's record.
    pub(crate) fn finished(&self, session: &SessionName, choices: Choices) -> Result<Value> {
        let mut records = Vec::new();
        for gateway in [&self.destination, &self.source] {
            let mut rpc = gateway.rpc()?;
            records.push(wait::until("the end of a session", SESSION_END_WAIT, || {
                let record = rpc.call("session.get", json!({"session": session.0}))?;
                Ok(matches!(record["state"].as_str(), Some("finished" | "failed")).then_some(record))
            })?);
        }
        for record in &records {
            ensure!(record["state"] == "finished", "the session failed: {}", record["reason"]);
            let expected = if choices.digest { json!(true) } else { Value::Null };
            ensure!(record["digest_equal"] == expected, "digest_equal is {}", record["digest_equal"]);
        }
        records.pop().context("no record")
    }
}
