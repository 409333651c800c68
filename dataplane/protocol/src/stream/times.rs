//! Where the time of a session's guest bytes goes: being handled, being encoded, waiting for the source, waiting for the path.
//!
//! The sums are over round trips, not batches: acknowledgements come in clumps, so that of the batches which a clump lets in
//! only the first has waited.

use super::link::Link;
use crate::page::policy::{Policy, Terms};
use crate::time::{Cost, Instant};
use std::time::Duration;

/// A period lasts a round trip, and no less than this.
const PERIOD_MIN: Duration = Duration::from_millis(20);
/// Nor is it over before this many bytes have passed.
const PERIOD_BYTES_MIN: f64 = 65_536.0;
/// Of earlier periods' sums so much is kept at the end of each.
const KEEP: f64 = 0.5;
/// How long the least handling that was seen is believed.
const LEAST_AGE: Duration = Duration::from_secs(4);
/// Reading a byte and sending it costs at most about so many times what digesting and parsing it does.
const HANDLING_FACTOR: f64 = 3.0;
/// Of the time in which a session waits for its source, the share that encoding may take: there
/// are other sessions, and guests, on these processors.
const FREE_SHARE: f64 = 0.25;
/// The same of the time in which it waits for the far hypervisor, or for a window that is still growing.
const HELD_UP_FREE_SHARE: f64 = 0.5;
/// The same while streams begin: they carry little, whatever is done.
const STARTS_FREE_SHARE: f64 = 0.7;
/// A session whose source waits for the path less than this share of the time is not held up by it.
const HELD_UP_SHARE: f64 = 0.05;
/// Nor is one held up by it that spends so many times longer on encoding.
const ENCODING_SHARE: f64 = 4.0;
/// While nothing shows that the link is the bottleneck, it is taken to be this much faster with every period: how fast it is
/// can only be learned by using it.
const LINK_GROWTH: f64 = 1.25;
const LINK_GROWTH_MAX: f64 = 1e6;
/// The same while streams begin.
const START_GROWTH: f64 = 2.0;
/// It is asked so many periods after it was the bottleneck for the last time.
const LINK_GROWTH_AFTER: u32 = 4;

/// Encoding takes at most so many times its processor time, whatever was seen: no thread starves for long.
const CROWDING_MAX: f64 = 16.0;

/// What a batch waited for before it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The source, or the thread's other work.
    Source,
    /// Window or credit.
    Path,
    /// Somebody who encodes earlier batches.
    Encoders,
}

/// Nanoseconds, and the guest bytes that they were spent on.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    bytes: f64,
    /// All of it.
    elapsed: f64,
    encoding: f64,
    /// What of encoding threads were at work; the rest others had the processor.
    worked: f64,
    /// Digesting, parsing, making frames.
    handling: f64,
    /// Waiting for the source or for the thread's turn, and the bytes that waited for nothing else.
    source: f64,
    source_bytes: f64,
    path: f64,
}

impl Sums {
    /// Nanoseconds a byte besides encoding and waiting for the path.
    fn other(&self) -> f64 {
        let handling = (self.handling / self.bytes.max(1.0)).max(0.0);
        handling + self.source / self.source_bytes.max(1.0)
    }
}

/// The least of the last one to two [`LEAST_AGE`]s.
#[derive(Clone, Copy, Debug, Default)]
struct Least {
    current: Option<f64>,
    previous: Option<f64>,
    since: Instant,
}

impl Least {
    fn add(&mut self, value: f64, now: Instant) {
        if now.since(self.since) >= LEAST_AGE {
            (self.previous, self.current, self.since) = (self.current, None, now);
        }
        self.current = Some(self.current.map_or(value, |least| least.min(value)));
    }

    fn get(&self) -> f64 {
        let least = self.current.unwrap_or(f64::MAX).min(self.previous.unwrap_or(f64::MAX));
        if least == f64::MAX { 0.0 } else { least }
    }
}

