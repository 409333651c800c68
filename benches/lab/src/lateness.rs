//! How much later than due frames left.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::limits::LATENESS_MAX;

/// How late frames left, in milliseconds after they were due. Zero where none left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    /// Half of the frames were later.
    pub p50_ms: f64,
    /// One frame in a hundred was later.
    pub p99_ms: f64,
    /// The latest.
    pub max_ms: f64,
}

/// Collects them.
#[derive(Clone, Debug)]
pub(crate) struct LatenessLog(Histogram<u64>);

impl LatenessLog {
    /// # Errors
    /// Never for the bounds that stand here; the library's type says otherwise.
    pub(crate) fn new() -> anyhow::Result<Self> {
        // Two digits: a p99 of 1.23 ms may be 1.24.
        Ok(Self(Histogram::new_with_max(LATENESS_MAX.as_nanos() as u64, 2)?))
    }

    pub(crate) fn add(&mut self, late: Duration) {
        self.0.saturating_record(late.as_nanos() as u64);
    }

    /// Takes what another has collected.
    pub(crate) fn merge(&mut self, other: &Self) {
        // It fails where the other's bounds are wider; all have the same.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }

    pub(crate) fn lateness(&self) -> Lateness {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        if self.0.is_empty() {
            return Lateness::default();
        }
        Lateness {
            p50_ms: ms(self.0.value_at_quantile(0.5)),
            p99_ms: ms(self.0.value_at_quantile(0.99)),
            max_ms: ms(self.0.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_those_of_what_was_added() {
        let mut log = LatenessLog::new().unwrap();
        assert_eq!(log.lateness(), Lateness::default());
        for ms in 1..=100 {
            log.add(Duration::from_millis(ms));
        }
        let lateness = log.lateness();
        for (is, expected) in [(lateness.p50_ms, 50.0), (lateness.p99_ms, 99.0), (lateness.max_ms, 100.0)] {
            assert!((is - expected).abs() <= expected * 0.02, "{lateness:?}");
        }
        let mut all = LatenessLog::new().unwrap();
        all.add(Duration::from_millis(200));
        all.merge(&log);
        assert!(
            (all.lateness().p50_ms - 51.0).abs() < 2.0 && all.lateness().max_ms >= 200.0,
            "{:?}",
            all.lateness()
        );
        log.add(Duration::from_secs(3600));
        assert!(log.lateness().max_ms >= LATENESS_MAX.as_millis() as f64 * 0.98);
        log.reset();
        assert_eq!(log.lateness(), Lateness::default());
    }
}
