//! Real hypervisors with the test guest in them: it boots, it knows its memory, it moves. These are what every other
//! end-to-end test stands on.

use std::time::Duration;

use anyhow::{Context, Result};
use novacron_testbed::migration::{self, Migration, MigrationReport};
use novacron_testbed::{Compression, Postcopy, Qemu, QemuOptions, Scratch, TimedOut, wait};
use qapi::qmp::RunState;

/// Boots a guest, moves it and lets it verify itself; everything that a test of a direct migration has in common.
fn migrate(
    options: &QemuOptions,
    migration: impl FnOnce(&Scratch) -> Result<Migration>,
) -> Result<MigrationReport> {
    let scratch = Scratch::new()?;
    let mut source = Qemu::source(&scratch, "source", options)?;
    let mut destination = Qemu::destination(&scratch, "destination", options)?;
    let pages = source.guest().wait_ready()?;
    assert_eq!(destination.state()?, RunState::inmigrate);
    let report = migration(&scratch)?.run(&mut source, &mut destination)?;
    let verified = destination.guest().must_be_intact()?;
    assert_eq!(verified.pages, pages);
    assert!(verified.dirtied > 0);
    assert_eq!(source.state()?, RunState::postmigrate);
    assert_eq!(destination.state()?, RunState::running);
    assert!(source.guest().serial().last_beat().map(|beat| beat.number) == Some(report.pause.last_at_source));
    eprintln!("{report}");
    Ok(report)
}

#[test]
fn a_guest_boots_beats_and_holds_its_rate() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut options = QemuOptions::default();
    options.guest.rate_mb = 10;
    let qemu = Qemu::source(&scratch, "guest", &options)?;
    assert_eq!(qemu.guest().wait_ready()?, u64::from(options.guest.work_mib) * 256);
    let interval = migration::beat_interval(qemu.guest().serial())?;
    assert!((4..=10).contains(&interval.as_millis()), "the heart beats every {interval:?}");
    qemu.guest().rate()?;
    std::thread::sleep(Duration::from_secs(1));
    let rate = qemu.guest().rate()?;
    assert_eq!(rate.set_mb, 10);
    assert!((8_000..=11_000).contains(&rate.achieved_kb), "{rate:?}");
    let verified = qemu.guest().must_be_intact()?;
    assert!(verified.dirtied > 2000, "{verified:?}");
    Ok(())
}

#[test]
fn a_corrupt_page_is_reported() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut options = QemuOptions::default();
    // The dirtier stands still, so that it is the sweep that finds the page.
    options.guest.rate_mb = 0;
    let qemu = Qemu::source(&scratch, "guest", &options)?;
    qemu.guest().wait_ready()?;
    assert_eq!(qemu.guest().verify()?.bad, 0);
    let page = qemu.guest().corrupt()?;
    assert_eq!(qemu.guest().verify()?.bad, 1);
    let error = qemu.guest().must_be_intact().unwrap_err().to_string();
    assert!(error.contains(&format!("page={page} ")), "{error}");
    Ok(())
}

#[test]
fn a_direct_migration_over_unix_keeps_the_guest_intact() -> Result<()> {
    let report = migrate(&QemuOptions::default(), |scratch| Ok(Migration::direct_unix(scratch)))?;
    assert!(report.pause.pause < Duration::from_secs(5), "{report}");
    assert!(report.sent_bytes > 10 << 20, "{report}");
    Ok(())
}

#[test]
fn a_direct_migration_over_tcp_keeps_the_guest_intact() -> Result<()> {
    let report = migrate(&QemuOptions::default(), |_| Migration::direct_tcp())?;
    assert!(report.pause.pause < Duration::from_secs(5), "{report}");
    Ok(())
}

#[test]
fn multifd_keeps_the_guest_intact() -> Result<()> {
    let over = |_: &Scratch| Ok(Migration { multifd_channels: Some(2), ..Migration::direct_tcp()? });
    migrate(&QemuOptions::default(), over).map(drop)
}

#[test]
fn a_filled_guest_sends_all_of_its_memory() -> Result<()> {
    let options = QemuOptions::filled(512, 64, 20);
    let report = migrate(&options, |scratch| Ok(Migration::direct_unix(scratch)))?;
    assert!(report.sent_bytes > 400 << 20, "{report}");
    Ok(())
}

