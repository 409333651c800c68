//! How much effort the next batch is worth.
//!
//! While what is queued ahead drains, encoding costs no time: the strongest effort whose expected time fits into
//! that drain is free. With nothing queued every nanosecond of encoding is one that the link waits, so the batch
//! passes as it is, and a link faster than the codecs never has anything queued. So compression never makes a
//! migration slower.
//!
//! Costs are learned from what the caller measured; the core has no clock. An effort that looks too dear is not
//! used and so not measured, which would keep a bad estimate (a busy moment) for ever. It is therefore tried
//! again now and then, only where its best cost so far would have fitted, and ever more rarely if that fails.

use super::Effort;
use super::encode::{Choice, RawReason, Tally};
use crate::limits::{ZSTD_LEVEL_DEFAULT, ZSTD_LEVEL_MAX, ZSTD_LEVEL_MIN};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whatever is free, up to zstd at `level`.
    Adaptive {
        /// Strongest zstd level; 0: zstd's default.
        level: i32,
    },
    /// Never compress.
    None,
    /// Always lz4, free or not.
    Lz4,
    /// Always zstd at `level`, free or not.
    Zstd {
        /// zstd's level; 0: its default.
        level: i32,
    },
}

/// A stronger effort than the current one must fit this many times over, so that noise does not move the choice.
const UP_MARGIN: f64 = 1.25;
/// Batches in a row for which a stronger effort must fit before it is taken.
const UP_AFTER: u32 = 2;
/// A stronger effort must make output this much shorter than a weaker one that also fits.
const WORTH: f64 = 0.99;
/// Batches without a measurement after which an effort is tried again; doubled by each try without success.
const EXPLORE_AFTER: u64 = 64;
/// Longest such wait: a gibibyte of guest memory.
const EXPLORE_AFTER_MAX: u64 = 4096;
/// A sample above the estimate counts for at most this many times it: one stalled batch says little.
const OUTLIER: f64 = 4.0;
/// Batches of which less than this went through a codec say nothing about it.
const MEASURED_FROM_BYTES: u64 = 8 * 1024;

/// What is known of one effort.
#[derive(Clone, Copy, Debug)]
struct Rung {
    effort: Effort,
    /// Expected nanoseconds a byte.
    cost: f64,
    /// About the least that was measured, slowly forgotten.
    best: f64,
    /// Expected encoded bytes per byte coded.
    ratio: f64,
    measured: bool,
    /// The batch of the last measurement or try.
    tried_at: u64,
    explore_after: u64,
}

impl Rung {
    /// Guesses until the first measurement: an ordinary server core, ordinary memory.
    fn new(effort: Effort) -> Self {
        let (cost, ratio) = match effort {
            Effort::Raw => (0.0, 1.0),
            Effort::Lz4 => (1.6, 0.6),
            // From about 10 on each level costs a quarter to a half more than the one below.
            Effort::Zstd { level } => (3.0 * 1.25f64.powi((level - 1).max(0)), 0.5 - 0.01 * f64::from(level)),
        };
        let explore_after = EXPLORE_AFTER;
        Self { effort, cost, best: cost / 2.0, ratio, measured: false, tried_at: 0, explore_after }
    }

    fn learn(&mut self, cost: f64, ratio: f64, stale: bool) {
        if !self.measured {
            (self.cost, self.best, self.ratio, self.measured) = (cost, cost, ratio, true);
            return;
        }
        // Dearer is believed sooner than cheaper, as it is what could make the link wait.
        let weight = match (stale, cost > self.cost) {
            (true, _) => 0.5,
            (false, true) => 0.25,
            (false, false) => 0.125,
        };
        self.cost += weight * (cost.min(self.cost * OUTLIER) - self.cost);
        self.best = if cost < self.best { cost } else { self.best + (cost - self.best) / 16.0 };
        self.ratio += weight * (ratio - self.ratio);
    }
}

/// Chooses the effort of each batch of one session.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Weakest first; a fixed mode has one.
    rungs: Vec<Rung>,
    current: usize,
    /// Batches in a row for which a stronger effort fitted.
    votes: u32,
    batches: u64,
}

