//! What a mode sets: the one table of it.

use super::Mode;
use crate::limits::{RECEIVE_WINDOW_BYTES, STREAMS_MAX};
use std::ops::RangeInclusive;

/// Ways to carry frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// Remote direct memory access.
    Rdma,
    /// TCP with TLS.
    Tcp,
}

/// How TCP shares the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438): where losses mean queues.
    Cubic,
    /// BBR: where losses mean nothing.
    Bbr,
    /// Whichever does better.
    Adaptive,
}

impl Congestion {
    /// The kernel's name of it, for `TCP_CONGESTION`; `None`: to be chosen.
    pub const fn kernel_name(self) -> Option<&'static str> {
        match self {
            Congestion::Cubic => Some("cubic"),
            Congestion::Bbr => Some("bbr"),
            Congestion::Adaptive => None,
        }
    }
}

/// Between what the codec may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecBounds {
    /// Whether lz4 may be used.
    pub lz4: bool,
    /// zstd's levels; empty: none.
    pub zstd_levels: RangeInclusive<i32>,
}

/// How control daemons of both sites agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consensus {
    /// Raft.
    Raft,
    /// Byzantine fault tolerant.
    Bft,
    /// Whichever fits the sites at hand.
    Adaptive,
}

/// What a mode sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Transports, the preferred one first.
    pub transports: &'static [TransportKind],
    /// Streams between the two gateways.
    pub streams: RangeInclusive<usize>,
    /// Congestion control.
    pub congestion: Congestion,
    /// What the codec may choose.
    pub codec: CodecBounds,
    /// Most guest bytes under way, each connection and direction.
    pub window_bytes_max: u64,
    /// How control daemons agree.
    pub consensus: Consensus,
}

impl Mode {
    /// What this mode sets.
    #[rustfmt::skip]
    pub fn profile(self) -> Profile {
        use TransportKind::{Rdma, Tcp};
        match self {
            // Many streams: a core each. Twice the bandwidth-delay product of 10 Gbit/s over 5 ms, and light codecs, since the
            // processor is what is scarce.
            Mode::Datacenter => Profile {
                transports: &[Rdma, Tcp],
                streams: 32..=512,
                congestion: Congestion::Cubic,
                codec: CodecBounds { lz4: true, zstd_levels: -5..=1 },
                window_bytes_max: RECEIVE_WINDOW_BYTES / 2,
                consensus: Consensus::Raft,
            },
            // The path is what is scarce: as much compression as keeps up with it.
            Mode::Internet => Profile {
                transports: &[Tcp],
                streams: 4..=16,
                congestion: Congestion::Bbr,
                codec: CodecBounds { lz4: false, zstd_levels: 1..=19 },
                window_bytes_max: RECEIVE_WINDOW_BYTES,
                consensus: Consensus::Bft,
            },
            Mode::Hybrid => Profile {
                transports: &[Rdma, Tcp],
                streams: 4..=512,
                congestion: Congestion::Adaptive,
                codec: CodecBounds { lz4: true, zstd_levels: -5..=19 },
                window_bytes_max: RECEIVE_WINDOW_BYTES,
                consensus: Consensus::Adaptive,
            },
        }
    }
}

const _: () = assert!(STREAMS_MAX >= 512);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{ZSTD_LEVEL_MAX, ZSTD_LEVEL_MIN};

    #[test]
    fn every_profile_is_within_what_there_is() {
        for mode in Mode::ALL {
            let profile = mode.profile();
            assert!(*profile.streams.start() >= 1 && *profile.streams.end() <= STREAMS_MAX, "{mode}");
            assert!(profile.window_bytes_max <= RECEIVE_WINDOW_BYTES, "{mode}");
            assert!(*profile.codec.zstd_levels.start() >= ZSTD_LEVEL_MIN, "{mode}");
            assert!(*profile.codec.zstd_levels.end() <= ZSTD_LEVEL_MAX, "{mode}");
            // TCP is what every transport falls back to.
            assert_eq!(profile.transports.last(), Some(&TransportKind::Tcp), "{mode}");
            assert_eq!(Mode::named(mode.name()), Some(mode));
        }
    }
}
