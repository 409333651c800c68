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
}

/// A clock that stands still, for callers that measure nothing within a call.
impl Clock for Instant {
    fn now(&self) -> Instant {
        *self
    }
}
