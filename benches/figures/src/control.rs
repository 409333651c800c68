//! The control process: how fast it is ready, what it costs, how soon it tells, and what kill -9 loses.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use novacron_testbed::control::Control;
use novacron_testbed::limits::{ANSWER_WAIT, EXIT_WAIT};
use novacron_testbed::session::unix;
use novacron_testbed::stats::Spread;
use novacron_testbed::{Gateway, GatewayOptions, Rpc, Scratch, Session, wait};
use serde::Serialize;
use serde_json::{Value, json};

use crate::limits::{
    CALL_CONNECTIONS, CALL_TIME, CONTROL_BYTES_GOAL, CONTROL_IDLE, PROGRESS_SAMPLES, PROGRESS_WAIT,
};
use crate::load::{Load, MachineLoad};
use crate::report::{Goal, Verdict};

/// Bytes of a migration that is killed in its middle, before and after.
const PIECE_BYTES: usize = 1 << 20;
/// Components that wait for each other longest, as the specification orders them; where two wait side by side, both.
const PATH: [&[&str]; 5] =
    [&["security"], &["database", "network", "cache"], &["dataplane"], &["orchestrator"], &["api"]];

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ControlFigures {
    starts: u32,
    ready_ms: Spread,
    /// Both phases of components against the longest chain of them.
    of_critical_path: Spread,
    /// The same against all of them one after the other.
    of_sequential: Spread,
    idle_rss_mib: f64,
    idle_cores: f64,
    calls_per_s: f64,
    progress_ms: Spread,
    kills: u32,
    complete: u32,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Measures all of it: `starts` starts and stops, and `kills` kills in the middle of a migration each.
pub(crate) fn measure(starts: u32, kills: u32, say: &dyn Fn(&str)) -> Result<ControlFigures> {
    let scratch = Scratch::new()?;
    let load = Load::start()?;
    let started = starts_and_stops(&scratch, starts, say)?;
    let b = Gateway::start(&scratch, "b", &GatewayOptions::default())?;
    let mut control = Control::start(&scratch, "a", &[])?;
    let (idle_rss_mib, idle_cores) = idle(&mut control, say)?;
    let calls_per_s = calls(&control.socket(), say)?;
    let progress = progress(&scratch, &control, &b, say)?;
    let complete = killed(&scratch, &mut control, &b, kills, say)?;
    let machine = load.since()?;
    let none = "nothing was measured";
    let ready_ms = Spread::of(started.ready_ms).context(none)?;
    let of_critical_path = Spread::of(started.of_critical_path).context(none)?;
    let of_sequential = Spread::of(started.of_sequential).context(none)?;
    let progress_ms = Spread::of(progress).context(none)?;
    let verdicts = vec![
        Verdict::new("control: ready, with SQLite", Goal::AtMost(3.0), ready_ms.max / 1000.0, "s")
            .with(&format!("the slowest of {starts} starts; {} ms", ready_ms.text(0))),
        Verdict::new(
            "control: start against its critical path",
            Goal::AtMost(1.1),
            of_critical_path.median,
            "x",
        )
        .with(&format!(
            "{}; against one after the other {}",
            of_critical_path.text(2),
            of_sequential.text(2)
        )),
        Verdict::new(
            "control: starts and stops without a failure or a trace",
            Goal::AtLeast(1000.0),
            f64::from(starts),
            "",
        )
        .with("each ended with 0, left no process, socket or file, and made no namespace"),
        Verdict::new(
            "control: idle, resident",
            Goal::AtMost(CONTROL_BYTES_GOAL as f64 / 1048576.0),
            idle_rss_mib,
            "MiB",
        ),
        Verdict::new("control: idle, of a core", Goal::AtMost(1.0), idle_cores * 100.0, "%")
            .with(&format!("over {} s, its own time alone", CONTROL_IDLE.as_secs())),
        Verdict::new("control: status calls", Goal::AtLeast(5000.0), calls_per_s, "/s").with(&format!(
            "node.info and node.health by turns, {CALL_CONNECTIONS} connections, {} s",
            CALL_TIME.as_secs()
        )),
        Verdict::new("control: progress is visible after", Goal::AtMost(500.0), progress_ms.max, "ms")
            .with(&format!("the slowest of {PROGRESS_SAMPLES}; {}", progress_ms.text(0))),
        Verdict::new(
            "control: records complete after kill -9 in migrations",
            Goal::AtLeast(50.0),
            f64::from(complete),
            "",
        )
        .with(&format!("of {kills} kills, each in the middle of a session whose ends are sockets")),
    ];
    Ok(ControlFigures {
        starts,
        ready_ms,
        of_critical_path,
        of_sequential,
        idle_rss_mib,
        idle_cores,
        calls_per_s,
        progress_ms,
        kills,
        complete,
        machine,
        verdicts,
    })
}

impl ControlFigures {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        format!(
            "The control process; {}\n  {:<24}{:>26}\n  {:<24}{:>26}\n  {:<24}{:>26}\n",
            self.machine,
            "ready, ms",
            self.ready_ms.text(0),
            "of the critical path",
            self.of_critical_path.text(2),
            "progress seen after, ms",
            self.progress_ms.text(0)
        )
    }
}

