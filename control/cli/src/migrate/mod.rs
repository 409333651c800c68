//! `novactl migrate`: the whole migration, top to bottom, in [`carry`].

mod prepare;
mod progress;
mod switchover;
mod transfer;

pub(crate) use prepare::{new_id, random};

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use novacron_control_api::{Call, CancelParams, Reason, SessionId, SessionRecord};

use crate::args::{HoldAt, MigrateArgs};
use crate::commit::{self, CommitError, Steps};
use crate::ends::Ends;
use crate::journal::{self, Header, Journal, JournalError, Step};
use crate::limits::{CANCEL_WAIT, RECORD_WAIT};
use crate::outcome::Witnesses;
use crate::qmp::{QmpError, is_terminal};
use crate::recover::settle::{self, Place, SettleError};
use crate::report::{GuestAt, Outcome, Report};
use crate::rpc::{self, GatewayError};
use crate::watch::Watcher;
use progress::Progress;
use transfer::{Stops, TIMEOUT, Watchers};

/// Why a migration is given up before the source completed. By itself it changed nothing; the guest runs at the
/// source, or [`settle`] finds out where it is.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    reason: Reason,
    cancelled: bool,
}

impl Trouble {
    /// What happened, in a sentence.
    pub(crate) fn message(&self) -> &str {
        &self.reason.message
    }

    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { reason: Reason { code: code.into(), message: message.into() }, cancelled: false }
    }

    fn cancelled() -> Self {
        Self { cancelled: true, ..Self::new("cancelled", "cancelled by a signal") }
    }
}

impl From<QmpError> for Trouble {
    fn from(error: QmpError) -> Self {
        Self::new("hypervisor", error.to_string())
    }
}

impl From<GatewayError> for Trouble {
    fn from(error: GatewayError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        Self::new("journal", error.to_string())
    }
}

/// Migrates, and reports.
pub(crate) fn run(args: &MigrateArgs, interrupted: &Arc<AtomicBool>) -> Report {
    let mut report = Report::new(args);
    let state_dir = match journal::state_dir(args.state_dir.as_deref()) {
        Ok(dir) => dir,
        Err(error) => return report.refused(&error.to_string()),
    };
    let mut ends = match prepare::check(args) {
        Ok(ends) => ends,
        Err(refusal) => {
            if refusal.source_runs() {
                report.guest_running_at = GuestAt::Source;
            }
            return report.refused(&refusal.to_string());
        }
    };
    report.guest_running_at = GuestAt::Source;
    let id = match new_id() {
        Ok(id) => id,
        Err(trouble) => return report.refused(&trouble.reason.message),
    };
    report.migration = Some(id);
    let meeting = match prepare::meeting(args, id) {
        Ok(meeting) => meeting,
        Err(trouble) => return report.refused(&trouble.reason.message),
    };
    let mut header = Header::new(
        id,
        [&args.source_qmp, &args.destination_qmp],
        [&args.source_gateway, &args.destination_gateway],
    );
    header.socket_dir.clone_from(&meeting.dir);
    let mut journal = match Journal::create(&state_dir, header) {
        Ok(journal) => journal,
        Err(error) => {
            remove_dir(meeting.dir.as_deref());
            return report.refused(&error.to_string());
        }
    };
    let witnesses = Witnesses::find([&args.source_gateway, &args.destination_gateway]);
    let mut migration = Migration {
        args,
        id,
        ends: &mut ends,
        interrupted,
        witnesses: &witnesses,
        watchers: None,
        touched: false,
    };
    let carried = migration.carry(&meeting, &mut journal, &mut report);
    let watchers = migration.watchers.take();
    let touched = migration.touched;
    match carried {
        Ok(()) => report.completed(),
        Err(Ending::Committing(error)) => report.stopped_committing(&error),
        Err(Ending::Trouble(trouble)) => {
            give_up(args, id, &mut ends, &mut journal, touched, trouble, &mut report);
        }
    }
    if let Some(watchers) = watchers {
        let source = watchers.source.finish(RECORD_WAIT);
        let destination = watchers.destination.finish(RECORD_WAIT);
        report.records(source, destination);
    }
    if journal.step().is_some_and(Step::is_settled) {
        remove_dir(meeting.dir.as_deref());
        journal::prune(&state_dir);
    }
    report.close();
    if let Some(told) = report.told() {
        report.warnings.extend(witnesses.tell(&told));
    }
    report
}

/// How a migration that did not simply complete ended.
enum Ending {
    /// Before the source completed.
    Trouble(Trouble),
    /// Between the source's `completed` and its end.
    Committing(CommitError),
}

impl<E: Into<Trouble>> From<E> for Ending {
    fn from(error: E) -> Self {
        Self::Trouble(error.into())
    }
}

struct Migration<'a> {
    args: &'a MigrateArgs,
    id: SessionId,
    ends: &'a mut Ends,
    interrupted: &'a AtomicBool,
    witnesses: &'a Witnesses,
    watchers: Option<Watchers>,
    /// Whether the destination may have been told to listen: it is of no other use then.
    touched: bool,
}

