//! `path.*`: what is known of the network paths to peer gateways, and the mode that follows.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::peers::PeerIdentity;
use crate::timestamp::Timestamp;

/// A number and the interval that holds the truth 95 times of 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Interval {
    /// The most likely value.
    pub value: u64,
    /// Lower end.
    pub low: u64,
    /// Upper end.
    pub high: u64,
}

/// What a gateway takes a path for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PathMode {
    /// Near and fast.
    Datacenter,
    /// Far or slow.
    Internet,
    /// Between, or not known.
    Hybrid,
}

/// Parameters of `path.probe`, answered with [`PathRecord`], samples included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PathRef {
    /// The peer, as the gateway probes it.
    pub peer: SocketAddr,
}

/// Parameters of `path.force`, answered with [`PathRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ForceParams {
    /// The peer.
    pub peer: SocketAddr,
    /// The mode from now on, whatever is measured; `null`: what is measured.
    pub mode: Option<PathMode>,
}

/// Result of `path.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PathList {
    /// Paths that are probed; their samples are left out.
    pub paths: Vec<PathRecord>,
    /// Who answers the peers' probes; `null`: nobody, this gateway was not told to.
    pub responder: Option<ResponderRecord>,
}

/// A path to a peer. What is `null` is not measured yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PathRecord {
    /// The peer.
    pub peer: SocketAddr,
    /// Who it has shown to be, on the stream that the two probe under; `null`: it is known by a shared secret.
    #[serde(default)]
    pub identity: Option<PeerIdentity>,
    /// What the path is taken for; `null` before the first decision.
    pub mode: Option<PathMode>,
    /// Why: `measured`, `sharp_change`, `unknown`, `override`.
    pub mode_why: Option<String>,
    /// When each mode began, the last 64.
    pub mode_changes: Vec<ModeChange>,
    /// What the mode would have sessions do.
    pub profile: Option<PathProfile>,
    /// Who stamped the last answer: `userspace`, `xdp_generic`, `xdp_driver`.
    pub measured_by: Option<String>,
    /// Probes within the last minute that were answered or are given up.
    pub probes: u64,
    /// Of those, answered ones.
    pub answers: u64,
    /// Smallest round trip, nanoseconds.
    pub rtt_min_ns: Option<Interval>,
    /// Median round trip, nanoseconds.
    pub rtt_median_ns: Option<Interval>,
    /// 99 % of round trips are below, nanoseconds.
    pub rtt_p99_ns: Option<Interval>,
    /// Mean difference of consecutive round trips, nanoseconds.
    pub jitter_ns: Option<Interval>,
    /// Lost on the way to the peer, of a million.
    pub loss_forward_ppm: Option<Interval>,
    /// Lost on the way back, of a million.
    pub loss_return_ppm: Option<Interval>,
    /// Overtaken on the way to the peer, of a million.
    pub reordering_ppm: Option<Interval>,
    /// To the peer, bits a second, whole Ethernet frames counted.
    pub bandwidth_bits_per_s: Option<Interval>,
    /// The path may have more bandwidth than this side could ask for.
    pub bandwidth_is_floor: bool,
    /// Bytes that probing took of the path to the peer so far.
    pub wire_bytes: u64,
    /// One a second, the last hour's; for models to learn from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<PathSample>,
}

/// A mode began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModeChange {
    /// When.
    pub at: Timestamp,
    /// The one before; `null`: the first.
    pub from: Option<PathMode>,
    /// The one from then on.
    pub to: PathMode,
    /// Why.
    pub why: String,
}

/// A second of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PathSample {
    /// When.
    pub at: Timestamp,
    /// Median round trip of that second, nanoseconds; `null`: too few answers.
    pub rtt_ns: Option<u64>,
    /// Bits a second to the peer.
    pub bandwidth_bits_per_s: Option<u64>,
    /// Lost on the way to the peer within the last minute, of a million.
    pub loss_forward_ppm: Option<u64>,
}

/// What a mode sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PathProfile {
    /// Transports, the preferred one first.
    pub transports: Vec<String>,
    /// Fewest streams.
    pub streams_min: u64,
    /// Most streams.
    pub streams_max: u64,
    /// Congestion control: `cubic`, `bbr`, `adaptive`.
    pub congestion: String,
    /// Whether lz4 may be used.
    pub lz4: bool,
    /// Weakest zstd level.
    pub zstd_level_min: i32,
    /// Strongest zstd level.
    pub zstd_level_max: i32,
    /// Most guest bytes under way, each connection and direction.
    pub window_bytes_max: u64,
    /// How control daemons agree: `raft`, `bft`, `adaptive`.
    pub consensus: String,
}

/// Who answers peers' probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ResponderRecord {
    /// Where.
    pub listen: SocketAddr,
    /// `xdp_driver`, `xdp_generic` or `userspace`.
    pub by: String,
    /// The interface that the kernel's program is attached to.
    pub interface: Option<String>,
    /// What cannot be done, and why, in sentences.
    pub limits: Vec<String>,
    /// What became of probes, by outcome: `answered`, `bad_cookie`, `unknown_peer`, ...
    pub counts: std::collections::BTreeMap<String, u64>,
}
