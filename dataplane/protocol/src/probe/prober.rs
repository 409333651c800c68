//! What is asked of a path, when, and what the answers say. Holds no socket and no clock.
//!
//! Single probes, evenly spaced, give round trip, jitter and loss; now and then a few follow up on answers, and give the least
//! round trip (`follow_up`); trains of full-sized ones give bandwidth and reordering. All together cost the path at most a
//! hundredth of what it was measured to have (DWCP-98).

use super::estimate::{Estimate, design_effect, mean, minimum, quantile, share};
use super::follow_up::{FOLLOW_UP, FollowUps};
use super::key::{Keys, Secret, Side, keys, tag};
use super::packet::{HEADER_BYTES, Header, Kind, MeasuredBy, is_authentic};
use super::train::{Dispersion, Train, WIRE_OVERHEAD_BYTES};
use crate::limits::{
    FOLLOW_UPS, FOLLOW_UPS_EVERY, PROBE_ANSWER_WAIT, PROBE_BYTES_MAX, PROBE_SAMPLES_MAX, SINGLE_INTERVAL,
    TRAIN_ANSWER_WAIT, TRAIN_PROBES_A_SECOND, TRAIN_PROBES_MAX, TRAIN_PROBES_MIN, TRAIN_RESULTS_MAX,
    TRAIN_SPAN,
};
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Trains that are sent before the budget holds, so that there is a decision within two seconds.
const TRAINS_AT_FIRST: u32 = 4;

/// Their spacing.
const TRAINS_AT_FIRST_INTERVAL: Duration = Duration::from_millis(250);

/// How long what sessions move says how the path is now.
const ACHIEVED_LAST: Duration = Duration::from_secs(2);

/// How much of the path probes may take.
const SHARE_OF_PATH: f64 = 0.01;

/// A single probe that was sent.
#[derive(Clone, Copy, Debug)]
struct Single {
    sequence: u64,
    sent: Instant,
    /// Round trip in nanoseconds and the responder's count, once answered.
    answered: Option<(u64, u64)>,
}

/// What is known of a path. Times in nanoseconds, shares from 0 to 1, `None`: not measured yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimates {
    /// Smallest round trip.
    pub rtt_min_ns: Option<Estimate>,
    /// Median round trip.
    pub rtt_median_ns: Option<Estimate>,
    /// 99 % of round trips are below.
    pub rtt_p99_ns: Option<Estimate>,
    /// Mean difference of consecutive round trips.
    pub jitter_ns: Option<Estimate>,
    /// Probes lost on the way there.
    pub loss_forward: Option<Estimate>,
    /// Answers lost on the way back.
    pub loss_return: Option<Estimate>,
    /// Probes of trains that a later one overtook.
    pub reordering: Option<Estimate>,
    /// Bits a second, whole Ethernet frames counted, from this side to the other.
    pub bandwidth_bits_per_s: Option<Estimate>,
    /// No train was spread by the path: it has at least that bandwidth.
    pub bandwidth_is_floor: bool,
    /// Who stamped the last answer.
    pub measured_by: MeasuredBy,
    /// Single probes within the window.
    pub probes: u64,
    /// Answers to them.
    pub answers: u64,
}

/// What the mode is decided by: the last second's round trip; the last trains' bandwidth, or what sessions move.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    /// Median round trip in nanoseconds.
    pub rtt_ns: Option<f64>,
    /// Bits a second.
    pub bandwidth_bits_per_s: Option<f64>,
}

/// Probes one path.
#[derive(Clone, Debug)]
pub struct Prober {
    secret: Secret,
    side: Side,
    tag: u64,
    sequence: u64,
    epoch: u32,
    keys: Keys,
    singles: VecDeque<Single>,
    next_single: Instant,
    follow_ups: FollowUps,
    train: Option<(Train, u16)>,
    trains: u32,
    /// Ended trains, with when they did.
    results: VecDeque<(Instant, Dispersion)>,
    next_train: Instant,
    train_sent: Instant,
    measured_by: MeasuredBy,
    /// The most that sessions were seen to move, in bits a second, and when.
    achieved: Option<(Instant, f64)>,
    /// What they were seen to move when they were last looked at.
    achieved_last: Option<(Instant, f64)>,
    /// Trains that are still sent without regard to the budget.
    at_first: u32,
    wire_bytes: u64,
}

