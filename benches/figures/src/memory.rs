//! Resident memory of gateways whose destinations read slowly: back-pressure, not buffering.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use novacron_testbed::Scratch;
use serde::Serialize;

use crate::limits::{MEMORY_LOOK, RESIDENT_BYTES_GOAL, SLOW_BYTES_PER_S, SLOW_SESSIONS};
use crate::load::{Load, MachineLoad};
use crate::pair::{Choices, Pair};
use crate::report::{Goal, Verdict};
use crate::transfer::{Sink, Source};

/// One gateway's memory, bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Resident {
    /// VmRSS before the first session.
    idle: u64,
    /// VmRSS at the end, all sessions running.
    running: u64,
    /// VmHWM: the most that there ever was.
    most: u64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    sessions: usize,
    seconds: f64,
    /// Bytes that all destinations together took.
    taken_bytes: u64,
    source: Resident,
    destination: Resident,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Runs [`SLOW_SESSIONS`] sessions for `time`, with writers that write all they can.
pub(crate) fn measure(time: Duration, say: &dyn Fn(&str)) -> Result<Memory> {
    let scratch = Scratch::new()?;
    let source = Source::new()?;
    let mut pair = Pair::start(&scratch)?;
    let load = Load::start()?;
    let mut found = [Resident::default(); 2];
    for (resident, gateway) in found.iter_mut().zip([&mut pair.source, &mut pair.destination]) {
        resident.idle = gateway.process().usage()?.rss_bytes;
    }
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for index in 0..SLOW_SESSIONS {
        let (entry, exit) = (scratch.file(&format!("in-{index}")), scratch.file(&format!("out-{index}")));
        let sink = Sink::new(&exit)?;
        pair.open(&entry, &exit, Choices::default())?;
        writers.push(source.write(&entry, None));
        let source = source.clone();
        readers.push(std::thread::spawn(move || sink.read_slowly(&source, time)));
    }
    let began = Instant::now();
    let mut told = began;
    while readers.iter().all(|reader| !reader.is_finished()) {
        for (resident, gateway) in found.iter_mut().zip([&mut pair.source, &mut pair.destination]) {
            let usage = gateway.process().usage()?;
            (resident.running, resident.most) = (usage.rss_bytes, usage.rss_bytes_max);
        }
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            let [near, far] = found.map(|resident| mib(resident.running));
            say(&format!(
                "memory {:.0}/{:.0} s: {near:.0} MiB at the source, {far:.0} MiB at the destination",
                began.elapsed().as_secs_f32(),
                time.as_secs_f32()
            ));
        }
        std::thread::sleep(MEMORY_LOOK);
    }
    let mut taken = 0;
    for reader in readers {
        taken += reader.join().map_err(|_| anyhow!("a reader panicked"))??;
    }
    let machine = load.since()?;
    // The writers write until their gateway is gone.
    drop(pair);
    for writer in writers {
        writer.join().map_err(|_| anyhow!("a writer panicked"))??;
    }
    // Readers that got less would have asked less of the gateways than was promised.
    let expected = SLOW_BYTES_PER_S * SLOW_SESSIONS as u64 * time.as_secs();
    ensure!(taken >= expected / 2, "the destinations got {taken} bytes of {expected}: nothing was measured");
    let [near, far] = found;
    let verdict = |what: &str, resident: Resident| {
        let goal = Goal::AtMost(mib(RESIDENT_BYTES_GOAL));
        Verdict::new(what, goal, mib(resident.most), "MiB").with(&format!(
            "{:.0} MiB at the end, {:.0} MiB before the first session",
            mib(resident.running),
            mib(resident.idle)
        ))
    };
    Ok(Memory {
        sessions: SLOW_SESSIONS,
        seconds: began.elapsed().as_secs_f64(),
        taken_bytes: taken,
        source: near,
        destination: far,
        machine,
        verdicts: vec![
            verdict("memory of the source's gateway", near),
            verdict("memory of the destination's gateway", far),
        ],
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Memory {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let row = |name: &str, resident: &Resident| {
            format!(
                "  {name:<24}{:>8.1} idle {:>8.1} running {:>8.1} most\n",
                mib(resident.idle),
                mib(resident.running),
                mib(resident.most)
            )
        };
        format!(
            "Memory of gateways, MiB, {} sessions, destinations that read {} MB/s each; {:.0} s; {}\n{}{}",
            self.sessions,
            SLOW_BYTES_PER_S / 1_000_000,
            self.seconds,
            self.machine,
            row("source's gateway", &self.source),
            row("destination's gateway", &self.destination)
        )
    }
}
