//! Running guests through two real gateways. After every move the guest looks at all of its memory, and exactly one
//! guest runs.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::{BEAT_WAIT, EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::session::{Session, record, unix, wait_ended, wait_under_way};
use novacron_testbed::{
    Between, Gateway, GatewayOptions, Migration, Novactl, Qemu, QemuOptions, Scratch, migration, novactl,
    port,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Bytes a second at which a migration of the test guest, which dirties faster, does not end by itself.
const SLOW: &str = "10000000";
/// That much has been carried half way of a slow migration.
const HALF_WAY_BYTES: u64 = 15_000_000;

/// Two gateways on loopback. Both listen, so that guests can go either way.
fn gateways(scratch: &Scratch) -> Result<(Gateway, Gateway)> {
    let options = |name: &str| GatewayOptions {
        extra: vec!["--records".into(), scratch.file(&format!("{name}.jsonl")).display().to_string()],
        ..GatewayOptions::default()
    };
    let start = |name: &str| Gateway::start(scratch, name, &options(name));
    Ok((start("gateway-a")?, start("gateway-b")?))
}

/// The guest runs here, and it and its memory are as they should be.
fn must_run_intact(here: &mut Qemu) -> Result<()> {
    ensure!(here.runs_guest(), "the guest does not run in {}", here.process().name());
    here.guest().must_be_intact()?;
    let beat = here.guest().serial().last_beat().map(|beat| beat.number);
    here.guest().serial().wait_beat(beat, BEAT_WAIT).map(drop)
}

/// The guest has gone from `source` to `destination`: it runs there and only there, and the source has quit.
fn must_have_moved(source: &mut Qemu, destination: &mut Qemu) -> Result<()> {
    ensure!(source.process().wait(EXIT_WAIT)?.success(), "the source did not quit in order");
    must_run_intact(destination)
}

/// The guest has stayed: it runs at `source` and nowhere else, and the destination is gone.
fn must_have_stayed(source: &mut Qemu, destination: &mut Qemu) -> Result<()> {
    destination.process().wait(EXIT_WAIT).context("the destination is of no use and yet not gone")?;
    ensure!(destination.guest().serial().first_beat().is_none(), "the guest ran at the destination");
    must_run_intact(source)
}

/// Both gateways' records of a session that was carried to its end.
fn must_be_finished(gateways: [&Gateway; 2], session: &str) -> Result<[Value; 2]> {
    let [source, destination] = gateways.map(|gateway| wait_ended(gateway, session, EXIT_WAIT));
    let (source, destination) = (source?, destination?);
    for record in [&source, &destination] {
        ensure!(record["state"] == "finished" && record["digest_equal"] == true, "{record}");
        ensure!(record["guest_bytes"] == source["guest_bytes"], "{source}\n{destination}");
        // The return path: QEMU's PONGs and its word that the destination has loaded the guest.
        let back = connection(record, "return")?;
        ensure!(back["position"].as_u64().is_some_and(|bytes| bytes > 0), "{record}");
        for (ours, theirs) in [("forward", &source), ("return", &destination)]
            .map(|(direction, other)| (connection(record, direction), connection(other, direction)))
        {
            ensure!(ours?["digest"] == theirs?["digest"], "{source}\n{destination}");
        }
    }
    Ok([source, destination])
}

fn connection<'a>(record: &'a Value, direction: &str) -> Result<&'a Value> {
    let connections = record["connections"].as_array().context("no connections")?;
    connections
        .iter()
        .find(|connection| connection["direction"] == direction)
        .with_context(|| format!("no {direction} direction in {record}"))
}

/// Both gateways say that a session was cancelled.
fn must_be_cancelled(gateways: [&Gateway; 2], session: &str) -> Result<()> {
    for gateway in gateways {
        let record = wait_ended(gateway, session, EXIT_WAIT)?;
        ensure!(record["state"] == "failed" && record["reason"]["code"] == "cancelled", "{record}");
        ensure!(record["digest_equal"] != false, "{record}");
    }
    Ok(())
}

/// A record that a gateway wrote to its file.
fn written(file: &Path, session: &str) -> Result<Value> {
    let text = std::fs::read_to_string(file).context("reading the records")?;
    let records: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("a record is no JSON")?;
    let found = records.into_iter().find(|record| record["session"] == session);
    found.with_context(|| format!("no record of session {session} in {text}"))
}

