//! Every workload: it boots, holds its rate, moves, and finds everything that it keeps as it had left it.

use std::time::Duration;

use anyhow::{Context, Result};
use novacron_testbed::{GuestOptions, Migration, Qemu, QemuOptions, Scratch, Workload, artefact};
use qapi::qmp;

/// Boots a guest, lets it work, moves it, lets it work on and verify itself.
fn moves(workload: Workload) -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options = QemuOptions::for_workload(&GuestOptions::of(workload))?;
        let mut source = Qemu::source(scratch, "source", &options)?;
        let mut destination = Qemu::destination(scratch, "destination", &options)?;
        let booting = std::time::Instant::now();
        let kept = source.guest().wait_ready()?;
        let boot = booting.elapsed().as_secs_f32();
        source.guest().work()?;
        std::thread::sleep(Duration::from_secs(2));
        let report = Migration::direct_unix(scratch).run(&mut source, &mut destination)?;
        std::thread::sleep(Duration::from_secs(2));
        let work = destination.guest().work()?;
        let verified = destination.guest().must_be_intact()?;
        eprintln!("{workload}: ready in {boot:.1} s, {work:?}, {verified:?}, {report}");
        assert!(verified.pages >= kept, "{verified:?} of {kept}");
        assert_eq!(work.unit, workload.unit());
        assert_eq!(work.set, workload.default_rate());
        // Machines that test are loaded: only that it worked, and did no more than it was told, what it had been
        // behind included.
        assert!(work.share() <= 1.5 && (work.achieved > 0.0) == (work.set > 0.0), "{work:?}");
        assert_eq!(verified.dirtied > 0, work.set > 0.0);
        if workload == Workload::Disk {
            moved_in_memory(&mut destination)?;
        }
        // Nothing of this shows anything unless damage is found.
        let guest = destination.guest();
        guest.set_rate(0)?;
        guest.corrupt()?;
        let error = guest.must_be_intact().unwrap_err().to_string();
        assert!(error.starts_with("1 bad"), "{error}");
        Ok(())
    })
}

/// The guest's page cache came with it: what it read back did not come from the disk at the destination.
fn moved_in_memory(destination: &mut Qemu) -> Result<()> {
    let lines = destination.guest().serial().lines("CACHED");
    let line = lines.last().context("the guest does not say what was in its page cache")?;
    let number = |name: &str| -> Result<u64> {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)).context("no number")?;
        Ok(word.parse()?)
    };
    let (cached, all) = (number("blocks=")?, number("of=")?);
    assert!(cached >= all * 99 / 100, "{line}");
    let disks = destination.qmp().execute(qmp::query_blockstats { query_nodes: None })?;
    let read: i64 = disks.iter().map(|disk| disk.stats.rd_bytes).sum();
    assert!(!disks.is_empty() && read < 16 << 20, "{read} bytes were read from the destination's disk");
    Ok(())
}

#[test]
fn an_idle_guest_moves() -> Result<()> {
    moves(Workload::Idle)
}

#[test]
fn a_dirtying_guest_moves() -> Result<()> {
    moves(Workload::Dirty)
}

#[test]
fn a_guest_of_random_pages_moves() -> Result<()> {
    moves(Workload::Random)
}

/// Those that run programs of the guest's disk image, where there is one.
fn moves_with_image(workload: Workload) -> Result<()> {
    if let Err(error) = artefact::image() {
        eprintln!("skipped: the workload {workload} needs the guest's disk image: {error}");
        return Ok(());
    }
    moves(workload)
}

#[test]
fn a_guest_with_redis_moves() -> Result<()> {
    moves_with_image(Workload::Redis)
}

#[test]
fn a_guest_with_a_database_moves() -> Result<()> {
    moves_with_image(Workload::Database)
}

#[test]
fn a_compiling_guest_moves() -> Result<()> {
    moves_with_image(Workload::Compile)
}

#[test]
fn a_guest_that_has_read_its_disk_moves() -> Result<()> {
    moves_with_image(Workload::Disk)
}
