//! What a migration came to: one object for scripts, a few sentences for people, an exit code for both.

use std::time::{Duration, Instant};

use novacron_control_api::control::{MigrationReport, ReportedOutcome};
use novacron_control_api::{Reason, SessionId, SessionRecord, SessionState};
use serde::Serialize;

use crate::args::MigrateArgs;
use crate::commit::CommitError;
use crate::ends::{Ends, told};
use crate::qmp::{MigrationInfo, Seen};

/// Done.
pub(crate) const EXIT_DONE: u8 = 0;
/// Failed or cancelled; the guest is at the source.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The outcome is unknown; `novactl recover` settles it.
pub(crate) const EXIT_UNKNOWN: u8 = 3;
/// Refused; nothing was changed.
pub(crate) const EXIT_REFUSED: u8 = 4;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Completed,
    Failed,
    Cancelled,
    Unknown,
}

/// Where the guest runs, as far as is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GuestAt {
    Source,
    Destination,
    Unknown,
}

/// One end in a report.
#[derive(Debug, Serialize)]
pub(crate) struct EndReport {
    qmp: String,
    gateway: String,
    /// The hypervisor as last seen: its run state, or `gone`, `unreachable`.
    status: String,
    /// Its migration's state as last seen.
    migration_status: String,
    /// The gateway's record of the session.
    record: Option<SessionRecord>,
}

/// The report of one migration. Times in milliseconds, sizes in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) migration: Option<SessionId>,
    /// The gateways' session: the migration's own name.
    session: Option<SessionId>,
    outcome: Outcome,
    reason: Option<Reason>,
    pub(crate) guest_running_at: GuestAt,
    /// From the command's start to the guest seen running at the destination, or else to the command's end.
    total_ms: Option<u64>,
    /// QEMU's figure: from stopping the guest to the end of the source's work.
    downtime_ms: Option<u64>,
    /// From the source's `completed` to the guest seen running at the destination.
    commit_ms: Option<u64>,
    setup_ms: Option<u64>,
    iterations: Option<u64>,
    guest_bytes: Option<u64>,
    encoded_bytes: Option<u64>,
    wire_bytes: Option<u64>,
    digest_equal: Option<bool>,
    pub(crate) warnings: Vec<String>,
    source: EndReport,
    destination: EndReport,
    #[serde(skip)]
    exit: u8,
    #[serde(skip)]
    started: Instant,
}

impl Report {
    /// A report of a migration that begins now.
    pub(crate) fn new(args: &MigrateArgs) -> Self {
        let end = |qmp: &std::path::Path, gateway: &std::path::Path| EndReport {
            qmp: qmp.display().to_string(),
            gateway: gateway.display().to_string(),
            status: "unknown".into(),
            migration_status: "unknown".into(),
            record: None,
        };
        Self {
            migration: None,
            session: None,
            outcome: Outcome::Failed,
            reason: None,
            guest_running_at: GuestAt::Unknown,
            total_ms: None,
            downtime_ms: None,
            commit_ms: None,
            setup_ms: None,
            iterations: None,
            guest_bytes: None,
            encoded_bytes: None,
            wire_bytes: None,
            digest_equal: None,
            warnings: Vec::new(),
            source: end(&args.source_qmp, &args.source_gateway),
            destination: end(&args.destination_qmp, &args.destination_gateway),
            exit: EXIT_FAILED,
            started: Instant::now(),
        }
    }

    /// Not begun; nothing was changed.
    pub(crate) fn refused(mut self, message: &str) -> Self {
        self.migration = None;
        self.reason = Some(Reason { code: "refused".into(), message: message.to_owned() });
        self.exit = EXIT_REFUSED;
        self
    }

    /// The guest runs at the destination.
    pub(crate) fn completed(&mut self) {
        self.outcome = Outcome::Completed;
        self.guest_running_at = GuestAt::Destination;
        self.exit = EXIT_DONE;
    }

    /// It ended before the source completed, and where the guest is is certain.
    pub(crate) fn ended(&mut self, outcome: Outcome, reason: Reason, at: GuestAt) {
        self.outcome = outcome;
        self.reason = Some(reason);
        self.guest_running_at = at;
        self.exit = EXIT_FAILED;
    }

    /// Nothing more was started or quit, because what happened is not certain.
    pub(crate) fn undecided(&mut self, reason: Reason) {
        self.outcome = Outcome::Unknown;
        self.reason = Some(reason);
        self.guest_running_at = GuestAt::Unknown;
        self.exit = EXIT_UNKNOWN;
    }

    /// The commit stopped half way.
    pub(crate) fn stopped_committing(&mut self, error: &CommitError) {
        if error.runs_at_destination() {
            self.completed();
            self.warnings.push(format!("{error}; end it with 'novactl recover'"));
        } else {
            self.undecided(Reason { code: "commit_interrupted".into(), message: error.to_string() });
        }
    }

    /// QEMU's own figures.
    pub(crate) fn migrated(&mut self, info: &MigrationInfo) {
        self.downtime_ms = info.downtime;
        self.setup_ms = info.setup_time;
        self.iterations = info.ram.as_ref().map(|ram| ram.dirty_sync_count);
    }

    /// Both hypervisors as they are now.
    pub(crate) fn seen_ends(&mut self, ends: &mut Ends) {
        for (report, end) in
            [(&mut self.source, &mut ends.source), (&mut self.destination, &mut ends.destination)]
        {
            let Seen { status, migration } = told(end.look().as_ref());
            report.status = status;
            report.migration_status = migration;
        }
    }