impl Prober {
    /// A prober under a secret. `first_sequence` has to be above every one that was ever used under it: the time of day in
    /// microseconds is.
    pub fn new(secret: Secret, side: Side, first_sequence: u64, now: Instant) -> Self {
        Prober {
            tag: tag(&secret, side),
            secret,
            side,
            sequence: first_sequence,
            epoch: 0,
            keys: Keys::default(),
            singles: VecDeque::new(),
            next_single: now,
            follow_ups: FollowUps::default(),
            train: None,
            trains: 0,
            results: VecDeque::new(),
            next_train: now.after(Duration::from_millis(50)),
            train_sent: now,
            measured_by: MeasuredBy::Nobody,
            achieved: None,
            achieved_last: None,
            at_first: TRAINS_AT_FIRST,
            wire_bytes: 0,
        }
    }

    /// When [`Prober::poll`] has something to do.
    pub fn next(&self) -> Instant {
        match &self.train {
            Some((_, left)) if *left > 0 => Instant::START,
            _ if self.follow_ups.is_due() => Instant::START,
            // There is one train at a time: the next waits for the answers to this one.
            Some(_) => self.next_single.min(self.train_sent.after(TRAIN_ANSWER_WAIT)),
            None => self.next_single.min(self.next_train),
        }
    }

    /// The next datagram to send now, if any; `epoch` is the present one. Call it until there is none.
    pub fn poll(&mut self, now: Instant, epoch: u32) -> Option<Vec<u8>> {
        if epoch != self.epoch {
            (self.epoch, self.keys) = (epoch, keys(&self.secret, self.side, epoch));
        }
        self.end_train(now);
        if self.train.is_none() && now >= self.next_train {
            self.begin_train(now);
        }
        if let Some((train, left)) = self.train.as_mut().filter(|(_, left)| *left > 0) {
            *left -= 1;
            train.sent(now.as_nanos());
            let id = train.id;
            self.train_sent = now;
            return Some(self.datagram(now, id, PROBE_BYTES_MAX).1);
        }
        if self.follow_ups.is_due() {
            let (sequence, datagram) = self.datagram(now, FOLLOW_UP, HEADER_BYTES);
            self.follow_ups.sent(sequence, now);
            return Some(datagram);
        }
        if now < self.next_single {
            return None;
        }
        // Late is late: what was missed is not made up for.
        self.next_single = now.max(self.next_single.after(self.single_interval()));
        if self.next_single == now {
            self.next_single = now.after(self.single_interval());
        }
        let (sequence, datagram) = self.datagram(now, 0, HEADER_BYTES);
        if self.singles.len() >= PROBE_SAMPLES_MAX {
            self.singles.pop_front();
        }
        self.singles.push_back(Single { sequence, sent: now, answered: None });
        Some(datagram)
    }

    fn datagram(&mut self, now: Instant, train: u32, bytes: usize) -> (u64, Vec<u8>) {
        let sequence = self.sequence;
        self.sequence += 1;
        let header = Header {
            kind: Kind::Probe,
            measured_by: MeasuredBy::Nobody,
            // Within `u16`: the longest is 1472 bytes.
            length: bytes as u16,
            tag: self.tag,
            epoch: self.epoch,
            train,
            sequence,
            sent_ns: now.as_nanos(),
            received_ns: 0,
            heard: 0,
        };
        let mut datagram = header.write(self.keys.probe).to_vec();
        datagram.resize(bytes, 0);
        self.wire_bytes += (bytes + WIRE_OVERHEAD_BYTES) as u64;
        (sequence, datagram)
    }

