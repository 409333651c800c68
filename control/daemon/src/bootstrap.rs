//! Starts components by their plan, and stops them in reverse.
//!
//! ```text
//! pre-init ── core: each as soon as what it needs is up ── services: the same ── post-init ── ready
//!                 │ critical and failed: whatever is up is stopped in reverse
//!                 └ not critical and failed: the node is degraded, those that need it are passed over
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use novacron_control_api::control::HealthState;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::checkpoint::Checkpoint;
use crate::component::{Component, Fault, Found};
use crate::events::Events;
use crate::health::Board;
use crate::limits::{PHASE, RETRY_PAUSES};
use crate::metrics::Metrics;
use crate::plan::{Declared, Phase, Plan, PlanError, plan};
use crate::traces::{Parent, Traces, of};

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The node cannot work: everything is stopped again.
    Critical,
    /// The node works without the component.
    Degraded,
    /// The component came up after all.
    Warning,
}

impl Severity {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Degraded => "degraded",
            Self::Warning => "warning",
        }
    }
}

/// A critical component did not start; what had started is stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("component '{component}' did not start: {what}")]
pub(crate) struct Failed {
    pub(crate) component: String,
    pub(crate) what: String,
}

/// A component's place, what came of its start (failed tries and how it is), and the time that took.
type Started = (usize, Result<(u32, Found), Fault>, Duration);

/// The components and what became of them.
pub(crate) struct Bootstrap {
    components: Vec<Arc<dyn Component>>,
    declared: Vec<Declared>,
    plan: Plan,
    /// Places of those that are up, in the order they came up.
    up: Mutex<Vec<usize>>,
    board: Arc<Board>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    checkpoint: Checkpoint,
    traces: Arc<Traces>,
}

impl Bootstrap {
    pub(crate) fn new(
        components: Vec<Arc<dyn Component>>,
        board: Arc<Board>,
        events: Arc<Events>,
        metrics: Arc<Metrics>,
        checkpoint: Checkpoint,
        traces: Arc<Traces>,
    ) -> Result<Self, PlanError> {
        let declared: Vec<Declared> = components.iter().map(|component| component.declared()).collect();
        let plan = plan(&declared)?;
        let up = Mutex::new(Vec::new());
        Ok(Self { components, declared, plan, up, board, events, metrics, checkpoint, traces })
    }

    /// Starts one phase. After an error everything that was up is stopped.
    pub(crate) async fn start(&self, phase: Phase) -> Result<(), Failed> {
        let piece = self.traces.piece(format!("phase {}", phase.word()), &self.traces.start());
        let result = self.start_below(phase, &piece.parent()).await;
        piece.end(result.as_ref().err().map(ToString::to_string).as_deref());
        result
    }

    async fn start_below(&self, phase: Phase, below: &Parent) -> Result<(), Failed> {
        let began = Instant::now();
        let deadline = began + PHASE;
        let places: Vec<usize> = self
            .plan
            .levels
            .iter()
            .filter(|(of, _)| *of == phase)
            .flat_map(|(_, levels)| levels.iter().flatten().copied())
            .collect();
        tracing::info!(phase = phase.word(), components = places.len(), "phase begins");
        // What became of each component that is done with: whether it is up.
        let mut over: BTreeMap<&'static str, bool> = self.over();
        let mut waiting = places;
        let mut starting: JoinSet<Started> = JoinSet::new();
        loop {
            let (ready, rest): (Vec<usize>, Vec<usize>) = waiting
                .into_iter()
                .partition(|place| self.declared[*place].needs.iter().all(|needs| over.contains_key(needs)));
            waiting = rest;
            for place in ready {
                let declared = &self.declared[place];
                match declared.needs.iter().find(|needs| over.get(*needs) == Some(&false)) {
                    Some(missing) => {
                        let what = format!("it needs '{missing}', which is not up");
                        self.not_started(declared, Severity::Degraded, &what);
                        over.insert(declared.name, false);
                        // Others may have waited for this one.
                        starting.spawn(async move { (usize::MAX, Ok((0, Found::up(""))), Duration::ZERO) });
                    }
                    None => {
                        self.board.set(declared.name, Found::new(HealthState::Starting, "being started"));
                        tracing::info!(component = declared.name, phase = phase.word(), "starting");
                        let component = Arc::clone(&self.components[place]);
                        let (name, metrics) = (declared.name, Arc::clone(&self.metrics));
                        starting.spawn(async move {
                            let began = Instant::now();
                            let result = with_retries(&*component, name, deadline, &metrics).await;
                            let took = began.elapsed();
                            let result = match result {
                                // What is up need not be well, or built.
                                Ok(tries) => Ok((tries, component.check().await)),
                                Err(fault) => Err(fault),
                            };
                            (place, result, took)
                        });
                    }
                }
            }
            let Some(done) = starting.join_next().await else { break };
            let Ok((place, result, took)) = done else {
                starting.abort_all();
                self.stop(PHASE).await;
                let what = "it ended with a panic; the log says where".to_owned();
                return Err(Failed { component: "unknown".into(), what });
            };
            if place == usize::MAX {
                continue;
            }
            let declared = &self.declared[place];
            self.metrics.component_started(phase.word(), declared.name, took);
            let (tries, fault) = match &result {
                Ok((tries, _)) => (i64::from(*tries), None),
                Err(fault) => (-1, Some(fault.what.as_str())),
            };
            let mut more = vec![of("novacron.critical", declared.critical)];
            more.extend((tries >= 0).then(|| of("novacron.failed_tries", tries)));
            self.traces.past(format!("component {}", declared.name), below, took, more, fault);
            match result {
                Ok((tries, found)) => {
                    self.came_up(place, tries, found, took);
                    over.insert(declared.name, true);
                }
                Err(fault) if declared.critical => {
                    self.not_started(declared, Severity::Critical, &fault.what);
                    starting.abort_all();
                    while starting.join_next().await.is_some() {}
                    self.stop(PHASE).await;
                    return Err(Failed { component: declared.name.into(), what: fault.what });
                }
                Err(fault) => {
                    self.not_started(declared, Severity::Degraded, &fault.what);
                    over.insert(declared.name, false);
                }
            }
        }
        let took = began.elapsed();
        self.metrics.phase_ended(phase.word(), took);
        tracing::info!(phase = phase.word(), took_ms = millis(took), "phase ended");
        Ok(())
    }

