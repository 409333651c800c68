//! What the components share.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use novacron_configuration::Sources;
use novacron_control_api::Timestamp;
use novacron_control_api::configuration::{Configuration, Resolved, TakesEffect, changes};
use novacron_control_api::control::{Environment, Reloaded};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::environment;
use crate::events::Events;
use crate::gateway::{Gateway, Sessions, Supervisor};
use crate::log::Levels;
use crate::metrics::Metrics;
use crate::records::Records;
use crate::traces::Traces;

/// The node.
pub(crate) struct Node {
    pub(crate) node_id: String,
    pub(crate) started_at: Timestamp,
    pub(crate) started: Instant,
    pub(crate) ready_after: OnceLock<Duration>,
    sources: Sources,
    /// What this process was started with: keys that need a restart are in force as they stand here.
    at_start: Configuration,
    resolved: Mutex<Arc<Resolved>>,
    environment: Mutex<Environment>,
    levels: Levels,
    pub(crate) events: Arc<Events>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) records: Arc<Records>,
    pub(crate) traces: Arc<Traces>,
    /// Why nothing is traced although it should be.
    pub(crate) untraced: Option<String>,
}

/// What a node is made from.
pub(crate) struct Parts {
    pub(crate) sources: Sources,
    pub(crate) resolved: Resolved,
    pub(crate) levels: Levels,
    pub(crate) environment: Environment,
    pub(crate) events: Arc<Events>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) started: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host's own name, for nodes that were given none.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        // Records are kept under a node's name: it has one.
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// The environment, without what is no text: no key takes that.
pub(crate) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { sources, resolved, levels, environment, events, metrics, gateway, supervisor, started } =
            parts;
        let named = resolved.configuration.system.node_id.as_str();
        let node_id = if named.is_empty() { host_name() } else { named.to_owned() };
        let traces = Traces::begin(&resolved.configuration.monitoring, &node_id, &metrics, started);
        let (traces, untraced) = match traces {
            Ok(traces) => (traces, None),
            Err(why) => {
                tracing::error!("nothing is traced: {why}");
                (Traces::off(), Some(why))
            }
        };
        let sessions =
            Arc::new(Sessions::new(Arc::clone(&gateway), Arc::clone(&events), Arc::clone(&metrics)));
        Self {
            node_id,
            started_at: Timestamp::now(),
            started,
            ready_after: OnceLock::new(),
            sources,
            at_start: resolved.configuration.clone(),
            resolved: Mutex::new(Arc::new(resolved)),
            environment: Mutex::new(environment),
            levels,
            events,
            metrics,
            gateway,
            supervisor,
            sessions,
            records: Arc::default(),
            traces: Arc::new(traces),
            untraced,
        }
    }

    /// The configuration as it was last taken.
    pub(crate) fn resolved(&self) -> Arc<Resolved> {
        Arc::clone(&lock(&self.resolved))
    }

    /// The same for keys that need a restart: as this process was started.
    pub(crate) fn at_start(&self) -> &Configuration {
        &self.at_start
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) fn environment(&self) -> Environment {
        lock(&self.environment).clone()
    }

    /// Looks at the host again; a change of the kind of path is told.
    pub(crate) fn look_around(&self) {
        let host = environment::look(&self.at_start.system.data_dir);
        let found = environment::environment(&host, &self.resolved().configuration);
        let mut known = lock(&self.environment);
        if known.mode != found.mode {
            let text = format!("the kind of path is {} now: {}", found.mode, found.mode_reason);
            tracing::info!("{text}");
            self.events.tell("node.mode", &found.mode, text, json!({"from": known.mode, "to": found.mode}));
        }
        *known = found;
    }

    /// Reads the configuration again, all of it or none.
    ///
    /// # Errors
    /// Every mistake, a line each; what was in force still is.
    pub(crate) fn reload(&self) -> Result<Reloaded, String> {
        let resolved = match self.sources.load(variables()) {
            Ok(resolved) => resolved,
            Err(error) => {
                let why = error.to_string();
                self.metrics.reloaded("refused");
                tracing::error!("the configuration is refused, what was in force still is: {why}");
                self.events.tell(
                    "config.refused",
                    "",
                    format!("the configuration is refused: {why}"),
                    json!(null),
                );
                return Err(why);
            }
        };
        let before = std::mem::replace(&mut *lock(&self.resolved), Arc::new(resolved.clone()));
        let mut reloaded = Reloaded {
            in_force: Vec::new(),
            after_restart: Vec::new(),
            warnings: resolved.warnings.iter().map(ToString::to_string).collect(),
        };
        for change in changes(&before.configuration, &resolved.configuration) {
            match change.takes_effect {
                TakesEffect::AtOnce => {
                    tracing::info!(key = change.key, from = %change.from, to = %change.to, "in force now");
                    reloaded.in_force.push(change.key.to_owned());
                }
                TakesEffect::NotBuilt => {}
                TakesEffect::Restart => {}
            }
        }
        for change in changes(&self.at_start, &resolved.configuration) {
            if change.takes_effect == TakesEffect::Restart {
                tracing::warn!(key = change.key, to = %change.to, "changed, but in force only after a restart");
                reloaded.after_restart.push(change.key.to_owned());
            }
        }
        self.levels.set(resolved.configuration.system.log_level);
        self.look_around();
        self.metrics.reloaded("taken");
        let text = format!("the configuration is read again: {} keys in force", reloaded.in_force.len());
        self.events.tell("config.reloaded", "", text, json!(reloaded));
        Ok(reloaded)
    }
}

/// Something that runs until it is dropped or told to end.
#[derive(Default)]
pub(crate) struct Task(Mutex<Vec<JoinHandle<()>>>);

impl Task {
    pub(crate) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        lock(&self.0).push(tokio::spawn(work));
    }

    pub(crate) fn end(&self) {
        for handle in lock(&self.0).drain(..) {
            handle.abort();
        }
    }

    /// Whether one of them has ended, which none should.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.0).iter().any(JoinHandle::is_finished)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.end();
    }
}