impl Migration<'_> {
    /// The whole migration.
    fn carry(
        &mut self,
        meeting: &prepare::Meeting,
        journal: &mut Journal,
        report: &mut Report,
    ) -> Result<(), Ending> {
        let args = self.args;
        let mut progress = Progress::new(args.quiet);
        progress.say(&format!("migration {}", self.id));
        journal.record(Step::Prepared)?;

        let uri = prepare::open_sessions(args, self.id, meeting)?;
        let watch = |path: &Path| Watcher::start(path, self.id, self.witnesses.keep_books_at(path));
        self.watchers = Some(Watchers {
            source: watch(&args.source_gateway),
            destination: watch(&args.destination_gateway),
        });
        self.touched = true;
        prepare::arrange(args, self.ends, meeting)?;

        journal.record(Step::Started)?;
        transfer::start(&mut self.ends.source, &uri)?;
        let watchers = self.watchers.as_ref().ok_or_else(|| Trouble::new("internal", "no watchers"))?;
        let timeout = Duration::from_secs(args.timeout);
        let stops = Stops::new(watchers, self.interrupted, timeout);
        let info = transfer::until_completed(self.ends, &stops, &mut progress)?;

        // From here on no signal and no clock stops it: the guest stands still until it runs again.
        let completed_at = Instant::now();
        let mut steps = Steps::new(Some(journal));
        let committed = (|| {
            steps.note(Step::CompletedSeen);
            commit::hold_at(args.hold_at, HoldAt::Completed);
            commit::start_destination(&mut self.ends.destination, &mut steps, args.hold_at)?;
            report.runs_after(completed_at.elapsed());
            commit::quit_source(self.ends, &mut steps)?;
            steps.record(Step::Done);
            Ok(())
        })();
        drop(progress);
        report.migrated(&info);
        report.warnings.extend(steps.warning.take());
        report.seen_ends(self.ends);
        committed.map_err(Ending::Committing)
    }
}

/// Ends a migration that failed before the source completed, as far as is certain: the guest runs at the source
/// and the destination, useless now, is gone. Should the source have completed after all, it is carried through.
fn give_up(
    args: &MigrateArgs,
    id: SessionId,
    ends: &mut Ends,
    journal: &mut Journal,
    touched: bool,
    trouble: Trouble,
    report: &mut Report,
) {
    let started = journal.step() >= Some(Step::Started);
    // Where it is us who give up, the gateways hear it first: of the socket that QEMU closes when it cancels they
    // could only say that the source was lost. Whatever the source makes of it is settled below.
    let ours = trouble.cancelled || trouble.reason.code == TIMEOUT;
    if ours && ends.source.look().is_ok_and(|seen| !is_terminal(&seen.migration)) {
        cancel_sessions(args, id, &trouble.reason.code);
    }
    // A source that cannot be seen may be about to complete: its session is left alone.
    if !started || transfer::cancel(&mut ends.source).is_ok() {
        cancel_sessions(args, id, &trouble.reason.code);
    }
    let outcome = if trouble.cancelled { Outcome::Cancelled } else { Outcome::Failed };
    if !touched {
        if let Err(error) = journal.record(Step::Failed) {
            report.warnings.push(error.to_string());
        }
        report.seen_ends(ends);
        report.ended(outcome, trouble.reason, GuestAt::Source);
        return;
    }
    let mut steps = Steps::new(Some(journal));
    let settled = settle::settle(ends, &mut steps, CANCEL_WAIT, false);
    report.warnings.extend(steps.warning.take());
    report.seen_ends(ends);
    match settled.result {
        Ok(Place::Source) => report.ended(outcome, trouble.reason, GuestAt::Source),
        Ok(Place::Destination) => {
            report.warnings.push(format!("the source completed although: {}", trouble.reason.message));
            report.completed();
        }
        Err(SettleError::Commit(error)) => report.stopped_committing(&error),
        Err(error) => {
            let message = format!("{}; {error}", trouble.reason.message);
            report.undecided(Reason { code: trouble.reason.code, message });
        }
    }
}

/// Cancels the session at both gateways. It may be over, unknown or gone: all of that is as good.
fn cancel_sessions(args: &MigrateArgs, session: SessionId, reason: &str) {
    for gateway in [&args.source_gateway, &args.destination_gateway] {
        let params = CancelParams { session, reason: format!("novactl: {reason}") };
        let _ = rpc::call::<SessionRecord>(gateway, Call::SessionCancel(params));
    }
}

/// Removes the private socket directory; what is left of it harms nobody.
pub(crate) fn remove_dir(dir: Option<&Path>) {
    let Some(dir) = dir else { return };
    for socket in ["source.sock", "destination.sock"] {
        let _ = std::fs::remove_file(dir.join(socket));
    }
    let _ = std::fs::remove_dir(dir);
}
