//! How fast the link between two gateways takes encoded bytes, and whether it is what holds them up.
//!
//! What is delivered in a time says how fast the link is only while the link is the bottleneck; otherwise it says how fast the
//! source, the codec or the far hypervisor is. BBR discounts samples that the application limited (Cardwell et al., ACM Queue
//! 14-5); here an interval counts as the link's only if the hypervisor had to wait for long in it *and* every frame took clearly
//! longer than the shortest round trip. It is the least delay that tells a standing queue from a burst (Nichols and Jacobson,
//! "Controlling queue delay", ACM Queue 10-5): of acknowledgements that come in clumps the last has waited for none.

use super::measure::{ArrivalRate, Growth, Highest, RoundTrip, rate_age, window};
use crate::limits::SEND_WINDOW_BYTES_START;
use crate::time::Instant;
use std::time::Duration;

/// Frames that take longer than this share of the shortest round trip, and this much longer, stood in a queue. What has arrived is
/// learned when streams are looked at: less than the time between two looks says nothing.
const QUEUE_SHARE: f64 = 1.25;
const QUEUE_MIN: Duration = Duration::from_millis(5);
/// A rate so many times the usual one is no burst of acknowledgements: the window has grown.
const BURST: f64 = 1.4;
/// For so much of an interval the hypervisor has to wait for it to be the link's.
const HELD_UP_SHARE: f64 = 0.15;

/// The estimates of the link that a session's streams share.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    round_trip: RoundTrip,
    /// For the window: what the link did at its best, of late.
    highest: Highest,
    /// For the choice of efforts: what it does, bytes a second.
    usual: Option<f64>,
    growth: Growth,
    arrivals: ArrivalRate,
    /// How long the quickest frame of the present interval took.
    delay: Option<Duration>,
    /// How long the hypervisor waited.
    held_up: Duration,
    /// All the time in it the far hypervisor was behind with taking what had been verified; `None`: it was not asked.
    behind: Option<bool>,
    /// Intervals so far that were the link's.
    limited: u64,
    /// More bytes a second than this are not sent, whatever it takes.
    bound: Option<f64>,
}

impl Link {
    /// Something is sent that was not read for so long because too much was under way.
    pub(super) fn sent(&mut self, held_up: Duration, now: Instant) {
        self.arrivals.begin(now);
        self.held_up += held_up;
    }

    /// Whether the far hypervisor is behind: what is late then is not the link's doing. After a loss is repaired it is for a
    /// moment, because everything comes at once.
    pub(super) fn far_side(&mut self, behind: bool) {
        self.behind = Some(behind && self.behind != Some(false));
    }

    /// What left at `left_at` has arrived, or been verified where nobody says what has arrived.
    pub(super) fn acknowledged(&mut self, left_at: Instant, now: Instant) {
        self.round_trip.add(left_at, now);
        let delay = now.since(left_at);
        self.delay = Some(self.delay.map_or(delay, |least| least.min(delay)));
    }

    /// So many encoded bytes in all since the beginning have arrived, in whatever order.
    pub(super) fn arrived(&mut self, total: u64, now: Instant) {
        let (Some(delay), round_trip) = (self.delay, self.round_trip().unwrap_or_default()) else { return };
        let Some(rates) = self.arrivals.end(total, round_trip, now) else { return };
        self.growth.seen(rates.last);
        let queued = round_trip.mul_f64(QUEUE_SHARE).max(round_trip + QUEUE_MIN);
        let held_up = self.held_up > rates.elapsed.mul_f64(HELD_UP_SHARE);
        let waits = held_up && self.behind != Some(true);
        let limited = waits && delay > queued;
        // While the window opens, frames are slow because their streams are.
        if limited || waits && self.growth.starts() {
            self.growth.interval(rates.recent, self.highest.get());
        }
        let settled = self.growth.is_over();
        let high = if settled { rates.usual } else { rates.recent };
        let rate = if settled { rates.usual } else { rates.last } as f64;
        if limited || self.highest.get().is_none_or(|best| high > best) {
            self.highest.add(high, now, rate_age(round_trip));
        }
        self.usual = Some(match self.usual {
            None => rate,
            // It is at least as fast as it has just been, unless that was a burst. That it was slower may also be because there
            // was nothing to send for a while, which is believed only when it happens again and again.
            Some(usual) if rate > usual * BURST => usual + (rate - usual) / 2.0,
            Some(usual) if rate > usual => usual + (rate - usual) / 4.0,
            Some(usual) if limited && rate * 2.0 < usual => usual + (rate - usual) / 4.0,
            Some(usual) if limited => usual + (rate - usual) / 16.0,
            Some(usual) => usual,
        });
        self.limited += u64::from(limited);
        self.delay = None;
        (self.held_up, self.behind) = (Duration::ZERO, None);
    }

