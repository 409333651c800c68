//! Looks at both ends, decides by the table, and does it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::decide::{self, Action, Destination, Doubt, Source};
use crate::commit::{self, CommitError, Steps};
use crate::ends::{Ends, told};
use crate::journal::Step;
use crate::limits::{POLL, QUIT_WAIT, RUNNING_WAIT};
use crate::qmp::{QmpError, Seen};

/// Where the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Source,
    Destination,
}

/// Why it is not settled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    #[error("{0}")]
    Doubt(Doubt),
    #[error(
        "the migration is still under way; wait for it and run the same command again, or cancel its session first"
    )]
    UnderWay,
    #[error("{0}")]
    Commit(#[from] CommitError),
    #[error("{0}")]
    Qmp(#[from] QmpError),
    #[error(
        "the destination was told to quit and is still there, stopped; the guest at the source was left as it is"
    )]
    DestinationStays,
    #[error("the destination runs the guest although it never was told to; nothing was quit")]
    DestinationRuns,
    #[error("the source was told to run again and is '{0}' instead; the destination is gone")]
    SourceStands(String),
}

/// What was seen, decided and done.
pub(crate) struct Settled {
    pub(crate) source: Seen,
    pub(crate) destination: Seen,
    pub(crate) action: Action,
    pub(crate) result: Result<Place, SettleError>,
}

/// Settles a migration. With `look_only` it decides and does nothing.
pub(crate) fn settle(ends: &mut Ends, steps: &mut Steps<'_>, wait: Duration, look_only: bool) -> Settled {
    let deadline = Instant::now() + wait;
    loop {
        let source = ends.source.look();
        let destination = ends.destination.look();
        let state = decide::source(source.as_ref());
        let action = decide::decide(state, decide::destination(destination.as_ref()), steps.last());
        // QEMU resumes a guest whose migration failed by itself, a moment later.
        if (action == Action::Wait || state == Source::Stranded) && Instant::now() < deadline {
            sleep(POLL);
            continue;
        }
        let (source, destination) = (told(source.as_ref()), told(destination.as_ref()));
        let result = if look_only { planned(action) } else { carry_out(action, ends, steps) };
        return Settled { source, destination, action, result };
    }
}

fn planned(action: Action) -> Result<Place, SettleError> {
    match action {
        Action::AtSource | Action::QuitDestination | Action::QuitDestinationResumeSource => Ok(Place::Source),
        Action::AtDestination
        | Action::StartDestination
        | Action::StartDestinationAlone
        | Action::QuitSource => Ok(Place::Destination),
        Action::Wait => Err(SettleError::UnderWay),
        Action::Refuse(doubt) => Err(SettleError::Doubt(doubt)),
    }
}

fn carry_out(action: Action, ends: &mut Ends, steps: &mut Steps<'_>) -> Result<Place, SettleError> {
    let place = planned(action)?;
    match action {
        Action::StartDestination => {
            commit::start_destination(&mut ends.destination, steps, None)?;
            commit::quit_source(ends, steps)?;
        }
        Action::StartDestinationAlone => commit::start_destination(&mut ends.destination, steps, None)?,
        Action::QuitSource => {
            steps.record(Step::RunningSeen);
            commit::quit_source(ends, steps)?;
        }
        Action::QuitDestination => quit_destination(ends)?,
        Action::QuitDestinationResumeSource => {
            quit_destination(ends)?;
            resume_source(ends)?;
        }
        Action::AtSource | Action::AtDestination | Action::Wait | Action::Refuse(_) => {}
    }
    steps.record(match place {
        Place::Source => Step::Failed,
        Place::Destination => Step::Done,
    });
    Ok(place)
}

/// Ends a destination that never was told to run. It is looked at once more: between the decision and now somebody
/// may have started it.
fn quit_destination(ends: &mut Ends) -> Result<(), SettleError> {
    let seen = ends.destination.look();
    match decide::destination(seen.as_ref()) {
        Destination::Waiting | Destination::Loaded => {}
        Destination::Gone => return Ok(()),
        Destination::Running | Destination::Foreign => return Err(SettleError::DestinationRuns),
        Destination::Stopped => return Err(SettleError::Doubt(Doubt::StoppedOtherwise)),
        Destination::Unreachable => return seen.map(drop).map_err(SettleError::Qmp),
    }
    match ends.destination.quit(QUIT_WAIT) {
        Ok(true) | Err(QmpError::Gone { .. }) => Ok(()),
        Ok(false) => Err(SettleError::DestinationStays),
        Err(error) => Err(error.into()),
    }
}

/// Resumes a source whose failed migration left it stopped. Its destination is gone.
fn resume_source(ends: &mut Ends) -> Result<(), SettleError> {
    let seen = ends.source.look()?;
    match decide::source(Ok(&seen)) {
        Source::Running => return Ok(()),
        Source::Stranded => {}
        _ => return Err(SettleError::Doubt(Doubt::Contradiction)),
    }
    ends.source.qmp()?.execute(qapi::qmp::cont {})?;
    ends.source.wait_running(RUNNING_WAIT)?.map_err(SettleError::SourceStands)
}
