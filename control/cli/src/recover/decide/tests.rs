//! The whole matrix: its rules, and a snapshot so that no row changes unseen.

use super::*;
use crate::qmp::{QmpError, Seen};

const SOURCES: [Source; 8] = [
    Source::Running,
    Source::Resumed,
    Source::Migrating,
    Source::Completed,
    Source::Stranded,
    Source::Stopped,
    Source::Gone,
    Source::Unreachable,
];

const DESTINATIONS: [Destination; 7] = [
    Destination::Running,
    Destination::Foreign,
    Destination::Waiting,
    Destination::Loaded,
    Destination::Stopped,
    Destination::Gone,
    Destination::Unreachable,
];

fn steps() -> Vec<Option<Step>> {
    std::iter::once(None).chain(Step::ALL.map(Some)).collect()
}

fn matrix() -> Vec<(Source, Destination, Option<Step>, Action)> {
    let mut rows = Vec::new();
    for source in SOURCES {
        for destination in DESTINATIONS {
            for step in steps() {
                rows.push((source, destination, step, decide(source, destination, step)));
            }
        }
    }
    rows
}

#[test]
fn a_destination_is_started_only_when_loaded_and_its_source_completed() {
    for row @ (source, destination, step, action) in matrix() {
        if !matches!(action, Action::StartDestination | Action::StartDestinationAlone) {
            continue;
        }
        assert_eq!(destination, Destination::Loaded, "{row:?}");
        let proven = matches!(step, Some(Step::CompletedSeen | Step::ContSent));
        assert!(source == Source::Completed || (source == Source::Gone && proven), "{row:?}");
        // Once the guest ran there, a stopped one was stopped by somebody.
        assert!(!matches!(step, Some(Step::RunningSeen | Step::QuitSent | Step::Done)), "{row:?}");
    }
}

#[test]
fn a_source_quits_only_when_completed_and_the_destination_runs_or_is_started_first() {
    for row @ (source, destination, _, action) in matrix() {
        match action {
            Action::QuitSource => {
                assert_eq!((source, destination), (Source::Completed, Destination::Running), "{row:?}");
            }
            Action::StartDestination => assert_eq!(source, Source::Completed, "{row:?}"),
            _ => {}
        }
    }
}

#[test]
fn a_destination_quits_only_when_it_never_was_told_to_run_and_a_source_has_the_guest() {
    for row @ (source, destination, step, action) in matrix() {
        if !matches!(action, Action::QuitDestination | Action::QuitDestinationResumeSource) {
            continue;
        }
        assert!(matches!(destination, Destination::Waiting | Destination::Loaded), "{row:?}");
        let told = matches!(step, Some(Step::ContSent | Step::RunningSeen | Step::QuitSent | Step::Done));
        assert!(!told, "{row:?}");
        match action {
            Action::QuitDestination => assert_eq!(source, Source::Running, "{row:?}"),
            _ => assert_eq!((source, step), (Source::Stranded, Some(Step::Started)), "{row:?}"),
        }
    }
}

#[test]
fn a_source_is_never_resumed_once_cont_may_have_been_sent_or_it_may_have_completed() {
    for row @ (source, _, step, action) in matrix() {
        if action == Action::QuitDestinationResumeSource {
            assert!(step < Some(Step::CompletedSeen), "{row:?}");
            assert_ne!(source, Source::Completed, "{row:?}");
        }
    }
}

#[test]
fn two_running_guests_and_two_unseen_ends_are_always_refused() {
    for row @ (source, destination, _, action) in matrix() {
        let source_runs = matches!(source, Source::Running | Source::Resumed);
        let destination_runs = matches!(destination, Destination::Running | Destination::Foreign);
        if source_runs && destination_runs {
            assert_eq!(action, Action::Refuse(Doubt::BothRun), "{row:?}");
        }
        let unseen = matches!(source, Source::Gone | Source::Unreachable)
            && matches!(destination, Destination::Gone | Destination::Unreachable);
        if unseen {
            assert_eq!(action, Action::Refuse(Doubt::Unseen), "{row:?}");
        }
        if source == Source::Unreachable
            || (destination == Destination::Unreachable && action != Action::Wait)
        {
            assert!(matches!(action, Action::Refuse(_)), "{row:?}");
        }
    }
}

#[test]
fn what_is_called_settled_has_exactly_one_guest_seen_running() {
    for row @ (source, destination, _, action) in matrix() {
        let source_runs = matches!(source, Source::Running | Source::Resumed);
        match action {
            Action::AtSource => assert!(source_runs && destination == Destination::Gone, "{row:?}"),
            Action::AtDestination => {
                assert_eq!((source, destination), (Source::Gone, Destination::Running), "{row:?}");
            }
            _ => {}
        }
    }
}

