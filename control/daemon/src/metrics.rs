//! Every metric of the control process; `/metrics` writes them as OpenMetrics text.

mod paths;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use novacron_control_api::PathList;
use novacron_control_api::control::HealthState;
use paths::PathMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Labels of one family each.
macro_rules! labels {
    ($($name:ident { $($label:ident),* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: String),* }
    )*};
}

labels! {
    OfPhase { phase }
    OfComponent { component }
    OfStart { phase, component }
    OfState { component, state }
    OfFault { component, severity }
    OfCall { method, outcome }
    OfSessions { state }
    OfOutcome { outcome }
    OfFeature { feature, given }
}

/// Upper ends of the downtimes' classes, in seconds: from what no guest notices to what every client does.
const DOWNTIMES_S: [f64; 10] = [0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0, 10.0];

type Seconds = Gauge<f64, AtomicU64>;

/// The metrics.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    phases: Family<OfPhase, Seconds>,
    starts: Family<OfStart, Seconds>,
    ready: Seconds,
    retries: Family<OfComponent, Counter>,
    faults: Family<OfFault, Counter>,
    states: Family<OfState, Gauge>,
    calls: Family<OfCall, Counter>,
    callers: Gauge,
    refused: Counter,
    events_lost: Counter,
    sessions: Family<OfSessions, Gauge>,
    gateway_starts: Counter,
    gateway_losses: Counter,
    reloads: Family<OfOutcome, Counter>,
    features: Family<OfFeature, Counter>,
    paths: PathMetrics,
    migrations: Family<OfOutcome, Counter>,
    downtimes: Histogram,
    spans: Family<OfOutcome, Counter>,
}

