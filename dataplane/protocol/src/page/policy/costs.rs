//! What encoding costs and what it yields, learned for each effort and kind of batch.
//!
//! Batches that lz4 leaves a bit more of cost a bit more: what is known of one kind says something of those beside it, and more
//! than what was measured of them long ago. An effort that is not used for a kind is not measured there, so that what one odd
//! moment taught would stay. Estimates are therefore means over all kinds ([`Costs::mean`]), relative to a guess, and each counts
//! by how near and how fresh it is.

use super::super::Effort;
use super::super::sample::Kind;

/// Batches without a measurement after which an effort is tried again; doubled by each try without success.
const EXPLORE_AFTER: u64 = 64;
/// Longest such wait: a gibibyte of guest memory.
const EXPLORE_AFTER_MAX: u64 = 4096;
/// A sample above the estimate counts for at most this many times it: one stalled batch says little.
const OUTLIER: f64 = 4.0;
/// What was measured so many batches ago counts for half, twice as many for a fifth.
const FRESH_FOR: f64 = 64.0;
/// What is known of a kind counts for so much of it at the kind beside it.
const BESIDE: f64 = 1.0 / 16.0;
/// And what is guessed from other efforts counts for so much.
const GUESSED: f64 = 1.0 / 1024.0;
/// An estimate that is this many batches old is as good as none: a new sample counts for half.
const STALE_AFTER: u64 = 32;
/// What is guessed to shrink to less than this is taken for this, where it is compared.
const RATIO_GUESS_MIN: f64 = 0.01;
/// A try that came to less than this of what was believed was a success.
const SUCCESS: f64 = 0.7;

/// What is known of one effort for one kind of batch.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// Nanoseconds a guest byte, once they have been measured.
    cost: Option<f64>,
    /// About the least that was measured, slowly forgotten.
    best: f64,
    /// Encoded bytes a guest byte.
    ratio: f64,
    /// The batch of the last measurement, and of the last measurement or try.
    measured_at: u64,
    tried_at: u64,
    explore_after: u64,
}

impl Cell {
    fn is_stale(&self, now: u64) -> bool {
        now - self.measured_at > STALE_AFTER
    }

    fn learn(&mut self, cost: f64, ratio: f64, now: u64) {
        let stale = self.is_stale(now);
        let Some(believed) = self.cost else {
            (self.cost, self.best, self.ratio) = (Some(cost), cost, ratio);
            (self.measured_at, self.tried_at) = (now, now);
            return;
        };
        // Dearer is believed sooner than cheaper, as it is what could make the link wait; much cheaper at once, as no work is
        // done in less time than it takes.
        let much_cheaper = cost < believed * SUCCESS;
        let weight = match (stale || much_cheaper, cost > believed) {
            (true, _) => 0.5,
            (false, true) => 0.25,
            (false, false) => 0.125,
        };
        self.cost = Some(believed + weight * (cost.min(believed * OUTLIER) - believed));
        self.best = if cost < self.best { cost } else { self.best + (cost - self.best) / 16.0 };
        self.ratio += weight * (ratio - self.ratio);
        (self.measured_at, self.tried_at) = (now, now);
        if much_cheaper {
            self.explore_after = EXPLORE_AFTER;
        }
    }
}

/// The efforts of a session, weakest first, and what is known of them.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    efforts: Vec<Effort>,
    cells: Vec<[Cell; Kind::COUNT]>,
    /// How much dearer this core is than the guesses, of late and at its best; 1 until something was measured.
    slow: f64,
    slow_best: f64,
    measured: bool,
    /// The batch at hand: how many there have been.
    now: u64,
}

impl Costs {
    pub(super) fn new(efforts: Vec<Effort>) -> Self {
        let cell = |effort, kind| Cell {
            cost: None,
            best: 0.0,
            ratio: ratio_guess(effort, kind),
            measured_at: 0,
            tried_at: 0,
            explore_after: EXPLORE_AFTER,
        };
        let cells = efforts.iter().map(|effort| Kind::ALL.map(|kind| cell(*effort, kind))).collect();
        Self { efforts, cells, slow: 1.0, slow_best: 1.0, measured: false, now: 0 }
    }

    /// There are these efforts from now on; what was learned of those that stay is kept.
    pub(super) fn limit(&mut self, efforts: Vec<Effort>) {
        let mut limited = Self::new(efforts);
        (limited.slow, limited.slow_best) = (self.slow, self.slow_best);
        (limited.measured, limited.now) = (self.measured, self.now);
        for (effort, cells) in limited.efforts.iter().zip(&mut limited.cells) {
            if let Some(at) = self.efforts.iter().position(|known| known == effort) {
                *cells = self.cells[at];
            }
        }
        *self = limited;
    }

    pub(super) fn efforts(&self) -> &[Effort] {
        &self.efforts
    }

    /// Whether anything has been measured yet.
    pub(super) fn are_guesses(&self) -> bool {
        !self.measured
    }

