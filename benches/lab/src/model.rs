//! One direction of a link, without clock and socket: which frame leaves when.
//!
//! A frame waits in the **queue** until the **rate** has passed those before it, may then be **lost**, is **delayed**, and
//! is due. Time is nanoseconds that the caller names; chance comes from a seed. So a run can be repeated.
//!
//! ```text
//! offer -> queue -> rate -> loss -> delay (jitter, reordering, copies) -> take
//!            \-> dropped      \-> lost
//! ```

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::conditions::Conditions;
use crate::limits::FRAMES_MAX;

/// Nanoseconds since some moment that never changes.
pub type Nanos = u64;

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Bytes of whole Ethernet frames, without checksum.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u32) {
        self.frames += 1;
        self.bytes += u64::from(bytes);
    }

    fn sub(&mut self, bytes: u32) {
        self.frames = self.frames.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(bytes));
    }
}

/// What became of frames. `entered + duplicated = delivered + lost + queue_dropped + refused +` those inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Came in.
    pub entered: Count,
    /// Went out, copies included.
    pub delivered: Count,
    /// Lost by chance, or because the link was cut.
    pub lost: Count,
    /// Found the queue full.
    pub queue_dropped: Count,
    /// Copies that were made.
    pub duplicated: Count,
    /// Went out after one that had come in later.
    pub reordered: Count,
    /// Should have gone out, and the device at the far end did not take them.
    pub refused: Count,
}

#[derive(Debug)]
struct Waiting<F> {
    frame: F,
    bytes: u32,
    number: u64,
    entered: Nanos,
    /// It may have come as early as this.
    since: Nanos,
}

#[derive(Debug)]
struct UnderWay<F> {
    due: Nanos,
    /// It may have been due so much earlier.
    doubt: Nanos,
    /// Order among those that are due at once.
    order: u64,
    number: u64,
    bytes: u32,
    frame: F,
}

impl<F> PartialEq for UnderWay<F> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<F> Eq for UnderWay<F> {}
impl<F> PartialOrd for UnderWay<F> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<F> Ord for UnderWay<F> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

/// One direction of a link that holds frames of type `F`.
#[derive(Debug)]
pub struct Model<F> {
    conditions: Conditions,
    random: Rng,
    counters: Counters,
    queue: VecDeque<Waiting<F>>,
    queued_bytes: u64,
    /// When the rate is done with the frame that it passed last.
    free_at: Nanos,
    /// When the frame came that left the queue last, and how much earlier it may have been.
    doubted: (Nanos, Nanos),
    /// In the order in which they are due.
    path: VecDeque<UnderWay<F>>,
    /// Held back, to be overtaken.
    held: BinaryHeap<Reverse<UnderWay<F>>>,
    /// When the last one of `path` is due, or was: none behind it is due earlier.
    last_due: Nanos,
    /// Of bursts of loss.
    bad: bool,
    jitter: Wander,
    entered: u64,
    left: u64,
    /// The latest frame that was taken, by its number from 1.
    taken: u64,
    frames_max: usize,
}

