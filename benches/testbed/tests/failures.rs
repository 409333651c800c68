//! Hypervisors, gateways and the network fail in the middle of a migration. Each of these tests ends with exactly one
//! running guest that has looked at all of its memory, and with an error that says what happened.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::{EXIT_WAIT, MIGRATION_WAIT, SOCKET_WAIT};
use novacron_testbed::novactl::Ended;
use novacron_testbed::session::{Session, record, unix, wait_ended, wait_record, wait_under_way};
use novacron_testbed::stage::{Stage, must_run_intact};
use novacron_testbed::{
    Fate, Gateway, GatewayOptions, Migration, Novactl, QemuOptions, Relay, Scratch, Way, port, wait,
};
use qapi::qmp::{self, Event};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Bytes a second at which a migration of the test guest, which dirties faster, does not end by itself.
const SLOW: [&str; 2] = ["--max-bandwidth", "10000000"];
/// How long the gateways of these tests wait for a lost peer.
const OUTAGE: [&str; 2] = ["--outage", "1"];
/// That much has been carried half way of a slow migration.
const HALF_WAY_BYTES: u64 = 8_000_000;
/// The pause that QEMU is allowed: so long that it stops the guest at once and sends nearly everything afterwards.
const ANY_DOWNTIME: [&str; 2] = ["--downtime-limit", "2000000"];
/// Bytes a second between the gateways at which that takes a while.
const NARROW: usize = 6_000_000;

/// So few that it takes longer than novactl waits for an answer to a question.
const NARROWER: usize = 2_000_000;
/// How long it waits for one.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Kinds of frames (docs/spec/dwcp.md, section 1).
const OPEN: u8 = 1;
const BATCH: u8 = 17;
/// Bytes before a batch's own: its position, length and digest.
const BATCH_FIELDS: usize = 48;
/// QEMU's last message on the return path (migration/migration.h, `MIG_RP_MSG_SHUT`).
const RETURN_PATH_SHUT: u16 = 1;

/// Which of the two gateways.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Source,
    Destination,
}

fn gateway<'a>(stage: &'a mut Stage<'_>, side: Side) -> &'a mut Gateway {
    match side {
        Side::Source => &mut stage.source_gateway,
        Side::Destination => &mut stage.destination_gateway,
    }
}

/// novactl says that the migration failed with one of these reasons, where the guest is, and what comes next.
fn must_have_failed(ended: &Ended, codes: &[&str]) -> Result<()> {
    let code = ended.must_have_stayed("failed")?;
    ensure!(codes.contains(&code), "the reason is {code}, not one of {codes:?}: {}", ended.said);
    let message = ended.report["reason"]["message"].as_str().unwrap_or_default();
    ensure!(message.len() > 20, "that says little: {message:?}");
    for part in ["failed: ", "the guest runs at the source", "nothing of it was lost"] {
        ensure!(ended.said.contains(part), "{part:?} was not said: {}", ended.said);
    }
    Ok(())
}

/// After all that, a migration between the same gateways works.
fn must_move_now(stage: &mut Stage<'_>) -> Result<()> {
    stage.renew_destination()?;
    let ended = stage.migrate("at-last", None, &[])?.finish(MIGRATION_WAIT)?;
    ended.must_have_completed()?;
    stage.must_have_moved()
}

#[test]
fn a_destination_hypervisor_that_dies_leaves_the_guest_at_its_source() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        let mut running = stage.migrate("novactl", None, &SLOW)?;
        let session = wait_under_way(&stage.source_gateway, HALF_WAY_BYTES, MIGRATION_WAIT)?;
        stage.destination.process().kill();
        let ended = running.finish(MIGRATION_WAIT)?;
        must_have_failed(&ended, &["destination_lost"])?;
        ensure!(ended.said.contains("the destination QEMU is gone, start it anew"), "{}", ended.said);
        for gateway in [&stage.source_gateway, &stage.destination_gateway] {
            let record = wait_ended(gateway, &session, EXIT_WAIT)?;
            ensure!(record["reason"]["code"] == "destination_lost", "{record}");
        }
        stage.must_have_stayed()?;
        must_move_now(&mut stage)
    })
}

