//! A session driven by hand: what an orchestrator other than novactl says to the two gateways.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Gateway, wait};

/// A session's name and its secret.
#[derive(Clone, Debug)]
pub struct Session {
    /// 16 hex digits.
    pub id: String,
    /// 64 hex digits.
    pub token: String,
}

impl Session {
    /// A session that nobody has heard of.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new() -> Result<Self> {
        let mut bytes = [0; 40];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .context("reading random bytes")?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id: hex(&bytes[..8]), token: hex(&bytes[8..]) })
    }

    /// Parameters of `session.open` at the destination's gateway: it is to connect to the hypervisor at `connect`.
    pub fn at_destination(&self, connect: &str, options: &Value) -> Value {
        json!({"session": self.id, "token": self.token, "role": "destination", "connect": connect,
               "options": options})
    }

    /// Parameters of `session.open` at the source's gateway: it is to dial `peer`, and to take the hypervisor at
    /// `listen`.
    pub fn at_source(&self, peer: &str, listen: &str, options: &Value) -> Value {
        json!({"session": self.id, "token": self.token, "role": "source", "peer": peer, "listen": listen,
               "options": options})
    }

    /// Opens the session at both gateways, the destination's first. Returns where the source is to connect.
    ///
    /// # Errors
    /// When a gateway refuses.
    pub fn open(
        &self,
        source: &Gateway,
        destination: &Gateway,
        (listen, connect): (&str, &str),
        options: &Value,
    ) -> Result<String> {
        destination.rpc()?.call("session.open", self.at_destination(connect, options))?;
        let parameters = self.at_source(destination.peer()?, listen, options);
        let opened = source.rpc()?.call("session.open", parameters)?;
        ensure!(opened["session"] == self.id, "another session was opened: {opened}");
        opened["listen"].as_str().map(str::to_owned).with_context(|| format!("no address in {opened}"))
    }

    /// Its record at a gateway.
    ///
    /// # Errors
    /// When the gateway does not know it.
    pub fn record(&self, gateway: &Gateway) -> Result<Value> {
        record(gateway, &self.id)
    }
}

/// The record of a session.
///
/// # Errors
/// When the gateway does not know it.
pub fn record(gateway: &Gateway, id: &str) -> Result<Value> {
    gateway.rpc()?.call("session.get", json!({"session": id}))
}

/// Waits until the record of a session is as `wanted`, and returns it.
///
/// # Errors
/// When it is not within `limit`: shows the record as it was last.
pub fn wait_record(
    gateway: &Gateway,
    id: &str,
    limit: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut rpc = gateway.rpc()?;
    let mut last = Value::Null;
    let found = wait::until(&format!("the awaited state of session {id}"), limit, || {
        last = rpc.call("session.get", json!({"session": id}))?;
        Ok(wanted(&last).then(|| last.clone()))
    });
    found.with_context(|| format!("the session's record: {last}"))
}

/// Waits until a session has ended, and returns its last record.
///
/// # Errors
/// When it has not within `limit`.
pub fn wait_ended(gateway: &Gateway, id: &str, limit: Duration) -> Result<Value> {
    wait_record(gateway, id, limit, |record| record["state"] == "finished" || record["state"] == "failed")
}

/// Waits until a gateway has one session that has carried `bytes` of its hypervisor, and returns its name.
///
/// # Errors
/// When there is none within `limit`.
pub fn wait_under_way(gateway: &Gateway, bytes: u64, limit: Duration) -> Result<String> {
    let mut rpc = gateway.rpc()?;
    let mut last = Value::Null;
    let found = wait::until("a session under way", limit, || {
        last = rpc.call("session.list", json!({}))?;
        let sessions = last["sessions"].as_array().context("no list of sessions")?;
        let under_way = sessions.iter().find(|record| {
            record["state"] == "running" && record["guest_bytes"].as_u64().is_some_and(|done| done >= bytes)
        });
        Ok(under_way.and_then(|record| record["session"].as_str()).map(str::to_owned))
    });
    found.with_context(|| format!("the gateway's sessions: {last}"))
}

/// `unix:` and a path.
pub fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}
