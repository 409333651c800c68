//! Streams are lost in the middle of a migration, one after the other and all at once: the guest moves all the same.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use novacron_testbed::limits::{EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::session::{record, wait_record, wait_under_way};
use novacron_testbed::stage::Stage;
use novacron_testbed::{Fate, QemuOptions, Relay, Scratch, wait};

/// Bytes a second at which a migration takes as long as its streams are to be cut.
const NARROW: usize = 6_000_000;
/// That much has been carried when it begins.
const UNDER_WAY_BYTES: u64 = 4_000_000;
/// Streams that are cut, and the longest wait between two of them.
const KILLS: usize = 50;
const KILL_WAIT_MS: u64 = 120;
/// How long all streams are gone.
const CUT: Duration = Duration::from_secs(20);
/// How long they are gone while the guest stands still: less than it may wait.
const CUT_STOPPED: Duration = Duration::from_millis(600);
/// The pause that QEMU is allowed: so long that it stops the guest at once and sends nearly everything afterwards.
const ANY_DOWNTIME: [&str; 2] = ["--downtime-limit", "2000000"];

/// The next of a row of numbers without a pattern (Marsaglia's xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A path on which a migration takes long enough for something to happen to it.
fn narrow(stage: &Stage<'_>) -> Result<Relay> {
    let relay = Relay::start(stage.destination_gateway.peer()?, |_| Fate::Passes)?;
    relay.set_rate(NARROW);
    Ok(relay)
}

#[test]
fn fifty_lost_streams_in_one_migration_lose_nothing() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        let relay = narrow(&stage)?;
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &[])?;
        let session = wait_under_way(&stage.source_gateway, UNDER_WAY_BYTES, MIGRATION_WAIT)?;
        let mut state = u64::from(std::process::id()) << 20 | 1;
        println!("seed {state}");
        for kill in 0..KILLS {
            let choice = next(&mut state) as usize;
            wait::until("a stream to cut", EXIT_WAIT, || Ok(relay.cut_one(choice).then_some(())))?;
            let standing = record(&stage.source_gateway, &session)?;
            ensure!(standing["ended_at"].is_null(), "it had ended before stream {kill} was cut: {standing}");
            sleep(Duration::from_millis(next(&mut state) % KILL_WAIT_MS));
        }
        relay.set_rate(0);
        running.finish(MIGRATION_WAIT)?.must_have_completed()?;
        ensure!(relay.streams_ever() > KILLS, "{} streams", relay.streams_ever());
        stage.must_have_moved()
    })
}

#[test]
fn a_network_that_is_gone_for_twenty_seconds_costs_little_more_than_those() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        let relay = narrow(&stage)?;
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &[])?;
        let session = wait_under_way(&stage.source_gateway, UNDER_WAY_BYTES, MIGRATION_WAIT)?;
        relay.set_dark(true);
        let cut = Instant::now();
        let interrupted = |record: &serde_json::Value| record["state"] == "interrupted";
        wait_record(&stage.source_gateway, &session, EXIT_WAIT, interrupted)?;
        ensure!(stage.source.runs_guest(), "the guest does not run while the network is gone");
        sleep(CUT.saturating_sub(cut.elapsed()));
        relay.set_dark(false);
        let light = Instant::now();
        wait_record(&stage.source_gateway, &session, EXIT_WAIT, |record| record["state"] == "running")?;
        let resumed = light.elapsed();
        ensure!(resumed < Duration::from_secs(3), "it took {resumed:?} to go on");
        relay.set_rate(0);
        running.finish(MIGRATION_WAIT)?.must_have_completed()?;
        println!("went on after {resumed:?}");
        stage.must_have_moved()
    })
}

#[test]
fn a_network_that_is_gone_for_a_moment_of_the_switchover_ends_no_migration() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::filled(128, 32, 20))?;
        let relay = narrow(&stage)?;
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &ANY_DOWNTIME)?;
        let session = wait_under_way(&stage.source_gateway, 1, MIGRATION_WAIT)?;
        let stopped = |record: &serde_json::Value| record["phase"] == "switchover";
        wait_record(&stage.source_gateway, &session, MIGRATION_WAIT, stopped)?;
        relay.set_dark(true);
        sleep(CUT_STOPPED);
        relay.set_dark(false);
        relay.set_rate(0);
        running.finish(MIGRATION_WAIT)?.must_have_completed()?;
        let ever = record(&stage.source_gateway, &session)?["streams"]["ever"].as_u64();
        ensure!(ever > Some(4), "{ever:?} streams: nothing was cut");
        stage.must_have_moved()
    })
}
