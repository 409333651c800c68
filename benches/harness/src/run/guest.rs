//! The guest of a scenario: it boots once, is moved, and is brought back for the next contender.

use std::time::Duration;

use anyhow::{Context, Result};
use novacron_testbed::{Migration, Qemu, QemuOptions};

use super::Stage;

/// A guest at the source, between runs.
pub(super) struct Traveller<'a> {
    stage: &'a Stage<'a>,
    options: QemuOptions,
    here: Option<Qemu>,
    started: u32,
}

impl<'a> Traveller<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, options: QemuOptions) -> Self {
        Self { stage, options, here: None, started: 0 }
    }

    fn name(&mut self, what: &str) -> String {
        self.started += 1;
        format!("{what}-{}", self.started)
    }

    fn options_at(&self, prefix: &[String]) -> QemuOptions {
        QemuOptions { prefix: prefix.to_vec(), ..self.options.clone() }
    }

    /// Takes the guest that runs at the source; boots one if there is none.
    pub(super) fn take(&mut self) -> Result<Qemu> {
        if let Some(mut here) = self.here.take()
            && here.runs_guest()
        {
            return Ok(here);
        }
        self.stage.progress.phase("booting a guest");
        let options = self.options_at(&self.stage.network.source.prefix);
        let name = self.name("guest");
        let booted = Qemu::source(self.stage.scratch, &name, &options).context("starting the guest")?;
        booted.guest().wait_ready().context("booting the guest")?;
        Ok(booted)
    }

    /// Starts a hypervisor at the destination that waits for the guest.
    pub(super) fn destination(&mut self) -> Result<Qemu> {
        let options = self.options_at(&self.stage.network.destination.prefix);
        let name = self.name("there");
        Qemu::destination(self.stage.scratch, &name, &options)
            .context("starting the destination's hypervisor")
    }

    /// Takes back a guest that was not moved.
    pub(super) fn stayed(&mut self, mut source: Qemu) {
        // One that a failed contender has left stopped or half gone is of no more use.
        self.here = source.runs_guest().then_some(source);
    }

    /// Brings a guest that has moved back to the source, past the link: a unix socket knows no namespaces.
    pub(super) fn moved(&mut self, mut there: Qemu) {
        self.stage.progress.phase("bringing the guest back");
        match self.bring_back(&mut there) {
            Ok(here) => self.here = Some(here),
            Err(error) => {
                let scenario = &self.stage.scenario.name;
                self.stage
                    .progress
                    .say(&format!("{scenario}: the guest did not come back ({error:#}); the next boots"));
            }
        }
    }

    fn bring_back(&mut self, there: &mut Qemu) -> Result<Qemu> {
        let options = self.options_at(&self.stage.network.source.prefix);
        let name = self.name("guest");
        let mut here = Qemu::destination(self.stage.scratch, &name, &options)?;
        let uri = format!("unix:{}", self.stage.scratch.file(&format!("{name}.back")).display());
        let migration = Migration {
            incoming: uri.clone(),
            outgoing: uri,
            // A guest that dirties faster than this machine copies would go round for ever.
            downtime_limit: Duration::from_secs(5),
            ..Migration::direct_unix(self.stage.scratch)
        };
        migration.run(there, &mut here)?;
        Ok(here)
    }
}
