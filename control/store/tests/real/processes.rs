//! This test program, started once more as another process.

use std::path::Path;
use std::process::{Child, Command};

use novacron_store::{Database, PostgresOptions, Store, StoreOptions, TlsFiles};

use crate::suite::draft;

const KIND: &str = "NOVACRON_STORE_TEST_KIND";

/// Starts a process that opens the database, writes one audit entry and ends.
pub(crate) fn starter(kind: &str, options: &StoreOptions, state_dir: &Path) -> Child {
    std::fs::create_dir(state_dir).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::started", "--nocapture"]).env(KIND, kind).env("STATE", state_dir);
    match &options.database {
        Database::Sqlite(path) => command.env("PLACE", path),
        Database::Postgres(postgres) => {
            let authorities = postgres.tls.authorities.as_ref().unwrap();
            command.env("PLACE", &postgres.url).env("AUTHORITIES", authorities);
            command.env("PASSWORD_FILE", postgres.password_file.as_ref().unwrap())
        }
    };
    command.spawn().unwrap()
}

/// What such a process does; in the test program itself, nothing: nobody named a database.
#[tokio::test]
async fn started() {
    let Ok(kind) = std::env::var(KIND) else { return };
    let variable = |name: &str| std::env::var(name).unwrap();
    let options = match kind.as_str() {
        "sqlite" => StoreOptions {
            database: Database::Sqlite(variable("PLACE").into()),
            ..StoreOptions::embedded(variable("STATE"))
        },
        _ => StoreOptions::postgres(
            PostgresOptions {
                password_file: Some(variable("PASSWORD_FILE").into()),
                tls: TlsFiles { authorities: Some(variable("AUTHORITIES").into()), certificate: None },
                ..PostgresOptions::new(variable("PLACE"))
            },
            variable("STATE"),
        ),
    };
    let store = Store::open(options).await.unwrap();
    store.audit(draft(std::process::id().into())).await.unwrap();
    store.close().await;
}
