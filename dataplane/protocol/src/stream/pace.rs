//! How many guest bytes a connection may have under way, and how fast the path moves them.
//!
//! Promise 3: what is inside both gateways drains in about one round trip. The window is twice the product of
//! the rate at which bytes arrive and the shortest round trip seen, as BBR's (Cardwell et
//! al., "BBR: Congestion-Based Congestion Control", ACM Queue 14-5) congestion window is: it doubles each round
//! trip until the rate stops growing, and follows the rate down.

use super::measure::{
    ArrivalRate, Growth, Highest, RoundTrip, batch, bytes_in, rate_age, window, window_min,
};
use crate::limits::{BATCH_BYTES_FIRST, BATCH_BYTES_MAX, SEND_WINDOW_BYTES_START};
use crate::time::Instant;
use std::time::Duration;

/// The estimates of one connection and direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    round_trip: RoundTrip,
    rate: Highest,
    growth: Growth,
    arrivals: ArrivalRate,
    /// At some time of the interval at least half of the window was in use: what arrived is what the path does.
    filled: bool,
}

impl Pace {
    /// Something was sent, and with it `under_way` bytes are on their way.
    pub(super) fn sent(&mut self, under_way: u64, now: Instant) {
        self.arrivals.begin(now);
        self.filled |= under_way >= self.window() / 2;
    }

    /// The far hypervisor has taken what was sent at `sent_at`.
    pub(super) fn taken(&mut self, sent_at: Instant, now: Instant) {
        self.round_trip.add(sent_at, now);
    }

    /// So many bytes in all since the beginning have crossed the path, in whatever order. What waits there for a repetition of
    /// something lost counts: taken in order, it would come as nothing for a round trip and then all at once. Where the far
    /// hypervisor is slower than the path, no more crosses than it takes, because the window holds.
    pub(super) fn arrived(&mut self, total: u64, now: Instant) {
        let round_trip = self.round_trip().unwrap_or_default();
        let Some(rates) = self.arrivals.end(total, round_trip, now) else { return };
        self.growth.seen(rates.last);
        let best = self.rate();
        let filled = std::mem::take(&mut self.filled);
        if filled {
            self.growth.interval(rates.recent, best);
        }
        // While it grows, what was is no measure of what is.
        let rate = if filled && self.growth.is_over() { rates.usual } else { rates.recent };
        if filled || best.is_some_and(|best| rate > best) {
            self.rate.add(rate, now, rate_age(round_trip));
        }
        if !filled {
            self.arrivals.forget();
        }
    }

