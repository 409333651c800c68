//! PostgreSQL: what both databases promise, and what becomes of a server that goes away and returns.

use std::time::Duration;

use novacron_control_api::{SessionId, SessionState};
use novacron_store::{Kept, PostgresOptions, Store, StoreError, StoreOptions};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::servers::postgres::Postgres;
use crate::suite::{self, Place, draft, seen};

struct Database {
    server: &'static Postgres,
    name: String,
    options: PostgresOptions,
    state: TempDir,
}

impl Place for Database {
    fn options(&self) -> StoreOptions {
        StoreOptions::postgres(self.options.clone(), self.state.path())
    }

    fn sql(&self, sql: &str) -> String {
        self.server.order(&self.name, sql).unwrap()
    }
}

fn place(name: &str) -> Option<Database> {
    match Postgres::shared() {
        Ok(server) => Some(Database {
            server,
            name: name.to_owned(),
            options: server.database(name),
            state: tempfile::tempdir().unwrap(),
        }),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

suite::over! { place }

#[test]
fn starters_do_not_get_into_each_others_way() {
    let Some(place) = place("starters") else { return };
    suite::starters_do_not_get_into_each_others_way(&place, "postgres", place.state.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_goes_without_tls_and_nothing_else() {
    let Some(place) = place("socket") else { return };
    let by_socket = StoreOptions::postgres(place.server.by_socket("socket"), place.state.path());
    let store = Store::open(by_socket).await.unwrap();
    store.audit(draft(1)).await.unwrap();
    // The other way in really is encrypted: the server says so of the connection that asks.
    drop(store);
    let other = Store::open(place.options()).await.unwrap();
    assert_eq!(other.verify_audit(&[]).await.unwrap().entries, 1);
    let asked = "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE ssl AND version = 'TLSv1.3' AND datname = 'socket' AND application_name = 'novacron-control'";
    assert!(place.sql(asked).parse::<u32>().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_in_the_servers_place_is_not_believed() {
    let Some(place) = place("stranger") else { return };
    let stranger = crate::servers::certificates::make(place.state.path());
    let mut options = place.options.clone();
    options.tls.authorities = Some(stranger.authority);
    let error = Store::open(StoreOptions::postgres(options, place.state.path())).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");

    // The certificate is for localhost and 127.0.0.1, not for another of the host's addresses.
    let mut options = place.options.clone();
    options.url = options.url.replace("localhost", "ip6-localhost").replace("?", "&");
    options.url.push_str("?hostaddr=127.0.0.1");
    let error = Store::open(StoreOptions::postgres(options, place.state.path())).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");

    let mut options = place.options.clone();
    let wrong = place.state.path().join("wrong");
    std::fs::write(&wrong, "not it").unwrap();
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    options.password_file = Some(wrong.clone());
    let error = Store::open(StoreOptions::postgres(options.clone(), place.state.path())).await.unwrap_err();
    assert!(error.to_string().contains("mode 0644"), "{error}");
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let error = Store::open(StoreOptions::postgres(options, place.state.path())).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("password authentication failed") && !text.contains("not it"), "{text}");
}

/// Killed twice: once under a store that lives on, once under one that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_and_returns_misses_nothing() {
    let server = match Postgres::new() {
        Ok(server) => server,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    let state = tempfile::tempdir().unwrap();
    let options = StoreOptions::postgres(server.database("killed"), state.path());
    let store = Store::open(options.clone()).await.unwrap();
    assert_eq!(store.audit(draft(0)).await.unwrap(), Kept::Stored);

    server.kill();
    for number in 1..=20 {
        let begun = std::time::Instant::now();
        assert_eq!(store.audit(draft(number)).await.unwrap(), Kept::Spooled { on_disk: true });
        store.save_session(seen(1, SessionState::Running)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody waits long for what is away");
    }
    store.save_session(seen(1, SessionState::Finished)).await.unwrap();
    let error = store.session("gw-1", SessionId(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(store.claim("uid:1", "k", "x").await.is_err(), "a claim is made in the database or not at all");
    let health = store.health();
    assert_eq!((health.spooled, health.refused, health.spool_on_disk), (41, 0, true));
    assert!(health.away.is_some());

    server.start();
    timeout(Duration::from_secs(60), store.drained()).await.unwrap();
    assert_eq!(store.health().away, None);
    check(&store, 20).await;
    let found = store.session("gw-1", SessionId(1)).await.unwrap().unwrap();
    assert_eq!(found.record.state, SessionState::Finished);

    server.kill();
    for number in 21..=25 {
        assert_eq!(store.audit(draft(number)).await.unwrap(), Kept::Spooled { on_disk: true });
    }
    // As kill -9 leaves it: nothing was closed.
    drop(store);
    let error = Store::open(options.clone()).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    server.start();
    let store = Store::open(options).await.unwrap();
    timeout(Duration::from_secs(60), store.drained()).await.unwrap();
    check(&store, 25).await;
    assert_eq!(std::fs::metadata(state.path().join("spool.jsonl")).unwrap().len(), 0);
}

/// The log is whole and its entries stand in the order in which they were given.
async fn check(store: &Store, last: u64) {
    assert_eq!(store.verify_audit(&[]).await.unwrap().entries, last + 1);
    let entries = store.audit_entries(0, 100).await.unwrap();
    let subjects: Vec<String> = entries.into_iter().map(|entry| entry.draft.subject).collect();
    assert_eq!(subjects, (0..=last).map(|number| draft(number).subject).collect::<Vec<_>>());
}
