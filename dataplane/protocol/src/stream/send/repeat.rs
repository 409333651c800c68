//! Frames that are stuck on one stream leave again on another.
//!
//! TCP recovers a lost segment in a round trip, mostly; one whose repetition is lost too waits for a timer, and a stream whose
//! path has died for many. Everything behind the missing frame waits with it, on whichever stream it came. So the oldest frame
//! under way leaves again, once, on another stream, when nothing has arrived on its own for half as long again as frames take: longer
//! than a repetition by TCP. A stream that is merely slow goes on, and what it carries comes; one that crawls, so that others would
//! deliver the same sooner from the beginning, counts as still: BBR leaves a stream four segments a round trip for 200 ms to see how
//! short the path is (Cardwell et al., ACM Queue 14-5, ProbeRTT). Where nobody says what arrives on streams, a frame is stuck when it
//! has been on its way for longer than the smoothed time of frames and four times its variation, as TCP's own timer has it (RFC
//! 6298). The receiver drops what it has (DWCP-80). Only a frame that others wait for is repeated, and only a share of the traffic.

use super::Outbound;
use crate::limits::{CARRY_WAIT, CARRY_WAIT_STOPPED, REPEATED_BYTES_FREE, REPEATED_SHARE, STUCK_MIN};
use crate::schedule::FrameKey;
use crate::stream::retain::StreamId;
use crate::stream::sending::Sending;
use crate::time::Instant;
use crate::wire::Lane;
use std::time::Duration;

/// How long frames take from the stream's taking them to their arrival, smoothed (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl Arrivals {
    fn add(&mut self, sample: Duration) {
        let Some(smoothed) = self.smoothed else {
            (self.smoothed, self.variation) = (Some(sample), sample / 2);
            return;
        };
        self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }

    /// After how long a frame is stuck; `None` while nothing is known.
    fn stuck_after(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| (smoothed + self.variation * 4).max(smoothed * 3 / 2).max(STUCK_MIN))
    }

    /// After how long without an arrival a stream lies still; `None` while nothing is known.
    fn still_after(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| (smoothed * 3 / 2).max(STUCK_MIN))
    }
}

/// How a stream gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advance {
    /// Something arrived on it, in its order, for the last time then.
    Last(Instant),
    /// Too slowly to wait for it.
    Crawls,
}

/// How each stream gets on, as far as somebody says.
#[derive(Debug, Default)]
pub(super) struct Advances {
    streams: Vec<(StreamId, Advance)>,
}

impl Advances {
    fn set(&mut self, stream: StreamId, advance: Advance) {
        match self.streams.iter_mut().find(|(id, _)| *id == stream) {
            Some((_, before)) => *before = advance,
            None => self.streams.push((stream, advance)),
        }
    }

    fn of(&self, stream: StreamId) -> Option<Advance> {
        self.streams.iter().find(|(id, _)| *id == stream).map(|(_, advance)| *advance)
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        self.streams.retain(|(id, _)| *id != stream);
    }
}

impl Outbound {
    /// What `stream` carries arrives: of its bytes the next in order, whosever they are.
    pub fn advanced(&mut self, stream: StreamId, now: Instant) {
        self.advances.set(stream, Advance::Last(now));
    }

    /// What `stream` carries arrives so slowly that other streams would deliver it sooner from the beginning; until it advances.
    pub fn crawls(&mut self, stream: StreamId) {
        self.advances.set(stream, Advance::Crawls);
    }

    /// The far side's system has these frames, which `stream` carried. True: more may be read than before.
    pub fn arrived(&mut self, stream: StreamId, frames: &[FrameKey], now: Instant) -> bool {
        let (mut any, share) = (false, self.crossed_share());
        for key in frames {
            let Some(arrival) = self.retained.arrived(key, stream) else { continue };
            if let Some(taken_at) = arrival.taken_at {
                self.arrivals.add(now.since(taken_at));
            }
            let (connection, sequence) = arrival.owner;
            let Some(sending) = self.connections.get_mut(&connection) else { continue };
            if let Some(left_at) = sending.arrived(sequence) {
                self.link.acknowledged(left_at, now);
            }
            sending.pace.arrived(sending.crossed_total(share), now);
            any = true;
        }
        if any {
            self.link.arrived(self.encoded_arrived(), now);
        }
        any
    }

