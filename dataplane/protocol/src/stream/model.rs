//! A sender, a link, a receiver and two hypervisors on a virtual clock: what the choice of efforts comes to, as time for a
//! whole migration, against each fixed effort. The estimators and the policy are the real ones; what batches cost and how
//! much they shrink is given, as is how fast the processor is.

use super::link::Link;
use super::pace::Pace;
use super::times::{Times, Wait};
use crate::page::policy::{Mode, Policy};
use crate::page::{Choice, Effort, Kind, Tally};
use crate::time::{Cost, Instant};
use std::collections::VecDeque;

/// Taking a guest byte in, digesting it and sending it, nanoseconds.
const HANDLING_NS: f64 = 0.8;
/// The part of it that the core sees: digest and parsing.
const DIGEST_NS: f64 = 0.35;
/// What a sample of a batch costs.
const LOOK_NS: f64 = 6_000.0;
/// What a source's socket holds.
const SOCKET_BYTES: f64 = 212_992.0;

/// What batches are like: kind, then cost and ratio of lz4, zstd 1 and zstd 3.
#[derive(Clone, Copy)]
struct Content {
    kind: usize,
    costs: [(f64, f64); 3],
}

const ZEROS: Content = Content { kind: 0, costs: [(0.15, 0.02), (0.25, 0.012), (0.3, 0.012)] };
const TEXT: Content = Content { kind: 2, costs: [(0.9, 0.28), (1.7, 0.17), (2.6, 0.155)] };
const GUEST: Content = Content { kind: 4, costs: [(1.6, 0.5), (2.9, 0.34), (4.0, 0.31)] };
const RANDOM: Content = Content { kind: 9, costs: [(0.03, 1.0); 3] };

const MIXES: [(&str, &[Content]); 5] = [
    ("text", &[TEXT]),
    ("guest", &[GUEST]),
    ("mixed", &[GUEST, RANDOM, TEXT, GUEST, ZEROS]),
    ("half random", &[GUEST, RANDOM]),
    ("random", &[RANDOM]),
];

#[derive(Clone, Copy, Debug)]
struct Path {
    /// Bytes a second.
    rate: f64,
    round_trip_ns: f64,
    /// Acknowledgements leave the receiver at multiples of this.
    clump_ns: f64,
    /// Bytes a second that the source writes.
    source: f64,
    /// How much slower than usual the processor is.
    slow: f64,
    /// Of each batch's encoding the time may be up to so many times what the thread is at work: others have the processor.
    crowding: f64,
    /// What a guest byte costs the receiver, and what it costs more where it has to be decoded, nanoseconds.
    far_ns: (f64, f64),
}

struct Outcome {
    seconds: f64,
    wire: f64,
}

