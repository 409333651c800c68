//! The program `novacron-bench`; what it does is in the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use novacron_bench::ability::Ability;
use novacron_bench::contender::{Contender, Entry};
use novacron_bench::limits::REPETITIONS_MAX;
use novacron_bench::list::Listing;
use novacron_bench::progress::Progress;
use novacron_bench::record::{FORMAT, Outcome, Results};
use novacron_bench::scenario::{self, Scenario};
use novacron_bench::store::{self, Store};
use novacron_bench::{capture, compare, interrupt, page, run, table};
use novacron_testbed::Host;

/// Measures migrations over the lab's links, side by side with what they are measured against.
#[derive(Debug, Parser)]
#[command(name = "novacron-bench", version, arg_required_else_help = true)]
struct Cli {
    /// Where the scenarios' files are
    #[arg(long, global = true, value_name = "DIR", default_value = scenario::DIRECTORY)]
    scenarios: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios and write what was measured
    ///
    /// Contenders take turns (A B C A B C). Results are written after every run, as JSON and at the end as one HTML page.
    #[command(after_help = "Examples:
  What matters most, under 12 minutes on two cores, as `make bench` does:
    novacron-bench run --short --minutes 10
  Everything, as `make bench-full` does:
    novacron-bench run
  One scenario, three times each of two contenders:
    novacron-bench run known-ranking --contender novacron --contender multifd-4-zstd --repetitions 3
  A scenario of one's own:
    novacron-bench run ./our-link.toml")]
    Run(RunArgs),
    /// Show scenarios and contenders, which of them can run here, and why others cannot
    #[command(after_help = "Example:\n  novacron-bench list --json")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    Compare(compare::Arguments),
    Capture(capture::Arguments),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Names of scenarios, or files; all when none is named
    scenario: Vec<String>,
    /// Only what the short run has of them
    #[arg(long)]
    short: bool,
    /// Repetitions of each contender, whatever the scenario says
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPETITIONS_MAX)))]
    repetitions: Option<u32>,
    /// Only these contenders; one that a scenario does not have is added to it. Repeatable
    #[arg(long, value_name = "NAME")]
    contender: Vec<String>,
    /// Begin no run after so many minutes; those left over are skipped, and say so
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
    /// Print the results as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Where results are written
    #[arg(long, value_name = "DIR", default_value = store::DIRECTORY)]
    out: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run(args) => run_scenarios(&cli, args),
        Command::List { json } => list(&cli, *json),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Capture(arguments) => {
            interrupt::clean_up_when_interrupted("nothing was captured".to_owned(), arguments.partial())
                .and_then(|()| capture::run(arguments))
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("novacron-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list(cli: &Cli, json: bool) -> Result<ExitCode> {
    let listing = Listing::of(&scenario::find(&cli.scenarios, &[])?, &Ability::here());
    if json {
        println!("{}", serde_json::to_string_pretty(&listing).context("writing the list as JSON")?);
    } else {
        print!("{}", listing.text());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to run of what was asked for.
fn chosen(cli: &Cli, args: &RunArgs) -> Result<Vec<Scenario>> {
    let mut scenarios = scenario::find(&cli.scenarios, &args.scenario)?;
    if args.short {
        scenarios = scenarios.into_iter().filter_map(Scenario::shortened).collect();
    }
    for scenario in &mut scenarios {
        if let Some(repetitions) = args.repetitions {
            scenario.repetitions = repetitions;
        }
        if !args.contender.is_empty() {
            let named = |name: &String| -> Result<Contender> {
                if let Some(known) = scenario.contenders.iter().find(|one| one.name == *name) {
                    return Ok(known.clone());
                }
                let contender = Contender::of(&Entry::named(name)).map_err(anyhow::Error::msg)?;
                let stream = matches!(scenario.load, scenario::Load::Stream(_));
                contender.can_carry(stream, scenario.link.is_some()).map_err(anyhow::Error::msg)?;
                Ok(contender)
            };
            scenario.contenders = args.contender.iter().map(named).collect::<Result<_>>()?;
        }
    }
    ensure!(!scenarios.is_empty(), "none of these scenarios is a part of the short run: leave --short away");
    Ok(scenarios)
}

fn run_scenarios(cli: &Cli, args: &RunArgs) -> Result<ExitCode> {
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let scenarios = chosen(cli, args)?;
    let ability = Ability::here();
    for missing in ability.lacks() {
        eprintln!("novacron-bench: {missing}");
    }
    let able: Vec<&str> = scenarios
        .iter()
        .filter(|scenario| ability.missing_for(scenario).is_none())
        .map(|scenario| scenario.name.as_str())
        .collect();
    ensure!(!able.is_empty(), "none of these scenarios can run here; `novacron-bench list` says what can");
    if able.len() < scenarios.len() {
        eprintln!("novacron-bench: what can run: {}", able.join(", "));
    }

    let now = || humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut results = Results {
        format: FORMAT,
        started_at: now(),
        ended_at: None,
        host: Host::here(),
        scenarios: Vec::new(),
    };
    let store = Store::new(&args.out, &results.started_at)?;
    store.write(&results)?;
    interrupt::clean_up_when_interrupted(
        format!("runs that had ended are in {}", store.file().display()),
        None,
    )?;
    let runs = |scenario: &Scenario| u64::from(scenario.repetitions) * scenario.contenders.len() as u64;
    let progress = Progress::new(scenarios.iter().map(runs).sum());
    for scenario in &scenarios {
        let place = results.scenarios.len();
        results.scenarios.push(run::record(scenario));
        store.write(&results)?;
        let done = |so_far: &novacron_bench::record::Scenario| {
            results.scenarios[place] = so_far.clone();
            store.write(&results)
        };
        let ended = run::scenario(scenario, &ability, until, &progress, done);
        ended.with_context(|| {
            format!("scenario {}; earlier runs are in {}", scenario.name, store.file().display())
        })?;
    }
    results.ended_at = Some(now());
    progress.finish();
    store.write(&results)?;
    let page = store.beside("html");
    page::write(&results, &page)?;
    page::write(&results, &page.with_file_name("latest.html"))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&results).context("writing the results as JSON")?);
    } else {
        print!("{}", table::text(&results));
    }
    eprintln!("{}\n{}", store.file().display(), page.display());
    let all = results.scenarios.iter().flat_map(|scenario| &scenario.runs);
    let any = all.into_iter().any(|run| run.outcome == Outcome::Completed);
    // That a contender failed is a result; that nothing was measured is none.
    Ok(if any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["x", "run", "--repetitions", "0"]).is_err());
        let cli = Cli::try_parse_from(["x", "run", "a", "b", "--short", "--contender", "tcp"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("it is `run`") };
        assert_eq!((args.scenario.len(), args.short, args.contender.len()), (2, true, 1));
    }
}
