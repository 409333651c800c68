//! novactl dies in the middle of its commit. Nothing runs twice; `novactl recover` settles what is left, and refuses
//! to guess while it cannot see.

use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::{EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::session::wait_under_way;
use novacron_testbed::{QemuOptions, Scratch, Stage, novactl};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Exit codes, as novactl's help states them.
const DONE: i32 = 0;
const REFUSED: i32 = 4;

/// What a recovery came to.
struct Recovered {
    code: Option<i32>,
    report: Value,
    said: String,
}

fn recover(scratch: &Scratch, name: &str, extra: &[&str]) -> Result<Recovered> {
    let state = novactl::state_dir(scratch).display().to_string();
    let arguments = [&["recover", "--json", "--state-dir", &state], extra].concat();
    let (status, said): (ExitStatus, String) = novactl::run(scratch, name, &arguments)?;
    // What it prints as JSON is for people too: several lines, after those on standard error.
    let object = said.find("{\n").map(|start| &said[start..]);
    let object = object.with_context(|| format!("no report ({status}): {said}"))?;
    let report = serde_json::from_str(object).with_context(|| format!("the report is no JSON: {said}"))?;
    Ok(Recovered { code: status.code(), report, said })
}

impl Recovered {
    fn must_be_settled(&self, place: &str) -> Result<()> {
        ensure!(self.code == Some(DONE) && self.report["settled"] == true, "not settled: {}", self.said);
        ensure!(self.report["guest_running_at"] == place, "not at the {place}: {}", self.said);
        Ok(())
    }

    fn must_be_refused(&self, why: &str) -> Result<()> {
        ensure!(self.code == Some(REFUSED) && self.report["settled"] == false, "not refused: {}", self.said);
        let reason = self.report["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains(why), "the reason does not say {why:?}: {}", self.said);
        Ok(())
    }
}

/// Migrates and kills novactl where `--hold-at` holds it.
fn killed_at(stage: &Stage<'_>, step: &str, held: &str) -> Result<()> {
    let mut running = stage.migrate("novactl", None, &["--hold-at", step])?;
    running.wait_held(held, MIGRATION_WAIT)?;
    running.process().kill();
    Ok(())
}

/// Nothing is left that a second recovery would find.
fn nothing_is_left(scratch: &Scratch) -> Result<()> {
    let again = recover(scratch, "again", &[])?;
    ensure!(again.code == Some(DONE), "{}", again.said);
    let left: Vec<_> = std::fs::read_dir(scratch.path())?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("novacron-"))
        .collect();
    ensure!(left.is_empty(), "directories were left: {left:?}");
    Ok(())
}

#[test]
fn novactl_dies_between_completed_and_cont() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        killed_at(&stage, "completed", "Completed")?;
        stage.none_must_run()?;

        // A look changes nothing.
        let looked = recover(scratch, "look", &["--dry-run"])?;
        ensure!(looked.code == Some(DONE) && looked.report["settled"] == false, "{}", looked.said);
        stage.none_must_run()?;

        // Somebody else holds the destination's QMP socket: it cannot be seen, so nothing is done.
        let other = UnixStream::connect(stage.destination.qmp_path())?;
        recover(scratch, "unseen-destination", &[])?.must_be_refused("cannot be seen")?;
        drop(other);
        let other = UnixStream::connect(stage.source.qmp_path())?;
        recover(scratch, "unseen-source", &[])?.must_be_refused("cannot be seen")?;
        drop(other);
        stage.none_must_run()?;

        recover(scratch, "recover", &[])?.must_be_settled("destination")?;
        stage.must_have_moved()?;
        nothing_is_left(scratch)
    })
}

#[test]
fn novactl_dies_between_cont_and_its_answer() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        killed_at(&stage, "cont-sent", "ContSent")?;
        ensure!(!stage.source.runs_guest(), "the source runs after cont was sent");

        // The destination hangs: nobody knows whether it runs the guest. The source must not be touched.
        stage.destination.process().signal(Signal::STOP)?;
        recover(scratch, "hanging", &["--wait", "1"])?.must_be_refused("cannot be seen")?;
        stage.destination.process().signal(Signal::CONT)?;
        ensure!(!stage.source.runs_guest(), "the source runs after a recovery that refused");

        recover(scratch, "recover", &[])?.must_be_settled("destination")?;
        stage.must_have_moved()?;
        nothing_is_left(scratch)
    })
}

/// `cont` was written to the journal and never reached the destination.
#[test]
fn novactl_dies_before_its_cont_arrives() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        killed_at(&stage, "completed", "Completed")?;
        let state = novactl::state_dir(scratch);
        let journal = std::fs::read_dir(&state)?.flatten().next().context("no journal")?.path();
        let text = std::fs::read_to_string(&journal)?;
        ensure!(text.contains("completed-seen"), "the journal's form has changed: {text}");
        let last = text.lines().rfind(|line| line.contains("completed-seen")).context("no such step")?;
        std::fs::write(&journal, format!("{text}{}\n", last.replace("completed-seen", "cont-sent")))?;

        recover(scratch, "recover", &[])?.must_be_settled("destination")?;
        stage.must_have_moved()
    })
}

#[test]
fn novactl_dies_before_the_source_has_quit() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        killed_at(&stage, "running", "Running")?;
        ensure!(stage.destination.runs_guest() && !stage.source.runs_guest());
        recover(scratch, "recover", &[])?.must_be_settled("destination")?;
        stage.must_have_moved()?;
        nothing_is_left(scratch)
    })
}

#[test]
fn novactl_dies_in_mid_precopy() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        let mut running = stage.migrate("novactl", None, &["--max-bandwidth", "10000000"])?;
        let session = wait_under_way(&stage.source_gateway, 8_000_000, MIGRATION_WAIT)?;
        running.process().kill();
        // It is under way and may still complete: nobody knows yet where the guest will be.
        recover(scratch, "under-way", &["--wait", "1"])?.must_be_refused("under way")?;
        ensure!(stage.source.runs_guest() && !stage.destination.runs_guest());
        stage
            .source_gateway
            .rpc()?
            .call("session.cancel", json!({"session": session, "reason": "its caller died"}))?;
        recover(scratch, "recover", &[])?.must_be_settled("source")?;
        stage.must_have_stayed()?;
        nothing_is_left(scratch)
    })
}

/// With both dead, the journal is all there is.
#[test]
fn a_source_that_is_gone_after_completed_is_not_waited_for() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        killed_at(&stage, "completed", "Completed")?;
        stage.source.process().kill();
        recover(scratch, "recover", &[])?.must_be_settled("destination")?;
        novacron_testbed::stage::must_run_intact(&mut stage.destination)?;
        nothing_is_left(scratch)
    })
}

/// The complete guest stands still at the source, and the only other copy is gone: a person decides.
#[test]
fn a_destination_that_is_gone_after_completed_is_a_persons_decision() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        killed_at(&stage, "completed", "Completed")?;
        stage.destination.process().kill();
        let refused = recover(scratch, "recover", &[])?;
        refused.must_be_refused("nothing listens at the destination")?;
        refused.must_be_refused("resume the source by hand")?;
        ensure!(!stage.source.runs_guest(), "a guess was made");
        // The person is certain.
        stage.source.cont()?;
        stage.must_have_stayed()?;
        std::thread::sleep(Duration::from_millis(100));
        recover(scratch, "after", &[])?.must_be_settled("source")?;
        stage.source.quit()?;
        stage.source.process().wait(EXIT_WAIT).map(drop)
    })
}
