//! Follows a session at its gateway, on a thread and a connection of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use novacron_control_api::{
    Call, ErrorCode, Reason, SessionId, SessionRecord, SessionRef, SessionState, WatchParams, WatchResult,
};

use crate::limits::{
    POLL, POLL_SHORT, RPC_ANSWER, WATCH_INTERVAL_MS, WATCH_RETRIES, WATCH_RETRY_PAUSE, WATCH_SILENCE,
};
use crate::rpc::{self, Gateway, GatewayError};

/// What is known of a watched session.
#[derive(Debug, Clone, Default)]
struct Known {
    record: Option<SessionRecord>,
    /// The gateway is gone, or no longer knows the session; why.
    lost: Option<String>,
}

/// A session that is being followed.
pub(crate) struct Watcher {
    path: PathBuf,
    session: SessionId,
    known: Arc<Mutex<Known>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to follow a session. `patient`: what answers is a control process, which may be gone, or hang, while the
    /// gateway behind it carries the session on: then it is waited for, and its absence is no loss.
    pub(crate) fn start(path: &Path, session: SessionId, patient: bool) -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (path, known, stop) = (path.to_owned(), known.clone(), stop.clone());
            move || {
                if let Err(error) = follow(&path, session, patient, &known, &stop) {
                    locked(&known).lost = Some(error.to_string());
                }
            }
        });
        Self { path: path.to_owned(), session, known, stop, thread: Some(thread) }
    }

    /// The latest record.
    pub(crate) fn record(&self) -> Option<SessionRecord> {
        locked(&self.known).record.clone()
    }

    /// Why the session can no longer succeed, if it cannot.
    pub(crate) fn failure(&self) -> Option<Reason> {
        let known = locked(&self.known);
        if let Some(record) = known.record.as_ref().filter(|record| record.state == SessionState::Failed) {
            let unnamed = || Reason { code: "session_failed".into(), message: "the session failed".into() };
            return Some(record.reason.clone().unwrap_or_else(unnamed));
        }
        let lost = known.lost.as_ref()?;
        Some(Reason { code: "gateway_gone".into(), message: format!("a gateway was lost: {lost}") })
    }

    /// The last record: waits for the session to end, then asks once more.
    pub(crate) fn finish(mut self, wait: Duration) -> Option<SessionRecord> {
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline && self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            sleep(POLL_SHORT);
        }
        if self.record().is_none_or(|record| !record.state.is_ended())
            && let Ok(record) = rpc::call(&self.path, Call::SessionGet(SessionRef { session: self.session }))
        {
            locked(&self.known).record = Some(record);
        }
        self.join();
        self.record()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; what it knew is still there.
            let _ = thread.join();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.join();
    }
}

fn locked(known: &Mutex<Known>) -> std::sync::MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows until the session ends or `stop`; an error when the gateway stays away or forgot the session. A control process
/// that starts again may not have found the session yet.
fn follow(
    path: &Path,
    session: SessionId,
    patient: bool,
    known: &Mutex<Known>,
    stop: &AtomicBool,
) -> Result<(), GatewayError> {
    let mut tries = 0;
    loop {
        let error = match follow_once(path, session, known, stop) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let forgotten = matches!(&error, GatewayError::Answered { error, .. }
            if error.known_code() == Some(ErrorCode::SessionUnknown));
        if stop.load(Ordering::Relaxed) {
            return Err(error);
        }
        if !patient {
            // Another connection would hear as little, and a guest may stand still meanwhile.
            let silent = matches!(error, GatewayError::Silent { .. });
            tries += 1;
            if forgotten || silent || tries > WATCH_RETRIES {
                return Err(error);
            }
        }
        sleep(WATCH_RETRY_PAUSE);
    }
}

fn follow_once(
    path: &Path,
    session: SessionId,
    known: &Mutex<Known>,
    stop: &AtomicBool,
) -> Result<(), GatewayError> {
    let mut gateway = Gateway::connect(path)?;
    let params = WatchParams { session, interval_ms: WATCH_INTERVAL_MS };
    let _: WatchResult = gateway.call(Call::SessionWatch(params), RPC_ANSWER)?;
    let mut heard = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let Some((record, ended)) = gateway.next_record(POLL)? else {
            if heard.elapsed() >= WATCH_SILENCE {
                let path = path.display().to_string();
                return Err(GatewayError::Silent { path, silence: WATCH_SILENCE });
            }
            continue;
        };
        heard = Instant::now();
        let ended = ended || record.state.is_ended();
        locked(known).record = Some(record);
        if ended {
            return Ok(());
        }
    }
    Ok(())
}
