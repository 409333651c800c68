//! How many guest bytes a connection may have under way, and how fast the path moves them.
//!
//! Promise 3: what is inside both gateways drains in about one round trip. The window is twice the product of
//! the rate at which bytes arrive and the shortest round trip seen, as BBR's (Cardwell et
//! al., "BBR: Congestion-Based Congestion Control", ACM Queue 14-5) congestion window is: it doubles each round
//! trip until the rate stops growing, and follows the rate down.

use crate::limits::{BATCH_BYTES_MAX, BATCH_BYTES_MIN, CARRY_BYTES_MAX, SEND_WINDOW_BYTES_START};
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// The window's multiple of the bandwidth-delay product.
const GAIN: u32 = 2;
/// The same while the rate still grows from one round trip to the next, by [`GROWTH`] or more: at first, and when batches begin
/// to shrink. BBR's startup has 2.9.
const GAIN_GROWING: u32 = 3;
/// See [`GAIN_GROWING`].
const GROWTH: f64 = 1.2;
/// So many intervals without growth end it.
const GROWTH_PATIENCE: u32 = 2;
/// The window never drains in less than this: a pipeline of reading, hashing, sending, verifying and writing works on
/// several batches at once, and a scheduler's tick must not empty it.
pub(super) const DRAIN_MIN: Duration = Duration::from_millis(4);
/// How long a shortest round trip is believed.
const RTT_AGE: Duration = Duration::from_secs(10);
/// What a new measurement of the round trip takes beyond the round trips themselves.
const PROBE_EXTRA: Duration = Duration::from_millis(10);
/// Batches that may be under way on the slowest path: one is read and encoded, one is on the link, one is verified, and one is
/// acknowledged.
pub(super) const BATCHES_MIN: u64 = 4;
/// How long a batch may occupy the path.
pub(super) const BATCH_TIME: Duration = Duration::from_millis(10);
/// How long a highest rate is believed, at least, and in round trips.
pub(super) const RATE_AGE: Duration = Duration::from_millis(200);
pub(super) const RATE_AGE_ROUND_TRIPS: u32 = 10;
/// A rate is measured over this long at least: acknowledgements come in bursts, above all on a busy machine.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Over so many intervals a rate that has settled is measured.
const INTERVALS: usize = 4;

/// The highest of the last one to two `age`s: two buckets, of which the older is dropped when the younger is full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Highest {
    current: Option<u64>,
    previous: Option<u64>,
    since: Instant,
}

impl Highest {
    pub(super) fn add(&mut self, value: u64, now: Instant, age: Duration) {
        if now.since(self.since) >= age {
            (self.previous, self.current, self.since) = (self.current, None, now);
        }
        self.current = self.current.max(Some(value));
    }

    pub(super) fn get(&self) -> Option<u64> {
        self.current.max(self.previous)
    }
}

/// The shortest round trip. One that has not been seen again for [`RTT_AGE`] is measured anew with little under way:
/// our own window keeps a queue on the path, and believing that queue to be the path would grow it without end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    pub(super) shortest: Option<Duration>,
    seen_at: Instant,
    /// Measuring anew until then; the shortest so far.
    probe: Option<(Instant, Option<Duration>)>,
}

impl RoundTrip {
    pub(super) fn add(&mut self, sent_at: Instant, now: Instant) {
        let sample = now.since(sent_at);
        if self.shortest.is_none_or(|shortest| sample <= shortest) {
            (self.shortest, self.seen_at, self.probe) = (Some(sample), now, None);
            return;
        }
        match &mut self.probe {
            None if now.since(self.seen_at) >= RTT_AGE => {
                // Until what is under way now has come back, and as much again.
                self.probe = Some((now.after(sample * 2 + PROBE_EXTRA), None));
            }
            None => {}
            Some((until, shortest)) => {
                *shortest = Some(shortest.map_or(sample, |shortest| shortest.min(sample)));
                if now >= *until {
                    (self.shortest, self.seen_at, self.probe) = (*shortest, now, None);
                }
            }
        }
    }
}

/// Whether a rate still grows from one interval to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// Intervals since it grew.
    still: u32,
    /// It has stopped growing once: something is known of the path.
    settled: bool,
}