impl Policy {
    /// A policy that knows nothing yet.
    pub fn new(mode: Mode) -> Self {
        let zstd = |level: i32| Effort::Zstd { level: level.clamp(ZSTD_LEVEL_MIN, ZSTD_LEVEL_MAX) };
        let mode = match mode {
            // As zstd itself reads it.
            Mode::Zstd { level: 0 } => Mode::Zstd { level: ZSTD_LEVEL_DEFAULT },
            Mode::Adaptive { level: 0 } => Mode::Adaptive { level: ZSTD_LEVEL_DEFAULT },
            other => other,
        };
        let efforts = match mode {
            Mode::None => vec![Effort::Raw],
            Mode::Lz4 => vec![Effort::Lz4],
            Mode::Zstd { level } => vec![zstd(level)],
            Mode::Adaptive { level: ..=1 } => vec![Effort::Raw, Effort::Lz4, zstd(1)],
            Mode::Adaptive { level } => vec![Effort::Raw, Effort::Lz4, zstd(1), zstd(level)],
        };
        let rungs = efforts.into_iter().map(Rung::new).collect();
        Self { rungs, current: 0, votes: 0, batches: 0 }
    }

    /// The effort for a batch of `batch_bytes`, while what is queued ahead of it needs `drain_ns` nanoseconds to
    /// leave at the measured rate of the link; 0 if nothing is queued or the rate is not known.
    pub fn choose(&mut self, batch_bytes: usize, drain_ns: u64) -> Effort {
        self.batches += 1;
        let per_byte = drain_ns as f64 / batch_bytes.max(1) as f64;
        if self.rungs.len() == 1 {
            return self.rungs[0].effort;
        }
        if drain_ns == 0 {
            (self.current, self.votes) = (0, 0);
            return self.rungs[0].effort;
        }
        let up = self.strongest(self.rungs.len(), per_byte / UP_MARGIN);
        self.votes = if up > self.current { self.votes + 1 } else { 0 };
        if self.votes >= UP_AFTER {
            (self.current, self.votes) = (up, 0);
            // It fits by measure, so the next time that it does not is news again.
            self.rungs[up].explore_after = EXPLORE_AFTER;
        } else {
            self.current = self.strongest(self.current + 1, per_byte);
        }
        let chosen = self.explore(per_byte).unwrap_or(self.current);
        self.rungs[chosen].effort
    }

    /// The strongest of the first `among` rungs that costs at most `budget` nanoseconds a byte and is worth it.
    fn strongest(&self, among: usize, budget: f64) -> usize {
        let mut pick = 0;
        for (at, rung) in self.rungs.iter().enumerate().take(among).skip(1) {
            // The first measurement ever is taken where a wrong guess costs least.
            if at > 1 && !self.rungs[1].measured {
                break;
            }
            // Against no compression the ratio has no say: incompressible batches are recognised by sampling.
            let worth = pick == 0 || rung.ratio < self.rungs[pick].ratio * WORTH;
            if rung.cost <= budget && worth {
                pick = at;
            }
        }
        pick
    }

    /// A stronger rung than the current one to be tried on this batch.
    fn explore(&mut self, budget: f64) -> Option<usize> {
        let (now, from) = (self.batches, self.current + 1);
        let due = |rung: &Rung| now - rung.tried_at >= rung.explore_after && rung.best <= budget;
        let at = from + self.rungs.get(from..)?.iter().position(due)?;
        let rung = &mut self.rungs[at];
        rung.tried_at = now;
        rung.explore_after = (rung.explore_after * 2).min(EXPLORE_AFTER_MAX);
        Some(at)
    }

