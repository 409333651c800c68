//! An open loop: what is due follows from a rate and the clock, whatever became of what was due before.

use std::time::{Duration, Instant};

/// Millionths of a unit: the resolution in which a pace is kept.
pub(crate) const MILLIONTHS: u64 = 1_000_000;

/// Turns a rate and the clock into steps that are due.
pub(crate) struct Pace {
    last: Instant,
    /// What is due, in millionths of a millionth of a unit so that no rate is rounded away.
    debt: u128,
    /// What one step is worth, millionths of a unit.
    step: u64,
    /// What it is behind by more than this is forgotten: it holds a rate, it does not catch up with a pause. The
    /// rate that was achieved tells of it.
    debt_max: Duration,
}

impl Pace {
    /// `step`: what one step is worth, millionths of a unit.
    pub(crate) fn new(now: Instant, step: u64, debt_max: Duration) -> Self {
        Self { last: now, debt: 0, step: step.max(1), debt_max }
    }

    /// Whole steps that are due at `rate`, millionths of a unit a second.
    pub(crate) fn due(&mut self, now: Instant, rate: u64) -> u64 {
        let rate = u128::from(rate);
        let passed = now.saturating_duration_since(self.last);
        self.last = now;
        // A slow pace may take longer to a step than the longest debt: two steps are always kept.
        let most = (self.debt_max.as_micros() * rate).max(2 * self.cost());
        self.debt = (self.debt + passed.as_micros() * rate).min(most);
        if rate == 0 {
            self.debt = 0;
        }
        u64::try_from(self.debt / self.cost()).unwrap_or(u64::MAX)
    }

    /// These steps were done.
    pub(crate) fn done(&mut self, steps: u64) {
        self.debt = self.debt.saturating_sub(u128::from(steps) * self.cost());
    }

    /// What is due and not done, at most a step of it, in millionths of a unit: a step that is being waited for has
    /// been missed by nobody yet. Added to the steps that were done it makes an amount that grows evenly for as long
    /// as the pace is held, however long a step is.
    pub(crate) fn under_way(&self) -> u64 {
        u64::try_from(self.debt.min(self.cost()) / u128::from(MILLIONTHS)).unwrap_or(self.step)
    }

    fn cost(&self) -> u128 {
        u128::from(self.step) * u128::from(MILLIONTHS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_held_and_a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 4096, Duration::from_millis(100));
        let rate = 41 * MILLIONTHS;
        let mut pages = 0;
        for ms in 1..=1000 {
            let due = pace.due(start + Duration::from_millis(ms), rate);
            pages += due;
            pace.done(due);
        }
        assert_eq!(pages, 41_000_000 / 4096);
        assert_eq!(pace.due(start + Duration::from_secs(60), rate), 4_100_000 / 4096);
        assert_eq!(pace.due(start + Duration::from_secs(61), 0), 0);
    }

    #[test]
    fn a_step_that_is_due_less_than_once_a_debt_still_comes() {
        let start = Instant::now();
        let mut pace = Pace::new(start, MILLIONTHS, Duration::from_millis(100));
        let mut steps = 0;
        for ms in 1..=10_000 {
            let due = pace.due(start + Duration::from_millis(ms), MILLIONTHS / 2);
            steps += due;
            pace.done(due);
        }
        assert_eq!((steps, pace.under_way()), (5, 0));
        assert_eq!(pace.due(start + Duration::from_millis(11_500), MILLIONTHS / 2), 0);
        assert_eq!(pace.under_way(), MILLIONTHS * 3 / 4);
        assert_eq!(pace.due(start + Duration::from_secs(100), MILLIONTHS / 2), 2);
        assert_eq!(pace.under_way(), MILLIONTHS, "what is missed beyond a step is not called work");
    }
}
