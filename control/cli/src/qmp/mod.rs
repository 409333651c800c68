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

use qapi::qmp::{QMPCapability, QmpCapability, YankInstance, yank};
use qapi::{Command, Execute, ExecuteOob};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use commands::{
    MigrateLimits, MigrationInfo, QueryCpus, QueryMemory, QueryMigrate, QueryStatus, SwitchoverBandwidth,
    is_terminal,
};

use crate::limits::{LOOKS_MAX, QMP_ANSWER, QMP_EVENTS_MAX, QMP_GREETING};
use crate::lines::{LineError, Lines, is_gone};

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

/// Whether QEMU offers to take commands out of band. `qapi` reads the offer's name as a capability that it does not know.
fn is_out_of_band(capability: &QmpCapability) -> bool {
    match capability {
        QmpCapability::OutOfBand => true,
        QmpCapability::Unknown(name) => serde_json::to_value(name).is_ok_and(|name| name == "oob"),
    }
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
    /// Whether it takes commands out of band: while it carries out, or cannot carry out, others.
    out_of_band: bool,
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
        let out_of_band = greeting.QMP.capabilities.iter().any(is_out_of_band);
        let mut hypervisor =
            Self { path: path.to_owned(), lines, next_id: 1, events: VecDeque::new(), version, out_of_band };
        let enable = out_of_band.then(|| vec![QMPCapability::oob]);
        hypervisor.execute(qapi::qmp::qmp_capabilities { enable })?;
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

    /// Shuts the sockets of a migration, if one is under way: it fails then, and an outgoing one leaves its guest to run on.
    /// That works while QEMU can do nothing else, because it waits for one of them with its lock held (`yank`, QEMU
    /// `qapi/yank.json`). Where QEMU does not take commands out of band, nothing is done.
    pub(crate) fn yank_migration(&mut self) -> Result<(), QmpError> {
        if !self.out_of_band {
            return Ok(());
        }
        let (command, id) = (yank { instances: vec![YankInstance::migration] }, self.next_id);
        self.next_id += 1;
        let deadline = Instant::now() + QMP_ANSWER;
        let line = novacron_control_api::to_line(&ExecuteOob::new(command, id));
        self.lines.write(&line, deadline).map_err(|why| self.lost::<yank>(why))?;
        match self.receive(Sent::<yank> { id, deadline, _command: std::marker::PhantomData }) {
            // Refused: there is none.
            Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
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
        let left = sent.deadline.saturating_duration_since(Instant::now());
        self.poll_answer(&sent, left)?.ok_or_else(|| self.late(&sent))
    }

    /// The answer to a command if it comes within `wait`; it can be waited for again when it does not.
    pub(crate) fn poll_answer<C: Command>(
        &mut self,
        sent: &Sent<C>,
        wait: Duration,
    ) -> Result<Option<C::Ok>, QmpError> {
        let deadline = Instant::now() + wait;
        loop {
            let line = match self.lines.poll_line(deadline) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                Err(why) => return Err(self.lost::<C>(why)),
            };
            let Some(message) = self.take(&line).map_err(|why| self.lost::<C>(why))? else { continue };
            // An answer to an earlier command that was given up: its id is not ours.
            if message.id != Some(sent.id) {
                continue;
            }
            if let Some(refusal) = message.error {
                let path = self.path.display().to_string();
                return Err(QmpError::Refused { path, command: C::NAME, why: refusal.desc });
            }
            return serde_json::from_value(message.returned.unwrap_or_default())
                .map(Some)
                .map_err(|why| self.lost::<C>(format!("its answer is not understood: {why}")));
        }
    }

    /// That a command's answer was waited for long enough.
    pub(crate) fn late<C: Command>(&self, _unanswered: &Sent<C>) -> QmpError {
        self.lost::<C>(LineError::Late)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::mpsc::{Receiver, channel};

    /// A QEMU that offers these capabilities; the lines that it is sent come out, and nobody but the test answers the later ones.
    fn offers(capabilities: &str) -> (tempfile::TempDir, Hypervisor, UnixStream, Receiver<Value>) {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("a socket");
        let greeting = format!(
            "{{\"QMP\":{{\"version\":{{\"qemu\":{{\"major\":7,\"minor\":2,\"micro\":0}},\"package\":\"\"}},\"capabilities\":{capabilities}}}}}\r\n"
        );
        let (sent, lines) = channel();
        let serving = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a client");
            socket.write_all(greeting.as_bytes()).expect("greeting it");
            let mut reader = BufReader::new(socket.try_clone().expect("sharing the socket"));
            let mut line = String::new();
            reader.read_line(&mut line).expect("qmp_capabilities");
            socket.write_all(b"{\"return\":{},\"id\":1}\r\n").expect("answering it");
            sent.send(serde_json::from_str(&line).expect("JSON")).expect("a test that listens");
            std::thread::spawn(move || {
                for line in reader.lines().map_while(Result::ok) {
                    let _ = sent.send(serde_json::from_str(&line).expect("JSON"));
                }
            });
            socket
        });
        let hypervisor = Hypervisor::connect(&path).expect("a session");
        (dir, hypervisor, serving.join().expect("the server"), lines)
    }

    #[test]
    fn a_migration_is_torn_from_its_sockets_while_another_command_waits() {
        let (_dir, mut qemu, mut socket, lines) = offers("[\"later\",\"oob\"]");
        let negotiated = lines.recv().expect("a line");
        assert_eq!(negotiated["arguments"]["enable"], serde_json::json!(["oob"]));
        let waiting = qemu.send(QueryMigrate {}).expect("asked");
        assert!(qemu.poll_answer(&waiting, Duration::from_millis(20)).expect("a session").is_none());
        assert_eq!(lines.recv().expect("a line")["execute"], "query-migrate");
        let answering = std::thread::spawn(move || {
            let asked = lines.recv().expect("a line");
            let answer = format!("{{\"return\":{{}},\"id\":{}}}\r\n", asked["id"]);
            socket.write_all(answer.as_bytes()).expect("answering it");
            asked
        });
        qemu.yank_migration().expect("torn");
        let asked = answering.join().expect("the server");
        assert_eq!(asked["exec-oob"], "yank");
        assert_eq!(asked["arguments"]["instances"], serde_json::json!([{"type": "migration"}]));
    }

    #[test]
    fn a_qemu_that_takes_nothing_out_of_band_is_asked_nothing() {
        let (_dir, mut qemu, _socket, lines) = offers("[]");
        assert!(lines.recv().expect("a line")["arguments"].get("enable").is_none_or(Value::is_null));
        qemu.yank_migration().expect("nothing to do");
        assert!(lines.recv_timeout(Duration::from_millis(50)).is_err());
    }
}
