//! The demonstration: one guest, two sites joined by a link of the lab, two gateways, one command; and QEMU's own ways beside it.
//!
//! ```text
//! sites    where it plays: namespaces joined by a link, or loopback
//! rival    QEMU's own ways
//! report   what was found
//! ```

mod report;
mod rival;
mod sites;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use novacron_testbed::limits::{EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::migration::{beat_interval, pause_between};
use novacron_testbed::process::{describe, spawn, tied};
use novacron_testbed::{Gateway, GatewayOptions, GuestOptions, Qemu, QemuOptions, Scratch, artefact, wait};
use qapi::qmp::RunState;
use serde::Deserialize;

use report::rounded;
pub use report::{Contender, Report, write};
use rival::{RIVALS, TIME_LIMIT, Traveller};
use sites::Sites;

use crate::interrupt;

/// How fast the guest rewrites its memory. Less than half of what the link carries: whoever moves it can come to an end, on a
/// busy machine too, and what differs is how soon.
const DIRTY_MB_PER_S: u32 = 10;

/// The last line of `novactl migrate --json`, as far as the demonstration needs it.
#[derive(Debug, Deserialize)]
struct Outcome {
    outcome: String,
    total_ms: f64,
    guest_bytes: u64,
    wire_bytes: u64,
    digest_equal: Option<bool>,
    source: End,
    destination: End,
}

/// One end of it.
#[derive(Debug, Deserialize)]
struct End {
    record: Option<Record>,
}

/// A gateway's record of the session.
#[derive(Debug, Deserialize)]
struct Record {
    encrypted: bool,
}

impl Outcome {
    /// Both gateways say that what went between them was encrypted.
    fn encrypted(&self) -> bool {
        [&self.source, &self.destination]
            .iter()
            .all(|end| end.record.as_ref().is_some_and(|record| record.encrypted))
    }
}

/// Boots, migrates and verifies, and moves the same guest on with QEMU's own ways. Tells each step through `step`. Logs stay in
/// `scratch`.
///
/// # Errors
/// Whatever went wrong with the gateways' move. Bad pages and unequal digests are no errors here but in the report; see
/// [`Report::check`]. What goes wrong with QEMU's own ways is a row of the report.
pub fn run(scratch: &Scratch, mut step: impl FnMut(&str)) -> Result<Report> {
    let novactl = artefact::binary("novactl")?;
    let guest = GuestOptions { rate_mb: DIRTY_MB_PER_S, ..GuestOptions::default() };
    let options = QemuOptions { guest, ..QemuOptions::default() };

    let sites = Sites::make()?;
    let _watch = interrupt::Removed::when_interrupted(sites.network.wire());
    step(&format!("two sites: {}", sites.link));
    step("starting a gateway at each, with keys made for this run");
    let (source_gateway, destination_gateway) = gateways(scratch, &sites)?;

    step("booting a guest (emulated, so that it runs anywhere) and a stopped destination");
    let booting = Instant::now();
    let at = |prefix: &[String]| QemuOptions { prefix: prefix.to_vec(), ..options.clone() };
    let mut source = Qemu::source(scratch, "source", &at(&sites.network.source.prefix))?;
    let mut destination = Qemu::destination(scratch, "destination", &at(&sites.network.destination.prefix))?;
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
    sites.count_anew()?;
    let outcome = migrate(scratch, &novactl, &arguments)?;
    let on_the_link = sites.wire_bytes()?;

    step("the guest verifies its memory at the destination");
    let pause = pause_between(source.guest().serial(), destination.guest().serial(), interval)?;
    let verified = destination.guest().verify()?;
    step(&format!(
        "{} pages looked at, {} bad; {} had been rewritten",
        verified.pages, verified.bad, verified.dirtied
    ));
    ensure!(destination.state()? == RunState::running, "the guest does not run at the destination");
    source.process().wait(EXIT_WAIT).context("novactl has not ended the source hypervisor")?;
    let guest_verified = verified.pages > 0 && verified.bad == 0;

    // Nothing of ours takes processor time from the others.
    drop((source_gateway, destination_gateway));
    let mut contenders = vec![Contender {
        name: "novacron".to_owned(),
        result: "completed".to_owned(),
        total_ms: Some(outcome.total_ms),
        guest_pause_ms: Some(rounded(pause.pause)),
        wire_bytes: on_the_link,
        guest_verified: Some(guest_verified),
    }];
    let mut traveller =
        Traveller { scratch, options: &options, sites: &sites, here: destination, at_source: false };
    for rival in RIVALS {
        step(&format!("the same guest by QEMU's own {rival}, at most {} s", TIME_LIMIT.as_secs()));
        let row = traveller.go(rival);
        step(&format!("{}: {}", row.name, row.result));
        contenders.push(row);
    }

    Ok(Report {
        guest_verified,
        digest_equal: outcome.digest_equal == Some(true),
        encrypted: outcome.encrypted(),
        guest_pause_ms: rounded(pause.pause),
        total_ms: outcome.total_ms,
        guest_bytes: outcome.guest_bytes,
        wire_bytes: outcome.wire_bytes,
        link: sites.link.clone(),
        contenders,
    })
}

/// A gateway that dials and one that listens. They know each other by keys in the scratch folder, which nobody uses again.
fn gateways(scratch: &Scratch, sites: &Sites) -> Result<(Gateway, Gateway)> {
    let options = GatewayOptions {
        listen: false,
        prefix: sites.network.source.prefix.clone(),
        ..GatewayOptions::default()
    };
    let source = Gateway::start(scratch, "source-gateway", &options)?;
    let options = GatewayOptions {
        listen: true,
        address: sites.network.destination.address,
        prefix: sites.network.destination.prefix.clone(),
        ..options
    };
    Ok((source, Gateway::start(scratch, "destination-gateway", &options)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn novactls_result_is_read() {
        let line = r#"{"session":"00","total_ms":812,"downtime_ms":31,"guest_bytes":1,"wire_bytes":2,"digest_equal":null,"outcome":"completed","source":{"status":"gone","record":{"encrypted":true}},"destination":{"record":null}}"#;
        let mut outcome: Outcome = serde_json::from_str(line).unwrap();
        assert_eq!((outcome.total_ms, outcome.digest_equal), (812.0, None));
        assert!(!outcome.encrypted(), "the destination has not said so");
        outcome.destination.record = Some(Record { encrypted: true });
        assert!(outcome.encrypted());
    }
}
