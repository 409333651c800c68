//! What must hold over either database.

use std::path::Path;
use std::time::{Duration, SystemTime};

use novacron_control_api::{SessionId, SessionRecord, SessionState, Timestamp};
use novacron_store::audit::{AuditDraft, AuditOutcome, Fault, Head, verify_lines};
use novacron_store::limits::PRUNE_KEEP_MIN;
use novacron_store::{
    AuditFault, Claim, Kept, MigrationOutcome, MigrationRecord, Page, PathSample, SeenSession, Store,
    StoreError, StoreOptions, Which,
};
use serde_json::json;

/// A database of one test.
pub(crate) trait Place {
    /// Options to open it with.
    fn options(&self) -> StoreOptions;
    /// Runs SQL beside the store, as whoever tampers with it would.
    fn sql(&self, sql: &str) -> String;
}

/// The moment that is so many seconds after a fixed one.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds))
}

/// A session's record.
pub(crate) fn record(number: u64, state: SessionState) -> SessionRecord {
    serde_json::from_value(json!({
        "session": format!("{number:016x}"), "label": "vm", "role": "source", "state": state, "phase": "precopy",
        "iteration": 1, "opened_at": at(number), "elapsed_ms": 5, "streams": {"open": 4, "ever": 4},
        "guest_bytes": u64::MAX, "encoded_bytes": 2, "wire_bytes_sent": 3, "wire_bytes_received": 4, "pages": 5,
        "zero_pages": 6, "ram_total_bytes": 7, "rate_bytes_per_s": 8, "rtt_us": 9, "window_bytes": 10,
        "codec": {"raw": 1, "lz4": 2, "zstd": 3}, "connections": []
    }))
    .unwrap()
}

/// A session as seen.
pub(crate) fn seen(number: u64, state: SessionState) -> SeenSession {
    SeenSession { gateway: "gw-1".to_owned(), seen_at: at(number + 1), record: record(number, state) }
}

/// An audit entry.
pub(crate) fn draft(number: u64) -> AuditDraft {
    let mut draft = AuditDraft::new("uid:1000", "migration.start", AuditOutcome::Done).unwrap();
    draft.subject = format!("{number:016x}");
    draft.detail = json!({"label": "it's; \"quoted\" \u{1F600}", "n": number}).to_string();
    draft
}

