//! 2 GiB of random bytes, unix socket in, TCP over loopback, unix socket out: two gateways against two chained `socat`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use novacron_testbed::stats::{Spread, paired_ratio};
use novacron_testbed::{Process, Scratch, port, wait};
use serde::Serialize;

use crate::limits::{PROGRESS_WAIT, SETTLE};
use crate::load::{Load, MachineLoad};
use crate::pair::{Choices, Pair};
use crate::report::{Goal, Verdict};
use crate::transfer::{Sink, Source};

/// Who carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Contender {
    Socat,
    GatewaysWithDigest,
    GatewaysWithoutDigest,
}

const CONTENDERS: [Contender; 3] =
    [Contender::Socat, Contender::GatewaysWithDigest, Contender::GatewaysWithoutDigest];

/// One transfer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Transfer {
    pub(crate) seconds: f64,
    /// Processor time of the process beside the writer, and of the one beside the reader.
    pub(crate) cpu_seconds: [f64; 2],
}

/// One contender's rounds.
#[derive(Clone, Debug, Serialize)]
struct Rounds {
    contender: Contender,
    mb_per_s: Spread,
    cpu_seconds: [Spread; 2],
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Relay {
    bytes: u64,
    rounds: Vec<Rounds>,
    ratio_with_digest: Spread,
    ratio_without_digest: Spread,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Measures `rounds` rounds of all contenders, one after the other in each round, after a round that does not count.
pub(crate) fn measure(bytes: u64, rounds: u32, say: &dyn Fn(&str)) -> Result<Relay> {
    let scratch = Scratch::new()?;
    let source = Source::new()?;
    let mut pair = Pair::start(&scratch)?;
    let mut found: [Vec<Transfer>; 3] = Default::default();
    let mut load = Load::start()?;
    for round in 0..=rounds {
        for (contender, transfers) in CONTENDERS.into_iter().zip(&mut found) {
            let transfer = match contender {
                Contender::Socat => through_socat(&scratch, &source, bytes)?,
                Contender::GatewaysWithDigest => through_gateways(&scratch, &source, &mut pair, bytes, true)?,
                Contender::GatewaysWithoutDigest => {
                    through_gateways(&scratch, &source, &mut pair, bytes, false)?
                }
            };
            let counts = if round == 0 { ", warm-up" } else { "" };
            let [near, far] = transfer.cpu_seconds;
            say(&format!(
                "relay {round}/{rounds} {contender:?}: {:.0} MB/s, processor {near:.2} + {far:.2} s{counts}",
                rate(bytes, &transfer)
            ));
            if round > 0 {
                transfers.push(transfer);
            }
            std::thread::sleep(SETTLE);
        }
        if round == 0 {
            load = Load::start()?;
        }
    }
    report(bytes, &found, load.since()?)
}

fn report(bytes: u64, found: &[Vec<Transfer>; 3], machine: MachineLoad) -> Result<Relay> {
    let rates = found.each_ref().map(|all| all.iter().map(|t| rate(bytes, t)).collect::<Vec<_>>());
    let with = paired_ratio(&rates[1], &rates[0]).context("no round was measured")?;
    let without = paired_ratio(&rates[2], &rates[0]).context("no round was measured")?;
    let rounds = CONTENDERS.into_iter().zip(found).zip(&rates).map(|((contender, transfers), rates)| {
        let cpu = |side: usize| Spread::of(transfers.iter().map(|transfer| transfer.cpu_seconds[side]));
        let spread = || Some((Spread::of(rates.iter().copied())?, [cpu(0)?, cpu(1)?]));
        let (mb_per_s, cpu_seconds) = spread().context("no round was measured")?;
        Ok(Rounds { contender, mb_per_s, cpu_seconds })
    });
    let verdicts = vec![
        Verdict::new("relay, digests on, against socat", Goal::AtLeast(0.75), with.median, "x")
            .with(&with.text(2)),
        Verdict::new("relay, digests off, against socat", Goal::AtLeast(1.0), without.median, "x")
            .with(&without.text(2)),
    ];
    Ok(Relay {
        bytes,
        rounds: rounds.collect::<Result<_>>()?,
        ratio_with_digest: with,
        ratio_without_digest: without,
        machine,
        verdicts,
    })
}

/// MB (10^6 bytes) a second.
pub(crate) fn rate(bytes: u64, transfer: &Transfer) -> f64 {
    bytes as f64 / 1e6 / transfer.seconds
}

impl Relay {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "Relay of {} MiB of random bytes; {}\n  {:<24}{:>26}  processor s: near, far\n",
            self.bytes >> 20,
            self.machine,
            "",
            "MB/s median (min..max)"
        );
        for rounds in &self.rounds {
            let name = match rounds.contender {
                Contender::Socat => "two socat -b1048576",
                Contender::GatewaysWithDigest => "two gateways, digests",
                Contender::GatewaysWithoutDigest => "two gateways, no digests",
            };
            let [near, far] = &rounds.cpu_seconds;
            text +=
                &format!("  {name:<24}{:>26}  {}, {}\n", rounds.mb_per_s.text(0), near.text(2), far.text(2));
        }
        text
    }
}

