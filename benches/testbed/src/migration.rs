//! Drives a migration between two QEMUs over QMP and measures what the guest saw of it.
//!
//! The addresses are the caller's: the same URI on both sides is QEMU's own direct migration; a gateway's on the one
//! and a socket of the destination on the other goes through gateways.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qapi::qmp::{self, MigrationCapability, MigrationStatus};

use crate::limits::{BEAT_WAIT, EXIT_WAIT, MIGRATION_WAIT};
use crate::{Qemu, Scratch, Serial, port};

/// What to migrate over and how.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Where the destination listens: `unix:/path` or `tcp:127.0.0.1:port`.
    pub incoming: String,
    /// Where the source connects to.
    pub outgoing: String,
    /// Bytes a second that QEMU may send.
    pub max_bandwidth: u64,
    /// The pause that QEMU aims for.
    pub downtime_limit: Duration,
    /// multifd's connections; `None`: the main one alone.
    pub multifd_channels: Option<u8>,
}

/// More than any link here has: QEMU takes 0 for no limit only since 8.1.
const UNLIMITED: u64 = 1 << 40;

impl Migration {
    /// QEMU to QEMU over a unix socket in `scratch`.
    pub fn direct_unix(scratch: &Scratch) -> Self {
        Self::over(&format!("unix:{}", scratch.file("migration").display()))
    }

    /// QEMU to QEMU over TCP on loopback.
    ///
    /// # Errors
    /// When no port is free.
    pub fn direct_tcp() -> Result<Self> {
        Ok(Self::over(&format!("tcp:127.0.0.1:{}", port::free()?)))
    }

    fn over(uri: &str) -> Self {
        Self {
            incoming: uri.to_owned(),
            outgoing: uri.to_owned(),
            max_bandwidth: UNLIMITED,
            downtime_limit: Duration::from_millis(300),
            multifd_channels: None,
        }
    }

    /// Sets both sides up, migrates, and lets the destination run once the source says `completed`. The source then
    /// stands in `postmigrate`; it is not ended, so that a test can look at it.
    ///
    /// # Errors
    /// When the migration fails or is not done within [`MIGRATION_WAIT`]; QEMU's own reason where it gives one. The
    /// destination was then not told to run.
    pub fn run(&self, source: &mut Qemu, destination: &mut Qemu) -> Result<MigrationReport> {
        let interval = self.start(source, destination)?;
        wait_completed(source, MIGRATION_WAIT)?;
        let to_cont = Instant::now();
        destination.cont().context("the source has completed, but the destination did not take `cont`")?;
        let cont = to_cont.elapsed();
        let info = source.qmp().execute(qmp::query_migrate {})?;
        let ram = info.ram.context("the source tells nothing about its RAM")?;
        let pause = pause_between(source.guest().serial(), destination.guest().serial(), interval)?;
        Ok(MigrationReport {
            total: milliseconds(info.total_time),
            setup: milliseconds(info.setup_time),
            downtime: milliseconds(info.downtime),
            cont,
            pause,
            ram_bytes: ram.total.unsigned_abs(),
            sent_bytes: ram.transferred.unsigned_abs(),
            stopped_bytes: ram.downtime_bytes,
            iterations: ram.dirty_sync_count.unsigned_abs(),
        })
    }

    /// Sets both sides up and starts the migration without waiting for it. Returns the guest's heartbeat interval, as
    /// the host sees it.
    ///
    /// # Errors
    /// When either side refuses.
    pub fn start(&self, source: &mut Qemu, destination: &mut Qemu) -> Result<Duration> {
        let interval = beat_interval(source.guest().serial())?;
        for side in [&mut *source, &mut *destination] {
            side.qmp().execute(qmp::migrate_set_capabilities { capabilities: self.capabilities() })?;
            let parameters = qmp::MigrateSetParameters {
                multifd_channels: self.multifd_channels,
                max_bandwidth: Some(self.max_bandwidth),
                downtime_limit: Some(u64::try_from(self.downtime_limit.as_millis()).unwrap_or(u64::MAX)),
                ..qmp::MigrateSetParameters::default()
            };
            side.qmp().execute(qmp::migrate_set_parameters(parameters))?;
        }
        let incoming = Some(self.incoming.clone());
        destination.qmp().execute(qmp::migrate_incoming {
            uri: incoming,
            channels: None,
            exit_on_error: None,
        })?;
        let outgoing = Some(self.outgoing.clone());
        source.qmp().execute(qmp::migrate { uri: outgoing, channels: None, detach: None, resume: None })?;
        Ok(interval)
    }

