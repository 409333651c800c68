//! A captured stream is whole: a hypervisor that never met the source loads it, and the guest in it is intact.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result};
use novacron_testbed::capture::{Captured, Step, notes_path};
use novacron_testbed::{CaptureOptions, GuestOptions, Qemu, QemuOptions, Scratch, Workload, capture, wait};
use qapi::qmp;

#[test]
fn a_captured_stream_is_loaded_by_another_hypervisor() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let guest = GuestOptions { work_mib: 32, ..GuestOptions::of(Workload::Dirty) };
        let mut options = CaptureOptions::of(guest.clone());
        options.warm_up = Duration::from_secs(1);
        options.max_bandwidth = Some(60_000_000);
        let path = scratch.file("dirty.stream");
        let mut most = 0;
        let captured = capture::capture(&options, &path, |step| {
            if let Step::Moves(bytes, _) = step {
                most = bytes;
            }
        })?;
        assert!(most > 0 && most <= captured.bytes, "{most} of {captured:?}");
        let stream = fs::read(&path)?;
        assert_eq!(&stream[..8], b"QEVM\0\0\0\x03");
        assert_eq!(stream.len() as u64, captured.bytes);
        assert_eq!(blake3::hash(&stream).to_hex().to_string(), captured.blake3);
        for file in [&path, &notes_path(&path)] {
            assert_eq!(fs::metadata(file)?.mode() & 0o777, 0o600);
        }
        assert_eq!(serde_json::from_slice::<Captured>(&fs::read(notes_path(&path))?)?, captured);
        assert!(captured.passes >= 2, "{captured:?}");

        // A second capture takes nobody's place.
        assert!(capture::capture(&options, &path, |_| ()).is_err());
        assert_eq!(fs::metadata(&path)?.len(), captured.bytes);

        let machine = QemuOptions::for_workload(&guest)?;
        let mut destination = Qemu::destination(scratch, "replayed", &machine)?;
        let socket = scratch.file("replay");
        let capability =
            qmp::MigrationCapabilityStatus { capability: qmp::MigrationCapability::return_path, state: true };
        destination.qmp().execute(qmp::migrate_set_capabilities { capabilities: vec![capability] })?;
        let uri = Some(format!("unix:{}", socket.display()));
        destination.qmp().execute(qmp::migrate_incoming { uri, channels: None, exit_on_error: None })?;
        assert_eq!(capture::replay(&path, &socket)?, captured.bytes);
        wait::until("the replayed guest", Duration::from_secs(30), || {
            Ok((destination.state()? != qmp::RunState::inmigrate).then_some(()))
        })?;
        destination.cont()?;
        let verified = destination.guest().must_be_intact().context("after the replay")?;
        assert_eq!(verified.pages, captured.verified);
        Ok(())
    })
}
