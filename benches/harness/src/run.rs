//! One run of one contender, and all runs of a scenario in their order: A B C A B C.

mod direct;
mod gateways;
mod guest;
mod iperf3;
mod migration;
mod socat;
mod stream;

use std::time::Instant;

use anyhow::Result;
pub(crate) use direct::as_contender;
use novacron_testbed::{Scratch, TimedOut};

use crate::ability::Ability;
use crate::contender::{Contender, Kind};
use crate::limits::{VOID_RETRIES, VOID_RETRIES_PER_SCENARIO};
use crate::meter::Measured;
use crate::network::Network;
use crate::progress::Progress;
use crate::record::{self, Outcome, Run};
use crate::scenario::{Link, Load, Scenario};
use crate::{interrupt, void};

/// A run of which nothing is known.
pub fn blank(contender: &str, repetition: u32) -> Run {
    Run {
        contender: contender.to_owned(),
        repetition,
        outcome: Outcome::Completed,
        total_ms: None,
        downtime_ms: None,
        guest_pause_ms: None,
        guest_pause_resolution_ms: None,
        guest_bytes: None,
        wire_bytes_forward: None,
        wire_bytes_back: None,
        processes: Vec::new(),
        guest_verified: None,
        work: None,
        lab: None,
        iterations: None,
        throughput: Vec::new(),
    }
}

/// Puts into a run what the meter saw.
fn take(run: &mut Run, measured: Measured) {
    run.processes = measured.processes;
    run.wire_bytes_forward = measured.carried.map(|carried| carried.forward);
    run.wire_bytes_back = measured.carried.map(|carried| carried.back);
    run.lab = measured.lab;
    run.throughput = measured.throughput;
}

/// What every run of a scenario has in common.
pub(crate) struct Stage<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) network: &'a Network,
    pub(crate) scratch: &'a Scratch,
    pub(crate) progress: &'a Progress,
}

/// The record of a scenario that has not run.
pub fn record(scenario: &Scenario) -> record::Scenario {
    let contender = |contender: &Contender| record::Contender {
        name: contender.name.clone(),
        ours: contender.ours(),
        settings: contender.settings(),
    };
    record::Scenario {
        name: scenario.name.clone(),
        why: scenario.why.clone(),
        workload: scenario.workload(),
        memory_bytes: scenario.memory_bytes(),
        link: scenario.link.as_ref().map_or_else(|| "loopback".to_owned(), Link::text),
        rtt_ms: scenario.link.as_ref().map(Link::rtt_ms),
        rate_bytes_per_s: scenario.link.as_ref().and_then(Link::rate_bytes_per_s),
        limit_ms: scenario.time_limit.as_secs_f64() * 1e3,
        contenders: scenario.contenders.iter().map(contender).collect(),
        runs: Vec::new(),
    }
}

/// Runs a scenario. Each run is handed to `done` as soon as it has ended, with the scenario's record so far. No run
/// begins after `until`: those are skipped, and say so.
///
/// # Errors
/// When `done` fails, or the sites cannot be made. That a contender fails is a row.
pub fn scenario(
    scenario: &Scenario,
    ability: &Ability,
    until: Option<Instant>,
    progress: &Progress,
    mut done: impl FnMut(&record::Scenario) -> Result<()>,
) -> Result<record::Scenario> {
    let mut found = record(scenario);
    if let Some(missing) = ability.missing_for(scenario) {
        for contender in &scenario.contenders {
            found.runs.push(skipped(contender, missing));
        }
        progress.say(&format!("{}: skipped: {missing}", scenario.name));
        done(&found)?;
        return Ok(found);
    }
    let (able, unable): (Vec<_>, Vec<_>) =
        scenario.contenders.iter().partition(|contender| ability.missing_of(contender).is_none());
    for contender in unable {
        let missing = ability.missing_of(contender).unwrap_or_default();
        progress.say(&format!("{}: {} skipped: {missing}", scenario.name, contender.name));
        found.runs.push(skipped(contender, missing));
    }
    let scratch = Scratch::new()?;
    let network = Network::of(scenario)?;
    let _watch = interrupt::Removed::when_interrupted(network.wire());
    settings(&mut found, scenario, &network);
    let stage = Stage { scenario, network: &network, scratch: &scratch, progress };
    let mut bench = Bench::of(&stage)?;
    let mut retries_left = VOID_RETRIES_PER_SCENARIO;
    for repetition in 0..scenario.repetitions {
        for contender in &able {
            let total = scenario.repetitions;
            for attempt in 0..=VOID_RETRIES {
                if until.is_some_and(|until| Instant::now() >= until) {
                    let why = "the time for all scenarios was up".to_owned();
                    let run = Run { outcome: Outcome::Skipped { why }, ..blank(&contender.name, repetition) };
                    found.runs.push(run);
                    break;
                }
                progress.run(&format!("{} {} {}/{total}", scenario.name, contender.name, repetition + 1));
                interrupt::check()?;
                let run = bench.run(contender, repetition);
                interrupt::check()?;
                let again = matches!(run.outcome, Outcome::Void { .. }) && retries_left > 0;
                progress.done(&told(&run));
                found.runs.push(run);
                done(&found)?;
                if !again || attempt == VOID_RETRIES {
                    break;
                }
                retries_left -= 1;
            }
        }
    }
    done(&found)?;
    Ok(found)
}