    /// Shortest recent round trip, the far hypervisor's reading included.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.shortest
    }

    /// Highest recent rate, bytes a second.
    pub(super) fn rate(&self) -> Option<u64> {
        self.rate.get()
    }

    /// Bytes that one batch should take: fewer on a slow path, where a whole batch takes long to drain, and before anything is known.
    pub(super) fn batch(&self) -> u64 {
        match (self.rate(), self.round_trip()) {
            (Some(rate), _) => batch(rate),
            (None, None) => BATCH_BYTES_FIRST,
            (None, Some(_)) => BATCH_BYTES_MAX as u64,
        }
    }

    /// Bytes that may be under way.
    pub(super) fn window(&self) -> u64 {
        let (Some(rate), Some(round_trip)) = (self.rate(), self.round_trip()) else {
            return SEND_WINDOW_BYTES_START;
        };
        if self.round_trip.is_measured_anew() {
            return bytes_in(rate, round_trip / 2).max(window_min(rate));
        }
        window(rate, round_trip, &self.growth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A path of a given rate and delay, kept full: where does the window settle?
    fn settle(rate: u64, delay: Duration) -> u64 {
        let (mut pace, mut now, mut link_free) = (Pace::default(), Instant::START, Instant::START);
        let (mut sent, mut delivered) = (0, 0);
        let mut arrivals = VecDeque::new();
        for _ in 0..20_000 {
            while sent - delivered + pace.batch() <= pace.window() {
                sent += pace.batch();
                pace.sent(sent - delivered, now);
                let batch_time = Duration::from_nanos(pace.batch() * 1_000_000_000 / rate);
                link_free = link_free.max(now).after(batch_time);
                arrivals.push_back((link_free.after(delay), now, sent));
            }
            let Some((arrival, sent_at, position)) = arrivals.pop_front() else { break };
            (now, delivered) = (arrival, position);
            pace.taken(sent_at, now);
            pace.arrived(delivered, now);
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
    fn a_slow_reader_gets_small_batches_and_a_small_window() {
        let window = settle(1_000_000, Duration::from_micros(100));
        assert!(window < 200_000, "{window}");
    }

    #[test]
    fn a_fast_reader_gets_what_drains_in_the_least_time() {
        let window = settle(2_000_000_000, Duration::from_micros(50));
        assert!((22_000_000..27_000_000).contains(&window), "{window}");
    }

    #[test]
    fn idle_times_do_not_shrink_the_rate() {
        let mut pace = Pace::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        for ms in (10..=200).step_by(10) {
            pace.sent(u64::MAX, at(ms - 10));
            pace.taken(at(ms - 10), at(ms));
            pace.arrived(ms * 1_000_000, at(ms));
        }
        assert_eq!(pace.rate(), Some(1_000_000_000));
        for second in 1..100 {
            pace.sent(100, at(second * 1000 - 10));
            pace.taken(at(second * 1000 - 10), at(second * 1000));
            pace.arrived(200_000_000 + second * 100, at(second * 1000));
        }
        assert_eq!(pace.rate(), Some(1_000_000_000));
    }

    #[test]
    fn a_few_words_at_first_do_not_say_how_fast_the_path_is() {
        let mut pace = Pace::default();
        let at = |ms: u64| Instant::START.after(Duration::from_millis(ms));
        pace.sent(60, at(0));
        pace.taken(at(0), at(50));
        pace.arrived(60, at(50));
        assert_eq!(pace.window(), SEND_WINDOW_BYTES_START);
        // Streams that begin slowly do not either; once the rate has stopped growing it is believed.
        let (mut total, mut smallest) = (60, u64::MAX);
        for round_trip in 1..9 {
            pace.sent(SEND_WINDOW_BYTES_START, at(50 * round_trip));
            total += 58_000 << round_trip.min(4);
            pace.arrived(total, at(50 * round_trip + 50));
            smallest = smallest.min(pace.window());
        }
        assert_eq!(smallest, SEND_WINDOW_BYTES_START);
        let rate = pace.rate().unwrap_or_default();
        assert!((18_000_000..19_000_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_path_that_is_slow_from_the_beginning_gets_a_small_window() {
        let mut pace = Pace::default();
        let at = |ms: u64| Instant::START.after(Duration::from_millis(ms));
        for round_trip in 0..9 {
            pace.sent(SEND_WINDOW_BYTES_START, at(50 * round_trip));
            pace.taken(at(50 * round_trip), at(50 * round_trip + 50));
            pace.arrived(50_000 * (round_trip + 1), at(50 * round_trip + 50));
        }
        assert!(pace.window() < 200_000, "{}", pace.window());
    }

    #[test]
    fn a_burst_of_acknowledgements_is_no_fast_path() {
        let mut pace = Pace::default();
        let at = |us: u64| Instant::from_nanos(us * 1000);
        for burst in 1..50 {
            for batch in 0..8 {
                pace.sent(u64::MAX, at(burst * 8000 - 8000));
                pace.taken(at(burst * 8000 - 8000), at(burst * 8000 + batch));
                pace.arrived((burst * 8 + batch) * 262_144, at(burst * 8000 + batch));
            }
        }
        let rate = pace.rate().unwrap_or_default();
        assert!((230_000_000..530_000_000).contains(&rate), "{rate}");
    }
}