/// Moves `total` guest bytes.
fn run(mode: Mode, contents: &[Content], path: Path, total: f64) -> Outcome {
    let (mut policy, mut times, mut link, mut pace) =
        (Policy::new(mode), Times::default(), Link::default(), Pace::default());
    let (mut now, mut sent, mut verified, mut consumed) = (0.0f64, 0.0f64, 0u64, 0.0f64);
    let (mut link_free, mut far_free, mut under_way, mut wire) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    let mut wait = Wait::Source;
    // When its acknowledgement comes, when it was sent, guest bytes up to its end, encoded bytes.
    let mut flying: VecDeque<(f64, f64, f64, f64)> = VecDeque::new();
    let at = |ns: f64| Instant::from_nanos(ns as u64);
    let (mut seed, mut end) = (7u64, 0.0);
    while sent < total {
        while let Some((_, began, position, encoded)) = flying.front().copied().filter(|ack| ack.0 <= now) {
            flying.pop_front();
            under_way -= encoded;
            (verified, consumed) = (verified + encoded as u64, position);
            link.acknowledged(at(began), at(now));
            link.arrived(verified, at(now));
            pace.taken(at(began), at(now));
            pace.arrived(consumed as u64, at(now));
        }
        let batch = pace.batch() as f64;
        let budget = (pace.window() as f64 - (sent - consumed)).min(batch).min(32e6 - (sent - consumed));
        if (budget < batch / 4.0 && sent > consumed) || under_way >= link.window() as f64 {
            wait = Wait::Path;
            now = flying.front().expect("held up by nothing").0.max(now);
            continue;
        }
        // The source has written ahead as much as its socket holds, and no more.
        let written = (path.source * now / 1e9).min(sent + SOCKET_BYTES.max(batch));
        let available = if path.source.is_finite() { written - sent } else { budget };
        let filled = available.min(budget).min(total - sent).floor();
        if filled < (32.0 * 1024.0f64).min(total - sent).min(budget) {
            now = now.max((sent + 32.0 * 1024.0f64.min(total - sent)) / path.source * 1e9) + 1000.0;
            continue;
        }
        now += (HANDLING_NS - DIGEST_NS) * path.slow * filled;
        let reason = std::mem::replace(&mut wait, Wait::Source);
        let held_up = times.begin(reason, at(now));
        link.sent(held_up, at(now));
        now += DIGEST_NS * path.slow * filled;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let content = contents[(seed >> 33) as usize % contents.len()];
        let kind = policy.looks().then(|| Kind::ALL[content.kind]);
        let looking = if kind.is_some() { LOOK_NS * path.slow } else { 0.0 };
        let effort = policy.choose(filled as usize, kind);
        let (per_byte, ratio) = match effort {
            Effort::Raw => (0.0, 1.0),
            Effort::Lz4 => content.costs[0],
            Effort::Zstd { level: 1 } => content.costs[1],
            Effort::Zstd { .. } => content.costs[2],
        };
        let cost = looking + per_byte * path.slow * filled;
        let elapsed = cost * (1.0 + (path.crowding - 1.0) * (seed >> 40 & 0xff) as f64 / 255.0);
        now += elapsed;
        let encoded = ratio * filled;
        times.encoded(Cost { elapsed_ns: elapsed as u64, worked_ns: cost as u64 }, true);
        if effort != Effort::Raw && ratio < 1.0 {
            let (zstd_bytes, encoded_bytes) = (filled as u64, encoded as u64);
            let tally = Tally { zstd_bytes, encoded_bytes, ..Tally::default() };
            policy.observe(effort, kind, Choice::Structured, &tally, (cost - looking) as u64);
        }
        times.end(filled as usize, at(now));
        times.settle(&mut policy, &link, 1, at(now));
        sent += filled;
        pace.sent((sent - consumed) as u64, at(now));
        link_free = link_free.max(now) + encoded / path.rate * 1e9;
        let arrived = link_free + path.round_trip_ns / 2.0;
        let decoding = if encoded < filled { path.far_ns.1 } else { 0.0 };
        far_free = far_free.max(arrived) + (path.far_ns.0 + decoding) * filled;
        end = far_free;
        let reported = (far_free / path.clump_ns).ceil() * path.clump_ns;
        flying.push_back((reported + path.round_trip_ns / 2.0, now, sent, encoded));
        under_way += encoded;
        wire += encoded;
    }
    Outcome { seconds: end / 1e9, wire }
}

const FIXED: [Mode; 4] = [Mode::None, Mode::Lz4, Mode::Zstd { level: 1 }, Mode::Zstd { level: 3 }];
const ADAPTIVE: Mode = Mode::Adaptive { level: 3 };

fn rates() -> [f64; 8] {
    [10.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 400e3].map(|megabits| megabits * 1e6 / 8.0)
}

/// A path whose acknowledgements come in clumps, as they do from a busy machine.
fn path(rate: f64, round_trip_ms: f64, source: f64, slow: f64) -> Path {
    let clump_ns = if round_trip_ms < 1.0 { 0.5e6 } else { 5e6 };
    Path {
        rate,
        round_trip_ns: round_trip_ms * 1e6,
        clump_ns,
        source,
        slow,
        crowding: 1.0,
        far_ns: (0.0, 0.0),
    }
}

/// The worst of what was found, for people.
fn show(found: &[(f64, String)]) -> String {
    found.iter().take(20).map(|(ratio, what)| format!("{ratio:.3} {what}\n")).collect()
}

