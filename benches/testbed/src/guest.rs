//! The guest inside a hypervisor: what it is to do, and what it says about its memory.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::limits::{BEAT_WAIT, BOOT_WAIT, COMMAND_WAIT, VERIFY_WAIT};
use crate::serial::Mark;
use crate::{Serial, Workload};

/// What a guest is told on its kernel's command line; see the crate `novacron-guest`.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestOptions {
    /// What it does.
    pub workload: Workload,
    /// How much of it, in the workload's own unit a second; `None`: `rate_mb` for the dirtier and random pages, else
    /// [`Workload::default_rate`].
    pub rate: Option<f64>,
    /// Memory that is dirtied over and over, MiB; all values that redis holds, or rows of the database.
    pub work_mib: u32,
    /// How fast, MB (10^6 bytes) a second.
    pub rate_mb: u32,
    /// Shares of zero, text and random pages. The workload of random pages has those alone.
    pub mix: (u32, u32, u32),
    /// Heartbeat interval, whole milliseconds.
    pub beat: Duration,
    /// Write all other memory with pages that are not zero.
    pub fill: bool,
    /// What the contents follow from.
    pub seed: u64,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self {
            workload: Workload::default(),
            rate: None,
            work_mib: Workload::default().default_work_mib(),
            rate_mb: 20,
            mix: (10, 60, 30),
            beat: Duration::from_millis(5),
            fill: false,
            seed: 1,
        }
    }
}

impl GuestOptions {
    /// A guest that does this, at the rate of `None` and with all else as by default.
    pub fn of(workload: Workload) -> Self {
        Self { workload, work_mib: workload.default_work_mib(), ..Self::default() }
    }

    /// The rate that the guest is given, in its workload's own unit a second.
    pub fn set_rate(&self) -> f64 {
        self.rate.unwrap_or(match self.workload {
            Workload::Dirty | Workload::Random => f64::from(self.rate_mb),
            other => other.default_rate(),
        })
    }

    /// The kernel's command line. The kernel talks on the second serial port and little; what a test guest does not
    /// need to be safe from is switched off, as emulation makes it dear.
    pub(crate) fn command_line(&self) -> String {
        let (zero, text, random) = if self.workload == Workload::Random { (0, 0, 1) } else { self.mix };
        format!(
            "console=ttyS1 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on mitigations=off nopti nokaslr \
             cryptomgr.notests init_on_alloc=0 transparent_hugepage=always \
             novacron.workload={} novacron.rate={:.3} novacron.work_mib={} novacron.mix={zero}:{text}:{random} \
             novacron.beat_ms={} novacron.fill={} novacron.seed={}",
            self.workload,
            self.set_rate(),
            self.work_mib,
            self.beat.as_millis(),
            u8::from(self.fill),
            self.seed,
        )
    }
}

/// What a guest says when it has looked at everything that it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Pages looked at; for other workloads keys, rows, files or blocks.
    pub pages: u64,
    /// Those that were not as the guest had left them, now or at any time since the guest's start.
    pub bad: u64,
    /// Pages rewritten since the guest's start; for other workloads steps of their work.
    pub dirtied: u64,
}

/// What a guest says about its work, since it was last asked or its rate was set.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The rate it was set to, units a second. 0 for a guest that is to do nothing.
    pub set: f64,
    /// The rate it reached, units a second of the guest's clock: the time in which no guest runs is none of it.
    pub achieved: f64,
    /// What is counted: `MB`, `requests`, `transactions` ...
    pub unit: String,
    /// How long ago it was last asked or set, by the guest's clock.
    pub over: Duration,
}

impl Work {
    /// The share of the set rate that was reached; 1 for a guest that was to do nothing.
    pub fn share(&self) -> f64 {
        if self.set > 0.0 { self.achieved / self.set } else { 1.0 }
    }
}

/// What a guest says about its dirtier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyRate {
    /// The rate it was set to, MB (10^6 bytes) a second.
    pub set_mb: u64,
    /// The rate it reached since it was last asked or set, kB (10^3 bytes) a second of the guest's clock.
    pub achieved_kb: u64,
}

/// Talks to a guest over its serial port.
pub struct Guest {
    serial: Serial,
}

impl Guest {
    pub(crate) fn new(serial: Serial) -> Self {
        Self { serial }
    }