pub(crate) async fn sessions_and_migrations_are_kept_replaced_and_paged(place: &dyn Place) {
    let store = Store::open(place.options()).await.unwrap();
    for number in 0..25 {
        assert_eq!(store.save_session(seen(number, SessionState::Running)).await.unwrap(), Kept::Stored);
    }
    store.save_session(seen(7, SessionState::Finished)).await.unwrap();
    let found = store.session("gw-1", SessionId(7)).await.unwrap().unwrap();
    assert_eq!(found, seen(7, SessionState::Finished));
    assert_eq!(store.session("gw-2", SessionId(7)).await.unwrap(), None);

    let mut numbers = Vec::new();
    let mut page = Page::of(10);
    loop {
        let paged = store.sessions(Which::All, &page).await.unwrap();
        assert!(paged.items.len() <= 10);
        numbers.extend(paged.items.iter().map(|seen| seen.record.session.0));
        let Some(next) = paged.next else { break };
        // As it comes back from a caller.
        page.after = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(numbers, (0..25).rev().collect::<Vec<_>>());
    let ended = store.sessions(Which::Ended, &Page::default()).await.unwrap();
    assert_eq!(ended.items.len(), 1);
    assert_eq!(store.sessions(Which::Live, &Page::of(u32::MAX)).await.unwrap().items.len(), 24);

    let mut migration = MigrationRecord {
        session: SessionId(7),
        label: "vm".to_owned(),
        tenant: String::new(),
        actor: "uid:0".to_owned(),
        outcome: MigrationOutcome::Running,
        reason: None,
        started_at: at(0),
        ended_at: None,
        downtime_ms: None,
        total_ms: None,
        reported_by: None,
        source: None,
        destination: None,
        peer: Some("tcp:192.0.2.1:7400".parse().unwrap()),
    };
    store.save_migration(migration.clone()).await.unwrap();
    assert_eq!(store.migrations(Which::Live, &Page::default()).await.unwrap().items, [migration.clone()]);
    migration.outcome = MigrationOutcome::Completed;
    migration.source = Some(record(7, SessionState::Finished));
    store.save_migration(migration.clone()).await.unwrap();
    store.close().await;

    let store = Store::open(place.options()).await.unwrap();
    assert_eq!(store.migration(SessionId(7)).await.unwrap(), Some(migration));
    assert_eq!(store.migrations(Which::Live, &Page::default()).await.unwrap().items, []);
    assert_eq!(store.sessions(Which::All, &Page::of(100)).await.unwrap().items.len(), 25);
}

fn sample(peer: &str, second: u64) -> PathSample {
    PathSample {
        peer: peer.to_owned(),
        at: at(second),
        measured_by: "probe".to_owned(),
        rtt_us: Some(40_000),
        bandwidth_bytes_per_s: second.is_multiple_of(2).then_some(25_000_000),
        loss_ppm: Some(1),
    }
}

pub(crate) async fn samples_are_kept_once_and_pruned_within_bounds(place: &dyn Place) {
    let mut options = place.options();
    let kept = u64::from(PRUNE_KEEP_MIN);
    options.retention.samples_max = PRUNE_KEEP_MIN + 100;
    let store = Store::open(options).await.unwrap();
    for _ in 0..2 {
        let samples = (0..kept + 150).map(|second| sample("b", second)).collect();
        assert_eq!(store.save_samples(samples).await.unwrap(), Kept::Stored);
    }
    let newest = store.samples("b", &Page::of(2)).await.unwrap();
    assert_eq!(newest.items, [sample("b", kept + 149), sample("b", kept + 148)]);
    assert_eq!(store.samples("other", &Page::of(2)).await.unwrap().items, []);

    // By number: the oldest go.
    let pruned = store.prune_at(at(kept)).await.unwrap();
    assert_eq!((pruned.samples, pruned.is_partial()), (50, false));
    // A clock that jumps ten years ahead takes what is old, and leaves the newest.
    let pruned = store.prune_at(at(10 * 366 * 86_400)).await.unwrap();
    assert_eq!(pruned.samples, 100);
    assert_eq!(store.prune_at(at(10 * 366 * 86_400)).await.unwrap().samples, 0);
    let page = Page { after: Some(format!("{}:probe", at(151).unix_ms()).parse().unwrap()), items_max: 10 };
    let oldest = store.samples("b", &page).await.unwrap();
    assert_eq!(oldest.items, [sample("b", 150)]);
    // And one that jumps back takes nothing.
    assert_eq!(store.prune_at(Timestamp::from(SystemTime::UNIX_EPOCH)).await.unwrap().samples, 0);
}

pub(crate) async fn settings_are_seen_at_once(place: &dyn Place) {
    let store = Store::open(place.options()).await.unwrap();
    store.set("switch.transport", Some("true"), "uid:0").await.unwrap();
    store.set("switch.codec", Some("1"), "uid:0").await.unwrap();
    store.set("switch.codec", Some("2"), "uid:0").await.unwrap();
    store.set("switch_x", Some("3"), "uid:0").await.unwrap();
    assert_eq!(store.setting("switch.codec").await.unwrap().as_deref(), Some("2"));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let all = store.settings("switch.").await.unwrap();
    assert_eq!(all, [pair("switch.codec", "2"), pair("switch.transport", "true")]);
    store.set("switch.codec", None, "uid:0").await.unwrap();
    assert_eq!(store.setting("switch.codec").await.unwrap(), None);
    assert!(matches!(store.set("", Some("1"), "uid:0").await, Err(StoreError::Unfit { .. })));
    assert!(matches!(store.set("a\0b", Some("1"), "uid:0").await, Err(StoreError::Unfit { .. })));
    let many = vec![sample("b", 1); 5000];
    assert!(matches!(store.save_samples(many).await, Err(StoreError::Unfit { .. })));
    let large = "x".repeat(2 << 20);
    assert!(matches!(store.set("a", Some(&large), "uid:0").await, Err(StoreError::TooLarge { .. })));
}

pub(crate) async fn a_key_is_claimed_once(place: &dyn Place) {
    let store = Store::open(place.options()).await.unwrap();
    let claims = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.claim("uid:1", "k", "start vm1").await.unwrap() })
    });
    let mut new = 0;
    for claim in claims.collect::<Vec<_>>() {
        match claim.await.unwrap() {
            Claim::New => new += 1,
            other => assert_eq!(other, Claim::Running),
        }
    }
    assert_eq!(new, 1);
    assert_eq!(store.claim("uid:1", "k", "start vm2").await.unwrap(), Claim::Other);
    assert_eq!(store.claim("uid:2", "k", "start vm2").await.unwrap(), Claim::New);
    store.answer("uid:1", "k", "done".to_owned()).await.unwrap();
    // The first answer stands.
    store.answer("uid:1", "k", "done twice".to_owned()).await.unwrap();
    assert_eq!(store.claim("uid:1", "k", "start vm1").await.unwrap(), Claim::Answered("done".to_owned()));
    drop(store);
    let store = Store::open(place.options()).await.unwrap();
    assert_eq!(store.claim("uid:1", "k", "start vm1").await.unwrap(), Claim::Answered("done".to_owned()));
    assert_eq!(store.claim("uid:2", "k", "start vm2").await.unwrap(), Claim::Abandoned);
    // Its time is over.
    place.sql("UPDATE claims SET expires_at_ms = 1");
    assert_eq!(store.claim("uid:2", "k", "start vm3").await.unwrap(), Claim::New);
    assert_eq!(store.prune().await.unwrap().claims, 1);
}

