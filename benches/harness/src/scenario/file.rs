//! A scenario's file as it is written, and the checks that make a [`Scenario`] of it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::link::LinkPart;
use super::{Link, Load, Refusal, Scenario, Short};
use crate::contender::{Contender, Entry};
use crate::limits::{MEMORY_MIB_MAX, REPETITIONS_MAX, TIME_LIMIT_S_MAX};
use crate::workload;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    why: Spanned<String>,
    contenders: Spanned<Vec<Spanned<Entry>>>,
    repetitions: Spanned<u32>,
    time_limit_s: Spanned<u64>,
    congestion_control: Option<Spanned<String>>,
    max_bandwidth_mb: Option<Spanned<u64>>,
    #[serde(default = "downtime_limit")]
    downtime_limit_ms: Spanned<u64>,
    guest: Option<Spanned<GuestPart>>,
    stream: Option<Spanned<StreamPart>>,
    link: Option<LinkPart>,
    short: Option<ShortPart>,
}

/// QEMU's own default.
fn downtime_limit() -> Spanned<u64> {
    Spanned::new(0..0, 300)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortPart {
    contenders: Option<Vec<Spanned<String>>>,
    repetitions: Spanned<u32>,
}

/// A guest, as a scenario says it. What is absent is the workload's own default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestPart {
    /// What it does: a name of [`novacron_testbed::Workload`].
    pub workload: String,
    /// Its memory, MiB.
    pub memory_mib: Option<u32>,
    /// How much work each second: MB (10^6 bytes) for `dirty` and `random`, else what the workload counts.
    pub rate: Option<f64>,
    /// Memory that is dirtied over and over, MiB; all values that redis holds, or rows of the database.
    pub work_mib: Option<u32>,
    /// Shares of zero, text and random pages.
    pub mix: Option<[u32; 3]>,
    /// Write all other memory with pages that are not zero.
    #[serde(default)]
    pub fill: bool,
}

/// A stream, as a scenario says it: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamPart {
    /// The migration stream of this guest, captured once before the runs.
    pub of: Option<GuestPart>,
    /// A file: what `novacron-bench capture` wrote, or any other.
    pub file: Option<PathBuf>,
}

/// Where a mistake stands, and what it is.
struct Mistake(Range<usize>, String);

fn mistake<T>(span: Range<usize>, what: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake(span, what.into()))
}

pub(super) fn parse(text: &str, path: &Path) -> Result<Scenario, Refusal> {
    let read = toml::from_str::<File>(text).map_err(|error| {
        // One that misses something is about all of the file.
        Mistake(error.span().unwrap_or(0..0), error.message().trim().to_owned())
    });
    read.and_then(|file| check(file, path))
        .map_err(|Mistake(span, what)| Refusal::at(path, text, &span, what))
}

fn check(file: File, path: &Path) -> Result<Scenario, Mistake> {
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if file.why.get_ref().trim().is_empty() {
        return mistake(
            file.why.span(),
            "`why` is empty, expected a sentence on what the scenario is to show",
        );
    }
    let load = match (file.guest, file.stream) {
        (Some(guest), None) => Load::Guest(check_guest(&guest.span(), guest.into_inner())?),
        (None, Some(stream)) => Load::Stream(check_stream(stream, path)?),
        (None, None) => return mistake(0..0, "nothing is moved, expected a table [guest] or [stream]"),
        (Some(_), Some(stream)) => {
            return mistake(stream.span(), "[guest] and [stream] stand in one file, expected one of them");
        }
    };
    let contenders = check_contenders(&file.contenders, &load, file.link.is_some())?;
    let short = file.short.map(|short| check_short(short, &contenders)).transpose()?;
    if let Some(control) = &file.congestion_control {
        let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if control.get_ref().is_empty() || !control.get_ref().bytes().all(sound) {
            let what = format!(
                "congestion control {:?} is no name, expected one as \"cubic\" or \"bbr\"",
                control.get_ref()
            );
            return mistake(control.span(), what);
        }
        if file.link.is_none() {
            return mistake(
                control.span(),
                "`congestion_control` is set for the lab's sites alone, expected a table [link] with it",
            );
        }
    }
    if let Some(limit) = &file.max_bandwidth_mb
        && !(1..=1_000_000).contains(limit.get_ref())
    {
        return mistake(limit.span(), "`max_bandwidth_mb` is MB a second, expected 1 to 1000000");
    }
    if !(1..=2_000_000).contains(file.downtime_limit_ms.get_ref()) {
        return mistake(file.downtime_limit_ms.span(), "`downtime_limit_ms`: expected 1 to 2000000");
    }
    if !(1..=TIME_LIMIT_S_MAX).contains(file.time_limit_s.get_ref()) {
        return mistake(
            file.time_limit_s.span(),
            format!("`time_limit_s`: expected 1 to {TIME_LIMIT_S_MAX}"),
        );
    }
    Ok(Scenario {
        name,
        why: file.why.into_inner().trim().to_owned(),
        load,
        link: file.link.as_ref().map(Link::from),
        contenders,
        repetitions: check_repetitions(&file.repetitions)?,
        time_limit: Duration::from_secs(file.time_limit_s.into_inner()),
        congestion_control: file.congestion_control.map(Spanned::into_inner),
        max_bandwidth: file.max_bandwidth_mb.map(|mb| mb.into_inner() * 1_000_000),
        downtime_limit: Duration::from_millis(file.downtime_limit_ms.into_inner()),
        short,
    })
}