    fn capabilities(&self) -> Vec<qmp::MigrationCapabilityStatus> {
        // Without the return path a source never learns whether its destination has loaded the guest.
        [
            (MigrationCapability::return_path, true),
            (MigrationCapability::events, true),
            (MigrationCapability::multifd, self.multifd_channels.is_some()),
        ]
        .map(|(capability, state)| qmp::MigrationCapabilityStatus { capability, state })
        .to_vec()
    }
}

/// What a migration took.
#[derive(Clone, Copy, Debug)]
pub struct MigrationReport {
    /// From `migrate` to `completed`, as the source counts it.
    pub total: Duration,
    /// Of it, before the first byte of RAM.
    pub setup: Duration,
    /// How long no guest ran, as the source counts it: it does not see `cont`.
    pub downtime: Duration,
    /// How long `cont` took at the destination.
    pub cont: Duration,
    /// How long the guest's heart stood still.
    pub pause: Pause,
    /// The guest's RAM.
    pub ram_bytes: u64,
    /// Bytes of RAM sent, repeats included.
    pub sent_bytes: u64,
    /// Of them, those sent while the guest stood still.
    pub stopped_bytes: u64,
    /// Passes over the RAM.
    pub iterations: u64,
}

impl fmt::Display for MigrationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        write!(
            f,
            "total {} ms, downtime {} ms, {}, RAM {:.0} MB, sent {:.0} MB in {} passes, stopped {:.1} MB",
            self.total.as_millis(),
            self.downtime.as_millis(),
            self.pause,
            mb(self.ram_bytes),
            mb(self.sent_bytes),
            self.iterations,
            mb(self.stopped_bytes),
        )
    }
}

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

/// Waits until the source says `completed`.
///
/// # Errors
/// When it says `failed` or `cancelled`, or nothing of it within `limit`.
pub fn wait_completed(source: &mut Qemu, limit: Duration) -> Result<()> {
    let ended = source.qmp().wait_event(limit, |event| match event {
        qmp::Event::MIGRATION { data, .. } => match data.status {
            MigrationStatus::completed | MigrationStatus::failed | MigrationStatus::cancelled => {
                Some(data.status)
            }
            _ => None,
        },
        _ => None,
    })?;
    match ended {
        Some(MigrationStatus::completed) => Ok(()),
        Some(status) => {
            let info = source.qmp().execute(qmp::query_migrate {})?;
            bail!(
                "the migration ended as {status:?}: {}",
                info.error_desc.unwrap_or_else(|| "no reason given".into())
            )
        }
        None => {
            source.qmp().execute(qmp::migrate_cancel {})?;
            bail!("the migration was not done within {} s and was cancelled", limit.as_secs())
        }
    }
}

/// Cancels a migration and waits until the source says so. The guest then runs at the source.
///
/// # Errors
/// When QEMU refuses or does not come to `cancelled`.
pub fn cancel(source: &mut Qemu) -> Result<()> {
    source.qmp().execute(qmp::migrate_cancel {})?;
    crate::wait::until("the end of the cancelled migration", EXIT_WAIT, || {
        let status = source.qmp().execute(qmp::query_migrate {})?.status;
        Ok(matches!(status, Some(MigrationStatus::cancelled)).then_some(()))
    })
}

fn milliseconds(count: Option<i64>) -> Duration {
    Duration::from_millis(count.unwrap_or(0).unsigned_abs())
}
