//! What a process has used.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;

/// Memory and processor time of a process, as proc(5) tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory now, bytes (VmRSS).
    pub rss_bytes: u64,
    /// The most there ever was, bytes (VmHWM).
    pub rss_bytes_max: u64,
    /// Processor time of all its threads, user and system. Resolution: a clock tick, 10 ms as a rule.
    pub cpu: Duration,
}

impl Usage {
    /// Reads the usage of a process.
    ///
    /// # Errors
    /// When there is no such process, or it has just ended.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("/proc/PID/status")?;
        let kib = |name| {
            kib_of(&status, name).with_context(|| format!("no {name} for process {pid}: has it ended?"))
        };
        Ok(Self {
            rss_bytes: kib("VmRSS")? << 10,
            rss_bytes_max: kib("VmHWM")? << 10,
            cpu: Self::cpu_of(pid)?,
        })
    }

    /// Processor time alone: known of a process that has ended as well, until it is waited for.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn cpu_of(pid: u32) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("/proc/PID/stat")?;
        let ticks = ticks_of(&stat).with_context(|| format!("/proc/{pid}/stat is not understood"))?;
        Ok(Duration::from_millis(ticks * 1000 / clock_ticks_per_second().max(1)))
    }
}

fn kib_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// utime + stime, fields 14 and 15. Field 2 is a name in parentheses that may hold anything, blanks included.
fn ticks_of(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to() {
        let before = Usage::of(std::process::id()).unwrap();
        let memory = vec![1u8; 32 << 20];
        let began = std::time::Instant::now();
        let mut sum = 0u64;
        while began.elapsed() < Duration::from_millis(200) {
            sum = memory.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
        }
        assert_ne!(sum, 0);
        let after = Usage::of(std::process::id()).unwrap();
        assert!(after.rss_bytes_max >= before.rss_bytes_max.max(after.rss_bytes / 2));
        assert!(after.rss_bytes >= 32 << 20);
        assert!(after.cpu > before.cpu);
    }

    #[test]
    fn names_with_blanks_and_parentheses_do_not_shift_fields() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0";
        assert_eq!(ticks_of(stat), Some(42));
        assert!(Usage::of(u32::MAX).is_err());
    }
}
