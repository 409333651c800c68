//! One measure of all contenders: a row each, a dot for every run.

use maud::{Markup, html};
use novacron_testbed::stats::Spread;

use super::axis::Axis;
use super::{coordinate, shortened};
use crate::measure::{Measure, Tally, runs_of};
use crate::record::{Contender, Outcome, Run, Scenario};

const WIDTH: f64 = 560.0;
const ROW: f64 = 28.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 26.0;
/// The plot lies between the names and the medians.
const PLOT: (f64, f64) = (152.0, 432.0);
const NAME_CHARS: usize = 21;

/// A contender's row.
struct Row<'a> {
    contender: &'a Contender,
    /// Of the runs that count.
    spread: Option<Spread>,
    /// Every dot: run, value, whether it counts.
    dots: Vec<(&'a Run, f64)>,
    tally: Tally,
}

impl<'a> Row<'a> {
    fn of(scenario: &'a Scenario, contender: &'a Contender, measure: Measure) -> Row<'a> {
        let runs = runs_of(scenario, &contender.name);
        // What a run that was given up had used by then says nothing of a migration.
        let shown = runs.filter(|run| matches!(run.outcome, Outcome::Completed | Outcome::Void { .. }));
        let dots: Vec<_> =
            shown.filter_map(|run| measure.of(scenario, run).map(|value| (run, value))).collect();
        let counted = dots.iter().filter(|(run, _)| run.counts()).map(|(_, value)| *value);
        Row { contender, spread: Spread::of(counted), dots, tally: Tally::of(scenario, &contender.name) }
    }

    /// What stands at the end of the row: the median, and what became of runs without one.
    fn text(&self, scenario: &Scenario, measure: Measure) -> String {
        let mut parts: Vec<String> =
            self.spread.iter().map(|spread| measure.text(scenario, spread.median)).collect();
        let tally = &self.tally;
        if self.spread.is_some() && measure != Measure::TotalTime {
            // Said once, where the time is.
            return parts.concat();
        }
        let all = self.spread.is_none() && tally.runs() > 0;
        for (count, what) in [
            (tally.timed_out, "timed out"),
            (tally.failed, "failed"),
            (tally.void, "void"),
            (tally.skipped, "skipped"),
        ] {
            match count {
                0 => {}
                count if all && count == tally.runs() => parts.push(what.to_owned()),
                count => parts.push(format!("{count} {what}")),
            }
        }
        if parts.is_empty() { "not measured".to_owned() } else { parts.join(", ") }
    }

    /// The same for who cannot see the plot.
    fn sentence(&self, scenario: &Scenario, measure: Measure) -> String {
        match &self.spread {
            Some(spread) => {
                let [median, min, max] =
                    [spread.median, spread.min, spread.max].map(|value| measure.text(scenario, value));
                format!(
                    "{}: median {median}, {min} to {max}; {} runs.",
                    self.contender.name,
                    self.tally.text()
                )
            }
            None => format!("{}: {}.", self.contender.name, self.text(scenario, measure)),
        }
    }
}