#[test]
fn a_gateway_that_is_not_there_costs_nothing() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        for side in [Side::Source, Side::Destination] {
            gateway(&mut stage, side).process().kill();
            let ended = stage.migrate(&format!("{side:?}"), None, &OUTAGE)?.finish(EXIT_WAIT)?;
            ensure!(ended.status.code() == Some(4), "it was not refused: {}", ended.said);
            ensure!(ended.report["guest_running_at"] == "source", "{}", ended.said);
            ensure!(ended.said.contains("nothing was changed"), "{}", ended.said);
            stage.renew_gateways()?;
        }
        // The gateway is there, but not where it is said to be.
        let nobody = format!("tcp:127.0.0.1:{}", port::free()?);
        let ended = stage.migrate("elsewhere", Some(&nobody), &OUTAGE)?.finish(EXIT_WAIT)?;
        must_have_failed(&ended, &["peer_unreachable"])?;
        // The destination was told nothing in all that: it still waits, and serves.
        stage.must_have_stayed()?;
        let ended = stage.migrate("at-last", None, &[])?.finish(MIGRATION_WAIT)?;
        ended.must_have_completed()?;
        stage.must_have_moved()
    })
}

#[test]
fn a_gateway_that_dies_as_the_session_opens_leaves_the_guest_at_its_source() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set_with(scratch, &QemuOptions::small(), &GatewayOptions::plaintext())?;
        for side in [Side::Source, Side::Destination] {
            let (opening, opened) = channel();
            let (killed, gone) = channel::<()>();
            let relay = Relay::start(stage.destination_gateway.peer()?, move |passing| {
                if passing.way == Way::There && passing.kind() == OPEN {
                    // Held until the gateway is dead: neither the opening nor its answer gets through.
                    let _ = opening.send(());
                    let _ = gone.recv_timeout(SOCKET_WAIT);
                    return Fate::EndsAll;
                }
                Fate::Passes
            })?;
            let mut running = stage.migrate(&format!("{side:?}"), Some(&relay.peer()), &OUTAGE)?;
            opened.recv_timeout(SOCKET_WAIT).context("the session was not opened")?;
            gateway(&mut stage, side).process().kill();
            killed.send(())?;
            let ended = running.finish(MIGRATION_WAIT)?;
            must_have_failed(&ended, &["peer_unreachable", "peer_refused", "gateway_lost", "timeout"])?;
            stage.must_have_stayed()?;
            stage.renew_gateways()?;
        }
        must_move_now(&mut stage)
    })
}

#[test]
fn a_gateway_that_dies_in_mid_precopy_leaves_the_guest_at_its_source() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        for side in [Side::Source, Side::Destination] {
            let mut running = stage.migrate(&format!("{side:?}"), None, &[SLOW, OUTAGE].concat())?;
            let session = wait_under_way(&stage.source_gateway, HALF_WAY_BYTES, MIGRATION_WAIT)?;
            gateway(&mut stage, side).process().kill();
            let ended = running.finish(MIGRATION_WAIT)?;
            must_have_failed(&ended, &["gateway_gone", "outage", "source_failed"])?;
            let left = if side == Side::Source { &stage.destination_gateway } else { &stage.source_gateway };
            let record = wait_ended(left, &session, EXIT_WAIT)?;
            ensure!(record["state"] == "failed", "{record}");
            stage.must_have_stayed()?;
            stage.renew_gateways()?;
            stage.renew_destination()?;
        }
        must_move_now(&mut stage)
    })
}

/// A guest that takes a while to send once it has been stopped.
fn stage_with_a_long_switchover(scratch: &Scratch) -> Result<Stage<'_>> {
    Stage::set(scratch, &QemuOptions::filled(128, 32, 20))
}

