//! Made-up results that look like measured ones, for tests.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::record::*;

/// Noise that is the same every time.
pub(crate) fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub(crate) fn ours(name: &str) -> Contender {
    let settings = [
        ("congestion_control", "bbr"),
        ("streams", "4"),
        ("codec", "zstd 1"),
        ("max_bandwidth", "unlimited"),
    ];
    Contender {
        name: name.to_owned(),
        ours: true,
        settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}

pub(crate) fn other(name: &str) -> Contender {
    let mut settings = BTreeMap::from([
        ("congestion_control".to_owned(), "cubic".to_owned()),
        ("max_bandwidth".to_owned(), "unlimited".to_owned()),
        ("downtime_limit".to_owned(), "300 ms".to_owned()),
    ]);
    if name.starts_with("multifd") {
        settings.insert("multifd_channels".to_owned(), "4".to_owned());
    }
    Contender { name: name.to_owned(), ours: false, settings }
}

/// A completed run.
pub(crate) fn run(contender: &str, repetition: u32, total_ms: f64) -> Run {
    let mut next = noise(contender.bytes().map(u64::from).sum::<u64>() + u64::from(repetition) * 977);
    let guest = 340e6 * (1.0 + 0.06 * next());
    let wire =
        if contender.contains("zstd") || contender.starts_with("novacron") { 0.42 } else { 1.06 } * guest;
    let pause = 40.0 + 80.0 * next() + total_ms / 200.0;
    let samples = 40;
    let shape: Vec<f64> = (0..samples).map(|_| 0.6 + 0.4 * next()).collect();
    let sum: f64 = shape.iter().sum();
    let throughput = shape.iter().enumerate().map(|(i, share)| Sample {
        at_ms: total_ms * (i + 1) as f64 / f64::from(samples),
        bytes: (wire * share / sum) as u64,
    });
    let process = |name: &str, site: &str, cpu_s: f64, memory: f64| Process {
        name: name.to_owned(),
        site: site.to_owned(),
        cpu_s,
        memory_bytes_max: memory as u64,
    };
    let mut processes = vec![
        process("source hypervisor", "source", 1.1 + 0.4 * next(), 690e6),
        process("destination hypervisor", "destination", 0.9 + 0.3 * next(), 610e6),
        process("lab", "lab", 0.7, 60e6),
    ];
    if contender.starts_with("novacron") {
        processes.push(process("source gateway", "source", 0.8 + 0.2 * next(), 48e6));
        processes.push(process("destination gateway", "destination", 0.5 + 0.2 * next(), 51e6));
    }
    Run {
        contender: contender.to_owned(),
        repetition,
        outcome: Outcome::Completed,
        total_ms: Some(total_ms),
        downtime_ms: Some(pause * 0.8),
        guest_pause_ms: Some(pause),
        guest_pause_resolution_ms: Some(1.0),
        guest_bytes: Some(guest as u64),
        wire_bytes_forward: Some(wire as u64),
        wire_bytes_back: Some((wire * 0.02) as u64),
        processes,
        guest_verified: Some(true),
        work: Some(Work { set: Some(20.0), achieved: 19.4 + 0.5 * next(), unit: "MB".to_owned() }),
        lab: Some(LabHealth {
            lateness_p50_ms: 0.05,
            lateness_p99_ms: 0.6 + next(),
            lateness_max_ms: 4.0,
            lost_frames: 230,
            queue_dropped_frames: 12,
        }),
        iterations: Some(4),
        throughput: throughput.collect(),
    }
}

/// A scenario without contenders and runs.
pub(crate) fn scenario(name: &str) -> Scenario {
    Scenario {
        name: name.to_owned(),
        why: "Shows what a guest that rewrites its memory costs on a link with losses.".to_owned(),
        workload: "dirty".to_owned(),
        memory_bytes: 512 << 20,
        link: "500 Mbit/s, 50 ms RTT, 0.1 % loss".to_owned(),
        rtt_ms: Some(50.0),
        rate_bytes_per_s: Some(62.5e6),
        limit_ms: 60_000.0,
        contenders: Vec::new(),
        runs: Vec::new(),
    }
}

/// Five interleaved rounds; a median of 0 is a contender that never finishes.
pub(crate) fn measured(name: &str, contenders: &[(Contender, f64)], spread: f64) -> Scenario {
    let mut scenario = scenario(name);
    scenario.contenders = contenders.iter().map(|(contender, _)| contender.clone()).collect();
    let mut next = noise(name.len() as u64 + 11);
    for repetition in 0..5 {
        for (contender, median) in contenders {
            let ms = median * (1.0 + spread * (next() - 0.5));
            let mut run =
                run(&contender.name, repetition, if *median > 0.0 { ms } else { scenario.limit_ms });
            if *median == 0.0 {
                run.outcome = Outcome::TimedOut;
                (run.total_ms, run.downtime_ms, run.guest_pause_ms) = (None, None, None);
                run.guest_verified = None;
            }
            scenario.runs.push(run);
        }
    }
    scenario
}

/// Results with everything in them that a report must show.
pub(crate) fn results() -> Results {
    let mut fast = measured(
        "lossy-500mbit-50ms",
        &[
            (ours("novacron"), 3900.0),
            (other("tcp"), 0.0),
            (other("multifd-2"), 41_000.0),
            (other("multifd-8"), 18_500.0),
            (other("multifd-4-zstd"), 7600.0),
            (other("xbzrle"), 0.0),
            (other("postcopy"), 52_000.0),
        ],
        0.3,
    );
    let void = "the guest achieved 71 % of its set rate outside the pause, 90 % are needed";
    fast.runs[9].outcome = Outcome::Void { why: void.to_owned() };
    fast.runs[13].outcome = Outcome::Failed {
        why: "QEMU: postcopy is refused: userfaultfd <unavailable> & no \"way\" around it\u{1b}[0m"
            .to_owned(),
    };
    fast.contenders.push(other("zstd-socat"));
    let mut skipped = run("zstd-socat", 0, 1.0);
    skipped.outcome = Outcome::Skipped { why: "zstd is not installed".to_owned() };
    (skipped.total_ms, skipped.downtime_ms, skipped.guest_pause_ms) = (None, None, None);
    (skipped.wire_bytes_forward, skipped.guest_verified, skipped.work, skipped.lab) =
        (None, None, None, None);
    skipped.processes.clear();
    skipped.throughput.clear();
    fast.runs.push(skipped);
    let mut alone = measured(
        "narrow-100mbit",
        &[(ours("novacron"), 9200.0), (other("tcp"), 0.0), (other("multifd-4-zstd"), 0.0)],
        0.2,
    );
    (alone.link, alone.rate_bytes_per_s, alone.rtt_ms) =
        ("100 Mbit/s, 20 ms RTT".to_owned(), Some(12.5e6), Some(20.0));
    let mut level = measured(
        "local-1gbit",
        &[
            (ours("novacron"), 3050.0),
            (ours("novacron-1-stream"), 3400.0),
            (other("tcp"), 3040.0),
            (other("multifd-4"), 3300.0),
        ],
        0.2,
    );
    (level.link, level.rate_bytes_per_s, level.rtt_ms) =
        ("1 Gbit/s, 1 ms RTT".to_owned(), Some(125e6), Some(1.0));
    let mut slow = measured("loopback", &[(ours("novacron"), 1320.0), (other("tcp"), 980.0)], 0.1);
    (slow.link, slow.rate_bytes_per_s, slow.rtt_ms) = ("loopback".to_owned(), None, None);
    for run in &mut slow.runs {
        (run.wire_bytes_forward, run.wire_bytes_back, run.lab) = (None, None, None);
    }
    slow.runs[3].guest_verified = Some(false);
    let versions = [
        ("qemu-system-x86_64", "10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)"),
        ("socat", "1.7.4.4"),
        ("iperf3", "3.12"),
        ("zstd", "1.5.4"),
    ];
    Results {
        format: FORMAT,
        started_at: "2026-11-21T10:31:07Z".to_owned(),
        ended_at: Some("2026-11-21T10:42:40Z".to_owned()),
        host: Host {
            cpu: "Intel(R) Xeon(R) Platinum 8581C CPU @ 2.30GHz".to_owned(),
            cpus: 2,
            memory_bytes: 25_200_000_000,
            kernel: "6.18.5".to_owned(),
            versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
            commit: Some("e1047701c09f7bdcbc1f8a2a3f4a5b6c7d8e9f00".to_owned()),
            changed: true,
            load_average: 1.4,
        },
        scenarios: vec![fast, alone, level, slow],
    }
}

/// A text with everything that markup could stumble over.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just("</script><script>alert(1)</script>".to_owned()),
        Just("\" onload='x' & <b>&amp;]]>\u{0}\u{1b}[31m\u{ffff}".to_owned()),
    ]
}

