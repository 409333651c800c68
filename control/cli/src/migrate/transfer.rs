//! From the source's `migrate` to its `completed`, or to the certainty that it will not come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use novacron_control_api::{ConnectionRecord, Endpoint, SessionRecord};

use super::Trouble;
use super::progress::Progress;
use super::switchover::Achieved;
use crate::ends::{End, Ends};
use crate::limits::{CANCEL_WAIT, CLEANED_UP_WAIT, FREED_WAIT, POLL, POLL_SHORT, QMP_ANSWER, REASON_WAIT};
use crate::qmp::{Hypervisor, MigrationInfo, QmpError, QueryMigrate, SwitchoverBandwidth, is_terminal};
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

/// Tells the source to migrate. A QEMU that has said that a migration failed may still be cleaning up after it, and refuses the
/// next until it has.
pub(crate) fn start(source: &mut End, uri: &Endpoint) -> Result<(), QmpError> {
    let deadline = Instant::now() + CLEANED_UP_WAIT;
    loop {
        let uri = Some(uri.to_string());
        match source.qmp()?.execute(qapi::qmp::migrate { uri, channels: None, detach: None, resume: None }) {
            Err(QmpError::Refused { why, .. }) if is_cleaning_up(&why) && Instant::now() < deadline => {
                sleep(POLL_SHORT);
            }
            answer => return answer.map(drop),
        }
    }
}

/// Whether these are its words for that: of `util/yank.c` and `migration/migration.c`, QEMU 10.
fn is_cleaning_up(why: &str) -> bool {
    ["duplicate yank instance", "There's a migration process in progress"]
        .iter()
        .any(|words| why.contains(words))
}

/// What ends a migration before its source completes it.
pub(crate) struct Stops<'a> {
    watchers: &'a Watchers,
    interrupted: &'a AtomicBool,
    timeout: Duration,
    deadline: Instant,
}

impl<'a> Stops<'a> {
    pub(crate) fn new(watchers: &'a Watchers, interrupted: &'a AtomicBool, timeout: Duration) -> Self {
        Self { watchers, interrupted, timeout, deadline: Instant::now() + timeout }
    }

    /// The one that has come, if any.
    fn come(&self) -> Option<Trouble> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Some(Trouble::cancelled());
        }
        let late = || {
            let message = format!("the source had not completed after {} s", self.timeout.as_secs());
            (Instant::now() >= self.deadline).then(|| Trouble::new(TIMEOUT, message))
        };
        self.watchers.failure().or_else(late)
    }
}

/// Waits until the source says `completed`.
pub(crate) fn until_completed(
    ends: &mut Ends,
    stops: &Stops<'_>,
    progress: &mut Progress,
) -> Result<MigrationInfo, Trouble> {
    let mut achieved = Achieved::default();
    let mut info = MigrationInfo::default();
    loop {
        let qmp = ends.source.qmp()?;
        info = ask(qmp, &info, stops, progress)?;
        match info.status_or_none() {
            "completed" => return Ok(info),
            "failed" | "cancelled" | "none" => return Err(why_failed(&info, stops.watchers)),
            _ => {}
        }
        if let Some(trouble) = stops.come() {
            return Err(trouble);
        }
        let record = stops.watchers.source.record();
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

/// Asks how far the source is. QEMU answers from its main loop, whose lock the migration holds from the moment at which it
/// stops the guest until the last page has left (`migration_completion`, QEMU `migration/migration.c`): on a slow path no
/// answer comes for as long as that takes. So what is waited for is not a time, but that the session moves. A migration that
/// is to end meanwhile is torn from its sockets: it fails, the guest goes on, and QEMU answers again. `last` is what it said
/// last.
fn ask(
    qmp: &mut Hypervisor,
    last: &MigrationInfo,
    stops: &Stops<'_>,
    progress: &mut Progress,
) -> Result<MigrationInfo, Trouble> {
    let sent = qmp.send(QueryMigrate {})?;
    let mut moved = Moved::default();
    loop {
        if let Some(info) = qmp.poll_answer(&sent, POLL)? {
            return Ok(info);
        }
        if let Some(trouble) = stops.come() {
            // A gateway that fails a session closes QEMU's socket, and QEMU answers then; one that hangs does not. Where the guest
            // is after that is looked at when the migration is given up.
            if matches!(qmp.poll_answer(&sent, FREED_WAIT), Ok(None)) {
                let _ = qmp.yank_migration();
            }
            return Err(trouble);
        }
        let record = stops.watchers.source.record();
        progress.update(last, record.as_ref());
        if moved.silence(record.as_ref().map_or(0, carried), Instant::now()) >= QMP_ANSWER {
            return Err(qmp.late(&sent).into());
        }
    }
}

/// When a session last took something from its source or delivered something of it.
#[derive(Debug, Default)]
struct Moved(Option<(u64, Instant)>);

impl Moved {
    /// For how long `carried` has been what it is.
    fn silence(&mut self, carried: u64, now: Instant) -> Duration {
        match self.0 {
            Some((before, since)) if before == carried => now.saturating_duration_since(since),
            _ => {
                self.0 = Some((carried, now));
                Duration::ZERO
            }
        }
    }
}

/// What grows while a session moves, in bytes: read at one end, and taken at the other.
fn carried(record: &SessionRecord) -> u64 {
    let of = |connection: &ConnectionRecord| connection.position.saturating_add(connection.consumed);
    record.connections.iter().map(of).fold(0, u64::saturating_add)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_when_the_session_last_moved() {
        let start = Instant::now();
        let mut moved = Moved::default();
        let mut silence = |carried, seconds| moved.silence(carried, start + Duration::from_secs(seconds));
        assert_eq!(silence(0, 0), Duration::ZERO);
        assert_eq!(silence(0, 4), Duration::from_secs(4), "nothing was heard of it");
        assert_eq!(silence(1, 6), Duration::ZERO, "one byte is a move");
        assert_eq!(silence(1, 20), Duration::from_secs(14));
        assert_eq!(silence(9, 21), Duration::ZERO);
    }
}