/// Waits until the guest stands still and its last pages are on their way. Its source tells that by an event: a question it
/// would answer when they have left, and not before.
fn wait_switchover(stage: &mut Stage<'_>) -> Result<String> {
    let session = wait_under_way(&stage.source_gateway, 1, MIGRATION_WAIT)?;
    wait_record(&stage.source_gateway, &session, MIGRATION_WAIT, |record| record["phase"] == "switchover")?;
    let stopped = stage
        .source
        .qmp()
        .wait_event(SOCKET_WAIT, |event| matches!(event, Event::STOP { .. }).then_some(()))?;
    stopped.context("the guest still runs in the switchover")?;
    Ok(session)
}

#[test]
fn a_source_gateway_that_dies_in_the_switchover_leaves_the_guest_at_its_source() -> Result<()> {
    dies_in_the_switchover(Side::Source)
}

#[test]
fn a_destination_gateway_that_dies_in_the_switchover_leaves_the_guest_at_its_source() -> Result<()> {
    dies_in_the_switchover(Side::Destination)
}

fn dies_in_the_switchover(side: Side) -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = stage_with_a_long_switchover(scratch)?;
        let relay = Relay::start(stage.destination_gateway.peer()?, |_| Fate::Passes)?;
        relay.set_rate(NARROW);
        let choices = [ANY_DOWNTIME, OUTAGE].concat();
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &choices)?;
        let session = wait_switchover(&mut stage)?;
        gateway(&mut stage, side).process().kill();
        let ended = running.finish(MIGRATION_WAIT)?;
        must_have_failed(&ended, &["gateway_gone", "outage", "source_failed"])?;
        let left = if side == Side::Source { &stage.destination_gateway } else { &stage.source_gateway };
        let record = wait_ended(left, &session, EXIT_WAIT)?;
        ensure!(record["state"] == "failed", "{record}");
        stage.must_have_stayed()?;
        stage.renew_gateways()?;
        must_move_now(&mut stage)
    })
}

#[test]
fn a_source_gateway_that_hangs_in_the_switchover_leaves_the_guest_at_its_source() -> Result<()> {
    hangs_in_the_switchover(Side::Source)
}

#[test]
fn a_destination_gateway_that_hangs_in_the_switchover_leaves_the_guest_at_its_source() -> Result<()> {
    hangs_in_the_switchover(Side::Destination)
}

/// Its process is there, its sockets are open, and nothing comes out of it. The source's QEMU waits for one of them meanwhile, and
/// answers nobody.
fn hangs_in_the_switchover(side: Side) -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = stage_with_a_long_switchover(scratch)?;
        let relay = Relay::start(stage.destination_gateway.peer()?, |_| Fate::Passes)?;
        relay.set_rate(NARROW);
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &ANY_DOWNTIME)?;
        let session = wait_switchover(&mut stage)?;
        gateway(&mut stage, side).process().signal(Signal::STOP)?;
        let hung = Instant::now();
        let source = &mut stage.source;
        wait::until("the guest at its source", MIGRATION_WAIT, || Ok(source.runs_guest().then_some(())))?;
        let took = hung.elapsed();
        gateway(&mut stage, side).process().signal(Signal::CONT)?;
        let ended = running.finish(MIGRATION_WAIT)?;
        must_have_failed(&ended, &["gateway_gone"])?;
        ensure!(ended.said.contains("its process hangs"), "{}", ended.said);
        ensure!(took < Duration::from_secs(15), "the guest stood still for {took:?}");
        for gateway in [&stage.source_gateway, &stage.destination_gateway] {
            let record = wait_ended(gateway, &session, EXIT_WAIT)?;
            ensure!(record["state"] == "failed", "{record}");
        }
        stage.must_have_stayed()
    })
}

