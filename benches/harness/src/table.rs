//! Results for people at a terminal: a table for each scenario, medians and spreads.

use std::fmt::Write;

use novacron_testbed::stats::Spread;

use crate::record::{Outcome, Results, Run, Scenario};

/// Every scenario.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    for scenario in &results.scenarios {
        text += &of_scenario(scenario);
        text.push('\n');
    }
    text
}

const HEADINGS: [&str; 8] =
    ["contender", "runs", "total s", "guest pause ms", "downtime ms", "on the link MB", "CPU s", "verified"];

fn of_scenario(scenario: &Scenario) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    let mut notes = Vec::new();
    for contender in &scenario.contenders {
        let runs: Vec<&Run> = scenario.runs.iter().filter(|run| run.contender == contender.name).collect();
        rows.push(row(&contender.name, &runs));
        notes.extend(note(&contender.name, &runs, scenario.limit_ms));
    }
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = format!(
        "{}: {}\n  {}, {:.0} MiB; {}\n",
        scenario.name,
        scenario.why,
        scenario.workload,
        scenario.memory_bytes as f64 / f64::from(1 << 20),
        scenario.link
    );
    for row in &rows {
        let mut line = format!("  {:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "  {note}");
    }
    text
}

fn row(name: &str, runs: &[&Run]) -> [String; 8] {
    let counted: Vec<&&Run> = runs.iter().filter(|run| run.counts()).collect();
    let cell = |of: &dyn Fn(&Run) -> Option<f64>, digits: usize| {
        let spread = Spread::of(counted.iter().filter_map(|run| of(run)));
        spread.map_or_else(|| "-".to_owned(), |spread| brief(&spread, digits))
    };
    let verified = counted.iter().filter(|run| run.guest_verified == Some(true)).count();
    let asked = counted.iter().filter(|run| run.guest_verified.is_some()).count();
    [
        name.to_owned(),
        format!("{} of {}", counted.len(), runs.len()),
        cell(&|run| Some(run.total_ms? / 1e3), 2),
        cell(&|run| run.guest_pause_ms, 0),
        cell(&|run| run.downtime_ms, 0),
        cell(&|run| Some(run.wire_bytes()? as f64 / 1e6), 1),
        cell(&|run| Some(run.cpu_s()), 1),
        if asked == 0 { "-".to_owned() } else { format!("{verified} of {asked}") },
    ]
}

/// "1.20 (1.10..1.40)"; of one measurement the number alone.
fn brief(spread: &Spread, digits: usize) -> String {
    if spread.all.len() == 1 { format!("{:.digits$}", spread.median) } else { spread.text(digits) }
}

/// What the table does not tell: runs that do not count, and what measures no migration.
fn note(name: &str, runs: &[&Run], limit_ms: f64) -> Vec<String> {
    let mut notes = Vec::new();
    let late = runs.iter().filter(|run| run.outcome == Outcome::TimedOut).count();
    if late > 0 {
        notes.push(format!("{name}: {late} not done within {:.0} s", limit_ms / 1e3));
    }
    for run in runs {
        match &run.outcome {
            Outcome::Failed { why } => notes.push(format!("{name} {}: failed: {why}", run.repetition + 1)),
            Outcome::Void { why } => notes.push(format!("{name} {}: void: {why}", run.repetition + 1)),
            Outcome::Skipped { why } => notes.push(format!("{name}: skipped: {why}")),
            Outcome::Completed | Outcome::TimedOut => {}
        }
    }
    let goodput = runs.iter().filter(|run| run.counts() && run.total_ms.is_none());
    let goodput = Spread::of(goodput.filter_map(|run| Some(run.work.as_ref()?.achieved / 125e3)));
    if let Some(goodput) = goodput {
        notes.push(format!("{name}: {} Mbit/s of goodput", brief(&goodput, 0)));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Contender, Work};
    use crate::run::blank;

    #[test]
    fn a_table_tells_medians_failures_and_limits() {
        let contender =
            |name: &str| Contender { name: name.into(), ours: false, settings: Default::default() };
        let done = |name: &str, total_ms| Run {
            total_ms: Some(total_ms),
            guest_verified: Some(true),
            wire_bytes_forward: Some(9_000_000),
            wire_bytes_back: Some(1_000_000),
            ..blank(name, 0)
        };
        let failed = Outcome::Failed { why: "no luck".into() };
        let link = Work { set: None, achieved: 125e6, unit: "bytes".into() };
        let scenario = Scenario {
            name: "far".into(),
            why: "To see.".into(),
            workload: "dirty".into(),
            memory_bytes: 512 << 20,
            link: "1 Gbit/s".into(),
            rtt_ms: Some(20.0),
            rate_bytes_per_s: None,
            limit_ms: 60e3,
            contenders: ["a", "b", "c"].map(contender).to_vec(),
            runs: vec![
                done("a", 1000.0),
                Run { outcome: Outcome::TimedOut, ..blank("b", 0) },
                done("a", 3000.0),
                Run { outcome: failed, ..blank("b", 1) },
                Run { work: Some(link), ..blank("c", 0) },
            ],
        };
        let text = of_scenario(&scenario);
        assert!(text.contains("2 of 2") && text.contains("2.00 (1.00..3.00)"), "{text}");
        assert!(text.contains("10.0 (10.0..10.0)"), "{text}");
        assert!(
            text.contains("b: 1 not done within 60 s") && text.contains("b 2: failed: no luck"),
            "{text}"
        );
        assert!(text.contains("c: 1000 Mbit/s of goodput"), "{text}");
    }
}
