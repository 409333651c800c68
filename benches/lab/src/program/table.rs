//! Reports for people.

use std::fmt::Write;

use crate::check::{Allowed, CheckReport};
use crate::conditions::{Conditions, Queue};
use crate::report::{LabReport, WayReport};

pub(super) fn report(report: &LabReport) -> String {
    let mut text =
        format!("lab {} ({}), process {}, seed {}\n", report.id, report.topology, report.pid, report.seed);
    let head = [
        "",
        "entered",
        "delivered",
        "lost",
        "dropped",
        "copies",
        "reordered",
        "inside",
        "MB",
        "late p50",
        "p99",
        "max ms",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let mut conditions = String::new();
    for link in &report.links {
        for (from, to, way) in [(&link.from, &link.to, &link.forward), (&link.to, &link.from, &link.back)] {
            let name = format!("{} {from} > {to}", link.name);
            let _ = writeln!(conditions, "  {name}: {}", describe(&way.conditions));
            rows.push(row(&name, way));
        }
    }
    text += &conditions;
    text += &aligned(&rows);
    let late = report.lateness;
    let _ = writeln!(
        text,
        "  all frames: late p50 {:.3}, p99 {:.3}, max {:.3} ms",
        late.p50_ms, late.p99_ms, late.max_ms
    );
    for link in &report.links {
        for (site, way) in [(&link.from, &link.forward), (&link.to, &link.back)] {
            if way.overrun > 0 || way.counters.refused.frames > 0 {
                let _ = writeln!(
                    text,
                    "  {}: {} frames from {site} were dropped by the kernel as the lab was too slow, {} were refused at the far end",
                    link.name, way.overrun, way.counters.refused.frames
                );
            }
        }
    }
    text
}

fn row(name: &str, way: &WayReport) -> [String; 12] {
    let counters = &way.counters;
    let frames = |count: crate::Count| count.frames.to_string();
    [
        name.to_owned(),
        frames(counters.entered),
        frames(counters.delivered),
        frames(counters.lost),
        frames(counters.queue_dropped),
        frames(counters.duplicated),
        frames(counters.reordered),
        way.inside.to_string(),
        format!("{:.1}", counters.delivered.bytes as f64 / 1e6),
        format!("{:.3}", way.lateness.p50_ms),
        format!("{:.3}", way.lateness.p99_ms),
        format!("{:.3}", way.lateness.max_ms),
    ]
}

pub(super) fn check(report: &CheckReport) -> String {
    let mut rows = vec![["measured", "asked", "is", "allowed", ""].map(str::to_owned)];
    for finding in &report.findings {
        let value = |value: f64| format!("{value:.3} {}", finding.unit);
        let allowed = match finding.allowed {
            Allowed::Within(off) => format!("± {off:.3}"),
            Allowed::AtMost => "at most".to_owned(),
            Allowed::AtLeast => "at least".to_owned(),
        };
        let passed = if finding.passed { "ok" } else { "FAILED" }.to_owned();
        rows.push([finding.what.clone(), value(finding.asked), value(finding.measured), allowed, passed]);
    }
    format!(
        "seed {}; load average {} on {} processors\n{}",
        report.seed,
        report.load_average,
        report.processors,
        aligned(&rows)
    )
}

/// What a direction does, in words.
pub(crate) fn describe(conditions: &Conditions) -> String {
    if conditions.cut {
        return "cut".to_owned();
    }
    let mut words = vec![match conditions.rate_mbit {
        Some(rate) => format!("{rate} Mbit/s"),
        None => "any rate".to_owned(),
    }];
    words.push(format!("{} ms", conditions.delay_ms));
    let mut also = |value: f64, text: String| {
        if value > 0.0 {
            words.push(text);
        }
    };
    also(conditions.jitter_ms, format!("± {} ms", conditions.jitter_ms));
    also(conditions.loss_percent, format!("{} % lost", conditions.loss_percent));
    if let Some(burst) = conditions.burst {
        let run = if burst.leave_percent > 0.0 { 100.0 / burst.leave_percent } else { f64::INFINITY };
        also(1.0, format!("{:.4} % lost in bad times of {run:.0} frames", burst.share() * 100.0));
    }
    let by = conditions.reorder_ms;
    also(conditions.reorder_percent, format!("{} % held back for {by} ms", conditions.reorder_percent));
    also(conditions.duplicate_percent, format!("{} % twice", conditions.duplicate_percent));
    if let Some(bytes) = conditions.queue_bytes() {
        let why = if conditions.queue == Queue::Default { " (default)" } else { "" };
        also(1.0, format!("queue of {} kB{why}", bytes / 1000));
    }
    words.join(", ")
}

/// Columns below each other, the first to the left, the others to the right.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ =
                if column == 0 { write!(text, "  {cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "1"], ["bcd", "1234"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "  a       1\n  bcd  1234\n");
    }

    #[test]
    fn conditions_read_as_words() {
        let conditions = Conditions { rate_mbit: Some(100.0), delay_ms: 10.0, ..Conditions::default() };
        assert_eq!(describe(&conditions), "100 Mbit/s, 10 ms, queue of 250 kB (default)");
        assert_eq!(describe(&Conditions { cut: true, ..conditions }), "cut");
    }
}
