//! The dirtier: an open loop that rewrites pages at a set rate, whatever that does to the migration.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::limits::{BAD_LINES_MAX, DIRTY_BURST_PAGES, DIRTY_DEBT_MAX, DIRTY_TICK, PAGE_BYTES};
use crate::serial::Serial;
use crate::workset::{Bad, Workset};

/// What the dirtier and the console share.
pub(crate) struct Shared {
    workset: Mutex<Workset>,
    /// MB (10^6 bytes) a second.
    rate_mb: AtomicU64,
    /// Someone waits for the working set; the lock alone would let the dirtier take it again at once.
    wanted: AtomicBool,
}

impl Shared {
    pub(crate) fn new(workset: Workset, rate_mb: u64) -> Self {
        Self {
            workset: Mutex::new(workset),
            rate_mb: AtomicU64::new(rate_mb),
            wanted: AtomicBool::new(false),
        }
    }

    /// Takes the working set away from the dirtier while `work` runs.
    pub(crate) fn with_workset<T>(&self, work: impl FnOnce(&mut Workset) -> T) -> T {
        self.wanted.store(true, Ordering::SeqCst);
        let mut workset = self.lock();
        let result = work(&mut workset);
        self.wanted.store(false, Ordering::SeqCst);
        result
    }

    pub(crate) fn set_rate_mb(&self, rate_mb: u64) {
        self.rate_mb.store(rate_mb, Ordering::SeqCst);
    }

    pub(crate) fn rate_mb(&self) -> u64 {
        self.rate_mb.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Workset> {
        // A panic ends the guest, so nobody ever meets the poisoned state.
        self.workset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints that a page was found bad, up to a number of lines.
pub(crate) fn report(serial: &Serial, bad_before: u64, bad: Bad) {
    if bad_before < BAD_LINES_MAX {
        // When the port is gone the count still stands in the answer to `verify`.
        let _ = serial.line(&format!("BAD page={} generation={}", bad.index, bad.generation));
    }
}

/// Starts the dirtier, for as long as the guest lives.
pub(crate) fn start(serial: Arc<Serial>, shared: Arc<Shared>) -> Result<()> {
    thread::Builder::new().name("dirty".into()).spawn(move || {
        let mut pace = Pace::new(Instant::now());
        loop {
            let due = pace.due(Instant::now(), shared.rate_mb());
            if due == 0 || shared.wanted.load(Ordering::SeqCst) {
                thread::sleep(DIRTY_TICK);
                continue;
            }
            let burst = due.min(DIRTY_BURST_PAGES);
            let mut workset = shared.lock();
            for _ in 0..burst {
                if let Some(bad) = workset.dirty_one() {
                    report(&serial, workset.bad() - 1, bad);
                }
            }
            drop(workset);
            pace.done(burst);
        }
    })?;
    Ok(())
}

/// Turns a rate and the clock into pages that are due.
struct Pace {
    last: Instant,
    /// Bytes due, in units of 1/10^6 byte so that no rate is rounded away.
    debt: u128,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { last: now, debt: 0 }
    }

    fn due(&mut self, now: Instant, rate_mb: u64) -> u64 {
        let rate = u128::from(rate_mb) * 1_000_000;
        let passed: Duration = now.saturating_duration_since(self.last);
        self.last = now;
        self.debt = (self.debt + passed.as_micros() * rate).min(DIRTY_DEBT_MAX.as_micros() * rate);
        u64::try_from(self.debt / (PAGE_BYTES as u128 * 1_000_000)).unwrap_or(u64::MAX)
    }

    fn done(&mut self, pages: u64) {
        self.debt = self.debt.saturating_sub(u128::from(pages) * PAGE_BYTES as u128 * 1_000_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_held_and_a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut pages = 0;
        for ms in 1..=1000 {
            let due = pace.due(start + Duration::from_millis(ms), 41);
            pages += due;
            pace.done(due);
        }
        assert_eq!(pages, 41_000_000 / 4096);
        assert_eq!(pace.due(start + Duration::from_secs(60), 41), 4_100_000 / 4096);
        assert_eq!(pace.due(start + Duration::from_secs(61), 0), 0);
    }
}