impl<F: Clone> Model<F> {
    /// A direction under these conditions; the same seed and the same calls have the same effects.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            random: Rng::with_seed(seed),
            counters: Counters::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            free_at: 0,
            doubted: (0, 0),
            path: VecDeque::new(),
            held: BinaryHeap::new(),
            last_due: 0,
            bad: false,
            jitter: Wander::default(),
            entered: 0,
            left: 0,
            taken: 0,
            frames_max: FRAMES_MAX,
        }
    }

    /// Holds at most so many frames, waiting and under way; further ones are dropped as by a full queue.
    #[must_use]
    pub fn with_frames_max(mut self, frames_max: usize) -> Self {
        self.frames_max = frames_max;
        self
    }

    /// What it does to frames.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Changes the conditions. Frames that wait leave at the new rate; those under way keep the time at which they are
    /// due, so after a shorter delay was set the next ones follow right behind them: a change never reorders.
    pub fn set(&mut self, now: Nanos, conditions: Conditions) {
        self.advance(now);
        // What the old rate has begun, the new one begins again.
        self.free_at = self.free_at.max(now);
        self.conditions = conditions;
        self.jitter = Wander::default();
        if self.conditions.cut {
            self.lose_all();
        }
    }

    /// What became of frames since the start or [`Model::reset`].
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Starts the counters again.
    pub fn reset(&mut self) {
        self.counters = Counters::default();
    }

    /// Frames inside: waiting, held or under way.
    pub fn inside(&self) -> usize {
        self.queue.len() + self.path.len() + self.held.len()
    }

    /// A frame of `bytes` comes in.
    pub fn offer(&mut self, now: Nanos, bytes: u32, frame: F) {
        self.offer_since(now, now, bytes, frame);
    }

    /// A frame comes in that was not looked at in time: it may have come as early as `since`. It is dealt with as if it had
    /// come now; [`Model::take`] says when it may have been due.
    pub fn offer_since(&mut self, now: Nanos, since: Nanos, bytes: u32, frame: F) {
        self.advance(now);
        self.counters.entered.add(bytes);
        self.entered += 1;
        if self.conditions.cut {
            self.counters.lost.add(bytes);
            return;
        }
        let room = self.conditions.queue_bytes().unwrap_or(u64::MAX);
        // One frame always finds room where nothing waits, or a small queue would let nothing pass.
        let full = !self.queue.is_empty() && self.queued_bytes + u64::from(bytes) > room;
        if full || self.inside() >= self.frames_max {
            self.counters.queue_dropped.add(bytes);
            return;
        }
        self.queued_bytes += u64::from(bytes);
        self.queue.push_back(Waiting { frame, bytes, number: self.entered, entered: now, since });
        self.advance(now);
    }

    /// The next frame that is due by `now`, and when it was due, at the earliest.
    pub fn take(&mut self, now: Nanos) -> Option<(F, u32, Nanos)> {
        self.advance(now);
        let first = self.path.front().map(|next| (next.due, next.order));
        let held = self.held.peek().map(|Reverse(next)| (next.due, next.order));
        let is_held = match (first, held) {
            (Some(first), Some(held)) => held < first,
            (first, _) => first.is_none(),
        };
        if (if is_held { held } else { first })?.0 > now {
            return None;
        }
        let next = if is_held { self.held.pop()?.0 } else { self.path.pop_front()? };
        self.counters.delivered.add(next.bytes);
        if next.number < self.taken {
            self.counters.reordered.add(next.bytes);
        }
        self.taken = self.taken.max(next.number);
        Some((next.frame, next.bytes, next.due.saturating_sub(next.doubt)))
    }

    /// The far end did not take a frame of `bytes` that [`Model::take`] gave.
    pub fn refused(&mut self, bytes: u32) {
        self.counters.delivered.sub(bytes);
        self.counters.refused.add(bytes);
    }

    /// No frame is due before this; `None`: none is inside. It may be early, so ask again then.
    pub fn next_due(&self) -> Option<Nanos> {
        let held = self.held.peek().map(|Reverse(next)| next.due);
        // Those that still wait come behind the path's last one, or are held even longer.
        let first = self
            .path
            .front()
            .map(|next| next.due)
            .or_else(|| self.queue.front().map(|head| self.leaves(head)));
        match (held, first) {
            (Some(held), Some(first)) => Some(held.min(first)),
            (held, first) => held.or(first),
        }
    }

    /// When the rate is done with the frame at the queue's head.
    fn leaves(&self, head: &Waiting<F>) -> Nanos {
        self.free_at.max(head.entered) + self.passing(head.bytes)
    }

    fn passing(&self, bytes: u32) -> Nanos {
        // Rounded up, so that the rate is never exceeded.
        self.conditions.rate_mbit.map_or(0, |rate| (f64::from(bytes) * 8000.0 / rate).ceil() as Nanos)
    }

    fn advance(&mut self, now: Nanos) {
        while let Some(head) = self.queue.front() {
            let at = self.leaves(head);
            if at > now {
                return;
            }
            let Some(head) = self.queue.pop_front() else { return };
            self.queued_bytes -= u64::from(head.bytes);
            if head.entered != self.doubted.0 {
                // Where frames wait for the rate, it makes no difference when this one came. Those that came with it
                // wait for it, and have its doubt.
                let free = if self.conditions.rate_mbit.is_some() { self.free_at } else { 0 };
                let doubt = free.max(head.entered) - free.max(head.since.min(head.entered));
                self.doubted = (head.entered, doubt);
            }
            self.free_at = at;
            self.leave(head, at, self.doubted.1);
        }
    }

    fn leave(&mut self, head: Waiting<F>, at: Nanos, doubt: Nanos) {
        let Waiting { frame, bytes, number, .. } = head;
        if self.is_lost() {
            self.counters.lost.add(bytes);
            return;
        }
        // None is due before those ahead of it, whatever the delay was when they came.
        let due = at.saturating_add_signed(self.delay(at)).max(self.last_due);
        let copy = self.chance(self.conditions.duplicate_percent).then(|| frame.clone());
        let is_held = self.chance(self.conditions.reorder_percent);
        let due = if is_held { due + nanos(self.conditions.reorder_ms) } else { due };
        if !is_held {
            self.last_due = due;
        }
        self.send(is_held, UnderWay { due, doubt, order: 0, number, bytes, frame });
        if let Some(frame) = copy {
            self.counters.duplicated.add(bytes);
            let passing = self.passing(bytes);
            self.free_at += passing;
            let due = due + passing;
            if !is_held {
                self.last_due = due;
            }
            self.send(is_held, UnderWay { due, doubt, order: 0, number, bytes, frame });
        }
    }

    fn send(&mut self, is_held: bool, mut frame: UnderWay<F>) {
        self.left += 1;
        frame.order = self.left;
        if is_held {
            self.held.push(Reverse(frame));
        } else {
            self.path.push_back(frame);
        }
    }

    fn delay(&mut self, at: Nanos) -> i64 {
        let delay = nanos(self.conditions.delay_ms) as i64;
        if self.conditions.jitter_ms <= 0.0 {
            return delay;
        }
        (delay + self.jitter.at(at, nanos(self.conditions.jitter_ms), &mut self.random)).max(0)
    }

    fn is_lost(&mut self) -> bool {
        let mut lost = self.chance(self.conditions.loss_percent);
        if let Some(burst) = self.conditions.burst {
            let turns = if self.bad { burst.leave_percent } else { burst.enter_percent };
            self.bad ^= self.chance(turns);
            lost |= self.chance(if self.bad { burst.bad_loss_percent } else { burst.good_loss_percent });
        }
        lost
    }

    fn chance(&mut self, percent: f64) -> bool {
        percent > 0.0 && self.random.f64() * 100.0 < percent
    }

    fn lose_all(&mut self) {
        let waiting = self.queue.drain(..).map(|frame| frame.bytes);
        let path = self.path.drain(..).map(|frame| frame.bytes);
        let held = self.held.drain().map(|Reverse(frame)| frame.bytes);
        for bytes in waiting.chain(path).chain(held) {
            self.counters.lost.add(bytes);
        }
        self.queued_bytes = 0;
        self.last_due = 0;
    }
}

fn nanos(ms: f64) -> Nanos {
    (ms * 1e6) as Nanos
}

/// A value that wanders: straight from one random value to the next.
///
/// A new value for each frame would either reorder, or, where order is kept, vanish under load: a frame that is late
/// holds up those behind it, so that all come as late as the latest. This one falls by at most half the time that passes,
/// so that a frame never catches up with the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Wander {
    from: (Nanos, f64),
    to: (Nanos, f64),
}

impl Wander {
    fn at(&mut self, now: Nanos, most: Nanos, random: &mut Rng) -> i64 {
        let step = (4 * most).max(10_000_000);
        let value = |random: &mut Rng| (random.f64() * 2.0 - 1.0) * most as f64;
        if now >= self.to.0 + step {
            // Nothing passed for a while, or this is the first.
            self.from = (now, value(random));
            self.to = (now + step, value(random));
        } else if now >= self.to.0 {
            self.from = self.to;
            self.to = (self.from.0 + step, value(random));
        }
        let passed = now.saturating_sub(self.from.0) as f64 / (self.to.0 - self.from.0).max(1) as f64;
        (self.from.1 + (self.to.1 - self.from.1) * passed) as i64
    }
}
