//! The guest inside a hypervisor: what it is to do, and what it says about its memory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Serial;
use crate::limits::{BEAT_WAIT, BOOT_WAIT, COMMAND_WAIT, VERIFY_WAIT};
use crate::serial::Mark;

/// What a guest is told on its kernel's command line; see the crate `novacron-guest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestOptions {
    /// Memory that is dirtied over and over, MiB.
    pub work_mib: u32,
    /// How fast, MB (10^6 bytes) a second.
    pub rate_mb: u32,
    /// Shares of zero, text and random pages.
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
            work_mib: 64,
            rate_mb: 20,
            mix: (10, 60, 30),
            beat: Duration::from_millis(5),
            fill: false,
            seed: 1,
        }
    }
}

impl GuestOptions {
    /// The kernel's command line. The kernel talks on the second serial port and little; what a test guest does not
    /// need to be safe from is switched off, as emulation makes it dear.
    pub(crate) fn command_line(&self) -> String {
        let (zero, text, random) = self.mix;
        format!(
            "console=ttyS1 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on mitigations=off nopti nokaslr \
             cryptomgr.notests init_on_alloc=0 transparent_hugepage=always \
             novacron.work_mib={} novacron.rate_mb={} novacron.mix={zero}:{text}:{random} novacron.beat_ms={} \
             novacron.fill={} novacron.seed={}",
            self.work_mib,
            self.rate_mb,
            self.beat.as_millis(),
            u8::from(self.fill),
            self.seed,
        )
    }
}

/// What a guest says when it has looked at all of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Pages looked at.
    pub pages: u64,
    /// Pages that did not hold what was written to them, now or at any time since the guest's start.
    pub bad: u64,
    /// Pages rewritten since the guest's start.
    pub dirtied: u64,
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
        Ok(field(&line, "work")? + field(&line, "fill")?)
    }

    /// Lets the guest look at all of its memory. That pages are bad is an answer, not an error.
    ///
    /// # Errors
    /// When it does not answer within [`VERIFY_WAIT`]: it may not be running.
    pub fn verify(&self) -> Result<Verified> {
        let line = self.ask("verify", "VERIFIED", VERIFY_WAIT)?;
        Ok(Verified {
            pages: field(&line, "pages")?,
            bad: field(&line, "bad")?,
            dirtied: field(&line, "dirtied")?,
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

    /// Sets the rate of the dirtier, MB (10^6 bytes) a second.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn set_rate(&self, rate_mb: u64) -> Result<()> {
        self.ask(&format!("rate {rate_mb}"), "RATE", COMMAND_WAIT).map(drop)
    }

    /// Asks what rate the dirtier reaches.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rate(&self) -> Result<DirtyRate> {
        let line = self.ask("stat", "STAT", COMMAND_WAIT)?;
        Ok(DirtyRate { set_mb: field(&line, "rate_mb")?, achieved_kb: field(&line, "achieved_kb")? })
    }

    fn ask(&self, command: &str, answer: &str, limit: Duration) -> Result<String> {
        let mark = self.serial.mark();
        self.serial.send(command)?;
        let line = self.serial.wait_line(mark, &[answer, "ERROR", "FATAL"], limit)?;
        ensure!(line.starts_with(answer), "the guest answered {command:?} with {line:?}");
        Ok(line)
    }
}

/// The number of `name=` in a line of the guest.
fn field(line: &str, name: &str) -> Result<u64> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no number {name} in the guest's line {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let line = "VERIFIED pages=12 bad=0 dirtied=7";
        assert_eq!(field(line, "pages").unwrap(), 12);
        assert!(field(line, "page").is_err());
        assert!(field("READY work=x", "work").is_err());
    }
}
