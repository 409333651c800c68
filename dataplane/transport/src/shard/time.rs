//! Timers of one shard.

use super::{Either, race};
use std::time::{Duration, Instant};

/// Waits for `duration`. Must run on a shard.
pub async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

/// Waits until `deadline`; at once if it has passed.
pub async fn sleep_until(deadline: Instant) {
    sleep(deadline.saturating_duration_since(Instant::now())).await;
}

/// The result of `future`, or `None` (and the future dropped) after `limit`.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    match race(future, sleep(limit)).await {
        Either::Left(result) => Some(result),
        Either::Right(()) => None,
    }
}

/// Ticks at a fixed period. Ticks that were missed are skipped, not made up for.
#[derive(Debug, Clone)]
pub struct Interval {
    next: Instant,
    period: Duration,
}

impl Interval {
    /// The first tick comes one period from now. A period below 1 ms is raised to 1 ms.
    pub fn new(period: Duration) -> Self {
        let period = period.max(Duration::from_millis(1));
        Self { next: Instant::now() + period, period }
    }

    /// Waits for the next tick.
    pub async fn tick(&mut self) {
        sleep_until(self.next).await;
        let now = Instant::now();
        self.next += self.period;
        if self.next <= now {
            self.next = now + self.period;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::testing::on_shard;

    #[test]
    fn timeouts_cut_and_let_pass() {
        on_shard(|| async {
            let began = Instant::now();
            assert_eq!(timeout(Duration::from_millis(30), std::future::pending::<()>()).await, None);
            assert!(began.elapsed() >= Duration::from_millis(30));
            assert_eq!(timeout(Duration::from_secs(60), async { 7 }).await, Some(7));
        });
    }

    #[test]
    fn an_interval_skips_what_it_missed() {
        on_shard(|| async {
            let mut interval = Interval::new(Duration::from_millis(20));
            std::thread::sleep(Duration::from_millis(90));
            let began = Instant::now();
            interval.tick().await;
            assert!(began.elapsed() < Duration::from_millis(15), "{:?}", began.elapsed());
            interval.tick().await;
            assert!(began.elapsed() >= Duration::from_millis(18), "{:?}", began.elapsed());
        });
    }
}
