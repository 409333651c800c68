//! How many guest bytes a connection may have under way, and how fast the path moves them.
//!
//! Promise 3: what is inside both gateways drains in about one round trip. The window is twice the product of
//! the rate at which the far hypervisor takes bytes and the shortest round trip seen, as BBR's (Cardwell et
//! al., "BBR: Congestion-Based Congestion Control", ACM Queue 14-5) congestion window is: it doubles each round
//! trip until the rate stops growing, and follows the rate down.

use crate::limits::{SEND_WINDOW_BYTES_MIN, SEND_WINDOW_BYTES_START};
use crate::time::Instant;
use std::time::Duration;

/// The window's multiple of the bandwidth-delay product.
const GAIN: u64 = 2;
/// How long a shortest round trip is believed.
const RTT_AGE: Duration = Duration::from_secs(10);
/// How long a highest rate is believed, at least, and in round trips.
const RATE_AGE: Duration = Duration::from_millis(200);
const RATE_AGE_ROUND_TRIPS: u32 = 10;

/// The best of the last one to two `age`s: two buckets, of which the older is dropped when the younger is full.
#[derive(Clone, Copy, Debug, Default)]
struct Best {
    current: Option<u64>,
    previous: Option<u64>,
    since: Instant,
}

impl Best {
    fn add(&mut self, value: u64, now: Instant, age: Duration, better: fn(u64, u64) -> u64) {
        if now.since(self.since) >= age {
            (self.previous, self.current, self.since) = (self.current, None, now);
        }
        self.current = Some(self.current.map_or(value, |best| better(best, value)));
    }

    fn get(&self, better: fn(u64, u64) -> u64) -> Option<u64> {
        match (self.current, self.previous) {
            (Some(a), Some(b)) => Some(better(a, b)),
            (a, b) => a.or(b),
        }
    }
}

/// What one acknowledgement says about the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// From ingress to the far hypervisor's taking it, and back.
    pub(super) round_trip: Duration,
    /// Bytes delivered while the sampled batch was under way.
    pub(super) delivered: u64,
    /// How long that took.
    pub(super) elapsed: Duration,
    /// The sender had nothing more to send: the path could have done better.
    pub(super) source_limited: bool,
}

/// The estimates of one connection and direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    round_trip: Best,
    rate: Best,
}

impl Pace {
    pub(super) fn add(&mut self, sample: Sample, now: Instant) {
        let round_trip = u64::try_from(sample.round_trip.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.round_trip.add(round_trip, now, RTT_AGE, u64::min);
        let elapsed = u64::try_from(sample.elapsed.as_nanos()).unwrap_or(u64::MAX).max(1);
        let rate = u64::try_from(u128::from(sample.delivered) * 1_000_000_000 / u128::from(elapsed))
            .unwrap_or(u64::MAX);
        if sample.source_limited && self.rate().is_some_and(|best| rate <= best) {
            return;
        }
        let age = RATE_AGE.max(self.round_trip().unwrap_or_default() * RATE_AGE_ROUND_TRIPS);
        self.rate.add(rate, now, age, u64::max);
    }

    /// Shortest recent round trip, the far hypervisor's reading included.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.get(u64::min).map(Duration::from_nanos)
    }

    /// Highest recent rate, bytes a second.
    pub(super) fn rate(&self) -> Option<u64> {
        self.rate.get(u64::max)
    }

    /// Bytes that may be under way.
    pub(super) fn window(&self) -> u64 {
        let (Some(rate), Some(round_trip)) = (self.rate(), self.round_trip()) else {
            return SEND_WINDOW_BYTES_START;
        };
        let product = u128::from(rate) * round_trip.as_nanos() / 1_000_000_000;
        u64::try_from(product).unwrap_or(u64::MAX).saturating_mul(GAIN).max(SEND_WINDOW_BYTES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of a given rate and delay, asked for `window` bytes at a time: where does the window settle?
    fn settle(rate: u64, delay: Duration) -> u64 {
        let mut pace = Pace::default();
        let mut now = Instant::START;
        for _ in 0..200 {
            let window = pace.window();
            let transfer = Duration::from_nanos(window * 1_000_000_000 / rate);
            let first = Duration::from_nanos(262_144 * 1_000_000_000 / rate);
            let elapsed = transfer.max(delay + first);
            now = now.after(elapsed);
            pace.add(
                Sample { round_trip: delay + first, delivered: window, elapsed, source_limited: false },
                now,
            );
        }
        pace.window()
    }

    #[test]
    fn settles_at_twice_the_bandwidth_delay_product() {
        let window = settle(60_000_000, Duration::from_millis(50));
        let product = 60_000_000 / 20;
        assert!((2 * product..3 * product).contains(&window), "{window}");
    }

    #[test]
    fn a_slow_reader_gets_the_least_window() {
        assert_eq!(settle(1_000_000, Duration::from_micros(100)), SEND_WINDOW_BYTES_MIN);
    }

    #[test]
    fn idle_times_do_not_shrink_the_rate() {
        let mut pace = Pace::default();
        let round_trip = Duration::from_millis(10);
        let busy = Sample { round_trip, delivered: 10_000_000, elapsed: round_trip, source_limited: false };
        pace.add(busy, Instant::START);
        let idle = Sample { delivered: 100, source_limited: true, ..busy };
        for second in 1..100 {
            pace.add(idle, Instant::START.after(Duration::from_secs(second)));
        }
        assert_eq!(pace.rate(), Some(1_000_000_000));
    }
}
