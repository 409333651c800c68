//! What a sender measures of a path, and the window that follows from it: for guest bytes of a connection ([`super::pace`]) and for
//! encoded bytes of a link ([`super::link`]).

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
/// And so many end the start, after which the window follows the rate in both directions.
const START_PATIENCE: u32 = 3;
/// While it lasts the window is so many times what the last interval's rate moves in a round trip.
const START_GAIN: u32 = 3;
/// The window never drains in less than this: a pipeline of reading, hashing, sending, verifying and writing works on
/// several batches at once, and what has arrived is learned when streams are looked at, each 5 ms where nothing else wakes them, or
/// when a busy machine gets to it. A window that drains sooner than that sets the rate that it is measured by: on a path without a
/// round trip to speak of it stayed at the least there is, and was believed to be slow.
const DRAIN_MIN: Duration = Duration::from_millis(12);
/// How long a shortest round trip is believed.
const RTT_AGE: Duration = Duration::from_secs(10);
/// What a new measurement of the round trip takes beyond the round trips themselves.
const PROBE_EXTRA: Duration = Duration::from_millis(10);
/// Batches that may be under way on the slowest path: one is read and encoded, one is on the link, one is verified, and one is
/// acknowledged.
const BATCHES_MIN: u64 = 4;
/// How long a batch may occupy the path.
const BATCH_TIME: Duration = Duration::from_millis(10);
/// How long a highest rate is believed, at least, and in round trips.
const RATE_AGE: Duration = Duration::from_millis(200);
const RATE_AGE_ROUND_TRIPS: u32 = 10;
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
    /// Whether it is measured anew: then little should be under way.
    pub(super) fn is_measured_anew(&self) -> bool {
        self.probe.is_some()
    }

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
    /// In the last interval.
    latest: u64,
}

impl Growth {
    /// An interval in which the path was used as far as the window allowed.
    pub(super) fn interval(&mut self, rate: u64, best: Option<u64>) {
        let grown = best.is_none_or(|best| rate as f64 > best as f64 * GROWTH);
        self.still = if grown { 0 } else { self.still.saturating_add(1) };
        self.settled |= self.still >= START_PATIENCE;
    }

    /// The window's multiple of the bandwidth-delay product.
    fn gain(&self) -> u32 {
        if self.is_over() { GAIN } else { GAIN_GROWING }
    }

    /// It has not stopped growing yet.
    pub(super) fn starts(&self) -> bool {
        !self.settled
    }

    /// The rate does not grow any more, at present.
    pub(super) fn is_over(&self) -> bool {
        self.still >= GROWTH_PATIENCE
    }

    /// The window is no smaller than this. At first streams carry little because they begin slowly, or because little was said, and
    /// a window that followed that would keep them from growing: TCP's slow start (RFC 5681) doubles what is under way in each round
    /// trip, what it has not sent yet is under way for us too, and one interval more shows it than it takes.
    fn window_min(&self, round_trip: Duration) -> u64 {
        if self.settled {
            0
        } else {
            SEND_WINDOW_BYTES_START.max(bytes_in(self.latest, round_trip * START_GAIN))
        }
    }

    /// The rate of the last interval.
    pub(super) fn seen(&mut self, rate: u64) {
        self.latest = rate;
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
    /// Over the last two. What arrives comes in lumps, because a busy machine looks at its streams late: of one interval
    /// alone it may be twice what the path takes, and the one before had it too little.
    pub(super) recent: u64,
    /// Over several.
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
        let before = self.ends.iter().rev().nth(1).copied().unwrap_or(last);
        let rates = Rates { last: rate(last), recent: rate(before), usual: rate(first), elapsed };
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
    pub(super) fn forget(&mut self) {
        self.ends.drain(..self.ends.len().saturating_sub(1));
    }
}

/// How long a highest rate is believed.
pub(super) fn rate_age(round_trip: Duration) -> Duration {
    RATE_AGE.max(round_trip * RATE_AGE_ROUND_TRIPS)
}

/// Bytes that one batch should take at a rate.
pub(super) fn batch(rate: u64) -> u64 {
    bytes_in(rate, BATCH_TIME).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX as u64)
}

/// The least window at a rate.
pub(super) fn window_min(rate: u64) -> u64 {
    BATCHES_MIN * (batch(rate) + CARRY_BYTES_MAX as u64)
}

/// Bytes that may be under way.
pub(super) fn window(rate: u64, round_trip: Duration, growth: &Growth) -> u64 {
    let product = bytes_in(rate, (round_trip * growth.gain()).max(DRAIN_MIN));
    product.max(window_min(rate)).max(growth.window_min(round_trip))
}

/// Bytes that a rate moves in a time.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}
