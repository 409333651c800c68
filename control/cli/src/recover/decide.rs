//! What to do with what a crash or a cut left: a pure table.
//!
//! Promise 2 in one place. Everything it knows is what the two hypervisors say now and how far the journal says
//! the migration came; whatever does not follow from these is refused. Three rules are behind every row:
//!
//! 1. `cont` goes to a destination only when it is loaded and stopped, and its source completed.
//! 2. `quit` goes to a source only when it completed and the destination runs the guest.
//! 3. `quit` goes to a destination only when it never was told to run and the source runs the guest.

use std::fmt;

use crate::journal::Step;
use crate::qmp::{QmpError, Seen, is_terminal};

/// The source, as seen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    /// The guest runs; its last migration failed, was cancelled, or never was.
    Running,
    /// The guest runs although its migration completed: somebody resumed it by hand.
    Resumed,
    /// A migration is under way.
    Migrating,
    /// The migration completed and the guest is stopped (`postmigrate`).
    Completed,
    /// The migration failed and QEMU left the guest stopped for it (`finish-migrate`, `postmigrate`).
    Stranded,
    /// Stopped for another reason.
    Stopped,
    /// Nothing listens on its socket.
    Gone,
    /// It does not answer.
    Unreachable,
}

/// The destination, as seen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Destination {
    /// The migrated guest runs.
    Running,
    /// A guest runs that did not come by migration.
    Foreign,
    /// It waits for a migration, or is receiving one (`inmigrate`).
    Waiting,
    /// The migration is loaded, the guest stopped.
    Loaded,
    /// Stopped for another reason.
    Stopped,
    /// Nothing listens on its socket.
    Gone,
    /// It does not answer.
    Unreachable,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Settled: the guest runs at the source, the destination is gone.
    AtSource,
    /// Settled: the guest runs at the destination, the source is gone.
    AtDestination,
    /// Start the guest at the destination; once it runs, the source quits.
    StartDestination,
    /// Start the guest at the destination; the source is gone already.
    StartDestinationAlone,
    /// The guest runs at the destination: the source quits.
    QuitSource,
    /// The guest runs at the source: the destination quits.
    QuitDestination,
    /// The destination quits, and once it is gone the guest is resumed at the source.
    QuitDestinationResumeSource,
    /// The migration is still under way: look again later.
    Wait,
    /// Not certain: a person must decide.
    Refuse(Doubt),
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Doubt {
    /// Guests run on both sides.
    BothRun,
    /// One side cannot be seen, and the other does not settle it.
    Unseen,
    /// The complete guest is stopped at the source and its destination is gone.
    OnlyAtSource,
    /// What is seen contradicts the journal: somebody acted by hand.
    Contradiction,
    /// A side is stopped for a reason that is not this migration's.
    StoppedOtherwise,
}

