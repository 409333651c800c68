//! A wall clock that is set forward and back under a control process that runs. The process is the real one; its clock is
//! libfaketime's, which answers for the wall clock as a file says and leaves the steady one alone. The gateway has the
//! system's.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_testbed::control::Control;
use novacron_testbed::limits::ANSWER_WAIT;
use novacron_testbed::session::unix;
use novacron_testbed::{Gateway, GatewayOptions, Scratch, Session, artefact, novactl, wait};
use serde_json::{Value, json};

/// Where Debian and Ubuntu have it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// How soon a change of a session must stand in the store, on a machine that builds beside this test.
const RECORDED: Duration = Duration::from_secs(20);

/// A wall clock that can be set.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn new(scratch: &Scratch) -> Result<Self> {
        let clock = Self { file: scratch.file("clock") };
        clock.set("+0")?;
        Ok(clock)
    }

    /// So far from the system's, as libfaketime writes it: `+400d`.
    fn set(&self, offset: &str) -> Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{offset}\n"))?;
        fs::rename(&next, &self.file).context("setting the clock")
    }

    /// Words before a command line that give it this clock.
    fn words(&self) -> Vec<String> {
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display());
        let library = format!("LD_PRELOAD={LIBRARY}");
        ["env", &library, &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
            .map(str::to_owned)
            .to_vec()
    }
}

/// The gateway's program, without the clock.
fn gateway(scratch: &Scratch) -> Result<PathBuf> {
    let path = scratch.file("gateway.sh");
    let program = artefact::binary("novacron-gateway")?;
    fs::write(&path, format!("#!/bin/sh\nunset LD_PRELOAD\nexec '{}' \"$@\"\n", program.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Days from the system's clock to the process's, as an event of just now tells.
fn days_off(control: &Control) -> Result<i64> {
    let mut rpc = control.rpc()?;
    rpc.call("config.reload", json!({}))?;
    let log = rpc.call("audit.list", json!({"items_max": 500}))?;
    let last = log["entries"].as_array().and_then(|all| all.last()).context("no entry")?;
    let year = |text: &str| text.get(..4).and_then(|year| year.parse::<i64>().ok()).context("no year");
    let now = String::from_utf8(std::process::Command::new("date").args(["-u", "+%Y"]).output()?.stdout)?;
    Ok((year(last["at"].as_str().context("no time")?)? - year(&now)?) * 365)
}

#[test]
fn a_clock_that_jumps_loses_nothing() -> Result<()> {
    Scratch::with_logs(|scratch| {
        if !Path::new(LIBRARY).exists() {
            println!("skipped: libfaketime is not installed (benches/install.sh --tests)");
            return Ok(());
        }
        let clock = Clock::new(scratch)?;
        let b = Gateway::start(scratch, "b", &GatewayOptions::default())?;
        let program = json!(gateway(scratch)?).to_string();
        let more = [("dwcp.gateway_program", program.as_str())];
        let mut control = Control::start_behind(&clock.words(), scratch, "a", &more)?;
        ensure!(days_off(&control)? == 0);

        let session = Session::new()?;
        let (from, to) = (scratch.file("from"), scratch.file("to"));
        let listener = UnixListener::bind(&to)?;
        b.rpc()?.call("session.open", session.at_destination(&unix(&to), &json!({})))?;
        let mut open = session.at_source(b.peer()?, &unix(&from), &json!({}));
        open["idempotency_key"] = json!("k1");
        let opened = control.rpc()?.call("session.open", open.clone())?;
        let mut source = UnixStream::connect(&from)?;
        source.write_all(&[7; 1000])?;
        let (mut destination, _) = listener.accept()?;
        destination.set_read_timeout(Some(ANSWER_WAIT))?;
        destination.read_exact(&mut [0; 1000])?;
        let mut watcher = control.rpc()?;
        watcher.call("session.watch", json!({"session": session.id, "interval_ms": 50}))?;

        for (at, offset) in ["+800d", "-800d", "+0"].into_iter().enumerate() {
            clock.set(offset)?;
            let off = days_off(&control)?;
            let expected: i64 = [1, -1, 0][at];
            ensure!(off.signum() == expected, "the clock was not set to {offset}: {off}");
            // A key that was used stays used: the call is not carried out twice, and not refused.
            let again = control.rpc()?.call("session.open", open.clone())?;
            ensure!(again == opened, "a repeat was carried out after {offset}: {again}");
            // What waits goes by the steady clock: a watcher is told neither at once for ever, nor years later.
            let (began, mut told) = (Instant::now(), 0);
            while began.elapsed() < Duration::from_secs(1) {
                told += u32::from(watcher.notification(Duration::from_millis(100))?.is_some());
            }
            ensure!((1..=200).contains(&told), "{told} notifications in a second after {offset}");
            // Bytes go on, and are seen.
            let bytes = 2000 + 1000 * at as u64;
            source.write_all(&[7; 1000])?;
            destination.read_exact(&mut [0; 1000])?;
            wait::until("the bytes to be seen", ANSWER_WAIT, || {
                let record = control.rpc()?.call("session.get", json!({"session": session.id}))?;
                Ok((record["guest_bytes"] == bytes).then_some(()))
            })?;
            control.rpc()?.call("audit.verify", json!({})).with_context(|| format!("after {offset}"))?;
        }

        // Back by two years when it is killed, and two years on when the next one starts.
        clock.set("-800d")?;
        control.rpc()?.call("config.reload", json!({"idempotency_key": "k2"}))?;
        control.kill();
        clock.set("+0")?;
        control.again(scratch, "a-again")?;
        source.shutdown(std::net::Shutdown::Write)?;
        ensure!(destination.read(&mut [0])? == 0);
        drop(destination);
        ensure!(source.read(&mut [0])? == 0);
        let record = wait::until("the migration's record", RECORDED, || {
            let page = control.rpc()?.call("history.migrations", json!({}))?;
            let all = page["migrations"].as_array().context("no migrations")?;
            ensure!(all.len() == 1, "{page}");
            Ok(all.iter().find(|one| one["outcome"] != "running").cloned())
        })?;
        ensure!(record["outcome"] == "delivered" && record["source"]["guest_bytes"] == 4000, "{record}");
        let whole = control.rpc()?.call("audit.verify", json!({}))?;
        // One opening, three looks and one more reload, a begin and an end each, and the first look.
        ensure!(whole["entries"] == 12, "{whole}");
        let socket = control.socket().display().to_string();
        let (status, export) = novactl::run(scratch, "export", &["audit", "export", "--control", &socket])?;
        ensure!(status.success(), "{export}");
        let lines = export.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let times: Vec<String> =
            lines.map(|line| line["at"].as_str().unwrap_or_default().to_owned()).collect();
        ensure!(times.len() == 12 && times.windows(2).any(|two| two[0] > two[1]), "{times:?}");
        Ok(())
    })
}
