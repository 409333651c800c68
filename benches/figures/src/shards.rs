//! One session whose codec work saturates a shard: how much faster a second shard makes it. And one of random bytes, which
//! no codec helps: how much of what the busier shard had to do is taken off it by a second one that serves streams.
//!
//! The codec is set, zstd at a level so dear that the source's shard is the bottleneck by far: what the writer, the reader,
//! the destination and the rest of the source need is little beside it. On a machine of two processors it is still taken
//! from the second shard, so that 2.0 cannot be reached there; processor times are printed for that reason.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use novacron_testbed::stats::{Spread, paired_ratio};
use novacron_testbed::{Scratch, Usage, threads};
use serde::Serialize;

use crate::limits::{PAGE_BYTES, SETTLE};
use crate::load::{Load, MachineLoad};
use crate::pair::{Choices, Pair};
use crate::ram;
use crate::report::{Goal, Verdict};
use crate::transfer::{Sink, Source};

/// Shards of the source's gateway, and of the destination's.
const CONTENDERS: [(u16, u16); 3] = [(1, 1), (2, 1), (2, 2)];

/// Shards of both gateways where bytes are random.
const PLAIN: [u16; 2] = [1, 2];

/// Random bytes a transfer.
const PLAIN_BYTES: u64 = 1 << 30;

/// One transfer.
#[derive(Clone, Debug, Serialize)]
struct Transfer {
    seconds: f64,
    /// Processor time of each shard of the source's gateway.
    source_shards: Vec<f64>,
    /// Processor time of each shard of the destination's.
    destination_shards: Vec<f64>,
    /// Of this process: who writes and who reads.
    ends: f64,
    encoded_bytes: u64,
}

