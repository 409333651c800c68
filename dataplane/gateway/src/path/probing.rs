//! Probing the paths to peers, on one thread.

use super::pairs::{Agreed, News, Pairs};
use super::{Begin, Known, Modes, Paths, epoch, record};
use crate::clock;
use crate::limits::{
    MODE_CHANGES_MAX, PAIR_FIRST_PROBE, PATH_FORGOTTEN, PATH_SAMPLES_MAX, PATHS_MAX, PROBE_LOOK_INTERVAL,
    PROBE_SENDS_MAX,
};
use crate::registry::Registry;
use novacron_control_api::{Endpoint, ModeChange, PathRecord, PathSample, PeerIdentity, Timestamp};
use novacron_protocol::mode::{Change, Detector, Mode};
use novacron_protocol::probe::key::Side;
use novacron_protocol::probe::prober::{Estimates, Prober};
use novacron_protocol::time::Instant;
use novacron_transport::shard::Shutdown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// How often a sample is kept, and sessions are asked what they move.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A path as it is probed.
pub(super) struct Probed {
    address: SocketAddr,
    /// Who the peer has shown to be, where its streams told of it.
    identity: Option<PeerIdentity>,
    /// When it last answered.
    answered_at: Instant,
    prober: Prober,
    detector: Detector,
    estimates: Estimates,
    changes: VecDeque<ModeChange>,
    samples: VecDeque<PathSample>,
    looked: Instant,
    sampled: Instant,
    /// Where sessions learn of the mode.
    modes: Arc<Modes>,
}

impl Probed {
    pub(super) fn new(known: &Known, begin: Begin, modes: &Arc<Modes>) -> Self {
        let now = clock::now();
        // Above all that an earlier run used.
        let first = Timestamp::now().unix_ms().saturating_mul(1_000);
        let mut probed = Probed {
            address: known.address,
            identity: known.identity.clone(),
            answered_at: now,
            prober: Prober::new(known.secret.clone(), known.side, first, now),
            detector: Detector::new(begin.thresholds, None, now),
            estimates: Estimates::default(),
            changes: VecDeque::new(),
            samples: VecDeque::new(),
            looked: now,
            sampled: now,
            modes: Arc::clone(modes),
        };
        if begin.forced.is_some() {
            probed.force(begin.forced);
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
        let identity = self.identity.clone();
        let mut record = record::of(self.address, &self.estimates, &self.detector, self.prober.wire_bytes());
        record.identity = identity;
        record.mode_changes = self.changes.iter().cloned().collect();
        if with_samples {
            record.samples = self.samples.iter().cloned().collect();
        }
        record
    }

    fn note(&mut self, change: Option<Change>) {
        let Some(change) = change else { return };
        self.modes.set(self.address.ip(), change);
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
        if self.detector.asks_anew() {
            tracing::info!(peer = %self.address, "the path changed sharply, and is measured anew");
            self.prober.anew(now);
        }
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

/// Peers that are found while the gateway runs.
pub(super) struct Found<'a> {
    pub(super) pairs: &'a Pairs,
    pub(super) modes: &'a Arc<Modes>,
    pub(super) begin: Begin,
}

impl Found<'_> {
    /// Takes what streams told of peers, and forgets those that were silent for long.
    fn follow(&self, probed: &mut Vec<Probed>) {
        let now = clock::now();
        for news in self.pairs.for_probes() {
            match news {
                News::Agreed(agreed) => self.agreed(agreed, probed, now),
                News::Forgotten(peer) => {
                    probed.retain(|path| path.identity.is_none() || path.address.ip() != peer);
                }
            }
        }
        probed.retain(|path| {
            let silent = now.since(path.answered_at) > PATH_FORGOTTEN && path.identity.is_some();
            if silent {
                tracing::info!(peer = %path.address, "a peer that has not answered for long is not probed any more");
                self.pairs.forget(path.address.ip());
            }
            !silent
        });
    }

    fn agreed(&self, agreed: Agreed, probed: &mut Vec<Probed>, now: Instant) {
        // The dialler hears of it by half a round trip later.
        let waits = if agreed.side == Side::Dialler { PAIR_FIRST_PROBE } else { 2 * PAIR_FIRST_PROBE };
        let after = now.after(waits);
        let Agreed { address, secret, side, peer } = agreed;
        // What an operator configured stays as it is; a peer that came back with another port is another path.
        probed.retain(|path| {
            path.identity.is_none() || path.address.ip() != address.ip() || path.address == address
        });
        if let Some(path) = probed.iter_mut().find(|path| path.address == address) {
            if path.identity.is_some() {
                (path.identity, path.answered_at) = (Some(peer), now);
                path.prober.rekey(secret, side, after);
            }
        } else if probed.len() < PATHS_MAX {
            tracing::info!(%peer, %address, "the path to a peer is probed");
            let known = Known { address, secret: secret.clone(), side, identity: Some(peer) };
            let mut path = Probed::new(&known, self.begin, self.modes);
            path.prober.rekey(secret, side, after);
            probed.push(path);
        }
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
pub(super) fn run(
    socket: &UdpSocket,
    paths: &Paths,
    registry: &Registry,
    found: &Found<'_>,
    ending: &Shutdown,
) {
    if let Err(error) = socket.set_nonblocking(true) {
        tracing::error!(%error, "paths are not probed; their mode stays `hybrid`, and migrations go on");
        return;
    }
    let mut moved = Moved::default();
    while !ending.is_requested() {
        let next = step(socket, paths, registry, found, &mut moved);
        if let Some(wait) = next.checked_sub(Duration::from_nanos(clock::now().as_nanos())) {
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.min(PROBE_LOOK_INTERVAL).subsec_nanos().into() };
            // A signal that interrupts it is looked at in the loop's head.
            let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait));
        }
    }
}

/// Sends what is due, takes what has come; returns when there is more to do, since the clock's start.
fn step(
    socket: &UdpSocket,
    paths: &Paths,
    registry: &Registry,
    found: &Found<'_>,
    moved: &mut Moved,
) -> Duration {
    let epoch = epoch();
    let mut state = paths.state();
    found.follow(&mut state.probed);
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
        let probed = state.probed.iter_mut().find(|probed| probed.address == from);
        if let Some(probed) = probed
            && probed.prober.received(&datagram[..length], now)
        {
            probed.answered_at = now;
        }
    }
    let now = clock::now();
    if let Some(modes) = &paths.modes {
        modes.tell();
    }
    for probed in &mut state.probed {
        if now.since(probed.looked) >= PROBE_LOOK_INTERVAL
            && probed.identity.is_some()
            && probed.prober.is_answered(now)
        {
            found.pairs.is_heard(probed.address.ip());
        }
        probed.look(now, moved, registry);
        next = next.min(Duration::from_nanos(probed.prober.next().as_nanos()));
    }
    if state.probed.is_empty() { Duration::from_nanos(now.as_nanos()) + PROBE_LOOK_INTERVAL } else { next }
}
