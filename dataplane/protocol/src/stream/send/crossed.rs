//! Bytes that have crossed the path and wait there, in a stream's order, for something lost before them.
//!
//! A stream that lost a segment hands over nothing until it is sent again, and then all at once. Its sender's system knows better:
//! the receiver acknowledges what it has behind the gap (SACK, RFC 2018). Those bytes count as arrived for every window and rate:
//! counted only when they are handed over, a path with losses would seem to stand still and then to be several times as fast as
//! it is.

use super::{Outbound, Sending};
use crate::stream::retain::StreamId;
use crate::time::Instant;

/// So much of each stream; those that have lost nothing are not listed.
#[derive(Debug, Default)]
pub(super) struct Crossed {
    streams: Vec<(StreamId, u64)>,
}

impl Crossed {
    /// Returns what it was before.
    pub(super) fn set(&mut self, stream: StreamId, bytes: u64) -> u64 {
        let place = self.streams.iter().position(|(id, _)| *id == stream);
        match (place, bytes) {
            (Some(place), 0) => self.streams.swap_remove(place).1,
            (Some(place), _) => std::mem::replace(&mut self.streams[place].1, bytes),
            (None, 0) => 0,
            (None, _) => {
                self.streams.push((stream, bytes));
                0
            }
        }
    }

    fn total(&self) -> u64 {
        self.streams.iter().fold(0, |total, (_, bytes)| total.saturating_add(*bytes))
    }
}

impl Outbound {
    /// Of what is under way on `stream` so many bytes have crossed. True: more may be read than before.
    pub fn crossed(&mut self, stream: StreamId, bytes: u64, now: Instant) -> bool {
        if bytes <= self.crossed.set(stream, bytes) {
            return false;
        }
        let share = self.crossed_share();
        for sending in self.connections.values_mut().filter(|sending| !sending.under_way.is_empty()) {
            sending.pace.arrived(sending.crossed_total(share), now);
        }
        self.link.arrived(self.encoded_arrived(), now);
        true
    }

    /// Encoded bytes that the path still has to carry.
    pub(super) fn bytes_to_cross(&self) -> u64 {
        self.retained.bytes_to_arrive().saturating_sub(self.crossed.total())
    }

    /// Of what has not arrived whole, the share that has crossed: whose bytes they are, nobody knows.
    pub(super) fn crossed_share(&self) -> f64 {
        let to_arrive = self.retained.bytes_to_arrive();
        if to_arrive == 0 { 0.0 } else { self.crossed.total().min(to_arrive) as f64 / to_arrive as f64 }
    }
}

impl Sending {
    /// Guest bytes under way that have crossed though they have not arrived whole.
    fn crossed(&self, share: f64) -> u64 {
        let under_way = self.position - self.verified;
        let to_arrive = under_way.saturating_sub(self.arrived_total() - self.verified);
        (to_arrive as f64 * share) as u64
    }

    /// Guest bytes that have crossed since the beginning.
    pub(super) fn crossed_total(&self, share: f64) -> u64 {
        self.arrived_total() + self.crossed(share)
    }

    /// Guest bytes that have crossed and wait there for something that has not: they need nothing more of the path.
    pub(super) fn waits_across(&self, share: f64) -> u64 {
        self.behind_a_hole() + self.crossed(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BATCH_BYTES_MAX;
    use crate::stream::send::INGEST_HEADROOM;
    use std::time::Duration;

    const A: StreamId = StreamId(1);
    const B: StreamId = StreamId(2);

    fn at(ms: u64) -> Instant {
        Instant::START.after(Duration::from_millis(ms))
    }

    /// A connection that was given `batches` whole batches, all taken by stream A.
    fn sent(batches: usize) -> Outbound {
        let mut outbound = Outbound::new(1, 1, true, None, 1);
        outbound.open(0, None, at(0));
        for _ in 0..batches {
            let buffer = vec![7; INGEST_HEADROOM + BATCH_BYTES_MAX];
            outbound.ingest(0, buffer, BATCH_BYTES_MAX, &at(0));
        }
        while outbound.next_frame(A, at(1)).is_some() {}
        outbound
    }

    #[test]
    fn what_has_crossed_needs_nothing_more_of_the_path() {
        let mut outbound = sent(4);
        let to_cross = outbound.bytes_to_cross();
        assert!(to_cross > 4 * BATCH_BYTES_MAX as u64);
        assert_eq!(outbound.read_budget(0), 0, "the first window is used up");
        assert!(outbound.crossed(A, to_cross / 2, at(60)), "more may be read");
        assert_eq!(outbound.bytes_to_cross(), to_cross - to_cross / 2);
        assert!(outbound.read_budget(0) > 0);
        // The gap was closed: what was beyond it has arrived, as frames.
        assert!(!outbound.crossed(A, 0, at(70)));
        assert_eq!(outbound.bytes_to_cross(), to_cross);
    }

    #[test]
    fn a_stream_that_dies_has_carried_nothing_across() {
        let mut outbound = sent(2);
        let to_cross = outbound.bytes_to_cross();
        outbound.crossed(A, 1000, at(60));
        outbound.crossed(B, 500, at(60));
        outbound.stream_lost(A);
        assert_eq!(outbound.bytes_to_cross(), to_cross - 500);
        outbound.stream_lost(B);
        assert_eq!(outbound.bytes_to_cross(), to_cross);
    }

    /// A closed hole is no reason to stop: what waited behind it is caught up with while more is sent.
    #[test]
    fn what_waited_behind_a_hole_is_caught_up_with() {
        let mut outbound = sent(1);
        let sending = outbound.connections.get_mut(&0).unwrap();
        let window = 1000;
        assert_eq!(
            sending.across_or_late(window, window),
            window,
            "streams overtake each other all the time"
        );
        assert_eq!(sending.across_or_late(0, window), 0);
        assert_eq!(sending.across_or_late(3 * window, window), 3 * window);
        // The hole is closed.
        assert_eq!(sending.across_or_late(0, window), 2 * window);
        sending.taken(2 * window);
        assert_eq!(sending.across_or_late(0, window), window);
        sending.taken(5 * window);
        assert_eq!(sending.across_or_late(0, window), 0);
    }

    /// Whatever a system says has crossed, no count runs below nothing.
    #[test]
    fn more_cannot_have_crossed_than_was_sent() {
        let mut outbound = sent(2);
        outbound.crossed(A, u64::MAX, at(60));
        outbound.crossed(B, u64::MAX, at(61));
        assert_eq!((outbound.bytes_to_cross(), outbound.crossed_share()), (0, 1.0));
        let sending = &outbound.connections[&0];
        assert_eq!(sending.crossed_total(1.0), sending.position);
        assert!(sending.waits_across(1.0) <= sending.position);
    }
}
