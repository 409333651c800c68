//! The node as a whole: what it is, what it found around it, what is in force.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::timestamp::Timestamp;

/// Result of `node.info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeInfo {
    /// Its name.
    pub node_id: String,
    /// Version of the program.
    pub version: String,
    /// Version of the methods, [`super::CONTROL_VERSION`].
    pub control_version: u32,
    /// Version of the gateway's methods that it understands, [`crate::limits::API_VERSION`].
    pub api_version: u32,
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// Milliseconds since then, by a clock that never steps.
    pub uptime_ms: u64,
    /// Time from the start to ready, in milliseconds; `null` until then.
    #[serde(default)]
    pub ready_after_ms: Option<u64>,
    /// The kind of path between sites: `datacenter`, `internet`, `hybrid`; `unknown` until a path is measured.
    pub mode: String,
    /// Whether somebody forced that.
    pub mode_forced: bool,
    /// The configuration file; `null`: there is none.
    #[serde(default)]
    pub configuration_file: Option<String>,
}

/// One value of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigValue {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Where it was written.
    pub from: String,
    /// When a change takes effect.
    pub takes_effect: String,
}

/// Result of `config.get`. No value is a secret: those stand in files of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigValues {
    /// Every key.
    pub values: Vec<ConfigValue>,
}

/// Result of `config.reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reloaded {
    /// Keys whose new values are in force now.
    pub in_force: Vec<String>,
    /// Keys whose new values wait for a restart.
    pub after_restart: Vec<String>,
    /// What is probably not meant.
    pub warnings: Vec<String>,
}

/// A feature that can be switched and rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Feature {
    /// Its name: `transport`, `compression`, ...
    pub name: String,
    /// Whether its switch is on. Off: no new session gets it.
    pub enabled: bool,
    /// Whether this version has it.
    pub built: bool,
    /// Sessions opened since the start that got it.
    pub sessions_with: u64,
    /// Sessions opened since the start that did not.
    pub sessions_without: u64,
}

/// Result of `features.get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Features {
    /// Share of new sessions that get what is enabled, in percent.
    pub rollout_percentage: u64,
    /// Each.
    pub features: Vec<Feature>,
}

/// Something that was found out about the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// What: `cpus`, `memory`, `nic eth0`, `hugepages`, `capabilities`, `kernel`, ...
    pub name: String,
    /// How it is.
    pub value: String,
}

/// A minimum that the host does not reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Requirement {
    /// What is short.
    pub name: String,
    /// What there is and what should be.
    pub missing: String,
    /// What that costs.
    pub costs: String,
    /// Whether the node cannot work so.
    pub fatal: bool,
}

/// Result of `node.environment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Environment {
    /// What was found.
    pub findings: Vec<Finding>,
    /// Where the host is short.
    pub short: Vec<Requirement>,
    /// The kind of path between sites, as far as it can be told.
    pub mode: String,
    /// Why that.
    pub mode_reason: String,
    /// When it was looked at.
    pub detected_at: Timestamp,
}
