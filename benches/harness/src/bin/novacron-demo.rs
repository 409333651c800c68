//! `make demo`: migrates a running guest through two gateways over a link of the lab, says what came of it, and sets QEMU's own
//! ways beside it.
//!
//! `novacron-demo DIRECTORY` writes `report.json` there and, if anything failed, the logs of all processes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use novacron_bench::{demo, interrupt};
use novacron_testbed::Scratch;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [directory] = &arguments[..] else { bail!("usage: novacron-demo DIRECTORY") };
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let report_path = directory.join("report.json");
    // A report of an earlier run must not stand for this one.
    if report_path.exists() {
        fs::remove_file(&report_path).with_context(|| format!("removing {}", report_path.display()))?;
    }

    interrupt::clean_up_when_interrupted("there is no report".to_owned(), None)?;
    let began = Instant::now();
    let scratch = Scratch::new()?;
    let step = |text: &str| eprintln!("[{:5.1} s] {text}", began.elapsed().as_secs_f32());
    let result = demo::run(&scratch, step).and_then(|report| {
        demo::write(&report, &report_path)?;
        println!("\n{}", report.table());
        println!("{}", report.beside());
        println!("  {}", report_path.display());
        report.check()
    });
    if result.is_err() {
        let kept = keep_logs(&scratch, directory)?;
        eprintln!("{kept} logs of this run are in {}", directory.display());
    }
    result
}

/// Copies logs and the guest's console, and returns how many there were.
fn keep_logs(scratch: &Scratch, directory: &Path) -> Result<usize> {
    let mut kept = 0;
    for entry in fs::read_dir(scratch.path()).context("looking for logs")? {
        let path = entry.context("looking for logs")?.path();
        let of_interest = path.extension().is_some_and(|suffix| suffix == "log" || suffix == "console");
        if let (true, Some(name)) = (of_interest, path.file_name()) {
            fs::copy(&path, directory.join(name)).with_context(|| format!("keeping {}", path.display()))?;
            kept += 1;
        }
    }
    Ok(kept)
}
