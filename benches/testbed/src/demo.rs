//! The demonstration: one guest, two hypervisors, two gateways, one command.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qapi::qmp::RunState;
use serde::{Deserialize, Serialize};

use crate::limits::{EXIT_WAIT, MIGRATION_WAIT};
use crate::migration::{beat_interval, pause_between};
use crate::process::{describe, spawn, tied};
use crate::{Gateway, GatewayOptions, Qemu, QemuOptions, Scratch, artefact, wait};

/// What the demonstration found: the contents of `target/demo/report.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The guest looked at all of its memory after the move and found every page as it had written it.
    pub guest_verified: bool,
    /// The bytes that left the source hypervisor and those that reached the destination have the same digest.
    pub digest_equal: bool,
    /// How long the guest's heart stood still, milliseconds.
    pub guest_pause_ms: f64,
    /// How long `novactl migrate` says that the migration took, milliseconds.
    pub total_ms: f64,
    /// Bytes that the source hypervisor wrote.
    pub guest_bytes: u64,
    /// Bytes that went between the gateways.
    pub wire_bytes: u64,
}

/// The last line of `novactl migrate --json`, as far as the demonstration needs it.
#[derive(Debug, Deserialize)]
struct Outcome {
    outcome: String,
    total_ms: f64,
    guest_bytes: u64,
    wire_bytes: u64,
    digest_equal: Option<bool>,
}

impl Report {
    /// Fails when what was found is not what was promised.
    ///
    /// # Errors
    /// Names what failed.
    pub fn check(&self) -> Result<()> {
        ensure!(self.guest_verified, "the guest found bad pages in its memory");
        ensure!(self.digest_equal, "the gateways did not report equal digests");
        ensure!(self.guest_bytes > 0 && self.wire_bytes > 0, "the gateways carried nothing");
        Ok(())
    }

    /// What was found, as a table.
    pub fn table(&self) -> String {
        let yes = |fact| if fact { "yes" } else { "NO" };
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let rows = [
            ("guest verified", yes(self.guest_verified).to_owned()),
            ("digest equal", yes(self.digest_equal).to_owned()),
            ("guest-seen pause", format!("{:.1} ms", self.guest_pause_ms)),
            ("total time", format!("{:.0} ms", self.total_ms)),
            ("guest bytes", mb(self.guest_bytes)),
            ("wire bytes", mb(self.wire_bytes)),
        ];
        rows.map(|(name, value)| format!("  {name:<18}{value:>14}\n")).concat()
    }
}

/// Boots, migrates and verifies. Tells each step through `step`. Logs stay in `scratch`.
///
/// # Errors
/// Whatever went wrong. Bad pages and unequal digests are no errors here but in the report; see [`Report::check`].
pub fn run(scratch: &Scratch, mut step: impl FnMut(&str)) -> Result<Report> {
    let novactl = artefact::binary("novactl")?;
    let options = QemuOptions::default();

    step("starting two gateways on loopback");
    let source_gateway = Gateway::start(scratch, "source-gateway", &GatewayOptions::default())?;
    let destination_gateway = Gateway::start(scratch, "destination-gateway", &GatewayOptions::default())?;

    step("booting a guest (emulated, so that it runs anywhere) and a stopped destination");
    let booting = Instant::now();
    let mut source = Qemu::source(scratch, "source", &options)?;
    let mut destination = Qemu::destination(scratch, "destination", &options)?;
    source.guest().wait_ready()?;
    let interval = beat_interval(source.guest().serial())?;
    step(&format!(
        "guest is up after {:.1} s: {} MiB, rewrites {} MB/s, a heartbeat every {:.1} ms",
        booting.elapsed().as_secs_f32(),
        options.memory_mib,
        options.guest.rate_mb,
        interval.as_secs_f64() * 1e3,
    ));

    step("novactl migrate");
    let arguments = [
        "migrate".as_ref(),
        "--source-qmp".as_ref(),
        source.qmp_path().as_os_str(),
        "--destination-qmp".as_ref(),
        destination.qmp_path().as_os_str(),
        "--source-gateway".as_ref(),
        source_gateway.control().as_os_str(),
        "--destination-gateway".as_ref(),
        destination_gateway.control().as_os_str(),
        "--peer".as_ref(),
        destination_gateway.peer()?.as_ref(),
        "--json".as_ref(),
    ];
    let outcome = migrate(scratch, &novactl, &arguments)?;

    step("the guest verifies its memory at the destination");
    let pause = pause_between(source.guest().serial(), destination.guest().serial(), interval)?;
    let verified = destination.guest().verify()?;
    step(&format!(
        "{} pages looked at, {} bad; {} had been rewritten",
        verified.pages, verified.bad, verified.dirtied
    ));
    ensure!(destination.state()? == RunState::running, "the guest does not run at the destination");
    source.process().wait(EXIT_WAIT).context("novactl has not ended the source hypervisor")?;

    Ok(Report {
        guest_verified: verified.pages > 0 && verified.bad == 0,
        digest_equal: outcome.digest_equal == Some(true),
        guest_pause_ms: (pause.pause.as_secs_f64() * 1e4).round() / 10.0,
        total_ms: outcome.total_ms,
        guest_bytes: outcome.guest_bytes,
        wire_bytes: outcome.wire_bytes,
    })
}

