//! What the guest is told on the kernel's command line, as `novacron.<name>=<value>`.
//!
//! | Name | Unit | Default |
//! |---|---|---|
//! | `workload` | a name of [`Workload`] | `dirty` |
//! | `rate` | units of the workload's own a second, decimals allowed | 20 |
//! | `work_mib` | MiB that are dirtied over and over; of values in redis, of rows in the database | 64 |
//! | `mix` | `zero:text:random`, shares of the pages | `10:60:30` |
//! | `beat_ms` | heartbeat interval | 5 |
//! | `fill` | 1: all memory left is written with pages that are not zero | 0 |
//! | `seed` | what the contents follow from | 1 |

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::limits::PAGE_BYTES;
use crate::pace::MILLIONTHS;

/// Shares of the kinds of pages, in whatever unit adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) zero: u32,
    pub(crate) text: u32,
    pub(crate) random: u32,
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// `dirty`, `idle`, `random`: its own pages; they differ in the rate and the mix they are given.
    Memory,
    /// A redis server under load.
    Redis,
    /// SQLite under writes.
    Database,
    /// A compiler at work.
    Compile,
    /// A disk that was read into the page cache.
    Disk,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) workload: Workload,
    /// Millionths of a unit a second.
    pub(crate) rate: u64,
    pub(crate) work_mib: u64,
    pub(crate) mix: Mix,
    pub(crate) beat: Duration,
    pub(crate) fill: bool,
    pub(crate) seed: u64,
}

impl Params {
    pub(crate) fn read() -> Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/cmdline")?)
    }

    /// An unknown `novacron.` name is an error: a typing mistake must not run a different test.
    pub(crate) fn parse(command_line: &str) -> Result<Self> {
        let mut params = Self {
            workload: Workload::Memory,
            rate: 20 * MILLIONTHS,
            work_mib: 64,
            mix: Mix { zero: 10, text: 60, random: 30 },
            beat: Duration::from_millis(5),
            fill: false,
            seed: 1,
        };
        for word in command_line.split_whitespace() {
            let Some((name, value)) = word.strip_prefix("novacron.").and_then(|word| word.split_once('='))
            else {
                continue;
            };
            let number = || value.parse::<u64>().with_context(|| format!("{word} is not a number"));
            match name {
                "work_mib" => params.work_mib = number()?,
                "workload" => params.workload = Workload::parse(value)?,
                "rate" => {
                    params.rate = millionths(value).with_context(|| format!("{word} is not a number"))?
                }
                "mix" => params.mix = Mix::parse(value)?,
                "beat_ms" => params.beat = Duration::from_millis(number()?),
                "fill" => params.fill = number()? != 0,
                "seed" => params.seed = number()?,
                _ => bail!("novacron.{name} is not known"),
            }
        }
        ensure!(params.work_mib > 0, "novacron.work_mib is 0: there would be nothing to verify");
        ensure!(!params.beat.is_zero(), "novacron.beat_ms is 0");
        Ok(params)
    }

    pub(crate) fn work_pages(&self) -> u64 {
        self.work_bytes() / PAGE_BYTES as u64
    }

    pub(crate) fn work_bytes(&self) -> u64 {
        self.work_mib << 20
    }
}

impl Workload {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "dirty" | "idle" | "random" => Self::Memory,
            "redis" => Self::Redis,
            "database" => Self::Database,
            "compile" => Self::Compile,
            "disk" => Self::Disk,
            _ => bail!("workload {name} is not known"),
        })
    }
}

/// Millionths of what a decimal number says; `None`: it is none, or has more than six decimals.
pub(crate) fn millionths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 6 {
        return None;
    }
    let decimals: u64 = format!("{decimals:0<6}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(MILLIONTHS)?.checked_add(decimals)
}

impl Mix {
    fn parse(text: &str) -> Result<Self> {
        let shares: Vec<u32> = text
            .split(':')
            .map(|share| share.parse().with_context(|| format!("mix {text} is not zero:text:random")))
            .collect::<Result<_>>()?;
        let [zero, text_share, random] = shares[..] else { bail!("mix {text} is not zero:text:random") };
        let sum = u64::from(zero) + u64::from(text_share) + u64::from(random);
        ensure!((1..=1_000_000).contains(&sum), "the shares of mix {text} add up to {sum}, not 1 to 1000000");
        Ok(Self { zero, text: text_share, random })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_where_nothing_is_said() {
        let params = Params::parse("quiet console=ttyS1 panic=-1").unwrap();
        assert_eq!(params.work_pages(), 64 * 256);
        assert!(!params.fill);
    }

    #[test]
    fn every_name_is_taken() {
        let line = "novacron.work_mib=3 novacron.rate=7.5 novacron.workload=random novacron.mix=0:1:1 novacron.beat_ms=2 novacron.fill=1 novacron.seed=9";
        let params = Params::parse(line).unwrap();
        assert_eq!(params.work_mib, 3);
        assert_eq!(params.rate, 7_500_000);
        assert_eq!(params.workload, Workload::Memory);
        assert_eq!(params.mix, Mix { zero: 0, text: 1, random: 1 });
        assert_eq!(params.beat, Duration::from_millis(2));
        assert!(params.fill);
        assert_eq!(params.seed, 9);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "novacron.work_mib=0",
            "novacron.beat_ms=0",
            "novacron.wrok_mib=1",
            "novacron.workload=none",
            "novacron.rate=-1",
            "novacron.rate=1.",
            "novacron.rate=0.1234567",
            "novacron.rate=99999999999999999999",
            "novacron.mix=1:2",
            "novacron.mix=0:0:0",
            "novacron.seed=x",
        ] {
            assert!(Params::parse(line).is_err(), "{line}");
        }
    }
}
