//! Decides the mode, and when it changes.
//!
//! The first decision falls once both round trip and bandwidth are known, or after [`MODE_FIRST_DECISION`] with what is. Then
//! the path is looked at every interval. A value must be past a threshold by a margin to count as past it, and after a change
//! comes a rest, so that a path that sits on a threshold does not move the mode to and fro. A *sharp* change, by a factor that
//! such a path does not show, waits for neither interval nor rest: once a second reading confirms it, the path is another one,
//! and is measured and decided on as at first.

use super::Mode;
use crate::limits::{MODE_FIRST_DECISION, MODE_MARGIN, MODE_REST, MODE_SHARP};
use crate::probe::prober::Recent;
use crate::time::Instant;
use std::time::Duration;

/// Where modes part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Below this round trip, in nanoseconds, a path may be a datacenter's.
    pub datacenter_rtt_ns: f64,
    /// Above this one it is the internet's.
    pub internet_rtt_ns: f64,
    /// Above this, in bits a second, a path may be a datacenter's; below it is the internet's.
    pub bandwidth_bits_per_s: f64,
    /// How often a path is looked at.
    pub interval: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            datacenter_rtt_ns: 10e6,
            internet_rtt_ns: 50e6,
            bandwidth_bits_per_s: 1e9,
            interval: Duration::from_secs(30),
        }
    }
}

/// Why a mode is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was measured.
    Measured,
    /// The path changed sharply.
    Sharp,
    /// Too little is known: the default.
    Unknown,
    /// Somebody said so.
    Override,
}

impl Why {
    /// Its name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Why::Measured => "measured",
            Why::Sharp => "sharp_change",
            Why::Unknown => "unknown",
            Why::Override => "override",
        }
    }
}

/// A mode began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The one before; `None`: it is the first.
    pub from: Option<Mode>,
    /// The one now.
    pub to: Mode,
    /// Why.
    pub why: Why,
}

/// Decides the mode of one path.
#[derive(Clone, Debug)]
pub struct Detector {
    thresholds: Thresholds,
    started: Instant,
    forced: Option<Mode>,
    /// What measurement says, whether or not it is overridden.
    measured: Option<(Mode, Why)>,
    said: Option<Mode>,
    looked: Instant,
    /// When it last changed; `None`: it is as it was first decided, perhaps of little, and no rest is due.
    changed: Option<Instant>,
    /// What later readings are compared with.
    base: Recent,
    /// A sharp change was seen once.
    doubted: bool,
    /// Since when a path that changed sharply is measured anew.
    anew: Option<Instant>,
    /// Whoever measures has not been told yet.
    asks_anew: bool,
}

impl Detector {
    /// A detector that starts to look now.
    pub fn new(thresholds: Thresholds, forced: Option<Mode>, now: Instant) -> Self {
        Detector {
            thresholds,
            started: now,
            forced,
            measured: None,
            said: None,
            looked: now,
            changed: None,
            base: Recent::default(),
            doubted: false,
            anew: None,
            asks_anew: false,
        }
    }

    /// The mode; `None` before the first decision.
    pub fn mode(&self) -> Option<Mode> {
        self.said
    }

    /// Why it is that.
    pub fn why(&self) -> Option<Why> {
        if self.forced.is_some() { Some(Why::Override) } else { self.measured.map(|(_, why)| why) }
    }

    /// From now on the mode is this one whatever is measured; `None`: what is measured.
    pub fn force(&mut self, mode: Option<Mode>) -> Option<Change> {
        self.forced = mode;
        self.say()
    }

    /// Looks at a reading; call it several times a second. Returns the change that it came to.
    pub fn observe(&mut self, now: Instant, reading: Recent) -> Option<Change> {
        match self.measured {
            None => self.decide_first(now, reading),
            Some((mode, why)) => self.look_again(now, reading, mode, why),
        }
        self.say()
    }