/// Runs novactl with its progress on our standard error and reads its last line.
fn migrate(scratch: &Scratch, novactl: &Path, arguments: &[&std::ffi::OsStr]) -> Result<Outcome> {
    let output = scratch.file("novactl.json");
    let mut command = tied(novactl);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(fs::File::create(&output).context("making a file for novactl's result")?);
    let mut child = spawn(command).context("starting novactl")?;
    let limit = MIGRATION_WAIT + Duration::from_secs(10);
    let ended = wait::until("the end of novactl", limit, || Ok(child.try_wait()?));
    if ended.is_err() {
        // It has ended meanwhile, or this ends it: either way nothing is left of it.
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = fs::read_to_string(&output).context("reading novactl's result")?;
    let status = ended?;
    let last = text.lines().last().unwrap_or_default();
    if !status.success() {
        bail!("novactl failed ({}): {last}", describe(status));
    }
    let outcome: Outcome = serde_json::from_str(last)
        .with_context(|| format!("novactl's last line is not its result: {last:?}"))?;
    ensure!(outcome.outcome == "completed", "novactl's outcome is {:?}", outcome.outcome);
    Ok(outcome)
}

/// Writes the report as JSON.
///
/// # Errors
/// When it cannot be written.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("writing the report as JSON")?;
    fs::write(path, format!("{json}\n")).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            guest_verified: true,
            digest_equal: true,
            guest_pause_ms: 12.5,
            total_ms: 900.0,
            guest_bytes: 300_000_000,
            wire_bytes: 100_000_000,
        }
    }

    #[test]
    fn the_report_has_exactly_the_promised_keys() {
        let value = serde_json::to_value(good()).unwrap();
        let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            ["digest_equal", "guest_bytes", "guest_pause_ms", "guest_verified", "total_ms", "wire_bytes"]
        );
        assert_eq!(value["guest_verified"], true);
    }

    #[test]
    fn each_broken_promise_fails() {
        assert!(good().check().is_ok());
        for broken in [
            Report { guest_verified: false, ..good() },
            Report { digest_equal: false, ..good() },
            Report { wire_bytes: 0, ..good() },
        ] {
            assert!(broken.check().is_err());
        }
    }

    #[test]
    fn novactls_result_is_read() {
        let line = r#"{"session":"00","total_ms":812,"downtime_ms":31,"guest_bytes":1,"wire_bytes":2,"digest_equal":null,"outcome":"completed"}"#;
        let outcome: Outcome = serde_json::from_str(line).unwrap();
        assert_eq!((outcome.total_ms, outcome.digest_equal), (812.0, None));
    }
}
