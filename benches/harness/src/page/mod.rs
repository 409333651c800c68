//! The report: one HTML page that needs nothing but itself. No script runs, and nothing is fetched: the page forbids both to
//! whoever opens it. Texts come from files and are escaped where they are put in.
//!
//! ```text
//! standing    who won a scenario, by how much        axis        where a value stands
//! summary     the top of the page                    strip       a dot each run, a row each contender
//! tables      the numbers behind the plots           throughput  bytes over time
//! ```

mod axis;
mod standing;
mod strip;
mod summary;
mod tables;
#[cfg(test)]
mod tests;
mod throughput;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::measure::Measure;
use crate::record::{Results, Scenario};
use crate::units::{Unit, significant};

const STYLE: &str = include_str!("style.css");

/// Elements that HTML never closes are written as XML wants them, which HTML reads as well: so the whole page is either.
/// No script, no image, no font, no connection: only the styles that stand in the page.
const HEAD: &str = concat!(
    r#"<meta charset="utf-8"/>"#,
    r#"<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:"/>"#,
    r#"<meta name="viewport" content="width=device-width, initial-scale=1"/>"#,
    r#"<meta name="color-scheme" content="light dark"/>"#,
    r#"<link rel="icon" href="data:,"/>"#,
);

/// Writes the report.
///
/// # Errors
/// When the file cannot be written. Results are not touched.
pub fn write(results: &Results, path: &Path) -> Result<()> {
    fs::write(path, render(results)).with_context(|| {
        format!("writing the report to {}; the results themselves are not affected", path.display())
    })
}