    fn decide_first(&mut self, now: Instant, reading: Recent) {
        let is_due = now.since(self.started) >= MODE_FIRST_DECISION;
        if !is_due && (reading.rtt_ns.is_none() || reading.bandwidth_bits_per_s.is_none()) {
            return;
        }
        let decided = self.class(reading, None);
        self.measured = Some(decided.map_or((Mode::Hybrid, Why::Unknown), |mode| (mode, Why::Measured)));
        (self.looked, self.base) = (now, reading);
    }

    fn look_again(&mut self, now: Instant, reading: Recent, mode: Mode, why: Why) {
        if let Some(since) = self.anew {
            return self.decide_anew(now, since, reading, mode);
        }
        // A bandwidth that was not needed, and bears the mode out, is no change.
        if self.base.bandwidth_bits_per_s.is_none() && self.class(reading, None) == Some(mode) {
            self.base.bandwidth_bits_per_s = reading.bandwidth_bits_per_s;
        }
        let sharp = is_sharp(self.base.rtt_ns, reading.rtt_ns)
            || is_sharp(self.base.bandwidth_bits_per_s, reading.bandwidth_bits_per_s);
        let confirmed = sharp && self.doubted;
        self.doubted = sharp && !confirmed;
        if confirmed && why != Why::Unknown {
            (self.anew, self.asks_anew) = (Some(now), true);
            // What was measured of the bandwidth is of the path as it was: what counts of it now is whether it is needed.
            return self.decide_anew(now, now, Recent { bandwidth_bits_per_s: None, ..reading }, mode);
        }
        let is_due = now.since(self.looked) >= self.thresholds.interval || why == Why::Unknown;
        if !is_due {
            return;
        }
        let Some(decided) = self.class(reading, Some(mode)) else { return };
        let rested = self.changed.is_none_or(|changed| now.since(changed) >= MODE_REST);
        if decided != mode && (why == Why::Unknown || rested) {
            self.changed = Some(now);
            self.measured = Some((decided, Why::Measured));
        } else if why == Why::Unknown {
            self.measured = Some((decided, Why::Measured));
        }
        self.looked = now;
        if why == Why::Unknown || decided != mode {
            self.base = reading;
        }
    }

    /// Decides on a path that changed sharply: once it is known what it is, or after as long as at first. It is another path, so
    /// that no margin speaks for the present mode.
    fn decide_anew(&mut self, now: Instant, since: Instant, reading: Recent, mode: Mode) {
        let decided = self.class(reading, None);
        if decided.is_none() && now.since(since) < MODE_FIRST_DECISION {
            return;
        }
        self.anew = None;
        (self.looked, self.base) = (now, reading);
        if let Some(decided) = decided.filter(|decided| *decided != mode) {
            self.changed = Some(now);
            self.measured = Some((decided, Why::Sharp));
        }
    }

    /// Whether the path changed so that what was measured of it before says nothing any more. True once for each such change.
    pub fn asks_anew(&mut self) -> bool {
        std::mem::take(&mut self.asks_anew)
    }

    /// The mode of a reading, with the margin in favour of the present one; `None`: it cannot be said.
    fn class(&self, reading: Recent, present: Option<Mode>) -> Option<Mode> {
        let Thresholds { datacenter_rtt_ns, internet_rtt_ns, bandwidth_bits_per_s, .. } = self.thresholds;
        let rtt_ns = reading.rtt_ns?;
        let (wider, narrower) = (1.0 + MODE_MARGIN, 1.0 / (1.0 + MODE_MARGIN));
        // How far each border is moved away from the present mode.
        let (near, far, fast, slow) = match present {
            None => (1.0, 1.0, 1.0, 1.0),
            Some(Mode::Datacenter) => (wider, wider, narrower, narrower),
            Some(Mode::Internet) => (narrower, narrower, wider, wider),
            Some(Mode::Hybrid) => (narrower, wider, wider, narrower),
        };
        if rtt_ns > internet_rtt_ns * far {
            return Some(Mode::Internet);
        }
        let bandwidth = reading.bandwidth_bits_per_s?;
        if bandwidth < bandwidth_bits_per_s * slow {
            return Some(Mode::Internet);
        }
        let is_near = rtt_ns < datacenter_rtt_ns * near && bandwidth > bandwidth_bits_per_s * fast;
        Some(if is_near { Mode::Datacenter } else { Mode::Hybrid })
    }

