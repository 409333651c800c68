//! What is known of a path, in the words of the control socket.

use novacron_control_api::{Interval, PathMode, PathProfile, PathRecord};
use novacron_protocol::mode::{Congestion, Consensus, Detector, Mode, TransportKind};
use novacron_protocol::probe::estimate::Estimate;
use novacron_protocol::probe::packet::MeasuredBy;
use novacron_protocol::probe::prober::Estimates;
use std::net::SocketAddr;

pub(super) fn api_mode(mode: Mode) -> PathMode {
    match mode {
        Mode::Datacenter => PathMode::Datacenter,
        Mode::Internet => PathMode::Internet,
        Mode::Hybrid => PathMode::Hybrid,
    }
}

pub(super) fn core_mode(mode: PathMode) -> Mode {
    match mode {
        PathMode::Datacenter => Mode::Datacenter,
        PathMode::Internet => Mode::Internet,
        PathMode::Hybrid => Mode::Hybrid,
    }
}

fn interval(estimate: Option<Estimate>) -> Option<Interval> {
    // Casts saturate, and these are far from where that matters.
    estimate.map(|said| Interval {
        value: said.value.round() as u64,
        low: said.low.floor() as u64,
        high: said.high.ceil() as u64,
    })
}

fn ppm(estimate: Option<Estimate>) -> Option<Interval> {
    interval(estimate.map(|said| said.scaled(1e6)))
}

/// The record of a path, but for changes and samples.
pub(super) fn of(peer: SocketAddr, said: &Estimates, detector: &Detector, wire_bytes: u64) -> PathRecord {
    let measured_by = match said.measured_by {
        MeasuredBy::Nobody => None,
        MeasuredBy::Userspace => Some("userspace"),
        MeasuredBy::XdpGeneric => Some("xdp_generic"),
        MeasuredBy::XdpDriver => Some("xdp_driver"),
    };
    PathRecord {
        peer,
        identity: None,
        mode: detector.mode().map(api_mode),
        mode_why: detector.why().map(|why| why.name().to_owned()),
        mode_changes: Vec::new(),
        profile: detector.mode().map(profile),
        measured_by: measured_by.map(str::to_owned),
        probes: said.probes,
        answers: said.answers,
        rtt_min_ns: interval(said.rtt_min_ns),
        rtt_median_ns: interval(said.rtt_median_ns),
        rtt_p99_ns: interval(said.rtt_p99_ns),
        jitter_ns: interval(said.jitter_ns),
        loss_forward_ppm: ppm(said.loss_forward),
        loss_return_ppm: ppm(said.loss_return),
        reordering_ppm: ppm(said.reordering),
        bandwidth_bits_per_s: interval(said.bandwidth_bits_per_s),
        bandwidth_is_floor: said.bandwidth_is_floor,
        wire_bytes,
        samples: Vec::new(),
    }
}

fn profile(mode: Mode) -> PathProfile {
    let profile = mode.profile();
    let transport = |kind: &TransportKind| match kind {
        TransportKind::Rdma => "rdma".to_owned(),
        TransportKind::Tcp => "tcp".to_owned(),
    };
    let congestion = match profile.congestion {
        Congestion::Cubic => "cubic",
        Congestion::Bbr => "bbr",
        Congestion::Adaptive => "adaptive",
    };
    let consensus = match profile.consensus {
        Consensus::Raft => "raft",
        Consensus::Bft => "bft",
        Consensus::Adaptive => "adaptive",
    };
    PathProfile {
        transports: profile.transports.iter().map(transport).collect(),
        streams_min: *profile.streams.start() as u64,
        streams_max: *profile.streams.end() as u64,
        congestion: congestion.to_owned(),
        lz4: profile.codec.lz4,
        zstd_level_min: *profile.codec.zstd_levels.start(),
        zstd_level_max: *profile.codec.zstd_levels.end(),
        window_bytes_max: profile.window_bytes_max,
        consensus: consensus.to_owned(),
    }
}
