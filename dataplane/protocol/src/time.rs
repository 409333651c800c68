//! Instants that come from outside: the protocol owns no clock.

use std::time::Duration;

/// Nanoseconds since an arbitrary start that the caller chose; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The start itself.
    pub const START: Instant = Instant(0);

    /// The instant `ns` nanoseconds after the start.
    pub const fn from_nanos(ns: u64) -> Self {
        Instant(ns)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds since `earlier`; zero if it lies ahead.
    pub fn nanos_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant plus `wait`; saturates.
    pub fn after(self, wait: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where instants come from: the gateway's monotonic clock, or the simulator's virtual one.
pub trait Clock {
    /// The present instant.
    fn now(&self) -> Instant;

    /// How much processor time the calling thread has had, since an arbitrary start. A clock that cannot tell takes a thread to be
    /// at work all the time.
    fn worked(&self) -> Duration {
        Duration::from_nanos(self.now().as_nanos())
    }
}

/// What a piece of work took, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// By the clock.
    pub elapsed_ns: u64,
    /// Of it, what the thread was at work. The rest others had the processor, which says nothing of the work.
    pub worked_ns: u64,
}

/// When a piece of work began.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    at: Instant,
    worked: Duration,
}

impl Began {
    /// It begins now.
    pub fn now(clock: &impl Clock) -> Self {
        Began { at: clock.now(), worked: clock.worked() }
    }

    /// What it has taken by now.
    pub fn cost(self, clock: &impl Clock) -> Cost {
        let worked_ns = clock.worked().saturating_sub(self.worked).as_nanos();
        let elapsed_ns = clock.now().nanos_since(self.at);
        Cost { elapsed_ns, worked_ns: u64::try_from(worked_ns).unwrap_or(u64::MAX).min(elapsed_ns) }
    }
}

/// A clock that stands still, for callers that measure nothing within a call.
impl Clock for Instant {
    fn now(&self) -> Instant {
        *self
    }
}