    /// Learns from a batch: what [`Policy::choose`] said, what the encoder made of it, and the nanoseconds that
    /// encoding took.
    pub fn observe(&mut self, effort: Effort, choice: Choice, tally: &Tally, cost_ns: u64) {
        // A batch that was turned away early says nothing about the codec.
        if !matches!(choice, Choice::Structured | Choice::Raw(RawReason::Fruitless)) {
            return;
        }
        let bytes = tally.coded_bytes();
        if bytes < MEASURED_FROM_BYTES {
            return;
        }
        let current = self.rungs[self.current].effort;
        let now = self.batches;
        if let Some(rung) = self.rungs.iter_mut().find(|rung| rung.effort == effort && effort != Effort::Raw)
        {
            let ratio = (tally.encoded_bytes as f64 / bytes as f64).min(1.0);
            let cost = cost_ns as f64 / bytes as f64;
            let first = (!rung.measured).then_some(cost / rung.cost);
            rung.learn(cost, ratio, effort != current);
            rung.tried_at = now;
            if let Some(factor) = first {
                // A core that is slow at one codec is slow at the others: do not find out the dear way.
                for other in self.rungs.iter_mut().filter(|rung| !rung.measured) {
                    other.cost *= factor;
                    other.best = other.cost;
                }
            }
        }
    }

    /// Nanoseconds that encoding so many bytes with `effort` is expected to take one core.
    pub fn expected_ns(&self, effort: Effort, bytes: usize) -> u64 {
        let cost = self.rungs.iter().find(|rung| rung.effort == effort).map_or(0.0, |rung| rung.cost);
        (cost * bytes as f64) as u64
    }

