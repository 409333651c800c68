//! How much effort the next batch is worth.
//!
//! What counts is how many guest bytes get across in a time: as many as the link takes of what encoding makes of them, and as
//! many as the processors encode, whichever is less. Which effort is best therefore follows from what the link takes for a
//! byte, what the sender's own handling takes ([`Terms`], told by the sender), what efforts cost and yield for batches
//! like this one ([`costs`], learned from what was measured; the core has no clock), and nothing that happens to be queued
//! at the moment. [`price`] makes one choice of them. Where something else is slower than both, what is free is spent on
//! fewer bytes, because others share the link.
//!
//! An effort that looks too dear is not used and so not measured, which would keep a bad estimate (a busy moment) for ever.
//! It is therefore tried again now and then, only where its best cost so far would change the choice, and ever more rarely
//! if that fails.

mod costs;
mod price;
#[cfg(test)]
mod tests;

use super::Effort;
use super::encode::{Choice, RawReason, Tally};
use super::sample::Kind;
use crate::limits::{ZSTD_LEVEL_DEFAULT, ZSTD_LEVEL_MAX, ZSTD_LEVEL_MIN};
use crate::mode::CodecBounds;
use costs::Costs;
pub use price::Terms;
use price::{Mix, Price, pick, settle};

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

/// Batches shorter than this say nothing about a codec.
const MEASURED_FROM_BYTES: u64 = 8 * 1024;
/// While nothing is compressed, one batch in so many is looked at, so that it is known what they are like.
const LOOK_EVERY: u64 = 8;

/// Chooses the effort of each batch of one session.
#[derive(Clone, Debug)]
pub struct Policy {
    asked: Mode,
    costs: Costs,
    mix: Mix,
    price: Price,
    /// The price if every effort cost as little as it has at its best: what is worth trying.
    price_at_best: Price,
    /// How much of a batch is owed to the upper of the two places around the price.
    owed: f64,
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
        Self {
            asked: mode,
            costs: Costs::new(efforts),
            mix: Mix::default(),
            price: Price::AT_FIRST,
            price_at_best: Price::AT_FIRST,
            owed: 0.0,
        }
    }

    /// From now on efforts are chosen within these bounds. What is known of those that stay is kept, and an effort that somebody
    /// asked for by name is used all the same.
    pub fn bound(&mut self, bounds: &CodecBounds) {
        let Mode::Adaptive { level } = self.asked else { return };
        let mut efforts = vec![Effort::Raw];
        if bounds.lz4 {
            efforts.push(Effort::Lz4);
        }
        for level in [1, level.max(1)] {
            // Never stronger than was asked for, whatever the bounds' weakest is.
            let bounded = level.min(*bounds.zstd_levels.end()).max(*bounds.zstd_levels.start()).min(level);
            let zstd = Effort::Zstd { level: bounded.clamp(ZSTD_LEVEL_MIN, ZSTD_LEVEL_MAX) };
            if !bounds.zstd_levels.is_empty() && !efforts.contains(&zstd) {
                efforts.push(zstd);
            }
        }
        self.costs.limit(efforts);
    }

    /// Whether there is anything to choose from.
    pub fn is_adaptive(&self) -> bool {
        self.costs.efforts().len() > 1
    }

    /// What is chosen from, weakest first.
    pub fn efforts(&self) -> &[Effort] {
        self.costs.efforts()
    }

    /// Whether [`Policy::choose`] should be told what the next batch is like.
    pub fn looks(&self) -> bool {
        let compresses = !self.price.is_zero() || !self.price_at_best.is_zero();
        self.is_adaptive() && (compresses || self.costs.batches().is_multiple_of(LOOK_EVERY))
    }

    /// Takes what holds batches up, as far as it is known by now.
    pub fn adapt(&mut self, terms: &Terms) {
        if self.is_adaptive() {
            self.price = settle(&self.costs, &self.mix, terms, false);
            self.price_at_best = settle(&self.costs, &self.mix, terms, true);
        }
    }

    /// Compresses nothing until [`Policy::adapt`] says otherwise.
    pub fn rest(&mut self) {
        (self.price, self.price_at_best) = (Price::default(), Price::default());
    }

    /// Whether batches pass as they are, whatever they are like.
    pub fn is_resting(&self) -> bool {
        self.is_adaptive() && self.price.is_zero()
    }

    /// The effort for a batch of `batch_bytes`. `kind` is what it is like, if that was asked for by [`Policy::looks`].
    pub fn choose(&mut self, batch_bytes: usize, kind: Option<Kind>) -> Effort {
        self.costs.next_batch();
        if !self.is_adaptive() {
            return self.costs.efforts()[0];
        }
        let Some(kind) = kind else { return Effort::Raw };
        self.mix.add(kind, batch_bytes);
        let at = self.place(kind);
        let at = self.explore(kind, at).unwrap_or(at);
        // The first measurement ever is taken where a wrong guess costs least.
        let at = if self.costs.are_guesses() { at.min(1) } else { at };
        self.costs.efforts()[at]
    }

    /// The effort at the price; between two places whichever is owed.
    fn place(&mut self, kind: Kind) -> usize {
        let (low, high, share) = self.price.places();
        let (lower, upper) = (pick(&self.costs, kind, low, false), pick(&self.costs, kind, high, false));
        if lower == upper {
            return lower;
        }
        self.owed += share;
        if self.owed < 1.0 {
            return lower;
        }
        self.owed -= 1.0;
        upper
    }

    /// An effort to be tried on this batch instead of `at`.
    fn explore(&mut self, kind: Kind, at: usize) -> Option<usize> {
        let (low, high, share) = self.price_at_best.places();
        let place = if share > 0.0 { high } else { low };
        let tried = pick(&self.costs, kind, place, true);
        (tried != at && tried > 0 && self.costs.is_due(tried, kind)).then_some(tried)
    }

    /// Learns from a batch: its kind, what [`Policy::choose`] said, what the encoder made of it, and the processor time that
    /// encoding took, in nanoseconds.
    pub fn observe(
        &mut self,
        effort: Effort,
        kind: Option<Kind>,
        choice: Choice,
        tally: &Tally,
        cost_ns: u64,
    ) {
        // A batch that was turned away early says nothing about the codec.
        if !matches!(choice, Choice::Structured | Choice::Raw(RawReason::Fruitless)) {
            return;
        }
        let bytes = tally.coded_bytes() + tally.regenerated_bytes;
        let (Some(kind), true) = (kind, bytes >= MEASURED_FROM_BYTES && effort != Effort::Raw) else {
            return;
        };
        if let Some(at) = self.costs.efforts().iter().position(|known| *known == effort) {
            let (cost, ratio) = (cost_ns as f64 / bytes as f64, tally.encoded_bytes as f64 / bytes as f64);
            self.costs.learn(at, kind, cost, ratio);
        }
    }
}
