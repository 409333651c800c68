//! The gateway's process: started, or adopted when one answers already; started again when it ends.
//!
//! It is in a process group of its own and is not killed with this process, so that control may die at any moment
//! without hurting a migration. A stop ends it only when it was started from here and carries no session.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use novacron_control_api::control::HealthState;
use novacron_control_api::{Call, ErrorCode, GatewayInfo, RpcError, SessionList};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::component::{Fault, Found};
use crate::events::Events;
use crate::gateway::Gateway;
use crate::limits::{GATEWAY_INFO_LOOK, GATEWAY_LOOK, GATEWAY_UP, RESTART_FORGIVEN, RESTART_PAUSES};
use crate::metrics::Metrics;

/// How to start a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Where it is noted which process was started.
    pub(crate) note: PathBuf,
}

/// Which process was started from here: its number, and when it began, because numbers come again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    pid: u32,
    /// In clock ticks after the boot (proc_pid_stat(5), field 22).
    began: u64,
}

/// When a process began; `None` when there is none.
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Not looked yet, or stopped.
    Absent,
    /// It answers.
    Answers,
    /// It is there and does not answer.
    Hangs(String),
    /// It ended; another is about to start.
    Lost(String),
}

struct State {
    standing: Standing,
    info: Option<GatewayInfo>,
    child: Option<Child>,
    /// When the process that runs was seen first.
    since: Option<Instant>,
    losses_in_a_row: usize,
}

/// Keeps a gateway running.
pub(crate) struct Supervisor {
    gateway: Arc<Gateway>,
    launch: Launch,
    state: Mutex<State>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
}

