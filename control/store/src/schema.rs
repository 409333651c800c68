//! The one schema of both databases, and how it gets from one version to the next.
//!
//! An upgrade is written once, in the SQL that SQLite and PostgreSQL share, and never edited after a release: its
//! checksum is recorded with it. Upgrades go forward only. Each runs in a transaction of its own together with its
//! record, under a lock that all starters take, so that whoever is killed in the middle leaves the version before.

use crate::error::StoreError;
use crate::statement::{Row, Statement};

/// One step of the schema.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade {
    /// From 1, without gaps.
    pub version: i64,
    /// What it is for.
    pub name: &'static str,
    /// Statements, in order, in the SQL that both databases speak.
    pub statements: &'static [&'static str],
}

impl Upgrade {
    /// BLAKE3 over name and statements, each with its length in front, as hex.
    pub fn checksum(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in std::iter::once(&self.name).chain(self.statements) {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Where upgrades are recorded. Made before the first, if it is not there.
pub(crate) const RECORD_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_upgrades (version BIGINT PRIMARY KEY, \
     name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at_ms BIGINT NOT NULL)";

/// All upgrades, oldest first.
pub const UPGRADES: &[Upgrade] = &[
    Upgrade {
        version: 1,
        name: "sessions, migrations, path samples, settings",
        statements: &[
            "CREATE TABLE sessions (name TEXT PRIMARY KEY, gateway TEXT NOT NULL, state TEXT NOT NULL, \
             live BIGINT NOT NULL, opened_at_ms BIGINT NOT NULL, seen_at_ms BIGINT NOT NULL, record TEXT NOT NULL)",
            "CREATE INDEX sessions_by_time ON sessions (live, opened_at_ms, name)",
            "CREATE TABLE migrations (name TEXT PRIMARY KEY, outcome TEXT NOT NULL, live BIGINT NOT NULL, \
             started_at_ms BIGINT NOT NULL, record TEXT NOT NULL)",
            "CREATE INDEX migrations_by_time ON migrations (live, started_at_ms, name)",
            "CREATE TABLE path_samples (peer TEXT NOT NULL, at_ms BIGINT NOT NULL, measured_by TEXT NOT NULL, \
             rtt_us BIGINT, bandwidth_bytes_per_s BIGINT, loss_ppm BIGINT, PRIMARY KEY (peer, at_ms, measured_by))",
            "CREATE INDEX path_samples_by_time ON path_samples (at_ms)",
            "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, changed_at_ms BIGINT NOT NULL, \
             changed_by TEXT NOT NULL)",
        ],
    },
    Upgrade {
        version: 2,
        name: "audit log",
        statements: &[
            "CREATE TABLE audit (seq BIGINT PRIMARY KEY, id TEXT NOT NULL UNIQUE, at_ms BIGINT NOT NULL, \
             actor TEXT NOT NULL, role TEXT NOT NULL, origin TEXT NOT NULL, method TEXT NOT NULL, \
             subject TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL, previous TEXT NOT NULL, \
             hash TEXT NOT NULL)",
            "CREATE TABLE audit_head (one BIGINT PRIMARY KEY CHECK (one = 1), base_seq BIGINT NOT NULL, \
             base_hash TEXT NOT NULL, seq BIGINT NOT NULL, hash TEXT NOT NULL)",
            // The hash before the first entry is 32 zero bytes (`audit::Head::START`).
            "INSERT INTO audit_head (one, base_seq, base_hash, seq, hash) VALUES (1, 0, \
             '0000000000000000000000000000000000000000000000000000000000000000', 0, \
             '0000000000000000000000000000000000000000000000000000000000000000')",
        ],
    },
    Upgrade {
        version: 3,
        name: "idempotency keys",
        statements: &[
            "CREATE TABLE claims (caller TEXT NOT NULL, idempotency_key TEXT NOT NULL, request TEXT NOT NULL, \
             instance TEXT NOT NULL, claimed_at_ms BIGINT NOT NULL, expires_at_ms BIGINT NOT NULL, answer TEXT, \
             PRIMARY KEY (caller, idempotency_key))",
            "CREATE INDEX claims_by_expiry ON claims (expires_at_ms)",
        ],
    },
];

/// The version that this build works with.
pub const VERSION: i64 = UPGRADES.len() as i64;

/// Asks which upgrades were done.
pub(crate) fn done() -> Statement {
    Statement::query("SELECT version, name, checksum FROM schema_upgrades ORDER BY version", Vec::new())
}

/// Records that an upgrade was done.
pub(crate) fn record(upgrade: &Upgrade, now_ms: i64) -> Statement {
    Statement::write(
        "INSERT INTO schema_upgrades (version, name, checksum, applied_at_ms) VALUES ($1, $2, $3, $4)",
        vec![upgrade.version.into(), upgrade.name.into(), upgrade.checksum().into(), now_ms.into()],
    )
}

/// Which upgrade comes next, given what [`done`] answered; `None` when all are done.
///
/// # Errors
/// [`StoreError::SchemaNewer`] for versions that `upgrades` does not have, [`StoreError::SchemaForeign`] where one that
/// it has was done in another form.
pub(crate) fn next<'a>(done: &[Row], upgrades: &'a [Upgrade]) -> Result<Option<&'a Upgrade>, StoreError> {
    let known = upgrades.last().map_or(0, |upgrade| upgrade.version);
    if let Some(last) = done.last()
        && last.int(0)? > known
    {
        return Err(StoreError::SchemaNewer { found: last.int(0)?, name: last.text(1)?.to_owned(), known });
    }
    for (index, row) in done.iter().enumerate() {
        let found = (row.int(0)?, row.text(1)?, row.text(2)?);
        let upgrade = upgrades.get(index).filter(|upgrade| upgrade.version == found.0);
        let fits = upgrade.is_some_and(|upgrade| upgrade.name == found.1 && upgrade.checksum() == found.2);
        if !fits {
            let known = upgrade.map_or_else(
                || "none".to_owned(),
                |upgrade| format!("{} {}", upgrade.name, upgrade.checksum()),
            );
            let found_as = format!("{} {}", found.1, found.2);
            return Err(StoreError::SchemaForeign { version: found.0, found: found_as, known });
        }
    }
    Ok(upgrades.get(done.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(upgrade: &Upgrade) -> Row {
        Row(vec![upgrade.version.into(), upgrade.name.into(), upgrade.checksum().into()])
    }

    #[test]
    fn versions_run_from_one_without_gaps_and_checksums_tell_them_apart() {
        for (index, upgrade) in UPGRADES.iter().enumerate() {
            assert_eq!(upgrade.version, index as i64 + 1);
        }
        let one = Upgrade { version: 1, name: "a", statements: &["b", "c"] };
        assert_ne!(one.checksum(), Upgrade { statements: &["bc"], ..one }.checksum());
        assert_ne!(one.checksum(), Upgrade { name: "ab", statements: &["c"], ..one }.checksum());
    }

    /// Released upgrades are never edited. A new one gets a new line here.
    #[test]
    fn released_upgrades_are_as_they_were() {
        let sums: Vec<String> = UPGRADES.iter().map(|upgrade| upgrade.checksum()[..16].to_owned()).collect();
        assert_eq!(sums, ["8ee1a2282e1cc343", "4846a96a7e9c1d47", "88288eb756299dd8"]);
    }

    #[test]
    fn the_next_is_the_first_that_was_not_done() {
        assert_eq!(next(&[], UPGRADES).unwrap().unwrap().version, 1);
        assert_eq!(next(&[row(&UPGRADES[0])], UPGRADES).unwrap().unwrap().version, 2);
        let all: Vec<Row> = UPGRADES.iter().map(row).collect();
        assert!(next(&all, UPGRADES).unwrap().is_none());
    }

    #[test]
    fn a_newer_schema_is_refused_by_name() {
        let mut all: Vec<Row> = UPGRADES.iter().map(row).collect();
        all.push(row(&Upgrade { version: VERSION + 1, name: "the future", statements: &[] }));
        let Err(StoreError::SchemaNewer { found, name, known }) = next(&all, UPGRADES) else { panic!() };
        assert_eq!((found, name.as_str(), known), (VERSION + 1, "the future", VERSION));
    }

    #[test]
    fn an_upgrade_done_otherwise_or_a_gap_is_refused() {
        let other = Upgrade { statements: &["CREATE TABLE other (a BIGINT)"], ..UPGRADES[0] };
        assert!(matches!(next(&[row(&other)], UPGRADES), Err(StoreError::SchemaForeign { version: 1, .. })));
        assert!(matches!(
            next(&[row(&UPGRADES[1])], UPGRADES),
            Err(StoreError::SchemaForeign { version: 2, .. })
        ));
    }
}