#[derive(Default)]
struct Starts {
    ready_ms: Vec<f64>,
    of_critical_path: Vec<f64>,
    of_sequential: Vec<f64>,
}

fn starts_and_stops(scratch: &Scratch, starts: u32, say: &dyn Fn(&str)) -> Result<Starts> {
    let mut found = Starts::default();
    let mut control = Control::begin(scratch, "s", &[])?;
    let mut left = BTreeSet::new();
    for start in 0..starts {
        if start == 0 {
            control.wait_ready()?;
        } else {
            control.again(scratch, "s")?;
        }
        // It is noted a moment after it is so.
        let ready_ms = wait::until("the time until it was ready", ANSWER_WAIT, || {
            Ok(control.rpc()?.call("node.info", json!({}))?["ready_after_ms"].as_f64())
        })?;
        found.ready_ms.push(ready_ms);
        let (critical, sequential) = path(&control.metrics()?)?;
        found.of_critical_path.push(critical);
        found.of_sequential.push(sequential);
        let gateway = control.gateway_pid()?;
        for pid in [control.process().pid(), gateway] {
            ensure!(namespaces(pid)? == namespaces(std::process::id())?, "{pid} made a namespace");
        }
        let status = control.process().terminate()?;
        ensure!(status.success(), "start {start} ended with {status}: {}", control.process().log_tail());
        ensure!(!Path::new(&format!("/proc/{gateway}")).exists(), "start {start} left its gateway");
        ensure!(!control.socket().exists(), "start {start} left its socket");
        let files = files(&scratch.file("s"))?;
        ensure!(start < 2 || files == left, "start {start} left other files than the one before: {files:?}");
        left = files;
        if (start + 1) % 100 == 0 {
            say(&format!("control: {} starts and stops of {starts}", start + 1));
        }
    }
    Ok(found)
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        }
        found.insert(path.display().to_string());
    }
    Ok(found)
}

/// The namespaces that a process is in.
fn namespaces(pid: u32) -> Result<Vec<String>> {
    ["ipc", "mnt", "net", "pid", "user", "uts"]
        .iter()
        .map(|kind| {
            let link = fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
            Ok(link.display().to_string())
        })
        .collect()
}

/// Both phases of components against their longest chain, and against their sum.
fn path(metrics: &str) -> Result<(f64, f64)> {
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    let component = |name: &str| -> Result<f64> {
        let label = format!("component=\"{name}\"");
        let mut lines =
            metrics.lines().filter(|line| line.starts_with("novacron_bootstrap_component_seconds"));
        let line = lines.find(|line| line.contains(&label)).with_context(|| format!("no time of {name}"))?;
        value(line).context("no number")
    };
    let mut phases = 0.0;
    for line in metrics.lines().filter(|line| line.starts_with("novacron_bootstrap_phase_seconds")) {
        if line.contains("\"core\"") || line.contains("\"services\"") {
            phases += value(line).context("no number")?;
        }
    }
    let (mut critical, mut sequential) = (0.0, 0.0);
    for step in PATH {
        let times: Vec<f64> = step.iter().map(|name| component(name)).collect::<Result<_>>()?;
        critical += times.iter().copied().fold(0.0, f64::max);
        sequential += times.iter().sum::<f64>();
    }
    sequential += component("monitoring")? + component("models")?;
    ensure!(critical > 0.0, "no component took any time");
    Ok((phases / critical, phases / sequential))
}

