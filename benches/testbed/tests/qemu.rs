//! Real hypervisors with the test guest in them: it boots, it knows its memory, it moves. These are what every other
//! end-to-end test stands on.

use std::time::Duration;

use anyhow::Result;
use novacron_testbed::migration::{self, Migration, MigrationReport};
use novacron_testbed::{Qemu, QemuOptions, Scratch, wait};
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
