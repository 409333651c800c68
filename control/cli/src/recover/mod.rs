//! `novactl recover`: settles what a crash or a cut left between two hypervisors, and refuses to guess.

pub(crate) mod decide;
pub(crate) mod settle;

use std::path::{Path, PathBuf};
use std::time::Duration;

use novacron_control_api::control::{MigrationReport, ReportedOutcome};
use novacron_control_api::{Call, CancelParams, Reason, SessionId, SessionRecord};
use serde::Serialize;

use crate::args::RecoverArgs;
use crate::commit::Steps;
use crate::ends::Ends;
use crate::journal::{self, Journal, Step};
use crate::migrate::remove_dir;
use crate::outcome::Witnesses;
use crate::qmp::Seen;
use crate::report::{EXIT_DONE, EXIT_REFUSED, EXIT_UNKNOWN, GuestAt};
use crate::rpc;
use decide::Action;
use settle::{Place, SettleError, settle};

/// What a recovery came to.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RecoverReport {
    migration: Option<SessionId>,
    /// The journal's last step when it was opened.
    step: Option<Step>,
    /// What the table said, in the words of [`describe`].
    action: Option<&'static str>,
    /// Whether it is settled: exactly one guest, and nothing left over.
    settled: bool,
    guest_running_at: Option<GuestAt>,
    reason: Option<String>,
    source: Option<Seen>,
    destination: Option<Seen>,
    warnings: Vec<String>,
    #[serde(skip)]
    exit: u8,
}