impl Supervisor {
    pub(crate) fn new(
        gateway: Arc<Gateway>,
        launch: Launch,
        events: Arc<Events>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let state =
            State { standing: Standing::Absent, info: None, child: None, since: None, losses_in_a_row: 0 };
        Self { gateway, launch, state: Mutex::new(state), events, metrics }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the gateway last said of itself; `None` while it does not answer.
    pub(crate) fn info(&self) -> Option<GatewayInfo> {
        let state = self.state();
        if state.standing == Standing::Answers { state.info.clone() } else { None }
    }

    /// Adopts the gateway that answers, or starts one.
    pub(crate) async fn start(&self) -> Result<(), Fault> {
        if let Ok(info) = self.gateway.info().await {
            let ours = self.is_ours(info.pid);
            tracing::info!(pid = info.pid, started_from_here = ours, "gateway adopted: it answers already");
            let text = format!("gateway {} is adopted", info.pid);
            self.events.tell("gateway.adopted", &info.pid.to_string(), text, json!({"pid": info.pid}));
            self.answers(info);
            return Ok(());
        }
        self.spawn().await
    }

    async fn spawn(&self) -> Result<(), Fault> {
        let program = &self.launch.program;
        let mut command = Command::new(program);
        command.args(&self.launch.arguments).stdin(Stdio::null()).kill_on_drop(false).process_group(0);
        let child = command.spawn().map_err(|error| {
            Fault::lasting(format!(
                "{} cannot be started: {error}; dwcp.gateway_program names the program",
                program.display()
            ))
        })?;
        let pid = child.id().unwrap_or_default();
        self.metrics.gateway_started();
        self.note(pid);
        self.state().child = Some(child);
        let deadline = Instant::now() + GATEWAY_UP;
        loop {
            let ended = self.ended();
            if let Ok(info) = self.gateway.info().await {
                tracing::info!(pid = info.pid, "gateway started");
                let text = format!("gateway {} is started", info.pid);
                self.events.tell("gateway.started", &info.pid.to_string(), text, json!({"pid": info.pid}));
                self.answers(info);
                return Ok(());
            }
            if let Some(status) = ended {
                // Wrong usage stays wrong; anything else may have been in the way for a moment.
                let what = format!("the gateway ended at once ({status}); its messages say why");
                return Err(if status.code() == Some(2) {
                    Fault::lasting(what)
                } else {
                    Fault::passing(what)
                });
            }
            if Instant::now() >= deadline {
                return Err(Fault::passing(format!(
                    "the gateway runs but does not answer at {}",
                    self.gateway.path().display()
                )));
            }
            sleep(GATEWAY_LOOK).await;
        }
    }

    fn answers(&self, info: GatewayInfo) {
        let mut state = self.state();
        if state.info.as_ref().is_none_or(|before| before.pid != info.pid) || state.since.is_none() {
            state.since = Some(Instant::now());
        }
        state.standing = Standing::Answers;
        state.info = Some(info);
    }

    /// How the child ended, if there is one and it did.
    fn ended(&self) -> Option<std::process::ExitStatus> {
        let mut state = self.state();
        let status = state.child.as_mut()?.try_wait().ok()??;
        state.child = None;
        Some(status)
    }

    fn note(&self, pid: u32) {
        let Some(began) = began(pid) else { return };
        let text = serde_json::to_string(&Note { pid, began }).unwrap_or_default();
        if let Err(error) = std::fs::write(&self.launch.note, text) {
            let path = self.launch.note.display();
            tracing::warn!(%error, "{path} cannot be written: after a restart this gateway counts as somebody else's");
        }
    }

    /// Whether a process is the one that was started from here, by this run or one before.
    fn is_ours(&self, pid: u32) -> bool {
        let note = std::fs::read_to_string(&self.launch.note).ok();
        let note: Option<Note> = note.and_then(|text| serde_json::from_str(&text).ok());
        note.is_some_and(|note| note.pid == pid && began(pid) == Some(note.began))
    }

    /// Looks after the gateway until this is dropped.
    pub(crate) async fn watch_over(&self) {
        loop {
            sleep(GATEWAY_INFO_LOOK).await;
            let ended = self.ended();
            match self.gateway.info().await {
                Ok(info) => {
                    if self.state().standing != Standing::Answers {
                        tracing::info!(pid = info.pid, "gateway answers again");
                    }
                    self.answers(info);
                }
                Err(error) => self.silent(ended, &error).await,
            }
        }
    }

    /// It does not answer: a process that is there is left, because it may carry migrations; one that is gone is
    /// replaced.
    async fn silent(&self, ended: Option<std::process::ExitStatus>, error: &RpcError) {
        let (pid, runs_as_child) = {
            let state = self.state();
            (state.info.as_ref().map(|info| info.pid), state.child.is_some())
        };
        let there = runs_as_child || pid.is_some_and(|pid| ended.is_none() && began(pid).is_some());
        if there {
            let mut state = self.state();
            if state.standing == Standing::Answers {
                tracing::error!("the gateway's process is there and does not answer: {}", error.message);
            }
            state.standing = Standing::Hangs(error.message.clone());
            return;
        }
        let why =
            ended.map_or_else(|| "its process is gone".to_owned(), |status| format!("it ended ({status})"));
        let pause = self.lost(&why);
        sleep(pause).await;
        // Somebody else, systemd say, may have started one meanwhile: `start` looks first.
        if let Err(fault) = self.start().await {
            tracing::error!("the gateway did not start again: {}", fault.what);
            self.state().standing = Standing::Lost(fault.what);
        }
    }

    fn lost(&self, why: &str) -> Duration {
        let mut state = self.state();
        let forgiven = state.since.is_some_and(|since| since.elapsed() >= RESTART_FORGIVEN);
        let losses = if forgiven { 0 } else { state.losses_in_a_row };
        let pause = RESTART_PAUSES[losses.min(RESTART_PAUSES.len() - 1)];
        state.losses_in_a_row = losses + 1;
        state.since = None;
        state.standing = Standing::Lost(why.to_owned());
        let pid = state.info.take().map_or_else(|| "unknown".to_owned(), |info| info.pid.to_string());
        drop(state);
        self.metrics.gateway_lost();
        tracing::error!(
            pid,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "gateway lost: {why}; another is started after a pause"
        );
        let text = format!(
            "gateway {pid} is lost: {why}; its sessions ended with it, their guests are at the source"
        );
        self.events.tell("gateway.lost", &pid, text, json!({"pause_ms": pause.as_millis() as u64}));
        pause
    }

    /// How it is.
    pub(crate) fn found(&self) -> Found {
        let state = self.state();
        match &state.standing {
            Standing::Absent => Found::new(HealthState::Stopped, "not started"),
            Standing::Answers => {
                let Some(info) = &state.info else { return Found::up("it answers") };
                let security = info.security.as_ref();
                let warnings: Vec<&str> = security
                    .into_iter()
                    .flat_map(|security| security.warnings.iter().map(String::as_str))
                    .collect();
                let (how, detail) = match (info.draining, warnings.is_empty()) {
                    (true, _) => (HealthState::Degraded, "it drains: no new sessions".to_owned()),
                    (false, false) => (HealthState::Degraded, warnings.join("; ")),
                    (false, true) => {
                        (HealthState::Up, format!("gateway {}, version {}", info.pid, info.version))
                    }
                };
                Found::new(how, detail)
            }
            Standing::Hangs(why) => Found::new(
                HealthState::Down,
                format!(
                    "its process is there and does not answer ({why}); it is left, because it may carry migrations"
                ),
            ),
            Standing::Lost(why) => Found::new(HealthState::Down, format!("{why}; another is started")),
        }
    }

    /// Ends the gateway when it was started from here and carries nothing; leaves it otherwise.
    pub(crate) async fn stop(&self) {
        let child = self.state().child.take();
        let Ok(info) = self.gateway.info().await else {
            if let Some(child) = child {
                tracing::warn!(pid = child.id(), "the gateway does not answer: it is left as it is");
            }
            return;
        };
        if !self.is_ours(info.pid) {
            tracing::info!(pid = info.pid, "the gateway was not started from here: it is left running");
            return;
        }
        let live = match self.gateway.look_for::<SessionList>(Call::SessionList).await {
            Ok(list) => list.sessions.iter().filter(|record| !record.state.is_ended()).count(),
            // Unknown counts as some.
            Err(_) => 1,
        };
        if live > 0 {
            tracing::warn!(
                pid = info.pid,
                live,
                "the gateway carries sessions: it is left running, and the next start adopts it"
            );
            return;
        }
        terminate(info.pid);
        self.state().standing = Standing::Absent;
        let Some(mut child) = child else {
            while self.gateway.info().await.is_ok() {
                sleep(GATEWAY_LOOK).await;
            }
            return;
        };
        match child.wait().await {
            Ok(status) => tracing::info!(pid = info.pid, %status, "gateway ended"),
            Err(error) => tracing::warn!(pid = info.pid, %error, "the gateway's end cannot be awaited"),
        }
    }
}

fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
        tracing::warn!(%error, "the gateway cannot be told to end");
    }
}

/// The program: as configured, beside this one, or wherever the path finds it.
pub(crate) fn program(configured: Option<&Path>) -> PathBuf {
    const NAME: &str = "novacron-gateway";
    if let Some(path) = configured {
        return path.to_owned();
    }
    let beside = std::env::current_exe().ok().and_then(|here| Some(here.parent()?.join(NAME)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(NAME))
}

/// Whether an error says that the gateway, not the call, is the trouble.
pub(crate) fn is_lost(error: &RpcError) -> bool {
    error.known_code() == Some(ErrorCode::GatewayLost)
}