async fn broken(store: &Store) -> (u64, Fault) {
    match store.verify_audit(&[]).await {
        Err(AuditFault::Broken(broken)) => (broken.seq, broken.fault),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn the_audit_log_is_chained_and_what_is_done_to_it_found(place: &dyn Place) {
    let store = Store::open(place.options()).await.unwrap();
    let own = tempfile::tempdir().unwrap();
    let other = StoreOptions { state_dir: own.path().to_owned(), ..place.options() };
    let other = Store::open(other).await.unwrap();
    // Two processes write to the same log at once.
    let writers = [&store, &other].map(|store| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..10 {
                assert_eq!(store.audit(draft(number)).await.unwrap(), Kept::Stored);
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    let twice = draft(99);
    store.audit(twice.clone()).await.unwrap();
    store.audit(twice).await.unwrap();
    let mut lines = Vec::new();
    let verified = store.export_audit(&[], &mut lines).await.unwrap();
    assert_eq!((verified.entries, verified.head.seq, verified.base), (21, 21, Head::START));
    assert_eq!(verify_lines(&mut lines.as_slice(), Head::START, &[verified.head]).unwrap(), verified.head);
    assert_eq!(store.audit_entries(19, 10).await.unwrap().len(), 2);
    assert_eq!(store.health().audit_head, Some(verified.head));

    place.sql("UPDATE audit SET actor = 'uid:0' WHERE seq = 5");
    assert_eq!(broken(&store).await, (5, Fault::Changed));
    place.sql("UPDATE audit SET actor = 'uid:1000' WHERE seq = 5");
    assert_eq!(store.verify_audit(&[]).await.unwrap(), verified);
    place.sql("UPDATE audit SET seq = 1000 WHERE seq = 7");
    assert_eq!(broken(&store).await, (7, Fault::Missing { found: 8 }));
    place.sql("UPDATE audit SET seq = 7 WHERE seq = 1000");
    place.sql("UPDATE audit SET seq = 22 WHERE seq = 21");
    assert_eq!(broken(&store).await.0, 21);
    place.sql("UPDATE audit SET seq = 21 WHERE seq = 22");

    // Cut off at the end, with the head set back as someone would who knows how: the file beside it finds it.
    let twentieth = store.audit_entries(19, 1).await.unwrap()[0].head();
    place.sql("DELETE FROM audit WHERE seq > 20");
    assert_eq!(broken(&store).await, (21, Fault::Truncated { last: 21 }));
    place.sql(&format!("UPDATE audit_head SET seq = 20, hash = '{}'", twentieth.hash));
    assert_eq!(broken(&store).await, (21, Fault::Truncated { last: 21 }));
    // Without that file nothing here finds it; a head that was kept elsewhere does.
    std::fs::remove_file(place.options().state_dir.join("audit.head")).unwrap();
    assert_eq!(store.verify_audit(&[]).await.unwrap().head, twentieth);
    match store.verify_audit(&[verified.head]).await {
        Err(AuditFault::Broken(broken)) => assert_eq!(broken.fault, Fault::Truncated { last: 21 }),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn the_oldest_audit_entries_go_and_the_log_says_so(place: &dyn Place) {
    let mut options = place.options();
    options.retention.audit_max = 10;
    let store = Store::open(options).await.unwrap();
    for number in 0..15 {
        store.audit(draft(number)).await.unwrap();
    }
    assert_eq!(store.prune().await.unwrap().audit, 5);
    let verified = store.verify_audit(&[]).await.unwrap();
    assert_eq!((verified.base.seq, verified.head.seq, verified.entries), (5, 16, 11));
    let last = store.audit_entries(15, 1).await.unwrap().remove(0);
    assert_eq!((last.draft.method.as_str(), last.draft.subject), ("audit.let_go", verified.base.to_string()));
    // Whoever removes more by hand is found.
    place.sql("DELETE FROM audit WHERE seq = 6");
    assert_eq!(broken(&store).await, (6, Fault::Missing { found: 7 }));
}

pub(crate) async fn a_newer_or_foreign_schema_is_refused_by_name(place: &dyn Place) {
    Store::open(place.options()).await.unwrap().close().await;
    place.sql("INSERT INTO schema_upgrades (version, name, checksum, applied_at_ms) VALUES (99, 'from afar', 'x', 0)");
    let error = Store::open(place.options()).await.unwrap_err();
    assert!(matches!(&error, StoreError::SchemaNewer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("from afar"), "{error}");
    place.sql("DELETE FROM schema_upgrades WHERE version = 99");
    place.sql("UPDATE schema_upgrades SET checksum = 'other' WHERE version = 2");
    let error = Store::open(place.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaForeign { version: 2, .. }), "{error}");
}

/// Four processes find an empty database at the same moment.
pub(crate) fn starters_do_not_get_into_each_others_way(place: &dyn Place, kind: &str, dir: &Path) {
    let starters: Vec<_> = (0..4)
        .map(|number| crate::processes::starter(kind, &place.options(), &dir.join(number.to_string())))
        .collect();
    for mut starter in starters {
        assert!(starter.wait().unwrap().success());
    }
    assert_eq!(place.sql("SELECT COUNT(*) FROM schema_upgrades"), "3");
    assert_eq!(place.sql("SELECT COUNT(*) FROM audit"), "4");
}

/// Makes a test of each of the above for one kind of database.
macro_rules! over {
    ($place:expr; $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(place) = $place(stringify!($name)) else { return };
            crate::suite::$name(&place).await;
        }
    )*};
    ($place:expr) => {
        $crate::suite::over! { $place;
            sessions_and_migrations_are_kept_replaced_and_paged
            samples_are_kept_once_and_pruned_within_bounds
            settings_are_seen_at_once
            a_key_is_claimed_once
            the_audit_log_is_chained_and_what_is_done_to_it_found
            the_oldest_audit_entries_go_and_the_log_says_so
            a_newer_or_foreign_schema_is_refused_by_name
        }
    };
}
pub(crate) use over;