    /// Takes what came; returns whether it was an answer to what was asked (DWCP-99).
    pub fn received(&mut self, datagram: &[u8], now: Instant) -> bool {
        let answer = Header::read(datagram)
            .filter(|answer| datagram.len() == HEADER_BYTES && answer.kind == Kind::Answer)
            .filter(|answer| answer.tag == self.tag && answer.measured_by != MeasuredBy::Nobody);
        let Some(answer) = answer else { return false };
        // Answers to what was sent before the epoch changed have the keys of that one.
        let key = match answer.epoch {
            epoch if epoch == self.epoch => self.keys.answer,
            epoch if epoch.abs_diff(self.epoch) == 1 => keys(&self.secret, self.side, epoch).answer,
            _ => return false,
        };
        if !is_authentic(key, datagram) {
            return false;
        }
        if answer.train == FOLLOW_UP {
            if !self.follow_ups.answered(answer.sequence, now) {
                return false;
            }
            self.measured_by = answer.measured_by;
            return true;
        }
        if answer.train != 0 {
            let Some((train, _)) = self.train.as_mut().filter(|(train, _)| train.id == answer.train) else {
                return false;
            };
            train.arrived(answer.sequence, answer.received_ns);
            self.measured_by = answer.measured_by;
            self.end_train(now);
            return true;
        }
        let Ok(at) = self.singles.binary_search_by_key(&answer.sequence, |single| single.sequence) else {
            return false;
        };
        let single = &mut self.singles[at];
        if single.answered.is_some() {
            return false;
        }
        let rtt_ns = u64::try_from(now.since(single.sent).as_nanos()).unwrap_or(u64::MAX);
        single.answered = Some((rtt_ns, answer.heard));
        self.follow_ups.single_answered();
        self.measured_by = answer.measured_by;
        true
    }

    /// What sessions moved to the peer lately, in bits a second: what they did, the path has.
    pub fn achieved(&mut self, bits_per_s: f64, now: Instant) {
        self.achieved_last = Some((now, bits_per_s));
        let before = self.achieved.filter(|(at, _)| now.since(*at) < crate::limits::PROBE_WINDOW);
        self.achieved = match before {
            Some((at, most)) if most > bits_per_s => Some((at, most)),
            _ => Some((now, bits_per_s)),
        };
    }

    /// It probes under another secret from `after` on. What is known of the path stays; what is under way is given up, since nobody
    /// will answer it any more.
    pub fn rekey(&mut self, secret: Secret, side: Side, after: Instant) {
        (self.tag, self.secret, self.side) = (tag(&secret, side), secret, side);
        // The keys are made by the next `poll`.
        (self.epoch, self.keys, self.train) = (0, Keys::default(), None);
        self.follow_ups.give_up();
        self.singles
            .retain(|single| single.answered.is_some() || after.since(single.sent) > PROBE_ANSWER_WAIT);
        self.next_single = self.next_single.max(after);
        self.next_train = self.next_train.max(after);
    }

    /// Whether an answer came lately, or none could have come yet.
    pub fn is_answered(&self, now: Instant) -> bool {
        let lately =
            || self.singles.iter().rev().take_while(|single| now.since(single.sent) < 2 * PROBE_ANSWER_WAIT);
        lately().any(|single| single.answered.is_some())
            || lately().all(|single| now.since(single.sent) <= PROBE_ANSWER_WAIT)
    }

    /// The path is another one than before: what is known of its bandwidth is forgotten, and it is measured as at first. Round trips
    /// are of the last second, and losses of the last minute, in any case.
    pub fn anew(&mut self, now: Instant) {
        self.results.clear();
        (self.achieved, self.achieved_last, self.train) = (None, None, None);
        (self.at_first, self.next_train) = (TRAINS_AT_FIRST, now);
    }

