//! The top of the report: who won, by how much, scenario by scenario.

use maud::{Markup, html};
use novacron_testbed::stats::Spread;

use super::anchor;
use super::standing::{Reading, Standing, against, reading};
use crate::measure::{Measure, Tally};
use crate::record::{Results, Scenario};
use crate::units::{Unit, ratio};

/// What a card shows large, and below it.
struct Card {
    /// Its colour: `good`, `bad`, `level`.
    tone: &'static str,
    figure: String,
    spread: Option<String>,
    sentence: String,
    /// Other measures of the same two contenders.
    rows: Vec<(&'static str, String)>,
}

pub(super) fn section(results: &Results) -> Markup {
    html! {
        section id="summary" aria-labelledby="summary-title" {
            h2 id="summary-title" { "Summary" }
            p.lead { (lead(results)) }
            div.cards {
                @for (index, scenario) in results.scenarios.iter().enumerate() {
                    @let card = card(scenario);
                    article.card.(card.tone) {
                        h3 { a href=(format!("#{}", anchor(index))) { (scenario.name) } }
                        p.note { (scenario.workload) ", " (Unit::Memory.text(scenario.memory_bytes as f64)) "; " (scenario.link) }
                        p.figure { (card.figure) @if let Some(spread) = &card.spread { " " span.range { (spread) } } }
                        p { (card.sentence) }
                        @if !card.rows.is_empty() {
                            dl { @for (name, value) in &card.rows { div { dt { (name) } dd { (value) } } } }
                        }
                        @if let Some((note, bad)) = left_out(scenario) { p.warning.failed[bad] { (note) } }
                    }
                }
            }
            p.note {
                "The gateway is set against the other with the least median time of those that finished every run, repetition by repetition: "
                "the median of the ratios, and the least and the most in parentheses."
            }
        }
    }
}

/// One sentence over all scenarios.
fn lead(results: &Results) -> String {
    let (mut faster, mut slower, mut level, mut alone, mut lost, mut rest) = (0, 0, 0, 0, 0, 0);
    for scenario in &results.scenarios {
        *match Standing::of(scenario) {
            Standing::Measured { ratio, .. } => match reading(&ratio) {
                Reading::Faster => &mut faster,
                Reading::Slower => &mut slower,
                Reading::Level => &mut level,
            },
            Standing::OnlyOurs { .. } => &mut alone,
            Standing::OnlyOthers { .. } => &mut lost,
            Standing::Nobody | Standing::OneSided { .. } => &mut rest,
        } += 1;
    }
    let all = results.scenarios.len();
    let parts: Vec<String> = [
        (faster, "the gateway was faster in every repetition"),
        (alone, "the gateway alone finished"),
        (level, "the runs show no clear difference"),
        (slower, "the gateway was slower in every repetition"),
        (lost, "the gateway did not finish where another did"),
        (rest, "nothing can be compared"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("in {count} {what}"))
    .collect();
    match all {
        0 => "Nothing was measured.".to_owned(),
        1 => format!("One scenario: {}.", parts.join("; ").replacen("in 1 ", "", 1)),
        all => format!("Of {all} scenarios: {}.", parts.join("; ")),
    }
}

fn card(scenario: &Scenario) -> Card {
    let ms = |spread: &Spread| Unit::Ms.text(spread.median);
    let limit = Unit::Ms.text(scenario.limit_ms);
    let plain = |tone, figure: &str, sentence| Card {
        tone,
        figure: figure.to_owned(),
        spread: None,
        sentence,
        rows: Vec::new(),
    };
    match Standing::of(scenario) {
        Standing::Measured { ours, other, ratio: times } => {
            let (ours_name, other_name) = (&ours.contender.name, &other.contender.name);
            let medians = format!("{} against {}", ms(&ours.total), ms(&other.total));
            let (tone, figure, sentence) = match reading(&times) {
                Reading::Faster => (
                    "good",
                    format!("{} faster", ratio(times.median)),
                    format!("{ours_name} than {other_name}, the fastest other: {medians}"),
                ),
                Reading::Slower => (
                    "bad",
                    format!("{} slower", ratio(1.0 / times.median)),
                    format!("{ours_name} than {other_name}, the fastest other: {medians}"),
                ),
                Reading::Level => (
                    "level",
                    "no clear difference".to_owned(),
                    format!("{ours_name} and {other_name}, the fastest other: {medians}"),
                ),
            };
            let shown = if tone == "bad" { inverse(&times) } else { Some(times) };
            let rows = [
                (Measure::WireBytes, "wire bytes"),
                (Measure::GuestPause, "guest-seen pause"),
                (Measure::CpuPerGb, "processor time"),
            ]
            .into_iter()
            .filter_map(|(measure, name)| {
                let spread = against(scenario, other_name, ours_name, measure)?;
                Some((name, needed(&spread)))
            })
            .collect();
            Card { tone, figure, spread: shown.map(|spread| range(&spread)), sentence, rows }
        }
        Standing::OnlyOurs { ours } => plain(
            "good",
            "only the gateway finished",
            format!(
                "{}: {}; no other finished every run within {limit}",
                ours.contender.name,
                ms(&ours.total)
            ),
        ),
        Standing::OnlyOthers { other } => plain(
            "bad",
            "the gateway did not finish",
            format!(
                "{}: {}; the gateway did not finish every run within {limit}",
                other.contender.name,
                ms(&other.total)
            ),
        ),
        Standing::Nobody => plain(
            "level",
            "no winner",
            format!("nobody finished every run that counts within {limit}, or none counts"),
        ),
        Standing::OneSided { fastest: Some(fastest) } => plain(
            "level",
            "not compared",
            format!("{} was the fastest: {}", fastest.contender.name, ms(&fastest.total)),
        ),
        Standing::OneSided { fastest: None } => {
            plain("level", "not compared", "nothing was measured".to_owned())
        }
    }
}

fn range(spread: &Spread) -> String {
    if spread.all.len() == 1 {
        return "(one pair of runs)".to_owned();
    }
    format!("({}..{})", ratio(spread.min), ratio(spread.max))
}

/// The same ratios the other way up.
fn inverse(spread: &Spread) -> Option<Spread> {
    Spread::of(spread.all.iter().map(|one| 1.0 / one))
}

/// What ours needed of something, from ratios of the other's over ours.
fn needed(spread: &Spread) -> String {
    match reading(spread) {
        Reading::Faster => format!("{} less {}", ratio(spread.median), range(spread)),
        Reading::Slower => inverse(spread)
            .map_or_else(String::new, |over| format!("{} more {}", ratio(over.median), range(&over))),
        Reading::Level => format!("no clear difference {}", range(spread)),
    }
}

/// What does not count, so that nobody takes a summary of half the runs for all of them.
/// Bad memory is worse than any of it.
fn left_out(scenario: &Scenario) -> Option<(String, bool)> {
    let mut sum = Tally::default();
    for contender in &scenario.contenders {
        let tally = Tally::of(scenario, &contender.name);
        sum.timed_out += tally.timed_out;
        sum.failed += tally.failed;
        sum.void += tally.void;
        sum.skipped += tally.skipped;
        sum.unverified += tally.unverified;
    }
    let counts = [
        (sum.timed_out, "timed out"),
        (sum.failed, "failed"),
        (sum.void, "void"),
        (sum.skipped, "skipped"),
        (sum.unverified, "with bad guest memory"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let all = scenario.runs.len();
    (!parts.is_empty()).then(|| (format!("Of {all} runs {}", parts.join(", ")), sum.unverified > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_lead_counts_every_scenario_once() {
        assert_eq!(
            lead(&fixture::results()),
            "Of 4 scenarios: in 1 the gateway was faster in every repetition; in 1 the gateway alone finished; in 1 the runs show no clear difference; in 1 the gateway was slower in every repetition."
        );
        let empty = Results { scenarios: Vec::new(), ..fixture::results() };
        assert_eq!(lead(&empty), "Nothing was measured.");
    }

    #[test]
    fn a_slower_one_is_said_to_be_slower() {
        let results = fixture::results();
        let tones: Vec<&str> = results.scenarios.iter().map(|scenario| card(scenario).tone).collect();
        assert_eq!(tones, ["good", "good", "level", "bad"]);
        let slow = card(&results.scenarios[3]);
        assert!(slow.figure.ends_with("x slower") && !slow.figure.starts_with("0."), "{}", slow.figure);
    }
}