    /// Both gateways' last records.
    pub(crate) fn records(&mut self, source: Option<SessionRecord>, destination: Option<SessionRecord>) {
        if let Some(record) = &source {
            self.guest_bytes = Some(record.guest_bytes);
            self.encoded_bytes = Some(record.encoded_bytes);
            self.wire_bytes = Some(record.wire_bytes_sent.saturating_add(record.wire_bytes_received));
        }
        self.digest_equal = digest_equal(source.as_ref(), destination.as_ref());
        self.source.record = source;
        self.destination.record = destination;
    }

    /// The guest runs at the destination, this long after the source completed.
    pub(crate) fn runs_after(&mut self, commit: Duration) {
        self.commit_ms = milliseconds(commit);
        self.total_ms = milliseconds(self.started.elapsed());
    }

    /// Closes the books.
    pub(crate) fn close(&mut self) {
        self.session = self.migration;
        self.total_ms = self.total_ms.or_else(|| milliseconds(self.started.elapsed()));
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> u8 {
        self.exit
    }

    /// What a control process is told of it; nothing of a migration that was never begun.
    pub(crate) fn told(&self) -> Option<MigrationReport> {
        Some(MigrationReport {
            session: self.migration?,
            outcome: match self.outcome {
                Outcome::Completed => ReportedOutcome::Completed,
                Outcome::Failed => ReportedOutcome::Failed,
                Outcome::Cancelled => ReportedOutcome::Cancelled,
                Outcome::Unknown => ReportedOutcome::Unknown,
            },
            downtime_ms: self.downtime_ms.filter(|_| self.outcome == Outcome::Completed),
            total_ms: self.total_ms,
            reason: self.reason.clone(),
        })
    }

    /// What a person reads; the last line says what to do.
    pub(crate) fn sentences(&self, state_dir: Option<&std::path::Path>) -> String {
        let mut text = String::new();
        let id = self.migration.map_or_else(String::new, |id| id.to_string());
        let why = self.reason.as_ref().map_or("", |reason| &reason.message);
        match (self.outcome, self.exit) {
            (Outcome::Completed, _) => {
                text += &format!("migration {id} completed; the guest runs at the destination\n");
                text += &self.figures();
            }
            (_, EXIT_REFUSED) => {
                text += &format!(
                    "refused: {why}\nnothing was changed; correct it and run the same command again\n"
                );
            }
            (Outcome::Unknown, _) => {
                let place =
                    state_dir.map_or_else(String::new, |dir| format!(" --state-dir {}", dir.display()));
                text += &format!(
                    "the outcome of migration {id} is unknown: {why}\n\
                     the source was last seen {}, the destination {}; nothing was started or quit since\n\
                     settle it with: novactl recover {id}{place}\n",
                    self.source.status, self.destination.status
                );
            }
            (outcome, _) => {
                let word = if outcome == Outcome::Cancelled { "was cancelled" } else { "failed" };
                text += &format!("migration {id} {word}: {why}\n");
                text += match self.destination.status.as_str() {
                    "gone" => {
                        "the guest runs at the source; nothing of it was lost; the destination QEMU is gone, start it anew to try again\n"
                    }
                    _ => {
                        "the guest runs at the source; nothing of it was lost; the destination was not used\n"
                    }
                };
            }
        }
        for warning in &self.warnings {
            text += &format!("warning: {warning}\n");
        }
        text
    }

    fn figures(&self) -> String {
        let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        let digest = match self.digest_equal {
            Some(true) => "equal on both sides",
            Some(false) => "DIFFERENT",
            None => "not compared",
        };
        format!(
            "total {} ms, downtime {} ms (QEMU) + {} ms (commit), {} iterations\n\
             guest {} bytes, encoded {} bytes, wire {} bytes, digests {digest}\n",
            number(self.total_ms),
            number(self.downtime_ms),
            number(self.commit_ms),
            number(self.iterations),
            number(self.guest_bytes),
            number(self.encoded_bytes),
            number(self.wire_bytes),
        )
    }
}

fn milliseconds(time: Duration) -> Option<u64> {
    u64::try_from(time.as_millis()).ok()
}

/// Whether the gateways' digests agree: what each compared itself, and the running digests of every direction that
/// both report at the same position. `None` when nothing was compared.
fn digest_equal(source: Option<&SessionRecord>, destination: Option<&SessionRecord>) -> Option<bool> {
    let mut verdicts: Vec<bool> =
        [source, destination].into_iter().flatten().filter_map(|r| r.digest_equal).collect();
    if let (Some(source), Some(destination)) = (source, destination) {
        for here in &source.connections {
            let there = destination.connections.iter().find(|there| {
                (there.connection, there.direction, there.position)
                    == (here.connection, here.direction, here.position)
            });
            if let (Some(here), Some(there)) = (here.digest, there.and_then(|there| there.digest)) {
                verdicts.push(here == there);
            }
        }
    }
    if verdicts.contains(&false) {
        return Some(false);
    }
    // Of a session that failed, equal stretches say nothing of the rest.
    let failed = |record: &SessionRecord| matches!(record.state, SessionState::Failed | SessionState::Held);
    let failed = [source, destination].into_iter().flatten().any(failed);
    (!failed && !verdicts.is_empty()).then_some(true)
}
