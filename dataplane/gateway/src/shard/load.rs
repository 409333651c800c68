//! What a stream has under way, and hence when it would deliver one frame more.
//!
//! A frame goes to the stream that will deliver it first. Streams that were given more than their path takes would keep it from
//! faster ones, so each is given what it needs to stay busy until it is looked at again, by its own rate.

use crate::limits::{CRAWLS, CRAWLS_MIN, STREAM_QUEUE_BYTES, STREAM_QUEUE_BYTES_MIN, UNSENT_BYTES_MAX};
use novacron_protocol::time::Instant;
use novacron_transport::contract::Flow;
use std::time::Duration;

/// How long what waits unsent in the kernel lasts. A machine that is busy serves a stream late by as much as ten milliseconds,
/// and the kernel asks for more when half is left.
const UNSENT_TIME: Duration = Duration::from_millis(20);
/// How long what waits here for the kernel lasts: frames enough for one system call.
const QUEUE_TIME: Duration = Duration::from_millis(2);

/// A stream as it was when it was last looked at, and what it was given since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Bytes given to it and not acknowledged by the peer's system.
    pub(crate) outstanding_bytes: u64,
    /// Of them, bytes that have crossed the path and wait there for something lost before them.
    pub(crate) beyond_bytes: u64,
    /// Bytes a second that its path takes; 0: not known.
    pub(crate) rate: u64,
    /// Its round trip, and the shortest of late.
    pub(crate) round_trip: Duration,
    pub(crate) round_trip_min: Duration,
    /// Segments sent again since the stream began.
    pub(crate) retransmits: u32,
    at: Instant,
}

fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

impl Load {
    pub(crate) fn new(flow: &Flow, now: Instant) -> Load {
        Load {
            outstanding_bytes: flow.outstanding_bytes as u64,
            beyond_bytes: flow.beyond_bytes as u64,
            rate: flow.rate_bytes_per_s,
            round_trip: flow.round_trip,
            round_trip_min: flow.round_trip_min,
            retransmits: flow.retransmits,
            at: now,
        }
    }

    /// It was given a frame.
    pub(crate) fn given(mut self, bytes: usize) -> Load {
        self.outstanding_bytes += bytes as u64;
        self
    }

    /// When a frame given to it now would have arrived: what does not fit its congestion window waits for what is before it.
    pub(crate) fn delivers_in(&self, bytes: usize, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let left = self.outstanding_bytes.saturating_sub(bytes_in(self.rate, now.since(self.at)));
        let waits = (left + bytes as u64).saturating_sub(bytes_in(self.rate, self.round_trip));
        let waits = u128::from(waits) * 1_000_000_000 / u128::from(self.rate);
        self.round_trip / 2 + Duration::from_nanos(u64::try_from(waits).unwrap_or(u64::MAX))
    }

    /// Whether all that it carries takes so long that it would come sooner by another stream, of which the best would deliver a usual
    /// frame in `soonest`: asked only where it takes long at all, since all streams have to be looked at for it. What has crossed
    /// has to wait for the rest, but needs nothing more of the path.
    pub(crate) fn crawls(&self, soonest: impl FnOnce() -> Option<Duration>) -> bool {
        let to_cross = self.outstanding_bytes.saturating_sub(self.beyond_bytes);
        let arrives_in = Load { outstanding_bytes: to_cross, ..*self }.delivers_in(0, self.at);
        let usual = self.round_trip + CRAWLS_MIN;
        to_cross > 0
            && arrives_in > usual
            && soonest().is_some_and(|soonest| arrives_in > usual + soonest * CRAWLS)
    }

    /// Bytes that may wait unsent in the kernel.
    pub(crate) fn unsent_bound(&self) -> usize {
        let bytes = bytes_in(self.rate, UNSENT_TIME);
        // A path that takes more than that in the time is a machine's own, or a datacentre's: the kernel's buffer is its bound.
        if self.rate == 0 || bytes > UNSENT_BYTES_MAX {
            return u32::MAX as usize;
        }
        (bytes as usize).max(STREAM_QUEUE_BYTES_MIN)
    }

