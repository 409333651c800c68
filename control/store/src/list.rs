//! Reading what is stored.

use std::time::{Duration, UNIX_EPOCH};

use novacron_control_api::{SessionId, Timestamp};

use crate::claim::{self, Claim};
use crate::error::StoreError;
use crate::page::{Cursor, Page, Paged};
use crate::record::{MigrationRecord, PathSample, SeenSession, Which, session_name};
use crate::statement::{Row, Statement};
use crate::store::Store;
use crate::write::check_name;

fn timestamp(row: &Row, column: usize) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from(UNIX_EPOCH + Duration::from_millis(row.count(column)?)))
}

fn seen(row: &Row) -> Result<SeenSession, StoreError> {
    Ok(SeenSession { gateway: row.text(0)?.to_owned(), seen_at: timestamp(row, 1)?, record: row.json(2)? })
}

impl Store {
    /// A session as its gateway last showed it. What waits in the spool is not seen.
    ///
    /// # Errors
    /// The database's.
    pub async fn session(
        &self,
        gateway: &str,
        session: SessionId,
    ) -> Result<Option<SeenSession>, StoreError> {
        let query = Statement::query(
            "SELECT gateway, seen_at_ms, record FROM sessions WHERE name = $1",
            vec![session_name(gateway, session).into()],
        );
        self.inner.backend.rows(query).await?.first().map(seen).transpose()
    }

    /// Sessions, those opened last first.
    ///
    /// # Errors
    /// The database's.
    pub async fn sessions(&self, which: Which, page: &Page) -> Result<Paged<SeenSession>, StoreError> {
        let sql = match which {
            Which::All => {
                "SELECT gateway, seen_at_ms, record, opened_at_ms, name FROM sessions \
                 WHERE opened_at_ms < $1 OR (opened_at_ms = $1 AND name > $2) \
                 ORDER BY opened_at_ms DESC, name LIMIT $3"
            }
            Which::Live => {
                "SELECT gateway, seen_at_ms, record, opened_at_ms, name FROM sessions \
                 WHERE live = 1 AND (opened_at_ms < $1 OR (opened_at_ms = $1 AND name > $2)) \
                 ORDER BY opened_at_ms DESC, name LIMIT $3"
            }
            Which::Ended => {
                "SELECT gateway, seen_at_ms, record, opened_at_ms, name FROM sessions \
                 WHERE live = 0 AND (opened_at_ms < $1 OR (opened_at_ms = $1 AND name > $2)) \
                 ORDER BY opened_at_ms DESC, name LIMIT $3"
            }
        };
        let rows = self.inner.backend.rows(Statement::query(sql, page.values().to_vec())).await?;
        let items = rows.iter().map(|row| Ok((cursor(row, 3, 4)?, seen(row)?)));
        Ok(Paged::new(items.collect::<Result<_, StoreError>>()?, page.limit()))
    }

    /// A migration.
    ///
    /// # Errors
    /// The database's.
    pub async fn migration(&self, session: SessionId) -> Result<Option<MigrationRecord>, StoreError> {
        let query = Statement::query(
            "SELECT record FROM migrations WHERE name = $1",
            vec![session.to_string().into()],
        );
        self.inner.backend.rows(query).await?.first().map(|row| row.json(0)).transpose()
    }

    /// Migrations, those ordered last first.
    ///
    /// # Errors
    /// The database's.
    pub async fn migrations(&self, which: Which, page: &Page) -> Result<Paged<MigrationRecord>, StoreError> {
        let sql = match which {
            Which::All => {
                "SELECT record, started_at_ms, name FROM migrations \
                 WHERE started_at_ms < $1 OR (started_at_ms = $1 AND name > $2) \
                 ORDER BY started_at_ms DESC, name LIMIT $3"
            }
            Which::Live => {
                "SELECT record, started_at_ms, name FROM migrations \
                 WHERE live = 1 AND (started_at_ms < $1 OR (started_at_ms = $1 AND name > $2)) \
                 ORDER BY started_at_ms DESC, name LIMIT $3"
            }
            Which::Ended => {
                "SELECT record, started_at_ms, name FROM migrations \
                 WHERE live = 0 AND (started_at_ms < $1 OR (started_at_ms = $1 AND name > $2)) \
                 ORDER BY started_at_ms DESC, name LIMIT $3"
            }
        };
        let rows = self.inner.backend.rows(Statement::query(sql, page.values().to_vec())).await?;
        let items = rows.iter().map(|row| Ok((cursor(row, 1, 2)?, row.json(0)?)));
        Ok(Paged::new(items.collect::<Result<_, StoreError>>()?, page.limit()))
    }

