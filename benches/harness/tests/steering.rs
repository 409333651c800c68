//! Where packets are spread over processors, streams are served by the shards there; elsewhere a message says why not.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use novacron_bench::ability::Ability;
use novacron_lab::{Conditions, Lab, Site, Topology};
use novacron_testbed::limits::MIGRATION_WAIT;
use novacron_testbed::session::{wait_record, wait_under_way};
use novacron_testbed::{Between, Gateway, GatewayOptions, Novactl, Qemu, QemuOptions, Scratch};
use serde_json::Value;

/// Bytes a second at which the test guest, which dirties faster, does not end by itself.
const SLOW: [&str; 2] = ["--max-bandwidth", "10000000"];
/// What both processors are in a mask.
const BOTH: &str = "3";

/// A command within a site, with what the system says of the site's own interfaces at `/sys`.
fn enter(site: &Site) -> Vec<String> {
    ["ip", "netns", "exec", site.namespace()].map(str::to_owned).to_vec()
}

fn run(site: &Site, command: &str) -> Result<String> {
    let prefix = enter(site);
    let output = Command::new(&prefix[0]).args(&prefix[1..]).args(["sh", "-c", command]).output()?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The kernel spreads what the site receives over processors 0 and 1 by a hash of addresses and ports.
fn spread(site: &Site) -> Result<()> {
    run(site, &format!("for queue in /sys/class/net/*/queues/rx-*; do echo {BOTH} > $queue/rps_cpus; done"))
        .map(drop)
}

fn gateway(scratch: &Scratch, lab: &Lab, own: &str) -> Result<Gateway> {
    let site = lab.site(own)?;
    let extra = ["--shards", "2", "--cpus", "0,1"].map(str::to_owned);
    let options = GatewayOptions {
        listen: own == "b",
        address: site.address(),
        prefix: enter(site),
        extra: extra.to_vec(),
        ..GatewayOptions::default()
    };
    Gateway::start(scratch, &format!("gateway-{own}"), &options)
}

fn count(record: &Value, name: &str) -> u64 {
    record["streams"][name].as_u64().unwrap_or_default()
}

fn two_processors() -> Result<(), String> {
    match std::thread::available_parallelism() {
        Ok(processors) if processors.get() >= 2 => Ok(()),
        _ => Err("there are no two processors".to_owned()),
    }
}

/// Moves a guest while `holds` is waited for at both ends; what the source's gateway said.
fn moved(scratch: &Scratch, lab: &Lab, holds: impl Fn(&Value) -> bool) -> Result<String> {
    let options = QemuOptions::small();
    let source = Qemu::source(scratch, "source", &options)?;
    let destination = Qemu::destination(scratch, "destination", &options)?;
    source.guest().wait_ready()?;
    let (mut a, b) = (gateway(scratch, lab, "a")?, gateway(scratch, lab, "b")?);
    let between =
        Between { source: &source, destination: &destination, source_gateway: &a, destination_gateway: &b };
    let mut migration = Novactl::migrate(scratch, "novactl", &between, &SLOW)?;
    let session = wait_under_way(&a, 4_000_000, MIGRATION_WAIT)?;
    for gateway in [&a, &b] {
        wait_record(gateway, &session, MIGRATION_WAIT, &holds)?;
    }
    source.guest().set_rate(0)?;
    migration.finish(MIGRATION_WAIT)?.must_have_completed()?;
    destination.guest().must_be_intact()?;
    std::fs::read_to_string(a.process().log()).context("what the gateway said")
}

#[test]
fn streams_are_served_where_their_packets_arrive() -> Result<()> {
    let ability = Ability::here();
    for needed in [&ability.qemu, &ability.lab, &ability.gateways, &two_processors()] {
        if let Err(missing) = needed {
            eprintln!("skipped: {missing}");
            return Ok(());
        }
    }
    Scratch::with_logs(|scratch| {
        let lab = Lab::start(&Topology::two_sites(&Conditions { delay_ms: 1.0, ..Conditions::default() }))?;
        let said =
            moved(scratch, &lab, |record| count(record, "open") >= 4 && count(record, "steered") == 0)?;
        ensure!(said.contains("are not steered: it is no hardware, and rps_cpus"), "{said}");
        ensure!(said.contains("streams take turns among shards"), "{said}");
        Ok(())
    })?;
    Scratch::with_logs(|scratch| {
        let lab = Lab::start(&Topology::two_sites(&Conditions { delay_ms: 1.0, ..Conditions::default() }))?;
        for site in lab.sites() {
            if let Err(refused) = spread(site) {
                eprintln!("skipped: packets cannot be steered here: {refused:#}");
                return Ok(());
            }
        }
        // A hash may put most of them on one processor; half of them can always be where their packets are.
        let said = moved(scratch, &lab, |record| {
            let (open, steered) = (count(record, "open"), count(record, "steered"));
            open >= 4 && steered * 2 >= open && steered <= open && count(record, "shards") == 2
        })?;
        ensure!(said.contains("arrive on 0-1 (receive packet steering)"), "{said}");
        Ok(())
    })
}
