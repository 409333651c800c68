//! What the program `novacron-lab` does with its arguments.

mod args;
mod table;
mod up;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use crate::control::{Answer, Client, Request, Way};
use crate::report::LabReport;
use crate::{namespace, state, tell};
use args::{CheckArgs, Cli, SetArgs, Verb};

/// Runs the program; the process should end with what this returns.
pub fn run() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Up(args) => return up::up(&args),
        Verb::Set(args) => set(&args),
        Verb::Show(args) => show(args.lab.as_deref(), args.json),
        Verb::Reset(args) => reset(&args.lab),
        Verb::Exec(args) => exec(&args.lab, &args.site, &args.command),
        Verb::Check(args) => check(&args),
        Verb::Clean(args) => clean(args.json),
    };
    done.map_or_else(
        |error| {
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn connect(lab: &str) -> Result<Client> {
    let living = state::living()?;
    if !living.iter().any(|id| id == lab) {
        let others = if living.is_empty() {
            "none runs".to_owned()
        } else {
            format!("expected one of {}", living.join(", "))
        };
        bail!("there is no lab {lab:?}; {others}");
    }
    Client::connect(&state::socket(lab))
}

fn set(args: &SetArgs) -> Result<()> {
    let change = args.change();
    let mut client = connect(&args.lab)?;
    let report = client.report()?;
    let Some(link) = report.link(&args.link) else {
        let names: Vec<&str> = report.links.iter().map(|link| link.name.as_str()).collect();
        bail!("there is no link {:?} in lab {}; expected one of {}", args.link, args.lab, names.join(", "));
    };
    for (way, now) in [(Way::Forward, &link.forward), (Way::Back, &link.back)] {
        if args.way != Way::Both && args.way != way {
            continue;
        }
        let mut conditions = now.conditions.with(&change);
        if args.no_burst {
            conditions.burst = None;
        }
        conditions.check().map_err(anyhow::Error::msg)?;
        let request = Request::Set { link: args.link.clone(), way, conditions: Box::new(conditions) };
        match client.ask(&request)? {
            Answer::Done => {}
            other => bail!("the lab answered something else: {other:?}"),
        }
    }
    Ok(())
}

fn show(lab: Option<&str>, json: bool) -> Result<()> {
    let labs = match lab {
        Some(lab) => vec![lab.to_owned()],
        None => state::living()?,
    };
    let mut reports: Vec<LabReport> = Vec::new();
    for lab in &labs {
        match connect(lab).and_then(|mut client| client.report()) {
            Ok(report) => reports.push(report),
            // One that is just starting or ending has no socket; asked for by name, it is an error.
            Err(error) if lab_was_named(lab, &labs) => return Err(error),
            Err(error) => tell(&format!("{error:#}")),
        }
    }
    if json {
        return print(&(serde_json::to_string(&reports).context("writing JSON")? + "\n"));
    }
    if reports.is_empty() {
        return print("no lab runs\n");
    }
    print(&reports.iter().map(table::report).collect::<Vec<_>>().join("\n"))
}

fn lab_was_named(lab: &str, labs: &[String]) -> bool {
    labs.len() == 1 && labs.iter().any(|known| known == lab)
}

fn reset(lab: &str) -> Result<()> {
    match connect(lab)?.ask(&Request::Reset {})? {
        Answer::Done => Ok(()),
        other => bail!("the lab answered something else: {other:?}"),
    }
}

fn exec(lab: &str, site: &str, command: &[String]) -> Result<()> {
    let sites = connect(lab)?.sites()?;
    let Some(found) = sites.iter().find(|known| known.name == site) else {
        let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
        bail!("there is no site {site:?} in lab {lab}; expected one of {}", names.join(", "));
    };
    // This process becomes the command, so that signals and the exit status are the command's.
    let error = Command::new("nsenter")
        .arg(format!("--net={}", namespace::path(&found.namespace).display()))
        .arg("--")
        .args(command)
        .exec();
    Err(error).context("starting nsenter")
}

fn check(args: &CheckArgs) -> Result<()> {
    let report = crate::check(args.seed, |doing| tell(&format!("check: {doing}")))?;
    if args.json {
        print(&(serde_json::to_string(&report).context("writing JSON")? + "\n"))?;
    } else {
        print(&table::check(&report))?;
    }
    ensure!(
        report.passed(),
        "not everything is as it was asked for; {:.1} wanted one of {} processors, so check again if others use this machine",
        report.load_average,
        report.processors
    );
    Ok(())
}

fn clean(json: bool) -> Result<()> {
    namespace::available().map_err(anyhow::Error::msg)?;
    let leavings = state::sweep()?;
    if json {
        return print(&(serde_json::to_string(&leavings).context("writing JSON")? + "\n"));
    }
    if leavings.labs.is_empty() {
        return print("nothing was left by dead labs\n");
    }
    print(&format!(
        "removed what dead labs left: {}; namespaces: {}\n",
        leavings.labs.join(", "),
        if leavings.namespaces.is_empty() { "none".to_owned() } else { leavings.namespaces.join(", ") }
    ))
}

/// Writes to stdout. A reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("printing"),
        _ => Ok(()),
    }
}
