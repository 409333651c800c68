//! A path that turns from a rack's into an ocean's and back in the middle of a migration: the session follows, and the guest
//! does not notice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_bench::ability::Ability;
use novacron_lab::{Conditions, Lab, Topology, Way};
use novacron_testbed::limits::MIGRATION_WAIT;
use novacron_testbed::session::{record, wait_record, wait_under_way};
use novacron_testbed::{Between, Gateway, GatewayOptions, Novactl, Qemu, QemuOptions, Scratch, novactl};
use serde_json::Value;

/// UDP port of the responders.
const PORT: u16 = 7402;
/// A machine that boots guests beside it may take long to see what changed; what is promised is measured by `novacron-figures`.
const FOLLOWED: Duration = Duration::from_secs(40);
/// Bytes a second that QEMU sends, fewer than the guest changes: it does not end before it is told to.
const SLOW: [&str; 2] = ["--max-bandwidth", "8000000"];
const CHANGED_MB_PER_S: u32 = 16;

fn near() -> Conditions {
    Conditions { rate_mbit: Some(1500.0), delay_ms: 0.5, ..Conditions::default() }
}

fn far() -> Conditions {
    Conditions { rate_mbit: Some(200.0), delay_ms: 40.0, ..Conditions::default() }
}

fn set(lab: &Lab, conditions: &Conditions) -> Result<()> {
    lab.set("wan", Way::Forward, conditions)?;
    lab.set("wan", Way::Back, conditions)
}

fn gateway(scratch: &Scratch, lab: &Lab, own: &str, peer: &str) -> Result<Gateway> {
    let secret = scratch.file("probe-secret");
    fs::write(&secret, "5a".repeat(32))?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let site = lab.site(own)?;
    let at = |site: &str| -> Result<String> { Ok(format!("{}:{PORT}", lab.site(site)?.address())) };
    // A machine that boots guests meanwhile measures longer round trips and less bandwidth than the links have: these thresholds are
    // far from either. Congestion controls that the system keeps to the privileged are granted to who is not confined.
    let extra = [
        "--unconfined",
        "--mode-bandwidth",
        "100",
        "--datacenter-rtt",
        "25ms",
        "--probe-listen",
        &at(own)?,
        "--probe-peer",
        &at(peer)?,
        "--probe-secret",
        &secret.display().to_string(),
    ]
    .map(str::to_owned);
    let options = GatewayOptions {
        listen: own == "b",
        address: site.address(),
        prefix: site.enter(),
        extra: extra.to_vec(),
        ..GatewayOptions::default()
    };
    Gateway::start(scratch, &format!("gateway-{own}"), &options)
}

fn has_mode(mode: &'static str) -> impl Fn(&Value) -> bool {
    move |record| record["mode"] == mode && record["state"] == "running"
}

/// The session has this mode at both ends, as many streams as it allows, and its congestion control on all of them.
fn follows(
    gateways: [&Gateway; 2],
    session: &str,
    mode: &'static str,
    streams: std::ops::RangeInclusive<u64>,
    congestion: &str,
) -> Result<()> {
    let began = Instant::now();
    for gateway in gateways {
        wait_record(gateway, session, FOLLOWED, |record| {
            let open = record.pointer("/streams/open").and_then(Value::as_u64).unwrap_or_default();
            let by = &record["streams"]["congestion"];
            has_mode(mode)(record) && streams.contains(&open) && *by == serde_json::json!([congestion])
        })
        .with_context(|| format!("{mode}, {streams:?} streams by {congestion}"))?;
    }
    println!("{mode} after {:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_session_follows_its_path_there_and_back_and_the_guest_verifies() -> Result<()> {
    let ability = Ability::here();
    let available = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    let both = available.is_ok_and(|names| {
        let has = |name: &str| names.split_whitespace().any(|other| other == name);
        has("cubic") && has("bbr")
    });
    let both = if both { Ok(()) } else { Err("this kernel does not have both cubic and bbr".to_owned()) };
    for needed in [&ability.qemu, &ability.lab, &ability.gateways, &both] {
        if let Err(missing) = needed {
            eprintln!("skipped: {missing}");
            return Ok(());
        }
    }
    Scratch::with_logs(|scratch| {
        let options = QemuOptions::filled(128, 32, CHANGED_MB_PER_S);
        let source = Qemu::source(scratch, "source", &options)?;
        let destination = Qemu::destination(scratch, "destination", &options)?;
        let pages = source.guest().wait_ready()?;
        let lab = Lab::start(&Topology::two_sites(&near()))?;
        let (a, b) = (gateway(scratch, &lab, "a", "b")?, gateway(scratch, &lab, "b", "a")?);
        let between = Between {
            source: &source,
            destination: &destination,
            source_gateway: &a,
            destination_gateway: &b,
        };
        let mut migration = Novactl::migrate(scratch, "novactl", &between, &SLOW)?;
        let session = wait_under_way(&a, 4_000_000, MIGRATION_WAIT)?;
        follows([&a, &b], &session, "datacenter", 32..=512, "cubic")?;
        set(&lab, &far())?;
        follows([&a, &b], &session, "internet", 4..=16, "bbr")?;
        set(&lab, &near())?;
        follows([&a, &b], &session, "datacenter", 32..=512, "cubic")?;

        // Who says what it is wins.
        let peer = format!("{}:{PORT}", lab.site("b")?.address());
        let control = a.control().display().to_string();
        novactl::run(scratch, "force", &["probe", &peer, "--gateway", &control, "--mode", "hybrid"])?;
        wait_record(&a, &session, FOLLOWED, has_mode("hybrid"))?;
        let (_, shown) = novactl::run(scratch, "show", &["show", &session, "--gateway", &control])?;
        ensure!(shown.contains("mode       hybrid") && shown.contains("internet (sharp_change)"), "{shown}");

        source.guest().set_rate(0)?;
        let ended = migration.finish(MIGRATION_WAIT)?;
        ended.must_have_completed()?;
        let verified = destination.guest().must_be_intact()?;
        ensure!(verified.pages == pages && verified.dirtied > 0, "{verified:?}");
        let record = record(&a, &session)?;
        ensure!(record["digest_equal"] == true && record["state"] == "finished", "{record}");
        let modes: Vec<_> = record["mode_changes"]
            .as_array()
            .context("no changes of mode in the record")?
            .iter()
            .map(|change| change["to"].as_str().unwrap_or_default())
            .collect();
        ensure!(modes.ends_with(&["datacenter", "internet", "datacenter", "hybrid"]), "{modes:?}");
        Ok(())
    })
}
