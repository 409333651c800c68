//! The commit of a migration: exactly one guest runs, whatever happens in between.
//!
//! ```text
//! source says completed -> note completed-seen -> destination is loaded and stopped
//!   -> record cont-sent -> cont -> destination says running -> record running-seen
//!   -> source is still completed and stopped -> record quit-sent -> quit
//! ```
//! Once `cont` may have been sent, nothing here ever resumes the source.

use std::io::Read;
use std::thread::sleep;
use std::time::Instant;

use crate::args::HoldAt;
use crate::ends::{End, Ends};
use crate::journal::{Journal, JournalError, Step};
use crate::limits::{LOADED_WAIT, POLL_SHORT, QUIT_WAIT, RUNNING_WAIT};
use crate::qmp::{QmpError, Seen};
use crate::recover::decide::{self, Destination, Source};

/// Why the commit stopped half way. No guest was lost and none runs twice; `novactl recover` goes on from here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error("{0}")]
    Qmp(#[from] QmpError),
    #[error("the source completed, but the destination is {} (migration {}) instead of loaded and paused; it was not told to run", .0.status, .0.migration)]
    NotLoaded(Seen),
    #[error(
        "the destination was told to run and is '{0}' instead; the source stands still and was left alone"
    )]
    NotRunning(String),
    #[error("the guest runs at the destination, but the source is {} (migration {}) instead of completed and stopped; it was left alone", .0.status, .0.migration)]
    SourceChanged(Seen),
    #[error("the guest runs at the destination; the source was told to quit and is still there")]
    SourceStays,
}

impl CommitError {
    /// Whether the guest is known to run at the destination.
    pub(crate) fn runs_at_destination(&self) -> bool {
        matches!(self, Self::SourceStays)
    }
}

/// Steps written where there is a journal.
///
/// Once the guest may stand still, a journal that cannot be written (a full disk) must not keep it so: the two
/// hypervisors' own states decide nearly every recovery. It becomes a warning.
pub(crate) struct Steps<'a> {
    journal: Option<&'a mut Journal>,
    pub(crate) warning: Option<String>,
}

impl<'a> Steps<'a> {
    /// Steps into this journal, or nowhere.
    pub(crate) fn new(journal: Option<&'a mut Journal>) -> Self {
        Self { journal, warning: None }
    }

    /// Writes a step through to the disk.
    pub(crate) fn record(&mut self, step: Step) {
        self.warn(|journal| journal.record(step));
    }

    /// Writes a step without waiting for the disk.
    pub(crate) fn note(&mut self, step: Step) {
        self.warn(|journal| journal.note(step));
    }

    /// The last step.
    pub(crate) fn last(&self) -> Option<Step> {
        self.journal.as_ref().and_then(|journal| journal.step())
    }

    fn warn(&mut self, write: impl FnOnce(&mut Journal) -> Result<(), JournalError>) {
        if let Some(journal) = &mut self.journal
            && let Err(error) = write(journal)
        {
            self.warning.get_or_insert(error.to_string());
        }
    }
}

/// Runs the guest at the destination. The caller has just seen the source completed.
pub(crate) fn start_destination(
    destination: &mut End,
    steps: &mut Steps<'_>,
    hold: Option<HoldAt>,
) -> Result<(), CommitError> {
    match wait_loaded(destination)? {
        // It started by itself: what `cont` is for has happened.
        Destination::Running => steps.note(Step::ContSent),
        _ => {
            // Written through before it is sent: whoever finds this step must assume that it was.
            steps.record(Step::ContSent);
            let qmp = destination.qmp()?;
            let sent = qmp.send(qapi::qmp::cont {})?;
            hold_at(hold, HoldAt::ContSent);
            qmp.receive(sent)?;
        }
    }
    match destination.wait_running(RUNNING_WAIT)? {
        Ok(()) => {
            steps.record(Step::RunningSeen);
            hold_at(hold, HoldAt::Running);
            Ok(())
        }
        Err(status) => Err(CommitError::NotRunning(status)),
    }
}

/// Waits until the destination is loaded. `cont` in the state `inmigrate` would not fail: it would make the
/// destination start by itself later (QEMU `monitor/qmp-cmds.c`, `qmp_cont`: `autostart = 1`).
fn wait_loaded(destination: &mut End) -> Result<Destination, CommitError> {
    let deadline = Instant::now() + LOADED_WAIT;
    loop {
        let seen = destination.look()?;
        match decide::destination(Ok(&seen)) {
            ready @ (Destination::Loaded | Destination::Running) => return Ok(ready),
            Destination::Waiting if Instant::now() < deadline => sleep(POLL_SHORT),
            _ => return Err(CommitError::NotLoaded(seen)),
        }
    }
}

/// Ends the source. The caller has just seen the destination running.
pub(crate) fn quit_source(ends: &mut Ends, steps: &mut Steps<'_>) -> Result<(), CommitError> {
    let seen = ends.source.look();
    match decide::source(seen.as_ref()) {
        Source::Completed => {}
        // It ended by itself, or somebody ended it: it is not there to run the guest a second time.
        Source::Gone => return Ok(()),
        _ => return Err(seen.map_or_else(CommitError::Qmp, CommitError::SourceChanged)),
    }
    steps.record(Step::QuitSent);
    match ends.source.quit(QUIT_WAIT) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(CommitError::SourceStays),
    }
}

/// Laboratory: says where it stands and waits until it is killed or stdin closes.
pub(crate) fn hold_at(hold: Option<HoldAt>, here: HoldAt) {
    if hold != Some(here) {
        return;
    }
    crate::tell(&format!("laboratory: held at {here:?}; kill it, or close its stdin to go on\n"));
    let mut stdin = std::io::stdin().lock();
    let mut byte = [0];
    while matches!(stdin.read(&mut byte), Ok(count) if count > 0) {}
}
