//! How many streams a pair of gateways has.
//!
//! A congestion control that takes a loss for congestion gives each stream a rate that depends on loss and round trip alone
//! (Mathis et al., "The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm", CCR 27-3): on a path that loses, more
//! streams move more. How many help is not known beforehand, so it is tried: some more are opened, and stay if what arrives grew
//! by them. What did not help is closed again, and tried more and more rarely.
//!
//! Over a long path each stream also begins slowly, with ten segments a round trip (RFC 6928), so there many begin at once. Where
//! nothing has been lost once they are up to speed, few carry the same, and the rest is closed.

use crate::time::Instant;
use std::time::Duration;

/// What arrives must grow by one part in this many, or the streams that were opened for it are closed again.
const GAIN_MIN: u64 = 10;
/// How long what arrives is measured, in round trips, and at least.
const MEASURED_ROUND_TRIPS: u32 = 4;
const MEASURED_MIN: Duration = Duration::from_millis(200);
/// A longer round trip than this is a wide-area path's, where a stream needs many of them to be up to speed.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(5);
/// A shorter one is a machine's own: what is lost there was lost for want of memory.
const SHORT_ROUND_TRIP: Duration = Duration::from_micros(200);
/// First and longest wait after streams that did not help.
const WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long streams that were asked for may take to open.
const OPENING_MAX: Duration = Duration::from_secs(2);
/// How long little is to be carried before streams are closed.
const QUIET: Duration = Duration::from_secs(10);
/// So many streams begin at once over a long path, where they may.
const BEGINNING: usize = 16;
/// How long they are left to get up to speed, in round trips, and at least.
const BEGINNING_ROUND_TRIPS: u32 = 20;
const BEGINNING_MIN: Duration = Duration::from_secs(1);
/// A growth in streams is this part of those that there are: all of them again.
const GROWTH: usize = 1;

/// What is seen of a pair of gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Streams that are open.
    pub open: usize,
    /// Bytes that arrived so far, in both directions.
    pub arrived_bytes: u64,
    /// Segments that were sent again so far.
    pub retransmits: u64,
    /// Something waits for the path.
    pub busy: bool,
    /// The path's round trip, without queues; zero: not known yet.
    pub round_trip: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Waits until the path's round trip is known, and after a rest until there is something to carry.
    Begin { rested: bool },
    /// As many as begin at once get up to speed, since something was there to carry.
    Beginning { since: Option<Instant> },
    /// Looks whether anything is lost on a path where many began.
    Losses { since: Instant, base: Seen },
    /// Waits until there is something to measure, or until it is worth another try.
    Rest { until: Instant },
    /// Measures what arrives by as many streams as there are.
    Measure { since: Instant, base: Seen },
    /// More were asked for: waits until they are open.
    Open { since: Instant, before: usize, rate: u64 },
    /// They are open and get up to speed.
    SpeedUp { until: Instant, before: usize, rate: u64 },
    /// Measures what arrives by more.
    Compare { since: Instant, base: Seen, before: usize, rate: u64 },
}

/// The number of streams to one peer, between two bounds.
#[derive(Clone, Debug)]
pub struct StreamCount {
    min: usize,
    max: usize,
    want: usize,
    doing: Doing,
    wait: Duration,
    busy_at: Instant,
}

fn rate(base: &Seen, seen: &Seen, time: Duration) -> u64 {
    let bytes = u128::from(seen.arrived_bytes.saturating_sub(base.arrived_bytes));
    u64::try_from(bytes * 1_000_000_000 / time.as_nanos().max(1)).unwrap_or(u64::MAX)
}

impl StreamCount {
    /// As few as may be; `max` is at least that.
    pub fn new(min: usize, max: usize, now: Instant) -> Self {
        let min = min.max(1);
        let doing = Doing::Begin { rested: false };
        StreamCount { min, max: max.max(min), want: min, doing, wait: WAIT.0, busy_at: now }
    }

    /// How many there should be.
    pub fn want(&self) -> usize {
        self.want
    }

    /// Somebody asks for `streams` at least from now on.
    pub fn ask(&mut self, streams: usize) {
        self.min = self.min.max(streams);
        self.max = self.max.max(self.min);
        self.want = self.want.max(self.min);
    }

    /// There are other bounds from now on: no more streams come or go than they ask for, and what helps within them is found out
    /// anew. What [`StreamCount::ask`] was told is forgotten.
    pub fn bound(&mut self, min: usize, max: usize, now: Instant) {
        self.min = min.max(1);
        self.max = max.max(self.min);
        self.want = self.want.clamp(self.min, self.max);
        (self.wait, self.doing) = (WAIT.0, Doing::Rest { until: now.after(WAIT.0) });
    }

