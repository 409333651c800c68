//! What paths were like, from time to time.

use std::sync::Arc;

use novacron_control_api::control::KeptSample;
use novacron_control_api::{Call, PathList, PathRecord, Timestamp};
use tokio::time::{Instant, sleep};

use crate::limits::{PATHS_MEASURED, PATHS_SAMPLED};
use crate::node::Node;

/// Shows what every probed path is like, and keeps a sample of it now and then, until it is dropped.
pub(crate) async fn sample_over(node: Arc<Node>) {
    let mut told = false;
    let mut kept_at = Instant::now();
    loop {
        sleep(PATHS_MEASURED).await;
        // A gateway that does not answer is told by its component.
        let Ok(list) = node.gateway.look_for::<PathList>(Call::PathList).await else { continue };
        node.metrics.paths(&list);
        if kept_at.elapsed() < PATHS_SAMPLED {
            continue;
        }
        kept_at = Instant::now();
        let now = Timestamp::now();
        let samples: Vec<KeptSample> =
            list.paths.iter().filter_map(|path| sample(path, &node.node_id, now)).collect();
        if samples.is_empty() {
            continue;
        }
        let kept = match node.records.store() {
            Ok(store) => store.save_samples(samples).await.map(drop),
            Err(error) => Err(error),
        };
        match kept {
            Ok(()) => told = false,
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!("samples of paths are not kept: {error}");
            }
            Err(_) => {}
        }
    }
}

/// A path as it is now; nothing where nothing was measured lately.
fn sample(path: &PathRecord, gateway: &str, at: Timestamp) -> Option<KeptSample> {
    if path.probes == 0 {
        return None;
    }
    let loss = path.loss_forward_ppm.map(|loss| u32::try_from(loss.value).unwrap_or(u32::MAX));
    Some(KeptSample {
        peer: path.peer.to_string(),
        at,
        measured_by: gateway.to_owned(),
        rtt_us: path.rtt_median_ns.map(|rtt| rtt.value / 1000),
        bandwidth_bytes_per_s: path.bandwidth_bits_per_s.map(|rate| rate.value / 8),
        loss_ppm: loss,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_control_api::Interval;
    use serde_json::json;

    #[test]
    fn a_sample_is_what_was_measured_in_the_stores_units() {
        let value = |value| json!({"value": value, "low": 0, "high": value});
        let mut path: PathRecord = serde_json::from_value(json!({
            "peer": "192.0.2.1:7402", "mode": null, "mode_why": null, "mode_changes": [], "profile": null,
            "measured_by": "userspace", "probes": 60, "answers": 59, "rtt_min_ns": value(1), "jitter_ns": null,
            "rtt_median_ns": value(12_345_678), "rtt_p99_ns": null, "loss_forward_ppm": value(16_000),
            "loss_return_ppm": null, "reordering_ppm": null, "bandwidth_bits_per_s": value(8_000_000),
            "bandwidth_is_floor": false, "wire_bytes": 0,
        }))
        .unwrap();
        let at = Timestamp::now();
        let kept = sample(&path, "a", at).unwrap();
        assert_eq!((kept.peer.as_str(), kept.measured_by.as_str()), ("192.0.2.1:7402", "a"));
        assert_eq!((kept.rtt_us, kept.bandwidth_bytes_per_s), (Some(12_345), Some(1_000_000)));
        assert_eq!(kept.loss_ppm, Some(16_000));
        // Every probe was lost: that is a measurement as well.
        (path.rtt_median_ns, path.loss_forward_ppm) =
            (None, Some(Interval { value: 1_000_000, low: 0, high: 1_000_000 }));
        assert_eq!(sample(&path, "a", at).unwrap().loss_ppm, Some(1_000_000));
        path.probes = 0;
        assert_eq!(sample(&path, "a", at), None);
    }
}
