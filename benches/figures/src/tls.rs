//! What encryption costs: random bytes between two gateways with keys and between two without, by turns; on loopback, where nothing
//! else is in the way, and over a link of the lab of 1 Gbit/s, where what counts is the processor's time.

use anyhow::{Context, Result};
use novacron_lab::{Conditions, Lab, Topology};
use novacron_testbed::stats::{Spread, paired_ratio};
use novacron_testbed::{Scratch, Security};
use serde::Serialize;

use crate::limits::{SETTLE, TLS_LINK_DELAY_MS, TLS_LINK_MBIT};
use crate::load::{Load, MachineLoad};
use crate::pair::{Pair, Place};
use crate::relay::{Transfer, rate, through_gateways};
use crate::report::{Goal, Verdict};
use crate::transfer::Source;

/// One pair's rounds.
#[derive(Clone, Debug, Serialize)]
struct Rounds {
    encrypted: bool,
    mb_per_s: Spread,
    /// Of both gateways together.
    cpu_seconds_per_gb: Spread,
}

/// Both pairs at one place.
#[derive(Clone, Debug, Serialize)]
struct Compared {
    place: String,
    bytes: u64,
    plaintext: Rounds,
    tls: Rounds,
    /// TLS against plaintext of the same round.
    ratio_throughput: Spread,
    ratio_cpu: Spread,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Tls {
    loopback: Compared,
    /// `None`: there is no lab here.
    link: Option<Compared>,
    no_link: Option<String>,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Measures `rounds` rounds of both, after one that does not count.
pub(crate) fn measure(bytes: u64, rounds: u32, say: &dyn Fn(&str)) -> Result<Tls> {
    let source = Source::new()?;
    let load = Load::start()?;
    let here = Place::default();
    let loopback = compare("loopback", [&here, &here], &source, bytes, rounds, say)?;
    let mut verdicts = vec![
        Verdict::new(
            "TLS against plaintext, loopback",
            Goal::AtLeast(0.55),
            loopback.ratio_throughput.median,
            "x",
        )
        .with(&loopback.ratio_throughput.text(2)),
    ];
    let (link, no_link) = match novacron_lab::available() {
        Err(why) => {
            say(&format!("no link: {why}"));
            (None, Some(why.to_string()))
        }
        Ok(()) => {
            let way = Conditions {
                rate_mbit: Some(TLS_LINK_MBIT),
                delay_ms: TLS_LINK_DELAY_MS,
                ..Conditions::default()
            };
            let lab = Lab::start(&Topology::two_sites(&way)).context("making the lab")?;
            let [near, far] = lab.sites() else { anyhow::bail!("the lab made no two sites") };
            let places = [&Place::at(near), &Place::at(far)];
            let compared = compare("1 Gbit/s", places, &source, bytes / 2, rounds, say)?;
            verdicts.push(
                Verdict::new(
                    "processor time of TLS against plaintext, 1 Gbit/s",
                    Goal::AtMost(1.5),
                    compared.ratio_cpu.median,
                    "x",
                )
                .with(&compared.ratio_cpu.text(2)),
            );
            (Some(compared), None)
        }
    };
    Ok(Tls { loopback, link, no_link, machine: load.since()?, verdicts })
}

fn compare(
    name: &str,
    places: [&Place; 2],
    source: &Source,
    bytes: u64,
    rounds: u32,
    say: &dyn Fn(&str),
) -> Result<Compared> {
    let scratch = Scratch::new()?;
    let start = |name: &str, security| Pair::between(&scratch, name, places, security);
    let mut pairs = [start("clear", Security::Plaintext)?, start("tls", Security::Tls)?];
    let mut found: [Vec<Transfer>; 2] = Default::default();
    for round in 0..=rounds {
        for (number, (pair, transfers)) in pairs.iter_mut().zip(&mut found).enumerate() {
            let transfer = through_gateways(&scratch, source, pair, bytes, true)?;
            let what = ["plaintext", "TLS"][number];
            let counts = if round == 0 { ", warm-up" } else { "" };
            let [near, far] = transfer.cpu_seconds;
            say(&format!(
                "tls {name} {round}/{rounds} {what}: {:.0} MB/s, processor {near:.2} + {far:.2} s{counts}",
                rate(bytes, &transfer)
            ));
            if round > 0 {
                transfers.push(transfer);
            }
            std::thread::sleep(SETTLE);
        }
    }
    compared(name, bytes, &found)
}

fn compared(place: &str, bytes: u64, found: &[Vec<Transfer>; 2]) -> Result<Compared> {
    let none = "no round was measured";
    let rates = found.each_ref().map(|all| all.iter().map(|t| rate(bytes, t)).collect::<Vec<_>>());
    let per_gb = |transfer: &Transfer| transfer.cpu_seconds.iter().sum::<f64>() / (bytes as f64 / 1e9);
    let cpu = found.each_ref().map(|all| all.iter().map(per_gb).collect::<Vec<_>>());
    let rounds = |at: usize| -> Result<Rounds> {
        Ok(Rounds {
            encrypted: at == 1,
            mb_per_s: Spread::of(rates[at].iter().copied()).context(none)?,
            cpu_seconds_per_gb: Spread::of(cpu[at].iter().copied()).context(none)?,
        })
    };
    Ok(Compared {
        place: place.to_owned(),
        bytes,
        plaintext: rounds(0)?,
        tls: rounds(1)?,
        ratio_throughput: paired_ratio(&rates[1], &rates[0]).context(none)?,
        ratio_cpu: paired_ratio(&cpu[1], &cpu[0]).context(none)?,
    })
}

impl Tls {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("TLS, random bytes; {}\n", self.machine);
        for compared in [Some(&self.loopback), self.link.as_ref()].into_iter().flatten() {
            text += &format!(
                "  {}, {} MiB{:<10}{:>26}  processor s per GB, both gateways\n",
                compared.place,
                compared.bytes >> 20,
                "",
                "MB/s median (min..max)"
            );
            for rounds in [&compared.plaintext, &compared.tls] {
                let name = if rounds.encrypted { "TLS" } else { "plaintext" };
                text += &format!(
                    "  {name:<24}{:>26}  {}\n",
                    rounds.mb_per_s.text(0),
                    rounds.cpu_seconds_per_gb.text(2)
                );
            }
        }
        if let Some(why) = &self.no_link {
            text += &format!("  no link of 1 Gbit/s: {why}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_tls_against_plaintext_of_the_same_round() {
        let of = |seconds: [f64; 2], cpu: f64| {
            seconds.map(|seconds| Transfer { seconds, cpu_seconds: [cpu, cpu] }).to_vec()
        };
        let found = [of([1.0, 2.0], 1.0), of([2.0, 4.0], 1.4)];
        let compared = compared("here", 2_000_000_000, &found).unwrap();
        assert_eq!(compared.ratio_throughput.all, [0.5, 0.5]);
        assert!((compared.ratio_cpu.median - 1.4).abs() < 1e-9);
        assert_eq!(compared.plaintext.cpu_seconds_per_gb.median, 1.0);
        assert!(super::compared("here", 1, &Default::default()).is_err());
    }
}
