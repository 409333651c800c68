//! `novacron-bench compare`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::compare;
use crate::record::{FORMAT, Results};

/// Say what got better or worse between two results files.
///
/// Each measure of each contender: median and range of both, the ratio of new over old with its interval, and whether these runs
/// can show a difference at all. What else differs between both (host, versions, link, workload, settings) is a warning.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  novacron-bench compare before.json after.json
  novacron-bench compare --json before.json after.json | jq '.verdicts'
  novacron-bench compare --fail-on-worse main.json branch.json   # exit code 1 when something got worse")]
pub struct Arguments {
    /// Results of before.
    old: PathBuf,
    /// Results of now.
    new: PathBuf,
    /// Print the comparison as JSON.
    #[arg(long)]
    json: bool,
    /// End with code 1 when anything got worse.
    #[arg(long)]
    fail_on_worse: bool,
}

/// Reads, compares, prints.
///
/// # Errors
/// When a file cannot be read or is no results file of this format, or the table cannot be printed. Files are only read.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let comparison = compare(&read(&arguments.old)?, &read(&arguments.new)?);
    let text = if arguments.json {
        serde_json::to_string_pretty(&comparison).context("writing the comparison as JSON")? + "\n"
    } else {
        comparison.to_string()
    };
    io::stdout().lock().write_all(text.as_bytes()).context("printing the comparison")?;
    let failed = arguments.fail_on_worse && comparison.verdicts.worse > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Reads a results file.
///
/// # Errors
/// When it cannot be read, is none, or is of a format that a newer program wrote.
pub(super) fn read(path: &Path) -> Result<Results> {
    let what = || format!("{} is no results file of novacron-bench", path.display());
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let value: serde_json::Value = serde_json::from_str(&text).with_context(what)?;
    let format = value.get("format").and_then(serde_json::Value::as_u64).with_context(what)?;
    ensure!(
        format == u64::from(FORMAT),
        "{} has format {format}, this program reads format {FORMAT}: use the novacron-bench that wrote it, or measure again",
        path.display()
    );
    serde_json::from_value(value).with_context(what)
}
