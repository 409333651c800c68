//! `novactl` as a process: what a person types, and what comes of it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::limits::ANSWER_WAIT;
use crate::process::describe;
use crate::{Gateway, Process, Qemu, Scratch, artefact, wait};

/// The four that a migration is between.
pub struct Between<'a> {
    /// Where the guest runs.
    pub source: &'a Qemu,
    /// Where it is to run.
    pub destination: &'a Qemu,
    /// The source's gateway; it dials.
    pub source_gateway: &'a Gateway,
    /// The destination's gateway; it listens.
    pub destination_gateway: &'a Gateway,
}

/// A `novactl migrate` under way.
#[derive(Debug)]
pub struct Novactl {
    process: Process,
}

/// How a `novactl` ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// The object that `--json` printed.
    pub report: Value,
    /// Everything that it printed, for messages.
    pub said: String,
}

impl Novactl {
    /// Starts `novactl migrate --json` with more arguments, e.g. `["--via", "tcp"]`. What it prints goes to
    /// `<name>.log` in `scratch`; journals and sockets stay in `scratch` too.
    ///
    /// # Errors
    /// When the binary is missing or the destination's gateway does not listen.
    pub fn migrate(scratch: &Scratch, name: &str, between: &Between<'_>, extra: &[&str]) -> Result<Self> {
        Self::migrate_over(scratch, name, between, between.destination_gateway.peer()?, extra)
    }

    /// The same over another way to the destination's gateway, e.g. [`crate::Relay::peer`]. Its standard input stays
    /// open until [`Novactl::release`], for `--hold-at`.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn migrate_over(
        scratch: &Scratch,
        name: &str,
        between: &Between<'_>,
        peer: &str,
        extra: &[&str],
    ) -> Result<Self> {
        let log = scratch.file(&format!("{name}.log"));
        File::create(&log).with_context(|| format!("making {}", log.display()))?;
        Self::migrate_into(&log, scratch, name, between, peer, extra)
    }

    /// The same with what it prints going to `log`, e.g. `/dev/full`.
    ///
    /// # Errors
    /// Those of [`Novactl::migrate_over`].
    pub fn migrate_into(
        log: &Path,
        scratch: &Scratch,
        name: &str,
        between: &Between<'_>,
        peer: &str,
        extra: &[&str],
    ) -> Result<Self> {
        let qmp = [between.source.qmp_path(), between.destination.qmp_path()];
        let control = [between.source_gateway.control(), between.destination_gateway.control()];
        Self::migrate_at(log, scratch, name, qmp, control, peer, extra)
    }

    /// The same between any sockets, those of the source first: those of control processes, say, in the place of their
    /// gateways'.
    ///
    /// # Errors
    /// Those of [`Novactl::migrate_over`].
    pub fn migrate_at(
        log: &Path,
        scratch: &Scratch,
        name: &str,
        qmp: [&Path; 2],
        control: [&Path; 2],
        peer: &str,
        extra: &[&str],
    ) -> Result<Self> {
        let path = |path: &Path| path.display().to_string();
        let mut arguments = vec!["migrate".to_owned(), "--json".to_owned()];
        let named = [
            ("--source-qmp", path(qmp[0])),
            ("--destination-qmp", path(qmp[1])),
            ("--source-gateway", path(control[0])),
            ("--destination-gateway", path(control[1])),
            ("--peer", peer.to_owned()),
            ("--state-dir", path(&state_dir(scratch))),
            ("--socket-dir", path(scratch.path())),
        ];
        arguments.extend(named.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        arguments.extend(extra.iter().map(ToString::to_string));
        let program = artefact::binary("novactl")?;
        Ok(Self { process: Process::start_into(log, name, &program, &arguments, Stdio::piped())? })
    }

    /// Waits until it says that it is held at `step` of `--hold-at`, e.g. `Completed`.
    ///
    /// # Errors
    /// When it has ended or says nothing of it within `limit`.
    pub fn wait_held(&mut self, step: &str, limit: Duration) -> Result<()> {
        let line = format!("held at {step}");
        wait::until(&line, limit, || {
            let said = std::fs::read_to_string(self.process.log()).context("reading what novactl printed")?;
            if !said.contains(&line) {
                self.process.must_run()?;
                return Ok(None);
            }
            Ok(Some(()))
        })
    }

    /// Lets it go on from where it is held.
    pub fn release(&mut self) {
        self.process.close_stdin();
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`, or has printed no report.
    pub fn finish(&mut self, limit: Duration) -> Result<Ended> {
        let status = self.process.wait(limit)?;
        let said = std::fs::read_to_string(self.process.log()).context("reading what novactl printed")?;
        // Progress and warnings are sentences: the one line that is an object is the report.
        let line = said.lines().rfind(|line| line.starts_with('{'));
        let line =
            line.with_context(|| format!("novactl ({}) printed no report: {said}", describe(status)))?;
        let report = serde_json::from_str(line).context("novactl's report is no JSON")?;
        Ok(Ended { status, report, said })
    }

    /// Interrupts it, as ctrl-C does.
    ///
    /// # Errors
    /// When it has ended.
    pub fn interrupt(&mut self) -> Result<()> {
        self.process.signal(Signal::INT)
    }

    /// The process: to kill it, to ask how it is.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Ended {
    /// Fails unless the migration is reported as completed with equal digests. Returns the report.
    ///
    /// # Errors
    /// Everything that novactl printed.
    pub fn must_have_completed(&self) -> Result<&Value> {
        ensure!(self.status.success(), "novactl failed ({}): {}", describe(self.status), self.said);
        ensure!(self.report["outcome"] == "completed", "not completed: {}", self.said);
        ensure!(self.report["guest_running_at"] == "destination", "elsewhere: {}", self.said);
        ensure!(self.report["digest_equal"] == true, "the digests are not equal: {}", self.said);
        Ok(&self.report)
    }

    /// Fails unless the migration is reported to have ended as `outcome` (`failed`, `cancelled`) with the guest at
    /// its source. Returns the code of the reason.
    ///
    /// # Errors
    /// Everything that novactl printed.
    pub fn must_have_stayed(&self, outcome: &str) -> Result<&str> {
        ensure!(self.status.code() == Some(1), "exit code 1 is for that: {}", self.said);
        ensure!(self.report["outcome"] == outcome, "the outcome is not {outcome}: {}", self.said);
        ensure!(self.report["guest_running_at"] == "source", "elsewhere: {}", self.said);
        self.report["reason"]["code"].as_str().with_context(|| format!("no reason: {}", self.said))
    }
}

/// Where [`Novactl::migrate`] keeps its journals.
pub fn state_dir(scratch: &Scratch) -> PathBuf {
    scratch.file("state")
}

/// Runs another command of novactl to its end, e.g. `["cancel", "00c0ffee00c0ffee", "--gateway", path]`, and
/// returns its exit status and what it printed on both outputs.
///
/// # Errors
/// When the binary is missing or does not end within [`ANSWER_WAIT`].
pub fn run(scratch: &Scratch, name: &str, arguments: &[&str]) -> Result<(ExitStatus, String)> {
    let words: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let mut process = Process::start(scratch, name, &artefact::binary("novactl")?, &words)?;
    let status = process.wait(ANSWER_WAIT)?;
    let said = std::fs::read_to_string(process.log()).context("reading what novactl printed")?;
    Ok((status, said))
}
