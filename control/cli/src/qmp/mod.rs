//! A hypervisor's QMP socket, with a bound on every wait.
//!
//! The vocabulary (commands, arguments, results) is the crate `qapi`'s, generated from QEMU's own schema. Its
//! blocking client is not used: it waits without a deadline, panics when QEMU closes before its greeting, and
//! takes an event that its schema does not know for a broken line. [`Hypervisor`] frames lines itself, tags every
//! command with an id and tells three failures apart, because promise 2 depends on the difference.

mod commands;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qapi::{Command, Execute};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use commands::{
    MigrateLimits, MigrationInfo, QueryCpus, QueryMemory, QueryMigrate, QueryStatus, SwitchoverBandwidth,
    is_terminal,
};

use crate::limits::{LOOKS_MAX, QMP_ANSWER, QMP_EVENTS_MAX, QMP_GREETING};
use crate::lines::{Lines, is_gone};

/// Why a hypervisor could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    /// Nothing listens at the socket: the process has ended, or the path is wrong.
    #[error("nothing listens on the QMP socket {path}: {why}")]
    Gone { path: String, why: String },
    /// The socket exists but gives no QMP session.
    #[error(
        "the QMP socket {path} does not answer ({why}); another client may hold it: QEMU serves one at a time"
    )]
    Unreachable { path: String, why: String },
    /// QEMU said no: the command was not carried out.
    #[error("QEMU at {path} refused {command}: {why}")]
    Refused { path: String, command: &'static str, why: String },
    /// The answer never came: whether the command was carried out is unknown.
    #[error("QEMU at {path} gave no answer to {command} ({why}); whether it was carried out is unknown")]
    Lost { path: String, command: &'static str, why: String },
}

/// A command whose answer is still to come.
#[must_use]
pub(crate) struct Sent<C: Command> {
    id: u64,
    deadline: Instant,
    _command: std::marker::PhantomData<fn() -> C>,
}

/// One QEMU process, reached through its QMP socket.
pub(crate) struct Hypervisor {
    path: PathBuf,
    lines: Lines,
    next_id: u64,
    events: VecDeque<String>,
    version: (i64, i64, i64),
}

/// What a line can be; everything else of it is ignored (QEMU `docs/interop/qmp-spec.rst`).
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl Hypervisor {
    /// Connects, reads the greeting and leaves negotiation mode.
    pub(crate) fn connect(path: &Path) -> Result<Self, QmpError> {
        let name = || path.display().to_string();
        let unreachable = |why: String| QmpError::Unreachable { path: name(), why };
        let mut lines = Lines::connect(path).map_err(|error| match is_gone(&error) {
            true => QmpError::Gone { path: name(), why: error.to_string() },
            false => unreachable(error.to_string()),
        })?;
        let greeting =
            lines.read_line(Instant::now() + QMP_GREETING).map_err(|why| unreachable(why.to_string()))?;
        let greeting: qapi::qmp::QapiCapabilities =
            serde_json::from_slice(&greeting).map_err(|_| unreachable("it does not speak QMP".into()))?;
        let qemu = &greeting.QMP.version.qemu;
        let version = (qemu.major, qemu.minor, qemu.micro);
        let mut hypervisor =
            Self { path: path.to_owned(), lines, next_id: 1, events: VecDeque::new(), version };
        hypervisor.execute(qapi::qmp::qmp_capabilities { enable: None })?;
        Ok(hypervisor)
    }

    /// QEMU's version: major, minor, micro.
    pub(crate) fn version(&self) -> (i64, i64, i64) {
        self.version
    }

    /// Carries out one command.
    pub(crate) fn execute<C: Command>(&mut self, command: C) -> Result<C::Ok, QmpError> {
        let sent = self.send(command)?;
        self.receive(sent)
    }

    /// Writes one command. An error may leave it carried out or not: [`QmpError::Lost`].
    pub(crate) fn send<C: Command>(&mut self, command: C) -> Result<Sent<C>, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let deadline = Instant::now() + QMP_ANSWER;
        let line = novacron_control_api::to_line(&Execute::with_id(command, id));
        self.lines.write(&line, deadline).map_err(|why| self.lost::<C>(why))?;
        Ok(Sent { id, deadline, _command: std::marker::PhantomData })
    }

    /// Waits for the answer to a command.
    pub(crate) fn receive<C: Command>(&mut self, sent: Sent<C>) -> Result<C::Ok, QmpError> {
        loop {
            let message = self.read(sent.deadline).map_err(|why| self.lost::<C>(why))?;
            // An answer to an earlier command that was given up: its id is not ours.
            if message.id != Some(sent.id) {
                continue;
            }
            if let Some(refusal) = message.error {
                let path = self.path.display().to_string();
                return Err(QmpError::Refused { path, command: C::NAME, why: refusal.desc });
            }
            return serde_json::from_value(message.returned.unwrap_or_default())
                .map_err(|why| self.lost::<C>(format!("its answer is not understood: {why}")));
        }
    }

    /// Waits until QEMU tells an event or `wait` has passed; true when it told one. Queries the state afterwards:
    /// an event only says that looking is worth it.
    pub(crate) fn wait_event(&mut self, wait: Duration) -> Result<bool, QmpError> {
        let deadline = Instant::now() + wait;
        while self.events.is_empty() {
            match self.lines.poll_line(deadline) {
                Ok(Some(line)) => self.take(&line).map(drop).map_err(|why| self.lost::<QueryMigrate>(why))?,
                Ok(None) => return Ok(false),
                Err(why) => return Err(self.lost::<QueryMigrate>(why)),
            }
        }
        self.events.clear();
        Ok(true)
    }

    /// Waits until QEMU closes the socket, as it does when the process ends; false when it does not in time.
    pub(crate) fn wait_closed(mut self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            match self.lines.poll_line(deadline) {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<Message, String> {
        loop {
            let line = self.lines.read_line(deadline).map_err(|why| why.to_string())?;
            if let Some(message) = self.take(&line)? {
                return Ok(message);
            }
        }
    }

    /// Sorts a line: an event is kept, an answer is returned.
    fn take(&mut self, line: &[u8]) -> Result<Option<Message>, String> {
        let message: Message =
            serde_json::from_slice(line).map_err(|_| "it sent a line that is not QMP".to_owned())?;
        let Some(event) = message.event else { return Ok(Some(message)) };
        if self.events.len() == QMP_EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
        Ok(None)
    }

    fn lost<C: Command>(&self, why: impl fmt::Display) -> QmpError {
        QmpError::Lost { path: self.path.display().to_string(), command: C::NAME, why: why.to_string() }
    }
}

/// What was seen of a hypervisor, for reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// `query-status`: running, paused, inmigrate, postmigrate, ...; or `gone`, `unreachable`.
    pub(crate) status: String,
    /// `query-migrate`: completed, failed, cancelled, ...; `none` when there was no migration.
    pub(crate) migration: String,
}

impl Hypervisor {
    /// Looks at both states, at one moment: again while a migration changes its state in between.
    pub(crate) fn look(&mut self) -> Result<Seen, QmpError> {
        let mut migration = self.execute(QueryMigrate {})?.status_or_none().to_owned();
        for _ in 0..LOOKS_MAX {
            let status = self.execute(QueryStatus {})?.status;
            let again = self.execute(QueryMigrate {})?.status_or_none().to_owned();
            if again == migration {
                return Ok(Seen { status, migration });
            }
            migration = again;
        }
        let status = self.execute(QueryStatus {})?.status;
        Ok(Seen { status, migration })
    }
}
