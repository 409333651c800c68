//! A socat at each site, as an operator would chain them: a unix socket in front, TCP between, a unix socket behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use novacron_testbed::{Process, wait};

use super::Stage;
use crate::limits::{LISTEN_WAIT, SOCAT_BUFFER_BYTES};
use crate::meter::Watched;
use crate::network::Place;

/// Both socats. They end when this is dropped.
pub(super) struct Relays {
    near: Process,
    far: Process,
    entry: PathBuf,
    exit: PathBuf,
}

impl Relays {
    /// Starts both; the one at the destination listens at `between`.
    pub(super) fn start(stage: &Stage<'_>, between: SocketAddr) -> Result<Self> {
        let path = |name: &str| stage.scratch.file(&format!("{name}-{}", between.port()));
        let (entry, exit) = (path("relay-in"), path("relay-out"));
        let listen = format!("TCP-LISTEN:{},bind={},reuseaddr", between.port(), between.ip());
        let far =
            start(stage, &stage.network.destination, &listen, &format!("UNIX-CONNECT:{}", exit.display()))?;
        let near = start(
            stage,
            &stage.network.source,
            &format!("UNIX-LISTEN:{}", entry.display()),
            &format!("TCP:{between}"),
        )?;
        Ok(Self { near, far, entry, exit })
    }

    /// Where the source connects.
    pub(super) fn entry(&self) -> &Path {
        &self.entry
    }

    /// Where the destination listens.
    pub(super) fn exit(&self) -> &Path {
        &self.exit
    }

    pub(super) fn processes(&self) -> Vec<Watched> {
        vec![
            Watched::new("source", "socat", self.near.pid()),
            Watched::new("destination", "socat", self.far.pid()),
        ]
    }
}

/// Starts one and waits until it listens.
fn start(stage: &Stage<'_>, place: &Place, from: &str, to: &str) -> Result<Process> {
    // Notices tell when it listens.
    let arguments = ["-d".into(), "-d".into(), format!("-b{SOCAT_BUFFER_BYTES}"), from.into(), to.into()];
    let name = format!("{}-socat", place.name);
    let process = Process::start_behind(&place.prefix, stage.scratch, &name, Path::new("socat"), &arguments)?;
    listening(process)
}

/// Waits until a socat that was started with notices says that it listens.
pub(super) fn listening(mut process: Process) -> Result<Process> {
    let listens = || {
        let log = std::fs::read_to_string(process.log()).context("reading socat's log")?;
        process.must_run()?;
        Ok(log.contains("listening on").then_some(()))
    };
    wait::until("socat listening", LISTEN_WAIT, listens)?;
    Ok(process)
}
