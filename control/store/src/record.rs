//! What is stored beside the audit log: sessions, migrations, path samples.

use novacron_control_api::{Endpoint, Reason, SessionId, SessionRecord, Timestamp};
use serde::{Deserialize, Serialize};

/// A session as a gateway last showed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenSession {
    /// The gateway's name, as control calls it.
    pub gateway: String,
    /// When it was seen so.
    pub seen_at: Timestamp,
    /// What the gateway said.
    pub record: SessionRecord,
}

impl SeenSession {
    /// A session is one gateway's: both ends of a migration may report to the same control process.
    pub(crate) fn name(gateway: &str, session: SessionId) -> String {
        format!("{session}/{gateway}")
    }
}

/// Which sessions or migrations a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    /// All.
    #[default]
    All,
    /// Those that had not ended when they were last seen.
    Live,
    /// Those that have ended.
    Ended,
}

/// How a migration stands or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationOutcome {
    /// It is under way, as far as is known.
    Running,
    /// The guest runs at the destination.
    Completed,
    /// It failed; the guest is at the source.
    Failed,
    /// It was cancelled; the guest is at the source.
    Cancelled,
    /// Nobody knows where the guest runs until both sides have been looked at.
    Unknown,
}

impl MigrationOutcome {
    /// Its name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it may still change: an unknown outcome is settled some day.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Unknown)
    }
}

/// A guest's migration, from the order to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigrationRecord {
    /// Its session, which also names the migration.
    pub session: SessionId,
    /// Its caller's free text.
    pub label: String,
    /// In whose name; empty where none was given.
    pub tenant: String,
    /// Who ordered it, as the audit log writes it.
    pub actor: String,
    /// How it stands.
    pub outcome: MigrationOutcome,
    /// Why it did not complete; `null` otherwise.
    pub reason: Option<Reason>,
    /// When it was ordered.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How long the guest ran nowhere, in milliseconds, as QEMU's source says; `null` while unknown.
    pub downtime_ms: Option<u64>,
    /// The source's session, as it ended.
    pub source: Option<SessionRecord>,
    /// The destination's session, as it ended.
    pub destination: Option<SessionRecord>,
    /// The far gateway.
    pub peer: Option<Endpoint>,
}

/// What a path to a peer was like at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSample {
    /// The peer, as control calls it.
    pub peer: String,
    /// When. Of two samples with the same peer, measurer and millisecond the first one stays.
    pub at: Timestamp,
    /// Who measured: `probe`, or a gateway's name.
    pub measured_by: String,
    /// Round trip, in microseconds.
    pub rtt_us: Option<u64>,
    /// Bandwidth, in bytes a second.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// Lost packets, in millionths.
    pub loss_ppm: Option<u32>,
}
