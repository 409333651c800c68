//! Seeds, many in CI and more on demand.
//!
//! `NOVACRON_SIM_SEEDS=5000` runs more of them, `NOVACRON_SIM_FIRST=1000` other ones, `NOVACRON_SIM_SEED=17` one,
//! and `NOVACRON_SIM_TRACE=1` prints what happens in it.

use novacron_sim::{Coverage, EDGES, Failure, Plan, Report, Scenario, run};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What CI runs.
const SEEDS: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn run_all(seeds: std::ops::Range<u64>) -> Vec<(u64, Scenario, Result<Report, Failure>)> {
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let plan = Plan::new(seed);
                    let scenario = plan.scenario;
                    let result = run(plan, false);
                    results.lock().unwrap().push((seed, scenario, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(seed, ..)| *seed);
    results
}

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number("NOVACRON_SIM_SEED") {
        let trace = number("NOVACRON_SIM_TRACE").is_some_and(|on| on != 0);
        let plan = Plan::new(seed);
        if trace {
            eprintln!("{plan:#?}");
        }
        match run(plan, trace) {
            Ok(report) => println!("seed {seed}: {report:?}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let first = number("NOVACRON_SIM_FIRST").unwrap_or(0);
    let count = number("NOVACRON_SIM_SEEDS").unwrap_or(SEEDS);
    let started = std::time::Instant::now();
    let results = run_all(first..first + count);

    let mut coverage = Coverage::default();
    let mut frames: BTreeMap<String, u64> = BTreeMap::new();
    let mut outcomes: BTreeMap<(Scenario, String), u64> = BTreeMap::new();
    let (mut guest_bytes, mut steps, mut jobs, mut repeated, mut virtual_s) = (0, 0, 0, 0, 0.0);
    let (mut known, mut repaired, mut repaired_over_cuts) = (0, 0, 0);
    // In runs whose sessions do all codec work themselves, and in those with workers.
    let mut recalled = [0, 0];
    let mut failures = Vec::new();
    for (_, scenario, result) in &results {
        match result {
            Ok(report) => {
                coverage.add(&report.coverage);
                for (kind, count) in &report.frames {
                    *frames.entry(kind.clone()).or_default() += count;
                }
                let name = |reason: Option<novacron_protocol::wire::ReasonCode>| {
                    reason.map_or("-", |reason| reason.name())
                };
                let outcome = if report.finished {
                    "finished".to_owned()
                } else {
                    format!("source {}, destination {}", name(report.reasons[0]), name(report.reasons[1]))
                };
                *outcomes.entry((*scenario, outcome)).or_default() += 1;
                guest_bytes += report.guest_bytes;
                steps += report.steps;
                jobs += report.jobs;
                recalled[usize::from(report.jobs > 0)] += report.recalled_bytes;
                known += report.known_bytes;
                repaired += report.repaired_pages;
                if matches!(scenario, Scenario::Cuts | Scenario::Dark | Scenario::Stuck) {
                    repaired_over_cuts += report.repaired_pages;
                }
                repeated += report.repeated_bytes;
                virtual_s += report.ended_ns as f64 / 1e9;
            }
            Err(failure) => failures.push(failure),
        }
    }
    println!(
        "{} seeds in {:.1} s: {steps} steps, {jobs} codec jobs, {:.1} MB of guest bytes, {:.1} MB repeated, {:.1} and {:.1} MB recalled without and with workers, {:.0} s of virtual time",
        results.len(),
        started.elapsed().as_secs_f64(),
        guest_bytes as f64 / 1e6,
        repeated as f64 / 1e6,
        recalled[0] as f64 / 1e6,
        recalled[1] as f64 / 1e6,
        virtual_s
    );
    println!(
        "  {:.1} MB referred to by content, {repaired} pages of it repaired, {repaired_over_cuts} where streams were lost or stuck",
        known as f64 / 1e6
    );
    for ((scenario, outcome), count) in &outcomes {
        println!("  {:<12} {count:>5}  {outcome}", format!("{scenario:?}"));
    }
    let longest = results.iter().filter_map(|(seed, _, r)| r.as_ref().ok().map(|r| (r.ended_ns, seed))).max();
    println!("  the longest: {longest:?} (ns, seed)");
    println!("  {frames:?}");
    println!("{}", coverage.table());
    for failure in failures.iter().take(20) {
        println!("{failure}");
    }
    assert!(failures.is_empty(), "{} of {} seeds failed, see above", failures.len(), results.len());
    if count >= SEEDS {
        assert!(jobs > 0, "no seed handed out codec work");
        assert!(recalled.iter().all(|bytes| *bytes > 0), "no seed recalled a page: {recalled:?}");
        assert!(known > 0 && repaired > 0, "no seed referred to content, or none had to repair");
        assert!(repaired_over_cuts > 0, "no seed repaired while streams were lost");
        assert!(repeated > 0, "no seed had a frame that was stuck");
        for kind in
            "Open Accept Refuse Fail Progress Want Repair ConnectionOpen Batch Index Part ConnectionEnd"
                .split_whitespace()
        {
            assert!(frames.contains_key(kind), "no seed sent a frame of kind {kind}");
        }
        for (role, from, to, _) in EDGES {
            assert!(coverage.of(*role, *from, *to) > 0, "no seed took {role:?} from {from:?} to {to:?}");
        }
    }
}