    /// Bytes that may wait in this process: a frame that goes beyond is the last.
    pub(crate) fn queue_bound(&self) -> usize {
        let bytes = usize::try_from(bytes_in(self.rate, QUEUE_TIME)).unwrap_or(usize::MAX);
        bytes.clamp(STREAM_QUEUE_BYTES_MIN, STREAM_QUEUE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn load(outstanding_bytes: u64, rate: u64, round_trip: Duration) -> Load {
        Load { outstanding_bytes, rate, round_trip, ..Load::default() }
    }

    #[test]
    fn within_the_congestion_window_a_frame_takes_half_a_round_trip() {
        let stream = load(0, 5_000_000, 50 * MS);
        assert_eq!(stream.delivers_in(60_000, Instant::START), 25 * MS);
        // 250 kB fit; what is beyond waits for its turn.
        assert_eq!(stream.given(250_000).delivers_in(50_000, Instant::START), 35 * MS);
    }

    #[test]
    fn what_was_given_leaves_by_and_by() {
        let stream = load(500_000, 5_000_000, 50 * MS);
        assert_eq!(stream.delivers_in(0, Instant::START), 75 * MS);
        assert_eq!(stream.delivers_in(0, Instant::START.after(30 * MS)), 45 * MS);
        assert_eq!(stream.delivers_in(0, Instant::START.after(900 * MS)), 25 * MS);
    }

    #[test]
    fn a_stream_that_waits_for_its_timer_is_the_last_choice() {
        let stalled = load(200_000, 1448 * 20, 50 * MS);
        let busy = load(400_000, 5_000_000, 50 * MS);
        assert!(stalled.delivers_in(60_000, Instant::START) > 10 * busy.delivers_in(60_000, Instant::START));
    }

    /// BBR leaves a stream four segments a round trip while it looks how short the path is.
    #[test]
    fn a_stream_of_four_segments_a_round_trip_crawls() {
        let usual = load(0, 5_000_000, 20 * MS);
        let soonest = || Some(usual.delivers_in(64 * 1024, Instant::START));
        let four = 4 * 1448 * 50;
        assert!(load(200_000, four, 20 * MS).crawls(soonest));
        assert!(!load(4 * 1448, four, 20 * MS).crawls(soonest), "that is all that it has");
        assert!(!load(0, four, 20 * MS).crawls(soonest));
        let repaired = Load { beyond_bytes: 198_000, ..load(200_000, four, 20 * MS) };
        assert!(!repaired.crawls(soonest), "it waits for one segment");
        // On a machine's own path a queue that the other has not got is gone in no time.
        let loopback = load(1_000_000, 50_000_000, MS / 20);
        assert!(
            !loopback.crawls(|| Some(load(0, 50_000_000, MS / 20).delivers_in(64 * 1024, Instant::START)))
        );
        // One that is as slow as all of them is none.
        let slow = load(64 * 1024, 500_000, 50 * MS);
        assert!(!slow.crawls(|| Some(load(0, 500_000, 50 * MS).delivers_in(64 * 1024, Instant::START))));
    }

    #[test]
    fn bounds_follow_the_rate_between_their_own() {
        let bounds = |rate| (load(0, rate, 50 * MS).unsent_bound(), load(0, rate, 50 * MS).queue_bound());
        assert_eq!(bounds(100_000), (STREAM_QUEUE_BYTES_MIN, STREAM_QUEUE_BYTES_MIN));
        assert_eq!(bounds(10_000_000), (200_000, 20_000));
        assert_eq!(bounds(10_000_000_000), (u32::MAX as usize, STREAM_QUEUE_BYTES));
        assert_eq!(bounds(0), (u32::MAX as usize, STREAM_QUEUE_BYTES_MIN));
    }
}