fn idle(control: &mut Control, say: &dyn Fn(&str)) -> Result<(f64, f64)> {
    thread::sleep(Duration::from_secs(2));
    let (before, began) = (control.process().usage()?, Instant::now());
    thread::sleep(CONTROL_IDLE);
    let after = control.process().usage()?;
    let cores = (after.cpu - before.cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let mib = after.rss_bytes as f64 / 1048576.0;
    say(&format!("control: idle with {mib:.1} MiB and {:.2} % of a core", cores * 100.0));
    Ok((mib, cores))
}

/// Status calls a second, of callers that wait for each answer.
fn calls(socket: &Path, say: &dyn Fn(&str)) -> Result<f64> {
    let callers: Vec<_> = (0..CALL_CONNECTIONS)
        .map(|_| {
            let socket = socket.to_owned();
            thread::spawn(move || one_caller(&socket))
        })
        .collect();
    let mut per_s = 0.0;
    for caller in callers {
        per_s += caller.join().map_err(|_| anyhow!("a caller panicked"))??;
    }
    say(&format!("control: {per_s:.0} status calls a second"));
    Ok(per_s)
}

fn one_caller(socket: &Path) -> Result<f64> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    let (began, mut count) = (Instant::now(), 0u32);
    let mut chunk = vec![0; 64 << 10];
    while began.elapsed() < CALL_TIME {
        let method = if count % 2 == 0 { "node.info" } else { "node.health" };
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{count},\"method\":\"{method}\"}}\n");
        stream.write_all(line.as_bytes())?;
        let mut answer = Vec::new();
        while answer.last() != Some(&b'\n') {
            let read = stream.read(&mut chunk)?;
            ensure!(read > 0, "the control process hung up");
            answer.extend_from_slice(&chunk[..read]);
        }
        ensure!(answer.windows(9).any(|part| part == b"\"result\":"), "{}", String::from_utf8_lossy(&answer));
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// A migration from the control process's gateway to another, between sockets of ours.
struct Under {
    session: Session,
    source: UnixStream,
    destination: UnixStream,
    carried: usize,
}

impl Under {
    fn open(scratch: &Scratch, control: &Control, b: &Gateway, at: u32) -> Result<Self> {
        let session = Session::new()?;
        let (from, to) = (scratch.file(&format!("f{at}")), scratch.file(&format!("t{at}")));
        let listener = UnixListener::bind(&to)?;
        b.rpc()?.call("session.open", session.at_destination(&unix(&to), &json!({})))?;
        control.rpc()?.call("session.open", session.at_source(b.peer()?, &unix(&from), &json!({})))?;
        let mut source = UnixStream::connect(&from)?;
        source.write_all(&[1])?;
        let (mut destination, _) = listener.accept()?;
        destination.set_read_timeout(Some(PROGRESS_WAIT))?;
        destination.read_exact(&mut [0])?;
        Ok(Self { session, source, destination, carried: 1 })
    }

    fn carry(&mut self, bytes: usize) -> Result<()> {
        let mut source = self.source.try_clone()?;
        let writer = thread::spawn(move || source.write_all(&vec![5; bytes]));
        let mut arrived = vec![0; bytes];
        self.destination.read_exact(&mut arrived).context("the destination gets no more")?;
        writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        ensure!(arrived.iter().all(|byte| *byte == 5), "other bytes arrived");
        self.carried += bytes;
        Ok(())
    }

    fn close(mut self) -> Result<(Session, usize)> {
        self.source.shutdown(std::net::Shutdown::Write)?;
        ensure!(self.destination.read(&mut [0])? == 0, "bytes that nobody wrote");
        drop(self.destination);
        ensure!(self.source.read(&mut [0])? == 0, "the destination said something");
        Ok((self.session, self.carried))
    }
}

/// Milliseconds from the arrival of bytes at the destination until a watcher of the source's control process hears.
fn progress(scratch: &Scratch, control: &Control, b: &Gateway, say: &dyn Fn(&str)) -> Result<Vec<f64>> {
    let mut under = Under::open(scratch, control, b, 1_000_000)?;
    let mut rpc = control.rpc()?;
    rpc.call("session.watch", json!({"session": under.session.id, "interval_ms": 50}))?;
    let mut found = Vec::new();
    for sample in 0..PROGRESS_SAMPLES {
        // Out of step with everybody's looks.
        thread::sleep(Duration::from_millis(37 * u64::from(sample % 11)));
        let began = Instant::now();
        under.carry(PIECE_BYTES / 16)?;
        let all = under.carried as u64;
        heard(&mut rpc, all)?;
        found.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    under.close()?;
    say(&format!("control: progress heard {PROGRESS_SAMPLES} times"));
    Ok(found)
}

fn heard(rpc: &mut Rpc, bytes: u64) -> Result<()> {
    let deadline = Instant::now() + PROGRESS_WAIT;
    while Instant::now() < deadline {
        let told = rpc.notification(PROGRESS_WAIT)?.context("nothing is told")?;
        if told["params"]["guest_bytes"].as_u64().is_some_and(|seen| seen >= bytes) {
            return Ok(());
        }
    }
    bail!("{bytes} bytes were never seen")
}

/// How many migrations went on and were recorded to their end, of `kills` whose control process was killed in the middle:
/// by turns it comes back before the end and after it.
fn killed(
    scratch: &Scratch,
    control: &mut Control,
    b: &Gateway,
    kills: u32,
    say: &dyn Fn(&str),
) -> Result<u32> {
    let mut complete = 0;
    for kill in 0..kills {
        let mut under = Under::open(scratch, control, b, kill)?;
        under.carry(PIECE_BYTES)?;
        control.kill();
        under.carry(PIECE_BYTES)?;
        let (session, carried) = if kill % 2 == 0 {
            let ended = under.close()?;
            control.again(scratch, "a-again")?;
            ended
        } else {
            control.again(scratch, "a-again")?;
            under.carry(PIECE_BYTES)?;
            under.close()?
        };
        let record = wait::until("the migration's end in the records", EXIT_WAIT, || {
            Ok(recorded(control, &session)?.filter(|one| one["outcome"] != "running"))
        })?;
        let whole = record["outcome"] == "delivered"
            && record["source"]["guest_bytes"].as_u64() == Some(carried as u64)
            && record["ended_at"].is_string()
            && record["actor"].as_str().is_some_and(|actor| !actor.is_empty());
        ensure!(whole, "kill {kill}: {record}");
        complete += 1;
        if (kill + 1) % 10 == 0 {
            say(&format!("control: {} kills of {kills}", kill + 1));
        }
    }
    Ok(complete)
}

fn recorded(control: &Control, session: &Session) -> Result<Option<Value>> {
    let page = control.rpc()?.call("history.migrations", json!({"items_max": 5}))?;
    let all = page["migrations"].as_array().context("no migrations")?;
    Ok(all.iter().find(|one| one["session"] == session.id.as_str()).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_compared_with_its_longest_chain() {
        let line = |name: &str, seconds: f64| {
            format!("novacron_bootstrap_component_seconds{{phase=\"x\",component=\"{name}\"}} {seconds}\n")
        };
        let mut text: String = [("security", 1.0), ("database", 4.0), ("network", 2.0), ("cache", 1.0)]
            .into_iter()
            .chain([
                ("dataplane", 3.0),
                ("orchestrator", 1.0),
                ("api", 1.0),
                ("monitoring", 2.0),
                ("models", 1.0),
            ])
            .map(|(name, seconds)| line(name, seconds))
            .collect();
        text += "novacron_bootstrap_phase_seconds{phase=\"core\"} 8.5\n";
        text += "novacron_bootstrap_phase_seconds{phase=\"services\"} 2.5\n";
        text += "novacron_bootstrap_phase_seconds{phase=\"post-init\"} 9\n";
        let (critical, sequential) = path(&text).unwrap();
        assert!((critical - 1.1).abs() < 1e-9 && (sequential - 11.0 / 16.0).abs() < 1e-9);
        assert!(path("").is_err());
    }
}
