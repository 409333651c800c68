//! What the path has really carried lately, for QEMU to decide by when it stops the guest.
//!
//! QEMU divides what is left by a bandwidth that it measures at its own socket. Behind a gateway that is the rate at which it is
//! read, which follows the path with some delay: after a good moment it stops the guest too early. So it is told
//! (`avail-switchover-bandwidth`, QEMU 8.2 and later) what was *acknowledged by the destination's hypervisor* over the last
//! seconds, in guest bytes, and of that a low quantile: a pause that comes out shorter than allowed hurts nobody.

use std::collections::VecDeque;

use novacron_control_api::{ConnectionDirection, MIGRATION, SessionRecord};

/// Samples that are remembered: some seconds.
const SAMPLES_MAX: usize = 16;
/// Fewer say nothing yet.
const SAMPLES_MIN: usize = 4;
/// The quantile: one part in this many of the samples is lower.
const LOW: usize = 5;
/// Time that one sample covers at least, in milliseconds: acknowledgements come in bursts.
const SAMPLE_MS_MIN: u64 = 200;
/// QEMU is told again when the figure has moved by one part in this many.
const CHANGE: u64 = 10;

/// Goodput of the last moments.
#[derive(Debug, Default)]
pub(super) struct Achieved {
    samples: VecDeque<u64>,
    /// When the last sample ended, in milliseconds of the session's life, and what had been taken by then.
    last: Option<(u64, u64)>,
    told: u64,
    refused: bool,
}

impl Achieved {
    /// Takes what a record says. A figure where QEMU is to be told one.
    pub(super) fn look(&mut self, record: &SessionRecord) -> Option<u64> {
        let forward = record.connections.iter().filter(|connection| {
            connection.direction == ConnectionDirection::Forward && connection.label == MIGRATION
        });
        self.add(record.elapsed_ms, forward.map(|connection| connection.consumed).sum());
        let figure = self.low().filter(|_| !self.refused)?;
        if figure.abs_diff(self.told) <= self.told / CHANGE {
            return None;
        }
        self.told = figure;
        Some(figure)
    }

    /// QEMU does not know the parameter: back-pressure alone has to do.
    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    fn add(&mut self, elapsed_ms: u64, consumed: u64) {
        let Some((since, before)) = self.last else {
            self.last = (consumed > 0).then_some((elapsed_ms, consumed));
            return;
        };
        let time = elapsed_ms.saturating_sub(since);
        if time < SAMPLE_MS_MIN {
            return;
        }
        self.last = Some((elapsed_ms, consumed));
        let bytes = consumed.saturating_sub(before);
        // While nothing came, QEMU looked for dirty pages, or every stream was lost: that is no rate of the path.
        if bytes == 0 {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(bytes.saturating_mul(1000) / time);
    }

    /// Bytes a second that all but the lowest samples reached.
    fn low(&self) -> Option<u64> {
        if self.samples.len() < SAMPLES_MIN {
            return None;
        }
        let mut sorted: Vec<u64> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / LOW).copied().filter(|rate| *rate > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn achieved(rates: &[u64]) -> Achieved {
        let mut achieved = Achieved::default();
        let (mut at, mut consumed) = (0, 1);
        achieved.add(at, consumed);
        for rate in rates {
            (at, consumed) = (at + 250, consumed + rate / 4);
            achieved.add(at, consumed);
        }
        achieved
    }

    #[test]
    fn a_low_quantile_and_not_the_lowest() {
        assert_eq!(achieved(&[40, 40, 40].map(|mb| mb * 1_000_000)).low(), None);
        let rates = [50, 48, 4, 52, 30, 49, 51, 47, 50, 50].map(|mb| mb * 1_000_000);
        assert_eq!(achieved(&rates).low(), Some(47_000_000));
    }

    #[test]
    fn only_the_last_seconds_count() {
        let mut rates = vec![100_000_000; 40];
        rates.extend([20_000_000; SAMPLES_MAX]);
        assert_eq!(achieved(&rates).low(), Some(20_000_000));
    }

    #[test]
    fn moments_without_a_byte_are_no_slow_path() {
        let mut rates = vec![40_000_000; 8];
        rates.extend([0; 8]);
        assert_eq!(achieved(&rates).low(), Some(40_000_000));
    }

    #[test]
    fn bursts_within_a_sample_do_not_count_apart() {
        let mut achieved = Achieved::default();
        achieved.add(0, 1);
        for burst in 1..=20 {
            achieved.add(burst * 50, burst * 2_000_000);
        }
        assert!(achieved.samples.iter().all(|rate| (35_000_000..45_000_000).contains(rate)), "{achieved:?}");
    }
}
