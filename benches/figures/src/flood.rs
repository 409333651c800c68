//! A thousand connections a second of nobody in particular, beside a transfer between two gateways that know each other.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use novacron_testbed::stats::{Spread, paired_ratio};
use novacron_testbed::{Scratch, Security};
use serde::Serialize;

use crate::limits::{FLOOD_HELD_MAX, FLOOD_PER_S, PROGRESS_WAIT, SETTLE};
use crate::load::{Load, MachineLoad};
use crate::pair::{Pair, Place};
use crate::relay::{Transfer, rate, through_gateways};
use crate::report::{Goal, Verdict};
use crate::transfer::Source;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Flood {
    bytes: u64,
    quiet_mb_per_s: Spread,
    flooded_mb_per_s: Spread,
    /// Flooded against quiet of the same round.
    ratio: Spread,
    /// Connections a second that were made.
    connections_per_s: Spread,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Measures `rounds` rounds of both, after one that does not count.
pub(crate) fn measure(bytes: u64, rounds: u32, say: &dyn Fn(&str)) -> Result<Flood> {
    let (scratch, source) = (Scratch::new()?, Source::new()?);
    let here = Place::default();
    let mut pair = Pair::between(&scratch, "flood", [&here, &here], Security::Tls)?;
    let address = pair.destination.peer()?.strip_prefix("tcp:").context("no TCP address")?;
    let address: SocketAddr = address.parse().context("the gateway's address")?;
    let (mut quiet, mut flooded, mut made) = (Vec::new(), Vec::new(), Vec::new());
    let load = Load::start()?;
    for round in 0..=rounds {
        let alone = through_gateways(&scratch, &source, &mut pair, bytes, true)?;
        std::thread::sleep(SETTLE);
        let strangers = Strangers::begin(address);
        let beside = through_gateways(&scratch, &source, &mut pair, bytes, true);
        let per_s = strangers.end()?;
        let beside = beside?;
        let counts = if round == 0 { ", warm-up" } else { "" };
        say(&format!(
            "flood {round}/{rounds}: {:.0} MB/s alone, {:.0} MB/s beside {per_s:.0} connections a second{counts}",
            rate(bytes, &alone),
            rate(bytes, &beside)
        ));
        if round > 0 {
            quiet.push(alone);
            flooded.push(beside);
            made.push(per_s);
        }
        std::thread::sleep(SETTLE);
    }
    report(bytes, [&quiet, &flooded], &made, load.since()?)
}

fn report(
    bytes: u64,
    [quiet, flooded]: [&[Transfer]; 2],
    made: &[f64],
    machine: MachineLoad,
) -> Result<Flood> {
    let none = "no round was measured";
    let rates = |all: &[Transfer]| all.iter().map(|transfer| rate(bytes, transfer)).collect::<Vec<_>>();
    let (quiet, flooded) = (rates(quiet), rates(flooded));
    let ratio = paired_ratio(&flooded, &quiet).context(none)?;
    let connections_per_s = Spread::of(made.iter().copied()).context(none)?;
    let verdicts = vec![
        Verdict::new("a transfer beside 1,000 strangers a second", Goal::AtLeast(0.9), ratio.median, "x")
            .with(&format!("{}; {} connections a second", ratio.text(2), connections_per_s.text(0))),
    ];
    Ok(Flood {
        bytes,
        quiet_mb_per_s: Spread::of(quiet).context(none)?,
        flooded_mb_per_s: Spread::of(flooded).context(none)?,
        ratio,
        connections_per_s,
        machine,
        verdicts,
    })
}

impl Flood {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        format!(
            "{} MiB of random bytes over TLS beside strangers; {}\n  {:<24}{:>26}\n  {:<24}{:>26}\n",
            self.bytes >> 20,
            self.machine,
            "alone, MB/s",
            self.quiet_mb_per_s.text(0),
            "flooded, MB/s",
            self.flooded_mb_per_s.text(0)
        )
    }
}

/// A thread that connects [`FLOOD_PER_S`] times a second. Every second connection says a little garbage, the others nothing.
struct Strangers {
    over: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    began: Instant,
    thread: JoinHandle<()>,
}

impl Strangers {
    fn begin(address: SocketAddr) -> Self {
        let (over, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let began = Instant::now();
        let thread = std::thread::spawn({
            let (over, made) = (Arc::clone(&over), Arc::clone(&made));
            move || {
                let mut held = VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    let due = (began.elapsed().as_secs_f64() * f64::from(FLOOD_PER_S)) as u64;
                    while made.load(Ordering::Relaxed) < due && !over.load(Ordering::Relaxed) {
                        let number = made.fetch_add(1, Ordering::Relaxed);
                        // One that the gateway does not take in time is a connection all the same.
                        let Ok(mut socket) = TcpStream::connect_timeout(&address, PROGRESS_WAIT) else {
                            continue;
                        };
                        if number % 2 == 0 {
                            let _ = socket.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3]);
                        }
                        held.push_back(socket);
                        if held.len() > FLOOD_HELD_MAX {
                            held.pop_front();
                        }
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self { over, made, began, thread }
    }

    /// Ends it; returns how many connections a second were made.
    fn end(self) -> Result<f64> {
        let per_s = self.made.load(Ordering::Relaxed) as f64 / self.began.elapsed().as_secs_f64();
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread that connects panicked"))?;
        Ok(per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_come_as_often_as_they_should() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let strangers = Strangers::begin(listener.local_addr().unwrap());
        let began = Instant::now();
        for _ in 0..100 {
            listener.accept().unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(90), "{:?}", began.elapsed());
        drop(listener);
        assert!(strangers.end().unwrap() > 0.0);
    }

    #[test]
    fn the_ratio_is_of_the_same_round() {
        let of = |seconds: f64| vec![Transfer { seconds, cpu_seconds: [1.0, 1.0] }];
        let machine =
            MachineLoad { seconds: 1.0, processors_busy: 1.0, processors_stolen: 0.0, load_average: 1.0 };
        let flood = report(1_000_000, [&of(1.0), &of(1.25)], &[998.0], machine).unwrap();
        assert_eq!((flood.ratio.all.as_slice(), flood.verdicts[0].reached()), (&[0.8][..], false));
        assert!(flood.table().contains("strangers"));
    }
}