    /// No more bytes a second are sent than this.
    pub(super) fn bound(&mut self, rate: Option<u64>) {
        self.bound = rate.map(|rate| rate.max(1) as f64);
    }

    /// Nanoseconds that each byte takes at least, because no more are sent; 0: there is no such bound.
    pub(super) fn bound_ns(&self) -> f64 {
        self.bound.map_or(0.0, |rate| 1e9 / rate)
    }

    /// Shortest recent round trip.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.shortest
    }

    /// Bytes a second that it is known to take; it may take more while [`Link::limited`] does not grow.
    pub(super) fn rate(&self) -> Option<f64> {
        self.usual
    }

    /// It is not known yet, because streams begin slowly: in the next round trips they carry more.
    pub(super) fn starts(&self) -> bool {
        self.growth.starts()
    }

    /// Intervals so far in which it was what held bytes up.
    pub(super) fn limited(&self) -> u64 {
        self.limited
    }

    /// Encoded bytes that may be under way: when what is read begins to shrink less, guest bytes that were few on the link
    /// become many.
    pub(super) fn window(&self) -> u64 {
        match (self.highest.get(), self.round_trip()) {
            (Some(rate), Some(round_trip)) => window(rate, round_trip, &self.growth),
            _ => SEND_WINDOW_BYTES_START,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::START.after(Duration::from_millis(ms))
    }

    /// `rounds` intervals of 50 ms that deliver `bytes` each, of frames that took `delay_ms`.
    fn run(link: &mut Link, from: u64, rounds: u64, bytes: u64, delay_ms: u64, held_up: bool) {
        for round in from..from + rounds {
            let at = 1000 + round * 50;
            link.sent(Duration::from_millis(if held_up { 30 } else { 0 }), ms(at));
            link.acknowledged(ms(at + 50 - delay_ms), ms(at + 50));
            link.arrived(link.arrivals.total() + bytes, ms(at + 50));
        }
    }

    #[test]
    fn a_slow_source_says_nothing_about_the_link() {
        let mut link = Link::default();
        run(&mut link, 0, 20, 1_000_000, 40, true);
        run(&mut link, 20, 200, 1_000, 40, false);
        assert!((link.rate().unwrap() - 20e6).abs() < 1e6, "{:?}", link.rate());
    }

    #[test]
    fn a_window_that_is_too_small_is_not_the_link() {
        let mut link = Link::default();
        run(&mut link, 0, 20, 1_000_000, 40, true);
        assert_eq!(link.limited(), 0, "no queue");
        run(&mut link, 20, 20, 1_000_000, 50 + 20, true);
        assert!(link.limited() >= 19, "{}", link.limited());
    }

    /// What arrives in lumps is as fast as it is on average.
    #[test]
    fn lumps_do_not_make_a_link_faster() {
        let mut link = Link::default();
        run(&mut link, 0, 20, 1_000_000, 40, true);
        for round in 0..100 {
            run(&mut link, 20 + round, 1, if round % 2 == 0 { 1_900_000 } else { 100_000 }, 70, true);
        }
        assert!((link.rate().unwrap() - 20e6).abs() < 5e6, "{:?}", link.rate());
        // By the highest of single intervals it would be 3 times 38 MB/s in 40 ms.
        assert!(link.window() < 2 * 2_400_000, "{}", link.window());
    }

    #[test]
    fn a_link_that_became_slower_is_noticed() {
        let mut link = Link::default();
        run(&mut link, 0, 20, 1_000_000, 40, true);
        run(&mut link, 20, 40, 100_000, 70, true);
        assert!((link.rate().unwrap() - 2e6).abs() < 5e5, "{:?}", link.rate());
        assert!(link.window() <= SEND_WINDOW_BYTES_START, "{}", link.window());
    }
}
