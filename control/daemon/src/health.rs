//! The board on which every component's state stands.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use novacron_control_api::Timestamp;
use novacron_control_api::control::{ComponentHealth, Health, HealthState};
use serde_json::json;
use tokio::time::timeout;

use crate::bootstrap::Bootstrap;
use crate::component::Found;
use crate::events::Events;
use crate::limits::{CHECK_WAIT, HEALTH_KEPT};
use crate::metrics::Metrics;

/// Every component's state, as last found.
pub(crate) struct Board {
    states: Mutex<BTreeMap<&'static str, (Found, Timestamp)>>,
    /// The bootstrap has ended well, and no stop has begun.
    started: AtomicBool,
    looked: tokio::sync::Mutex<Option<Instant>>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
}

impl Board {
    pub(crate) fn new(events: Arc<Events>, metrics: Arc<Metrics>) -> Self {
        let (states, started, looked) = Default::default();
        Self { states, started, looked, events, metrics }
    }

    pub(crate) fn set(&self, name: &'static str, found: Found) {
        self.metrics.component_state(name, found.state);
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.insert(name, (found, Timestamp::now()));
    }

    pub(crate) fn set_started(&self, started: bool) {
        self.started.store(started, Ordering::Relaxed);
    }

    /// Asks every component that is up, unless that was done a moment ago.
    pub(crate) async fn look(&self, bootstrap: &Bootstrap) -> Health {
        let mut looked = self.looked.lock().await;
        if looked.is_none_or(|at| at.elapsed() >= HEALTH_KEPT) {
            for (declared, component) in bootstrap.components() {
                if !bootstrap.is_up(declared.name) {
                    continue;
                }
                let found = timeout(CHECK_WAIT, component.check()).await.unwrap_or_else(|_| {
                    Found::new(HealthState::Down, "it did not say how it is in time: it hangs")
                });
                self.found(declared.name, found);
            }
            *looked = Some(Instant::now());
        }
        drop(looked);
        self.health(bootstrap)
    }

    fn found(&self, name: &'static str, found: Found) {
        let (state, detail) = (found.state, found.detail.clone());
        let before = {
            let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
            states.get(name).map(|(found, _)| found.state)
        };
        self.set(name, found);
        if before.is_some_and(|before| before != state) {
            let text = format!("component {name} is {}: {detail}", state.word());
            tracing::info!(component = name, state = state.word(), "{detail}");
            self.events.tell("component.state", name, text, json!({"state": state.word()}));
        }
    }

    fn health(&self, bootstrap: &Bootstrap) -> Health {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let components: Vec<ComponentHealth> = bootstrap
            .components()
            .map(|(declared, _)| {
                let stopped = || (Found::new(HealthState::Stopped, "not started yet"), Timestamp::now());
                let (found, checked_at) = states.get(declared.name).cloned().unwrap_or_else(stopped);
                let Found { state, detail, parts } = found;
                let (name, critical) = (declared.name.to_owned(), declared.critical);
                ComponentHealth { name, critical, state, detail, parts, checked_at }
            })
            .collect();
        summary(components, self.started.load(Ordering::Relaxed))
    }
}

/// What components make of a node: what is not critical degrades it, at worst.
fn summary(components: Vec<ComponentHealth>, started: bool) -> Health {
    let works = |one: &ComponentHealth| matches!(one.state, HealthState::Up | HealthState::Degraded);
    let ready = started && components.iter().filter(|one| one.critical).all(works);
    let state = if !ready {
        if started { HealthState::Down } else { HealthState::Starting }
    } else if components.iter().all(|one| matches!(one.state, HealthState::Up | HealthState::NotBuilt)) {
        HealthState::Up
    } else {
        HealthState::Degraded
    };
    Health { ready, state, components }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(critical: bool, state: HealthState) -> ComponentHealth {
        let (name, detail, parts) = Default::default();
        ComponentHealth { name, critical, state, detail, parts, checked_at: Timestamp::now() }
    }

    #[test]
    fn a_node_is_as_its_components_are() {
        use HealthState::{Degraded, Down, NotBuilt, Starting, Stopped, Up};
        for (critical, other, started, ready, state) in [
            (Up, Up, true, true, Up),
            (Up, NotBuilt, true, true, Up),
            (Up, Down, true, true, Degraded),
            (Degraded, Up, true, true, Degraded),
            (Down, Up, true, false, Down),
            (NotBuilt, Up, true, false, Down),
            (Up, Up, false, false, Starting),
            (Stopped, Up, false, false, Starting),
        ] {
            let health = summary(vec![one(true, critical), one(false, other)], started);
            assert_eq!((health.ready, health.state), (ready, state), "{critical:?} {other:?} {started}");
        }
    }
}
