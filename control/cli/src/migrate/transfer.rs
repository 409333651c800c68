//! From the source's `migrate` to its `completed`, or to the certainty that it will not come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use novacron_control_api::Endpoint;

use super::Trouble;
use super::progress::Progress;
use super::switchover::Achieved;
use crate::ends::{End, Ends};
use crate::limits::{CANCEL_WAIT, POLL, POLL_SHORT, REASON_WAIT};
use crate::qmp::{MigrationInfo, QmpError, QueryMigrate, SwitchoverBandwidth, is_terminal};
use crate::watch::Watcher;

/// The code of a migration that took longer than its caller allows.
pub(super) const TIMEOUT: &str = "timeout";

/// The two gateways' watchers.
pub(crate) struct Watchers {
    pub(crate) source: Watcher,
    pub(crate) destination: Watcher,
}

impl Watchers {
    /// Why the session can no longer succeed, if it cannot. The side that failed first tends to know more, which
    /// is the one whose reason is not that the other went away; the source's is taken when in doubt.
    fn failure(&self) -> Option<Trouble> {
        let reasons = [self.source.failure(), self.destination.failure()];
        let [source, destination] = &reasons;
        let gone = |code: &str| code.starts_with("peer") || code == "gateway_gone" || code == "cancelled";
        let reason = match (source, destination) {
            (Some(source), Some(destination)) if gone(&source.code) && !gone(&destination.code) => {
                destination
            }
            (Some(reason), _) | (None, Some(reason)) => reason,
            (None, None) => return None,
        };
        Some(Trouble::new(&reason.code, reason.message.clone()))
    }
}

/// Tells the source to migrate.
pub(crate) fn start(source: &mut End, uri: &Endpoint) -> Result<(), QmpError> {
    let uri = Some(uri.to_string());
    source.qmp()?.execute(qapi::qmp::migrate { uri, channels: None, detach: None, resume: None })?;
    Ok(())
}

/// Waits until the source says `completed`.
pub(crate) fn until_completed(
    ends: &mut Ends,
    watchers: &Watchers,
    interrupted: &AtomicBool,
    timeout: Duration,
    progress: &mut Progress,
) -> Result<MigrationInfo, Trouble> {
    let deadline = Instant::now() + timeout;
    let mut achieved = Achieved::default();
    loop {
        let qmp = ends.source.qmp()?;
        let info = qmp.execute(QueryMigrate {})?;
        match info.status_or_none() {
            "completed" => return Ok(info),
            "failed" | "cancelled" | "none" => return Err(why_failed(&info, watchers)),
            _ => {}
        }
        if interrupted.load(Ordering::Relaxed) {
            return Err(Trouble::cancelled());
        }
        if let Some(trouble) = watchers.failure() {
            return Err(trouble);
        }
        if Instant::now() >= deadline {
            let message = format!("the source had not completed after {} s", timeout.as_secs());
            return Err(Trouble::new(TIMEOUT, message));
        }
        let record = watchers.source.record();
        progress.update(&info, record.as_ref());
        if let Some(avail_switchover_bandwidth) = record.as_ref().and_then(|record| achieved.look(record)) {
            match qmp.execute(SwitchoverBandwidth { avail_switchover_bandwidth }) {
                Ok(_) => {}
                Err(QmpError::Refused { .. }) => achieved.refused(),
                Err(error) => return Err(error.into()),
            }
        }
        // The event of the last change ends this wait at once: the guest stands still.
        qmp.wait_event(POLL)?;
    }
}

/// A gateway knows better why than QEMU, which only sees its socket close; it may need a moment to say so.
fn why_failed(info: &MigrationInfo, watchers: &Watchers) -> Trouble {
    let deadline = Instant::now() + REASON_WAIT;
    loop {
        if let Some(trouble) = watchers.failure() {
            return trouble;
        }
        if Instant::now() >= deadline {
            break;
        }
        sleep(POLL_SHORT);
    }
    let status = info.status_or_none();
    let why = info.error_desc.as_deref().unwrap_or("QEMU gave no reason");
    Trouble::new("source_failed", format!("the source's migration is {status}: {why}"))
}

/// Cancels the source's migration and waits for its final state, which may still be `completed`.
pub(crate) fn cancel(source: &mut End) -> Result<(), QmpError> {
    let deadline = Instant::now() + CANCEL_WAIT;
    let mut asked = false;
    loop {
        // A look finds its way to a fresh session when the old one is what failed.
        if is_terminal(&source.look()?.migration) || Instant::now() >= deadline {
            return Ok(());
        }
        if !asked {
            match source.qmp()?.execute(qapi::qmp::migrate_cancel {}) {
                // Refused: it is over already, as the next look will show.
                Ok(_) | Err(QmpError::Refused { .. }) => asked = true,
                Err(error) => return Err(error),
            }
        }
        sleep(POLL_SHORT);
    }
}