fn number() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(prop_oneof![any::<f64>(), 0.0..100_000.0])
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Completed),
        1 => Just(Outcome::TimedOut),
        1 => text().prop_map(|why| Outcome::Failed { why }),
        1 => text().prop_map(|why| Outcome::Void { why }),
        1 => text().prop_map(|why| Outcome::Skipped { why }),
    ]
}

fn any_run(contenders: Vec<String>) -> impl Strategy<Value = Run> {
    let times = (number(), number(), number(), number());
    let counts = prop::array::uniform4(any::<Option<u64>>());
    let process = (text(), text(), any::<f64>(), any::<u64>());
    let process = process.prop_map(|(name, site, cpu_s, memory_bytes_max)| Process {
        name,
        site,
        cpu_s,
        memory_bytes_max,
    });
    let work =
        (number(), any::<f64>(), text()).prop_map(|(set, achieved, unit)| Work { set, achieved, unit });
    let sample = (prop_oneof![any::<f64>(), 0.0..1e5], any::<u64>())
        .prop_map(|(at_ms, bytes)| Sample { at_ms, bytes });
    let rest = (
        prop::collection::vec(process, 0..3),
        any::<Option<bool>>(),
        prop::option::of(work),
        prop::collection::vec(sample, 0..6),
        any::<bool>(),
    );
    (prop::sample::select(contenders), any::<u32>(), outcome(), times, counts, rest).prop_map(
        |(
            contender,
            repetition,
            outcome,
            times,
            counts,
            (processes, guest_verified, work, throughput, lab),
        )| Run {
            contender,
            repetition: if lab { repetition } else { repetition % 3 },
            outcome,
            total_ms: times.0,
            downtime_ms: times.1,
            guest_pause_ms: times.2,
            guest_pause_resolution_ms: times.3,
            guest_bytes: counts[0],
            wire_bytes_forward: counts[1],
            wire_bytes_back: counts[2],
            processes,
            guest_verified,
            work,
            lab: lab.then(LabHealth::default),
            iterations: counts[3],
            throughput,
        },
    )
}

