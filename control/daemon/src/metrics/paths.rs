//! Metrics of the paths to peers, as the gateway last told them. They advise; what sessions moved is counted elsewhere.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use novacron_control_api::{PathList, PathMode, PathRecord, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPath {
    peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQuantile {
    peer: String,
    which: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWay {
    peer: String,
    way: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMode {
    peer: String,
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResponder {
    peer: String,
    by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProbes {
    outcome: String,
}

type Real = Gauge<f64, AtomicU64>;

/// The families, and what the gateway had counted when it was last asked.
#[derive(Default)]
pub(super) struct PathMetrics {
    round_trips: Family<OfQuantile, Real>,
    jitters: Family<OfPath, Real>,
    losses: Family<OfWay, Real>,
    bandwidths: Family<OfPath, Real>,
    modes: Family<OfMode, Gauge>,
    mode_changes: Family<OfPath, Counter>,
    measured_by: Family<OfResponder, Gauge>,
    probes: Family<OfProbes, Counter>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    probes: HashMap<String, u64>,
    changed: HashMap<String, Timestamp>,
}

const MODES: [(PathMode, &str); 3] =
    [(PathMode::Datacenter, "datacenter"), (PathMode::Internet, "internet"), (PathMode::Hybrid, "hybrid")];

impl PathMetrics {
    pub(super) fn register(&self, to: &mut Registry) {
        to.register(
            "path_round_trip_seconds",
            "Round trip to a peer within the last minute: least, median, p99",
            self.round_trips.clone(),
        );
        to.register(
            "path_jitter_seconds",
            "Mean difference of consecutive round trips to a peer",
            self.jitters.clone(),
        );
        to.register(
            "path_loss_ratio",
            "Share of probes lost within the last minute, on the way to a peer (forward) and of answers back",
            self.losses.clone(),
        );
        to.register(
            "path_bandwidth_bytes_per_second",
            "Bandwidth to a peer, whole Ethernet frames counted",
            self.bandwidths.clone(),
        );
        to.register("path_mode", "1 for the mode that a path has", self.modes.clone());
        to.register("path_mode_changes", "Changes of a path's mode", self.mode_changes.clone());
        to.register(
            "path_measured_by",
            "1 for who answered a path's last probe: xdp_driver, xdp_generic, userspace",
            self.measured_by.clone(),
        );
        to.register("probes", "Probes of peers that came here, by what became of them", self.probes.clone());
    }

    /// Takes what the gateway knows. Paths that it does not know any more are not shown any more.
    pub(super) fn take(&self, list: &PathList) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.round_trips.clear();
        self.jitters.clear();
        self.losses.clear();
        self.bandwidths.clear();
        self.modes.clear();
        self.measured_by.clear();
        let known: Vec<String> = list.paths.iter().map(|path| path.peer.to_string()).collect();
        seen.changed.retain(|peer, _| known.contains(peer));
        for path in &list.paths {
            self.take_path(path, &mut seen.changed);
        }
        let counts = list.responder.as_ref().map(|responder| &responder.counts);
        for (outcome, count) in counts.into_iter().flatten() {
            let before = seen.probes.insert(outcome.clone(), *count).unwrap_or_default();
            // A gateway that started anew counts from zero.
            let more = if *count >= before { count - before } else { *count };
            self.probes.get_or_create(&OfProbes { outcome: outcome.clone() }).inc_by(more);
        }
    }

    fn take_path(&self, path: &PathRecord, changed: &mut HashMap<String, Timestamp>) {
        let peer = path.peer.to_string();
        let seconds = |ns: u64| ns as f64 / 1e9;
        for (which, said) in
            [("least", path.rtt_min_ns), ("median", path.rtt_median_ns), ("p99", path.rtt_p99_ns)]
        {
            if let Some(said) = said {
                let of = OfQuantile { peer: peer.clone(), which };
                self.round_trips.get_or_create(&of).set(seconds(said.value));
            }
        }
        if let Some(jitter) = path.jitter_ns {
            self.jitters.get_or_create(&OfPath { peer: peer.clone() }).set(seconds(jitter.value));
        }
        for (way, said) in [("forward", path.loss_forward_ppm), ("return", path.loss_return_ppm)] {
            if let Some(said) = said {
                let of = OfWay { peer: peer.clone(), way };
                self.losses.get_or_create(&of).set(said.value as f64 / 1e6);
            }
        }
        if let Some(bandwidth) = path.bandwidth_bits_per_s {
            let of = OfPath { peer: peer.clone() };
            self.bandwidths.get_or_create(&of).set(bandwidth.value as f64 / 8.0);
        }
        if let Some(mode) = path.mode {
            for (one, name) in MODES {
                let of = OfMode { peer: peer.clone(), mode: name };
                self.modes.get_or_create(&of).set(i64::from(one == mode));
            }
        }
        if let Some(by) = &path.measured_by {
            self.measured_by.get_or_create(&OfResponder { peer: peer.clone(), by: by.clone() }).set(1);
        }
        // The first decision is no change.
        let before = changed.get(&peer).copied();
        let new = path.mode_changes.iter().filter(|change| {
            change.from.is_some() && before.is_none_or(|before| change.at.unix_ms() > before.unix_ms())
        });
        self.mode_changes.get_or_create(&OfPath { peer: peer.clone() }).inc_by(new.count() as u64);
        if let Some(last) = path.mode_changes.last() {
            changed.insert(peer, last.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use serde_json::{Value, json};

    fn list(more: &Value, counts: &Value) -> PathList {
        let value = |value: u64| json!({"value": value, "low": value, "high": value});
        let mut path = json!({
            "peer": "192.0.2.1:7402", "mode": "internet", "mode_why": "measured", "profile": null,
            "mode_changes": [{"at": "2026-01-01T00:00:00.000Z", "from": null, "to": "internet", "why": "measured"}],
            "measured_by": "xdp_driver", "probes": 60, "answers": 59, "rtt_min_ns": value(10_000_000),
            "jitter_ns": value(1_000), "rtt_median_ns": value(12_000_000), "rtt_p99_ns": null,
            "loss_forward_ppm": value(16_000), "loss_return_ppm": value(0), "reordering_ppm": null,
            "bandwidth_bits_per_s": value(8_000_000), "bandwidth_is_floor": false, "wire_bytes": 0,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            path[key] = value.clone();
        }
        let responder = json!({"listen": "192.0.2.2:7402", "by": "xdp_driver", "interface": null, "limits": [], "counts": counts});
        serde_json::from_value(json!({"paths": [path], "responder": responder})).unwrap()
    }

    fn text(metrics: &PathMetrics) -> String {
        let mut registry = Registry::with_prefix("novacron");
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_path_is_shown_in_base_units() {
        let metrics = PathMetrics::default();
        metrics.take(&list(&json!({}), &json!({"answered": 5, "bad_cookie": 2})));
        let text = text(&metrics);
        for line in [
            r#"novacron_path_round_trip_seconds{peer="192.0.2.1:7402",which="median"} 0.012"#,
            r#"novacron_path_round_trip_seconds{peer="192.0.2.1:7402",which="least"} 0.01"#,
            r#"novacron_path_loss_ratio{peer="192.0.2.1:7402",way="forward"} 0.016"#,
            r#"novacron_path_bandwidth_bytes_per_second{peer="192.0.2.1:7402"} 1000000.0"#,
            r#"novacron_path_mode{peer="192.0.2.1:7402",mode="internet"} 1"#,
            r#"novacron_path_mode{peer="192.0.2.1:7402",mode="hybrid"} 0"#,
            r#"novacron_path_mode_changes_total{peer="192.0.2.1:7402"} 0"#,
            r#"novacron_path_measured_by{peer="192.0.2.1:7402",by="xdp_driver"} 1"#,
            r#"novacron_probes_total{outcome="bad_cookie"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains(r#"which="p99""#), "{text}");
    }

    #[test]
    fn what_is_counted_is_counted_once_also_when_the_gateway_starts_anew() {
        let metrics = PathMetrics::default();
        let change = |second: u32, from: &str, to: &str| json!({"at": format!("2026-01-01T00:00:0{second}.000Z"), "from": from, "to": to, "why": "sharp_change"});
        let first =
            json!({"at": "2026-01-01T00:00:00.000Z", "from": null, "to": "internet", "why": "measured"});
        let two = json!({"mode_changes": [first, change(1, "internet", "datacenter"), change(2, "datacenter", "internet")]});
        for counted in [3, 10, 10] {
            metrics.take(&list(&two, &json!({"answered": counted})));
        }
        metrics.take(&list(&two, &json!({"answered": 4})));
        let said = text(&metrics);
        assert!(said.contains(r#"novacron_path_mode_changes_total{peer="192.0.2.1:7402"} 2"#), "{said}");
        assert!(said.contains(r#"novacron_probes_total{outcome="answered"} 14"#), "{said}");
        // A peer that is not probed any more is not shown as it once was.
        let gone: PathList = serde_json::from_value(json!({"paths": [], "responder": null})).unwrap();
        metrics.take(&gone);
        assert!(!text(&metrics).contains("novacron_path_round_trip_seconds{"));
    }
}
