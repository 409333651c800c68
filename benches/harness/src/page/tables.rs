//! The numbers behind the plots.

use std::collections::BTreeSet;

use maud::{Markup, html};
use novacron_testbed::stats::Spread;

use crate::measure::{Measure, Tally, runs_of, spread};
use crate::record::{Contender, Outcome, Run, Scenario};
use crate::units::{Unit, significant};

const NONE: &str = "\u{2013}";

/// A table that scrolls by itself where the window is too narrow.
pub(super) fn scrolled(label: &str, table: Markup) -> Markup {
    html! { div.scroll role="region" tabindex="0" aria-label=(label) { (table) } }
}

/// Medians and ranges, a row each contender.
pub(super) fn results(scenario: &Scenario) -> Markup {
    let measures: Vec<Measure> = Measure::ALL
        .into_iter()
        .filter(|measure| {
            scenario.contenders.iter().any(|one| spread(scenario, &one.name, *measure).is_some())
        })
        .collect();
    let cell = |contender: &Contender, measure: Measure| match spread(scenario, &contender.name, measure) {
        Some(spread) => html! {
            (measure.text(scenario, spread.median))
            @if spread.all.len() > 1 {
                span.range { (measure.unit(scenario).range(spread.min, spread.max)) }
            }
        },
        None => html! { (NONE) },
    };
    scrolled(
        "Results of each contender",
        html! {
            table {
                caption { "Medians of the runs that count, and below them the least and the most" }
                thead { tr {
                    th scope="col" { "Contender" }
                    th scope="col" { "Runs that count" }
                    @for measure in &measures { th scope="col" { (heading(*measure)) } }
                    th scope="col" { "Guest verified" }
                } }
                tbody { @for contender in &scenario.contenders {
                    @let tally = Tally::of(scenario, &contender.name);
                    tr class=[contender.ours.then_some("ours")] {
                        th scope="row" { (contender.name) }
                        td class=[(!tally.always_completed()).then_some("warning")] { (tally.text()) }
                        @for measure in &measures { td.number { (cell(contender, *measure)) } }
                        td class=[(tally.unverified > 0).then_some("failed")] { (verified(scenario, contender)) }
                    }
                } }
            }
        },
    )
}

/// Short, as a column's head is.
fn heading(measure: Measure) -> &'static str {
    match measure {
        Measure::GuestPause => "Guest's pause",
        Measure::HypervisorPause => "QEMU's pause",
        Measure::WireBytes => "Wire bytes",
        Measure::CpuPerGb => "CPU / guest GB",
        other => other.title(),
    }
}

fn verified(scenario: &Scenario, contender: &Contender) -> String {
    let looked = runs_of(scenario, &contender.name).filter_map(|run| run.guest_verified);
    let (good, bad) =
        looked.fold((0, 0), |(good, bad), one| if one { (good + 1, bad) } else { (good, bad + 1) });
    match (good, bad) {
        (0, 0) => NONE.to_owned(),
        (good, 0) => format!("{good} of {good}"),
        (good, bad) => format!("BAD memory in {bad} of {}", good + bad),
    }
}

/// Runs that do not count and why, those with the same reason together.
pub(super) fn left_out(scenario: &Scenario) -> Option<Markup> {
    let mut groups: Vec<(&str, &Outcome, Vec<u32>)> = Vec::new();
    for run in scenario.runs.iter().filter(|run| !run.counts()) {
        let same =
            groups.iter_mut().find(|(name, outcome, _)| *name == run.contender && **outcome == run.outcome);
        match same {
            Some((.., repetitions)) => repetitions.push(run.repetition),
            None => groups.push((&run.contender, &run.outcome, vec![run.repetition])),
        }
    }
    let which = |repetitions: &[u32]| {
        let numbers: Vec<String> = repetitions.iter().map(|at| (u64::from(*at) + 1).to_string()).collect();
        format!("{} {}", if numbers.len() == 1 { "run" } else { "runs" }, numbers.join(", "))
    };
    (!groups.is_empty()).then(|| {
        html! {
            div.leftout {
                h4 { "Runs that do not count" }
                ul { @for (contender, outcome, repetitions) in &groups {
                    li { b { (contender) } ", " (which(repetitions)) ": " (ended(outcome, scenario)) }
                } }
            }
        }
    })
}

/// How a run ended, with its reason.
fn ended(outcome: &Outcome, scenario: &Scenario) -> String {
    match outcome {
        Outcome::Completed => "completed".to_owned(),
        Outcome::TimedOut => {
            format!("timed out: not done within the limit of {}, given up", Unit::Ms.text(scenario.limit_ms))
        }
        Outcome::Failed { why } => format!("failed: {why}"),
        Outcome::Void { why } => format!("void: {why}"),
        Outcome::Skipped { why } => format!("skipped: {why}"),
    }
}