fn any_scenario() -> impl Strategy<Value = Scenario> {
    let contender = (text(), any::<bool>(), prop::collection::btree_map(text(), text(), 0..3));
    let contender = contender.prop_map(|(name, ours, settings)| Contender { name, ours, settings });
    let facts = (text(), text(), text(), text(), any::<u64>(), number(), number(), any::<f64>());
    (facts, prop::collection::vec(contender, 0..4)).prop_flat_map(|(facts, contenders)| {
        let mut names: Vec<String> = contenders.iter().map(|one| one.name.clone()).collect();
        names.push("of nobody".to_owned());
        prop::collection::vec(any_run(names), 0..8).prop_map(move |runs| Scenario {
            name: facts.0.clone(),
            why: facts.1.clone(),
            workload: facts.2.clone(),
            memory_bytes: facts.4,
            link: facts.3.clone(),
            rtt_ms: facts.5,
            rate_bytes_per_s: facts.6,
            limit_ms: facts.7,
            contenders: contenders.clone(),
            runs,
        })
    })
}

/// Any results at all, those that no harness writes included.
pub(crate) fn any_results() -> impl Strategy<Value = Results> {
    let versions = prop::collection::btree_map(text(), text(), 0..3);
    let host = (
        text(),
        any::<u32>(),
        any::<u64>(),
        text(),
        versions,
        prop::option::of(text()),
        any::<bool>(),
        any::<f64>(),
    );
    let host = host.prop_map(|(cpu, cpus, memory_bytes, kernel, versions, commit, changed, load_average)| {
        Host { cpu, cpus, memory_bytes, kernel, versions, commit, changed, load_average }
    });
    (any::<u32>(), text(), prop::option::of(text()), host, prop::collection::vec(any_scenario(), 0..3))
        .prop_map(|(format, started_at, ended_at, host, scenarios)| Results {
            format,
            started_at,
            ended_at,
            host,
            scenarios,
        })
}
