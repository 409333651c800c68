//! What the caller decides about the store.

use std::path::PathBuf;
use std::time::Duration;

use crate::limits::{
    AUDIT_KEPT, MIGRATIONS_KEPT, POSTGRES_CONNECTIONS_MAX, RECORD_AGE_MAX, SAMPLE_AGE_MAX, SAMPLES_KEPT,
    SESSIONS_KEPT,
};
use crate::tls::TlsFiles;

/// Where records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A file on this host; made with mode 0600 where there is none. Its folder must exist.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(PostgresOptions),
}

/// How to reach PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// `postgres://USER@HOST[:PORT]/DATABASE`, or with `?host=/run/postgresql` a unix socket. Over TCP always TLS. A
    /// password in it is refused.
    pub url: String,
    /// A file whose first line is the password; only its owner may read it.
    pub password_file: Option<PathBuf>,
    /// Whom TLS believes, and what it shows.
    pub tls: TlsFiles,
    /// Connections at most, 1 to 100; opened as they are needed.
    pub connections_max: usize,
}

impl PostgresOptions {
    /// A server by URL, with the system's authorities and no password.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password_file: None,
            tls: TlsFiles::default(),
            connections_max: POSTGRES_CONNECTIONS_MAX,
        }
    }
}

/// What is kept how long. The newest [`PRUNE_KEEP_MIN`](crate::limits::PRUNE_KEEP_MIN) of each kind stay whatever their
/// age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Ended sessions.
    pub sessions_max: u32,
    /// Ended migrations.
    pub migrations_max: u32,
    /// Path samples.
    pub samples_max: u32,
    /// Audit entries; the oldest go, and an entry says so.
    pub audit_max: u32,
    /// Age of ended sessions and migrations.
    pub record_age_max: Duration,
    /// Age of path samples.
    pub sample_age_max: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            sessions_max: SESSIONS_KEPT,
            migrations_max: MIGRATIONS_KEPT,
            samples_max: SAMPLES_KEPT,
            audit_max: AUDIT_KEPT,
            record_age_max: RECORD_AGE_MAX,
            sample_age_max: SAMPLE_AGE_MAX,
        }
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Where records are.
    pub database: Database,
    /// A folder of this process alone (it is locked), for what must outlive it beside the database: the spool of a database that is
    /// away, what was set aside, and the audit log's head. It must exist. On another file system than SQLite's file, it
    /// still has room when that one has none.
    pub state_dir: PathBuf,
    /// What is kept how long.
    pub retention: Retention,
}

impl StoreOptions {
    /// SQLite in `state_dir/store.sqlite`, everything else beside it.
    pub fn embedded(state_dir: impl Into<PathBuf>) -> Self {
        let state_dir = state_dir.into();
        Self {
            database: Database::Sqlite(state_dir.join("store.sqlite")),
            state_dir,
            retention: Retention::default(),
        }
    }

    /// PostgreSQL, with its spool and the audit log's head in `state_dir`.
    pub fn postgres(options: PostgresOptions, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            database: Database::Postgres(options),
            state_dir: state_dir.into(),
            retention: Retention::default(),
        }
    }
}