/// The whole page.
pub fn render(results: &Results) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (PreEscaped(HEAD))
                title { "Migration benchmark, " (results.started_at) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#summary" { "Skip to the summary" }
                (header(results))
                main {
                    (summary::section(results))
                    @for (index, scenario) in results.scenarios.iter().enumerate() { (section(index, scenario)) }
                    (host(results))
                    (method())
                }
            }
        }
    };
    // Escaped text may still hold what no markup may: control characters from a program's last words.
    page.into_string().chars().map(|c| if allowed(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// What XML calls a character.
fn allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && !('\u{7f}'..='\u{9f}').contains(&c)
}

/// Where a scenario's section is. A name may be anything; a number is always an identifier.
fn anchor(index: usize) -> String {
    format!("scenario-{}", index + 1)
}

/// A length in a drawing. A tenth of a pixel is fine enough.
fn coordinate(length: f64) -> String {
    if length.is_finite() { format!("{length:.1}") } else { "0".to_owned() }
}

/// So many characters at most.
fn shortened(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    text.chars().take(chars.saturating_sub(1)).chain(['\u{2026}']).collect()
}

/// An RFC 3339 time for people.
fn moment(time: &str) -> String {
    time.replacen('T', " ", 1).replacen('Z', " UTC", 1)
}

fn header(results: &Results) -> Markup {
    let runs: usize = results.scenarios.iter().map(|scenario| scenario.runs.len()).sum();
    let host = &results.host;
    html! {
        header {
            p.product { "NovaCron Gateway" }
            h1 { "Migration benchmark" }
            p {
                (results.scenarios.len()) @if results.scenarios.len() == 1 { " scenario, " } @else { " scenarios, " }
                (runs) @if runs == 1 { " run" } @else { " runs" } ", begun "
                time datetime=(results.started_at) { (moment(&results.started_at)) }
                @if let Some(ended) = &results.ended_at { ", ended " time datetime=(ended) { (moment(ended)) } }
            }
            p.note {
                (host.cpu) ", " (host.cpus) @if host.cpus == 1 { " processor, " } @else { " processors, " } "Linux " (host.kernel)
                @if let Some(commit) = &host.commit { ", commit " code { (shortened(commit, 13)) } @if host.changed { " with changes" } }
            }
            @if results.ended_at.is_none() {
                p.warning { "The measurement was interrupted: what is missing here was not run." }
            }
            nav aria-label="Contents" {
                ul {
                    li { a href="#summary" { "Summary" } }
                    @for (index, scenario) in results.scenarios.iter().enumerate() {
                        li { a href=(format!("#{}", anchor(index))) { (scenario.name) } }
                    }
                    li { a href="#host" { "Where" } }
                    li { a href="#method" { "How" } }
                }
            }
        }
    }
}

fn section(index: usize, scenario: &Scenario) -> Markup {
    let id = anchor(index);
    let plots = Measure::DRAWN.into_iter().enumerate();
    let plots: Vec<Markup> =
        plots.filter_map(|(n, measure)| strip::plot(&format!("{id}-plot-{n}"), scenario, measure)).collect();
    let rounds = scenario.runs.iter().map(|run| u64::from(run.repetition) + 1).max().unwrap_or(0);
    html! {
        section.scenario id=(id) aria-labelledby=(format!("{id}-title")) {
            h2 id=(format!("{id}-title")) { (scenario.name) }
            p.lead { (scenario.why) }
            dl.facts {
                div { dt { "Workload" } dd { (scenario.workload) } }
                div { dt { "Guest's memory" } dd { (Unit::Memory.text(scenario.memory_bytes as f64)) } }
                div { dt { "Link" } dd { (scenario.link) } }
                @if let Some(rtt) = scenario.rtt_ms { div { dt { "Round trip" } dd { (Unit::Ms.text(rtt)) } } }
                @if let Some(rate) = scenario.rate_bytes_per_s { div { dt { "Rate" } dd { (Unit::BitRate.text(rate)) } } }
                div { dt { "Limit" } dd { (Unit::Ms.text(scenario.limit_ms)) } }
                div { dt { "Rounds" } dd { (rounds) } }
            }
            @if scenario.runs.is_empty() { p.warning { "No run was made." } }
            @if !plots.is_empty() {
                p.legend aria-hidden="true" {
                    span { svg viewBox="0 0 12 12" { circle.dot cx="6" cy="6" r="4" {} } " a run" }
                    span { svg viewBox="0 0 12 12" { line.median x1="6" x2="6" y1="0" y2="12" {} } " median" }
                    span { svg viewBox="0 0 22 12" { line.range x1="1" x2="21" y1="6" y2="6" {} } " least to most" }
                    span { svg viewBox="0 0 12 12" { circle.dot.void cx="6" cy="6" r="4" {} } " a void run: shown, not counted" }
                    span { svg viewBox="0 0 12 12" { path.gaveup d="M2 0.5l9 5.5l-9 5.5z" {} } " given up at the limit" }
                }
                div.plots { @for plot in plots { (plot) } }
            }
            @if let Some(plot) = throughput::plot(&format!("{id}-throughput"), scenario) { (plot) }
            (tables::results(scenario))
            @if let Some(left_out) = tables::left_out(scenario) { (left_out) }
            details { summary { "Every run" } (tables::runs(scenario)) }
            details { summary { "Settings of each contender" } (tables::settings(scenario)) }
            details { summary { "Processor time and memory of each process" } (tables::processes(scenario)) }
        }
    }
}

fn host(results: &Results) -> Markup {
    let host = &results.host;
    html! {
        section id="host" aria-labelledby="host-title" {
            h2 id="host-title" { "Where it was measured" }
            dl.facts {
                div { dt { "Processor" } dd { (host.cpu) } }
                div { dt { "Processors" } dd { (host.cpus) } }
                div { dt { "Memory" } dd { (Unit::Memory.text(host.memory_bytes as f64)) } }
                div { dt { "Kernel" } dd { (host.kernel) } }
                div { dt { "Load average at the start" } dd { (significant(host.load_average)) } }
                div {
                    dt { "Commit" }
                    dd { @match &host.commit {
                        Some(commit) => { code { (commit) } @if host.changed { ", and changes that it does not have" } }
                        None => { "unknown" }
                    } }
                }
            }
            (tables::scrolled("Versions", html! {
                table {
                    caption { "Programs that took part" }
                    thead { tr { th scope="col" { "Program" } th scope="col" { "Version" } } }
                    tbody { @for (program, version) in &host.versions {
                        tr { th scope="row" { (program) } td { (version) } }
                    } }
                }
            }))
        }
    }
}

fn method() -> Markup {
    html! {
        section id="method" aria-labelledby="method-title" {
            h2 id="method-title" { "How to read it" }
            p { "Runs of the contenders take turns, A B C A B C, so that what slows the machine for a while slows all of them. "
                "A run counts when it completed and is not void. It is void when the guest was kept from its work outside the pause, or when the lab handed frames on too late: "
                "then it says nothing of its contender. One that was not done within the scenario's limit was given up, and has no total time." }
            dl.meanings { @for measure in Measure::ALL { div { dt { (measure.title()) } dd { (measure.meaning()) } } } }
        }
    }
}
