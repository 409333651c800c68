//! The gateway's monotonic clock, as the protocol wants it.

use novacron_protocol::time::{Clock, Instant};
use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::Duration;

static START: OnceLock<std::time::Instant> = OnceLock::new();

/// Reads the system's monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Instant {
        let since = START.get_or_init(std::time::Instant::now).elapsed();
        Instant::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn worked(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    }
}

/// The present instant.
pub(crate) fn now() -> Instant {
    Monotonic.now()
}