    /// Nanoseconds a guest byte: expected, or as good as they have been.
    pub(super) fn cost(&self, at: usize, kind: Kind, at_best: bool) -> f64 {
        let effort = self.efforts[at];
        if effort == Effort::Raw {
            return 0.0;
        }
        let guess = cost_guess(effort, kind);
        let seen = |cell: &Cell| cell.cost.filter(|_| !at_best).unwrap_or(cell.best);
        let slow = if at_best { self.slow_best } else { self.slow };
        let factor = self.mean(at, kind, slow, |other, cell| seen(cell) / cost_guess(effort, other));
        // Another effort may have shown meanwhile how fast this core can be.
        guess * if at_best { factor.min(slow) } else { factor }
    }

    /// The mean of what was measured of an effort, at this kind of batch and others beside it.
    fn mean(&self, at: usize, kind: Kind, guess: f64, value: impl Fn(Kind, &Cell) -> f64) -> f64 {
        let (mut sum, mut weights) = (GUESSED * guess, GUESSED);
        for (other, cell) in Kind::ALL.into_iter().zip(&self.cells[at]) {
            let Some(away) = kind.away(other).filter(|_| cell.cost.is_some()) else { continue };
            let age = self.now.saturating_sub(cell.measured_at) as f64 / FRESH_FOR;
            let weight = BESIDE.powi(away) / (1.0 + age * age);
            sum += weight * value(other, cell);
            weights += weight;
        }
        sum / weights
    }

    /// Expected encoded bytes a guest byte.
    pub(super) fn ratio(&self, at: usize, kind: Kind) -> f64 {
        let effort = self.efforts[at];
        if effort == Effort::Raw {
            return 1.0;
        }
        let relative =
            |effort, kind, cell: &Cell| cell.ratio / ratio_guess(effort, kind).max(RATIO_GUESS_MIN);
        // Batches that shrank more than was guessed with one effort do so with another.
        let known = |at: &usize| self.cells[*at][kind.index()].cost.is_some();
        let guess = match (0..at).rev().chain(at + 1..self.efforts.len()).find(known) {
            Some(other) => relative(self.efforts[other], kind, &self.cells[other][kind.index()]),
            None => 1.0,
        };
        let factor = self.mean(at, kind, guess, |other, cell| relative(effort, other, cell));
        ratio_guess(effort, kind).max(RATIO_GUESS_MIN) * factor
    }

    /// Whether it is time to try an effort that is not in use; if so, it counts as tried.
    pub(super) fn is_due(&mut self, at: usize, kind: Kind) -> bool {
        let now = self.now;
        let cell = &mut self.cells[at][kind.index()];
        if now - cell.tried_at < cell.explore_after {
            return false;
        }
        cell.tried_at = now;
        cell.explore_after = (cell.explore_after * 2).min(EXPLORE_AFTER_MAX);
        true
    }

    /// How many batches there have been.
    pub(super) fn batches(&self) -> u64 {
        self.now
    }

    /// The next batch is at hand.
    pub(super) fn next_batch(&mut self) {
        self.now += 1;
    }

    /// A batch of this kind took so many nanoseconds, and so many encoded bytes, a guest byte.
    pub(super) fn learn(&mut self, at: usize, kind: Kind, cost: f64, ratio: f64) {
        let factor = cost / cost_guess(self.efforts[at], kind);
        // A core that is slow at one codec is slow at the others: do not find out the dear way.
        if self.measured {
            self.slow += (factor.min(self.slow * OUTLIER) - self.slow) / 8.0;
            let best = self.slow_best;
            self.slow_best = if factor < best { factor } else { best + (factor - best) / 16.0 };
        } else {
            (self.slow, self.slow_best, self.measured) = (factor, factor, true);
        }
        let known = self.cells[at][kind.index()];
        if known.cost.is_some() && known.is_stale(self.now) {
            // What was measured long ago is not what was believed by now.
            let believed = (Some(self.cost(at, kind, false)), self.ratio(at, kind));
            let cell = &mut self.cells[at][kind.index()];
            (cell.cost, cell.ratio) = believed;
        }
        self.cells[at][kind.index()].learn(cost, ratio.min(1.0), self.now);
    }

    /// Expected cost in nanoseconds a guest byte, if it has been measured.
    #[cfg(test)]
    pub(super) fn measured(&self, effort: Effort, kind: Kind) -> Option<f64> {
        let at = self.efforts.iter().position(|known| *known == effort)?;
        self.cells[at][kind.index()].cost
    }
}

/// Nanoseconds a guest byte until the first measurement: an ordinary server core. What shrinks well is read more than it is
/// searched.
fn cost_guess(effort: Effort, kind: Kind) -> f64 {
    let share = kind.share();
    match effort {
        Effort::Raw => 0.0,
        Effort::Lz4 => 0.4 + 1.8 * share,
        // From about 10 on each level costs a quarter to a half more than the one below.
        Effort::Zstd { level } => (0.9 + 3.4 * share) * 1.25f64.powi(level - 1),
    }
}

/// Encoded bytes a guest byte until the first measurement. Of captured guests zstd 1 leaves about 0.7 of what lz4 leaves.
fn ratio_guess(effort: Effort, kind: Kind) -> f64 {
    match effort {
        Effort::Raw => 1.0,
        Effort::Lz4 => kind.share(),
        Effort::Zstd { level } => kind.share() * (0.72 - 0.01 * f64::from(level.clamp(-5, 22))),
    }
}
