//! The record that every session leaves: what happened, in numbers.

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::ident::{Digest, SessionId};
use crate::label::{LabelledEndpoint, MIGRATION};
use crate::origin::Origin;
use crate::path::{ModeChange, PathMode};
use crate::peers::PeerIdentity;
use crate::session::Role;
use crate::timestamp::Timestamp;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Announced by its caller; the other side has not come yet.
    Waiting,
    /// The gateways are agreeing.
    Opening,
    /// Bytes may flow.
    Running,
    /// Every stream is lost; it waits and reconnects.
    Interrupted,
    /// It failed after the last byte may have been delivered: the source's sockets are kept open until released.
    Held,
    /// It ended as it should.
    Finished,
    /// It failed or was cancelled.
    Failed,
}

impl SessionState {
    /// Whether nothing more will happen.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed)
    }
}

/// What the hypervisor's stream is doing, as the gateway reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the first page.
    Setup,
    /// Pages travel while the guest runs.
    Precopy,
    /// The guest is stopped; the last pages and the device state travel.
    Switchover,
    /// The guest runs at the destination and asks for pages.
    Postcopy,
    /// The stream is not understood and carried as it is.
    Opaque,
    /// The stream is over.
    Ended,
}

/// Why a session ended or is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reason {
    /// Stable name, snake_case.
    pub code: String,
    /// What happened, in a sentence.
    pub message: String,
}

/// Streams of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StreamCount {
    /// Open now.
    pub open: u32,
    /// Ever opened, reconnections included.
    pub ever: u32,
    /// Their congestion controls, as their sockets say, each once.
    #[serde(default)]
    pub congestion: Vec<String>,
    /// Shards of this gateway that serve them.
    #[serde(default)]
    pub shards: u32,
    /// Of those open, streams that are served by the shard on whose processor their packets arrive.
    #[serde(default)]
    pub steered: u32,
}

/// Guest bytes by the codec that carried them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CodecBytes {
    /// As they are, in bytes.
    pub raw: u64,
    /// By lz4, in bytes before compression.
    pub lz4: u64,
    /// By zstd, in bytes before compression.
    pub zstd: u64,
    /// Pages that were what the far side remembered: a few bits each.
    #[serde(default)]
    pub unchanged: u64,
    /// Pages of which only the differences to what the far side remembered were carried.
    #[serde(default)]
    pub delta: u64,
    /// Pages that are one word repeated.
    #[serde(default)]
    pub uniform: u64,
    /// Pages of which only a reference to content was carried that the far side was believed to hold.
    #[serde(default)]
    pub known: u64,
}

/// What encoding took, by what it went into, in microseconds of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CodecTimes {
    /// Comparing pages with what the far side remembers.
    pub memory_us: u64,
    /// Putting together what was carried as it is.
    pub raw_us: u64,
    /// lz4.
    pub lz4_us: u64,
    /// zstd.
    pub zstd_us: u64,
}

/// What this gateway spends on remembering what a session carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeltaMemory {
    /// Held now, in bytes.
    pub held: u64,
    /// The most that both gateways agreed on, in bytes; 0: nothing is remembered, or the session is over.
    pub agreed: u64,
}

/// What a session has to do with content that sessions bring each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ContentRecord {
    /// At a destination: held now for its tenant and peer, in bytes, its other sessions' included.
    pub held: u64,
    /// The most that may be, in bytes; 0: there is no content store, or the session is over.
    pub most: u64,
    /// Pages that were referred to, were not held any more, and were sent after all.
    pub repaired_pages: u64,
    /// At a source: bytes of frames that this took.
    pub repair_bytes: u64,
}

/// Which way bytes go on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ConnectionDirection {
    /// From the source hypervisor to the destination's.
    Forward,
    /// The return path.
    Return,
}

/// One direction of one hypervisor connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConnectionRecord {
    /// The connection's number in its session, in order of acceptance.
    pub connection: u32,
    /// What it is for: `migration`, or the label of the endpoint that it came through.
    #[serde(default = "migration")]
    pub label: String,
    /// Its direction.
    pub direction: ConnectionDirection,
    /// Bytes read from, or made ready for, the hypervisor here.
    pub position: u64,
    /// Bytes known to be verified at the far side (where they enter) or here (where they leave).
    pub verified: u64,
    /// Bytes the receiving hypervisor has taken.
    pub consumed: u64,
    /// Running BLAKE3 at `position`; `null` with digests off.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Whether this direction is over.
    pub ended: bool,
}