/// The time of one session's outgoing direction.
#[derive(Clone, Debug)]
pub(super) struct Times {
    /// When the last batch had been handled.
    last: Option<Instant>,
    since: Instant,
    period: Sums,
    /// Of this period and earlier ones.
    recent: Sums,
    /// All that is not encoding nor waiting for the path, and the handling in it, nanoseconds a byte.
    other: Least,
    handling: Least,
    link_growth: f64,
    unlimited_periods: u32,
    limited: u64,
    /// What the batch at hand has waited for.
    wait: Wait,
    trial: Trial,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            last: None,
            since: Instant::START,
            period: Sums::default(),
            recent: Sums::default(),
            other: Least::default(),
            handling: Least::default(),
            link_growth: 1.0,
            unlimited_periods: 0,
            limited: 0,
            wait: Wait::Source,
            trial: Trial::default(),
        }
    }
}

impl Times {
    /// A batch is about to be handled. Returns how long it waited for the path.
    pub(super) fn begin(&mut self, wait: Wait, now: Instant) -> Duration {
        let Some(last) = self.last.replace(now) else {
            // Nobody knows what the first one has waited for.
            (self.since, self.wait) = (now, Wait::Encoders);
            return Duration::ZERO;
        };
        self.wait = wait;
        let gap = now.since(last);
        let gap_ns = gap.as_nanos() as f64;
        self.period.elapsed += gap_ns;
        match wait {
            Wait::Source => self.period.source += gap_ns,
            Wait::Path => self.period.path += gap_ns,
            Wait::Encoders => {}
        }
        if wait == Wait::Path { gap } else { Duration::ZERO }
    }

    /// So much encoding has been done; `here`: between [`Times::begin`] and [`Times::end`].
    pub(super) fn encoded(&mut self, cost: Cost, here: bool) {
        self.period.encoding += cost.elapsed_ns as f64;
        self.period.worked += cost.worked_ns as f64;
        if here {
            self.period.handling -= cost.elapsed_ns as f64;
        }
    }

    /// The batch of `bytes` bytes has been handled.
    pub(super) fn end(&mut self, bytes: usize, now: Instant) {
        let spent = self.last.replace(now).map_or(0.0, |began| now.since(began).as_nanos() as f64);
        self.period.elapsed += spent;
        self.period.handling += spent;
        self.period.bytes += bytes as f64;
        if self.wait == Wait::Source {
            self.period.source_bytes += bytes as f64;
        }
    }

    /// At the end of a period, the policy learns what holds bytes up.
    pub(super) fn settle(&mut self, policy: &mut Policy, link: &Link, workers: u16, now: Instant) {
        let round_trip = link.round_trip().unwrap_or_default();
        // The first is over as soon as anything can be known: it began without any knowledge.
        let least = if self.recent.bytes > 0.0 { PERIOD_MIN.max(round_trip) } else { round_trip };
        if now.since(self.since) < least || self.period.bytes < PERIOD_BYTES_MIN || link.rate().is_none() {
            return;
        }
        let period = std::mem::take(&mut self.period);
        self.since = now;
        let per_byte = |ns: f64| (ns / period.bytes).max(0.0);
        self.handling.add(per_byte(period.handling), now);
        if period.source_bytes * 4.0 > period.bytes {
            self.other.add(period.other(), now);
        }
        let recent = &mut self.recent;
        for (sum, new) in [
            (&mut recent.bytes, period.bytes),
            (&mut recent.elapsed, period.elapsed),
            (&mut recent.encoding, period.encoding),
            (&mut recent.worked, period.worked),
            (&mut recent.handling, period.handling),
            (&mut recent.source, period.source),
            (&mut recent.source_bytes, period.source_bytes),
            (&mut recent.path, period.path),
        ] {
            *sum = *sum * KEEP + new;
        }
        let limited = link.limited() > self.limited;
        self.limited = link.limited();
        let held_up = self.recent.path > HELD_UP_SHARE * self.recent.elapsed;
        if limited {
            (self.link_growth, self.unlimited_periods) = (1.0, 0);
        } else if !held_up || self.recent.encoding > ENCODING_SHARE * self.recent.path {
            self.unlimited_periods += 1;
            // Streams that begin slowly carry twice as much in each round trip.
            let grows = if link.starts() { START_GROWTH } else { LINK_GROWTH };
            if link.starts() || self.unlimited_periods > LINK_GROWTH_AFTER {
                self.link_growth = (self.link_growth * grows).min(LINK_GROWTH_MAX);
            }
        }
        let rate = period.bytes * 1e9 / period.elapsed.max(1.0);
        let far_rate = 1e9 / (FAR_FACTOR * self.other.get()).max(1e-3);
        if self.trial.rests(policy.is_resting(), rate, far_rate, held_up && !link.starts(), now) {
            policy.rest();
        } else {
            policy.adapt(&self.terms(link, limited, workers));
        }
    }

