//! What crossed the link over the time of one run of each contender.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::Axis;
use super::{coordinate, shortened};
use crate::measure::runs_of;
use crate::record::{Contender, Outcome, Run, Scenario};
use crate::units::Unit;

const WIDTH: f64 = 1120.0;
const ROW: f64 = 64.0;
const GAP: f64 = 12.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 30.0;
const PLOT: (f64, f64) = (152.0, 925.0);
const NAME_CHARS: usize = 21;
/// Points that a curve is drawn with; a longer run is summed up to so many.
const POINTS_MAX: usize = 600;

/// A stretch of time and the rate during it, bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    from_ms: f64,
    to_ms: f64,
    rate: f64,
}

/// The run that stands for its contender: the one in the middle by its total time, of those that count; where none does, the
/// first that was given up.
fn representative<'a>(scenario: &'a Scenario, contender: &'a str) -> Option<&'a Run> {
    let sampled = || runs_of(scenario, contender).filter(|run| run.throughput.len() > 1);
    let mut counted: Vec<&Run> = sampled().filter(|run| run.counts()).collect();
    counted.sort_by(|a, b| a.total_ms.unwrap_or(f64::MAX).total_cmp(&b.total_ms.unwrap_or(f64::MAX)));
    let middle = counted.get(counted.len().saturating_sub(1) / 2).copied();
    middle.or_else(|| sampled().find(|run| !matches!(run.outcome, Outcome::Skipped { .. })))
}

/// The samples as rates, in time's order, at most [`POINTS_MAX`] of them.
fn stretches(run: &Run) -> Vec<Stretch> {
    let usable = |at: f64| at.is_finite() && at >= 0.0;
    let every = run.throughput.len().div_ceil(POINTS_MAX).max(1);
    let (mut all, mut from_ms) = (Vec::new(), 0.0);
    for together in run.throughput.chunks(every) {
        let bytes: f64 = together.iter().map(|sample| sample.bytes as f64).sum();
        let Some(to_ms) = together.last().map(|sample| sample.at_ms).filter(|at| usable(*at)) else {
            continue;
        };
        if to_ms > from_ms {
            all.push(Stretch { from_ms, to_ms, rate: bytes / ((to_ms - from_ms) / 1e3) });
            from_ms = to_ms;
        }
    }
    all
}

/// One panel a contender, the same axes for all; `None` where no run was sampled.
pub(super) fn plot(id: &str, scenario: &Scenario) -> Option<Markup> {
    let panels: Vec<(&Contender, &Run, Vec<Stretch>)> = scenario
        .contenders
        .iter()
        .filter_map(|contender| {
            let run = representative(scenario, &contender.name)?;
            let stretches = stretches(run);
            (!stretches.is_empty()).then_some((contender, run, stretches))
        })
        .collect();
    let end = |stretches: &[Stretch]| stretches.last().map_or(0.0, |last| last.to_ms);
    let completed = panels.iter().filter(|(_, run, _)| run.counts()).map(|(_, _, all)| end(all));
    // One that was given up does not squeeze those that finished: it goes on beyond the edge.
    let longest = completed
        .reduce(f64::max)
        .map(|most| most * 1.25)
        .or_else(|| panels.iter().map(|(_, _, all)| end(all)).reduce(f64::max))?;
    let time = Axis::linear(longest.min(panels.iter().map(|(_, _, all)| end(all)).fold(0.0, f64::max)));
    let last_ms = time.ticks().last().copied().unwrap_or(longest);
    let rates = panels.iter().flat_map(|(_, _, all)| all.iter().map(|stretch| stretch.rate));
    let highest = rates.chain(scenario.rate_bytes_per_s).filter(|r| r.is_finite()).fold(0.0, f64::max);
    // In bits, so that the axis ends at a round number of them.
    let rate = Axis::linear(highest.min(1e30) * 8.0);
    let most = rate.ticks().last().copied().unwrap_or(1.0) / 8.0;

    let x = |ms: f64| PLOT.0 + time.place(ms) * (PLOT.1 - PLOT.0);
    let bottom = TOP + (ROW + GAP) * panels.len() as f64 - GAP;
    let height = bottom + BOTTOM;
    let c = coordinate;
    let (title, description) = (format!("{id}-title"), format!("{id}-description"));
    Some(html! {
        figure.wide {
            figcaption {
                b { "Throughput towards the destination" }
                span.note { "the run in the middle of each contender, by total time; each panel reaches up to " (Unit::BitRate.tick(most))
                    @if let Some(limit) = scenario.rate_bytes_per_s { "; dashed: the link's " (Unit::BitRate.tick(limit)) } }
            }
            div.scroll role="region" tabindex="0" aria-label="Throughput over time" {
                svg role="img" viewBox=(format!("0 0 {WIDTH} {height}")) aria-labelledby=(format!("{title} {description}")) {
                    title id=(title) { "Throughput over time in " (scenario.name) }
                    desc id=(description) {
                        @for (contender, run, all) in &panels { (sentence(contender, run, all)) " " }
                    }
                    @for tick in time.ticks() {
                        line.grid x1=(c(x(*tick))) x2=(c(x(*tick))) y1=(c(TOP)) y2=(c(bottom)) {}
                        text.tick x=(c(x(*tick))) y=(c(bottom + 18.0)) text-anchor="middle" { (Unit::Ms.tick(*tick)) }
                    }
                    @for (index, (contender, run, all)) in panels.iter().enumerate() {
                        @let base = TOP + (ROW + GAP) * index as f64 + ROW;
                        @let y = |value: f64| base - rate.place(value * 8.0) * ROW;
                        @let beyond = end(all) > last_ms * 1.001;
                        g class=(if contender.ours { "row ours" } else { "row" }) {
                            @if let Some(limit) = scenario.rate_bytes_per_s.filter(|limit| limit.is_finite()) {
                                line.limit x1=(c(PLOT.0)) x2=(c(PLOT.1)) y1=(c(y(limit))) y2=(c(y(limit))) {}
                            }
                            path.area d=(outline(all, last_ms, base, &x, &y)) {}
                            line.base x1=(c(PLOT.0)) x2=(c(PLOT.1)) y1=(c(base)) y2=(c(base)) {}
                            text.name x=(c(PLOT.0 - 10.0)) y=(c(base - ROW / 2.0 + 4.5)) text-anchor="end" {
                                (shortened(&contender.name, NAME_CHARS))
                            }
                            text.value x=(c(PLOT.1 + 12.0)) y=(c(base - ROW / 2.0 - 2.0)) { "mean " (Unit::BitRate.text(mean(all))) }
                            text class=(if run.counts() { "value small" } else { "value small failed" }) x=(c(PLOT.1 + 12.0)) y=(c(base - ROW / 2.0 + 15.0)) {
                                (ending(run, all))
                                @if beyond { ", cut off here" }
                            }
                        }
                    }
                }
            }
        }
    })
}