/// The network is gone for longer than a stopped guest may wait.
#[test]
fn a_network_that_is_lost_in_the_switchover_leaves_the_guest_at_its_source() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = stage_with_a_long_switchover(scratch)?;
        let relay = Relay::start(stage.destination_gateway.peer()?, |_| Fate::Passes)?;
        relay.set_rate(NARROW);
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &ANY_DOWNTIME)?;
        let session = wait_switchover(&mut stage)?;
        let lost = Instant::now();
        relay.end_all();
        let ended = running.finish(MIGRATION_WAIT)?;
        let took = lost.elapsed();
        must_have_failed(&ended, &["outage"])?;
        ensure!(took < Duration::from_secs(10), "the guest stood still for {took:?}");
        let at_source = wait_ended(&stage.source_gateway, &session, EXIT_WAIT)?;
        ensure!(at_source["reason"]["code"] == "outage", "{at_source}");
        // That gateway does not know that the guest stands still and would have waited longer: novactl tells it.
        let at_destination = wait_ended(&stage.destination_gateway, &session, EXIT_WAIT)?;
        let why = at_destination["reason"]["message"].as_str().unwrap_or_default();
        ensure!(
            at_destination["reason"]["code"] == "cancelled" && why.contains("outage"),
            "{at_destination}"
        );
        stage.must_have_stayed()
    })
}

/// Whoever changes his mind in the switchover need not wait for its end.
#[test]
fn a_cancel_in_the_switchover_lets_the_guest_go_on_at_its_source() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = stage_with_a_long_switchover(scratch)?;
        let relay = Relay::start(stage.destination_gateway.peer()?, |_| Fate::Passes)?;
        relay.set_rate(NARROWER);
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &ANY_DOWNTIME)?;
        wait_switchover(&mut stage)?;
        let asked = Instant::now();
        running.process().signal(Signal::INT)?;
        let ended = running.finish(MIGRATION_WAIT)?;
        let took = asked.elapsed();
        ensure!(ended.must_have_stayed("cancelled")? == "cancelled", "{}", ended.said);
        ensure!(took < Duration::from_secs(8), "the guest stood still for {took:?}");
        stage.must_have_stayed()
    })
}

/// A source answers no question while its last pages leave. That this takes longer than an answer may is no failure: they move.
#[test]
fn a_source_that_cannot_answer_while_its_last_pages_leave_is_waited_for() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = stage_with_a_long_switchover(scratch)?;
        let relay = Relay::start(stage.destination_gateway.peer()?, |_| Fate::Passes)?;
        relay.set_rate(NARROWER);
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &ANY_DOWNTIME)?;
        wait_switchover(&mut stage)?;
        let stopped = Instant::now();
        let ended = running.finish(MIGRATION_WAIT)?;
        ended.must_have_completed()?;
        ensure!(stopped.elapsed() > ANSWER_MAX, "that took {:?} and shows nothing", stopped.elapsed());
        ensure!(ended.said.contains("switchover"), "no progress was said of it: {}", ended.said);
        stage.must_have_moved()
    })
}

/// Nothing that anybody prints or records can be written. The guest moves all the same.
#[test]
fn full_disks_for_logs_stop_no_migration() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let full = Path::new("/dev/full");
        let gateways = GatewayOptions {
            log: Some(full.to_owned()),
            extra: ["--records", "/dev/full"].map(String::from).to_vec(),
            ..GatewayOptions::default()
        };
        let mut stage = Stage::set_with(scratch, &QemuOptions::small(), &gateways)?;
        let peer = stage.destination_gateway.peer()?;
        let mut running = Novactl::migrate_into(full, scratch, "novactl", &stage.between(), peer, &[])?;
        let status = running.process().wait(MIGRATION_WAIT)?;
        ensure!(status.success(), "novactl: {status}");
        stage.must_have_moved()?;
        stage.source_gateway.process().must_run()?;
        stage.destination_gateway.process().must_run()
    })
}