    /// Bytes that probes took of the path to the peer, whole Ethernet frames counted.
    pub fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    fn begin_train(&mut self, now: Instant) {
        let probes = match self.recent_bandwidth(3) {
            None => 64,
            Some(bits_per_s) => (bits_per_s * TRAIN_SPAN.as_secs_f64() / train_probe_bits()) as u16,
        };
        let probes = probes.clamp(TRAIN_PROBES_MIN, TRAIN_PROBES_MAX);
        // Neither a single one's number nor a follow-up's.
        self.trains = self.trains % (FOLLOW_UP - 1) + 1;
        // Whatever is sent now waits behind it.
        self.follow_ups.give_up();
        self.at_first = self.at_first.saturating_sub(1);
        let train = Train::new(self.trains, self.sequence, probes, PROBE_BYTES_MAX);
        self.train = Some((train, probes));
        self.next_train = now.after(self.train_interval(probes));
        // What a full queue costs the single ones, probing did itself.
        self.next_single = self.next_single.max(now.after(2 * TRAIN_SPAN));
    }

    fn end_train(&mut self, now: Instant) {
        let ended = self.train.as_ref().is_some_and(|(train, left)| {
            *left == 0 && (train.is_complete() || now.since(self.train_sent) >= TRAIN_ANSWER_WAIT)
        });
        let Some((train, _)) = self.train.take_if(|_| ended) else { return };
        if let Some(dispersion) = train.dispersion() {
            if self.results.len() >= TRAIN_RESULTS_MAX {
                self.results.pop_front();
            }
            self.results.push_back((now, dispersion));
        }
    }

    /// How long a train of so many has to last the path.
    fn train_interval(&self, probes: u16) -> Duration {
        if self.at_first > 0 {
            return TRAINS_AT_FIRST_INTERVAL;
        }
        let by_processor = f64::from(probes) / TRAIN_PROBES_A_SECOND;
        // Half of the share is for trains.
        let bandwidth = self.recent_bandwidth(3).unwrap_or(50e6);
        let by_path = f64::from(probes) * train_probe_bits() / (bandwidth * SHARE_OF_PATH / 2.0);
        Duration::from_secs_f64(by_processor.max(by_path).clamp(0.5, 60.0))
    }

    fn single_interval(&self) -> Duration {
        // The other half, on paths that are slow enough for that to matter; what follows up on them is a part of it.
        let follow_ups = f64::from(FOLLOW_UPS) / f64::from(FOLLOW_UPS_EVERY);
        let bits = ((HEADER_BYTES + WIRE_OVERHEAD_BYTES) * 8) as f64 * (1.0 + follow_ups);
        let by_path =
            self.recent_bandwidth(3).map_or(0.0, |bandwidth| bits / (bandwidth * SHARE_OF_PATH / 2.0));
        SINGLE_INTERVAL.max(Duration::from_secs_f64(by_path.min(10.0)))
    }

    /// Median of the last few trains. One that only says "at least" counts if it is above.
    fn recent_bandwidth(&self, trains: usize) -> Option<f64> {
        let mut rates: Vec<f64> =
            self.results.iter().rev().take(trains).map(|(_, said)| said.bits_per_s).collect();
        rates.sort_unstable_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }

    /// What the mode is decided by. Where nothing came back for a while there is nothing recent.
    pub fn recent(&self, now: Instant) -> Recent {
        let since = Duration::from_secs(1);
        let lately = self.singles.iter().rev().take_while(|single| now.since(single.sent) < since);
        let mut rtts: Vec<u64> = lately.filter_map(|single| Some(single.answered?.0)).collect();
        rtts.sort_unstable();
        let rtt_ns = (rtts.len() >= 5).then(|| rtts[rtts.len() / 2] as f64);
        // Trains see what sessions leave of a path that they fill; what those move is known.
        let moved = self.achieved_last.filter(|(at, _)| now.since(*at) < ACHIEVED_LAST);
        let trains = self.recent_bandwidth(3);
        let bandwidth_bits_per_s = trains.map(|trains| moved.map_or(trains, |(_, moved)| moved.max(trains)));
        Recent { rtt_ns, bandwidth_bits_per_s }
    }

