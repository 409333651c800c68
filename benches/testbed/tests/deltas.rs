//! Working guests through two real gateways that remember pages, and through two that do not: what crosses between them, and that
//! the guest is what it was.

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::{BEAT_WAIT, EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::session::wait_ended;
use novacron_testbed::{
    Between, Gateway, GatewayOptions, GuestOptions, Novactl, Qemu, QemuOptions, Scratch, Workload, artefact,
};
use serde_json::Value;

/// Bytes a second at which QEMU sends pages several times before it is done.
const SLOW: &str = "25000000";
/// What QEMU is to stop the guest for, ms: short, for the same reason, and still more than what is dirtied between two of its
/// looks (a tenth of a second) needs at that rate.
const DOWNTIME: &str = "60";
/// Megabytes a second that are dirtied.
const DIRTIED_MB: u32 = 10;

fn gateways(scratch: &Scratch, name: &str, extra: &[&str]) -> Result<(Gateway, Gateway)> {
    let options = GatewayOptions {
        extra: extra.iter().map(|argument| (*argument).to_owned()).collect(),
        ..GatewayOptions::default()
    };
    let start = |side: &str| Gateway::start(scratch, &format!("{name}-{side}"), &options);
    Ok((start("a")?, start("b")?))
}

/// Moves a working guest over these gateways; it verifies itself. The source gateway's record.
fn moves(
    scratch: &Scratch,
    (source, destination): (&mut Qemu, &mut Qemu),
    (a, b): (&Gateway, &Gateway),
    name: &str,
) -> Result<Value> {
    let between =
        Between { source: &*source, destination: &*destination, source_gateway: a, destination_gateway: b };
    let arguments =
        ["--codec", "zstd", "--level", "3", "--max-bandwidth", SLOW, "--downtime-limit", DOWNTIME];
    let ended = Novactl::migrate(scratch, name, &between, &arguments)?.finish(MIGRATION_WAIT)?;
    let session = ended.must_have_completed()?["session"].as_str().context("no session")?.to_owned();
    ensure!(source.process().wait(EXIT_WAIT)?.success(), "the source did not quit in order");
    ensure!(destination.runs_guest(), "the guest does not run at the destination");
    destination.guest().must_be_intact()?;
    let beat = destination.guest().serial().last_beat().map(|beat| beat.number);
    destination.guest().serial().wait_beat(beat, BEAT_WAIT)?;
    let records = [wait_ended(a, &session, EXIT_WAIT)?, wait_ended(b, &session, EXIT_WAIT)?];
    for record in &records {
        ensure!(record["state"] == "finished" && record["digest_equal"] == true, "{record}");
        ensure!(record["delta_memory"]["held"] == 0, "a session that is over remembers: {record}");
    }
    let [source, _] = records;
    Ok(source)
}

fn number(record: &Value, path: &str) -> Result<f64> {
    record.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {record}"))
}

/// Guest bytes for each byte that crossed.
fn ratio(record: &Value) -> Result<f64> {
    Ok(number(record, "/guest_bytes")? / number(record, "/wire_bytes_sent")?)
}

/// There with deltas on `shards` shards, on without.
fn deltas_pay(workload: Workload, shards: &str) -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options =
            QemuOptions::for_workload(&GuestOptions { rate_mb: DIRTIED_MB, ..GuestOptions::of(workload) })?;
        let mut first = Qemu::source(scratch, "first", &options)?;
        let mut second = Qemu::destination(scratch, "second", &options)?;
        first.guest().wait_ready()?;

        let with = gateways(scratch, "with", &["--shards", shards])?;
        let remembered = moves(scratch, (&mut first, &mut second), (&with.0, &with.1), "with")?;
        let mut third = Qemu::destination(scratch, "third", &options)?;
        let without = gateways(scratch, "without", &["--shards", shards, "--delta-budget", "0"])?;
        let forgotten = moves(scratch, (&mut second, &mut third), (&without.0, &without.1), "without")?;

        let codec = |record: &Value| record["codec"].clone();
        eprintln!(
            "{workload}, {shards} shards: {} guest bytes, ratio {:.2} with deltas ({}), {} guest bytes, {:.2} without ({})",
            remembered["guest_bytes"],
            ratio(&remembered)?,
            codec(&remembered),
            forgotten["guest_bytes"],
            ratio(&forgotten)?,
            codec(&forgotten),
        );
        for by in ["/codec/unchanged", "/codec/delta", "/codec_times/memory_us"] {
            ensure!(number(&remembered, by)? > 0.0, "{remembered}");
            ensure!(number(&forgotten, by)? == 0.0, "{forgotten}");
        }
        // How often pages are sent again is the guest's and the machine's doing.
        ensure!(ratio(&remembered)? > ratio(&forgotten)?, "{remembered}\n{forgotten}");
        Ok(())
    })
}

#[test]
fn a_dirtying_guest_crosses_as_differences() -> Result<()> {
    deltas_pay(Workload::Dirty, "1")
}

#[test]
fn a_guest_with_redis_crosses_as_differences() -> Result<()> {
    if let Err(error) = artefact::image() {
        eprintln!("skipped: the workload redis needs the guest's disk image: {error}");
        return Ok(());
    }
    deltas_pay(Workload::Redis, "2")
}

/// A guest that follows another of its tenant: the far gateway has much of what it holds, from the same system. Both gateways keep it
/// between sessions only where they are told to.
#[test]
fn a_second_guest_is_sent_by_reference() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options = QemuOptions::for_workload(&GuestOptions::of(Workload::Idle))?;
        let kept = gateways(scratch, "kept", &["--content-keep", "10m"])?;
        let gone = gateways(scratch, "gone", &[])?;
        let mut known = Vec::new();
        for (name, (a, b)) in [("kept", &kept), ("gone", &gone)] {
            for turn in ["first", "second"] {
                let name = format!("{name}-{turn}");
                let mut source = Qemu::source(scratch, &format!("{name}-from"), &options)?;
                let mut destination = Qemu::destination(scratch, &format!("{name}-to"), &options)?;
                source.guest().wait_ready()?;
                let record = moves(scratch, (&mut source, &mut destination), (a, b), &name)?;
                let wire = number(&record, "/wire_bytes_sent")?;
                eprintln!("{name}: {wire} bytes crossed, codec {}, {}", record["codec"], record["content"]);
                known.push((number(&record, "/codec/known")?, wire, number(&record, "/guest_bytes")?));
            }
        }
        let [first, second, alone, again] = known[..] else { unreachable!("four moves") };
        ensure!(second.0 > second.2 / 5.0, "little was known of a second guest: {known:?}");
        ensure!(second.1 < first.1 * 0.8, "a second guest cost as much: {known:?}");
        // What a guest holds twice itself is known within its own session, too.
        ensure!(again.0 < second.0 / 5.0 && alone.0 < second.0 / 5.0, "kept unasked: {known:?}");
        Ok(())
    })
}
