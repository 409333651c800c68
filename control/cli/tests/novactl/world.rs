//! One scripted world: two hypervisors, two gateways, a log, and the faults to show.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::gateway;
use crate::qemu::{self, Vm};

/// Longest that any test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// The migration never gets past `active`.
    pub(crate) stuck: bool,
    /// So many `migrate`s are refused because the source cleans up after an earlier one.
    pub(crate) cleans_up: u32,
    /// The migration fails at the source, which goes on running.
    pub(crate) source_fails: bool,
    /// A cancel comes too late: the migration completes.
    pub(crate) cancel_too_late: bool,
    /// The source's QMP socket closes for good while the migration is active.
    pub(crate) source_vanishes: bool,
    /// Looks at the destination that still find it `inmigrate` after the source completed.
    pub(crate) loading_looks: u32,
    /// The destination starts the guest by itself.
    pub(crate) autostart: bool,
    /// The destination is gone when the source has completed.
    pub(crate) destination_vanishes: bool,
    /// `cont` at the destination is carried out, and its answer is lost.
    pub(crate) cont_answer_lost: bool,
    /// `cont` at the destination is lost before it is carried out.
    pub(crate) cont_lost: bool,
    /// `cont` at the destination is refused.
    pub(crate) cont_refused: bool,
    /// `cont` at the destination is answered, and the guest stops with `io-error`.
    pub(crate) guest_stops: bool,
    /// `quit` at the source is answered and nothing happens.
    pub(crate) source_stays: bool,
    /// `session.open` at this gateway gives this error code.
    pub(crate) open_refused: Option<(&'static str, i64)>,
    /// The session fails at the destination's gateway while it runs.
    pub(crate) session_fails: bool,
    /// The source's gateway goes away while the session runs.
    pub(crate) gateway_vanishes: bool,
    /// What answers at the gateways' sockets are control processes.
    pub(crate) keeps_books: bool,
    /// They take no report.
    pub(crate) reports_refused: bool,
    /// Times that the source's gateway says that its peer does not know the session, before it opens it.
    pub(crate) refusals_before_open: u32,
}

/// Everything the peers know.
pub(crate) struct State {
    pub(crate) source: Vm,
    pub(crate) destination: Vm,
    pub(crate) faults: Faults,
    pub(crate) log: Vec<String>,
    /// What was reported of migrations, and at which side.
    pub(crate) reports: Vec<(&'static str, Value)>,
    pub(crate) draining: bool,
    pub(crate) api_version: u32,
    /// Whether the gateways have a session, and its end.
    pub(crate) session: gateway::Session,
}

pub(crate) type Shared = Arc<Mutex<State>>;

pub(crate) fn locked(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The world, with its sockets in a directory of its own.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) state: Shared,
}

impl World {
    /// A source that runs a guest, a destination that waits for it.
    pub(crate) fn new(faults: Faults) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let state = Arc::new(Mutex::new(State {
            source: Vm::new("running", None),
            destination: Vm::new("inmigrate", None),
            faults,
            log: Vec::new(),
            reports: Vec::new(),
            draining: false,
            api_version: novacron_control_api::limits::API_VERSION,
            session: gateway::Session::default(),
        }));
        let world = Self { dir, state };
        qemu::serve("source", &world.path("source.qmp"), &world.state);
        qemu::serve("destination", &world.path("destination.qmp"), &world.state);
        gateway::serve("source", &world.path("source.gateway"), &world.state);
        gateway::serve("destination", &world.path("destination.gateway"), &world.state);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// The command line of a migration in this world.
    pub(crate) fn migrate(&self) -> Command {
        let mut command = novactl();
        command.args(["migrate", "--json", "--peer", "tcp:127.0.0.1:7400"]);
        for (option, file) in [
            ("--source-qmp", "source.qmp"),
            ("--destination-qmp", "destination.qmp"),
            ("--source-gateway", "source.gateway"),
            ("--destination-gateway", "destination.gateway"),
            ("--state-dir", "state"),
            ("--socket-dir", ""),
        ] {
            command.arg(option).arg(self.path(file));
        }
        command
    }

    /// The command line of a recovery in this world.
    pub(crate) fn recover(&self) -> Command {
        let mut command = novactl();
        command.args(["recover", "--json", "--wait", "5", "--state-dir"]).arg(self.path("state"));
        command
    }

    /// Commands that changed something, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// The journal's steps.
    pub(crate) fn steps(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("state")) else { return Vec::new() };
        let paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        assert!(paths.len() <= 1, "{paths:?}");
        let Some(path) = paths.first() else { return Vec::new() };
        let text = std::fs::read_to_string(path).expect("a journal");
        text.lines()
            .skip(1)
            .map(|line| {
                serde_json::from_str::<Value>(line).expect("a step")["step"].as_str().expect("a name").into()
            })
            .collect()
    }

    /// Where guests run: each of "source", "destination".
    pub(crate) fn running(&self) -> Vec<&'static str> {
        let state = self.state();
        let ends = [("source", &state.source), ("destination", &state.destination)];
        ends.into_iter().filter(|(_, vm)| vm.alive && vm.status == "running").map(|(name, _)| name).collect()
    }

    /// Sockets of hypervisors and gateways that were left behind.
    pub(crate) fn left_behind(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.dir.path())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("novacron-"))
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mut state = self.state();
        state.source.alive = false;
        state.destination.alive = false;
        state.session.gateways_alive = [false; 2];
    }
}

pub(crate) fn novactl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_novactl"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR");
    command
}

/// What a finished `novactl` said.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

/// Runs to the end.
pub(crate) fn ended(command: &mut Command) -> Ended {
    finish(command.spawn().expect("novactl"))
}

/// Waits for the end, bounded.
pub(crate) fn finish(mut child: Child) -> Ended {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() >= deadline {
            child.kill().expect("killed");
            panic!("novactl did not end: {:?}", child.wait_with_output());
        }
        sleep(Duration::from_millis(5));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("its output");
    let text = String::from_utf8(stdout).expect("text");
    Ended {
        code: status.code().unwrap_or(-1),
        json: serde_json::from_str(&text).unwrap_or(Value::Null),
        stderr: String::from_utf8(stderr).expect("text"),
    }
}

/// Waits until `holds`, bounded.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Removes the listener of a fake that is no more.
pub(crate) fn unlink(path: &Path) {
    let _ = std::fs::remove_file(path);
}