/// The plot; `None` where no run says anything of the measure.
pub(super) fn plot(id: &str, scenario: &Scenario, measure: Measure) -> Option<Markup> {
    let rows: Vec<Row<'_>> =
        scenario.contenders.iter().map(|contender| Row::of(scenario, contender, measure)).collect();
    let mut values: Vec<f64> = rows.iter().flat_map(|row| row.dots.iter().map(|(_, value)| *value)).collect();
    if values.is_empty() {
        return None;
    }
    // Who was given up stands at the limit.
    let gave_up = measure == Measure::TotalTime && rows.iter().any(|row| row.tally.timed_out > 0);
    if gave_up {
        values.push(scenario.limit_ms);
    }
    let axis = Axis::over(values)?;
    let x = |value: f64| PLOT.0 + axis.place(value) * (PLOT.1 - PLOT.0);
    let bottom = TOP + ROW * rows.len() as f64;
    let height = bottom + BOTTOM;
    let best = best(&rows, measure);
    let (title, description) = (format!("{id}-title"), format!("{id}-description"));
    Some(html! {
        figure {
            figcaption {
                b { (measure.title()) }
                span.note {
                    @if measure.less_is_better() { "less is better" } @else { "more is better" }
                    @if axis.is_logarithmic() { "; logarithmic axis" }
                }
            }
            svg role="img" viewBox=(format!("0 0 {WIDTH} {height}")) aria-labelledby=(format!("{title} {description}")) {
                title id=(title) { (measure.title()) " of each contender in " (scenario.name) }
                desc id=(description) {
                    @for row in &rows { (row.sentence(scenario, measure)) " " }
                }
                @for tick in axis.ticks() {
                    line.grid x1=(coordinate(x(*tick))) x2=(coordinate(x(*tick))) y1=(coordinate(TOP)) y2=(coordinate(bottom)) {}
                    text.tick x=(coordinate(x(*tick))) y=(coordinate(bottom + 17.0)) text-anchor="middle" {
                        (measure.unit(scenario).tick(*tick))
                    }
                }
                @for (index, row) in rows.iter().enumerate() {
                    (draw(scenario, measure, row, TOP + ROW * (index as f64 + 0.5), &x, best == Some(index)))
                }
            }
        }
    })
}

/// Who has the best median of those that always finished.
fn best(rows: &[Row<'_>], measure: Measure) -> Option<usize> {
    let of = |row: &Row<'_>| row.spread.as_ref().map(|spread| spread.median);
    let finishers = rows.iter().enumerate().filter(|(_, row)| row.tally.always_completed());
    let medians = finishers.filter_map(|(index, row)| Some((index, of(row)?)));
    let by = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
    if measure.less_is_better() { medians.min_by(by) } else { medians.max_by(by) }.map(|(index, _)| index)
}

fn draw(
    scenario: &Scenario,
    measure: Measure,
    row: &Row<'_>,
    y: f64,
    x: &dyn Fn(f64) -> f64,
    best: bool,
) -> Markup {
    let c = coordinate;
    let dot = |run: &Run, value: f64| {
        let void = if run.counts() { "" } else { ", void" };
        format!("{}, run {}: {}{void}", run.contender, run.repetition + 1, measure.text(scenario, value))
    };
    let gave_up = measure == Measure::TotalTime && row.tally.timed_out > 0;
    let failed = row.spread.is_none();
    html! {
        g class=(if row.contender.ours { "row ours" } else { "row" }) {
            line.lane x1=(c(PLOT.0)) x2=(c(PLOT.1)) y1=(c(y)) y2=(c(y)) {}
            text.name x=(c(PLOT.0 - 10.0)) y=(c(y + 4.5)) text-anchor="end" {
                (shortened(&row.contender.name, NAME_CHARS))
                @if row.contender.name.chars().count() > NAME_CHARS { title { (row.contender.name) } }
            }
            @if let Some(spread) = &row.spread {
                line.range x1=(c(x(spread.min))) x2=(c(x(spread.max))) y1=(c(y)) y2=(c(y)) {}
                line.median x1=(c(x(spread.median))) x2=(c(x(spread.median))) y1=(c(y - 9.0)) y2=(c(y + 9.0)) {}
            }
            @for (run, value) in &row.dots {
                circle class=(if run.counts() { "dot" } else { "dot void" }) cx=(c(x(*value))) cy=(c(y)) r="4" {
                    title { (dot(run, *value)) }
                }
            }
            @if gave_up {
                path.gaveup d=(format!("M{} {}l9 5.5l-9 5.5z", c(x(scenario.limit_ms) - 4.0), c(y - 5.5))) {
                    title { (row.contender.name) ": " (row.tally.timed_out) " given up at the limit, " (measure.text(scenario, scenario.limit_ms)) }
                }
            }
            text class=(if failed { "value failed" } else if best { "value best" } else { "value" }) x=(c(PLOT.1 + 12.0)) y=(c(y + 4.5)) {
                (row.text(scenario, measure))
            }
        }
    }
}