    /// The serial port.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Waits until the guest has written its memory and its heart beats. Returns the pages it will verify.
    ///
    /// # Errors
    /// When it does not come up within [`BOOT_WAIT`] or gives up: says why.
    pub fn wait_ready(&self) -> Result<u64> {
        let line = self.serial.wait_line(Mark::START, &["READY", "FATAL"], BOOT_WAIT)?;
        ensure!(line.starts_with("READY"), "the guest gave up: {line}");
        self.serial.wait_beat(None, BEAT_WAIT)?;
        Ok(field::<u64>(&line, "work")? + field::<u64>(&line, "fill")?)
    }

    /// Lets the guest look at all that it keeps; its work stands still meanwhile. That pages are bad is an answer, not an error.
    ///
    /// # Errors
    /// When it does not answer within [`VERIFY_WAIT`]: it may not be running.
    pub fn verify(&self) -> Result<Verified> {
        let line = self.ask("verify", "VERIFIED", VERIFY_WAIT)?;
        Ok(Verified {
            pages: field(&line, "checked")?,
            bad: field(&line, "bad")?,
            dirtied: field(&line, "done")?,
        })
    }

    /// Verifies, and fails when a page is bad or none was looked at.
    ///
    /// # Errors
    /// Those of [`Guest::verify`]; bad pages, with the first ones the guest named.
    pub fn must_be_intact(&self) -> Result<Verified> {
        let verified = self.verify()?;
        ensure!(verified.pages > 0, "the guest looked at no page");
        ensure!(verified.bad == 0, "{} bad pages in the guest: {:?}", verified.bad, self.serial.lines("BAD"));
        Ok(verified)
    }

    /// Lets the guest damage one of its own pages, for tests that damage is found. Returns its index.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn corrupt(&self) -> Result<u64> {
        field(&self.ask("corrupt", "CORRUPTED", COMMAND_WAIT)?, "page")
    }

    /// Sets the rate of the work, units a second: of the dirtier, MB (10^6 bytes).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn set_rate(&self, rate: u64) -> Result<()> {
        self.ask(&format!("rate {rate}"), "RATE", COMMAND_WAIT).map(drop)
    }

    /// Asks what rate the dirtier reaches.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rate(&self) -> Result<DirtyRate> {
        let work = self.work()?;
        ensure!(work.unit == "MB", "the guest has no dirtier: it counts {}", work.unit);
        Ok(DirtyRate { set_mb: work.set.round() as u64, achieved_kb: (work.achieved * 1e3) as u64 })
    }

    /// Asks how much of its work the guest has done since it was last asked (or its rate was set, or it became
    /// ready). To be asked before [`Guest::verify`], which takes time from the work.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn work(&self) -> Result<Work> {
        let line = self.ask("work", "WORK", COMMAND_WAIT)?;
        Ok(Work {
            set: field(&line, "set")?,
            achieved: field(&line, "achieved")?,
            unit: field(&line, "unit")?,
            over: Duration::from_micros(field(&line, "us")?),
        })
    }

    fn ask(&self, command: &str, answer: &str, limit: Duration) -> Result<String> {
        let mark = self.serial.mark();
        self.serial.send(command)?;
        let line = self.serial.wait_line(mark, &[answer, "ERROR", "FATAL"], limit)?;
        ensure!(line.starts_with(answer), "the guest answered {command:?} with {line:?}");
        Ok(line)
    }
}

/// What stands behind `name=` in a line of the guest.
fn field<T: FromStr>(line: &str, name: &str) -> Result<T> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("no {name} in the guest's line {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let line = "VERIFIED checked=12 bad=0 done=7";
        assert_eq!(field::<u64>(line, "checked").unwrap(), 12);
        assert!(field::<u64>(line, "check").is_err());
        assert!(field::<u64>("READY work=x", "work").is_err());
    }

    #[test]
    fn rates_are_the_workloads_own() {
        let rate = |workload| GuestOptions { rate_mb: 7, ..GuestOptions::of(workload) }.set_rate();
        assert_eq!(rate(Workload::Dirty), 7.0);
        assert_eq!(rate(Workload::Idle), 0.0);
        let random = GuestOptions { rate: Some(2.5), ..GuestOptions::of(Workload::Random) };
        let line = random.command_line();
        assert!(line.contains("workload=random novacron.rate=2.500") && line.contains("mix=0:0:1"), "{line}");
    }

    #[test]
    fn a_guest_that_is_to_do_nothing_is_not_starved() {
        let work = Work { set: 0.0, achieved: 0.0, unit: "MB".into(), over: Duration::from_secs(1) };
        assert_eq!(work.share(), 1.0);
        assert_eq!(Work { set: 20.0, achieved: 15.0, ..work }.share(), 0.75);
    }
}
