//! What was remembered: sessions, migrations and paths as they were recorded, and the audit log.

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::ident::{Digest, SessionId};
use crate::record::{Reason, SessionRecord};
use crate::timestamp::Timestamp;

/// A session as a gateway last showed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SeenSession {
    /// The gateway's name, as control calls it: its node's.
    pub gateway: String,
    /// When it was seen so.
    pub seen_at: Timestamp,
    /// What the gateway said.
    pub record: SessionRecord,
}

/// Which sessions or migrations a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MigrationOutcome {
    /// It is under way, as far as is known.
    Running,
    /// The guest runs at the destination: whoever holds the hypervisors' monitors said so.
    Completed,
    /// Every byte that the source's hypervisor wrote was delivered and verified, and both hypervisors closed in order.
    /// Gateways see no more; where the guest runs is the hypervisors' to say, and a migration that was cancelled in
    /// the hypervisor ends so too.
    Delivered,
    /// It failed; the guest is at the source.
    Failed,
    /// It was cancelled; the guest is at the source.
    Cancelled,
    /// Nobody knows where the guest runs until both sides have been looked at.
    Unknown,
}

impl MigrationOutcome {
    /// Its name, as stored and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Delivered => "delivered",
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MigrationRecord {
    /// Its session, which also names the migration.
    pub session: SessionId,
    /// Its caller's free text.
    pub label: String,
    /// In whose name; empty where none was given.
    pub tenant: String,
    /// Who ordered it, as the audit log writes it; empty where that was not the control process.
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
    /// From the order to the guest seen running at the destination, or else to the end, in milliseconds, as whoever
    /// holds the hypervisors' monitors said; `null` while nobody did.
    #[serde(default)]
    pub total_ms: Option<u64>,
    /// Who said how it ended, as the audit log writes it; `null`: it is what gateways show.
    #[serde(default)]
    pub reported_by: Option<String>,
    /// The source's session, as it ended.
    pub source: Option<SessionRecord>,
    /// The destination's session, as it ended.
    pub destination: Option<SessionRecord>,
    /// The far gateway.
    pub peer: Option<Endpoint>,
}

/// What a path to a peer was like at a moment, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeptSample {
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

/// Parameters of `history.sessions` and `history.migrations`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HistoryPage {
    /// Which ones.
    #[serde(default)]
    pub which: Which,
    /// Where the page before ended, as its `next` says; `null`: begin with the newest.
    #[serde(default)]
    pub after: Option<String>,
    /// Items at most; fewer come where they are large.
    #[serde(default = "items")]
    pub items_max: u32,
}

/// Parameters of `history.paths`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PathHistoryPage {
    /// The peer, as `path.list` writes it.
    pub peer: String,
    /// As in [`HistoryPage`].
    #[serde(default)]
    pub after: Option<String>,
    /// As in [`HistoryPage`].
    #[serde(default = "items")]
    pub items_max: u32,
}

/// Parameters of `audit.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditPage {
    /// The last entry that is known already; 0: begin with the oldest.
    #[serde(default)]
    pub after: u64,
    /// Items at most; fewer come where they are large.
    #[serde(default = "items")]
    pub items_max: u32,
}

/// Parameters of `audit.verify`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditCheck {
    /// Heads that were kept elsewhere, `NUMBER:HASH`: the log must still hold them.
    #[serde(default)]
    pub kept: Vec<String>,
}

fn items() -> u32 {
    100
}

/// Result of `history.sessions`, newest first. What waits for a database that is away is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionHistory {
    /// The sessions.
    pub sessions: Vec<SeenSession>,
    /// Where the next page begins; `null` after the last.
    pub next: Option<String>,
}

/// Result of `history.migrations`, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MigrationHistory {
    /// The migrations.
    pub migrations: Vec<MigrationRecord>,
    /// Where the next page begins; `null` after the last.
    pub next: Option<String>,
}

/// Result of `history.paths`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PathHistory {
    /// The samples.
    pub samples: Vec<KeptSample>,
    /// Where the next page begins; `null` after the last.
    pub next: Option<String>,
}

/// An entry of the audit log. Written as JSON in this order and without spaces, it is a line of the log's export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditRecord {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// Tells it from all others.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// In which role.
    pub role: String,
    /// Over which way.
    pub origin: String,
    /// The call's method.
    pub method: String,
    /// What it was about.
    pub subject: String,
    /// `begun`, `done`, `refused` or `failed`.
    pub outcome: String,
    /// More, as JSON; may be empty.
    pub detail: String,
    /// The hash of the entry before it.
    pub previous: Digest,
    /// Its own hash.
    pub hash: Digest,
}

/// Result of `audit.list`, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditList {
    /// The entries.
    pub entries: Vec<AuditRecord>,
    /// The next call's `after`; `null` after the last entry.
    pub next: Option<u64>,
    /// Where the log ends now, `NUMBER:HASH`.
    pub head: String,
}

/// Result of `audit.verify`: the log is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditVerified {
    /// Entries that were looked at.
    pub entries: u64,
    /// What retention has let go of: the entry before the first one that is kept, `NUMBER:HASH`.
    pub base: String,
    /// Where the log ends. Kept elsewhere, it finds entries that are cut off later.
    pub head: String,
}