    fn measured(seen: &Seen) -> Duration {
        (seen.round_trip * MEASURED_ROUND_TRIPS).max(MEASURED_MIN)
    }

    /// Whether more streams may help at all: a short path that loses nothing is as fast with few.
    fn may_help(base: &Seen, seen: &Seen) -> bool {
        let loses = seen.retransmits > base.retransmits && seen.round_trip >= SHORT_ROUND_TRIP;
        seen.round_trip >= LONG_ROUND_TRIP || loses
    }

    /// Takes what is seen now, and says how many streams there should be.
    pub fn look(&mut self, seen: &Seen, now: Instant) -> usize {
        if seen.busy {
            self.busy_at = now;
        } else if now.since(self.busy_at) >= QUIET {
            (self.want, self.wait, self.doing) = (self.min, WAIT.0, Doing::Begin { rested: true });
            return self.want;
        }
        self.doing = match self.doing {
            Doing::Begin { rested } if !seen.round_trip.is_zero() && (seen.busy || !rested) => {
                if seen.round_trip < LONG_ROUND_TRIP || self.want >= self.max.min(BEGINNING) {
                    Doing::Rest { until: now }
                } else {
                    self.want = self.max.min(BEGINNING);
                    Doing::Beginning { since: None }
                }
            }
            Doing::Beginning { since: None } if seen.busy => Doing::Beginning { since: Some(now) },
            Doing::Beginning { since: Some(since) }
                if now.since(since) >= (seen.round_trip * BEGINNING_ROUND_TRIPS).max(BEGINNING_MIN) =>
            {
                Doing::Losses { since: now, base: *seen }
            }
            Doing::Losses { .. } if !seen.busy => Doing::Beginning { since: None },
            Doing::Losses { since, base } if now.since(since) >= Self::measured(seen) => {
                if seen.retransmits == base.retransmits {
                    self.want = self.min;
                }
                Doing::Rest { until: now.after(self.wait) }
            }
            Doing::Rest { until } if now >= until && seen.busy && seen.open >= self.want => {
                Doing::Measure { since: now, base: *seen }
            }
            // What stops in the middle says nothing of the path.
            Doing::Measure { .. } if !seen.busy => Doing::Rest { until: now },
            Doing::Measure { since, base } if now.since(since) >= Self::measured(seen) => {
                let rate = rate(&base, seen, now.since(since));
                if self.want < self.max && Self::may_help(&base, seen) {
                    let before = self.want;
                    self.want = (self.want + self.want * GROWTH).min(self.max);
                    Doing::Open { since: now, before, rate }
                } else {
                    Doing::Rest { until: now.after(self.wait) }
                }
            }
            Doing::Open { before, rate, .. } if seen.open >= self.want => {
                Doing::SpeedUp { until: now.after(Self::measured(seen)), before, rate }
            }
            Doing::Open { since, before, .. } if now.since(since) >= OPENING_MAX => {
                self.take_back(before, now)
            }
            Doing::SpeedUp { until, before, rate } if now >= until => {
                Doing::Compare { since: now, base: *seen, before, rate }
            }
            Doing::Compare { since, base, before, rate: rate_before }
                if now.since(since) >= Self::measured(seen) =>
            {
                let now_rate = rate(&base, seen, now.since(since));
                if now_rate > rate_before.saturating_add(rate_before / GAIN_MIN) {
                    self.wait = WAIT.0;
                    // What was measured is what still more have to beat.
                    if self.want < self.max && seen.busy {
                        let before = self.want;
                        self.want = (self.want + self.want * GROWTH).min(self.max);
                        Doing::Open { since: now, before, rate: now_rate }
                    } else {
                        Doing::Rest { until: now.after(self.wait) }
                    }
                } else {
                    self.take_back(before, now)
                }
            }
            doing => doing,
        };
        self.want
    }

