//! A run that moves a guest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::{Migration, Pause, Qemu};

use super::direct::Direct;
use super::gateways::Gateways;
use super::guest::Traveller;
use super::{Stage, take};
use crate::contender::{Contender, Kind};
use crate::limits::BEFORE_MOVE;
use crate::meter::{Meter, Watched};
use crate::record::Run;
use crate::scenario::GuestPart;
use crate::workload;

/// Moves one guest again and again.
pub(super) struct GuestBench<'a> {
    pub(super) stage: &'a Stage<'a>,
    traveller: Traveller<'a>,
}

/// What a contender says of a move.
pub(super) struct Moved {
    /// From the command to the guest running at the destination.
    pub(super) total: Duration,
    /// As the source hypervisor counts it.
    pub(super) downtime: Option<Duration>,
    /// As the guest saw it.
    pub(super) pause: Pause,
    /// What the source hypervisor wrote.
    pub(super) guest_bytes: Option<u64>,
    /// Passes over the memory.
    pub(super) iterations: Option<u64>,
}

/// What moves a guest. Everything that takes time before the command is done when one exists.
pub(super) trait Mover {
    /// Processes that take part, but for hypervisors and lab.
    fn processes(&mut self) -> Vec<Watched>;

    /// Moves the guest. [`novacron_testbed::TimedOut`] when it was not done in time.
    fn go(&mut self, source: &mut Qemu, destination: &mut Qemu, interval: Duration) -> Result<Moved>;
}

impl<'a> GuestBench<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, guest: &GuestPart) -> Result<Self> {
        Ok(Self { stage, traveller: Traveller::new(stage, workload::options(guest)?) })
    }

    /// Moves the guest once. What is known is in `run` even when it fails.
    pub(super) fn run(&mut self, contender: &Contender, run: &mut Run) -> Result<()> {
        let mut source = self.traveller.take()?;
        let mut destination = match self.traveller.destination() {
            Ok(destination) => destination,
            Err(error) => {
                self.traveller.stayed(source);
                return Err(error);
            }
        };
        match self.move_once(contender, &mut source, &mut destination, run) {
            Ok(()) => {
                drop(source);
                self.traveller.moved(destination);
                Ok(())
            }
            Err(error) => {
                drop(destination);
                self.traveller.stayed(source);
                Err(error)
            }
        }
    }

    fn move_once(
        &self,
        contender: &Contender,
        source: &mut Qemu,
        destination: &mut Qemu,
        run: &mut Run,
    ) -> Result<()> {
        let stage = self.stage;
        stage.progress.phase("preparing");
        let mut mover: Box<dyn Mover> = match contender.kind {
            Kind::Novacron => Box::new(Gateways::start(stage, contender)?),
            Kind::Qemu | Kind::Socat => Box::new(Direct::start(stage, contender)?),
            Kind::ZstdLong | Kind::Iperf3 => anyhow::bail!("{} moves no guests", contender.name),
        };
        // A guest that has just come has not beaten often enough here to tell its heart's interval.
        std::thread::sleep(BEFORE_MOVE);
        // Whatever the contender before has set is gone with this.
        let interval = Migration::direct_unix(stage.scratch).prepare(source, destination)?;
        workload::work(source.guest()).context("asking the guest for its work before the move")?;

        let mut watched = vec![
            Watched::new("source", "hypervisor", source.process().pid()),
            Watched::new("destination", "hypervisor", destination.process().pid()),
        ];
        watched.extend(mover.processes());
        stage.progress.phase("migrating");
        let meter = Meter::start(watched, stage.network.wire(), stage.progress)?;
        let moved = mover.go(source, destination, interval);
        take(run, meter.stop()?);
        let moved = moved?;

        let work = workload::work(destination.guest());
        run.work = Some(work.context("asking the guest for its work after the move")?);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        run.total_ms = Some(ms(moved.total));
        run.downtime_ms = moved.downtime.map(ms);
        run.guest_pause_ms = Some(ms(moved.pause.pause));
        run.guest_pause_resolution_ms = Some(ms(moved.pause.resolution));
        run.guest_bytes = moved.guest_bytes;
        run.iterations = moved.iterations;
        stage.progress.phase("verifying");
        let verified = destination.guest().verify().context("letting the guest verify itself")?;
        run.guest_verified = Some(verified.bad == 0 && verified.pages > 0);
        ensure!(run.guest_verified == Some(true), "the guest found {} of its pages damaged", verified.bad);
        Ok(())
    }
}
