//! What an answer costs in the kernel and in userspace, by turns on one link.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use novacron_lab::Conditions;
use serde::Serialize;

use super::sites::{Pair, Sites};
use super::{Probes, number};
use crate::report::{Goal, Verdict};

/// Turns of each.
const TURNS: usize = 3;
/// How long each lasts.
const TURN: Duration = Duration::from_secs(12);
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// A turn.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cost {
    /// Who answered, as the prober was told.
    by: String,
    answers: f64,
    /// Processor time of each answer, nanoseconds.
    ns_each: f64,
    rtt_p99_us: f64,
}

/// The kernel counts what programs take, until this is dropped.
struct Statistics(String);

impl Statistics {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(STATISTICS).context(STATISTICS)?;
        fs::write(STATISTICS, "1").context(STATISTICS)?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(STATISTICS, self.0.trim());
    }
}

/// Time that the program of a process has run, nanoseconds; frames that it let pass are in it.
fn program_ns(pid: u32) -> Result<f64> {
    let mut sum = None;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may have gone since.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let found =
            text.lines().find_map(|line| line.strip_prefix("run_time_ns:")?.trim().parse::<f64>().ok());
        sum = match (sum, found) {
            (sum, None) => sum,
            (None, found) => found,
            // Several descriptors of one program tell the same.
            (Some(sum), Some(found)) => Some(f64::max(sum, found)),
        };
    }
    sum.with_context(|| format!("process {pid} holds no program"))
}

/// Processor time of the thread that answers, nanoseconds.
fn thread_ns(pid: u32) -> Result<f64> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = entry?.path();
        let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name));
        if read("comm").is_ok_and(|name| name.trim() == "probe-answers") {
            let said = read("schedstat")?;
            return said.split_whitespace().next().and_then(|ns| ns.parse().ok()).context("schedstat");
        }
    }
    anyhow::bail!("process {pid} has no thread that answers probes")
}

fn turn(pair: &mut Pair, in_kernel: bool) -> Result<Cost> {
    let pid = pair.b.process().pid();
    let spent = || if in_kernel { program_ns(pid) } else { thread_ns(pid) };
    let answers = |pair: &mut Pair| number(&pair.responder()?, "/counts/answered");
    std::thread::sleep(Duration::from_secs(2));
    let (answers_before, ns_before) = (answers(pair)?, spent()?);
    std::thread::sleep(TURN);
    let (answers_after, ns_after) = (answers(pair)?, spent()?);
    let record = pair.path()?;
    let answered = answers_after - answers_before;
    Ok(Cost {
        by: record["measured_by"].as_str().unwrap_or("nobody").to_owned(),
        answers: answered,
        ns_each: (ns_after - ns_before) / answered.max(1.0),
        rtt_p99_us: number(&record, "/rtt_p99_ns/value")? / 1e3,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(super) fn measure(sites: &Sites, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    let _statistics = Statistics::on()?;
    sites.set(&Conditions::default())?;
    for _ in 0..TURNS {
        for (xdp, in_kernel) in [("driver", true), ("off", false)] {
            let mut pair = sites.gateways(&[], &["--xdp", xdp])?;
            let cost = turn(&mut pair, in_kernel)?;
            say(&format!("{}: {:.0} ns an answer, p99 {:.0} us", cost.by, cost.ns_each, cost.rtt_p99_us));
            found.costs.push(cost);
        }
    }
    let of = |by: &str, what: fn(&Cost) -> f64| {
        median(found.costs.iter().filter(|cost| cost.by == by).map(what).collect())
    };
    let (kernel, userspace) = (of("xdp_driver", |cost| cost.ns_each), of("userspace", |cost| cost.ns_each));
    let what = "processor time of an answer in the kernel against userspace; medians of 3 turns each";
    let verdict = Verdict::new(what, Goal::AtMost(1.0 / 3.0), kernel / userspace, "x");
    found.verdicts.push(verdict.with(&format!("{kernel:.0} against {userspace:.0} ns")));
    let (kernel, userspace) =
        (of("xdp_driver", |cost| cost.rtt_p99_us), of("userspace", |cost| cost.rtt_p99_us));
    let what = "p99 of the round trip with the kernel's answers against userspace's; the same turns";
    let verdict = Verdict::new(what, Goal::AtMost(1.0), kernel / userspace, "x");
    found.verdicts.push(verdict.with(&format!("{kernel:.0} against {userspace:.0} us")));
    Ok(())
}
