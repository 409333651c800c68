//! What gateways measure of lab links, against what the links are: round trip, loss, bandwidth, mode; what answering a probe
//! costs in the kernel and in userspace; what probing takes of processors and paths; what a session pays for following the mode.
//! Needs what the lab needs.

mod client;
mod cost;
mod losses;
mod share;
mod sites;
mod switch;
mod threshold;
mod veth;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use novacron_lab::Conditions;
use serde::Serialize;
use serde_json::Value;

use crate::report::{Goal, Verdict};
use sites::Sites;

/// Round trips asked for, milliseconds.
const RTTS_MS: [f64; 5] = [0.2, 5.0, 20.0, 80.0, 200.0];
/// Rates asked for, Mbit/s.
const RATES_MBIT: [f64; 3] = [50.0, 500.0, 1000.0];
/// Links whose mode is asked for: each of these round trips with each of the rates. None is near a threshold.
const PROFILE_RTTS_MS: [f64; 8] = [0.2, 1.0, 3.0, 6.0, 20.0, 35.0, 80.0, 200.0];
const PROFILE_RATES_MBIT: [f64; 3] = [50.0, 500.0, 1800.0];

/// What is measured apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Round trips against `ping`'s
    RoundTrips,
    /// Bandwidth against the link's rate
    Bandwidth,
    /// Modes of 24 links, and when they were decided
    Modes,
    /// How often the mode changes on a link where modes part
    Threshold,
    /// Intervals of loss
    Loss,
    /// What an answer costs in the kernel and in userspace
    Cost,
    /// What probing takes of a processor and of a path
    Share,
    /// What a session pays for switching to another mode
    Switch,
}

