//! A clock that does not jump while the process runs.
//!
//! What expires is measured by it: the wall clock as it was at the start, moved on by the monotonic one. A wall clock
//! that is set forward does not end an idempotency key before its time; one set back does not keep it for ever. Across
//! a restart the wall clock counts: it is all there is.

use std::time::Instant;

use novacron_control_api::Timestamp;

#[derive(Debug, Clone, Copy)]
pub(crate) struct SteadyClock {
    start_ms: i64,
    started: Instant,
}

impl SteadyClock {
    pub(crate) fn start() -> Self {
        Self { start_ms: crate::write::unix_ms(Timestamp::now()), started: Instant::now() }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        let since = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.start_ms.saturating_add(since)
    }
}
