//! How busy the machine was with others while something was measured.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;
use serde::Serialize;

/// A start to compare a later look with.
pub(crate) struct Load {
    at: Instant,
    busy: f64,
    stolen: f64,
}

/// What the machine did between two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct MachineLoad {
    /// How long was looked.
    pub(crate) seconds: f64,
    /// Processors busy on average, with what was measured and with others.
    pub(crate) processors_busy: f64,
    /// Of them, processors that the machine's own host gave to somebody else.
    pub(crate) processors_stolen: f64,
    /// Runnable tasks of the last minute, at the end (proc(5), loadavg).
    pub(crate) load_average: f64,
}

impl Load {
    /// Looks now.
    pub(crate) fn start() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let (busy, stolen) = busy_and_stolen(&stat).context("/proc/stat is not understood")?;
        let per_second = clock_ticks_per_second().max(1) as f64;
        Ok(Self { at: Instant::now(), busy: busy as f64 / per_second, stolen: stolen as f64 / per_second })
    }

    /// Looks again.
    pub(crate) fn since(&self) -> Result<MachineLoad> {
        let now = Self::start()?;
        let seconds = now.at.duration_since(self.at).as_secs_f64().max(1e-3);
        let average = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
        let average = average.split(' ').next().and_then(|first| first.parse().ok());
        Ok(MachineLoad {
            seconds,
            processors_busy: (now.busy - self.busy) / seconds,
            processors_stolen: (now.stolen - self.stolen) / seconds,
            load_average: average.context("/proc/loadavg is not understood")?,
        })
    }
}

impl std::fmt::Display for MachineLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.2} processors busy, {:.2} stolen by the host, load average {:.1}",
            self.processors_busy, self.processors_stolen, self.load_average
        )
    }
}

/// Ticks of all processors: user, nice, system, irq, softirq and steal; and steal alone (proc(5)).
fn busy_and_stolen(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|f| f.parse().ok()).collect();
    let stolen = *fields.get(7)?;
    let idle = fields[3] + fields[4];
    Some((fields.iter().take(8).sum::<u64>() - idle, stolen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_are_not_busy() {
        assert_eq!(busy_and_stolen("cpu  1 2 4 100 200 8 16 32 5 5\ncpu0 1"), Some((63, 32)));
        assert_eq!(busy_and_stolen("cpu  1 2"), None);
    }

    #[test]
    fn this_machine_is_understood() {
        let load = Load::start().unwrap().since().unwrap();
        assert!(load.processors_busy >= 0.0 && load.load_average >= 0.0);
    }
}
