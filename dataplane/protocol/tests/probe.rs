//! Prober and responder over a path that is played: what is answered, what is taken, and that estimates hold the truth.

use novacron_protocol::limits::{PROBE_BURST_NS, PROBE_COST_NS};
use novacron_protocol::probe::key::{Secret, Side, keys, tag};
use novacron_protocol::probe::packet::{Header, Kind, MeasuredBy};
use novacron_protocol::probe::peers::Peers;
use novacron_protocol::probe::prober::Prober;
use novacron_protocol::probe::responder::{Outcome, Responder};
use novacron_protocol::time::Instant;
use std::collections::BTreeMap;

const EPOCH: u32 = 480_000;
const FROM: [u8; 16] = [7; 16];

fn secret() -> Secret {
    Secret::new([9; 32])
}

fn responder() -> Responder {
    let mut peers = Peers::new(EPOCH);
    peers.add(&secret(), Side::Dialler, FROM).unwrap();
    Responder::new(peers, MeasuredBy::Userspace)
}

fn probe(sequence: u64) -> Header {
    Header {
        kind: Kind::Probe,
        measured_by: MeasuredBy::Nobody,
        length: 64,
        tag: tag(&secret(), Side::Dialler),
        epoch: EPOCH,
        train: 0,
        sequence,
        sent_ns: 1,
        received_ns: 0,
        heard: 0,
    }
}

fn key() -> [u64; 2] {
    keys(&secret(), Side::Dialler, EPOCH).probe
}

/// DWCP-93: who is not known, comes from elsewhere, has a wrong code or an epoch that is none gets nothing.
#[test]
fn strangers_and_forgers_get_no_answer() {
    let mut responder = responder();
    let good = probe(1).write(key());
    for (datagram, from, outcome) in [
        (good.to_vec(), [8; 16], Outcome::UnknownPeer),
        (Header { tag: 5, ..probe(1) }.write(key()).to_vec(), FROM, Outcome::UnknownPeer),
        (probe(1).write([1, 2]).to_vec(), FROM, Outcome::BadCookie),
        (Header { epoch: EPOCH + 2, ..probe(1) }.write(key()).to_vec(), FROM, Outcome::BadCookie),
        (good[..63].to_vec(), FROM, Outcome::Truncated),
        (vec![0; 1473], FROM, Outcome::Oversize),
        (vec![0; 64], FROM, Outcome::Malformed),
    ] {
        assert_eq!(responder.answer(&datagram, from, 5), Err(outcome));
        assert!(responder.counts()[outcome as usize] > 0);
    }
    assert!(responder.answer(&good, FROM, 5).is_ok(), "none of it did harm");
}

/// DWCP-95.
#[test]
fn a_sequence_number_is_answered_once() {
    let mut responder = responder();
    for sequence in [5, 4, 900, 2, 3_000, 2_999] {
        let datagram = probe(sequence).write(key());
        assert!(responder.answer(&datagram, FROM, 1).is_ok(), "{sequence}");
        assert_eq!(responder.answer(&datagram, FROM, 1), Err(Outcome::Replayed));
    }
    assert_eq!(responder.answer(&probe(6).write(key()), FROM, 1), Err(Outcome::Replayed), "too old to tell");
}

/// DWCP-96.
#[test]
fn a_rate_holds_and_forgers_do_not_use_it_up() {
    let mut responder = responder();
    for sequence in 0..10_000 {
        assert_eq!(responder.answer(&probe(sequence).write([0, 0]), FROM, 1), Err(Outcome::BadCookie));
    }
    let answered = |responder: &mut Responder, sequences: std::ops::Range<u64>, now| {
        sequences
            .filter(|sequence| responder.answer(&probe(*sequence).write(key()), FROM, now).is_ok())
            .count() as u64
    };
    let burst = PROBE_BURST_NS / PROBE_COST_NS + 1;
    assert_eq!(answered(&mut responder, 0..5_000, 1), burst);
    assert_eq!(answered(&mut responder, 5_000..6_000, 1 + 100 * PROBE_COST_NS), 100);
}

