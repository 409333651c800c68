//! Drives the guest's work: an open loop at a set rate, whatever that does to the migration.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::limits::{BAD_LINES_MAX, DRIVE_TICK};
use crate::pace::Pace;
use crate::serial::Serial;
use crate::system::give_up;

/// What a guest does, one step at a time, and how it knows that all it holds is as it left it.
pub(crate) trait Work: Send {
    /// What it is counted in, as `MB` or `requests`.
    fn unit(&self) -> &'static str;

    /// What one step is worth, millionths of a unit.
    fn step(&self) -> u64;

    /// The most steps that are done before somebody else may look.
    fn burst(&self) -> u64;

    /// What it may be behind without forgetting any of it.
    fn debt_max(&self) -> Duration;

    /// Does so many steps. What it finds to be other than it had left it goes to `bad`, a line each, and is counted.
    ///
    /// # Errors
    /// When it cannot go on: the guest then gives up.
    fn run(&mut self, steps: u64, bad: &mut Report) -> Result<()>;

    /// Looks at everything it keeps and repairs nothing. Returns how many things it has looked at: pages, keys, rows,
    /// files ...
    ///
    /// # Errors
    /// When it cannot look.
    fn verify(&mut self, bad: &mut Report) -> Result<u64>;

    /// Damages one thing on purpose, so that it is known that damage is found. Returns which.
    ///
    /// # Errors
    /// When it cannot.
    fn corrupt(&mut self) -> Result<u64>;
}

/// Counts what is bad and says so on the serial port, the first times.
pub(crate) struct Report {
    serial: Arc<Serial>,
    count: u64,
}

impl Report {
    /// Something is not what was left there: `what` says which.
    pub(crate) fn bad(&mut self, what: &str) {
        if self.count < BAD_LINES_MAX {
            // When the port is gone the count still stands in the answer to `verify`.
            let _ = self.serial.line(&format!("BAD {what}"));
        }
        self.count += 1;
    }

    /// A line for whoever reads the serial port.
    pub(crate) fn note(&self, line: &str) {
        let _ = self.serial.line(line);
    }
}

struct State {
    work: Box<dyn Work>,
    bad: Report,
    /// Steps since the start.
    steps: u64,
    pace: Pace,
}

/// What the loop and the console share.
pub(crate) struct Drive {
    state: Mutex<State>,
    /// Millionths of a unit a second.
    rate: AtomicU64,
    /// Someone waits for the work; the lock alone would let the loop take it again at once.
    wanted: AtomicBool,
}

/// What a verification found.
pub(crate) struct Verified {
    /// Things looked at.
    pub(crate) checked: u64,
    /// Bad ones, now or at any time since the start.
    pub(crate) bad: u64,
    /// Steps since the start.
    pub(crate) steps: u64,
}

/// Work done since the start.
pub(crate) struct Done {
    pub(crate) unit: &'static str,
    /// Millionths of a unit; a step that is due counts as far as it is due.
    pub(crate) amount: u64,
}

impl Drive {
    /// `rate`: millionths of a unit a second.
    pub(crate) fn new(work: Box<dyn Work>, rate: u64, serial: Arc<Serial>) -> Self {
        let pace = Pace::new(Instant::now(), work.step(), work.debt_max());
        let state = State { work, bad: Report { serial, count: 0 }, steps: 0, pace };
        Self { state: Mutex::new(state), rate: AtomicU64::new(rate), wanted: AtomicBool::new(false) }
    }

    pub(crate) fn verify(&self) -> Result<Verified> {
        self.with(|state| {
            let checked = state.work.verify(&mut state.bad)?;
            Ok(Verified { checked, bad: state.bad.count, steps: state.steps })
        })
    }

    pub(crate) fn corrupt(&self) -> Result<u64> {
        self.with(|state| state.work.corrupt())
    }

    pub(crate) fn done(&self) -> Done {
        let rate = self.rate();
        self.with(|state| {
            state.pace.due(Instant::now(), rate);
            let amount = state.steps * state.work.step() + state.pace.under_way();
            Done { unit: state.work.unit(), amount }
        })
    }

    /// Millionths of a unit a second.
    pub(crate) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::SeqCst);
    }

    pub(crate) fn rate(&self) -> u64 {
        self.rate.load(Ordering::SeqCst)
    }

    /// Takes the work away from the loop while `look` runs.
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.wanted.store(true, Ordering::SeqCst);
        let mut state = self.lock();
        let result = look(&mut state);
        self.wanted.store(false, Ordering::SeqCst);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the guest, so nobody ever meets the poisoned state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) -> Result<()> {
        loop {
            if self.wanted.load(Ordering::SeqCst) || !self.run_what_is_due()? {
                thread::sleep(DRIVE_TICK);
            }
        }
    }

    /// Does a burst of what is due; `false`: nothing is.
    fn run_what_is_due(&self) -> Result<bool> {
        let mut state = self.lock();
        let State { work, bad, steps, pace } = &mut *state;
        let due = pace.due(Instant::now(), self.rate()).min(work.burst());
        if due == 0 {
            return Ok(false);
        }
        work.run(due, bad)?;
        pace.done(due);
        *steps += due;
        Ok(true)
    }
}

/// Starts the loop, for as long as the guest lives.
pub(crate) fn start(drive: Arc<Drive>) -> Result<()> {
    thread::Builder::new().name("drive".into()).spawn(move || {
        if let Err(error) = drive.run() {
            give_up(&format!("the work cannot go on: {error:#}"));
        }
    })?;
    Ok(())
}
