//! `gateway.*`: the gateway as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::limits::TIME_MS_MAX;
use crate::peers::PeerIdentity;
use crate::timestamp::Timestamp;

/// Result of `gateway.info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GatewayInfo {
    /// The gateway's version.
    pub version: String,
    /// Wire versions it speaks, ascending.
    pub wire_versions: Vec<u16>,
    /// Version of the control socket's types; gateways from before it was told speak 1.
    #[serde(default = "api_version_default")]
    pub api_version: u32,
    /// Its process id.
    pub pid: u32,
    /// Data shards it runs.
    pub shards: u32,
    /// Where it listens for peers, as bound; empty when it only dials.
    pub listen: Vec<Endpoint>,
    /// Whether it is draining: it takes no new sessions.
    pub draining: bool,
    /// When it started.
    pub started_at: Timestamp,
    /// Milliseconds since then, by a clock that never steps.
    pub uptime_ms: u64,
    /// How its streams are protected; `null` from gateways that do not tell.
    #[serde(default)]
    pub security: Option<Security>,
    /// How many streams it has to each peer, and how they are paced; `null` from gateways that do not say.
    #[serde(default)]
    pub streams: Option<StreamBounds>,
}

/// Streams to each peer gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StreamBounds {
    /// As many as there are at first.
    pub least: u32,
    /// As many as there may be while more help, unless a session asks for more.
    pub most: u32,
    /// The congestion control that they ask for: `bbr`, `cubic`, or `system`. A session's record says which they have.
    pub congestion: String,
}

fn api_version_default() -> u32 {
    1
}

/// How a gateway's streams are protected, and what became of those who tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Security {
    /// Whether streams are encrypted. False only with `--insecure-plaintext`.
    pub encrypted: bool,
    /// Who this gateway is; `null` without encryption.
    #[serde(default)]
    pub identity: Option<PeerIdentity>,
    /// The end of its certificate's time.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Key exchange of every stream; empty without encryption.
    #[serde(default)]
    pub key_exchange: String,
    /// Streams and sessions that were refused, by reason: `expired`, `revoked`, `unknown_authority`, `wrong_tenant`, ...
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// What an operator should look at, in sentences: a certificate that ends soon, files that cannot be read.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Parameters of `gateway.drain`: no new sessions; running ones finish until the deadline, then fail cleanly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DrainParams {
    /// Time given to running sessions, in milliseconds. Default 30,000.
    #[serde(default = "timeout_ms_default")]
    pub timeout_ms: u64,
}

fn timeout_ms_default() -> u64 {
    30_000
}

impl Default for DrainParams {
    fn default() -> Self {
        Self { timeout_ms: timeout_ms_default() }
    }
}

impl DrainParams {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.timeout_ms > TIME_MS_MAX {
            return Err(format!("timeout_ms must be at most {TIME_MS_MAX}"));
        }
        Ok(())
    }
}

/// Result of `gateway.drain`, when it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DrainResult {
    /// Sessions that were running when it began.
    pub running: u32,
    /// Of those, how many the deadline failed.
    pub cancelled: u32,
}