/// Every run in the order in which they ran.
pub(super) fn runs(scenario: &Scenario) -> Markup {
    let text = |measure: Measure, run: &Run| {
        measure.of(scenario, run).map_or_else(|| NONE.to_owned(), |value| measure.text(scenario, value))
    };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let pause = |run: &Run| {
        let resolution = run.guest_pause_resolution_ms.filter(|ms| ms.is_finite() && *ms >= 0.0);
        let exact = resolution.map_or_else(String::new, |ms| format!(" \u{b1} {}", Unit::Ms.text(ms)));
        text(Measure::GuestPause, run) + if run.guest_pause_ms.is_some() { &exact } else { "" }
    };
    let work = |run: &Run| {
        let work = run.work.as_ref()?;
        let unit = Unit::PerSecond(&work.unit);
        let of = work.set.map_or_else(String::new, |set| format!(" of {}", unit.text(set)));
        Some(format!("{}{of}", unit.text(work.achieved)))
    };
    scrolled(
        "Every run",
        html! {
            table {
                caption { "Every run, in the order in which they ran" }
                thead { tr {
                    @for head in [
                        "Contender", "Run", "Result", "Total time", "Guest's pause", "QEMU's pause", "Guest bytes", "Wire, forward", "Wire, back",
                        "CPU", "Peak memory", "Passes", "Guest's work", "Verified", "Lab late, p99", "Lost", "Dropped by queue",
                    ] { th scope="col" { (head) } }
                } }
                tbody { @for run in &scenario.runs {
                    tr {
                        th scope="row" { (run.contender) }
                        td.number { (u64::from(run.repetition) + 1) }
                        td class=[(!run.counts()).then_some("warning")] { (result(&run.outcome)) }
                        td.number { (text(Measure::TotalTime, run)) }
                        td.number { (pause(run)) }
                        td.number { (text(Measure::HypervisorPause, run)) }
                        @for bytes in [run.guest_bytes, run.wire_bytes_forward, run.wire_bytes_back] {
                            td.number { (or_none(bytes.map(|bytes| Unit::Bytes.text(bytes as f64)))) }
                        }
                        td.number { @if run.processes.is_empty() { (NONE) } @else { (significant(run.cpu_s())) " s" } }
                        td.number { (text(Measure::PeakMemory, run)) }
                        td.number { (or_none(run.iterations.map(|count| count.to_string()))) }
                        td.number { (or_none(work(run))) }
                        td { (or_none(run.guest_verified.map(|good| if good { "yes" } else { "NO" }.to_owned()))) }
                        td.number { (or_none(run.lab.map(|lab| Unit::Ms.text(lab.lateness_p99_ms)))) }
                        td.number { (or_none(run.lab.map(|lab| lab.lost_frames.to_string()))) }
                        td.number { (or_none(run.lab.map(|lab| lab.queue_dropped_frames.to_string()))) }
                    }
                } }
            }
        },
    )
}

fn result(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::TimedOut => "timed out",
        Outcome::Failed { .. } => "failed",
        Outcome::Void { .. } => "void",
        Outcome::Skipped { .. } => "skipped",
    }
}

/// Settings, a row each, so that what differs stands side by side.
pub(super) fn settings(scenario: &Scenario) -> Markup {
    let keys: BTreeSet<&str> =
        scenario.contenders.iter().flat_map(|one| one.settings.keys().map(String::as_str)).collect();
    scrolled(
        "Settings",
        html! {
            table {
                caption { "Settings as they were in force, where they can be read back" }
                thead { tr {
                    th scope="col" { "Setting" }
                    @for contender in &scenario.contenders { th scope="col" { (contender.name) } }
                } }
                tbody { @for key in keys {
                    tr {
                        th scope="row" { (key) }
                        @for contender in &scenario.contenders {
                            td { (contender.settings.get(key).map_or(NONE, String::as_str)) }
                        }
                    }
                } }
            }
        },
    )
}

/// What each process of each contender needed: medians of the runs that count.
pub(super) fn processes(scenario: &Scenario) -> Markup {
    let mut rows = Vec::new();
    for contender in &scenario.contenders {
        let counted = || runs_of(scenario, &contender.name).filter(|run| run.counts());
        let mut names: Vec<(&str, &str)> = Vec::new();
        for process in counted().flat_map(|run| &run.processes) {
            if !names.contains(&(&process.site, &process.name)) {
                names.push((&process.site, &process.name));
            }
        }
        for (site, name) in names {
            let same = || {
                let all = counted().flat_map(|run| &run.processes);
                all.filter(move |process| process.site == site && process.name == name)
            };
            let cpu = Spread::of(same().map(|process| process.cpu_s));
            let memory = Spread::of(same().map(|process| process.memory_bytes_max as f64));
            rows.push((&contender.name, site, name, cpu, memory));
        }
    }
    let seconds = |value: f64| format!("{} s", significant(value));
    scrolled(
        "Processes",
        html! {
            table {
                caption { "Each process: medians of the runs that count; the lab is counted with nobody" }
                thead { tr { @for head in ["Contender", "Site", "Process", "CPU", "least..most", "Peak memory"] { th scope="col" { (head) } } } }
                tbody { @for (contender, site, name, cpu, memory) in &rows {
                    tr {
                        th scope="row" { (contender) }
                        td { (site) }
                        td { (name) }
                        td.number { (cpu.as_ref().map_or_else(|| NONE.to_owned(), |cpu| seconds(cpu.median))) }
                        td.number { (cpu.as_ref().map_or_else(|| NONE.to_owned(), |cpu| format!("{}..{}", seconds(cpu.min), seconds(cpu.max)))) }
                        td.number { (memory.as_ref().map_or_else(|| NONE.to_owned(), |memory| Unit::Bytes.text(memory.median))) }
                    }
                } }
            }
        },
    )
}
