//! Guests move between gateways of several shards: one session's codec work is done by all of them, and what fails is
//! survived, or fails cleanly, as with one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::{EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::session::{wait_ended, wait_under_way};
use novacron_testbed::{Fate, Gateway, GatewayOptions, QemuOptions, Relay, Scratch, Stage, Way, threads};

/// A codec that gives every shard something to do.
const ZSTD: [&str; 4] = ["--codec", "zstd", "--level", "3"];
/// Bytes a second at which a migration of the test guest, which dirties faster, does not end by itself.
const SLOW: [&str; 2] = ["--max-bandwidth", "10000000"];
/// That much has been carried half way of a slow migration.
const HALF_WAY_BYTES: u64 = 8_000_000;
/// Work that no idle shard does.
const WORKED: Duration = Duration::from_millis(2);

fn stage<'a>(scratch: &'a Scratch, shards: u16) -> Result<Stage<'a>> {
    let extra = vec!["--shards".to_owned(), shards.to_string()];
    Stage::set_with(scratch, &QemuOptions::small(), &GatewayOptions { extra, ..GatewayOptions::default() })
}

fn used(gateway: &mut Gateway) -> Result<Vec<Duration>> {
    threads::shards(gateway.process().pid())
}

/// Each shard of a gateway has worked since it had used `before`.
fn every_shard_has_worked(gateway: &mut Gateway, before: &[Duration]) -> Result<()> {
    let after = used(gateway)?;
    ensure!(after.len() == before.len(), "{after:?}");
    let worked = before.iter().zip(&after).all(|(before, after)| *after >= *before + WORKED);
    ensure!(worked, "a shard has not worked: {before:?} to {after:?}");
    Ok(())
}

#[test]
fn a_single_guest_moves_by_the_work_of_every_shard() -> Result<()> {
    for shards in [2, 4] {
        Scratch::with_logs(|scratch| {
            let mut stage = stage(scratch, shards)?;
            let before = (used(&mut stage.source_gateway)?, used(&mut stage.destination_gateway)?);
            ensure!(before.0.len() == usize::from(shards), "{before:?}");
            let ended = stage.migrate("novactl", None, &ZSTD)?.finish(MIGRATION_WAIT)?;
            let report = ended.must_have_completed()?;
            let session = report["session"].as_str().context("no session")?.to_owned();
            stage.must_have_moved()?;
            for gateway in [&stage.source_gateway, &stage.destination_gateway] {
                let record = wait_ended(gateway, &session, EXIT_WAIT)?;
                ensure!(record["state"] == "finished" && record["digest_equal"] == true, "{record}");
            }
            let record = wait_ended(&stage.source_gateway, &session, EXIT_WAIT)?;
            ensure!(record["codec"]["zstd"].as_u64().is_some_and(|bytes| bytes > 0), "{record}");
            let served_by = record["streams"]["shards"].as_u64();
            ensure!(served_by == Some(shards.into()), "streams are not served by every shard: {record}");
            every_shard_has_worked(&mut stage.source_gateway, &before.0)?;
            every_shard_has_worked(&mut stage.destination_gateway, &before.1)
        })?;
    }
    Ok(())
}

#[test]
fn cut_streams_cost_a_session_on_several_shards_nothing() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = stage(scratch, 2)?;
        // Every so many frames the stream that carries one is cut in the middle of it.
        let mut frames = 0;
        let relay = Relay::start(stage.destination_gateway.peer()?, move |passing| {
            if passing.way == Way::There && passing.bytes.len() > 1000 {
                frames += 1;
            }
            if frames == 40 {
                frames = 0;
                return Fate::Cut(passing.bytes.len() / 2);
            }
            Fate::Passes
        })?;
        let ended = stage.migrate("novactl", Some(&relay.peer()), &ZSTD)?.finish(MIGRATION_WAIT)?;
        ended.must_have_completed()?;
        ensure!(relay.streams_ever() > 6, "only {} streams: nothing was cut", relay.streams_ever());
        stage.must_have_moved()
    })
}

#[test]
fn a_gateway_of_several_shards_that_dies_leaves_the_guest_at_its_source() -> Result<()> {
    for source_dies in [true, false] {
        Scratch::with_logs(|scratch| {
            let mut stage = stage(scratch, 2)?;
            let arguments = [&ZSTD[..], &SLOW, &["--outage", "1"]].concat();
            let mut running = stage.migrate("novactl", None, &arguments)?;
            wait_under_way(&stage.source_gateway, HALF_WAY_BYTES, MIGRATION_WAIT)?;
            let dies = if source_dies { &mut stage.source_gateway } else { &mut stage.destination_gateway };
            dies.process().kill();
            running.finish(MIGRATION_WAIT)?.must_have_stayed("failed")?;
            stage.must_have_stayed()
        })?;
    }
    Ok(())
}