/// Bytes a second over all of it.
fn mean(all: &[Stretch]) -> f64 {
    let bytes: f64 = all.iter().map(|one| one.rate * (one.to_ms - one.from_ms) / 1e3).sum();
    all.last().map_or(0.0, |last| bytes / (last.to_ms / 1e3))
}

fn ending(run: &Run, all: &[Stretch]) -> String {
    let time = Unit::Ms.text(all.last().map_or(0.0, |last| last.to_ms));
    match run.outcome {
        Outcome::Completed => format!("over {time}"),
        Outcome::TimedOut => format!("given up, {time}"),
        Outcome::Failed { .. } => format!("failed, {time}"),
        Outcome::Void { .. } => format!("void, {time}"),
        Outcome::Skipped { .. } => "skipped".to_owned(),
    }
}

fn sentence(contender: &Contender, run: &Run, all: &[Stretch]) -> String {
    let most = all.iter().map(|one| one.rate).fold(0.0, f64::max);
    format!(
        "{}: mean {}, at most {}, {}.",
        contender.name,
        Unit::BitRate.text(mean(all)),
        Unit::BitRate.text(most),
        ending(run, all)
    )
}

/// The steps of a curve and back along its base, until the axis ends.
fn outline(
    all: &[Stretch],
    last_ms: f64,
    base: f64,
    x: &dyn Fn(f64) -> f64,
    y: &dyn Fn(f64) -> f64,
) -> String {
    let mut path = format!("M{} {}", coordinate(x(0.0)), coordinate(base));
    let mut end = 0.0;
    for one in all.iter().take_while(|one| one.from_ms < last_ms) {
        // Writing to a string cannot fail.
        let _ = write!(path, "V{}H{}", coordinate(y(one.rate)), coordinate(x(one.to_ms)));
        end = one.to_ms;
    }
    let _ = write!(path, "V{}H{}z", coordinate(base), coordinate(x(end.min(0.0))));
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::record::Sample;

    #[test]
    fn samples_become_rates_of_their_time() {
        let mut run = fixture::run("tcp", 0, 3000.0);
        run.throughput = [(500.0, 1_000_000), (500.0, 7), (1000.0, 500_000), (f64::NAN, 1)]
            .map(|(at_ms, bytes)| Sample { at_ms, bytes })
            .to_vec();
        let rates: Vec<f64> = stretches(&run).iter().map(|one| one.rate).collect();
        assert_eq!(rates, [2e6, 1e6]);
        assert_eq!(mean(&stretches(&run)), 1.5e6);
    }

    #[test]
    fn a_long_run_is_summed_up_without_losing_bytes() {
        let mut run = fixture::run("tcp", 0, 3000.0);
        run.throughput = (1..=5000).map(|i| Sample { at_ms: f64::from(i) * 10.0, bytes: 1000 }).collect();
        let all = stretches(&run);
        assert!(all.len() <= POINTS_MAX);
        assert!((mean(&all) - 100_000.0).abs() < 1e-6);
    }

    #[test]
    fn the_middle_run_stands_for_its_contender() {
        let mut scenario = fixture::scenario("s");
        scenario.runs =
            [(0, 900.0), (1, 100.0), (2, 500.0)].map(|(i, ms)| fixture::run("tcp", i, ms)).to_vec();
        assert_eq!(representative(&scenario, "tcp").unwrap().repetition, 2);
        scenario.runs[2].outcome = Outcome::TimedOut;
        assert_eq!(representative(&scenario, "tcp").unwrap().repetition, 1);
        assert!(representative(&scenario, "other").is_none());
    }
}