    /// What holds a byte up.
    fn terms(&self, link: &Link, limited: bool, workers: u16) -> Terms {
        let per_byte = |ns: f64| (ns / self.recent.bytes.max(1.0)).max(0.0);
        let (handling_ns, encoding) = (self.other.get(), per_byte(self.recent.encoding));
        // A source that writes evenly hides behind its own pace what handling costs.
        let least = handling_ns.min(HANDLING_FACTOR * self.handling.get());
        let idle = (self.recent.other() - least).max(0.0);
        // Whom the link holds up is accounted for by its rate.
        let held_up = if limited { 0.0 } else { per_byte(self.recent.path) };
        // Where nothing is idle any more, encoding is what fills the time.
        let free = |share: f64, idle: f64| share * (idle + encoding.min(idle * share / (1.0 - share)));
        let held_up_share = if link.starts() { STARTS_FREE_SHARE } else { HELD_UP_FREE_SHARE };
        let free_ns = free(FREE_SHARE, idle).max(free(held_up_share, held_up));
        // A link that never was the bottleneck is known to be at least so fast, and no more.
        let known = link.rate().filter(|_| link.limited() > 0);
        let link_ns = known.map_or(0.0, |rate| 1e9 / (rate.max(1.0) * self.link_growth)).max(link.bound_ns());
        let crowding = (self.recent.encoding / self.recent.worked.max(1.0)).clamp(1.0, CROWDING_MAX);
        Terms { link_ns, handling_ns, free_ns, workers, crowding }
    }
}

/// Periods in a row that must have been slower before compression rests.
const SLOWER_PERIODS: u32 = 4;
/// Slower than this share of what was seen without compression.
const SLOWER: f64 = 0.93;
/// How long compression rests then: at first, and at most; doubled each time.
const REST: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(16);
/// Where it has not been seen yet what it is like without, that is looked at after so many periods, for so many: what had been
/// compressed is under way for two or three more, and the better of the last two counts. It costs a slow link a few hundredths of the time by then, once.
const LOOK_AFTER_PERIODS: u32 = 60;
const LOOK_PERIODS: u32 = 7;
/// A far gateway may be so many times as slow as this one; what is slower than that is the link, and nothing has to be proven.
const FAR_FACTOR: f64 = 10.0;

/// Compression has to prove itself: where guest bytes get across slower with it than they did without, it rests for a while.
/// What looks like a slow link may be a far gateway whose processor is busy, and then fewer bytes help nobody.
#[derive(Clone, Copy, Debug, Default)]
struct Trial {
    /// Guest bytes a second while nothing was compressed and the path was the bottleneck.
    without: Option<f64>,
    /// Periods in a row that were slower, or that nothing is known to compare with.
    doubtful: u32,
    looking: u32,
    rests_until: Option<Instant>,
    rest: Duration,
}