/// There over unix sockets, back over TCP: each gateway is once the source's and once the destination's.
#[test]
fn a_dirtying_guest_moves_over_unix_and_back_over_tcp() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options = QemuOptions::default();
        let (a, b) = gateways(scratch)?;
        let mut first = Qemu::source(scratch, "first", &options)?;
        let mut second = Qemu::destination(scratch, "second", &options)?;
        first.guest().wait_ready()?;
        first.guest().set_rate(15)?;

        let between =
            Between { source: &first, destination: &second, source_gateway: &a, destination_gateway: &b };
        let ended =
            Novactl::migrate(scratch, "there", &between, &["--via", "unix", "--label", "over there"])?
                .finish(MIGRATION_WAIT)?;
        let there = ended.must_have_completed()?["session"].as_str().context("no session")?.to_owned();
        must_have_moved(&mut first, &mut second)?;
        let [source, _] = must_be_finished([&a, &b], &there)?;
        assert_eq!(ended.report["guest_bytes"], source["guest_bytes"]);
        assert!(ended.report["wire_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{}", ended.said);
        assert_eq!(source["phase"], "ended");
        assert!(source["pages"].as_u64() > source["zero_pages"].as_u64(), "{source}");
        assert!(source["ram_total_bytes"].as_u64().is_some_and(|bytes| bytes >= 256 << 20), "{source}");

        let mut third = Qemu::destination(scratch, "third", &options)?;
        let between =
            Between { source: &second, destination: &third, source_gateway: &b, destination_gateway: &a };
        let ended = Novactl::migrate(scratch, "back", &between, &["--via", "tcp"])?.finish(MIGRATION_WAIT)?;
        let back = ended.must_have_completed()?["session"].as_str().context("no session")?.to_owned();
        must_have_moved(&mut second, &mut third)?;
        must_be_finished([&b, &a], &back)?;
        let rate = third.guest().rate()?;
        assert_eq!(rate.set_mb, 15, "the guest's dirtier has travelled with it");

        for (name, role) in [("gateway-a", "source"), ("gateway-b", "destination")] {
            let record = written(&scratch.file(&format!("{name}.jsonl")), &there)?;
            assert_eq!((&record["state"], &record["role"]), (&json!("finished"), &json!(role)));
            assert_eq!(record["label"], "over there");
        }
        written(&scratch.file("gateway-a.jsonl"), &back).map(drop)
    })
}

#[test]
fn a_cancelled_migration_leaves_the_guest_and_the_next_one_moves_it() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options = QemuOptions::default();
        let (a, b) = gateways(scratch)?;
        let mut source = Qemu::source(scratch, "source", &options)?;
        let mut destination = Qemu::destination(scratch, "destination", &options)?;
        source.guest().wait_ready()?;
        let half_way = |source: &Qemu, destination: &Qemu, name: &str| -> Result<(Novactl, String)> {
            let between = Between { source, destination, source_gateway: &a, destination_gateway: &b };
            let mut running = Novactl::migrate(scratch, name, &between, &["--max-bandwidth", SLOW])?;
            let session = wait_under_way(&a, HALF_WAY_BYTES, MIGRATION_WAIT)?;
            running.process().must_run()?;
            Ok((running, session))
        };

        let (mut running, session) = half_way(&source, &destination, "interrupted")?;
        running.interrupt()?;
        running.finish(MIGRATION_WAIT)?.must_have_stayed("cancelled")?;
        must_be_cancelled([&a, &b], &session)?;
        must_have_stayed(&mut source, &mut destination)?;

        let mut destination = Qemu::destination(scratch, "destination-2", &options)?;
        let (mut running, session) = half_way(&source, &destination, "cancelled")?;
        let control = a.control().display().to_string();
        let (status, said) = novactl::run(scratch, "cancel", &["cancel", &session, "--gateway", &control])?;
        assert!(status.success() && said.contains(&session), "{said}");
        let ended = running.finish(MIGRATION_WAIT)?;
        assert_eq!(ended.must_have_stayed("failed")?, "cancelled", "{}", ended.said);
        must_be_cancelled([&a, &b], &session)?;
        must_have_stayed(&mut source, &mut destination)?;

        let mut destination = Qemu::destination(scratch, "destination-3", &options)?;
        let between = Between {
            source: &source,
            destination: &destination,
            source_gateway: &a,
            destination_gateway: &b,
        };
        Novactl::migrate(scratch, "third", &between, &[])?.finish(MIGRATION_WAIT)?.must_have_completed()?;
        must_have_moved(&mut source, &mut destination)
    })
}