    fn over(&self) -> BTreeMap<&'static str, bool> {
        let up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        let started = |place: usize| up.contains(&place);
        // Of earlier phases: those that are not up will not be.
        let first = self
            .declared
            .iter()
            .enumerate()
            .filter(|(place, one)| one.phase == Phase::Core || started(*place));
        match up.is_empty() {
            true => BTreeMap::new(),
            false => first.map(|(place, one)| (one.name, started(place))).collect(),
        }
    }

    fn came_up(&self, place: usize, tries: u32, found: Found, took: Duration) {
        let name = self.declared[place].name;
        self.up.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        self.checkpoint.note(&format!("started {name}"));
        let state = found.state.word();
        if tries > 0 {
            let severity = Severity::Warning.word();
            self.metrics.fault(name, severity);
            tracing::warn!(component = name, tries, severity, "started, after passing faults");
        }
        tracing::info!(component = name, state, took_ms = millis(took), "started");
        let text = format!("component {name} is {state}: {}", found.detail);
        self.events.tell("component.state", name, text, json!({"state": state, "took_ms": millis(took)}));
        self.board.set(name, found);
    }

    fn not_started(&self, declared: &Declared, severity: Severity, what: &str) {
        let name = declared.name;
        self.metrics.fault(name, severity.word());
        self.board.set(name, Found::new(HealthState::Down, what));
        if severity == Severity::Critical {
            tracing::error!(component = name, severity = severity.word(), "not started: {what}");
        } else {
            tracing::warn!(component = name, severity = severity.word(), "not started: {what}");
        }
        let text = format!("component {name} did not start: {what}");
        self.events.tell(
            "component.state",
            name,
            text,
            json!({"state": "down", "severity": severity.word()}),
        );
    }

    /// Stops what is up, in reverse, within a time; what does not stop in it is left.
    pub(crate) async fn stop(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let last = self.up.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(place) = last else { break };
            let name = self.declared[place].name;
            let stopped = timeout_at(deadline, self.components[place].stop()).await.is_ok();
            self.board.set(name, Found::new(HealthState::Stopped, "stopped"));
            self.checkpoint.note(&format!("stopped {name}"));
            match stopped {
                true => tracing::info!(component = name, "stopped"),
                false => tracing::warn!(component = name, "did not stop in time: it is left as it is"),
            }
        }
    }

    pub(crate) fn components(&self) -> impl Iterator<Item = (&Declared, &Arc<dyn Component>)> {
        self.declared.iter().zip(&self.components)
    }

    /// Whether a component is up.
    pub(crate) fn is_up(&self, name: &str) -> bool {
        let up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        up.iter().any(|place| self.declared[*place].name == name)
    }

    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Tries until it is up, a fault lasts, the tries are used up or the phase is over. Returns how many tries failed.
async fn with_retries(
    component: &dyn Component,
    name: &'static str,
    deadline: Instant,
    metrics: &Metrics,
) -> Result<u32, Fault> {
    let mut pauses = RETRY_PAUSES.iter();
    let mut failed = 0;
    loop {
        let result = match timeout_at(deadline, component.start()).await {
            Ok(result) => result,
            Err(_) => Err(Fault::lasting("it took longer than its phase may; look at what it waits for")),
        };
        let fault = match result {
            Ok(()) => return Ok(failed),
            Err(fault) => fault,
        };
        let Some(pause) =
            pauses.next().filter(|pause| fault.transient && Instant::now() + **pause < deadline)
        else {
            return Err(fault);
        };
        failed += 1;
        metrics.retry(name);
        tracing::warn!(
            component = name,
            pause_s = pause.as_secs(),
            "tried again after a pause: {}",
            fault.what
        );
        sleep(*pause).await;
    }
}