/// The table.
pub(crate) fn decide(source: Source, destination: Destination, step: Option<Step>) -> Action {
    use Destination as D;
    use Source as S;
    // Settled journals and absent ones speak for nothing: only what is seen counts.
    let told_to_run = step.is_some_and(|step| (Step::ContSent..=Step::Done).contains(&step));
    let ran = step.is_some_and(|step| (Step::RunningSeen..=Step::Done).contains(&step));
    let completed = step.is_some_and(|step| (Step::CompletedSeen..=Step::Done).contains(&step));
    let started = step == Some(Step::Started);
    match (source, destination) {
        (S::Running | S::Resumed, D::Running | D::Foreign) => Action::Refuse(Doubt::BothRun),
        (S::Migrating, D::Running | D::Foreign) => Action::Refuse(Doubt::Contradiction),
        (S::Migrating, _) => Action::Wait,

        // One running guest is seen and nothing is done about the other: a person may have resumed it on purpose.
        (S::Resumed, D::Gone) => Action::AtSource,
        (S::Running, D::Gone) if !told_to_run => Action::AtSource,
        (S::Running, _) if completed => Action::Refuse(Doubt::Contradiction),
        (S::Running, D::Waiting | D::Loaded) => Action::QuitDestination,
        (S::Running, D::Gone) => Action::Refuse(Doubt::Contradiction),
        (S::Running, D::Stopped) => Action::Refuse(Doubt::StoppedOtherwise),
        (S::Running, D::Unreachable) => Action::Refuse(Doubt::Unseen),
        (S::Resumed, _) => Action::Refuse(Doubt::Contradiction),

        (S::Completed, D::Running) => Action::QuitSource,
        (S::Completed, D::Loaded) if ran || step == Some(Step::Failed) => {
            Action::Refuse(Doubt::Contradiction)
        }
        // `cont` may have been sent and lost; sending it again to a stopped guest is the same.
        (S::Completed, D::Loaded) => Action::StartDestination,
        (S::Completed, D::Gone) => Action::Refuse(Doubt::OnlyAtSource),
        (S::Completed, D::Unreachable) => Action::Refuse(Doubt::Unseen),
        (S::Completed, D::Stopped) => Action::Refuse(Doubt::StoppedOtherwise),
        (S::Completed, D::Waiting | D::Foreign) => Action::Refuse(Doubt::Contradiction),

        // Only where the journal proves that this migration stopped a running guest, and the destination is seen
        // not to have started it.
        (S::Stranded, D::Waiting | D::Loaded) if started => Action::QuitDestinationResumeSource,
        (S::Stranded, D::Unreachable) => Action::Refuse(Doubt::Unseen),
        (S::Stranded, D::Running | D::Foreign) => Action::Refuse(Doubt::Contradiction),
        (S::Stranded | S::Stopped, _) => Action::Refuse(Doubt::StoppedOtherwise),

        (S::Gone, D::Running) => Action::AtDestination,
        // The journal proves that the source completed, so it cannot have run since.
        (S::Gone, D::Loaded) if completed && !ran => Action::StartDestinationAlone,
        (S::Gone, D::Loaded) if told_to_run => Action::Refuse(Doubt::Contradiction),
        (S::Gone | S::Unreachable, _) => Action::Refuse(Doubt::Unseen),
    }
}

/// What the source's answers mean.
pub(crate) fn source(seen: Result<&Seen, &QmpError>) -> Source {
    let seen = match seen {
        Ok(seen) => seen,
        Err(QmpError::Gone { .. }) => return Source::Gone,
        Err(_) => return Source::Unreachable,
    };
    let (running, over) = (seen.status == "running", is_terminal(&seen.migration));
    match seen.migration.as_str() {
        _ if !over => Source::Migrating,
        "completed" if running => Source::Resumed,
        // The run state follows the migration's a moment later.
        "completed" if matches!(seen.status.as_str(), "postmigrate" | "finish-migrate") => Source::Completed,
        _ if running => Source::Running,
        "failed" | "cancelled" if matches!(seen.status.as_str(), "finish-migrate" | "postmigrate") => {
            Source::Stranded
        }
        _ => Source::Stopped,
    }
}

/// What the destination's answers mean.
pub(crate) fn destination(seen: Result<&Seen, &QmpError>) -> Destination {
    let seen = match seen {
        Ok(seen) => seen,
        Err(QmpError::Gone { .. }) => return Destination::Gone,
        Err(_) => return Destination::Unreachable,
    };
    match (seen.status.as_str(), seen.migration.as_str()) {
        ("running", "completed") => Destination::Running,
        ("running", _) => Destination::Foreign,
        ("inmigrate", _) => Destination::Waiting,
        ("paused", "completed") => Destination::Loaded,
        // The run state comes a moment before the migration's.
        ("paused", migration) if !is_terminal(migration) => Destination::Waiting,
        _ => Destination::Stopped,
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BothRun => {
                "guests run on both sides. Stop the wrong one now (QMP 'stop'): two running copies damage shared disks. \
                 Then decide which one lives and 'quit' the other"
            }
            Self::Unseen => {
                "one side cannot be seen and the other does not settle it. Make its QMP socket reachable and run the \
                 same command again"
            }
            Self::OnlyAtSource => {
                "the source completed and stands still, and nothing listens at the destination. If you are certain that \
                 the destination's QEMU is dead and never ran the guest, resume the source by hand (QMP 'cont' at the \
                 source). If it lives, make its QMP socket reachable and run the same command again"
            }
            Self::Contradiction => {
                "what is seen contradicts what this migration can have left: somebody acted by hand, or a path names \
                 another VM. Compare both VMs and settle them by hand (QMP 'query-status', 'cont', 'quit')"
            }
            Self::StoppedOtherwise => {
                "a side is stopped for a reason that is not this migration's. Find out why (QMP 'query-status'), settle \
                 that, and run the same command again"
            }
        })
    }
}

#[cfg(test)]
mod tests;
