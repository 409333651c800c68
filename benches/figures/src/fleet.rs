//! Many sessions at once: 16 of 256 MiB against the same bytes in one, and one session beside others that are stuck.
//!
//! Random bytes through unix sockets stand for hypervisors: 16 emulated ones would measure the emulator.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use novacron_testbed::Scratch;
use novacron_testbed::stats::{Spread, paired_ratio};
use serde::Serialize;

use crate::limits::{SETTLE, STUCK_CONNECTIONS, STUCK_QUIET, STUCK_SESSIONS};
use crate::load::{Load, MachineLoad};
use crate::pair::{Choices, Pair};
use crate::report::{Goal, Verdict};
use crate::transfer::{Sink, Source};

const CHOICES: Choices = Choices { digest: true, destination_may_start: false, zstd_level: None };

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fleet {
    sessions: usize,
    bytes_each: u64,
    /// Seconds of all bytes in one session, of all sessions at once, and of the slowest session against the median one.
    one_s: Spread,
    all_s: Spread,
    slowest: Spread,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Carries `bytes` through each of `sessions` sessions at once. Returns how long each took, from the common start.
fn at_once(pair: &Pair, source: &Source, round: u32, sessions: usize, bytes: u64) -> Result<Vec<f64>> {
    let scratch = Scratch::new()?;
    let mut ready = Vec::new();
    for index in 0..sessions {
        let [entry, exit] = ["in", "out"].map(|end| scratch.file(&format!("{end}-{round}-{index}")));
        let sink = Sink::new(&exit)?;
        ready.push((pair.open(&entry, &exit, CHOICES)?, entry, sink));
    }
    let began = Instant::now();
    let times = thread::scope(|scope| {
        let carrying: Vec<_> = ready
            .iter()
            .map(|(_, entry, sink)| {
                scope.spawn(move || -> Result<f64> {
                    let writer = source.write(entry, Some(bytes));
                    let ended = sink.read(source, bytes, || ())?;
                    writer.join().map_err(|_| anyhow!("the writer panicked"))??;
                    Ok(ended.duration_since(began).as_secs_f64())
                })
            })
            .collect();
        carrying
            .into_iter()
            .map(|one| one.join().map_err(|_| anyhow!("a transfer panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    for (session, ..) in &ready {
        pair.finished(session, CHOICES)?;
    }
    Ok(times)
}

/// Measures `rounds` rounds, all bytes in one session and in `sessions` by turns, after a round that does not count.
pub(crate) fn measure(sessions: usize, bytes_each: u64, rounds: u32, say: &dyn Fn(&str)) -> Result<Fleet> {
    let scratch = Scratch::new()?;
    let (source, pair) = (Source::new()?, Pair::start(&scratch)?);
    let (mut one_s, mut all_s, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
    let mut load = Load::start()?;
    for round in 0..=rounds {
        let one = at_once(&pair, &source, round, 1, bytes_each * sessions as u64)?;
        thread::sleep(SETTLE);
        let times =
            Spread::of(at_once(&pair, &source, round, sessions, bytes_each)?).context("no session")?;
        thread::sleep(SETTLE);
        let counts = if round == 0 { ", warm-up" } else { "" };
        let (min, median, max) = (times.min, times.median, times.max);
        say(&format!(
            "fleet {round}/{rounds}: one session {:.2} s, {sessions} at once {max:.2} s (first {min:.2}, median {median:.2}){counts}",
            one[0]
        ));
        if round == 0 {
            load = Load::start()?;
            continue;
        }
        one_s.extend(one);
        all_s.push(max);
        slowest.push(max / median);
    }
    let ratio = paired_ratio(&all_s, &one_s).context("no round was measured")?;
    let spread = |all: Vec<f64>| Spread::of(all).context("no round was measured");
    let (one_s, all_s, slowest) = (spread(one_s)?, spread(all_s)?, spread(slowest)?);
    let verdicts = vec![
        Verdict::new(
            "sessions at once, against the same bytes in one",
            Goal::AtMost(1.15),
            ratio.median,
            "x",
        )
        .with(&ratio.text(2)),
        Verdict::new("the slowest of them against the median", Goal::AtMost(2.0), slowest.max, "x")
            .with(&slowest.text(2)),
    ];
    Ok(Fleet { sessions, bytes_each, one_s, all_s, slowest, machine: load.since()?, verdicts })
}

impl Fleet {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        format!(
            "{} sessions of {} MiB of random bytes; {}\n  all bytes in one session {:>22} s\n  all sessions at once     {:>22} s\n",
            self.sessions,
            self.bytes_each >> 20,
            self.machine,
            self.one_s.text(2),
            self.all_s.text(2)
        )
    }
}

/// What was found beside sessions that are stuck.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stuck {
    sessions: usize,
    /// What they hold between their ends, bytes.
    held_bytes: usize,
    alone_mb_per_s: Spread,
    beside_mb_per_s: Spread,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Sessions whose destinations accept and never read.
struct Jam {
    sources: Vec<UnixStream>,
    _destinations: Vec<UnixStream>,
    sessions: Vec<novacron_testbed::Session>,
    held_bytes: usize,
}

fn jam(pair: &Pair, scratch: &Scratch, round: u32) -> Result<Jam> {
    let (mut sources, mut destinations, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..STUCK_SESSIONS {
        let [entry, exit]: [PathBuf; 2] =
            ["jam-in", "jam-out"].map(|end| scratch.file(&format!("{end}-{round}-{index}")));
        let listener = UnixListener::bind(&exit).context("listening as a stuck destination")?;
        sessions.push(pair.open(&entry, &exit, CHOICES)?);
        for _ in 0..STUCK_CONNECTIONS {
            let source = UnixStream::connect(&entry).context("connecting as a stuck source")?;
            source.set_nonblocking(true)?;
            sources.push(source);
            destinations.push(listener.accept().context("a stuck destination's connection")?.0);
        }
    }
    let content = vec![0x5a; 1 << 20];
    let (mut held_bytes, mut last) = (0, Instant::now());
    while last.elapsed() < STUCK_QUIET {
        for source in &mut sources {
            if let Ok(count) = source.write(&content) {
                (held_bytes, last) = (held_bytes + count, Instant::now());
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(Jam { sources, _destinations: destinations, sessions, held_bytes })
}

/// Measures `rounds` transfers of `bytes` alone and beside stuck sessions, by turns, after a round that does not count.
pub(crate) fn stuck(bytes: u64, rounds: u32, say: &dyn Fn(&str)) -> Result<Stuck> {
    let scratch = Scratch::new()?;
    let (source, pair) = (Source::new()?, Pair::start(&scratch)?);
    let (mut alone, mut beside, mut held_bytes) = (Vec::new(), Vec::new(), 0);
    let mut load = Load::start()?;
    let rate = |seconds: &[f64]| bytes as f64 / 1e6 / seconds[0];
    for round in 0..=rounds {
        let without = rate(&at_once(&pair, &source, round, 1, bytes)?);
        thread::sleep(SETTLE);
        let jam = jam(&pair, &scratch, round)?;
        let with = rate(&at_once(&pair, &source, round, 1, bytes)?);
        held_bytes = held_bytes.max(jam.held_bytes);
        for session in &jam.sessions {
            let named = serde_json::json!({"session": session.id, "reason": "measured"});
            pair.source.rpc()?.call("session.cancel", named)?;
        }
        drop(jam.sources);
        thread::sleep(SETTLE);
        let counts = if round == 0 { ", warm-up" } else { "" };
        say(&format!(
            "stuck {round}/{rounds}: alone {without:.0} MB/s, beside stuck ones {with:.0} MB/s{counts}"
        ));
        if round == 0 {
            load = Load::start()?;
            continue;
        }
        alone.push(without);
        beside.push(with);
    }
    let ratio = paired_ratio(&beside, &alone).context("no round was measured")?;
    let spread = |all: Vec<f64>| Spread::of(all).context("no round was measured");
    let verdicts = vec![
        Verdict::new("a session beside stuck ones, against alone", Goal::AtLeast(0.95), ratio.median, "x")
            .with(&ratio.text(2)),
    ];
    let (alone_mb_per_s, beside_mb_per_s) = (spread(alone)?, spread(beside)?);
    let sessions = STUCK_SESSIONS;
    Ok(Stuck { sessions, held_bytes, alone_mb_per_s, beside_mb_per_s, machine: load.since()?, verdicts })
}

impl Stuck {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        format!(
            "A session beside {} whose destinations never read, {STUCK_CONNECTIONS} connections each, {} MiB held; {}\n  \
             alone            {:>22} MB/s\n  beside stuck ones{:>22} MB/s\n",
            self.sessions,
            self.held_bytes >> 20,
            self.machine,
            self.alone_mb_per_s.text(0),
            self.beside_mb_per_s.text(0)
        )
    }
}
