//! A link that sits on thresholds: between two modes by its round trip, and by its rate.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use novacron_lab::Conditions;

use super::{Probes, Sites, link};
use crate::report::{Goal, Verdict};

/// Round trip and rate where modes part (`--datacenter-rtt`, `--mode-bandwidth`); what the machine adds wavers about them.
const RTT_MS: f64 = 9.95;
const RATE_MBIT: f64 = 1000.0;
/// The spread of single frames' delay, each way.
const JITTER_MS: f64 = 0.2;
/// How long it is looked at.
const LOOK: Duration = Duration::from_secs(300);

pub(super) fn measure(sites: &Sites, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    sites.set(&Conditions { jitter_ms: JITTER_MS, ..link(Some(RATE_MBIT), RTT_MS, 0.0) })?;
    let mut pair = sites.gateways(&[], &[])?;
    let end = Instant::now() + LOOK;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        say(&format!("on the thresholds, {} s more", left.as_secs()));
        thread::sleep(left.min(Duration::from_secs(30)));
    }
    let record = pair.path()?;
    let modes = record["mode_changes"].as_array().context("no mode was decided")?;
    let told: Vec<String> =
        modes.iter().map(|change| format!("{} ({})", change["to"], change["why"])).collect();
    let what = "changes of mode in 5 minutes on a link of 10 ms and 1 Gbit/s, where modes part, after the first decision";
    let changes = modes.len().saturating_sub(1) as f64;
    found.verdicts.push(Verdict::new(what, Goal::AtMost(1.0), changes, "changes").with(&told.join("; ")));
    found.records.push(("on the thresholds".to_owned(), record));
    Ok(())
}
