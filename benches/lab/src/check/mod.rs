//! Whether links do what they are asked, measured from end to end by sockets in the sites.

mod traffic;

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::conditions::{Burst, Conditions};
use crate::control::Way;
use crate::lab::Lab;
use crate::limits::{CHECK_PACKETS, LATENESS_MS_ALLOWED};
use crate::topology::Topology;

/// What was asked of the lab, and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was measured.
    pub what: String,
    /// What was asked.
    pub asked: f64,
    /// What came of it.
    pub measured: f64,
    /// Of both.
    pub unit: &'static str,
    /// How far `measured` may be from `asked`.
    pub allowed: Allowed,
    /// Whether it is not further.
    pub passed: bool,
}

/// See [`Finding::allowed`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    /// By so much, to both sides.
    Within(f64),
    /// To smaller values.
    AtMost,
    /// To larger values.
    AtLeast,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    /// Of the lab's chance.
    pub seed: u64,
    /// How many wanted a processor when it began, on average over a minute, and how many processors there are: on a
    /// machine that others use, what fails may be their doing.
    pub load_average: f64,
    /// See `load_average`.
    pub processors: usize,
    /// In the order of their measurement.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether all findings are as they should be.
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.passed)
    }
}

impl Finding {
    fn new(what: String, asked: f64, measured: f64, unit: &'static str, allowed: Allowed) -> Self {
        let passed = match allowed {
            Allowed::Within(off) => (measured - asked).abs() <= off,
            Allowed::AtMost => measured <= asked,
            Allowed::AtLeast => measured >= asked,
        };
        Self { what, asked, measured, unit, allowed, passed }
    }
}

/// Round trips that are asked for, and probes of each.
const ROUND_TRIPS_MS: &[f64] = &[2.0, 10.0, 50.0, 200.0];
const PROBES: usize = 200;
/// Rates that are asked for, and how long each is measured.
const RATES_MBIT: &[f64] = &[10.0, 100.0, 500.0];
const RATE_TIME: Duration = Duration::from_secs(2);
/// How long a transfer by TCP is watched, after its start.
const BULK_TIME: Duration = Duration::from_secs(5);
/// What a lab must carry with a whole frame of 1514 bytes, and what one core must be enough for.
const CARRIES_MBIT: f64 = 2000.0;
const ONE_CORE_MBIT: f64 = 1000.0;

/// Measures everything; `progress` hears what is being done.
///
/// # Errors
/// When a lab cannot be made, or a measurement could not be made at all.
pub fn check(seed: u64, progress: impl Fn(&str)) -> Result<CheckReport> {
    let load = fs::read_to_string("/proc/loadavg").context("reading the load")?;
    let load_average = load.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut findings = Vec::new();
    let lab = Lab::start_with(&tuned(), seed)?;
    let set = |conditions: &Conditions| lab.set("wan", Way::Both, conditions);
    for rtt in ROUND_TRIPS_MS {
        progress(&format!("round trip of {rtt} ms"));
        set(&Conditions { delay_ms: rtt / 2.0, ..Conditions::default() })?;
        let mut took = traffic::echo(&lab, PROBES)?;
        took.sort_by(f64::total_cmp);
        let median = took.get(took.len() / 2).copied().context("no probe came back")?;
        let off = Allowed::Within((rtt * 0.05).max(0.5));
        findings.push(Finding::new(format!("round trip of {rtt} ms, median"), *rtt, median, "ms", off));
    }
    for rate in RATES_MBIT {
        progress(&format!("rate of {rate} Mbit/s"));
        set(&Conditions { rate_mbit: Some(*rate), ..Conditions::default() })?;
        let measured = traffic::flood(&lab, rate * 1.3, RATE_TIME)?;
        let off = Allowed::Within(rate * 0.05);
        findings.push(Finding::new(format!("rate of {rate} Mbit/s"), *rate, measured, "Mbit/s", off));
    }
    for (name, conditions) in losses() {
        progress(&format!("{name}, over {CHECK_PACKETS} packets"));
        set(&Conditions::default())?;
        // What is under way of the measurement before is none of this one's.
        lab.set("wan", Way::Forward, &conditions)?;
        let received = traffic::count(&lab, CHECK_PACKETS)?;
        let share = conditions.loss_share();
        let factor = conditions.burst.map_or(1.0, |burst| burst.variance_factor());
        let error = (share * (1.0 - share) / CHECK_PACKETS as f64 * factor).sqrt();
        let measured = 1.0 - received as f64 / CHECK_PACKETS as f64;
        let off = Allowed::Within(3.0 * error * 100.0);
        findings.push(Finding::new(name, share * 100.0, measured * 100.0, "%", off));
    }
    for (rate, delay_ms) in [(ONE_CORE_MBIT, 10.0), (CARRIES_MBIT * 1.25, 10.0)] {
        progress(&format!("TCP at {rate} Mbit/s"));
        set(&Conditions { rate_mbit: Some(rate), delay_ms, ..Conditions::default() })?;
        findings.extend(bulk(&lab, rate, delay_ms)?);
    }
    Ok(CheckReport { seed, load_average, processors, findings })
}