#[test]
fn adaptive_is_near_the_best_fixed_effort_and_never_slower_than_none() {
    let (mut near, mut slower) = (Vec::new(), Vec::new());
    // Time of each fixed effort over all that it was tried on, against the best there.
    let mut overall = [0.0; FIXED.len() + 1];
    for (name, contents) in MIXES {
        for rate in rates() {
            for round_trip_ms in [0.1, 40.0, 100.0] {
                for slow in [1.0, 4.0] {
                    let path = path(rate, round_trip_ms, f64::INFINITY, slow);
                    let total = (rate * 8.0).clamp(100e6, 1.2e9);
                    let fixed = FIXED.map(|mode| run(mode, contents, path, total).seconds);
                    let best = fixed.into_iter().fold(f64::MAX, f64::min);
                    let adaptive = run(ADAPTIVE, contents, path, total).seconds;
                    for (sum, seconds) in overall.iter_mut().zip(fixed.into_iter().chain([adaptive])) {
                        *sum += (seconds / best).ln();
                    }
                    let megabits = rate * 8.0 / 1e6;
                    let what = format!(
                        "{name}, {megabits} Mbit/s, {round_trip_ms} ms, processor {slow}x: {adaptive:.3} s of {fixed:.3?}"
                    );
                    near.push((adaptive / best, what.clone()));
                    // Finding out is paid once: some round trips in which the window grows more slowly.
                    let finding_out = (5.0 * round_trip_ms + 30.0) / 1e3;
                    slower.push(((adaptive - finding_out) / fixed[0], what));
                }
            }
        }
    }
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert!(near[0].0 < 1.1, "slower than the best fixed effort:\n{}", show(&near));
    slower.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert!(slower[0].0 < 1.01, "slower than none:\n{}", show(&slower));
    let adaptive = overall[FIXED.len()];
    assert!(overall[..FIXED.len()].iter().all(|fixed| adaptive < *fixed), "logarithms: {overall:?}");
}

#[test]
fn a_slow_source_is_not_held_up_and_spares_the_link() {
    for round_trip_ms in [0.1, 40.0] {
        let path = path(125e6, round_trip_ms, 50e6, 1.0);
        let none = run(Mode::None, &[TEXT], path, 400e6);
        let adaptive = run(ADAPTIVE, &[TEXT], path, 400e6);
        assert!(adaptive.seconds < none.seconds * 1.005, "{} of {}", adaptive.seconds, none.seconds);
        assert!(adaptive.wire < none.wire * 0.35, "{} of {}", adaptive.wire, none.wire);
    }
}

/// Where others have the processors too, what encoding takes by the clock is another each time.
#[test]
fn a_crowded_machine_is_near_the_best_fixed_effort() {
    let mut near = Vec::new();
    for (name, contents) in MIXES {
        for rate in rates() {
            for round_trip_ms in [0.1, 40.0, 100.0] {
                let crowded = Path { crowding: 8.0, ..path(rate, round_trip_ms, f64::INFINITY, 1.0) };
                let total = (rate * 8.0).clamp(100e6, 1.2e9);
                let fixed = FIXED.map(|mode| run(mode, contents, crowded, total).seconds);
                let best = fixed.into_iter().fold(f64::MAX, f64::min);
                let adaptive = run(ADAPTIVE, contents, crowded, total).seconds;
                let megabits = rate * 8.0 / 1e6;
                let what =
                    format!("{name}, {megabits} Mbit/s, {round_trip_ms} ms: {adaptive:.3} s of {fixed:.3?}");
                near.push((adaptive / best, what));
            }
        }
    }
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert!(near[0].0 < 1.2, "slower than the best fixed effort:\n{}", show(&near));
}

/// A far gateway without processor time looks like a slow link, and decoding makes it slower still. It takes some tens of round
/// trips to notice.
#[test]
fn a_busy_far_gateway_is_not_made_slower() {
    for (round_trip_ms, most) in [(0.1, 1.06), (40.0, 1.15)] {
        let busy = Path { far_ns: (4.0, 2.0), ..path(5e9, round_trip_ms, f64::INFINITY, 1.0) };
        let none = run(Mode::None, &[GUEST], busy, 3e9).seconds;
        let always = run(Mode::Zstd { level: 1 }, &[GUEST], busy, 3e9).seconds;
        let adaptive = run(ADAPTIVE, &[GUEST], busy, 3e9).seconds;
        assert!(always > none * 1.4, "compression does no harm here: {always} of {none}");
        assert!(adaptive < none * most, "{round_trip_ms} ms: {adaptive} of {none}");
    }
}