/// One transfer through what takes connections at `entry` and makes one to `exit`.
fn transfer(
    source: &Source,
    bytes: u64,
    entry: &Path,
    exit: &Sink,
    cpu: impl Fn() -> Result<[Duration; 2]>,
) -> Result<Transfer> {
    let before = cpu()?;
    let writer = source.write(entry, Some(bytes));
    let mut after = None;
    let read = exit.read(source, bytes, || after = Some(cpu()));
    let began = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
    // The reader's error tells more, unless the writer could not even begin.
    let (ended, began) = match (read, began) {
        (Ok(ended), Ok(began)) => (ended, began),
        (Err(error), Ok(_)) => return Err(error),
        (_, Err(error)) => return Err(error),
    };
    let after = after.context("the end was not seen")??;
    let used = |side: usize| after[side].saturating_sub(before[side]).as_secs_f64();
    Ok(Transfer { seconds: ended.duration_since(began).as_secs_f64(), cpu_seconds: [used(0), used(1)] })
}

/// `socat` twice, as an operator would chain them: both directions open, buffers of 1 MiB.
fn through_socat(scratch: &Scratch, source: &Source, bytes: u64) -> Result<Transfer> {
    let (entry, exit) = (scratch.file("socat-in"), scratch.file("socat-out"));
    for path in [&entry, &exit] {
        remove(path)?;
    }
    let sink = Sink::new(&exit)?;
    let port = port::free()?;
    let program = Path::new("socat");
    // Notices tell when each of them listens.
    let socat = |name: &str, from: String, to: String| {
        let arguments = ["-d".into(), "-d".into(), "-b1048576".into(), from, to];
        let process =
            Process::start(scratch, name, program, &arguments).context("socat comes with `make setup`")?;
        let listens = || {
            let log = std::fs::read_to_string(process.log()).context("reading socat's log")?;
            Ok(log.contains("listening on").then_some(()))
        };
        wait::until("socat listening", PROGRESS_WAIT, listens)
            .with_context(|| format!("its log: {}", process.log_tail()))?;
        anyhow::Ok(process)
    };
    let far = socat(
        "socat-far",
        format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"),
        format!("UNIX-CONNECT:{}", exit.display()),
    )?;
    let near =
        socat("socat-near", format!("UNIX-LISTEN:{}", entry.display()), format!("TCP:127.0.0.1:{port}"))?;
    transfer(source, bytes, &entry, &sink, || Ok([near.usage()?.cpu, far.usage()?.cpu]))
}

/// One session of two gateways that are there already.
pub(crate) fn through_gateways(
    scratch: &Scratch,
    source: &Source,
    pair: &mut Pair,
    bytes: u64,
    digest: bool,
) -> Result<Transfer> {
    let (entry, exit) = (scratch.file("gateways-in"), scratch.file("gateways-out"));
    for path in [&entry, &exit] {
        remove(path)?;
    }
    let sink = Sink::new(&exit)?;
    let choices = Choices { digest, ..Choices::default() };
    let session = pair.open(&entry, &exit, choices)?;
    let (near, far) = (pair.source.process().pid(), pair.destination.process().pid());
    let cpu = |pid| novacron_testbed::Usage::of(pid).map(|usage| usage.cpu);
    let result = transfer(source, bytes, &entry, &sink, || Ok([cpu(near)?, cpu(far)?]))?;
    let record = pair.finished(&session, choices)?;
    ensure!(record["guest_bytes"] == bytes, "the gateways counted {} bytes", record["guest_bytes"]);
    Ok(result)
}

/// A socket's path of the round before.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineLoad {
        MachineLoad { seconds: 1.0, processors_busy: 1.0, processors_stolen: 0.0, load_average: 1.0 }
    }

    #[test]
    fn ratios_are_rates_against_socat_of_the_same_round() {
        let of =
            |seconds: [f64; 2]| seconds.map(|seconds| Transfer { seconds, cpu_seconds: [1.0, 2.0] }).to_vec();
        let found = [of([1.0, 2.0]), of([2.0, 4.0]), of([0.5, 1.0])];
        let relay = report(1_000_000, &found, machine()).unwrap();
        assert_eq!(relay.ratio_with_digest.all, [0.5, 0.5]);
        assert_eq!(relay.ratio_without_digest.all, [2.0, 2.0]);
        assert_eq!(relay.verdicts.iter().map(Verdict::reached).collect::<Vec<_>>(), [false, true]);
        assert!(relay.table().contains("two socat"));
        assert!(report(1, &Default::default(), machine()).is_err());
    }
}