const STATES: [HealthState; 6] = [
    HealthState::Up,
    HealthState::Degraded,
    HealthState::Down,
    HealthState::Starting,
    HealthState::Stopped,
    HealthState::NotBuilt,
];

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("novacron")),
            phases: Family::default(),
            starts: Family::default(),
            ready: Seconds::default(),
            retries: Family::default(),
            faults: Family::default(),
            states: Family::default(),
            calls: Family::default(),
            callers: Gauge::default(),
            refused: Counter::default(),
            events_lost: Counter::default(),
            sessions: Family::default(),
            gateway_starts: Counter::default(),
            gateway_losses: Counter::default(),
            reloads: Family::default(),
            features: Family::default(),
            paths: PathMetrics::default(),
            migrations: Family::default(),
            downtimes: Histogram::new(DOWNTIMES_S),
            spans: Family::default(),
        };
        let mut registry = metrics.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let to = &mut *registry;
        to.register("bootstrap_phase_seconds", "Time that a phase of the start took", metrics.phases.clone());
        to.register(
            "bootstrap_component_seconds",
            "Time that a component took to start",
            metrics.starts.clone(),
        );
        to.register(
            "bootstrap_ready_seconds",
            "Time from the start to ready; 0 until then",
            metrics.ready.clone(),
        );
        to.register(
            "bootstrap_retries",
            "Starts of a component that were tried again",
            metrics.retries.clone(),
        );
        to.register("bootstrap_faults", "Faults while starting, by severity", metrics.faults.clone());
        to.register("component_state", "1 for the state that a component is in", metrics.states.clone());
        to.register("control_calls", "Calls on the control socket, by outcome", metrics.calls.clone());
        to.register("control_callers", "Callers connected now", metrics.callers.clone());
        to.register(
            "control_refused_callers",
            "Callers turned away: unknown, or too many",
            metrics.refused.clone(),
        );
        to.register("events_lost", "Events that subscribers were too slow for", metrics.events_lost.clone());
        to.register("sessions", "Sessions that the gateway knows, by state", metrics.sessions.clone());
        to.register("gateway_starts", "Gateways started", metrics.gateway_starts.clone());
        to.register(
            "gateway_losses",
            "Gateways that ended or stopped answering",
            metrics.gateway_losses.clone(),
        );
        to.register(
            "configuration_reloads",
            "Reloads of the configuration, by outcome",
            metrics.reloads.clone(),
        );
        to.register(
            "feature_sessions",
            "Sessions opened, by feature and whether they got it",
            metrics.features.clone(),
        );
        metrics.paths.register(to);
        to.register(
            "migrations_reported",
            "Migrations whose end was reported, by outcome",
            metrics.migrations.clone(),
        );
        to.register(
            "migration_downtime_seconds",
            "How long guests ran nowhere, of migrations that completed",
            metrics.downtimes.clone(),
        );
        to.register(
            "trace_spans",
            "Spans made, exported and failed; those that are none of it wait, or were dropped",
            metrics.spans.clone(),
        );
        drop(registry);
        metrics
    }

    pub(crate) fn phase_ended(&self, phase: &str, took: Duration) {
        self.phases.get_or_create(&OfPhase { phase: phase.into() }).set(took.as_secs_f64());
    }

    pub(crate) fn component_started(&self, phase: &str, component: &str, took: Duration) {
        let of = OfStart { phase: phase.into(), component: component.into() };
        self.starts.get_or_create(&of).set(took.as_secs_f64());
    }

    pub(crate) fn ready(&self, after: Duration) {
        self.ready.set(after.as_secs_f64());
    }

    pub(crate) fn retry(&self, component: &str) {
        self.retries.get_or_create(&OfComponent { component: component.into() }).inc();
    }

    pub(crate) fn fault(&self, component: &str, severity: &str) {
        let of = OfFault { component: component.into(), severity: severity.into() };
        self.faults.get_or_create(&of).inc();
    }

    pub(crate) fn component_state(&self, component: &str, state: HealthState) {
        for one in STATES {
            let of = OfState { component: component.into(), state: one.word().into() };
            self.states.get_or_create(&of).set(i64::from(one == state));
        }
    }

    pub(crate) fn call(&self, method: &str, outcome: &str) {
        let of = OfCall { method: method.into(), outcome: outcome.into() };
        self.calls.get_or_create(&of).inc();
    }

    pub(crate) fn callers(&self, connected: usize) {
        self.callers.set(i64::try_from(connected).unwrap_or(i64::MAX));
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn events_lost(&self, count: u64) {
        self.events_lost.inc_by(count);
    }

    pub(crate) fn sessions(&self, state: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.sessions.get_or_create(&OfSessions { state: state.into() }).set(count);
    }

    pub(crate) fn gateway_started(&self) {
        self.gateway_starts.inc();
    }

    pub(crate) fn gateway_lost(&self) {
        self.gateway_losses.inc();
    }

    pub(crate) fn reloaded(&self, outcome: &str) {
        self.reloads.get_or_create(&OfOutcome { outcome: outcome.into() }).inc();
    }

    pub(crate) fn paths(&self, list: &PathList) {
        self.paths.take(list);
    }

    pub(crate) fn feature(&self, feature: &str, given: bool) {
        let of = OfFeature { feature: feature.into(), given: given.to_string() };
        self.features.get_or_create(&of).inc();
    }

    pub(crate) fn migration_reported(&self, outcome: &str, downtime_ms: Option<u64>) {
        self.migrations.get_or_create(&OfOutcome { outcome: outcome.into() }).inc();
        if let ("completed", Some(downtime_ms)) = (outcome, downtime_ms) {
            self.downtimes.observe(Duration::from_millis(downtime_ms).as_secs_f64());
        }
    }

    pub(crate) fn span_made(&self) {
        self.spans.get_or_create(&OfOutcome { outcome: "made".into() }).inc();
    }

    pub(crate) fn spans_exported(&self, count: u64, done: bool) {
        let outcome = if done { "exported" } else { "failed" };
        self.spans.get_or_create(&OfOutcome { outcome: outcome.into() }).inc_by(count);
    }

    /// Sessions that got a feature, and that did not.
    pub(crate) fn feature_sessions(&self, feature: &str) -> (u64, u64) {
        let of = |given: bool| {
            let of = OfFeature { feature: feature.into(), given: given.to_string() };
            self.features.get_or_create(&of).get()
        };
        (of(true), of(false))
    }

    /// OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a text cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_in_one_state() {
        let metrics = Metrics::new();
        metrics.component_state("dataplane", HealthState::Starting);
        metrics.component_state("dataplane", HealthState::Up);
        metrics.call("node.info", "done");
        let text = metrics.text();
        assert!(text.contains(r#"novacron_component_state{component="dataplane",state="up"} 1"#), "{text}");
        assert!(text.contains(r#"novacron_component_state{component="dataplane",state="starting"} 0"#));
        assert!(
            text.contains(r#"novacron_control_calls_total{method="node.info",outcome="done"} 1"#),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