impl Growth {
    /// An interval in which the path was used as far as the window allowed.
    pub(super) fn interval(&mut self, rate: u64, best: Option<u64>) {
        let grown = best.is_none_or(|best| rate as f64 > best as f64 * GROWTH);
        self.still = if grown { 0 } else { self.still.saturating_add(1) };
        self.settled |= self.is_over();
    }

    /// The window's multiple of the bandwidth-delay product.
    pub(super) fn gain(&self) -> u32 {
        if self.is_over() { GAIN } else { GAIN_GROWING }
    }

    /// The rate does not grow any more, at present.
    pub(super) fn is_over(&self) -> bool {
        self.still >= GROWTH_PATIENCE
    }

    /// The window is no smaller than this. At first streams carry little because they begin slowly, or because little was said,
    /// and a window that followed that down would keep them from growing.
    pub(super) fn window_min(&self) -> u64 {
        if self.settled { 0 } else { SEND_WINDOW_BYTES_START }
    }
}

/// What had arrived when, at the ends of the last intervals.
#[derive(Clone, Debug, Default)]
pub(super) struct ArrivalRate {
    ends: VecDeque<(Instant, u64)>,
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    /// In the last interval.
    pub(super) last: u64,
    /// Over several. What arrives comes in lumps: a stream that lost a segment has everything behind it acknowledged at once, a
    /// round trip later, and a busy machine looks at several streams at once.
    pub(super) usual: u64,
    /// How long the last interval was.
    pub(super) elapsed: Duration,
}

impl ArrivalRate {
    /// Something is sent: the first interval begins, if none has.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.ends.is_empty() {
            self.ends.push_back((now, 0));
        }
    }

    /// So much has arrived since the beginning. Once that is something new and an interval of `least` is over, how fast.
    pub(super) fn end(&mut self, total: u64, least: Duration, now: Instant) -> Option<Rates> {
        let (first, last) = (*self.ends.front()?, *self.ends.back()?);
        let elapsed = now.since(last.0);
        if total <= last.1 || elapsed < INTERVAL_MIN.max(least) {
            return None;
        }
        let rate = |(since, base): (Instant, u64)| {
            let bytes = u128::from(total.saturating_sub(base));
            u64::try_from(bytes * 1_000_000_000 / now.since(since).as_nanos().max(1)).unwrap_or(u64::MAX)
        };
        let rates = Rates { last: rate(last), usual: rate(first), elapsed };
        self.ends.push_back((now, total));
        if self.ends.len() > INTERVALS {
            self.ends.pop_front();
        }
        Some(rates)
    }

    /// What had arrived by the end of the last interval.
    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.ends.back().map_or(0, |end| end.1)
    }

    /// What was before says nothing of what comes.
    fn forget(&mut self) {
        self.ends.drain(..self.ends.len().saturating_sub(1));
    }
}

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
        let best = self.rate();
        let filled = std::mem::take(&mut self.filled);
        if filled {
            self.growth.interval(rates.last, best);
        }
        // While it grows, what was is no measure of what is.
        let rate = if filled && self.growth.is_over() { rates.usual } else { rates.last };
        if filled || best.is_some_and(|best| rate > best) {
            self.rate.add(rate, now, RATE_AGE.max(round_trip * RATE_AGE_ROUND_TRIPS));
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

    /// Bytes that one batch should take: fewer on a slow path, where a whole batch takes long to drain.
    pub(super) fn batch(&self) -> u64 {
        let most = BATCH_BYTES_MAX as u64;
        self.rate().map_or(most, |rate| bytes_in(rate, BATCH_TIME).clamp(BATCH_BYTES_MIN, most))
    }

    /// Bytes that may be under way.
    pub(super) fn window(&self) -> u64 {
        let (Some(rate), Some(round_trip)) = (self.rate(), self.round_trip()) else {
            return SEND_WINDOW_BYTES_START;
        };
        let least = BATCHES_MIN * (self.batch() + CARRY_BYTES_MAX as u64);
        if self.round_trip.probe.is_some() {
            return bytes_in(rate, round_trip / 2).max(least);
        }
        let gain = self.growth.gain();
        bytes_in(rate, (round_trip * gain).max(DRAIN_MIN)).max(least).max(self.growth.window_min())
    }
}

/// Bytes that a rate moves in a time.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!((7_000_000..10_000_000).contains(&window), "{window}");
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
