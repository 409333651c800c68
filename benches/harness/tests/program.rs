//! The program as people use it. What needs a hypervisor or a lab says what is missing where there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_bench::ability::Ability;
use novacron_bench::record::{Outcome, Results};
use novacron_testbed::{Scratch, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_novacron-bench");
const LIMIT: Duration = Duration::from_secs(300);

fn bench(scratch: &Scratch, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--scenarios").arg(scratch.path()).args(words).stdin(Stdio::null());
    command
}

fn scenario(scratch: &Scratch, name: &str, text: &str) -> Result<PathBuf> {
    let path = scratch.file(&format!("{name}.toml"));
    fs::write(&path, text).context("writing a scenario")?;
    Ok(path)
}

fn small(contenders: &str, rest: &str) -> String {
    format!(
        "why = \"To see that it works.\"\ncontenders = [{contenders}]\nrepetitions = 2\ntime_limit_s = 60\n\
         [guest]\nworkload = \"dirty\"\nmemory_mib = 128\nwork_mib = 16\nrate = 2\n{rest}"
    )
}

fn results(directory: &Path) -> Result<Results> {
    let text = fs::read_to_string(directory.join("latest.json")).context("reading the results")?;
    serde_json::from_str(&text).context("the results are not what they should be")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether a test can go on; says what is missing.
fn can(what: &Result<(), String>) -> bool {
    if let Err(missing) = what {
        eprintln!("skipped: {missing}");
    }
    what.is_ok()
}

#[test]
fn a_mistake_is_refused_before_anything_runs() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scenario(&scratch, "wrong", &small("\"tcp\", \"tpc\"", ""))?;
    let output = bench(&scratch, &["run", "wrong"]).output()?;
    ensure!(!output.status.success(), "it was not refused");
    let place = format!("{}:2: contender \"tpc\" is not known", path.display());
    ensure!(said(&output).contains(&place), "{}", said(&output));
    let output = bench(&scratch, &["run", "missing"]).output()?;
    ensure!(said(&output).contains("there are: wrong"), "{}", said(&output));
    Ok(())
}

#[test]
fn the_list_tells_scenarios_and_contenders() -> Result<()> {
    let scratch = Scratch::new()?;
    scenario(&scratch, "far", &small("\"tcp\"", "[link]\nboth = { rate_mbit = 100, delay_ms = 7 }\n"))?;
    let output = bench(&scratch, &["list"]).output()?;
    let text = said(&output);
    for word in ["far", "100 Mbit/s, 14 ms RTT", "multifd-4-zstd", "zstd-long"] {
        ensure!(text.contains(word), "{word:?} is not in {text}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&bench(&scratch, &["list", "--json"]).output()?.stdout)?;
    ensure!(json["scenarios"][0]["name"] == "far", "{json}");
    Ok(())
}

#[test]
fn contenders_take_turns_and_what_they_did_is_written() -> Result<()> {
    if !can(&Ability::here().qemu) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    scenario(&scratch, "near", &small("\"tcp\", \"multifd-2\"", ""))?;
    let out = scratch.file("out");
    let output = bench(&scratch, &["run", "near", "--out"]).arg(&out).output()?;
    ensure!(output.status.success(), "{}", said(&output));
    let results = results(&out)?;
    let [near] = &results.scenarios[..] else {
        anyhow::bail!("one scenario ran, not {}", results.scenarios.len())
    };
    let order: Vec<_> =
        near.runs.iter().filter(|run| run.counts()).map(|run| run.contender.as_str()).collect();
    // On a busy machine some may be void; those that count are in their order all the same.
    ensure!(order.windows(2).all(|pair| pair[0] != pair[1]) || order.len() < 4, "{order:?}");
    for run in &near.runs {
        ensure!(matches!(run.outcome, Outcome::Completed | Outcome::Void { .. }), "{:?}", run.outcome);
        ensure!(run.guest_verified == Some(true) && run.total_ms.is_some_and(|ms| ms > 0.0), "{run:?}");
        ensure!(run.guest_bytes.is_some_and(|bytes| bytes > 1 << 20) && run.processes.len() == 2, "{run:?}");
        ensure!(run.lab.is_none() && run.wire_bytes().is_none(), "there is no lab on loopback: {run:?}");
    }
    ensure!(results.ended_at.is_some(), "it ended");
    let page = fs::read_to_string(out.join("latest.html")).context("reading the page")?;
    ensure!(page.contains("multifd-2") && page.contains("near"), "the page tells something else");
    Ok(())
}

/// What a lab and a harness of this process number would have left.
fn leavings(pid: u32) -> Vec<String> {
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let mut left = names(&std::env::temp_dir());
    left.retain(|name| name.starts_with(&format!("novacron-{pid}-")));
    left
}

fn children_of(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    numbers.filter(|&number| parent(number) == Some(pid)).collect()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ctrl_c_leaves_nothing_but_the_results() -> Result<()> {
    let ability = Ability::here();
    if !can(&ability.qemu) || !can(&ability.lab) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    // So slow that it is interrupted in the middle.
    scenario(&scratch, "slow", &small("\"tcp\"", "[link]\nboth = { rate_mbit = 2, delay_ms = 5 }\n"))?;
    let out = scratch.file("out");
    let log = fs::File::create(scratch.file("log")).context("making a log")?;
    let mut command = bench(&scratch, &["run", "slow", "--out"]);
    let mut child = Killed(command.arg(&out).stderr(log).spawn().context("starting the harness")?);
    let pid = child.0.id();
    let hypervisors = wait::until("a migration under way", LIMIT, || {
        let text = fs::read_to_string(scratch.file("log")).unwrap_or_default();
        ensure!(child.0.try_wait()?.is_none(), "it has ended: {text}");
        let children = children_of(pid);
        // Both hypervisors and the lab.
        Ok((children.len() >= 3).then_some(children))
    })?;
    std::thread::sleep(Duration::from_secs(1));
    let interrupted = Instant::now();
    let kill = Command::new("kill").args(["-INT", &pid.to_string()]).status()?;
    ensure!(kill.success(), "it could not be interrupted");
    let status = wait::until("the end of the harness", LIMIT, || Ok(child.0.try_wait()?))?;
    ensure!(status.code() == Some(130), "it ended with {status} after {:?}", interrupted.elapsed());
    wait::until("the end of its processes", Duration::from_secs(30), || {
        let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
        Ok(hypervisors.iter().all(gone).then_some(()))
    })?;
    ensure!(leavings(pid).is_empty(), "it left {:?}", leavings(pid));
    let results = results(&out)?;
    ensure!(results.ended_at.is_none() && results.scenarios.len() == 1, "{results:?}");
    ensure!(results.scenarios[0].runs.is_empty(), "what was interrupted is no run: {results:?}");
    Ok(())
}