#[test]
fn two_guests_move_at_once() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, b) = gateways(scratch)?;
        let mut pairs = Vec::new();
        for (index, seed) in [(0, 11), (1, 22)] {
            let mut options = QemuOptions::default();
            options.guest.seed = seed;
            let source = Qemu::source(scratch, &format!("source-{index}"), &options)?;
            pairs.push((source, Qemu::destination(scratch, &format!("destination-{index}"), &options)?));
        }
        let mut running = Vec::new();
        for (source, _) in &pairs {
            source.guest().wait_ready()?;
        }
        for (index, (source, destination)) in pairs.iter().enumerate() {
            let between = Between { source, destination, source_gateway: &a, destination_gateway: &b };
            // Neither may be done before the other has begun.
            let slow = ["--max-bandwidth", "40000000"];
            running.push(Novactl::migrate(scratch, &format!("novactl-{index}"), &between, &slow)?);
        }
        let mut sessions = Vec::new();
        for one in &mut running {
            let ended = one.finish(MIGRATION_WAIT)?;
            let session = ended.must_have_completed()?["session"].as_str().context("no session")?.to_owned();
            sessions.push(must_be_finished([&a, &b], &session)?);
        }
        for (source, destination) in &mut pairs {
            must_have_moved(source, destination)?;
        }
        // They did run at once.
        let spans: Vec<_> = sessions.iter().map(|[at_source, _]| span(at_source)).collect();
        let overlap = spans.iter().map(|span| &span.0).max() < spans.iter().map(|span| &span.1).min();
        assert!(overlap, "{spans:?}");
        Ok(())
    })
}

/// When a session was opened and when it ended: RFC 3339, which sorts as it reads.
fn span(record: &Value) -> (String, String) {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    (text("opened_at"), text("ended_at"))
}

/// The stream says that the guest has not been stopped yet: the source's socket need not be held although the
/// destination may start by itself.
#[test]
fn a_session_cancelled_before_the_switchover_lets_the_source_go_on() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options = QemuOptions::default();
        let (a, b) = gateways(scratch)?;
        let mut source = Qemu::source(scratch, "source", &options)?;
        let mut destination = Qemu::destination(scratch, "destination", &options)?;
        source.guest().wait_ready()?;
        let session = Session::new()?;
        let incoming = unix(&scratch.file("destination.sock"));
        let choices = json!({"destination_may_start": true});
        let outgoing = session.open(&a, &b, ("tcp:127.0.0.1:0", &incoming), &choices)?;
        let over = Migration { incoming, outgoing, max_bandwidth: SLOW.parse()?, ..Migration::direct_tcp()? };
        over.start(&mut source, &mut destination)?;
        wait_under_way(&a, HALF_WAY_BYTES, MIGRATION_WAIT)?;
        let cancelled =
            b.rpc()?.call("session.cancel", json!({"session": session.id, "reason": "enough"}))?;
        ensure!(cancelled["state"] == "failed", "{cancelled}");
        must_be_cancelled([&a, &b], &session.id)?;
        ensure!(migration::wait_completed(&mut source, MIGRATION_WAIT).is_err(), "it was cancelled");
        must_have_stayed(&mut source, &mut destination)
    })
}

