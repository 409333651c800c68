//! SQLite: what both databases promise, and what becomes of a lock and of a full disk.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use novacron_control_api::SessionState;
use novacron_store::{Kept, Store, StoreError, StoreOptions};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::suite::{self, Place, draft, seen};

struct Sqlite(TempDir);

impl Place for Sqlite {
    fn options(&self) -> StoreOptions {
        StoreOptions::embedded(self.0.path())
    }

    fn sql(&self, sql: &str) -> String {
        let connection = Connection::open(self.0.path().join("store.sqlite")).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        if sql.starts_with("SELECT") {
            connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().to_string()
        } else {
            connection.execute_batch(sql).unwrap();
            String::new()
        }
    }
}

fn place(_name: &str) -> Option<Sqlite> {
    Some(Sqlite(tempfile::tempdir().unwrap()))
}

suite::over! { place }

#[test]
fn starters_do_not_get_into_each_others_way() {
    let place = place("starters").unwrap();
    suite::starters_do_not_get_into_each_others_way(&place, "sqlite", place.0.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_database_loses_nothing() {
    let place = place("locked").unwrap();
    let store = Store::open(place.options()).await.unwrap();
    let holder = Connection::open(place.0.path().join("store.sqlite")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(store.audit(draft(1)).await.unwrap(), Kept::Spooled { on_disk: true });
    // Behind it, without waiting for the lock again, so that the order stays.
    assert_eq!(store.audit(draft(2)).await.unwrap(), Kept::Spooled { on_disk: true });
    let error = store.set("switch", Some("1"), "uid:0").await.unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(store.health().away.unwrap().contains("locked"));
    assert_eq!(store.health().spooled, 2);
    holder.execute_batch("COMMIT").unwrap();
    // Nothing is in the way any more; but it came later.
    store.audit(draft(3)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), store.drained()).await.unwrap();
    let entries = store.audit_entries(0, 10).await.unwrap();
    let subjects: Vec<&str> = entries.iter().map(|entry| entry.draft.subject.as_str()).collect();
    assert_eq!(subjects, [1, 2, 3].map(|number| draft(number).subject));
    assert_eq!(store.health().away, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_owner_can_read_what_is_stored() {
    use std::os::unix::fs::MetadataExt;
    let place = place("modes").unwrap();
    let store = Store::open(place.options()).await.unwrap();
    store.audit(draft(1)).await.unwrap();
    let names = std::fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap());
    let modes: Vec<_> =
        names.map(|entry| (entry.file_name(), entry.metadata().unwrap().mode() & 0o777)).collect();
    assert!(modes.len() >= 4, "{modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_closed_leaves_one_file_and_takes_nothing() {
    let place = place("closed").unwrap();
    let store = Store::open(place.options()).await.unwrap();
    let other = store.clone();
    store.audit(draft(1)).await.unwrap();
    assert!(place.0.path().join("store.sqlite-wal").exists());
    store.close().await;
    assert!(!place.0.path().join("store.sqlite-wal").exists(), "its log was left beside the file");
    assert_eq!(other.audit(draft(2)).await, Err(StoreError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    std::fs::write(&path, "x".repeat(10_000)).unwrap();
    let error = Store::open(StoreOptions::embedded(dir.path())).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), "x".repeat(10_000).as_bytes());
    let error = Store::open(StoreOptions::embedded(dir.path().join("nowhere"))).await.unwrap_err();
    assert!(matches!(error, StoreError::Options { .. }), "{error}");
}

const FULL: &str = "NOVACRON_STORE_TEST_FULL";

/// A file system of 3 MiB in a mount namespace of its own, which goes with the process.
#[test]
fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=3m tmpfs \"$FULL\" && exec \"$0\" --exact sqlite::on_a_full_disk --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(FULL, dir.path())
        .env("FULL", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || said.contains("mount:") {
        eprintln!("skipped: no mount namespace can be made here: {said}");
        return;
    }
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

/// What [`a_full_disk_loses_nothing`] starts; otherwise nothing, for want of a full disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk() {
    let Some(dir) = std::env::var_os(FULL) else { return };
    let dir = Path::new(&dir);
    let store = Store::open(StoreOptions::embedded(dir)).await.unwrap();
    store.audit(draft(0)).await.unwrap();
    // Fills what is left, to the last byte.
    let ballast = dir.join("ballast");
    let full = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(&ballast).unwrap());
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);

    // Until SQLite needs another page, it writes into those that it has.
    let mut spooled_from = 0;
    for number in 1..200 {
        store.save_session(seen(number, SessionState::Running)).await.unwrap();
        if store.health().spooled > 0 {
            spooled_from = number;
            break;
        }
    }
    assert!(spooled_from > 0, "the disk never was full");
    let kept = store.audit(draft(1)).await.unwrap();
    assert!(matches!(kept, Kept::Spooled { .. }), "{kept:?}");
    let health = store.health();
    assert!(health.away.as_ref().unwrap().contains("cannot write"), "{health:?}");
    assert_eq!(health.refused, 0);

    std::fs::remove_file(&ballast).unwrap();
    tokio::time::timeout(Duration::from_secs(60), store.drained()).await.unwrap();
    assert_eq!(store.verify_audit(&[]).await.unwrap().entries, 2);
    for number in 1..=spooled_from {
        let id = novacron_control_api::SessionId(number);
        assert!(store.session("gw-1", id).await.unwrap().is_some(), "{number}");
    }
}