/// The ordinary ways for `novactl` to die, each with what it leaves.
#[test]
fn every_ordinary_death_of_novactl_is_settled() {
    use {Action as A, Destination as D, Source as S};
    let rows = [
        // Before anything moved.
        (S::Running, D::Waiting, Step::Prepared, A::QuitDestination),
        // In precopy: the migration goes on without it.
        (S::Migrating, D::Waiting, Step::Started, A::Wait),
        (S::Completed, D::Loaded, Step::Started, A::StartDestination),
        (S::Running, D::Gone, Step::Started, A::AtSource),
        // The last return-path message was lost: the source failed and goes on, the destination is loaded.
        (S::Running, D::Loaded, Step::Started, A::QuitDestination),
        // Between `completed` and `cont`.
        (S::Completed, D::Loaded, Step::CompletedSeen, A::StartDestination),
        // Between the journal and `cont`, and between `cont` and its answer.
        (S::Completed, D::Loaded, Step::ContSent, A::StartDestination),
        (S::Completed, D::Running, Step::ContSent, A::QuitSource),
        // Before and after `quit`.
        (S::Completed, D::Running, Step::RunningSeen, A::QuitSource),
        (S::Completed, D::Running, Step::QuitSent, A::QuitSource),
        (S::Gone, D::Running, Step::QuitSent, A::AtDestination),
    ];
    for (source, destination, step, action) in rows {
        assert_eq!(decide(source, destination, Some(step)), action, "{source:?} {destination:?} {step:?}");
    }
}

#[test]
fn answers_are_read_as_the_states_they_mean() {
    let seen = |status: &str, migration: &str| Seen { status: status.into(), migration: migration.into() };
    let sources = [
        ("running", "none", Source::Running),
        ("running", "failed", Source::Running),
        ("running", "cancelled", Source::Running),
        ("running", "completed", Source::Resumed),
        ("running", "active", Source::Migrating),
        ("finish-migrate", "device", Source::Migrating),
        ("running", "cancelling", Source::Migrating),
        ("paused", "a-state-of-a-later-qemu", Source::Migrating),
        ("postmigrate", "completed", Source::Completed),
        ("finish-migrate", "completed", Source::Completed),
        ("paused", "completed", Source::Stopped),
        ("finish-migrate", "failed", Source::Stranded),
        ("postmigrate", "cancelled", Source::Stranded),
        ("paused", "failed", Source::Stopped),
        ("io-error", "none", Source::Stopped),
    ];
    for (status, migration, state) in sources {
        assert_eq!(source(Ok(&seen(status, migration))), state, "{status} {migration}");
    }
    let destinations = [
        ("running", "completed", Destination::Running),
        ("running", "none", Destination::Foreign),
        ("inmigrate", "setup", Destination::Waiting),
        ("inmigrate", "none", Destination::Waiting),
        ("paused", "active", Destination::Waiting),
        ("paused", "completed", Destination::Loaded),
        ("paused", "none", Destination::Stopped),
        ("paused", "failed", Destination::Stopped),
        ("io-error", "completed", Destination::Stopped),
    ];
    for (status, migration, state) in destinations {
        assert_eq!(destination(Ok(&seen(status, migration))), state, "{status} {migration}");
    }
    let gone = QmpError::Gone { path: "/x".into(), why: "refused".into() };
    let silent = QmpError::Unreachable { path: "/x".into(), why: "late".into() };
    assert_eq!((source(Err(&gone)), destination(Err(&gone))), (Source::Gone, Destination::Gone));
    assert_eq!(
        (source(Err(&silent)), destination(Err(&silent))),
        (Source::Unreachable, Destination::Unreachable)
    );
}

/// The snapshot. When a row is meant to change, the assertion's left side is the new file.
#[test]
fn the_matrix_is_the_reviewed_one() {
    let mut text = String::new();
    for source in SOURCES {
        for destination in DESTINATIONS {
            let mut groups: Vec<(Action, Vec<String>)> = Vec::new();
            for step in steps() {
                let action = decide(source, destination, step);
                let name = step.map_or_else(|| "no-journal".to_owned(), |step| format!("{step:?}"));
                match groups.last_mut() {
                    Some((last, names)) if *last == action => names.push(name),
                    _ => groups.push((action, vec![name])),
                }
            }
            for (action, names) in &groups {
                let span = match names.as_slice() {
                    _ if groups.len() == 1 => "always".to_owned(),
                    [one] => one.clone(),
                    [first, .., last] => format!("{first}..{last}"),
                    [] => String::new(),
                };
                text += &format!("{source:?} + {destination:?}, {span}: {action:?}\n");
            }
        }
    }
    let reviewed = include_str!("matrix.txt");
    assert!(text == reviewed, "the matrix is now:\n{text}");
}