fn check_repetitions(of: &Spanned<u32>) -> Result<u32, Mistake> {
    match *of.get_ref() {
        count if (1..=REPETITIONS_MAX).contains(&count) => Ok(count),
        count => mistake(of.span(), format!("`repetitions` is {count}, expected 1 to {REPETITIONS_MAX}")),
    }
}

fn check_guest(span: &Range<usize>, guest: GuestPart) -> Result<GuestPart, Mistake> {
    if let Some(mib) = guest.memory_mib
        && !(64..=MEMORY_MIB_MAX).contains(&mib)
    {
        let what = format!("`memory_mib` is {mib}, expected 64 to {MEMORY_MIB_MAX}");
        return mistake(span.clone(), what);
    }
    match workload::check(&guest) {
        Ok(()) => Ok(guest),
        Err(what) => mistake(span.clone(), what),
    }
}

fn check_stream(stream: Spanned<StreamPart>, path: &Path) -> Result<StreamPart, Mistake> {
    let span = stream.span();
    let mut stream = stream.into_inner();
    match (stream.of.take(), stream.file.take()) {
        (Some(guest), None) => Ok(StreamPart { of: Some(check_guest(&span, guest)?), file: None }),
        // A file's name is seen from where it is written.
        (None, Some(file)) => {
            Ok(StreamPart { of: None, file: Some(path.parent().unwrap_or(Path::new("")).join(file)) })
        }
        _ => mistake(span, "[stream]: expected either `of`, a guest, or `file`"),
    }
}

fn check_contenders(
    entries: &Spanned<Vec<Spanned<Entry>>>,
    load: &Load,
    has_link: bool,
) -> Result<Vec<Contender>, Mistake> {
    let mut contenders: Vec<Contender> = Vec::new();
    for entry in entries.get_ref() {
        let contender = Contender::of(entry.get_ref()).or_else(|what| mistake(entry.span(), what))?;
        let stream = matches!(load, Load::Stream(_));
        if let Err(what) = contender.can_carry(stream, has_link) {
            return mistake(entry.span(), what);
        }
        if contenders.iter().any(|other| other.name == contender.name) {
            let what = format!("contender {:?} stands here twice: give one another `name`", contender.name);
            return mistake(entry.span(), what);
        }
        contenders.push(contender);
    }
    if contenders.is_empty() {
        return mistake(entries.span(), "`contenders` is empty, expected at least one");
    }
    Ok(contenders)
}

fn check_short(short: ShortPart, all: &[Contender]) -> Result<Short, Mistake> {
    let repetitions = check_repetitions(&short.repetitions)?;
    let Some(names) = short.contenders else { return Ok(Short { contenders: all.to_vec(), repetitions }) };
    let mut contenders = Vec::new();
    for name in names {
        let Some(found) = all.iter().find(|contender| contender.name == *name.get_ref()) else {
            let known: Vec<_> = all.iter().map(|contender| contender.name.as_str()).collect();
            let what = format!(
                "contender {:?} is not among the scenario's, expected of: {}",
                name.get_ref(),
                known.join(", ")
            );
            return mistake(name.span(), what);
        };
        contenders.push(found.clone());
    }
    Ok(Short { contenders, repetitions })
}