    /// Expected cost of `effort` in nanoseconds a byte, if it has been measured.
    pub fn cost_ns_per_byte(&self, effort: Effort) -> Option<f64> {
        self.rungs.iter().find(|rung| rung.effort == effort && rung.measured).map(|rung| rung.cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 256 * 1024;
    /// Taking a batch in and handing it on, whatever the effort.
    const HANDLING_NS: f64 = 60_000.0;
    /// Most that may wait in the gateway.
    const QUEUE_NS: f64 = 20e6;
    const ZSTD_1: Effort = Effort::Zstd { level: 1 };
    const ZSTD_3: Effort = Effort::Zstd { level: 3 };

    /// A sender with one core and a link; costs are those of a real core times `slow`.
    struct Simulation {
        policy: Policy,
        now: f64,
        link_free_at: f64,
        bytes_per_s: f64,
        taken: Vec<Effort>,
    }

    impl Simulation {
        fn new(bytes_per_s: f64) -> Self {
            let policy = Policy::new(Mode::Adaptive { level: 3 });
            Self { policy, now: 0.0, link_free_at: 0.0, bytes_per_s, taken: Vec::new() }
        }

        fn run(&mut self, batches: usize, slow: f64) {
            for _ in 0..batches {
                self.now = (self.now + HANDLING_NS).max(self.link_free_at - QUEUE_NS);
                let drain_ns = (self.link_free_at - self.now).max(0.0);
                let effort = self.policy.choose(BATCH, drain_ns as u64);
                let (cost, ratio) = match effort {
                    Effort::Raw => (0.0, 1.0),
                    Effort::Lz4 => (1.6, 0.4),
                    ZSTD_1 => (2.9, 0.25),
                    _ => (4.0, 0.22),
                };
                let (cost_ns, encoded) = (cost * slow * BATCH as f64, ratio * BATCH as f64);
                self.now += cost_ns;
                if effort != Effort::Raw {
                    let tally =
                        Tally { zstd_bytes: BATCH as u64, encoded_bytes: encoded as u64, ..Tally::default() };
                    self.policy.observe(effort, Choice::Structured, &tally, cost_ns as u64);
                }
                self.link_free_at = self.link_free_at.max(self.now) + encoded / self.bytes_per_s * 1e9;
                self.taken.push(effort);
            }
        }

        fn share_of_last(&self, last: usize, effort: Effort) -> f64 {
            let tail = &self.taken[self.taken.len() - last..];
            tail.iter().filter(|taken| **taken == effort).count() as f64 / last as f64
        }

        /// Time against that of passing everything through.
        fn against_raw(&self) -> f64 {
            let batch = HANDLING_NS.max(BATCH as f64 / self.bytes_per_s * 1e9);
            self.link_free_at / (batch * self.taken.len() as f64)
        }
    }

    #[test]
    fn an_endless_link_gets_raw_batches() {
        let mut simulation = Simulation::new(1e15);
        simulation.run(5000, 1.0);
        assert!(simulation.taken.iter().all(|effort| *effort == Effort::Raw));
    }

    #[test]
    fn a_hundred_megabit_gets_zstd() {
        let mut simulation = Simulation::new(100e6 / 8.0);
        simulation.run(1000, 1.0);
        assert!(simulation.share_of_last(900, ZSTD_3) > 0.9, "{}", simulation.share_of_last(900, ZSTD_3));
        assert!(simulation.against_raw() < 0.27, "{}", simulation.against_raw());
    }

    #[test]
    fn never_slower_than_passing_through() {
        for megabits in [10.0, 100.0, 500.0, 1e3, 2.5e3, 5e3, 10e3, 20e3, 40e3, 100e3, 400e3] {
            for slow in [0.3, 1.0, 4.0, 20.0] {
                let mut simulation = Simulation::new(megabits * 1e6 / 8.0);
                simulation.run(4000, slow);
                // What must be paid is finding out, once, on one batch and at the weakest codec.
                let finding_out = 1.6 * slow * BATCH as f64 / simulation.link_free_at;
                let against = simulation.against_raw() - finding_out;
                assert!(against < 1.01, "{megabits} Mbit/s, codec {slow} times slower: {against}");
            }
        }
    }

    #[test]
    fn uses_both_core_and_link_in_between() {
        // 2 Gbit/s: raw needs 1.05 ms a batch, zstd -1 0.76 ms of core; together they beat either alone.
        let mut simulation = Simulation::new(2e9 / 8.0);
        simulation.run(4000, 1.0);
        assert!(simulation.against_raw() < 0.75, "{}", simulation.against_raw());
    }

    #[test]
    fn recovers_when_a_busy_time_is_over() {
        let mut simulation = Simulation::new(1e9 / 8.0);
        simulation.run(500, 1.0);
        simulation.run(300, 50.0);
        assert!(simulation.share_of_last(100, Effort::Raw) > 0.9, "does not yield to a slow core");
        simulation.run(1500, 1.0);
        assert!(simulation.share_of_last(500, Effort::Raw) < 0.5, "does not come back");
    }

    #[test]
    fn exploring_is_rare_where_it_fails() {
        let mut simulation = Simulation::new(1e9 / 8.0);
        simulation.run(20_000, 1000.0);
        let tries = simulation.taken.iter().filter(|effort| **effort != Effort::Raw).count();
        assert!(tries < 40, "{tries} tries");
    }

    #[test]
    fn fixed_modes_stay() {
        for (mode, effort) in [
            (Mode::None, Effort::Raw),
            (Mode::Lz4, Effort::Lz4),
            (Mode::Zstd { level: 3 }, ZSTD_3),
            (Mode::Zstd { level: 0 }, ZSTD_3),
            (Mode::Zstd { level: 22 }, Effort::Zstd { level: 22 }),
            (Mode::Zstd { level: 1000 }, Effort::Zstd { level: ZSTD_LEVEL_MAX }),
        ] {
            let mut policy = Policy::new(mode);
            for drain_ns in [0, 1, 1 << 20, u64::MAX] {
                assert_eq!(policy.choose(BATCH, drain_ns), effort);
                policy.observe(effort, Choice::Structured, &Tally::default(), u64::MAX);
            }
            assert_eq!(policy.choose(0, 0), effort);
        }
    }

    #[test]
    fn early_refusals_teach_nothing() {
        let mut policy = Policy::new(Mode::Adaptive { level: 3 });
        let tally = Tally { raw_bytes: BATCH as u64, encoded_bytes: BATCH as u64, ..Tally::default() };
        policy.observe(Effort::Lz4, Choice::Raw(RawReason::Sampled), &tally, 1);
        assert_eq!(policy.cost_ns_per_byte(Effort::Lz4), None);
        policy.observe(Effort::Lz4, Choice::Raw(RawReason::Fruitless), &tally, 2 * BATCH as u64);
        assert_eq!(policy.cost_ns_per_byte(Effort::Lz4), Some(2.0));
    }
}