    fn say(&mut self) -> Option<Change> {
        let to = self.forced.or(self.measured.map(|(mode, _)| mode))?;
        let why = self.why()?;
        let from = self.said.replace(to);
        (from != Some(to)).then_some(Change { from, to, why })
    }
}

fn is_sharp(before: Option<f64>, now: Option<f64>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => now > before * MODE_SHARP || now * MODE_SHARP < before,
        // What was not known is.
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(rtt_ms: f64, mbit_per_s: f64) -> Recent {
        Recent { rtt_ns: Some(rtt_ms * 1e6), bandwidth_bits_per_s: Some(mbit_per_s * 1e6) }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000 + 1)
    }

    fn detector() -> Detector {
        Detector::new(Thresholds::default(), None, at(0))
    }

    #[test]
    fn the_specifications_table() {
        for (rtt_ms, mbit_per_s, mode) in [
            (0.2, 10_000.0, Mode::Datacenter),
            (9.9, 1_001.0, Mode::Datacenter),
            (10.1, 1_001.0, Mode::Hybrid),
            (49.0, 5_000.0, Mode::Hybrid),
            (51.0, 10_000.0, Mode::Internet),
            (0.2, 999.0, Mode::Internet),
            (200.0, 50.0, Mode::Internet),
        ] {
            let change = detector().observe(at(100), reading(rtt_ms, mbit_per_s));
            assert_eq!(
                change,
                Some(Change { from: None, to: mode, why: Why::Measured }),
                "{rtt_ms} {mbit_per_s}"
            );
        }
    }

    #[test]
    fn the_first_decision_does_not_wait_for_ever() {
        let mut unheard = detector();
        assert_eq!(unheard.observe(at(1_000), Recent::default()), None);
        let decided = unheard.observe(at(1_801), Recent::default());
        assert_eq!(decided, Some(Change { from: None, to: Mode::Hybrid, why: Why::Unknown }));
        // As soon as more is known, it counts.
        let decided = unheard.observe(at(2_000), reading(0.5, 9_000.0)).unwrap();
        assert_eq!((decided.to, decided.why), (Mode::Datacenter, Why::Measured));
        let mut far = detector();
        let decided = far.observe(at(1_900), Recent { rtt_ns: Some(80e6), bandwidth_bits_per_s: None });
        assert_eq!(decided.map(|change| change.to), Some(Mode::Internet));
    }

    #[test]
    fn an_override_wins_and_ends() {
        let mut detector = detector();
        detector.observe(at(1), reading(0.2, 10_000.0));
        let forced = detector.force(Some(Mode::Internet)).unwrap();
        assert_eq!(
            (forced.from, forced.to, forced.why),
            (Some(Mode::Datacenter), Mode::Internet, Why::Override)
        );
        for ms in 1..400 {
            assert_eq!(detector.observe(at(ms * 1_000), reading(30.0, 2_000.0)), None);
        }
        assert_eq!(detector.mode(), Some(Mode::Internet));
        assert!(detector.force(None).is_some_and(|change| change.to != Mode::Internet));
    }

    #[test]
    fn a_sharp_change_is_followed_there_and_back() {
        let mut detector = detector();
        detector.observe(at(100), reading(1.0, 1_500.0));
        assert_eq!(detector.mode(), Some(Mode::Datacenter));
        // One odd reading is none.
        assert_eq!(detector.observe(at(1_000), reading(80.0, 200.0)), None);
        assert_eq!(detector.observe(at(1_250), reading(1.0, 1_500.0)), None);
        assert_eq!(detector.observe(at(2_000), reading(80.0, 200.0)), None);
        assert!(!detector.asks_anew());
        let there = detector.observe(at(2_250), reading(80.0, 200.0)).unwrap();
        assert_eq!((there.to, there.why), (Mode::Internet, Why::Sharp));
        assert!(detector.asks_anew() && !detector.asks_anew());
        // A round trip of 80 ms needed no bandwidth; when that is known, it is a part of the same path.
        let unknown = |rtt_ms: f64| Recent { rtt_ns: Some(rtt_ms * 1e6), bandwidth_bits_per_s: None };
        assert_eq!(detector.observe(at(2_500), unknown(80.0)), None);
        for ms in (2_750..8_000).step_by(250) {
            assert_eq!(detector.observe(at(ms), reading(80.0, 200.0)), None);
        }
        assert!(!detector.asks_anew());
        // The way back needs it: what it was at 80 ms does not count.
        assert_eq!(detector.observe(at(9_000), reading(1.0, 200.0)), None);
        assert_eq!(detector.observe(at(9_250), reading(1.0, 200.0)), None);
        assert!(detector.asks_anew());
        assert_eq!(detector.observe(at(9_500), unknown(1.0)), None);
        let back = detector.observe(at(9_750), reading(1.0, 1_100.0)).unwrap();
        assert_eq!((back.to, back.why), (Mode::Datacenter, Why::Sharp));
    }

    #[test]
    fn a_path_that_stays_unknown_after_a_sharp_change_keeps_its_mode() {
        let mut detector = detector();
        detector.observe(at(100), reading(80.0, 200.0));
        let lost = Recent { rtt_ns: Some(1e6), bandwidth_bits_per_s: None };
        for ms in (1_000..5_000).step_by(250) {
            assert_eq!(detector.observe(at(ms), lost), None);
        }
        assert_eq!(detector.mode(), Some(Mode::Internet));
    }

    #[test]
    fn a_slow_drift_is_followed_at_the_next_look() {
        let mut detector = detector();
        detector.observe(at(0), reading(8.0, 2_000.0));
        assert_eq!(detector.observe(at(29_000), reading(20.0, 2_000.0)), None);
        let change = detector.observe(at(30_001), reading(20.0, 2_000.0)).unwrap();
        assert_eq!((change.to, change.why), (Mode::Hybrid, Why::Measured));
    }

    proptest! {
        /// A path that sits on a threshold, and strays from it by less than a factor of two, changes the mode at most once in
        /// any five minutes.
        #[test]
        fn on_a_threshold_there_is_at_most_one_change_in_five_minutes(
            noise in proptest::collection::vec((0.51..1.99f64, 0.51..1.99f64), 100..3000),
            rtt_ms in prop_oneof![Just(10.0), Just(50.0), Just(1.0), Just(25.0)],
            step_ms in 250..3_000u64,
        ) {
            let mut detector = detector();
            let mut changes: Vec<u64> = Vec::new();
            for (step, (rtt, bandwidth)) in noise.into_iter().enumerate() {
                let ms = step as u64 * step_ms;
                if detector.observe(at(ms), reading(rtt_ms * rtt, 1_000.0 * bandwidth)).is_some() {
                    changes.push(ms);
                }
            }
            // The first is the decision itself.
            for pair in changes[1..].windows(2) {
                prop_assert!(pair[1] - pair[0] >= 300_000, "{changes:?}");
            }
        }

        /// Whatever is read, there is a decision after two seconds and no panic.
        #[test]
        fn there_is_always_a_decision(
            readings in proptest::collection::vec((any::<Option<f64>>(), any::<Option<f64>>()), 1..50),
        ) {
            let mut detector = detector();
            for (step, (rtt_ns, bandwidth_bits_per_s)) in readings.into_iter().enumerate() {
                detector.observe(at(2_000 + step as u64 * 250), Recent { rtt_ns, bandwidth_bits_per_s });
                prop_assert!(detector.mode().is_some());
            }
        }
    }
}
