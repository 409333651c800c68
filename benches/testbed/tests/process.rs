//! Processes that tests start end with them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use anyhow::Result;
use novacron_testbed::{Process, Scratch, wait};

const LIMIT: Duration = Duration::from_secs(10);

fn sleeper(scratch: &Scratch) -> Result<Process> {
    Process::start(scratch, "sleeper", Path::new("sleep"), &["600".to_owned()])
}

fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_dropped_process_is_gone() -> Result<()> {
    let scratch = Scratch::new()?;
    let process = sleeper(&scratch)?;
    let pid = process.pid();
    assert!(runs(pid));
    drop(process);
    assert!(!runs(pid));
    Ok(())
}

#[test]
fn a_process_outlives_the_thread_that_started_it() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut process =
        thread::scope(|scope| scope.spawn(|| sleeper(&scratch)).join().expect("no panic in the thread"))?;
    thread::sleep(Duration::from_millis(100));
    process.must_run()
}

/// Where the helper below writes its child's number; only set by the test that starts the helper.
const NOTE: &str = "NOVACRON_TEST_NOTE";

/// Not a test of its own: as a process of its own it plays the parent that is killed.
#[test]
fn helper_that_starts_a_process_and_waits() -> Result<()> {
    let Some(note) = std::env::var_os(NOTE) else { return Ok(()) };
    let scratch = Scratch::new()?;
    let process = sleeper(&scratch)?;
    // It has become what it was started for, and so is tied to us, once its name is no longer setpriv's.
    let became = || {
        Ok(fs::read_to_string(format!("/proc/{}/comm", process.pid()))?.starts_with("sleep").then_some(()))
    };
    wait::until("the child's start", LIMIT, became)?;
    fs::write(note, process.pid().to_string())?;
    thread::sleep(LIMIT);
    Ok(())
}

/// The parent is killed, so nothing in it is dropped: only the kernel can end the child.
#[test]
fn a_process_dies_with_a_parent_that_is_killed() -> Result<()> {
    let scratch = Scratch::new()?;
    let note = scratch.file("pid");
    let mut parent = Command::new(std::env::current_exe()?)
        .args(["--exact", "helper_that_starts_a_process_and_waits"])
        .env(NOTE, &note)
        // What it cannot remove any more goes with our own directory.
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::null())
        .spawn()?;
    let child = wait::until("the child's number", LIMIT, || {
        Ok(fs::read_to_string(&note).ok().and_then(|text| text.trim().parse::<u32>().ok()))
    });
    let ran = child.as_ref().is_ok_and(|child| runs(*child));
    parent.kill()?;
    parent.wait()?;
    assert!(ran);
    let child = child?;
    wait::until("the child's end", LIMIT, || Ok((!runs(child)).then_some(())))
}

#[test]
fn a_process_that_fails_says_why() -> Result<()> {
    let scratch = Scratch::new()?;
    let arguments = ["-c".to_owned(), "echo no such luck >&2; exit 3".to_owned()];
    let mut process = Process::start(&scratch, "failing", Path::new("sh"), &arguments)?;
    assert_eq!(process.wait(LIMIT)?.code(), Some(3));
    let error = process.must_run().unwrap_err().to_string();
    assert!(error.contains("no such luck") && error.contains("failing"), "{error}");
    Ok(())
}

#[test]
fn terminate_waits_for_the_end() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut process = sleeper(&scratch)?;
    process.terminate()?;
    assert!(process.exited()?.is_some());
    assert!(process.terminate().is_err());
    Ok(())
}

#[test]
fn a_prefix_becomes_the_program_and_keeps_its_number() -> Result<()> {
    let scratch = Scratch::new()?;
    let prefix = ["env", "WHO=me"].map(String::from);
    let arguments = ["-c", "echo $WHO $$"].map(String::from);
    let mut process = Process::start_behind(&prefix, &scratch, "prefixed", Path::new("sh"), &arguments)?;
    let pid = process.pid();
    assert!(process.wait(Duration::from_secs(20))?.success());
    assert_eq!(process.log_tail(), format!("me {pid}"));
    Ok(())
}
