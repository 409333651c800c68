//! Streams between the two gateways, by their contract: whole frames, in order, or the stream is dead.

use crate::random::Random;
use bytes::Bytes;
use novacron_protocol::session::Ends;
use std::collections::VecDeque;

/// A gateway: the migration's source is on side 0, its destination on side 1.
pub(crate) type Side = usize;
pub(crate) const SOURCE: Side = 0;
pub(crate) const DESTINATION: Side = 1;

/// Nanoseconds of the virtual clock.
pub(crate) type Nanos = u64;
pub(crate) const MICROSECOND: Nanos = 1_000;
pub(crate) const MILLISECOND: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// What streams of a run are like; each stream draws its own from this.
#[derive(Clone, Debug)]
pub(crate) struct PathPlan {
    pub(crate) delay: (Nanos, Nanos),
    pub(crate) jitter: Nanos,
    /// Bytes a second.
    pub(crate) rate: (u64, u64),
    /// Frames in a million that meet a stall, and how long it lasts at most.
    pub(crate) stalls_per_million: u64,
    pub(crate) stall: Nanos,
    /// Frames that the transport takes before it says "full".
    pub(crate) queue_frames: usize,
    /// How long an end needs at most to notice that a stream is dead.
    pub(crate) notice: Nanos,
    /// Copies of a frame that arrive a second time, of a million.
    pub(crate) duplicates_per_million: u64,
}

/// How far an end knows of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    NotYet,
    Up,
    Lost,
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Direction {
    free_at: Nanos,
    last_arrival: Nanos,
    /// What has not left the sender's machine.
    queued: usize,
    /// What arrives after this is lost; set by the cut.
    lost_after: Option<Nanos>,
}

/// A stream, as an observer above both gateways sees it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) ends: Ends,
    pub(crate) alive: bool,
    pub(crate) known: [Known; 2],
    /// Frames that arrived before the end learned of the stream.
    pub(crate) early: [Vec<Bytes>; 2],
    /// Answers of the gateway itself, for sessions that it does not have.
    pub(crate) answers: [VecDeque<Bytes>; 2],
    pub(crate) delay: Nanos,
    rate: u64,
    directions: [Direction; 2],
}

/// When a frame leaves and arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    pub(crate) departs: Nanos,
    pub(crate) arrives: Nanos,
}

impl Stream {
    pub(crate) fn new(plan: &PathPlan, ends: Ends, random: &mut Random) -> Self {
        Stream {
            ends,
            alive: true,
            known: [Known::NotYet; 2],
            early: [Vec::new(), Vec::new()],
            answers: [VecDeque::new(), VecDeque::new()],
            delay: random.range(plan.delay.0, plan.delay.1),
            rate: random.spread(plan.rate.0, plan.rate.1),
            directions: Default::default(),
        }
    }

    /// Whether `side` may hand the stream another frame.
    pub(crate) fn has_room(&self, side: Side, plan: &PathPlan) -> bool {
        self.known[side] == Known::Up && self.directions[side].queued < plan.queue_frames
    }

    /// `side` hands over a frame of `bytes` bytes. `None`: the stream is dead, the frame stays in a socket buffer
    /// that nobody will read.
    pub(crate) fn send(
        &mut self,
        side: Side,
        bytes: usize,
        now: Nanos,
        plan: &PathPlan,
        random: &mut Random,
    ) -> Option<Passage> {
        let (delay, rate) = (self.delay, self.rate);
        let direction = &mut self.directions[side];
        direction.queued += 1;
        if !self.alive {
            return None;
        }
        let stall = if random.per_million(plan.stalls_per_million) { random.range(0, plan.stall) } else { 0 };
        let departs = direction.free_at.max(now) + bytes as u64 * SECOND / rate + stall;
        direction.free_at = departs;
        let arrives = (departs + delay + random.range(0, plan.jitter)).max(direction.last_arrival);
        direction.last_arrival = arrives;
        Some(Passage { departs, arrives })
    }

    /// Nothing moves until then: what is handed over waits, what is under way has passed.
    pub(crate) fn stall(&mut self, until: Nanos) {
        for direction in &mut self.directions {
            direction.free_at = direction.free_at.max(until);
        }
    }

    /// A frame has left `side`'s machine.
    pub(crate) fn departed(&mut self, side: Side) {
        if self.alive {
            self.directions[side].queued -= 1;
        }
    }

    /// Whether a frame from `side` that would arrive now does.
    pub(crate) fn arrives(&self, side: Side, now: Nanos) -> bool {
        self.directions[side].lost_after.is_none_or(|lost_after| now < lost_after)
    }

    /// The stream dies. What is under way is lost from a random point on in each direction; returns when the last
    /// of it has arrived, at either end.
    pub(crate) fn cut(&mut self, now: Nanos, random: &mut Random) -> Nanos {
        self.alive = false;
        let delay = self.delay;
        for direction in &mut self.directions {
            let more = if random.percent(50) { random.range(0, 3 * delay) } else { 0 };
            direction.lost_after = Some(now + more);
        }
        self.directions.iter().filter_map(|d| d.lost_after).max().unwrap_or(now)
    }
}
