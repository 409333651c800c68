//! How often something may happen: so many a second, and some of them at once.

use std::time::{Duration, Instant};

/// A token bucket.
pub(super) struct Budget {
    per_s: u32,
    at_once: u32,
    left: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(super) fn new((per_s, at_once): (u32, u32), now: Instant) -> Self {
        Self { per_s, at_once, left: f64::from(at_once), at: now }
    }

    /// Whether it may happen now; if not, how long until it may.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(self.per_s);
        (self.left, self.at) = ((self.left + earned).min(f64::from(self.at_once)), now);
        if self.left < 1.0 {
            // Never nothing, so that who waits for it comes back with a whole one.
            let wait = Duration::from_secs_f64((1.0 - self.left) / f64::from(self.per_s));
            return Err(wait + Duration::from_micros(1));
        }
        self.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_so_many_a_second() {
        let began = Instant::now();
        let mut budget = Budget::new((100, 128), began);
        let at_once = (0..1000).filter(|_| budget.take(began).is_ok()).count();
        assert_eq!(at_once, 128);
        let mut taken = 0;
        let mut now = began;
        while now < began + Duration::from_secs(10) {
            match budget.take(now) {
                Ok(()) => taken += 1,
                Err(wait) => now += wait,
            }
        }
        assert!((990..=1001).contains(&taken), "{taken}");
    }
}