/// What all contenders of a scenario are set to, and what each is by itself.
fn settings(found: &mut record::Scenario, scenario: &Scenario, network: &Network) {
    for contender in &mut found.contenders {
        let mut set = |name: &str, value: String| {
            contender.settings.entry(name.to_owned()).or_insert(value);
        };
        set("congestion_control", network.congestion_control.clone());
        if matches!(scenario.load, Load::Guest(_)) {
            let bandwidth = scenario.max_bandwidth.map_or("unlimited".into(), |bytes| format!("{bytes} B/s"));
            set("max_bandwidth", bandwidth);
            set("downtime_limit", format!("{} ms", scenario.downtime_limit.as_millis()));
        }
    }
}

fn skipped(contender: &Contender, missing: &str) -> Run {
    Run { outcome: Outcome::Skipped { why: missing.to_owned() }, ..blank(&contender.name, 0) }
}

/// Where a scenario's runs happen, one after the other.
enum Bench<'a> {
    Guest(Box<migration::GuestBench<'a>>),
    Stream(stream::StreamBench<'a>),
}

impl<'a> Bench<'a> {
    fn of(stage: &'a Stage<'a>) -> Result<Self> {
        Ok(match &stage.scenario.load {
            Load::Guest(guest) => Self::Guest(Box::new(migration::GuestBench::new(stage, guest)?)),
            Load::Stream(stream) => Self::Stream(stream::StreamBench::new(stage, stream)?),
        })
    }

    fn run(&mut self, contender: &Contender, repetition: u32) -> Run {
        let mut run = blank(&contender.name, repetition);
        let stage = match self {
            Self::Guest(bench) => bench.stage,
            Self::Stream(bench) => bench.stage,
        };
        let result = match self {
            _ if contender.kind == Kind::Iperf3 => iperf3::run(stage, contender, &mut run),
            Self::Guest(bench) => bench.run(contender, &mut run),
            Self::Stream(bench) => bench.run(contender, &mut run),
        };
        run.outcome = match result {
            Ok(()) => {
                let rtt = stage.scenario.link.as_ref().map(Link::rtt_ms);
                void::reason(&run, rtt).map_or(Outcome::Completed, |why| Outcome::Void { why })
            }
            Err(error) if error.downcast_ref::<TimedOut>().is_some() => Outcome::TimedOut,
            Err(error) => Outcome::Failed { why: format!("{error:#}") },
        };
        run
    }
}

/// A run in a line.
fn told(run: &Run) -> String {
    let ms = |value: Option<f64>| value.map_or("?".to_owned(), |ms| format!("{ms:.0} ms"));
    let mb = |value: Option<u64>| {
        value.map_or(String::new(), |bytes| format!(", {:.1} MB on the link", bytes as f64 / 1e6))
    };
    match &run.outcome {
        Outcome::Completed if run.total_ms.is_none() => {
            let rate = run.work.as_ref().map_or(0.0, |work| work.achieved);
            format!("{:.0} Mbit/s of goodput", rate / 125e3)
        }
        Outcome::Completed => {
            format!("{}, pause {}{}", ms(run.total_ms), ms(run.guest_pause_ms), mb(run.wire_bytes()))
        }
        Outcome::TimedOut => format!("not done in time{}", mb(run.wire_bytes())),
        Outcome::Failed { why } => format!("failed: {why}"),
        Outcome::Void { why } => format!("void: {why}; it took {}", ms(run.total_ms)),
        Outcome::Skipped { why } => format!("skipped: {why}"),
    }
}