impl RecoverReport {
    fn refused(reason: String) -> Self {
        Self { reason: Some(reason), exit: EXIT_REFUSED, ..Self::default() }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> u8 {
        self.exit
    }

    /// What a person reads.
    pub(crate) fn sentences(&self) -> String {
        let mut text = String::new();
        if let Some(migration) = self.migration {
            text += &format!("migration {migration}\n");
        }
        if let (Some(source), Some(destination)) = (&self.source, &self.destination) {
            text += &format!(
                "seen: source {} (migration {}), destination {} (migration {})\n",
                source.status, source.migration, destination.status, destination.migration
            );
        }
        if let Some(action) = self.action {
            text += &format!("decided: {action}\n");
        }
        match (&self.reason, self.guest_running_at) {
            (Some(reason), _) => text += &format!("not settled: {reason}\n"),
            (None, Some(GuestAt::Source)) => text += "the guest runs at the source\n",
            (None, Some(GuestAt::Destination)) => text += "the guest runs at the destination\n",
            (None, _) => text += "there is nothing to recover\n",
        }
        for warning in &self.warnings {
            text += &format!("warning: {warning}\n");
        }
        text
    }
}

/// Settles one migration, and reports.
pub(crate) fn run(args: &RecoverArgs) -> RecoverReport {
    match (&args.source_qmp, &args.destination_qmp) {
        (Some(source), Some(destination)) => {
            if source == destination {
                return RecoverReport::refused("source and destination are the same QMP socket".into());
            }
            recover(args, source, destination, None)
        }
        _ => with_journal(args),
    }
}

fn with_journal(args: &RecoverArgs) -> RecoverReport {
    let opened = journal::state_dir(args.state_dir.as_deref()).and_then(|dir| Ok((choose(args, &dir)?, dir)));
    let (chosen, dir) = match opened {
        Ok((Ok(chosen), dir)) => (chosen, dir),
        Ok((Err(refused), _)) => return *refused,
        Err(error) => return RecoverReport::refused(error.to_string()),
    };
    let mut journal = match Journal::open(&chosen) {
        Ok(journal) => journal,
        Err(error) => return RecoverReport::refused(error.to_string()),
    };
    let header = journal.header().clone();
    let mut report = recover(args, &header.source_qmp, &header.destination_qmp, Some(&mut journal));
    report.migration = Some(header.migration);
    if report.settled && !args.dry_run {
        for gateway in [&header.source_gateway, &header.destination_gateway] {
            let reason = "novactl recover: settled".to_owned();
            let params = CancelParams { session: header.migration, reason };
            // It is over, forgotten or gone in most cases, and all of that is as good.
            let _ = rpc::call::<SessionRecord>(gateway, Call::SessionCancel(params));
        }
        remove_dir(header.socket_dir.as_deref());
        journal::prune(&dir);
        if let Some(told) = told(header.migration, report.guest_running_at) {
            let witnesses = Witnesses::find([&header.source_gateway, &header.destination_gateway]);
            report.warnings.extend(witnesses.tell(&told));
        }
    } else if report.reason.is_some() {
        report.warnings.push(format!("once it is settled by hand, remove the journal {}", chosen.display()));
    }
    report
}

/// What control processes are told of a migration that was settled here: how long anything took is not known any more.
fn told(session: SessionId, at: Option<GuestAt>) -> Option<MigrationReport> {
    let (outcome, reason) = match at? {
        GuestAt::Destination => (ReportedOutcome::Completed, None),
        GuestAt::Source => {
            let message = "settled by novactl recover: the guest runs at the source".to_owned();
            (ReportedOutcome::Failed, Some(Reason { code: "recovered".to_owned(), message }))
        }
        GuestAt::Unknown => return None,
    };
    Some(MigrationReport { session, outcome, downtime_ms: None, total_ms: None, reason })
}

/// The journal to open; the report to give instead when there is none, or more than one.
fn choose(
    args: &RecoverArgs,
    dir: &Path,
) -> Result<Result<PathBuf, Box<RecoverReport>>, journal::JournalError> {
    if let Some(migration) = args.migration {
        return Ok(Ok(journal::path(dir, migration)));
    }
    let found = journal::find(dir)?;
    let report = match (found.unsettled.as_slice(), found.damaged.is_empty()) {
        ([(path, ..)], true) => return Ok(Ok(path.clone())),
        ([], true) => RecoverReport { settled: true, exit: EXIT_DONE, ..RecoverReport::default() },
        (unsettled, _) => {
            let names: Vec<_> = unsettled.iter().map(|(_, header, _)| header.migration.to_string()).collect();
            let mut report = RecoverReport::refused(format!(
                "{} migrations are unsettled: name one of {}",
                names.len(),
                names.join(", ")
            ));
            report.warnings = found.damaged;
            report
        }
    };
    Ok(Err(Box::new(report)))
}

fn recover(
    args: &RecoverArgs,
    source: &Path,
    destination: &Path,
    journal: Option<&mut Journal>,
) -> RecoverReport {
    let mut ends = Ends::new(source, destination);
    let step = journal.as_ref().and_then(|journal| journal.step());
    let mut steps = Steps::new(journal);
    let settled = settle(&mut ends, &mut steps, Duration::from_secs(args.wait), args.dry_run);
    let mut report = RecoverReport {
        step,
        action: Some(describe(settled.action)),
        source: Some(settled.source),
        destination: Some(settled.destination),
        warnings: steps.warning.into_iter().collect(),
        ..RecoverReport::default()
    };
    match settled.result {
        Ok(place) => {
            report.settled = !args.dry_run;
            report.exit = EXIT_DONE;
            report.guest_running_at = Some(match place {
                Place::Source => GuestAt::Source,
                Place::Destination => GuestAt::Destination,
            });
            if args.dry_run {
                report.warnings.push("dry run: nothing was changed; this is where the guest would be".into());
            }
        }
        Err(error) => {
            // Refusals changed nothing; anything else stopped on the way and may be run again.
            let refused = matches!(error, SettleError::Doubt(_) | SettleError::UnderWay);
            report.exit = if refused { EXIT_REFUSED } else { EXIT_UNKNOWN };
            report.guest_running_at = Some(GuestAt::Unknown);
            report.reason = Some(error.to_string());
        }
    }
    report
}

fn describe(action: Action) -> &'static str {
    match action {
        Action::AtSource => "nothing to do, the guest runs at the source",
        Action::AtDestination => "nothing to do, the guest runs at the destination",
        Action::StartDestination => "start the guest at the destination, then end the source",
        Action::StartDestinationAlone => "start the guest at the destination; the source is gone",
        Action::QuitSource => "end the source: the guest runs at the destination",
        Action::QuitDestination => "end the destination: the guest runs at the source",
        Action::QuitDestinationResumeSource => "end the destination, then resume the guest at the source",
        Action::Wait => "wait: the migration is still under way",
        Action::Refuse(_) => "nothing: it is not certain",
    }
}