/// A link that is played: rate, delay and loss each way.
struct Path {
    bits_per_s: f64,
    delay_ns: u64,
    loss: (f64, f64),
    /// How much of a loss's chance is left after 20 ms: 0, each is lost by itself.
    bursts: f64,
    /// By how much a probe or an answer is later that finds its receiver asleep: nothing came or left for a millisecond.
    waking_ns: u64,
    /// When the responder and the prober were last awake.
    awake_ns: [u64; 2],
    /// When chance was last asked on each way, and whether it lost then.
    lost: [(u64, bool); 2],
    /// When the link to the responder is free again.
    free_ns: u64,
    random: u64,
}

impl Path {
    /// Whether what is sent at a time on a way is lost: a chain of two states in time, of which one loses all (Gilbert, 1960).
    fn loses(&mut self, way: usize, now_ns: u64) -> bool {
        let share = [self.loss.0, self.loss.1][way];
        let (before_ns, was_lost) = self.lost[way];
        let left = self.bursts.powf(now_ns.saturating_sub(before_ns) as f64 / 20e6);
        let lost = self.chance() < share + (f64::from(u8::from(was_lost)) - share) * left;
        self.lost[way] = (now_ns, lost);
        lost
    }

    /// When what arrives at a time is seen: later where its receiver sleeps.
    fn seen_ns(&mut self, receiver: usize, at_ns: u64) -> u64 {
        let sleeps = at_ns.saturating_sub(self.awake_ns[receiver]) > 1_000_000;
        let seen_ns = at_ns + if sleeps { self.waking_ns } else { 0 };
        self.awake_ns[receiver] = seen_ns;
        seen_ns
    }

    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Plays for `seconds`; returns the prober and the bytes a second that it sent after the first five.
fn play(path: &mut Path, seconds: u64) -> (Prober, f64) {
    let (prober, early_bytes) = play_for(path, seconds * 1_000_000_000);
    let bytes = (prober.wire_bytes() - early_bytes) as f64;
    (prober, bytes / (seconds - 5) as f64)
}

fn play_for(path: &mut Path, until_ns: u64) -> (Prober, u64) {
    let mut responder = responder();
    let mut prober = Prober::new(secret(), Side::Dialler, 1_000_000, Instant::from_nanos(1));
    // Arrivals by time: at the responder, at the prober.
    let mut arrivals: BTreeMap<(u64, u64), (bool, Vec<u8>)> = BTreeMap::new();
    let (mut now_ns, mut order, mut early_bytes) = (1_u64, 0_u64, 0);
    while now_ns < until_ns {
        let now = Instant::from_nanos(now_ns);
        // A datagram each two microseconds, as a program sends them.
        let datagram = prober.poll(now, EPOCH);
        assert!(datagram.is_some() || prober.next() > now, "nothing to send, and asked again at once");
        if let Some(datagram) = datagram {
            order += 1;
            let start = path.free_ns.max(now_ns);
            path.free_ns = start + ((datagram.len() + 42) as f64 * 8e9 / path.bits_per_s) as u64;
            path.awake_ns[1] = now_ns;
            if !path.loses(0, now_ns) {
                arrivals.insert((path.free_ns + path.delay_ns, order), (true, datagram));
            }
            now_ns += 2_000;
        }
        if now_ns < 5_000_000_000 {
            early_bytes = prober.wire_bytes();
        }
        while let Some(entry) = arrivals.first_entry() {
            let (at_ns, order) = *entry.key();
            if at_ns > now_ns {
                break;
            }
            match entry.remove() {
                (true, datagram) => {
                    let seen_ns = path.seen_ns(0, at_ns);
                    if let Ok(answer) = responder.answer(&datagram, FROM, seen_ns)
                        && !path.loses(1, seen_ns)
                    {
                        arrivals.insert((seen_ns + path.delay_ns, order), (false, answer.to_vec()));
                    }
                }
                (false, answer) => {
                    let seen_ns = path.seen_ns(1, at_ns);
                    prober.received(&answer, Instant::from_nanos(seen_ns));
                    now_ns = now_ns.max(seen_ns);
                }
            }
        }
        let next = prober.next().as_nanos();
        let arrival = arrivals.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        if next > now_ns {
            now_ns = next.min(arrival).max(now_ns + 1);
        }
    }
    (prober, early_bytes)
}

fn path(mbit_per_s: f64, rtt_ms: f64, loss: (f64, f64), seed: u64) -> Path {
    Path {
        bits_per_s: mbit_per_s * 1e6,
        delay_ns: (rtt_ms * 5e5) as u64,
        loss,
        bursts: 0.0,
        waking_ns: 0,
        awake_ns: [0; 2],
        lost: [(0, false); 2],
        free_ns: 0,
        random: 0x9e37_79b9_7f4a_7c15 ^ (seed << 20),
    }
}

#[test]
fn round_trip_and_bandwidth_are_found_within_two_seconds() {
    for (mbit_per_s, rtt_ms) in [(50.0, 200.0), (500.0, 20.0), (1_000.0, 5.0), (2_000.0, 0.2), (50.0, 80.0)] {
        let mut path = path(mbit_per_s, rtt_ms, (0.0, 0.0), 1);
        let (prober, _) = play(&mut path, 6);
        let said = prober.estimates(Instant::from_nanos(6_000_000_000));
        let bandwidth = said.bandwidth_bits_per_s.unwrap().value / 1e6;
        assert!((bandwidth / mbit_per_s - 1.0).abs() < 0.05, "{bandwidth} of {mbit_per_s} Mbit/s");
        let rtt = said.rtt_min_ns.unwrap();
        assert!((rtt.value / 1e6 - rtt_ms).abs() < 0.05, "{rtt:?} of {rtt_ms} ms");
        assert!(rtt.low <= rtt.value && !said.bandwidth_is_floor);
        assert_eq!(said.measured_by, MeasuredBy::Userspace);
        assert_eq!(said.loss_forward.unwrap().value, 0.0);
    }
    // On the slowest of them the mode can be decided in time.
    let (prober, _) = play_for(&mut path(50.0, 200.0, (0.0, 0.0), 1), 1_800_000_000);
    let recent = prober.recent(Instant::from_nanos(1_800_000_000));
    assert!(recent.rtt_ns.is_some() && recent.bandwidth_bits_per_s.is_some(), "{recent:?}");
}

/// Of 20 such paths for a minute each, at least 18 intervals hold what is lost there and back.
fn intervals_hold((there, back): (f64, f64), path: impl Fn(u64) -> Path) {
    let mut covered = (0, 0);
    for seed in 1..=20 {
        let (prober, _) = play(&mut path(seed), 60);
        let said = prober.estimates(Instant::from_nanos(60_000_000_000));
        let holds = |estimate: Option<novacron_protocol::probe::estimate::Estimate>, truth: f64| {
            estimate.is_some_and(|said| (said.low..=said.high).contains(&truth))
        };
        covered.0 += u32::from(holds(said.loss_forward, there));
        covered.1 += u32::from(holds(said.loss_return, back));
    }
    assert!(covered.0 >= 18 && covered.1 >= 18, "{there} {back}: {covered:?} of 20");
}

/// Loss each way, told apart, in at least 18 of 20 trials of a minute. Seeds 1 to 20.
#[test]
fn losses_intervals_hold_the_truth_each_way() {
    for (there, back) in [(0.001, 0.0), (0.01, 0.03), (0.05, 0.0)] {
        intervals_hold((there, back), |seed| path(50.0, 20.0, (there, back), seed));
    }
}

/// The same where losses come together, 40 ms and more of them at a time: what is sent because an answer came would meet fewer.
#[test]
fn losses_intervals_hold_the_truth_where_losses_come_in_bursts() {
    for (there, back) in [(0.01, 0.0), (0.05, 0.02)] {
        intervals_hold((there, back), |seed| Path { bursts: 0.5, ..path(50.0, 5.0, (there, back), seed) });
    }
}

/// DWCP-101: a probe every 20 ms finds who answers asleep; one that follows up on an answer does not. Nothing else is told by those.
#[test]
fn the_least_round_trip_is_that_of_processors_that_are_awake() {
    let mut path = Path { waking_ns: 60_000, ..path(2_000.0, 0.2, (0.0, 0.0), 1) };
    let (prober, _) = play(&mut path, 6);
    let said = prober.estimates(Instant::from_nanos(6_000_000_000));
    let (least, median) = (said.rtt_min_ns.unwrap(), said.rtt_median_ns.unwrap());
    assert!((200_000.0..205_000.0).contains(&least.value), "{least:?}");
    assert!(least.low <= least.value && median.value >= 260_000.0, "{least:?} {median:?}");
    // Fifty a second, of which trains keep some from being sent.
    assert!((200..=302).contains(&said.probes) && said.answers <= said.probes, "{said:?}");
    assert!(said.loss_forward.unwrap().value == 0.0 && said.loss_return.unwrap().value == 0.0, "{said:?}");
}

/// DWCP-101: a responder does not hear what stands for a train, be it a follow-up.
#[test]
fn what_a_responder_heard_is_single_probes_alone() {
    let mut responder = responder();
    let mut heard = |sequence: u64, train: u32| {
        let datagram = Header { train, ..probe(sequence) }.write(key());
        Header::read(&responder.answer(&datagram, FROM, 5).unwrap()).unwrap().heard
    };
    assert_eq!([heard(1, 0), heard(2, u32::MAX), heard(3, 7), heard(4, 0)], [1, 1, 1, 2]);
}

/// DWCP-98: from 50 Mbit/s up, at most a hundredth of the path once the first trains are through.
#[test]
fn probing_keeps_to_its_share() {
    for mbit_per_s in [50.0, 200.0, 1_000.0] {
        let (_, bytes_per_s) = play(&mut path(mbit_per_s, 20.0, (0.0, 0.0), 3), 65);
        let share = bytes_per_s * 8.0 / (mbit_per_s * 1e6);
        assert!(share <= 0.01, "{share} of {mbit_per_s} Mbit/s");
        assert!(share > 0.000_5, "{share}: probing has stopped");
    }
}

/// DWCP-99: an answer counts once, and only to what was sent, with the right code.
#[test]
fn only_what_was_asked_is_taken() {
    let (mut prober, mut responder) =
        (Prober::new(secret(), Side::Dialler, 50, Instant::from_nanos(1)), responder());
    let now = Instant::from_nanos(1_000);
    let datagram = prober.poll(now, EPOCH).unwrap();
    let answer = responder.answer(&datagram, FROM, 77).unwrap();
    let mut changed = answer;
    changed[40] ^= 1;
    assert!(!prober.received(&changed, now));
    assert!(!prober.received(&datagram, now), "a probe is no answer");
    assert!(!prober.received(&[&answer[..], &[0]].concat(), now));
    let unasked = responder.answer(&probe(999).write(key()), FROM, 78).unwrap();
    assert!(!prober.received(&unasked, now));
    assert!(prober.received(&answer, now));
    assert!(!prober.received(&answer, now), "once");
}

/// What sessions move, the path has.
#[test]
fn what_sessions_achieve_counts() {
    let (mut prober, _) = play(&mut path(100.0, 10.0, (0.0, 0.0), 5), 6);
    let now = Instant::from_nanos(6_000_000_000);
    prober.achieved(90e6, now);
    let said = prober.estimates(now).bandwidth_bits_per_s.unwrap();
    assert!((said.value / 100e6 - 1.0).abs() < 0.05 && said.low >= 90e6);
    prober.achieved(150e6, now);
    let said = prober.estimates(now);
    assert_eq!(said.bandwidth_bits_per_s.unwrap().value, 150e6);
    assert!(said.bandwidth_is_floor);
}
