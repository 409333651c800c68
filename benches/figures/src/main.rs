//! Measures the figures that `docs/SPECIFICATION.md` promises, each contender by turns in one run, and says of each
//! whether it is reached. It measures and tells; it does not fail because a figure is short.

mod choice;
mod codec;
mod control;
mod fleet;
mod flood;
mod guest_kills;
mod interrupt;
mod limits;
mod load;
mod memory;
mod migrate;
mod opening;
mod pair;
mod pause;
mod probe;
mod ram;
mod relay;
mod report;
mod shards;
mod tls;
mod transfer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::limits::{CHOICE_ROUNDS_MAX, ROUNDS_MAX, SHARDS_ROUNDS_MAX};
use crate::report::Report;
use novacron_testbed::Host;

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Measures the promised figures and says of each whether it is reached",
    after_help = "Examples:
  All figures, as `make bench` measures them:
    novacron-figures --json figures.json
  The relay alone, three rounds:
    novacron-figures --only relay --rounds 3"
)]
struct Args {
    /// What to measure; repeatable. Everything by default
    #[arg(long, value_enum)]
    only: Vec<Figure>,

    /// Rounds of the relay that count
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)))]
    rounds: u32,

    /// MiB that a relay carries in a round
    #[arg(long, default_value_t = 2048, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    relay_mib: u64,

    /// Migrations of each contender that count
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)))]
    moves: u32,

    /// The guest's memory, MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    memory_mib: u32,

    /// multifd's channels, where it is measured
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=255))]
    channels: u8,

    /// Sessions of the fleet
    #[arg(long, default_value_t = 16, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=64))]
    sessions: usize,

    /// MiB that each of them carries
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    session_mib: u64,

    /// How long slow destinations read
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    slow_seconds: u64,

    /// MiB that a session with dear codec work carries in a round
    #[arg(long, default_value_t = 128, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 12))]
    shards_mib: u64,

    /// Its zstd level
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=22))]
    shards_level: u32,

    /// MiB of each synthetic guest that the choice of the codec is measured on
    #[arg(long, default_value_t = 128, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 12))]
    choice_mib: u64,

    /// A captured stream that it is measured on instead; repeatable
    #[arg(long, value_name = "FILE")]
    choice_stream: Vec<PathBuf>,

    /// A captured stream that the page codec is measured on; repeatable. Without any: synthetic guests
    #[arg(long, value_name = "FILE")]
    codec_stream: Vec<PathBuf>,

    /// Trials of each loss, where probes are measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    probe_trials: u32,

    /// Seconds of each of them
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=3600))]
    probe_trial_seconds: u64,

    /// Only this part of the figures of probes; repeatable
    #[arg(long, value_enum)]
    probe_part: Vec<probe::Part>,

    /// Starts and stops of the control process
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    starts: u32,

    /// Times that it is killed in the middle of a migration
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: u32,

    /// Where to write everything that was found
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
    Relay,
    Migration,
    Memory,
    Shards,
    Multifd,
    Fleet,
    Stuck,
    Choice,
    /// What the page codec makes of streams, beside zstd over the whole of each
    Codec,
    /// In the lab; takes a quarter of an hour with all trials, so only where it is named
    Probe,
    Tls,
    /// How soon a session is open over a link of the lab
    Opening,
    /// What a guest sees of its move over a link of the lab
    Pause,
    Flood,
    Control,
    /// kill -9 of control processes in migrations of a guest
    ControlGuests,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novacron-figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    interrupt::clean_up_when_interrupted()?;
    let began = Instant::now();
    let say = |text: &str| eprintln!("[{:6.1} s] {text}", began.elapsed().as_secs_f32());
    let wanted = |figure| args.only.is_empty() || args.only.contains(&figure);
    let mut report = Report {
        host: Host::here(),
        figures: Vec::new(),
        relay: None,
        migration: None,
        memory: None,
        shards: None,
        multifd: None,
        fleet: None,
        stuck: None,
        choice: None,
        codec: None,
        probes: None,
        tls: None,
        opening: None,
        pause: None,
        flood: None,
        control: None,
        guest_kills: None,
    };
    if wanted(Figure::Relay) {
        let relay = relay::measure(args.relay_mib << 20, args.rounds, &say)?;
        report.figures.extend(relay.verdicts.iter().cloned());
        report.relay = Some(relay);
    }
    if wanted(Figure::Migration) {
        let migrations = migrate::measure(args.memory_mib, args.moves, None, &say)?;
        report.figures.extend(migrations.verdicts.iter().cloned());
        report.migration = Some(migrations);
    }
    if wanted(Figure::Memory) {
        let memory = memory::measure(Duration::from_secs(args.slow_seconds), &say)?;
        report.figures.extend(memory.verdicts.iter().cloned());
        report.memory = Some(memory);
    }
    if wanted(Figure::Shards) {
        let shards = shards::measure(
            args.shards_mib << 20,
            args.shards_level,
            args.rounds.min(SHARDS_ROUNDS_MAX),
            &say,
        )?;
        report.figures.extend(shards.verdicts.iter().cloned());
        report.shards = Some(shards);
    }
    if wanted(Figure::Multifd) {
        let migrations = migrate::measure(args.memory_mib, args.moves, Some(args.channels), &say)?;
        report.figures.extend(migrations.verdicts.iter().cloned());
        report.multifd = Some(migrations);
    }
    if wanted(Figure::Fleet) {
        let fleet = fleet::measure(args.sessions, args.session_mib << 20, args.rounds, &say)?;
        report.figures.extend(fleet.verdicts.iter().cloned());
        report.fleet = Some(fleet);
    }
    if wanted(Figure::Stuck) {
        let stuck = fleet::stuck(args.relay_mib << 20, args.rounds, &say)?;
        report.figures.extend(stuck.verdicts.iter().cloned());
        report.stuck = Some(stuck);
    }
    if wanted(Figure::Choice) {
        let rounds = args.rounds.min(CHOICE_ROUNDS_MAX);
        let choice = choice::measure(args.choice_mib, &args.choice_stream, rounds, &say)?;
        report.figures.extend(choice.verdicts.iter().cloned());
        report.choice = Some(choice);
    }
    if wanted(Figure::Codec) {
        let codec = codec::measure(args.choice_mib, &args.codec_stream, &say)?;
        report.figures.extend(codec.verdicts.iter().cloned());
        report.codec = Some(codec);
    }
    if args.only.contains(&Figure::Probe) {
        let extent = probe::Extent {
            trials: args.probe_trials,
            trial_seconds: args.probe_trial_seconds,
            parts: args.probe_part.clone(),
        };
        let probes = probe::measure(extent, &say)?;
        report.figures.extend(probes.verdicts.iter().cloned());
        report.probes = Some(probes);
    }
    if wanted(Figure::Tls) {
        let tls = tls::measure(args.relay_mib << 20, args.rounds, &say)?;
        report.figures.extend(tls.verdicts.iter().cloned());
        report.tls = Some(tls);
    }
    if wanted(Figure::Opening)
        && let Some(opening) = opening::measure(args.rounds, &say)?
    {
        report.figures.extend(opening.verdicts.iter().cloned());
        report.opening = Some(opening);
    }
    if wanted(Figure::Pause)
        && let Some(pause) = pause::measure(args.moves, &say)?
    {
        report.figures.extend(pause.verdicts.iter().cloned());
        report.pause = Some(pause);
    }
    if wanted(Figure::Flood) {
        let flood = flood::measure(args.relay_mib << 20, args.rounds, &say)?;
        report.figures.extend(flood.verdicts.iter().cloned());
        report.flood = Some(flood);
    }
    if wanted(Figure::Control) {
        let control = control::measure(args.starts, args.kills, &say)?;
        report.figures.extend(control.verdicts.iter().cloned());
        report.control = Some(control);
    }
    if wanted(Figure::ControlGuests) {
        let found = guest_kills::measure(args.kills, &say)?;
        report.figures.extend(found.verdicts.iter().cloned());
        report.guest_kills = Some(found);
    }
    println!("\n{}", report.text());
    match &args.json {
        Some(path) => report.write(path),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["x", "--only", "relay", "--only", "memory"]).unwrap();
        assert_eq!(args.only, [Figure::Relay, Figure::Memory]);
        assert!(Args::try_parse_from(["x", "--rounds", "0"]).is_err());
    }
}