/// One contender's rounds.
#[derive(Clone, Debug, Serialize)]
struct Rounds {
    shards: (u16, u16),
    mb_per_s: Spread,
    transfers: Vec<Transfer>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shards {
    bytes: u64,
    level: u32,
    rounds: Vec<Rounds>,
    ratio: Spread,
    ratio_both: Spread,
    /// Random bytes, with one shard and with two at both sides.
    plain: [Vec<Transfer>; 2],
    /// Processor time of their busiest shards, two at both sides against one.
    busiest_ratio: Spread,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Measures `rounds` rounds of all contenders, one after the other in each round, after a round that does not count.
pub(crate) fn measure(bytes: u64, level: u32, rounds: u32, say: &dyn Fn(&str)) -> Result<Shards> {
    let scratch = Scratch::new()?;
    let source = Source::of(ram::stream(bytes / PAGE_BYTES as u64, 0x5eed));
    let mut pairs = Vec::new();
    for (near, far) in CONTENDERS {
        let name = format!("{near}-{far}");
        pairs.push(Pair::with_shards(&scratch, &name, near, far)?);
    }
    let random = Source::new()?;
    let plain_pairs = PLAIN.map(|count| Pair::with_shards(&scratch, &format!("plain-{count}"), count, count));
    let [one, two] = plain_pairs;
    let mut plain_pairs = [one?, two?];
    let mut found: [Vec<Transfer>; 3] = Default::default();
    let mut plain: [Vec<Transfer>; 2] = Default::default();
    let mut load = Load::start()?;
    for round in 0..=rounds {
        for ((shards, pair), transfers) in CONTENDERS.iter().zip(&mut pairs).zip(&mut found) {
            // The warm-up need not take as long.
            let transfer = through(&scratch, &source, source.len(), pair, Some(level))?;
            let counts = if round == 0 { ", warm-up" } else { "" };
            say(&format!(
                "shards {round}/{rounds} source {}, destination {}: {:.1} MB/s, processor s of the source's shards {}, of \
                 the destination's {}, of the ends {:.2}{counts}",
                shards.0,
                shards.1,
                rate(source.len(), &transfer),
                each(&transfer.source_shards),
                each(&transfer.destination_shards),
                transfer.ends
            ));
            if round > 0 {
                transfers.push(transfer);
            }
            std::thread::sleep(SETTLE);
        }
        for ((shards, pair), transfers) in PLAIN.iter().zip(&mut plain_pairs).zip(&mut plain) {
            let transfer = through(&scratch, &random, PLAIN_BYTES, pair, None)?;
            say(&format!(
                "shards {round}/{rounds} random bytes, {shards} at both: {:.1} MB/s, processor s of the source's shards {}, of \
                 the destination's {}",
                rate(PLAIN_BYTES, &transfer),
                each(&transfer.source_shards),
                each(&transfer.destination_shards)
            ));
            // Nothing is promised of these: gateways, writer and reader share the machine's processors.
            if round > 0 {
                transfers.push(transfer);
            }
            std::thread::sleep(SETTLE);
        }
        if round == 0 {
            load = Load::start()?;
        }
    }
    report(source.len(), level, found, plain, load.since()?)
}

/// Processor seconds of the busier shards of both sides together.
fn busiest(transfer: &Transfer) -> f64 {
    let most = |shards: &[f64]| shards.iter().copied().fold(0.0, f64::max);
    most(&transfer.source_shards) + most(&transfer.destination_shards)
}

fn report(
    bytes: u64,
    level: u32,
    found: [Vec<Transfer>; 3],
    plain: [Vec<Transfer>; 2],
    machine: MachineLoad,
) -> Result<Shards> {
    let busy = plain.each_ref().map(|all| all.iter().map(busiest).collect::<Vec<_>>());
    let busiest_ratio = paired_ratio(&busy[1], &busy[0]).context("no round was measured")?;
    let rates = found.each_ref().map(|all| all.iter().map(|t| rate(bytes, t)).collect::<Vec<_>>());
    let ratio = paired_ratio(&rates[1], &rates[0]).context("no round was measured")?;
    let ratio_both = paired_ratio(&rates[2], &rates[0]).context("no round was measured")?;
    let rounds = CONTENDERS.into_iter().zip(found).zip(&rates).map(|((shards, transfers), rates)| {
        let mb_per_s = Spread::of(rates.iter().copied()).context("no round was measured")?;
        Ok(Rounds { shards, mb_per_s, transfers })
    });
    let verdicts = vec![
        Verdict::new(
            "two shards at the source against one, codec bound",
            Goal::AtLeast(1.7),
            ratio.median,
            "x",
        )
        .with(&ratio.text(2)),
        Verdict::new("two shards at both gateways against one", Goal::AtLeast(1.7), ratio_both.median, "x")
            .with(&ratio_both.text(2)),
    ];
    let rounds = rounds.collect::<Result<_>>()?;
    Ok(Shards { bytes, level, rounds, ratio, ratio_both, plain, busiest_ratio, machine, verdicts })
}

/// MB (10^6 bytes) a second.
fn rate(bytes: u64, transfer: &Transfer) -> f64 {
    bytes as f64 / 1e6 / transfer.seconds
}

fn each(seconds: &[f64]) -> String {
    seconds.iter().map(|seconds| format!("{seconds:.2}")).collect::<Vec<_>>().join(" + ")
}

impl Shards {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "One session, {} MiB of compressible pages, zstd {}; {}\n  {:<24}{:>22}  processor s a round: source's \
             shards; destination's; writer and reader\n",
            self.bytes >> 20,
            self.level,
            self.machine,
            "shards",
            "MB/s median (min..max)"
        );
        for Rounds { shards: (near, far), mb_per_s, transfers } in &self.rounds {
            let name = format!("source {near}, destination {far}");
            let of = |pick: &dyn Fn(&Transfer) -> &Vec<f64>| {
                let count = transfers.first().map_or(0, |first| pick(first).len());
                let mean = |at: usize| {
                    transfers.iter().filter_map(|t| pick(t).get(at)).sum::<f64>()
                        / transfers.len().max(1) as f64
                };
                each(&(0..count).map(mean).collect::<Vec<_>>())
            };
            let ends = transfers.iter().map(|t| t.ends).sum::<f64>() / transfers.len().max(1) as f64;
            text += &format!(
                "  {name:<24}{:>22}  {}; {}; {ends:.2}\n",
                mb_per_s.text(1),
                of(&|t| &t.source_shards),
                of(&|t| &t.destination_shards)
            );
        }
        for (shards, transfers) in PLAIN.iter().zip(&self.plain) {
            let rates = Spread::of(transfers.iter().map(|transfer| rate(PLAIN_BYTES, transfer)));
            let rates = rates.map(|rates| rates.text(1)).unwrap_or_default();
            text += &format!("  random bytes, {shards} at both   {rates:>22}\n");
        }
        text += &format!(
            "  random bytes: the busiest shard of each side takes {}x of the processor time with two shards\n",
            self.busiest_ratio.text(2)
        );
        text
    }
}