impl Trial {
    /// Whether compression is to rest in the next period, after one at `rate` guest bytes a second; `far_rate` is what a busy far
    /// gateway may be as slow as.
    fn rests(&mut self, resting: bool, rate: f64, far_rate: f64, held_up: bool, now: Instant) -> bool {
        if self.looking > 0 {
            self.looking -= 1;
            if self.looking < 2 {
                self.without = Some(self.without.map_or(rate, |without| without.max(rate)));
            }
            return self.looking > 0;
        }
        if resting && held_up {
            self.without = Some(self.without.map_or(rate, |without| without + (rate - without) / 4.0));
        }
        if let Some(until) = self.rests_until {
            if now < until {
                return true;
            }
            self.rests_until = None;
        }
        if resting || !held_up {
            self.doubtful = 0;
            return false;
        }
        let (doubtful, enough) = match self.without {
            Some(without) => (rate < without * SLOWER, SLOWER_PERIODS),
            None => (rate > far_rate, LOOK_AFTER_PERIODS),
        };
        self.doubtful = if doubtful { self.doubtful + 1 } else { 0 };
        if self.doubtful < enough {
            if !doubtful {
                // The longer it has proven itself, the more the next time is news again.
                self.rest = self.rest.mul_f64(0.98);
            }
            return false;
        }
        self.doubtful = 0;
        if self.without.is_none() {
            self.looking = LOOK_PERIODS;
            return true;
        }
        self.rest = (self.rest * 2).clamp(REST, REST_MAX);
        self.rests_until = Some(now.after(self.rest));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::START.after(Duration::from_millis(ms))
    }

    #[test]
    fn what_does_not_help_rests_ever_longer() {
        let mut trial = Trial::default();
        let mut now = 0;
        let mut rests = Vec::new();
        for _ in 0..4 {
            assert!(!trial.rests(true, 100e6, 125e6, true, ms(now)), "nothing was compressed yet");
            let mut periods = 0;
            while !trial.rests(false, 80e6, 125e6, true, ms(now)) {
                periods += 1;
                assert!(periods < 100, "goes on for ever");
                now += 20;
            }
            assert!(periods >= 3, "after {periods} periods");
            let began = now;
            while trial.rests(true, 100e6, 125e6, true, ms(now)) {
                now += 10;
            }
            rests.push(now - began);
        }
        assert_eq!(rests, [250, 500, 1000, 2000]);
    }

    #[test]
    fn what_helps_goes_on() {
        let mut trial = Trial::default();
        trial.rests(true, 100e6, 125e6, true, ms(0));
        // Faster; slower because the source is; slower for a moment.
        assert!((0..100).all(|period| !trial.rests(false, 150e6, 125e6, true, ms(period * 20))));
        assert!((100..200).all(|period| !trial.rests(false, 10e6, 125e6, false, ms(period * 20))));
        assert!((200..203).all(|period| !trial.rests(false, 80e6, 125e6, true, ms(period * 20))));
        assert!(!trial.rests(false, 150e6, 125e6, true, ms(5000)));
    }

    #[test]
    fn what_was_never_seen_without_is_looked_at_once() {
        let (mut trial, mut resting, mut rested) = (Trial::default(), false, 0);
        for period in 0..200 {
            // Twice as fast with it.
            let rate = if resting { 100e6 } else { 200e6 };
            resting = trial.rests(resting, rate, 125e6, true, ms(period * 20));
            rested += u32::from(resting);
        }
        assert_eq!(rested, LOOK_PERIODS, "rested");
        assert!(trial.without.is_some_and(|without| (without - 100e6).abs() < 1e6), "{:?}", trial.without);
    }

    #[test]
    fn time_is_told_apart() {
        let mut times = Times::default();
        for batch in 0..4u64 {
            let wait = if batch % 2 == 0 { Wait::Path } else { Wait::Source };
            let held_up = times.begin(wait, ms(batch * 10));
            assert_eq!(held_up, Duration::from_millis(if batch == 2 { 7 } else { 0 }));
            times.encoded(Cost { elapsed_ns: 1_000_000, worked_ns: 500_000 }, true);
            times.end(1000, ms(batch * 10 + 3));
        }
        let period = times.period;
        assert_eq!((period.bytes, period.elapsed), (4000.0, 33e6));
        assert_eq!((period.encoding, period.worked, period.handling), (4e6, 2e6, 8e6));
        assert_eq!((period.source, period.source_bytes, period.path), (14e6, 2000.0, 7e6));
    }
}
