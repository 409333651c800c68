//! What QEMU does alone: the figures that a migration through gateways is compared with.
//!
//! `novacron-direct [--memory MIB] [--work MIB] [--rate MB] [--runs N] [--unix|--tcp|--multifd N]` boots a guest with
//! no zero page for each run, migrates it from QEMU to QEMU, lets it verify itself and prints a line.
//! `novacron-direct --workload NAME [--rate UNITS] [--runs N] ...` does the same with a guest of that workload, at its
//! own rate and with its own memory unless told otherwise, and says what of its work it got done.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use novacron_testbed::{GuestOptions, Migration, Qemu, QemuOptions, Scratch, Workload};

/// How long the guest works before it is moved, and after.
const AT_EITHER_SIDE: Duration = Duration::from_secs(3);

struct Arguments {
    memory_mib: Option<u32>,
    work_mib: u32,
    rate: Option<f64>,
    workload: Option<Workload>,
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
    let mut arguments =
        Arguments { memory_mib: None, work_mib: 64, rate: None, workload: None, runs: 3, over: Over::Tcp };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        let mut number = || -> Result<u32> {
            let value = value()?;
            value.parse().with_context(|| format!("{word} {value}: not a whole number"))
        };
        match word.as_str() {
            "--memory" => arguments.memory_mib = Some(number()?),
            "--work" => arguments.work_mib = number()?,
            "--workload" => arguments.workload = Some(Workload::parse(&value()?)?),
            "--rate" => {
                let value = value()?;
                let rate = value.parse().with_context(|| format!("--rate {value}: not a number"))?;
                ensure!((0.0..1e9).contains(&rate), "--rate {value}: not 0 to 1000000000");
                arguments.rate = Some(rate);
            }
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

fn options(arguments: &Arguments) -> Result<QemuOptions> {
    let mut options = match arguments.workload {
        Some(workload) => QemuOptions::for_workload(&GuestOptions::of(workload))?,
        None => QemuOptions::filled(512, arguments.work_mib, 20),
    };
    options.guest.rate = arguments.rate;
    options.memory_mib = arguments.memory_mib.unwrap_or(options.memory_mib);
    Ok(options)
}

fn run(arguments: &Arguments) -> Result<()> {
    let options = options(arguments)?;
    let (mut totals, mut pauses) = (Vec::new(), Vec::new());
    for run in 1..=arguments.runs {
        let scratch = Scratch::new()?;
        let booting = Instant::now();
        let mut source = Qemu::source(&scratch, "source", &options)?;
        let mut destination = Qemu::destination(&scratch, "destination", &options)?;
        source.guest().wait_ready()?;
        let boot = booting.elapsed();
        source.guest().work()?;
        thread::sleep(AT_EITHER_SIDE);
        let before = source.guest().work()?;
        let migration = match arguments.over {
            Over::Unix => Migration::direct_unix(&scratch),
            Over::Tcp => Migration::direct_tcp()?,
            Over::Multifd(count) => Migration { multifd_channels: Some(count), ..Migration::direct_tcp()? },
        };
        let report = migration.run(&mut source, &mut destination)?;
        thread::sleep(AT_EITHER_SIDE);
        let work = destination.guest().work()?;
        let verifying = Instant::now();
        destination.guest().must_be_intact()?;
        println!(
            "{run}: ready in {:.1} s; {report}; {:.2} of {} {} a second before and {:.2} from then on; verified in {:.1} s",
            boot.as_secs_f32(),
            before.achieved,
            work.set,
            work.unit,
            work.achieved,
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