/// Two sites whose TCP has room for the product of the largest bandwidth and delay.
fn tuned() -> Topology {
    let mut topology = Topology::two_sites(&Conditions::default());
    for site in &mut topology.sites {
        for (name, value) in
            [("net.ipv4.tcp_rmem", "4096 131072 67108864"), ("net.ipv4.tcp_wmem", "4096 65536 67108864")]
        {
            site.sysctl.insert(name.to_owned(), value.to_owned());
        }
    }
    topology
}

fn losses() -> [(String, Conditions); 3] {
    let burst = Burst::of(1.0, 10.0);
    [
        ("loss of 0.1 %".to_owned(), Conditions { loss_percent: 0.1, ..Conditions::default() }),
        ("loss of 2 %".to_owned(), Conditions { loss_percent: 2.0, ..Conditions::default() }),
        ("loss of 1 % in runs of 10".to_owned(), Conditions { burst: Some(burst), ..Conditions::default() }),
    ]
}

fn bulk(lab: &Lab, rate: f64, delay_ms: f64) -> Result<Vec<Finding>> {
    let transfer = traffic::Bulk::start(lab)?;
    transfer.settle();
    lab.reset()?;
    let before = processor_seconds(lab.pid())?;
    let time = transfer.run(BULK_TIME)?;
    let cores = (processor_seconds(lab.pid())? - before) / time.as_secs_f64();
    let report = lab.report()?;
    drop(transfer);
    let way = &report.link("wan").context("the lab has lost its link")?.forward;
    let mbit = way.counters.delivered.bytes as f64 * 8e-6 / time.as_secs_f64();
    let is_rated = rate <= ONE_CORE_MBIT;
    let mut findings = Vec::new();
    if is_rated {
        // TCP may leave some of the link unused; what the lab costs is set against what it carried.
        let share = cores / mbit * ONE_CORE_MBIT;
        findings.push(Finding::new(
            "processors for 1 Gbit/s".to_owned(),
            1.0,
            share,
            "cores",
            Allowed::AtMost,
        ));
        let late = LATENESS_MS_ALLOWED.max(0.05 * 2.0 * delay_ms);
        let what = format!("lateness at {mbit:.0} Mbit/s, p99");
        findings.push(Finding::new(what, late, report.lateness_p99_ms(), "ms", Allowed::AtMost));
    } else {
        findings.push(Finding::new(
            "carried by one TCP".to_owned(),
            CARRIES_MBIT,
            mbit,
            "Mbit/s",
            Allowed::AtLeast,
        ));
    }
    Ok(findings)
}

/// What a process has used so far.
fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading what the lab has used")?;
    used_ticks(&stat)
        .map(|ticks| ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
        .context("/proc/PID/stat is not what it should be")
}

fn used_ticks(stat: &str) -> Option<u64> {
    // The name may hold anything, a parenthesis too; user and system time are the 12th and 13th field behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_behind_the_name_whatever_it_is() {
        let stat = "17 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0";
        assert_eq!(used_ticks(stat), Some(42));
        assert_eq!(used_ticks("17 (x"), None);
    }

    #[test]
    fn what_is_too_far_off_fails() {
        let finding = |measured, allowed| Finding::new(String::new(), 10.0, measured, "ms", allowed).passed;
        assert!(finding(10.5, Allowed::Within(0.5)) && !finding(10.6, Allowed::Within(0.5)));
        assert!(!finding(9.4, Allowed::Within(0.5)));
        assert!(finding(9.0, Allowed::AtMost) && !finding(10.1, Allowed::AtMost));
        assert!(finding(11.0, Allowed::AtLeast) && !finding(9.9, Allowed::AtLeast));
        assert!(!finding(f64::NAN, Allowed::Within(0.5)), "nothing measured is no success");
    }
}
