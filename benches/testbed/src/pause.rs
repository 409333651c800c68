//! How long a guest stood still in a move, by its own heartbeat.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Serial;
use crate::limits::BEAT_WAIT;

/// What the guest's own heart says about the move.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// From the last heartbeat at the source to the first at the destination, less the time that lies between those
    /// two beats of a guest that is not moved. Not below zero.
    pub pause: Duration,
    /// How exact that is: the largest deviation of the source's last 100 beats from their interval.
    pub resolution: Duration,
    /// The last beat seen at the source.
    pub last_at_source: u64,
    /// The first beat seen at the destination; always a later one.
    pub first_at_destination: u64,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "pause {:.1} ms (+-{:.1})", ms(self.pause), ms(self.resolution))
    }
}

/// Measures the pause from the heartbeats at both ends.
///
/// # Errors
/// When one side has seen no heartbeat, or a beat was seen at both: then two guests ran.
pub fn pause_between(source: &Serial, destination: &Serial, interval: Duration) -> Result<Pause> {
    let last = source.last_beat().context("no heartbeat was ever seen at the source")?;
    destination.wait_beat(None, BEAT_WAIT).context("the guest has no heartbeat at the destination")?;
    let first = destination.first_beat().context("no heartbeat at the destination")?;
    ensure!(
        first.number > last.number,
        "beat {} was seen at the destination after beat {} at the source: the guest ran on both sides",
        first.number,
        last.number,
    );
    // A beat cut in two by the move was seen on neither side: the numbers tell how many lie between.
    let steps = u32::try_from(first.number - last.number).unwrap_or(u32::MAX);
    let gap = first.at.saturating_duration_since(last.at);
    Ok(Pause {
        pause: gap.saturating_sub(interval.saturating_mul(steps)),
        resolution: jitter(source, interval),
        last_at_source: last.number,
        first_at_destination: first.number,
    })
}

/// The interval of a guest's heartbeats as the host sees it: the median of the last 100.
///
/// # Errors
/// When there are too few to tell: the guest has just become ready; waits for them first.
pub fn beat_interval(serial: &Serial) -> Result<Duration> {
    const ENOUGH: u64 = 20;
    serial.wait_beat(Some(ENOUGH), BEAT_WAIT)?;
    let mut gaps = gaps(serial);
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied().context("too few heartbeats to tell their interval")
}

fn gaps(serial: &Serial) -> Vec<Duration> {
    let beats = serial.beats();
    let recent = &beats[beats.len().saturating_sub(101)..];
    recent.windows(2).map(|pair| pair[1].at.saturating_duration_since(pair[0].at)).collect()
}

fn jitter(serial: &Serial, interval: Duration) -> Duration {
    gaps(serial).into_iter().map(|gap| gap.abs_diff(interval)).max().unwrap_or(interval)
}
