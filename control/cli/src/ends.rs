//! Both hypervisors of a migration, reconnected when a look at them needs it.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::limits::{HANG_UP_WAIT, POLL_SHORT};
use crate::qmp::{Hypervisor, QmpError, QueryStatus, Seen};

/// One end: where its QMP socket is, and the session on it while there is one.
///
/// QEMU serves one QMP client at a time, so there is never more than one session an end.
pub(crate) struct End {
    path: PathBuf,
    hypervisor: Option<Hypervisor>,
}

impl End {
    /// An end that is connected when it is first needed.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), hypervisor: None }
    }

    /// The session, connected now if it is not.
    pub(crate) fn qmp(&mut self) -> Result<&mut Hypervisor, QmpError> {
        let hypervisor = match self.hypervisor.take() {
            Some(hypervisor) => hypervisor,
            None => Hypervisor::connect(&self.path)?,
        };
        Ok(self.hypervisor.insert(hypervisor))
    }

    /// Looks at the states, on a fresh session when the present one is lost: looking changes nothing.
    ///
    /// A process that ends closes its sessions first and its socket a moment later; whoever connects in between is hung
    /// up on. It is looked at until it is gone, because gone settles what a socket that does not answer leaves open.
    pub(crate) fn look(&mut self) -> Result<Seen, QmpError> {
        let mut until = None;
        loop {
            let asked = Instant::now();
            let seen = self.qmp().and_then(Hypervisor::look);
            let again = match &seen {
                Err(QmpError::Lost { .. }) => true,
                // One that says nothing is held by another client, and will be when it is asked again.
                Err(QmpError::Unreachable { .. }) => asked.elapsed() < HANG_UP_WAIT,
                _ => return seen,
            };
            self.hypervisor = None;
            let first = until.is_none();
            let until = *until.get_or_insert_with(|| Instant::now() + HANG_UP_WAIT);
            if !again || (!first && Instant::now() >= until) {
                return seen;
            }
            sleep(POLL_SHORT);
        }
    }

    /// Waits until the guest runs; the last status seen when it does not in time.
    pub(crate) fn wait_running(&mut self, wait: Duration) -> Result<Result<(), String>, QmpError> {
        let deadline = Instant::now() + wait;
        loop {
            let seen = self.qmp()?.execute(QueryStatus {})?;
            if seen.running {
                return Ok(Ok(()));
            }
            if Instant::now() >= deadline {
                return Ok(Err(seen.status));
            }
            sleep(POLL_SHORT);
        }
    }

    /// Ends the process and waits until it is gone; false when it is not in time.
    pub(crate) fn quit(&mut self, wait: Duration) -> Result<bool, QmpError> {
        match self.qmp()?.execute(qapi::qmp::quit {}) {
            // QEMU may close before its answer is read; whether it is gone is looked at below.
            Ok(_) | Err(QmpError::Lost { .. }) => {}
            Err(error) => return Err(error),
        }
        if let Some(hypervisor) = self.hypervisor.take()
            && hypervisor.wait_closed(wait)
        {
            return Ok(true);
        }
        Ok(matches!(Hypervisor::connect(&self.path), Err(QmpError::Gone { .. })))
    }
}

/// Both ends.
pub(crate) struct Ends {
    pub(crate) source: End,
    pub(crate) destination: End,
}

impl Ends {
    /// Two ends, not connected yet.
    pub(crate) fn new(source: &Path, destination: &Path) -> Self {
        Self { source: End::new(source), destination: End::new(destination) }
    }
}

/// What was seen, or why nothing was, for reports.
pub(crate) fn told(seen: Result<&Seen, &QmpError>) -> Seen {
    match seen {
        Ok(seen) => seen.clone(),
        Err(QmpError::Gone { .. }) => Seen { status: "gone".into(), migration: "unknown".into() },
        Err(_) => Seen { status: "unreachable".into(), migration: "unknown".into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// QEMU's sockets as it ends: a session is closed, the next one is hung up on, then nothing listens.
    #[test]
    fn a_process_that_ends_is_seen_gone_and_not_taken_for_one_that_does_not_answer() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("a socket");
        let ending = std::thread::spawn(move || {
            for _ in 0..2 {
                drop(listener.accept());
            }
        });
        let seen = End::new(&path).look();
        assert!(matches!(seen, Err(QmpError::Gone { .. })), "{seen:?}");
        ending.join().expect("the ending process");
    }

    #[test]
    fn one_that_always_hangs_up_is_unreachable_after_a_bounded_time() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let asked = Instant::now();
        let seen = End::new(&path).look();
        assert!(matches!(seen, Err(QmpError::Unreachable { .. })), "{seen:?}");
        assert!(asked.elapsed() >= HANG_UP_WAIT);
    }
}