    /// When [`Outbound::tick`] has something to do. `elsewhere`: there is another stream for what is stuck on one.
    pub fn deadline(&self, elsewhere: bool) -> Option<Instant> {
        let carry = self.connections.values().filter(|sending| !sending.carry.is_empty());
        let carry = carry.map(|sending| sending.carry_since.after(self.carry_wait()));
        let stuck = self.holes(elsewhere).map(|(_, stuck_at)| stuck_at);
        carry.chain(stuck).chain(self.allowance.free_at()).min()
    }

    /// Sends incomplete records that have waited long enough, and again what is stuck. True: more may be read than before.
    pub fn tick(&mut self, elsewhere: bool, now: Instant) -> bool {
        let wait = self.carry_wait();
        let due = |s: &Sending| !s.carry.is_empty() && now >= s.carry_since.after(wait);
        let due: Vec<u16> = self.connections.iter().filter(|(_, s)| due(s)).map(|(id, _)| *id).collect();
        for connection in due {
            self.flush_carry(connection, now);
        }
        let stuck: Vec<FrameKey> =
            self.holes(elsewhere).filter(|(_, stuck_at)| now >= *stuck_at).map(|(key, _)| key).collect();
        for key in stuck {
            self.retained.repeat(key);
        }
        self.allowance.settle(now)
    }

    /// How long an incomplete record waits for its rest.
    fn carry_wait(&self) -> Duration {
        if self.stopped { CARRY_WAIT_STOPPED } else { CARRY_WAIT }
    }

    fn may_repeat(&self) -> bool {
        let repeated = self.bytes.repeated < REPEATED_BYTES_FREE + self.bytes.wire / REPEATED_SHARE;
        repeated && self.retained.takes_repeats()
    }

    /// Frames for which others wait that have arrived, and when each counts as stuck.
    fn holes(&self, elsewhere: bool) -> impl Iterator<Item = (FrameKey, Instant)> + '_ {
        let may = elsewhere && self.may_repeat();
        let connections = self.connections.iter().filter(move |_| may);
        let holes = connections.filter_map(|(id, sending)| Some((*id, sending.hole()?)));
        holes.flat_map(move |(id, (sequence, hole))| {
            let keys = hole.parts.iter().copied().chain(std::iter::once((Lane::Connection(id), sequence)));
            keys.filter_map(move |key| Some((key, self.stuck_at(&key)?)))
        })
    }

    /// When a frame counts as stuck, if it is on its way for the first time.
    fn stuck_at(&self, key: &FrameKey) -> Option<Instant> {
        let (stream, taken_at) = self.retained.on_its_way(key)?;
        match self.advances.of(stream) {
            Some(Advance::Last(at)) => Some(taken_at.max(at).after(self.arrivals.still_after()?)),
            Some(Advance::Crawls) => Some(taken_at.after(STUCK_MIN)),
            None => Some(taken_at.after(self.arrivals.stuck_after()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn stuck_is_what_takes_longer_than_frames_take() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.stuck_after(), None);
        for _ in 0..100 {
            arrivals.add(60 * MS);
        }
        let after = arrivals.stuck_after().unwrap();
        assert!((90 * MS..100 * MS).contains(&after), "{after:?}");
        for round in 0..100 {
            arrivals.add(if round % 2 == 0 { 50 * MS } else { 150 * MS });
        }
        let after = arrivals.stuck_after().unwrap();
        assert!((240 * MS..400 * MS).contains(&after), "{after:?}");
    }

    #[test]
    fn on_a_short_path_a_late_machine_is_no_stuck_frame() {
        let mut arrivals = Arrivals::default();
        arrivals.add(MS / 10);
        assert_eq!(arrivals.stuck_after(), Some(STUCK_MIN));
    }
}
