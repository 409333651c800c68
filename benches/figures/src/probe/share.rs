//! What probing takes: of a processor, of a gateway that does nothing else; and of the path.

use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result};
use serde::Serialize;

use super::sites::Sites;
use super::{Probes, link, number};
use crate::report::{Goal, Verdict};

/// Links asked for, Mbit/s: the slowest for which the share of the path is promised, and one whose trains are the longest.
const RATES_MBIT: [f64; 2] = [50.0, 1800.0];
const RTT_MS: f64 = 20.0;
/// The first trains of a path are not bound to its share.
const FIRST: Duration = Duration::from_secs(10);
/// How long is looked.
const STEADY: Duration = Duration::from_secs(60);

/// What was taken on one link.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Share {
    rate_mbit: f64,
    /// Processor time of the whole process, user and system, of one core.
    process_percent: f64,
    /// Of the threads that probe and answer alone.
    probing_percent: f64,
    /// Of a gateway that was not told of probes, meanwhile.
    idle_percent: f64,
    /// Bytes of probes, whole Ethernet frames, of what the link carries.
    path_percent: f64,
}

/// Processor time of a process, and of its threads whose names begin so, nanoseconds.
fn spent_ns(pid: u32, name: &str) -> Result<(f64, f64)> {
    let (mut all, mut named) = (0.0, 0.0);
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = entry?.path();
        let read = |file: &str| fs::read_to_string(Path::new(&folder).join(file));
        // A thread may have ended since.
        let (Ok(thread), Ok(said)) = (read("comm"), read("schedstat")) else { continue };
        let ns: f64 = said.split_whitespace().next().and_then(|ns| ns.parse().ok()).context("schedstat")?;
        all += ns;
        if thread.starts_with(name) {
            named += ns;
        }
    }
    Ok((all, named))
}

pub(super) fn measure(sites: &Sites, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    for rate_mbit in RATES_MBIT {
        sites.set(&link(Some(rate_mbit), RTT_MS, 0.0))?;
        let mut pair = sites.gateways(&[], &[])?;
        let mut idle = sites.idle()?;
        thread::sleep(FIRST);
        let (pid, idle_pid) = (pair.a.process().pid(), idle.process().pid());
        let look = || -> Result<_> { Ok((spent_ns(pid, "probe")?, spent_ns(idle_pid, "probe")?.0)) };
        let ((process, probing), idle_before) = look()?;
        let bytes = number(&pair.path()?, "/wire_bytes")?;
        thread::sleep(STEADY);
        let ((process_after, probing_after), idle_after) = look()?;
        let record = pair.path()?;
        idle.process().must_run()?;
        let percent = |ns: f64| ns / STEADY.as_nanos() as f64 * 100.0;
        let bits = (number(&record, "/wire_bytes")? - bytes) * 8.0;
        let share = Share {
            rate_mbit,
            process_percent: percent(process_after - process),
            probing_percent: percent(probing_after - probing),
            idle_percent: percent(idle_after - idle_before),
            path_percent: bits / (rate_mbit * 1e6 * STEADY.as_secs_f64()) * 100.0,
        };
        say(&format!("{share:?}"));
        found.records.push((format!("share at {rate_mbit} Mbit/s"), record));
        found.shares.push(share);
    }
    let most = |of: fn(&Share) -> f64| found.shares.iter().map(of).fold(0.0, f64::max);
    let told = |of: &dyn Fn(&Share) -> String| {
        found
            .shares
            .iter()
            .map(|share| format!("{} Mbit/s: {}", share.rate_mbit, of(share)))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let detail = told(&|share| {
        format!(
            "{:.2} %, of it {:.2} % on the threads of probes; {:.2} % without probes",
            share.process_percent, share.probing_percent, share.idle_percent
        )
    });
    let what = "processor time of a gateway that only probes, of a core, for a minute; the worst link";
    let of_core =
        Verdict::new(what, Goal::AtMost(1.0), most(|share| share.process_percent), "%").with(&detail);
    let detail = told(&|share| format!("{:.3} %", share.path_percent));
    let what = "what probes take of the path to the peer, whole frames, for a minute; the worst link";
    let of_path = Verdict::new(what, Goal::AtMost(1.0), most(|share| share.path_percent), "%").with(&detail);
    found.verdicts.extend([of_core, of_path]);
    Ok(())
}
