//! What QEMU does alone: the figures that a migration through gateways is compared with.
//!
//! `novacron-direct [--memory MIB] [--work MIB] [--rate MB] [--runs N] [--unix|--tcp|--multifd N]` boots a guest with
//! no zero page for each run, migrates it from QEMU to QEMU, lets it verify itself and prints a line.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use novacron_testbed::{Migration, Qemu, QemuOptions, Scratch};

struct Arguments {
    memory_mib: u32,
    work_mib: u32,
    rate_mb: u32,
    runs: u32,
    over: Over,
}

enum Over {
    Unix,
    Tcp,
    Multifd(u8),
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novacron-direct: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments { memory_mib: 512, work_mib: 64, rate_mb: 20, runs: 3, over: Over::Tcp };
    while let Some(word) = words.next() {
        let mut number = || -> Result<u32> {
            let value = words.next().with_context(|| format!("{word} needs a number"))?;
            value.parse().with_context(|| format!("{word} {value}: not a number"))
        };
        match word.as_str() {
            "--memory" => arguments.memory_mib = number()?,
            "--work" => arguments.work_mib = number()?,
            "--rate" => arguments.rate_mb = number()?,
            "--runs" => arguments.runs = number()?,
            "--unix" => arguments.over = Over::Unix,
            "--tcp" => arguments.over = Over::Tcp,
            "--multifd" => {
                arguments.over = Over::Multifd(u8::try_from(number()?).context("--multifd: too many")?)
            }
            _ => bail!("{word} is not known; see the head of the program's source for what is"),
        }
    }
    ensure!(arguments.runs > 0, "--runs 0 measures nothing");
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<()> {
    let options = QemuOptions::filled(arguments.memory_mib, arguments.work_mib, arguments.rate_mb);
    let (mut totals, mut pauses) = (Vec::new(), Vec::new());
    for run in 1..=arguments.runs {
        let scratch = Scratch::new()?;
        let booting = Instant::now();
        let mut source = Qemu::source(&scratch, "source", &options)?;
        let mut destination = Qemu::destination(&scratch, "destination", &options)?;
        source.guest().wait_ready()?;
        let boot = booting.elapsed();
        let migration = match arguments.over {
            Over::Unix => Migration::direct_unix(&scratch),
            Over::Tcp => Migration::direct_tcp()?,
            Over::Multifd(count) => Migration { multifd_channels: Some(count), ..Migration::direct_tcp()? },
        };
        let report = migration.run(&mut source, &mut destination)?;
        let verifying = Instant::now();
        destination.guest().must_be_intact()?;
        println!(
            "{run}: ready in {:.1} s; {report}; verified in {:.1} s",
            boot.as_secs_f32(),
            verifying.elapsed().as_secs_f32()
        );
        totals.push(report.total);
        pauses.push(report.pause.pause);
    }
    println!("total {}; pause {}", spread(&mut totals), spread(&mut pauses));
    Ok(())
}

/// "min/median/max 1/2/3 ms"
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |index: usize| times.get(index).map_or(0, Duration::as_millis);
    format!("min/median/max {}/{}/{} ms", ms(0), ms(times.len() / 2), ms(times.len().saturating_sub(1)))
}