/// A relay that ends everything when the destination says that it has loaded the guest: its last message is lost.
fn relay_without_the_last_message(stage: &Stage<'_>) -> Result<(Relay, std::sync::mpsc::Receiver<()>)> {
    let (lost, seen) = channel();
    let relay = Relay::start(stage.destination_gateway.peer()?, move |passing| {
        let payload = passing.payload();
        if passing.way == Way::Back && passing.kind() == BATCH && is_shut(&payload[BATCH_FIELDS..]) {
            let _ = lost.send(());
            return Fate::EndsAll;
        }
        Fate::Passes
    })?;
    Ok((relay, seen))
}

/// Whether QEMU's SHUT is among these messages: be16 type, be16 length, data.
fn is_shut(mut messages: &[u8]) -> bool {
    while let [a, b, c, d, rest @ ..] = messages {
        if u16::from_be_bytes([*a, *b]) == RETURN_PATH_SHUT {
            return true;
        }
        messages = rest.get(usize::from(u16::from_be_bytes([*c, *d]))..).unwrap_or_default();
    }
    false
}

#[test]
fn a_lost_last_message_of_the_return_path_leaves_one_guest() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set_with(scratch, &QemuOptions::small(), &GatewayOptions::plaintext())?;
        let (relay, lost) = relay_without_the_last_message(&stage)?;
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &OUTAGE)?;
        lost.recv_timeout(MIGRATION_WAIT).context("the last message never came")?;
        let ended = running.finish(MIGRATION_WAIT)?;
        // The destination had the whole guest and was never told to run it.
        must_have_failed(&ended, &["outage", "source_failed"])?;
        stage.must_have_stayed()?;
        must_move_now(&mut stage)
    })
}

/// The same with a destination that runs the guest by itself: closing the source's socket would make a second guest.
#[test]
fn a_source_is_held_when_its_destination_may_have_started() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set_with(scratch, &QemuOptions::small(), &GatewayOptions::plaintext())?;
        let (relay, lost) = relay_without_the_last_message(&stage)?;
        let session = Session::new()?;
        let [listen, incoming] = ["in.sock", "out.sock"].map(|name| unix(&scratch.file(name)));
        let options = json!({"destination_may_start": true, "outage_ms": 1000});
        let (a, b) = (&stage.source_gateway, &stage.destination_gateway);
        b.rpc()?.call("session.open", session.at_destination(&incoming, &options))?;
        a.rpc()?.call("session.open", session.at_source(&relay.peer(), &listen, &options))?;
        // `cont` before the migration is what leaving `-S` out would have been.
        stage.destination.cont()?;
        let over = Migration { incoming, outgoing: listen, ..Migration::direct_tcp()? };
        over.start(&mut stage.source, &mut stage.destination)?;
        lost.recv_timeout(MIGRATION_WAIT).context("the last message never came")?;

        let held = |record: &Value| record["state"] == "held";
        let record_held = wait_record(&stage.source_gateway, &session.id, EXIT_WAIT, held)?;
        ensure!(record_held["reason"]["code"] == "outage", "{record_held}");
        let destination = &mut stage.destination;
        wait::until("the guest at the destination", EXIT_WAIT, || {
            Ok(destination.runs_guest().then_some(()))
        })?;
        must_run_intact(destination)?;
        ensure!(!stage.source.runs_guest(), "two guests run");
        let said = stage.source_gateway.process().log_tail();
        ensure!(said.contains("held open") && said.contains("session.release"), "{said}");

        // Whoever knows that the guest runs there ends the source; the gateway sees its socket close.
        stage.source.qmp().execute(qmp::quit {})?;
        stage.source.process().wait(EXIT_WAIT)?;
        let ended = wait_ended(&stage.source_gateway, &session.id, EXIT_WAIT)?;
        ensure!(ended["state"] == "failed" && ended["ended_at"].is_string(), "{ended}");
        let other = record(&stage.destination_gateway, &session.id)?;
        ensure!(other["state"] == "failed", "{other}");
        must_run_intact(&mut stage.destination)
    })
}