fn migration() -> String {
    MIGRATION.to_owned()
}

/// Everything a gateway knows of one session. Counters only grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionRecord {
    /// The session.
    pub session: SessionId,
    /// Its caller's free text.
    pub label: String,
    /// In whose name its caller opened it; empty where none was given.
    #[serde(default)]
    pub tenant: String,
    /// Whether its streams are encrypted. False until there is one, and for ever at a gateway that was started with
    /// `--insecure-plaintext`.
    #[serde(default)]
    pub encrypted: bool,
    /// Who the peer gateway has shown to be; `null` until it has, and without encryption.
    #[serde(default)]
    pub peer_identity: Option<PeerIdentity>,
    /// This gateway's role in it.
    pub role: Role,
    /// Where it stands.
    pub state: SessionState,
    /// Why it ended or is held; `null` while it lives and when it simply finished.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// What the hypervisor's stream is doing.
    pub phase: Phase,
    /// RAM iterations seen, from 1; 0 before the first.
    pub iteration: u64,
    /// When it was announced here.
    pub opened_at: Timestamp,
    /// When it ended; `null` while it lives.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// From announcement to now or its end, in milliseconds.
    pub elapsed_ms: u64,
    /// The peer gateway: dialled (source) or accepted from (destination; `null` until then).
    #[serde(default)]
    pub peer: Option<Endpoint>,
    /// Where the source hypervisor connects; `null` at the destination.
    #[serde(default)]
    pub listen: Option<Endpoint>,
    /// Where the destination hypervisor listens; `null` at the source.
    #[serde(default)]
    pub connect: Option<Endpoint>,
    /// Where connections that are not the migration's meet this gateway.
    #[serde(default)]
    pub labelled: Vec<LabelledEndpoint>,
    /// Who may connect as the source's hypervisor; empty: whoever reaches the socket.
    #[serde(default)]
    pub from: Vec<Origin>,
    /// Connections that were turned away, because they came from elsewhere or were too many.
    #[serde(default)]
    pub refused_connections: u64,
    /// Transport connections.
    pub streams: StreamCount,
    /// Bytes carried for the hypervisors, both directions.
    pub guest_bytes: u64,
    /// Bytes of frames that carried them, before transport framing.
    pub encoded_bytes: u64,
    /// Bytes written to streams, everything included.
    pub wire_bytes_sent: u64,
    /// Of them, bytes that were stuck on one stream and left on another as well.
    #[serde(default)]
    pub repeated_bytes: u64,
    /// Bytes read from streams, everything included.
    pub wire_bytes_received: u64,
    /// Pages recognised.
    pub pages: u64,
    /// Of those, pages that were zero.
    pub zero_pages: u64,
    /// The guest's RAM as its stream announced it, in bytes; 0 while unknown.
    pub ram_total_bytes: u64,
    /// Guest bytes a second, lately.
    pub rate_bytes_per_s: u64,
    /// Round trip to the peer, lately, in microseconds; 0 while unknown.
    pub rtt_us: u64,
    /// Bytes allowed between the gateways now.
    pub window_bytes: u64,
    /// Guest bytes by codec.
    pub codec: CodecBytes,
    /// What encoding took.
    #[serde(default)]
    pub codec_times: CodecTimes,
    /// What is remembered of it.
    #[serde(default)]
    pub delta_memory: DeltaMemory,
    /// What the path to the peer is taken for, which sets streams, congestion control, codecs and window; `null`: nothing was
    /// decided.
    #[serde(default)]
    pub mode: Option<PathMode>,
    /// When each mode began, the last 64; the first is the one under which the session began.
    #[serde(default)]
    pub mode_changes: Vec<ModeChange>,
    /// Content that sessions bring each other.
    #[serde(default)]
    pub content: ContentRecord,
    /// Both directions of every connection.
    pub connections: Vec<ConnectionRecord>,
    /// Whether every digest compared so far was equal on both sides; `null` when none was compared.
    #[serde(default)]
    pub digest_equal: Option<bool>,
}
