//! What an answer costs in the kernel and in userspace, and how long it takes, by turns over one pair of veth devices.
//!
//! A client asks as fast as a peer may. The gateway at its end answers nobody, but holds the program as well: a veth device takes
//! what the other end's program sends back only while it has one itself (`veth_xdp_xmit` in Linux). It does so in every turn.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_protocol::probe::packet::MeasuredBy;
use novacron_testbed::Security;
use serde::Serialize;

use super::Probes;
use super::client::Client;
use super::sites::{PORT, SECRET, Sites};
use super::veth::Veth;
use crate::report::{Goal, Verdict};

/// Turns of each.
const TURNS: usize = 3;
/// How long each lasts: tens of thousands of probes.
const TURN: Duration = Duration::from_secs(10);
/// Before it, until processors and caches are as they are.
const WARM_UP: Duration = Duration::from_secs(1);
/// Where the client asks from.
const CLIENT_PORT: u16 = 7403;
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// A turn.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cost {
    /// Who answered, as the client was told.
    by: &'static str,
    answers: usize,
    lost: u64,
    /// Processor time of each answer, nanoseconds: the program's, or that of the thread that answers.
    ns_each: f64,
    /// The whole process's, user and system.
    process_ns_each: f64,
    rtt_median_us: f64,
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

fn turn(sites: &Sites, veth: &Veth, in_kernel: bool) -> Result<Cost> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (own, responder) = (SocketAddr::new(veth.a, CLIENT_PORT), SocketAddr::new(veth.b, PORT));
    let xdp = if in_kernel { "driver" } else { "off" };
    let arguments = words(&["--xdp", xdp, "--probe-peer", &own.to_string()]);
    let plaintext = Security::Plaintext;
    let mut b = sites.gateway(sites.b()?, &format!("b-cost-{xdp}"), veth.b, &arguments, &plaintext)?;
    let other_end = words(&["--xdp", "driver"]);
    let _a = sites.gateway(sites.a()?, &format!("a-cost-{xdp}"), veth.a, &other_end, &plaintext)?;
    let mut client = Client::at(sites.a()?, own, responder, &SECRET)?;
    client.ask(WARM_UP)?;
    let pid = b.process().pid();
    let spent = || if in_kernel { program_ns(pid) } else { thread_ns(pid) };
    let (before, process_before) = (spent()?, b.process().usage()?.cpu);
    let answers = client.ask(TURN)?;
    let (after, process_after) = (spent()?, b.process().usage()?.cpu);
    let count = answers.rtts_ns.len();
    ensure!(count > 0, "nobody answered over veth: {}", b.process().log_tail());
    let us = |part: f64| answers.rtts_ns[((count as f64 * part) as usize).min(count - 1)] as f64 / 1e3;
    Ok(Cost {
        by: match answers.by {
            MeasuredBy::Nobody => "nobody",
            MeasuredBy::Userspace => "userspace",
            MeasuredBy::XdpGeneric => "xdp_generic",
            MeasuredBy::XdpDriver => "xdp_driver",
        },
        answers: count,
        lost: answers.lost,
        ns_each: (after - before) / count as f64,
        process_ns_each: (process_after - process_before).as_nanos() as f64 / count as f64,
        rtt_median_us: us(0.5),
        rtt_p99_us: us(0.99),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(super) fn measure(sites: &Sites, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    let _statistics = Statistics::on()?;
    let veth = Veth::between(sites)?;
    for _ in 0..TURNS {
        for in_kernel in [true, false] {
            let cost = turn(sites, &veth, in_kernel)?;
            say(&format!(
                "{}: {:.0} ns an answer (process {:.0}), median {:.1}, p99 {:.1} us of {} answers, {} lost",
                cost.by,
                cost.ns_each,
                cost.process_ns_each,
                cost.rtt_median_us,
                cost.rtt_p99_us,
                cost.answers,
                cost.lost
            ));
            found.costs.push(cost);
        }
    }
    let of = |by: &str, what: fn(&Cost) -> f64| {
        median(found.costs.iter().filter(|cost| cost.by == by).map(what).collect())
    };
    let (kernel, userspace) = (of("xdp_driver", |cost| cost.ns_each), of("userspace", |cost| cost.ns_each));
    let process = of("userspace", |cost| cost.process_ns_each);
    let what = "processor time of an answer in the kernel against userspace's thread, over veth; medians of 3 turns each";
    let verdict = Verdict::new(what, Goal::AtMost(1.0 / 3.0), kernel / userspace, "x");
    let detail = format!("{kernel:.0} against {userspace:.0} ns; {process:.0} ns of the whole process");
    found.verdicts.push(verdict.with(&detail));
    let (kernel, userspace) =
        (of("xdp_driver", |cost| cost.rtt_p99_us), of("userspace", |cost| cost.rtt_p99_us));
    let what = "p99 of the round trip with the kernel's answers against userspace's; the same turns";
    let least = found.costs.iter().map(|cost| cost.answers).min().unwrap_or_default();
    let verdict = Verdict::new(what, Goal::AtMost(1.0), kernel / userspace, "x");
    found.verdicts.push(
        verdict.with(&format!("{kernel:.1} against {userspace:.1} us, of {least} answers a turn at least")),
    );
    Ok(())
}
