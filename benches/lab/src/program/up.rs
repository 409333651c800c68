//! `novacron-lab up`: the lab itself.

use std::io::{BufRead, Read};
use std::process::{self, ExitCode};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::UpArgs;
use super::print;
use crate::control::{Greeting, read_line};
use crate::emulator::{Emulator, End};
use crate::tell;
use crate::topology::Topology;

pub(super) fn up(args: &UpArgs) -> ExitCode {
    match try_up(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = format!("{error:#}");
            if args.hosted || args.json {
                let _ = greet(&Greeting::Error(error));
            } else {
                tell(&error);
            }
            ExitCode::FAILURE
        }
    }
}

fn try_up(args: &UpArgs) -> Result<()> {
    let topology = if args.hosted {
        let line =
            read_line(&mut std::io::stdin().lock())?.context("there is no topology on standard input")?;
        serde_json::from_str(&line).context("standard input holds no topology")?
    } else {
        Topology::find(args.topology.as_deref().unwrap_or_default())?
    };
    let seed = match args.seed {
        Some(seed) => seed,
        None => fastrand::u64(..),
    };
    let (end, ended) = channel();
    // From before anything is made until after it was removed, no signal ends us half-way.
    watch_signals(end.clone())?;
    if args.hosted {
        watch_stdin(end.clone());
    }
    let emulator = Emulator::start(&topology, seed, &end)?;
    let said = if args.hosted || args.json {
        let sites = emulator.sites().to_vec();
        greet(&Greeting::Up { id: emulator.id().to_owned(), pid: process::id(), sites })
    } else {
        print(&welcome(&emulator, &topology, seed))
    };
    let end = ended.recv().context("nothing is left that could end the lab");
    drop(emulator);
    said?;
    match end? {
        End::Told => Ok(()),
        End::Failed(error) => Err(error.context("the lab had to end; all that it made was removed")),
    }
}

fn greet(greeting: &Greeting) -> Result<()> {
    print(&(serde_json::to_string(greeting).context("writing JSON")? + "\n"))
}

fn welcome(emulator: &Emulator, topology: &Topology, seed: u64) -> String {
    let mut text = format!("lab {} is up: {}, seed {seed}\n", emulator.id(), topology.name);
    let entrances = emulator.entrances();
    for site in emulator.sites() {
        let ends: Vec<String> =
            site.ends.iter().map(|end| format!("{} and {} on {}", end.v4, end.v6, end.link)).collect();
        let entrance = entrances.get(&site.name).map_or("", String::as_str);
        text += &format!("  site {}: {}; enter it: {entrance}\n", site.name, ends.join(", "));
    }
    text += &format!(
        "  watch it: novacron-lab show {0}; change it: novacron-lab set {0} LINK --delay 50ms; ctrl-C removes it\n",
        emulator.id()
    );
    text
}

fn watch_signals(end: Sender<End>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("catching signals")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            let _ = end.send(End::Told);
        }
    });
    Ok(())
}

/// Whoever started us holds the other end: when that process is gone, in whatever way, reading ends.
fn watch_stdin(end: Sender<End>) {
    thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut bytes = [0; 64];
        while matches!(stdin.read(&mut bytes), Ok(1..)) {
            stdin.consume(0);
        }
        let _ = end.send(End::Told);
    });
}
