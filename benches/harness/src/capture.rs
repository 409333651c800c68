//! `novacron-bench capture`: a guest's migration stream in a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use novacron_testbed::Workload;
use novacron_testbed::capture::{CaptureOptions, Captured, Step, capture};

use crate::progress::Progress;
use crate::scenario::GuestPart;
use crate::workload;

/// Keep a guest's migration stream in a file, to be replayed to gateways and compressors
///
/// The file is the guest's memory: nobody but its owner may read it, and it never takes the place of another. Beside it,
/// FILE.json says what it is.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  novacron-bench capture redis.stream --workload redis
  novacron-bench capture slow.stream --workload dirty --rate 5 --max-bandwidth 10")]
pub struct Arguments {
    /// Where the stream goes; it must not exist
    file: PathBuf,
    /// What the guest does: idle, dirty, redis, database, compile, disk, random
    #[arg(long, default_value = "redis")]
    workload: Workload,
    /// How much of it each second, in the workload's own unit [default: the workload's own]
    #[arg(long)]
    rate: Option<f64>,
    /// The guest's memory, MiB [default: what the workload asks for]
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// How long the guest works before it is moved, s
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    warm_up: u64,
    /// What QEMU may send, MB a second: the slower, the more passes over the memory
    #[arg(long, value_name = "MB/S", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_bandwidth: u64,
    /// The pause that QEMU aims for, ms: the shorter, the more passes
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=2_000_000))]
    downtime_limit: u64,
    /// When to give it up, s
    #[arg(long, value_name = "S", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
    time_limit: u64,
    /// Print what was captured as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The file while it is not whole; `None`: it is somebody's already, and is not touched.
    pub fn partial(&self) -> Option<PathBuf> {
        (!self.file.exists()).then(|| self.file.clone())
    }
}

/// Captures and tells what.
///
/// # Errors
/// When the guest does not boot or move, or the file exists; then nothing was captured.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let guest = GuestPart {
        workload: arguments.workload.to_string(),
        memory_mib: arguments.memory,
        rate: arguments.rate,
        work_mib: None,
        mix: None,
        fill: false,
    };
    workload::check(&guest).map_err(anyhow::Error::msg)?;
    let usual = options(&guest)?;
    let options = CaptureOptions {
        warm_up: Duration::from_secs(arguments.warm_up),
        max_bandwidth: Some(arguments.max_bandwidth * 1_000_000),
        downtime_limit: Duration::from_millis(arguments.downtime_limit),
        time_limit: Duration::from_secs(arguments.time_limit),
        ..usual
    };
    let progress = Progress::new(1);
    progress.run(&format!("capture {}", arguments.workload));
    let captured = tell(&options, &arguments.file, &progress)?;
    progress.done(&format!("{:.1} MB in {} passes", captured.bytes as f64 / 1e6, captured.passes));
    progress.finish();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&captured).context("writing the notes as JSON")?);
    }
    Ok(ExitCode::SUCCESS)
}

/// A scenario's guest into a file, as fast as a capture goes unless told otherwise.
///
/// # Errors
/// Those of [`capture`].
pub(crate) fn to_file(guest: &GuestPart, file: &Path, progress: &Progress) -> Result<Captured> {
    tell(&options(guest)?, file, progress)
}

fn options(guest: &GuestPart) -> Result<CaptureOptions> {
    let machine = workload::options(guest)?;
    Ok(CaptureOptions { memory_mib: Some(machine.memory_mib), ..CaptureOptions::of(machine.guest) })
}

fn tell(options: &CaptureOptions, file: &Path, progress: &Progress) -> Result<Captured> {
    let captured = capture(options, file, |step| match step {
        Step::Boots => progress.phase("booting a guest"),
        Step::Works => progress.phase("letting it work"),
        Step::Moves(bytes, _) => {
            progress.moving("capturing its stream", bytes);
        }
        Step::Verifies => progress.phase("verifying"),
    });
    captured.with_context(|| format!("capturing a migration stream into {}", file.display()))
}