    /// Samples of the paths to a peer, newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn samples(&self, peer: &str, page: &Page) -> Result<Paged<PathSample>, StoreError> {
        let mut values = vec![peer.into()];
        values.extend(page.values());
        let query = Statement::query(
            "SELECT at_ms, measured_by, rtt_us, bandwidth_bytes_per_s, loss_ppm FROM path_samples \
             WHERE peer = $1 AND (at_ms < $2 OR (at_ms = $2 AND measured_by > $3)) \
             ORDER BY at_ms DESC, measured_by LIMIT $4",
            values,
        );
        let rows = self.inner.backend.rows(query).await?;
        let items = rows.iter().map(|row| {
            let loss = row.optional_count(4)?.map(|loss| u32::try_from(loss).unwrap_or(u32::MAX));
            let sample = PathSample {
                peer: peer.to_owned(),
                at: timestamp(row, 0)?,
                measured_by: row.text(1)?.to_owned(),
                rtt_us: row.optional_count(2)?,
                bandwidth_bytes_per_s: row.optional_count(3)?,
                loss_ppm: loss,
            };
            Ok((cursor(row, 0, 1)?, sample))
        });
        Ok(Paged::new(items.collect::<Result<_, StoreError>>()?, page.limit()))
    }

    /// Claims an idempotency key for a request, given as its canonical text; only a hash of it is kept.
    ///
    /// # Errors
    /// The database's: then the key is not claimed, and the call must not be done.
    pub async fn claim(&self, caller: &str, key: &str, request: &str) -> Result<Claim, StoreError> {
        let inner = &self.inner;
        let result =
            claim::claim(&inner.backend, &inner.instance, caller, key, request, inner.clock.now_ms()).await;
        inner.note(result.as_ref().err());
        result
    }

    /// A setting's value, as JSON.
    ///
    /// # Errors
    /// The database's.
    pub async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let query = Statement::query("SELECT value FROM settings WHERE name = $1", vec![name.into()]);
        let rows = self.inner.backend.rows(query).await?;
        rows.first().map(|row| row.text(0).map(str::to_owned)).transpose()
    }

    /// All settings whose names begin with `prefix`, by name, up to a page.
    ///
    /// # Errors
    /// The database's.
    pub async fn settings(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let length = u64::try_from(prefix.chars().count()).unwrap_or(u64::MAX);
        let query = Statement::query(
            "SELECT name, value FROM settings WHERE substr(name, 1, CAST(CAST($1 AS BIGINT) AS INTEGER)) = $2 ORDER BY name LIMIT $3",
            vec![length.into(), prefix.into(), crate::limits::PAGE_ITEMS_MAX.into()],
        );
        let rows = self.inner.backend.rows(query).await?;
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))).collect()
    }

    /// Sets a setting, or removes it (`None`). It is set when this returns, or not at all: never spooled, because
    /// whoever reads it next must see it.
    ///
    /// # Errors
    /// The database's; then it is as it was, unless the answer was lost.
    pub async fn set(&self, name: &str, value: Option<&str>, by: &str) -> Result<(), StoreError> {
        check_name("a setting's name", name)?;
        check_name("whoever sets a setting", by)?;
        let statement = match value {
            Some(value) => {
                crate::audit::check_text("a setting", value, crate::limits::RECORD_BYTES_MAX)?;
                Statement::write(
                    "INSERT INTO settings (name, value, changed_at_ms, changed_by) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value, \
                     changed_at_ms = excluded.changed_at_ms, changed_by = excluded.changed_by",
                    vec![name.into(), value.into(), self.inner.clock.now_ms().into(), by.into()],
                )
            }
            None => Statement::write("DELETE FROM settings WHERE name = $1", vec![name.into()]),
        };
        let result = self.inner.backend.one(statement).await;
        self.inner.note(result.as_ref().err());
        result.map(drop)
    }
}

fn cursor(row: &Row, at: usize, name: usize) -> Result<Cursor, StoreError> {
    Ok(Cursor { at_ms: row.int(at)?, name: row.text(name)?.to_owned() })
}
