//! What gateways measure of lab links, against what the links are: round trip, loss, bandwidth, mode; and what answering a probe
//! costs in the kernel and in userspace. Needs what the lab needs.

mod cost;
mod sites;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use novacron_lab::Conditions;
use serde::Serialize;
use serde_json::Value;

use crate::report::{Goal, Verdict};
use sites::Sites;

/// Round trips asked for, milliseconds.
const RTTS_MS: [f64; 5] = [0.2, 5.0, 20.0, 80.0, 200.0];
/// Rates asked for, Mbit/s.
const RATES_MBIT: [f64; 3] = [50.0, 500.0, 1000.0];
/// Losses asked for, per cent.
const LOSSES_PERCENT: [f64; 3] = [0.1, 1.0, 5.0];
/// Links whose mode is asked for: each of these round trips with each of the rates. None is near a threshold.
const PROFILE_RTTS_MS: [f64; 8] = [0.2, 1.0, 3.0, 6.0, 20.0, 35.0, 80.0, 200.0];
const PROFILE_RATES_MBIT: [f64; 3] = [50.0, 500.0, 1800.0];

/// How much of it is to be measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Extent {
    /// Trials of each loss.
    pub(crate) trials: u32,
    /// Seconds of each.
    pub(crate) trial_seconds: u64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Probes {
    extent: Extent,
    /// The last record of the path on each link, as the gateway told it.
    records: Vec<(String, Value)>,
    costs: Vec<cost::Cost>,
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
    let mut found = Probes { extent, records: Vec::new(), costs: Vec::new(), verdicts: Vec::new() };
    round_trips(&sites, &mut found, say)?;
    bandwidths(&sites, &mut found, say)?;
    modes(&sites, &mut found, say)?;
    losses(&sites, extent, &mut found, say)?;
    cost::measure(&sites, &mut found, say)?;
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

fn losses(sites: &Sites, extent: Extent, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    for loss_percent in LOSSES_PERCENT {
        // Lost on the way there alone, so that it has to be told apart.
        sites.set_forward(&link(None, 5.0, loss_percent), &link(None, 5.0, 0.0))?;
        let mut covered = 0.0;
        let mut detail = Vec::new();
        for _ in 0..extent.trials {
            let mut pair = sites.gateways(&[], &[])?;
            std::thread::sleep(Duration::from_secs(extent.trial_seconds));
            let record = pair.path()?;
            let low = number(&record, "/loss_forward_ppm/low")? / 1e4;
            let high = number(&record, "/loss_forward_ppm/high")? / 1e4;
            covered += f64::from(u8::from((low..=high).contains(&loss_percent)));
            detail.push(format!("{low:.2}..{high:.2}"));
        }
        let what = format!(
            "{loss_percent} % lost on the way there: trials of {} s whose interval holds it",
            extent.trial_seconds
        );
        say(&format!("{what}: {covered} of {}", extent.trials));
        let goal = Goal::AtLeast((f64::from(extent.trials) * 0.9).floor());
        found.verdicts.push(Verdict::new(&what, goal, covered, "trials").with(&detail.join(" ")));
    }
    Ok(())
}