#[test]
fn multifd_compresses_xbzrle_and_postcopy_move_the_same_guest_in_turn() -> Result<()> {
    let scratch = Scratch::new()?;
    let options = QemuOptions::default();
    let mut guest = Qemu::source(&scratch, "vm", &options)?;
    guest.guest().wait_ready()?;
    // One after the other, so that what one switches on is seen to be off for the next.
    let over = Migration { max_bandwidth: 60 << 20, ..Migration::direct_tcp()? };
    let zstd = Migration {
        multifd_channels: Some(4),
        multifd_compression: Some(Compression::Zstd(1)),
        ..over.clone()
    };
    let zlib = Migration {
        multifd_channels: Some(2),
        multifd_compression: Some(Compression::Zlib(1)),
        switchover_ack: true,
        ..over.clone()
    };
    let xbzrle = Migration { xbzrle_cache_bytes: Some(64 << 20), ..over.clone() };
    let postcopy = Migration { postcopy: Some(Postcopy::default()), ..over.clone() };
    let preempt = Migration { postcopy: Some(Postcopy { preempt: true }), ..over };
    let ways =
        [("zstd", zstd), ("preempt", preempt), ("xbzrle", xbzrle), ("zlib", zlib), ("postcopy", postcopy)];
    for (name, way) in ways {
        let mut next = Qemu::destination(&scratch, name, &options)?;
        let report = way.run(&mut guest, &mut next).with_context(|| name.to_owned())?;
        println!("{name}: {report}");
        assert_eq!(report.postcopy, way.postcopy.is_some(), "{name}: {report:?}");
        // The source counts whole milliseconds of its own clock, from after it was told to.
        assert!(report.elapsed + Duration::from_millis(2) >= report.total, "{name}: {report:?}");
        assert!(next.runs_guest() && !guest.runs_guest(), "{name}: the guest runs elsewhere");
        next.guest().must_be_intact().with_context(|| name.to_owned())?;
        guest = next;
    }
    Ok(())
}

#[test]
fn a_migration_that_takes_too_long_is_cancelled_and_says_so() -> Result<()> {
    let scratch = Scratch::new()?;
    let options = QemuOptions::default();
    let mut source = Qemu::source(&scratch, "source", &options)?;
    let mut destination = Qemu::destination(&scratch, "destination", &options)?;
    source.guest().wait_ready()?;
    let time_limit = Duration::from_millis(500);
    let slow = Migration { max_bandwidth: 5 << 20, time_limit, ..Migration::direct_tcp()? };
    let error = slow.run(&mut source, &mut destination).unwrap_err();
    let timed_out = error.downcast_ref::<TimedOut>().expect("it is a matter of time");
    assert!(!timed_out.in_postcopy, "{timed_out}");
    assert!(source.runs_guest() && !destination.runs_guest());
    source.guest().must_be_intact().map(drop)
}

#[test]
fn a_cancelled_migration_leaves_the_guest_at_the_source() -> Result<()> {
    let scratch = Scratch::new()?;
    let options = QemuOptions::default();
    let mut source = Qemu::source(&scratch, "source", &options)?;
    let mut destination = Qemu::destination(&scratch, "destination", &options)?;
    source.guest().wait_ready()?;
    let slow = Migration { max_bandwidth: 5 << 20, ..Migration::direct_unix(&scratch) };
    slow.start(&mut source, &mut destination)?;
    std::thread::sleep(Duration::from_millis(300));
    migration::cancel(&mut source)?;
    assert!(source.runs_guest());
    assert!(!destination.runs_guest());
    assert!(destination.guest().serial().first_beat().is_none());
    source.guest().must_be_intact().map(drop)
}

#[test]
fn a_killed_source_is_no_running_guest() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut source = Qemu::source(&scratch, "source", &QemuOptions::default())?;
    assert!(source.runs_guest());
    let pid = source.process().pid();
    source.process().kill();
    assert!(!source.runs_guest());
    let gone = || Ok((!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    wait::until("the end of the killed hypervisor", Duration::from_secs(5), gone)
}