fn through(
    scratch: &Scratch,
    source: &Source,
    bytes: u64,
    pair: &mut Pair,
    level: Option<u32>,
) -> Result<Transfer> {
    let (entry, exit) = (scratch.file("shards-in"), scratch.file("shards-out"));
    for path in [&entry, &exit] {
        remove(path)?;
    }
    let sink = Sink::new(&exit)?;
    let choices = Choices { zstd_level: level, ..Choices::default() };
    let session = pair.open(&entry, &exit, choices)?;
    let (near, far) = (pair.source.process().pid(), pair.destination.process().pid());
    let used = || -> Result<(Vec<Duration>, Vec<Duration>, Duration)> {
        Ok((threads::shards(near)?, threads::shards(far)?, Usage::of(std::process::id())?.cpu))
    };
    let before = used()?;
    let writer = source.write(&entry, Some(bytes));
    let mut after = None;
    let read = sink.read(source, bytes, || after = Some(used()));
    let began = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
    let (ended, began) = match (read, began) {
        (Ok(ended), Ok(began)) => (ended, began),
        (Err(error), Ok(_)) => return Err(error),
        (_, Err(error)) => return Err(error),
    };
    let after = after.context("the end was not seen")??;
    let record = pair.finished(&session, choices)?;
    ensure!(record["guest_bytes"] == bytes, "the gateways counted {} bytes", record["guest_bytes"]);
    let encoded_bytes = record["encoded_bytes"].as_u64().context("no encoded bytes in the record")?;
    ensure!(
        level.is_none() || encoded_bytes < bytes,
        "nothing was compressed: the measurement would mean nothing"
    );
    let between = |before: &[Duration], after: &[Duration]| {
        before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before).as_secs_f64()).collect()
    };
    Ok(Transfer {
        seconds: ended.duration_since(began).as_secs_f64(),
        source_shards: between(&before.0, &after.0),
        destination_shards: between(&before.1, &after.1),
        ends: after.2.saturating_sub(before.2).as_secs_f64(),
        encoded_bytes,
    })
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

    #[test]
    fn ratios_are_against_one_shard_in_the_same_round() {
        let of = |seconds: [f64; 2]| {
            let transfer = |seconds| Transfer {
                seconds,
                source_shards: vec![seconds],
                destination_shards: vec![0.1],
                ends: 0.1,
                encoded_bytes: 1,
            };
            seconds.map(transfer).to_vec()
        };
        let machine =
            MachineLoad { seconds: 1.0, processors_busy: 1.0, processors_stolen: 0.0, load_average: 1.0 };
        let found = [of([2.0, 4.0]), of([1.0, 2.0]), of([2.0, 2.0])];
        let plain = [of([2.0, 2.0]), of([1.0, 1.0])];
        let shards = report(1_000_000, 9, found, plain, machine).unwrap();
        assert_eq!(shards.ratio.all, [2.0, 2.0]);
        assert_eq!(shards.ratio_both.all, [1.0, 2.0]);
        assert_eq!(shards.verdicts.iter().map(Verdict::reached).collect::<Vec<_>>(), [true, false]);
        assert!(shards.busiest_ratio.all.iter().all(|ratio| (0.5..0.55).contains(ratio)));
        assert!(shards.table().contains("source 2, destination 1"), "{}", shards.table());
    }
}
