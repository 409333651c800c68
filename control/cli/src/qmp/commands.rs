//! QMP queries whose answers are read leniently.
//!
//! `qapi`'s own types for these hold closed enumerations; a state that a later QEMU adds would make the answer
//! unreadable exactly when it matters. Here states are texts, and unknown members are ignored.

use qapi::{Command, Empty};
use serde::{Deserialize, Serialize};

/// `query-status` (QEMU `qapi/run-state.json`).
#[derive(Debug, Serialize)]
pub(crate) struct QueryStatus {}

/// Its answer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RunStatus {
    /// The run state's name.
    pub(crate) status: String,
    /// Whether virtual CPUs run.
    pub(crate) running: bool,
}

impl Command for QueryStatus {
    type Ok = RunStatus;
    const NAME: &'static str = "query-status";
    const ALLOW_OOB: bool = false;
}

/// `query-migrate` (QEMU `qapi/migration.json`).
#[derive(Debug, Serialize)]
pub(crate) struct QueryMigrate {}

/// Its answer; all absent before the first migration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct MigrationInfo {
    /// `setup`, `active`, `device`, `completed`, `failed`, `cancelled`, ...
    pub(crate) status: Option<String>,
    /// Why it failed.
    pub(crate) error_desc: Option<String>,
    /// Why this VM cannot migrate at all.
    #[serde(default)]
    pub(crate) blocked_reasons: Vec<String>,
    /// RAM counters.
    pub(crate) ram: Option<RamInfo>,
    /// QEMU's own figure, once completed, in milliseconds.
    pub(crate) downtime: Option<u64>,
    /// Time before the first page, in milliseconds.
    pub(crate) setup_time: Option<u64>,
}

/// RAM counters of a migration at its source.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct RamInfo {
    /// Bytes QEMU wrote.
    pub(crate) transferred: u64,
    /// Bytes of RAM still to send.
    pub(crate) remaining: u64,
    /// Bytes of RAM.
    pub(crate) total: u64,
    /// Iterations begun.
    pub(crate) dirty_sync_count: u64,
    /// QEMU's rate in Mbit/s.
    pub(crate) mbps: f64,
}

impl MigrationInfo {
    /// The state's name, `none` before the first migration.
    pub(crate) fn status_or_none(&self) -> &str {
        self.status.as_deref().unwrap_or("none")
    }

    /// Whether the state is final.
    pub(crate) fn is_terminal(&self) -> bool {
        is_terminal(self.status_or_none())
    }
}

/// Whether a migration state is final, or there never was a migration.
pub(crate) fn is_terminal(status: &str) -> bool {
    matches!(status, "none" | "completed" | "failed" | "cancelled")
}

impl Command for QueryMigrate {
    type Ok = MigrationInfo;
    const NAME: &'static str = "query-migrate";
    const ALLOW_OOB: bool = false;
}

/// `migrate-set-parameters`, the two that are never left to a default.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct MigrateLimits {
    /// Bytes a second; 0 is unlimited (QEMU `migration/migration-stats.h`, `RATE_LIMIT_DISABLED`).
    pub(crate) max_bandwidth: u64,
    /// Milliseconds.
    pub(crate) downtime_limit: u64,
}

impl Command for MigrateLimits {
    type Ok = Empty;
    const NAME: &'static str = "migrate-set-parameters";
    const ALLOW_OOB: bool = false;
}

/// `migrate-set-parameters`, what QEMU is to expect of the path once it stops the guest (QEMU 8.2 and later).
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SwitchoverBandwidth {
    /// Bytes a second.
    pub(crate) avail_switchover_bandwidth: u64,
}

impl Command for SwitchoverBandwidth {
    type Ok = Empty;
    const NAME: &'static str = "migrate-set-parameters";
    const ALLOW_OOB: bool = false;
}

/// `query-memory-size-summary` (QEMU `qapi/machine.json`).
#[derive(Debug, Serialize)]
pub(crate) struct QueryMemory {}

/// Its answer, in bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Memory {
    pub(crate) base_memory: u64,
    #[serde(default)]
    pub(crate) plugged_memory: u64,
}

impl Command for QueryMemory {
    type Ok = Memory;
    const NAME: &'static str = "query-memory-size-summary";
    const ALLOW_OOB: bool = false;
}

/// `query-cpus-fast` (QEMU `qapi/machine.json`); only counted.
#[derive(Debug, Serialize)]
pub(crate) struct QueryCpus {}

impl Command for QueryCpus {
    type Ok = Vec<serde_json::Value>;
    const NAME: &'static str = "query-cpus-fast";
    const ALLOW_OOB: bool = false;
}
