//! Probing the paths to peers, on one thread.

use super::{Known, Paths, epoch, record};
use crate::clock;
use crate::limits::{MODE_CHANGES_MAX, PATH_SAMPLES_MAX, PROBE_LOOK_INTERVAL, PROBE_SENDS_MAX};
use crate::registry::Registry;
use novacron_control_api::{Endpoint, ModeChange, PathRecord, PathSample, Timestamp};
use novacron_protocol::mode::{Change, Detector, Mode, Thresholds};
use novacron_protocol::probe::prober::{Estimates, Prober};
use novacron_protocol::time::Instant;
use novacron_transport::shard::Shutdown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// How often a sample is kept, and sessions are asked what they move.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A path as it is probed.
pub(super) struct Probed {
    address: SocketAddr,
    prober: Prober,
    detector: Detector,
    estimates: Estimates,
    changes: VecDeque<ModeChange>,
    samples: VecDeque<PathSample>,
    looked: Instant,
    sampled: Instant,
}

impl Probed {
    pub(super) fn new(known: &Known, forced: Option<Mode>) -> Self {
        let now = clock::now();
        // Above all that an earlier run used.
        let first = Timestamp::now().unix_ms().saturating_mul(1_000);
        let mut probed = Probed {
            address: known.address,
            prober: Prober::new(known.secret.clone(), known.side, first, now),
            detector: Detector::new(Thresholds::default(), None, now),
            estimates: Estimates::default(),
            changes: VecDeque::new(),
            samples: VecDeque::new(),
            looked: now,
            sampled: now,
        };
        if forced.is_some() {
            probed.force(forced);
        }
        probed
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn force(&mut self, mode: Option<Mode>) {
        let change = self.detector.force(mode);
        self.note(change);
    }

    /// What callers are told.
    pub(super) fn record(&self, with_samples: bool) -> PathRecord {
        let mut record = record::of(self.address, &self.estimates, &self.detector, self.prober.wire_bytes());
        record.mode_changes = self.changes.iter().cloned().collect();
        if with_samples {
            record.samples = self.samples.iter().cloned().collect();
        }
        record
    }

    fn note(&mut self, change: Option<Change>) {
        let Some(change) = change else { return };
        let from = change.from.map_or("none", Mode::name);
        tracing::info!(peer = %self.address, from, to = change.to.name(), why = change.why.name(), "the path's mode");
        if self.changes.len() >= MODE_CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(ModeChange {
            at: Timestamp::now(),
            from: change.from.map(record::api_mode),
            to: record::api_mode(change.to),
            why: change.why.name().to_owned(),
        });
    }

    fn look(&mut self, now: Instant, moved: &mut Moved, registry: &Registry) {
        if now.since(self.looked) < PROBE_LOOK_INTERVAL {
            return;
        }
        self.looked = now;
        let recent = self.prober.recent(now);
        let change = self.detector.observe(now, recent);
        self.note(change);
        if now.since(self.sampled) < SAMPLE_INTERVAL {
            return;
        }
        self.sampled = now;
        if let Some(bits_per_s) = moved.to(self.address, registry, now) {
            self.prober.achieved(bits_per_s, now);
        }
        self.estimates = self.prober.estimates(now);
        if self.samples.len() >= PATH_SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(PathSample {
            at: Timestamp::now(),
            rtt_ns: recent.rtt_ns.map(|ns| ns as u64),
            bandwidth_bits_per_s: recent.bandwidth_bits_per_s.map(|bits| bits as u64),
            loss_forward_ppm: self.estimates.loss_forward.map(|loss| (loss.value * 1e6) as u64),
        });
    }
}

/// What sessions move to peers, by bytes that left for the wire and were not sent in vain for long.
#[derive(Default)]
struct Moved(HashMap<u64, (Instant, u64)>);

impl Moved {
    /// Bits a second that the sessions to a peer's address moved since they were last asked.
    fn to(&mut self, peer: SocketAddr, registry: &Registry, now: Instant) -> Option<f64> {
        let mut bits_per_s = 0.0;
        let sessions = registry.list();
        self.0.retain(|session, _| sessions.iter().any(|record| record.session.0 == *session));
        for record in sessions.iter().filter(|record| !record.state.is_ended()) {
            let Some(Endpoint::Tcp { host, .. }) = &record.peer else { continue };
            if host.parse().ok() != Some(peer.ip()) {
                continue;
            }
            let sent = record.wire_bytes_sent;
            if let Some((at, before)) = self.0.insert(record.session.0, (now, sent)) {
                let seconds = now.since(at).as_secs_f64().max(0.1);
                bits_per_s += sent.saturating_sub(before) as f64 * 8.0 / seconds;
            }
        }
        (bits_per_s > 0.0).then_some(bits_per_s)
    }
}

/// Probes until the gateway ends.
pub(super) fn run(socket: &UdpSocket, paths: &Paths, registry: &Registry, ending: &Shutdown) {
    if let Err(error) = socket.set_nonblocking(true) {
        tracing::error!(%error, "paths are not probed; their mode stays `hybrid`, and migrations go on");
        return;
    }
    let mut moved = Moved::default();
    while !ending.is_requested() {
        let next = step(socket, paths, registry, &mut moved);
        if let Some(wait) = next.checked_sub(Duration::from_nanos(clock::now().as_nanos())) {
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.min(PROBE_LOOK_INTERVAL).subsec_nanos().into() };
            // A signal that interrupts it is looked at in the loop's head.
            let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait));
        }
    }
}

/// Sends what is due, takes what has come; returns when there is more to do, since the clock's start.
fn step(socket: &UdpSocket, paths: &Paths, registry: &Registry, moved: &mut Moved) -> Duration {
    let epoch = epoch();
    let mut state = paths.state();
    let mut next = Duration::MAX;
    for probed in &mut state.probed {
        for _ in 0..PROBE_SENDS_MAX {
            let Some(datagram) = probed.prober.poll(clock::now(), epoch) else { break };
            // What the system does not take is lost, as on the path: it is this side's part of it.
            let _ = socket.send_to(&datagram, probed.address);
        }
    }
    let mut datagram = [0; 128];
    for _ in 0..4 * PROBE_SENDS_MAX {
        // An ICMP error of an unreachable peer comes here as well; its probes stay unanswered.
        let (length, from) = match socket.recv_from(&mut datagram) {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(_) => continue,
        };
        let now = clock::now();
        if let Some(probed) = state.probed.iter_mut().find(|probed| probed.address == from) {
            probed.prober.received(&datagram[..length], now);
        }
    }
    let now = clock::now();
    for probed in &mut state.probed {
        probed.look(now, moved, registry);
        next = next.min(Duration::from_nanos(probed.prober.next().as_nanos()));
    }
    if state.probed.is_empty() { Duration::from_nanos(now.as_nanos()) + PROBE_LOOK_INTERVAL } else { next }
}
