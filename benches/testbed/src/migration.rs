//! Drives a migration between two QEMUs over QMP and measures what the guest saw of it.
//!
//! The addresses are the caller's: the same URI on both sides is QEMU's own direct migration; a gateway's on the one
//! and a socket of the destination on the other goes through gateways.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use qapi::qmp::{self, MigrationCapability, MigrationStatus, MultiFDCompression};

use crate::limits::{EXIT_WAIT, MIGRATION_WAIT, POLL};
pub use crate::pause::{Pause, beat_interval, pause_between};
use crate::{Qemu, Scratch, port, wait};

/// What to migrate over and how. The return path is always there: without it a source never learns whether its
/// destination has loaded the guest.
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
    /// When to give it up.
    pub time_limit: Duration,
    /// multifd's connections; `None`: the main one alone. QEMU refuses it together with xbzrle and with postcopy.
    pub multifd_channels: Option<u8>,
    /// What multifd compresses pages with.
    pub multifd_compression: Option<Compression>,
    /// xbzrle's cache, bytes, a power of two; `None`: no xbzrle.
    pub xbzrle_cache_bytes: Option<u64>,
    /// Let the guest run at the destination after the first pass and fetch the rest; `None`: precopy alone.
    pub postcopy: Option<Postcopy>,
    /// The destination must agree to the switchover.
    pub switchover_ack: bool,
}

/// How multifd compresses, and at which level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zlib, 0 to 9.
    Zlib(u8),
    /// zstd, 0 to 20.
    Zstd(u8),
}

/// What is chosen of postcopy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postcopy {
    /// Pages that the guest waits for get a connection of their own.
    pub preempt: bool,
}

/// The migration was not done within its time limit. Before postcopy it was cancelled and the guest runs at the
/// source; after postcopy has begun it cannot be, and the guest is at the destination without all of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut {
    /// The limit.
    pub limit: Duration,
    /// The guest is lost: it needs pages that nobody will send.
    pub in_postcopy: bool,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.in_postcopy { "is stuck in postcopy" } else { "was cancelled" };
        write!(f, "the migration was not done within {} s and {what}", self.limit.as_secs_f32())
    }
}