    /// What is known of the path.
    pub fn estimates(&self, now: Instant) -> Estimates {
        let window = crate::limits::PROBE_WINDOW;
        let within: Vec<&Single> = self
            .singles
            .iter()
            .filter(|single| now.since(single.sent) < window)
            // What may still be answered counts only once it is.
            .filter(|single| single.answered.is_some() || now.since(single.sent) > PROBE_ANSWER_WAIT)
            .collect();
        let rtts: Vec<u64> = within.iter().filter_map(|single| Some(single.answered?.0)).collect();
        let jitter = mean(rtts.windows(2).map(|pair| pair[0].abs_diff(pair[1]) as f64));
        let mut ascending = rtts;
        ascending.sort_unstable();
        let (loss_forward, loss_return) = losses(&within);
        let results: Vec<&Dispersion> =
            self.results.iter().filter(|(at, _)| now.since(*at) < window).map(|(_, result)| result).collect();
        let (arrived, reordered) = results
            .iter()
            .fold((0, 0), |(arrived, reordered), said| (arrived + said.arrived, reordered + said.reordered));
        let mut rates: Vec<u64> = results.iter().map(|said| said.bits_per_s as u64).collect();
        rates.sort_unstable();
        let mut bandwidth = quantile(&rates, 0.5);
        let mut is_floor = !results.is_empty() && results.iter().all(|said| said.is_floor);
        if let (Some(bandwidth), Some((at, achieved))) = (&mut bandwidth, self.achieved)
            && now.since(at) < window
        {
            bandwidth.low = bandwidth.low.max(achieved);
            bandwidth.high = bandwidth.high.max(achieved);
            if achieved > bandwidth.value {
                (bandwidth.value, is_floor) = (achieved, true);
            }
        }
        Estimates {
            rtt_min_ns: minimum(&least_two(&ascending, self.follow_ups.since(now, window))),
            rtt_median_ns: quantile(&ascending, 0.5),
            rtt_p99_ns: quantile(&ascending, 0.99).filter(|_| ascending.len() >= 100),
            jitter_ns: jitter,
            loss_forward,
            loss_return,
            // Neighbours are overtaken together.
            reordering: share(reordered, arrived, 2.0),
            bandwidth_bits_per_s: bandwidth,
            bandwidth_is_floor: is_floor,
            measured_by: self.measured_by,
            probes: within.len() as u64,
            answers: ascending.len() as u64,
        }
    }
}

/// The two smallest round trips of both kinds, ascending.
fn least_two(ascending: &[u64], follow_ups: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut least: Vec<u64> = ascending.iter().take(2).copied().chain(follow_ups).collect();
    least.sort_unstable();
    least.truncate(2);
    least
}

fn train_probe_bits() -> f64 {
    ((PROBE_BYTES_MAX + WIRE_OVERHEAD_BYTES) * 8) as f64
}

/// Loss there and back. The responder counts what it heard: between two answers that says how many of the missing did not
/// arrive; the rest were answered in vain. What lies outside the first and last answer is lost on neither way for certain, and
/// counts as lost on the way there.
fn losses(singles: &[&Single]) -> (Option<Estimate>, Option<Estimate>) {
    let sent = singles.len() as u64;
    let missing = singles.iter().filter(|single| single.answered.is_none()).count() as u64;
    let mut in_vain = 0;
    let mut before: Option<(usize, u64)> = None;
    for (at, single) in singles.iter().enumerate() {
        let Some((_, heard)) = single.answered else { continue };
        if let Some((last, heard_before)) = before {
            let between = (at - last - 1) as u64;
            // A responder that started anew has forgotten its count.
            in_vain += heard.saturating_sub(heard_before).saturating_sub(1).min(between);
        }
        before = Some((at, heard));
    }
    let effect = design_effect(singles.iter().map(|single| single.answered.is_none()));
    let arrived = sent - (missing - in_vain);
    (share(missing - in_vain, sent, effect), share(in_vain, arrived, effect))
}