/// How much of it is to be measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Extent {
    /// Trials of each loss.
    pub(crate) trials: u32,
    /// Seconds of each.
    pub(crate) trial_seconds: u64,
    /// Which parts; empty: all.
    pub(crate) parts: Vec<Part>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Probes {
    extent: Extent,
    /// The last record of the path on each link, as the gateway told it.
    records: Vec<(String, Value)>,
    losses: Vec<losses::Trials>,
    costs: Vec<cost::Cost>,
    shares: Vec<share::Share>,
    switches: Vec<switch::Gaps>,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

fn link(rate_mbit: Option<f64>, rtt_ms: f64, loss_percent: f64) -> Conditions {
    Conditions { rate_mbit, delay_ms: rtt_ms / 2.0, loss_percent, ..Conditions::default() }
}

/// A number of a record; an error names what is missing.
fn number(record: &Value, path: &str) -> Result<f64> {
    record.pointer(path).and_then(Value::as_f64).with_context(|| format!("{path} is not measured: {record}"))
}

/// Measures all of it; `Err`: no lab can be made here, or nothing came of it.
pub(crate) fn measure(extent: Extent, say: &dyn Fn(&str)) -> Result<Probes> {
    novacron_lab::available().map_err(|missing| anyhow!("probes are measured in a lab: {missing}"))?;
    let sites = Sites::start()?;
    let mut found = Probes {
        extent: extent.clone(),
        records: Vec::new(),
        losses: Vec::new(),
        costs: Vec::new(),
        shares: Vec::new(),
        switches: Vec::new(),
        verdicts: Vec::new(),
    };
    let wanted = |part| extent.parts.is_empty() || extent.parts.contains(&part);
    if wanted(Part::RoundTrips) {
        round_trips(&sites, &mut found, say)?;
    }
    if wanted(Part::Bandwidth) {
        bandwidths(&sites, &mut found, say)?;
    }
    if wanted(Part::Modes) {
        modes(&sites, &mut found, say)?;
    }
    if wanted(Part::Threshold) {
        threshold::measure(&sites, &mut found, say)?;
    }
    if wanted(Part::Loss) {
        losses::measure(&extent, &mut found, say)?;
    }
    if wanted(Part::Cost) {
        cost::measure(&sites, &mut found, say)?;
    }
    if wanted(Part::Share) {
        share::measure(&sites, &mut found, say)?;
    }
    if wanted(Part::Switch) {
        switch::measure(&sites, &mut found, say)?;
    }
    Ok(found)
}

fn round_trips(sites: &Sites, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    let mut worst = 0.0_f64;
    let mut detail = Vec::new();
    for rtt_ms in RTTS_MS {
        sites.set(&link(None, rtt_ms, 0.0))?;
        let mut pair = sites.gateways(&[], &[])?;
        std::thread::sleep(Duration::from_secs(5));
        let ping_ms = sites.ping_min_ms()?;
        let record = pair.path()?;
        let probe_ms = number(&record, "/rtt_min_ns/value")? / 1e6;
        // Within 5 % or 50 µs.
        let part = (probe_ms - ping_ms).abs() / (0.05 * ping_ms).max(0.05);
        worst = worst.max(part);
        detail.push(format!("{rtt_ms} ms: {probe_ms:.3} against {ping_ms:.3}"));
        say(&format!("round trip {}", detail[detail.len() - 1]));
        found.records.push((format!("rtt {rtt_ms} ms"), record));
    }
    let what = "least round trip against `ping -A`'s, of what may differ (5 % or 50 us); the worst link";
    found.verdicts.push(Verdict::new(what, Goal::AtMost(1.0), worst, "x").with(&detail.join("; ")));
    Ok(())
}

fn bandwidths(sites: &Sites, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    let mut worst = 0.0_f64;
    let mut detail = Vec::new();
    for rate_mbit in RATES_MBIT {
        sites.set(&link(Some(rate_mbit), 20.0, 0.0))?;
        let mut pair = sites.gateways(&[], &[])?;
        std::thread::sleep(Duration::from_secs(12));
        let record = pair.path()?;
        let said = number(&record, "/bandwidth_bits_per_s/value")? / 1e6;
        let low = number(&record, "/bandwidth_bits_per_s/low")? / 1e6;
        let high = number(&record, "/bandwidth_bits_per_s/high")? / 1e6;
        worst = worst.max((said / rate_mbit - 1.0).abs() * 100.0);
        detail.push(format!("{rate_mbit}: {said:.0} ({low:.0}..{high:.0}) Mbit/s"));
        say(&format!("bandwidth {}", detail[detail.len() - 1]));
        found.records.push((format!("rate {rate_mbit} Mbit/s"), record));
    }
    let what = "bandwidth against the link's rate, 20 ms; the worst link";
    found.verdicts.push(Verdict::new(what, Goal::AtMost(20.0), worst, "%").with(&detail.join("; ")));
    Ok(())
}

fn expected(rtt_ms: f64, rate_mbit: f64) -> &'static str {
    match (rtt_ms, rate_mbit) {
        (rtt, rate) if rtt > 50.0 || rate < 1000.0 => "internet",
        (rtt, _) if rtt < 10.0 => "datacenter",
        _ => "hybrid",
    }
}

fn modes(sites: &Sites, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    let (mut right, mut latest_s) = (0.0, 0.0_f64);
    let mut wrong = Vec::new();
    for rtt_ms in PROFILE_RTTS_MS {
        for rate_mbit in PROFILE_RATES_MBIT {
            sites.set(&link(Some(rate_mbit), rtt_ms, 0.0))?;
            let mut pair = sites.gateways(&[], &[])?;
            std::thread::sleep(Duration::from_millis(2_500));
            let record = pair.path()?;
            let mode = record["mode"].as_str().unwrap_or("none").to_owned();
            let decided_s = pair.first_decision()?.as_secs_f64();
            latest_s = latest_s.max(decided_s);
            if mode == expected(rtt_ms, rate_mbit) {
                right += 1.0;
            } else {
                let rate = record.pointer("/samples").and_then(|samples| samples.as_array()?.last().cloned());
                wrong.push(format!("{rtt_ms} ms {rate_mbit} Mbit/s: {mode}, last sample {rate:?}"));
            }
            say(&format!("mode at {rtt_ms} ms, {rate_mbit} Mbit/s: {mode} after {decided_s:.2} s"));
        }
    }
    let all = (PROFILE_RTTS_MS.len() * PROFILE_RATES_MBIT.len()) as f64;
    let what = "links whose mode is right";
    found.verdicts.push(Verdict::new(what, Goal::AtLeast(all), right, "links").with(&wrong.join("; ")));
    let what = "the latest first decision, from the gateway's start";
    found.verdicts.push(Verdict::new(what, Goal::AtMost(2.0), latest_s, "s").with("of the same links"));
    Ok(())
}
