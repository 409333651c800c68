//! A guest, where it is to go, and a gateway at either side: what a test of one migration begins with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::limits::{BEAT_WAIT, EXIT_WAIT};
use crate::{Between, Gateway, GatewayOptions, Novactl, Qemu, QemuOptions, Scratch};

/// One guest, two hypervisors, two gateways.
pub struct Stage<'a> {
    scratch: &'a Scratch,
    options: QemuOptions,
    gateways: GatewayOptions,
    /// Where the guest runs.
    pub source: Qemu,
    /// Where it is to run.
    pub destination: Qemu,
    /// The source's gateway.
    pub source_gateway: Gateway,
    /// The destination's gateway.
    pub destination_gateway: Gateway,
    /// Hypervisors and gateways that were started, for their names.
    started: u32,
}

impl<'a> Stage<'a> {
    /// Boots the guest and waits for it.
    ///
    /// # Errors
    /// When something is missing or does not come up.
    pub fn set(scratch: &'a Scratch, options: &QemuOptions) -> Result<Self> {
        Self::set_with(scratch, options, &GatewayOptions::default())
    }

    /// The same with gateways of other options.
    ///
    /// # Errors
    /// Those of [`Stage::set`].
    pub fn set_with(scratch: &'a Scratch, options: &QemuOptions, gateways: &GatewayOptions) -> Result<Self> {
        let gateway = |name: &str| Gateway::start(scratch, name, gateways);
        let stage = Self {
            scratch,
            options: options.clone(),
            gateways: gateways.clone(),
            source: Qemu::source(scratch, "source", options)?,
            destination: Qemu::destination(scratch, "destination", options)?,
            source_gateway: gateway("source-gateway")?,
            destination_gateway: gateway("destination-gateway")?,
            started: 0,
        };
        stage.source.guest().wait_ready()?;
        Ok(stage)
    }

    /// The four, for novactl.
    pub fn between(&self) -> Between<'_> {
        Between {
            source: &self.source,
            destination: &self.destination,
            source_gateway: &self.source_gateway,
            destination_gateway: &self.destination_gateway,
        }
    }

    /// Starts `novactl migrate` with more arguments; `peer`: another way to the destination's gateway.
    ///
    /// # Errors
    /// When it does not start.
    pub fn migrate(&self, name: &str, peer: Option<&str>, extra: &[&str]) -> Result<Novactl> {
        let peer = peer.map_or_else(|| self.destination_gateway.peer(), Ok)?;
        Novactl::migrate_over(self.scratch, name, &self.between(), peer, extra)
    }

    fn name(&mut self, what: &str) -> String {
        self.started += 1;
        format!("{what}-{}", self.started)
    }

    /// A destination in the place of one that is of no more use.
    ///
    /// # Errors
    /// When it does not start.
    pub fn renew_destination(&mut self) -> Result<()> {
        let name = self.name("destination");
        self.destination = Qemu::destination(self.scratch, &name, &self.options)?;
        Ok(())
    }

    /// Gateways in the place of those that have ended.
    ///
    /// # Errors
    /// When one does not start.
    pub fn renew_gateways(&mut self) -> Result<()> {
        if self.source_gateway.process().exited()?.is_some() {
            let name = self.name("source-gateway");
            self.source_gateway = Gateway::start(self.scratch, &name, &self.gateways)?;
        }
        if self.destination_gateway.process().exited()?.is_some() {
            let name = self.name("destination-gateway");
            self.destination_gateway = Gateway::start(self.scratch, &name, &self.gateways)?;
        }
        Ok(())
    }

    /// Fails unless the guest runs at the source and only there, with its memory intact, and has never run at the
    /// destination.
    ///
    /// # Errors
    /// What is not so.
    pub fn must_have_stayed(&mut self) -> Result<()> {
        ensure!(!self.destination.runs_guest(), "a guest runs at the destination");
        ensure!(self.destination.guest().serial().first_beat().is_none(), "the guest ran at the destination");
        must_run_intact(&mut self.source)?;
        ensure!(!self.destination.runs_guest(), "a guest runs at the destination after a while");
        Ok(())
    }

    /// Fails unless the guest runs at the destination and only there, with its memory intact, and the source is gone.
    ///
    /// # Errors
    /// What is not so.
    pub fn must_have_moved(&mut self) -> Result<()> {
        let status = self.source.process().wait(EXIT_WAIT).context("the source should have quit")?;
        ensure!(status.success(), "the source did not quit in order: {status}");
        must_run_intact(&mut self.destination)
    }

    /// Fails unless no guest runs, now and for a while.
    ///
    /// # Errors
    /// Where one does.
    pub fn none_must_run(&mut self) -> Result<()> {
        for _ in 0..5 {
            ensure!(!self.source.runs_guest(), "a guest runs at the source");
            ensure!(!self.destination.runs_guest(), "a guest runs at the destination");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// The guest runs here, and it and its memory are as they should be.
///
/// # Errors
/// What is not so.
pub fn must_run_intact(here: &mut Qemu) -> Result<()> {
    let beat = here.guest().serial().last_beat().map_or(0, |beat| beat.number);
    ensure!(here.runs_guest(), "the guest does not run in {}", here.process().name());
    here.guest().must_be_intact()?;
    here.guest().serial().wait_beat(Some(beat + 1), BEAT_WAIT)?;
    ensure!(here.runs_guest(), "the guest runs no more in {}", here.process().name());
    Ok(())
}