/// What an orchestrator of one's own does, with a destination that runs the guest by itself (no `-S`).
#[test]
fn a_session_by_hand_moves_a_guest_that_starts_by_itself() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options = QemuOptions::default();
        let (a, b) = gateways(scratch)?;
        let mut source = Qemu::source(scratch, "source", &options)?;
        let waiting = QemuOptions { extra: vec!["-incoming".into(), "defer".into()], ..options };
        let mut destination = Qemu::source(scratch, "destination", &waiting)?;
        source.guest().wait_ready()?;

        let session = Session::new()?;
        let incoming = format!("tcp:127.0.0.1:{}", port::free()?);
        let listen = unix(&scratch.file("hypervisor.sock"));
        let choices = json!({"destination_may_start": true, "codec": "lz4", "lanes": 2, "streams": 1});
        let outgoing = session.open(&a, &b, (&listen, &incoming), &choices)?;
        assert_eq!(outgoing, listen);
        let over = Migration { incoming, outgoing, ..Migration::direct_tcp()? };
        let (interval, _) = over.start(&mut source, &mut destination)?;
        migration::wait_completed(&mut source, MIGRATION_WAIT)?;
        let pause =
            migration::pause_between(source.guest().serial(), destination.guest().serial(), interval)?;
        assert!(pause.first_at_destination > pause.last_at_source, "{pause}");
        must_run_intact(&mut destination)?;
        assert!(!source.runs_guest());
        // A source that has completed closes its socket; nothing is left to be held.
        let [record, _] = must_be_finished([&a, &b], &session.id)?;
        assert!(record["codec"]["lz4"].as_u64().is_some_and(|bytes| bytes > 0), "{record}");
        assert_eq!(record["codec"]["zstd"], 0);
        source.quit()
    })
}

#[test]
fn a_gateway_told_to_end_lets_sessions_finish_or_fails_them_in_time() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options = QemuOptions::default();
        let a = Gateway::start(scratch, "gateway-a", &GatewayOptions::default())?;
        let short = GatewayOptions {
            extra: vec!["--drain-timeout".into(), "500ms".into()],
            ..GatewayOptions::default()
        };
        let mut b = Gateway::start(scratch, "gateway-b", &short)?;
        let mut source = Qemu::source(scratch, "source", &options)?;
        let mut destination = Qemu::destination(scratch, "destination", &options)?;
        source.guest().wait_ready()?;

        // Too slow for the time that is left: failed in order, before the gateway ends.
        let between = Between {
            source: &source,
            destination: &destination,
            source_gateway: &a,
            destination_gateway: &b,
        };
        let mut running = Novactl::migrate(scratch, "cut", &between, &["--max-bandwidth", SLOW])?;
        let session = wait_under_way(&a, HALF_WAY_BYTES, MIGRATION_WAIT)?;
        let status = b.process().terminate()?;
        assert!(status.success(), "the gateway ended with {status}");
        let ended = running.finish(MIGRATION_WAIT)?;
        assert_eq!(ended.must_have_stayed("failed")?, "cancelled", "{}", ended.said);
        let left = record(&a, &session)?;
        let why = left["reason"]["message"].as_str().unwrap_or_default();
        assert!(left["state"] == "failed" && why.contains("shut down"), "{left}");
        must_have_stayed(&mut source, &mut destination)?;

        // Time enough: the session finishes first, and nothing new begins.
        let mut b = Gateway::start(scratch, "gateway-b-again", &GatewayOptions::default())?;
        let mut destination = Qemu::destination(scratch, "destination-again", &options)?;
        source.guest().set_rate(2)?;
        let between = Between {
            source: &source,
            destination: &destination,
            source_gateway: &a,
            destination_gateway: &b,
        };
        let mut running = Novactl::migrate(scratch, "finishing", &between, &["--max-bandwidth", "30000000"])?;
        wait_under_way(&a, HALF_WAY_BYTES, MIGRATION_WAIT)?;
        let mut rpc = b.rpc()?;
        b.process().signal(Signal::TERM)?;
        let draining = || Ok((rpc.call("gateway.info", json!({}))?["draining"] == true).then_some(()));
        novacron_testbed::wait::until("the gateway to drain", EXIT_WAIT, draining)?;
        let refused =
            b.rpc()?.call("session.open", Session::new()?.at_destination("tcp:127.0.0.1:1", &json!({})));
        assert!(format!("{:#}", refused.unwrap_err()).contains("-32006"));
        running.finish(MIGRATION_WAIT)?.must_have_completed()?;
        assert!(b.process().wait(EXIT_WAIT)?.success());
        must_have_moved(&mut source, &mut destination)
    })
}