impl std::error::Error for TimedOut {}

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
            time_limit: MIGRATION_WAIT,
            multifd_channels: None,
            multifd_compression: None,
            xbzrle_cache_bytes: None,
            postcopy: None,
            switchover_ack: false,
        }
    }

    /// Sets both sides up, migrates, and lets the destination run once the source says `completed`. The source then
    /// stands in `postmigrate`; it is not ended, so that a test can look at it.
    ///
    /// # Errors
    /// When the migration fails, with QEMU's own reason where it gives one: the destination was then not told to run,
    /// unless postcopy had begun. [`TimedOut`] when it is not done within its limit.
    pub fn run(&self, source: &mut Qemu, destination: &mut Qemu) -> Result<MigrationReport> {
        let (interval, began) = self.start(source, destination)?;
        self.finish(source, destination, interval, began)
    }

    /// Sees a migration that was [`Migration::dial`]led at `began` to its end: what [`Migration::run`] does after that.
    ///
    /// # Errors
    /// Those of [`Migration::run`].
    pub fn finish(
        &self,
        source: &mut Qemu,
        destination: &mut Qemu,
        interval: Duration,
        began: Instant,
    ) -> Result<MigrationReport> {
        let mut cont = Duration::ZERO;
        let switch = self.postcopy.is_some() && switch_to_postcopy(source, self.time_limit)?;
        if switch {
            // The source has stopped its guest for good: from here on the guest is the destination's. Where that has
            // not loaded it yet, it will run it as soon as it has.
            cont = timed(|| destination.cont())?;
        }
        wait_completed(source, self.time_limit.saturating_sub(began.elapsed()))?;
        if !switch {
            cont = timed(|| destination.cont())
                .context("the source has completed, but the destination did not take `cont`")?;
        }
        let elapsed = began.elapsed();
        let info = source.qmp().execute(qmp::query_migrate {})?;
        let sent = Sent::read(&info)?;
        let pause = pause_between(source.guest().serial(), destination.guest().serial(), interval)?;
        Ok(MigrationReport {
            elapsed,
            total: milliseconds(info.total_time),
            setup: milliseconds(info.setup_time),
            downtime: milliseconds(info.downtime),
            cont,
            pause,
            ram_bytes: sent.ram_bytes,
            sent_bytes: sent.bytes,
            stopped_bytes: sent.stopped_bytes,
            iterations: sent.passes,
            postcopy: switch,
        })
    }

    /// Sets both sides up and starts the migration without waiting for it. Returns the guest's heartbeat interval, as
    /// the host sees it, and when the source was told to begin.
    ///
    /// # Errors
    /// When either side refuses.
    pub fn start(&self, source: &mut Qemu, destination: &mut Qemu) -> Result<(Duration, Instant)> {
        let interval = self.prepare(source, destination)?;
        self.listen(destination)?;
        Ok((interval, self.dial(source)?))
    }

    /// Sets both sides up, and no more. Returns the guest's heartbeat interval, as the host sees it.
    ///
    /// # Errors
    /// When either side refuses.
    pub fn prepare(&self, source: &mut Qemu, destination: &mut Qemu) -> Result<Duration> {
        let interval = beat_interval(source.guest().serial())?;
        for side in [source, destination] {
            self.set_capabilities(side)?;
            let level = |wanted: fn(Compression) -> Option<u8>| self.multifd_compression.and_then(wanted);
            let parameters = qmp::MigrateSetParameters {
                multifd_channels: self.multifd_channels,
                // Said always: a hypervisor that a guest has come to is the source of its next move.
                multifd_compression: Some(match self.multifd_compression {
                    None => MultiFDCompression::none,
                    Some(Compression::Zlib(_)) => MultiFDCompression::zlib,
                    Some(Compression::Zstd(_)) => MultiFDCompression::zstd,
                }),
                multifd_zlib_level: level(|compression| match compression {
                    Compression::Zlib(level) => Some(level),
                    Compression::Zstd(_) => None,
                }),
                multifd_zstd_level: level(|compression| match compression {
                    Compression::Zstd(level) => Some(level),
                    Compression::Zlib(_) => None,
                }),
                xbzrle_cache_size: self.xbzrle_cache_bytes,
                max_bandwidth: Some(self.max_bandwidth),
                downtime_limit: Some(u64::try_from(self.downtime_limit.as_millis()).unwrap_or(u64::MAX)),
                ..qmp::MigrateSetParameters::default()
            };
            side.qmp().execute(qmp::migrate_set_parameters(parameters))?;
        }
        Ok(interval)
    }

    /// Lets the destination listen.
    ///
    /// # Errors
    /// When it cannot.
    pub fn listen(&self, destination: &mut Qemu) -> Result<()> {
        let uri = Some(self.incoming.clone());
        destination
            .qmp()
            .execute(qmp::migrate_incoming { uri, channels: None, exit_on_error: None })
            .map(drop)
    }

    /// Lets the source begin. Returns when it was told to: it counts its own time from before it answers.
    ///
    /// # Errors
    /// When it refuses.
    pub fn dial(&self, source: &mut Qemu) -> Result<Instant> {
        // What the source has said of the guest's arrival is not to be taken for news of its departure: an answer has
        // passed what was said before it.
        source.state()?;
        source.qmp().wait_event(Duration::ZERO, |_| None::<()>)?;
        // A QEMU that has said that a migration failed may still be cleaning up after it, and refuses the next until it has.
        let deadline = Instant::now() + EXIT_WAIT;
        loop {
            let uri = Some(self.outgoing.clone());
            let began = Instant::now();
            match source.qmp().execute(qmp::migrate { uri, channels: None, detach: None, resume: None }) {
                Ok(_) => return Ok(began),
                Err(error) if error.to_string().contains("duplicate yank") && Instant::now() < deadline => {
                    std::thread::sleep(POLL);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Switches on what is wanted, and off what an earlier move may have left on.
    fn set_capabilities(&self, side: &mut Qemu) -> Result<()> {
        let preempt = self.postcopy.is_some_and(|postcopy| postcopy.preempt);
        let states = |of: &[(MigrationCapability, bool)]| {
            let states =
                of.iter().map(|&(capability, state)| qmp::MigrationCapabilityStatus { capability, state });
            qmp::migrate_set_capabilities { capabilities: states.collect() }
        };
        let young = [
            (MigrationCapability::postcopy_preempt, preempt),
            (MigrationCapability::switchover_ack, self.switchover_ack),
        ];
        for unwanted in young.iter().filter(|(_, wanted)| !wanted) {
            // A QEMU that does not know it refuses; then it is off.
            let _ = side.qmp().execute(states(&[*unwanted]));
        }
        let mut wanted = vec![
            (MigrationCapability::return_path, true),
            (MigrationCapability::events, true),
            (MigrationCapability::multifd, self.multifd_channels.is_some()),
            (MigrationCapability::xbzrle, self.xbzrle_cache_bytes.is_some()),
            (MigrationCapability::postcopy_ram, self.postcopy.is_some()),
        ];
        wanted.extend(young.iter().filter(|(_, wanted)| *wanted));
        side.qmp().execute(states(&wanted)).map(drop)
    }
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    act()?;
    Ok(began.elapsed())
}

/// Waits for the first pass over the RAM, then for the source to have stopped its guest for postcopy. False: it
/// completed before.
fn switch_to_postcopy(source: &mut Qemu, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    let mut asked = false;
    loop {
        let info = source.qmp().execute(qmp::query_migrate {})?;
        match info.status {
            Some(MigrationStatus::postcopy_active) => return Ok(true),
            Some(MigrationStatus::completed) => return Ok(false),
            Some(MigrationStatus::failed | MigrationStatus::cancelled) => return Err(ended_badly(source)),
            Some(MigrationStatus::active)
                if !asked && info.ram.is_some_and(|ram| ram.dirty_sync_count > 1) =>
            {
                source.qmp().execute(qmp::migrate_start_postcopy {})?;
                asked = true;
            }
            _ => {}
        }
        if Instant::now() > deadline {
            cancel(source)?;
            return Err(TimedOut { limit, in_postcopy: false }.into());
        }
        std::thread::sleep(POLL);
    }
}

/// What a migration took.
#[derive(Clone, Copy, Debug)]
pub struct MigrationReport {
    /// From the command to the guest running at the destination with all of its memory there.
    pub elapsed: Duration,
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
    /// The guest ran at the destination before all of its memory was there.
    pub postcopy: bool,
}

/// What a source has sent of its guest's RAM.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The RAM.
    pub ram_bytes: u64,
    /// Bytes sent, repeats included.
    pub bytes: u64,
    /// Of them, those sent while the guest stood still.
    pub stopped_bytes: u64,
    /// Passes over the RAM.
    pub passes: u64,
}

impl Sent {
    /// Of the last migration of `source`.
    ///
    /// # Errors
    /// When it does not answer or has migrated nothing.
    pub fn of(source: &mut Qemu) -> Result<Self> {
        Self::read(&source.qmp().execute(qmp::query_migrate {})?)
    }

    fn read(info: &qmp::MigrationInfo) -> Result<Self> {
        let ram = info.ram.as_ref().context("the source tells nothing about its RAM")?;
        Ok(Self {
            ram_bytes: ram.total.unsigned_abs(),
            bytes: ram.transferred.unsigned_abs(),
            stopped_bytes: ram.downtime_bytes,
            passes: ram.dirty_sync_count.unsigned_abs(),
        })
    }
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

/// Waits until the source says `completed`.
///
/// # Errors
/// When it says `failed` or `cancelled`, or that it has lost its destination in postcopy. [`TimedOut`] when it says
/// nothing of it within `limit`; it is then cancelled.
pub fn wait_completed(source: &mut Qemu, limit: Duration) -> Result<()> {
    let ended = source.qmp().wait_event(limit, |event| match event {
        qmp::Event::MIGRATION { data, .. } => match data.status {
            MigrationStatus::completed
            | MigrationStatus::failed
            | MigrationStatus::cancelled
            | MigrationStatus::postcopy_paused => Some(data.status),
            _ => None,
        },
        _ => None,
    })?;
    match ended {
        Some(MigrationStatus::completed) => Ok(()),
        Some(_) => Err(ended_badly(source)),
        None => {
            let status = source.qmp().execute(qmp::query_migrate {})?.status;
            let in_postcopy = status == Some(MigrationStatus::postcopy_active);
            match status {
                Some(MigrationStatus::completed) => return Ok(()),
                Some(MigrationStatus::failed) => return Err(ended_badly(source)),
                _ if in_postcopy => {}
                _ => cancel(source)?,
            }
            Err(TimedOut { limit, in_postcopy }.into())
        }
    }
}

/// What the source says of a migration that did not complete.
fn ended_badly(source: &mut Qemu) -> anyhow::Error {
    match source.qmp().execute(qmp::query_migrate {}) {
        Ok(info) => anyhow!(
            "the migration ended as {:?}: {}",
            info.status,
            info.error_desc.unwrap_or_else(|| "no reason given".into())
        ),
        Err(error) => error.context("the migration did not complete, and the source does not say why"),
    }
}

/// Cancels a migration and waits until the source says so. The guest then runs at the source.
///
/// # Errors
/// When QEMU refuses or does not come to `cancelled`.
pub fn cancel(source: &mut Qemu) -> Result<()> {
    source.qmp().execute(qmp::migrate_cancel {})?;
    wait::until("the end of the cancelled migration", EXIT_WAIT, || {
        let status = source.qmp().execute(qmp::query_migrate {})?.status;
        ensure!(
            status != Some(MigrationStatus::completed),
            "the migration completed before it could be cancelled"
        );
        // Whether the command or a failure came first makes no difference to the guest.
        let over = matches!(status, Some(MigrationStatus::cancelled | MigrationStatus::failed));
        Ok(over.then_some(()))
    })
}

fn milliseconds(count: Option<i64>) -> Duration {
    Duration::from_millis(count.unwrap_or(0).unsigned_abs())
}