    /// What was opened did not help.
    fn take_back(&mut self, before: usize, now: Instant) -> Doing {
        self.want = before.max(self.min);
        let until = now.after(self.wait);
        self.wait = (self.wait * 2).min(WAIT.1);
        Doing::Rest { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A path where each stream moves at most `each`, and all together `all` bytes a second. Returns the number of streams
    /// at each second, and how often it changed.
    fn run(
        all: u64,
        each: u64,
        seconds: u64,
        round_trip: Duration,
        loses: bool,
        busy: impl Fn(u64) -> bool,
    ) -> (Vec<usize>, usize) {
        let mut count = StreamCount::new(4, 16, Instant::START);
        let (mut arrived_bytes, mut open, mut changes, mut each_second) = (0, 4, 0, Vec::new());
        for tick in 0..seconds * 20 {
            let now = Instant::START.after(MS * 50 * tick as u32);
            let busy = busy(tick / 20);
            if busy {
                arrived_bytes += all.min(each * open as u64) / 20;
            }
            let seen =
                Seen { open, arrived_bytes, retransmits: if loses { tick } else { 0 }, busy, round_trip };
            let want = count.look(&seen, now);
            changes += usize::from(want != open);
            open = want;
            if tick % 20 == 19 {
                each_second.push(open);
            }
        }
        (each_second, changes)
    }

    #[test]
    fn other_bounds_move_no_more_streams_than_they_ask_for() {
        let mut count = StreamCount::new(4, 16, Instant::START);
        let idle = Seen { open: 4, arrived_bytes: 0, retransmits: 0, busy: true, round_trip: MS };
        for (min, max, want) in [(32, 512, 32), (4, 16, 16), (4, 512, 16), (1, 2, 2)] {
            count.bound(min, max, Instant::START);
            assert_eq!(count.want(), want);
            // It is no moment to try more: streams have just come or gone.
            assert_eq!(count.look(&Seen { open: want, ..idle }, Instant::START.after(MS)), want);
        }
        count.ask(8);
        assert_eq!(count.want(), 8);
    }

    #[test]
    fn where_loss_bounds_each_stream_there_are_soon_as_many_as_may_be() {
        let (counts, _) = run(62_000_000, 5_600_000, 10, MS * 50, true, |_| true);
        assert_eq!(counts[0], 16, "{counts:?}");
        assert_eq!(counts[9], 16, "{counts:?}");
    }

    #[test]
    fn what_does_not_help_is_taken_back_and_tried_ever_more_rarely() {
        let (counts, changes) = run(20_000_000, 10_000_000, 300, MS * 4, true, |_| true);
        assert_eq!(*counts.last().unwrap(), 4, "{counts:?}");
        let more = counts.iter().filter(|count| **count > 4).count();
        assert!(more < 20, "{more} of 300 s with streams that do not help");
        assert!((4..=20).contains(&changes), "{changes}");
    }

    #[test]
    fn without_work_they_are_as_few_as_at_first() {
        let (counts, _) = run(62_000_000, 5_600_000, 40, MS * 50, true, |second| second < 10);
        assert_eq!((counts[9], counts[39]), (16, 4), "{counts:?}");
    }

    #[test]
    fn on_a_short_path_that_loses_more_are_tried() {
        let (counts, changes) = run(62_000_000, 5_600_000, 10, MS * 4, true, |_| true);
        assert_eq!((counts[4], changes), (16, 2), "twice as many each time: {counts:?}");
    }

    /// Over a long path many begin at once, before there is anything to carry; where nothing is lost few remain.
    #[test]
    fn many_begin_and_few_remain_where_nothing_is_lost() {
        let (counts, _) = run(62_000_000, 40_000_000, 60, MS * 50, false, |second| second >= 1);
        assert_eq!((counts[0], counts[1]), (16, 16), "{counts:?}");
        assert_eq!(counts[4], 4, "{counts:?}");
        let more = counts.iter().skip(4).filter(|count| **count > 4).count();
        assert!(more < 8, "{more} of 56 s with streams that do not help: {counts:?}");
        // After a rest they wait for work.
        let (counts, _) =
            run(62_000_000, 40_000_000, 60, MS * 50, false, |second| !(5..=40).contains(&second));
        assert_eq!((counts[30], counts[40], counts[41]), (4, 4, 16), "{counts:?}");
    }

    #[test]
    fn a_short_path_that_loses_nothing_has_few() {
        let mut count = StreamCount::new(4, 512, Instant::START);
        for tick in 0..400 {
            let seen =
                Seen { open: 4, arrived_bytes: tick * 1_000_000, retransmits: 0, busy: true, round_trip: MS };
            assert_eq!(count.look(&seen, Instant::START.after(MS * 50 * tick as u32)), 4);
        }
    }

    #[test]
    fn who_asks_for_more_gets_them() {
        let mut count = StreamCount::new(4, 16, Instant::START);
        count.ask(32);
        assert_eq!(count.want(), 32);
    }

    #[test]
    fn streams_that_do_not_open_are_given_up() {
        let mut count = StreamCount::new(4, 16, Instant::START);
        let mut most = 0;
        for tick in 0..60 {
            let seen = Seen {
                open: 4,
                arrived_bytes: tick * 1000,
                retransmits: tick,
                busy: true,
                round_trip: MS * 4,
            };
            most = most.max(count.look(&seen, Instant::START.after(MS * 50 * tick as u32)));
        }
        assert_eq!((most, count.want()), (8, 4));
    }
}
