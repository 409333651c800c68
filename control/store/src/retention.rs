//! Letting go of what is old, within bounds, so that no clock and no mistake empties a table.

use std::time::Duration;

use novacron_control_api::Timestamp;

use crate::audit_log;
use crate::backend::Backend;
use crate::error::StoreError;
use crate::limits::{PRUNE_KEEP_MIN, PRUNE_ROWS_MAX};
use crate::statement::Statement;
use crate::store::Store;
use crate::write::unix_ms;

/// Rows that a prune removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Ended sessions.
    pub sessions: u64,
    /// Ended migrations.
    pub migrations: u64,
    /// Path samples.
    pub samples: u64,
    /// Audit entries.
    pub audit: u64,
    /// Idempotency keys whose time was over.
    pub claims: u64,
}

impl Pruned {
    /// Whether a bound on one prune was met, so that another one would find more.
    pub fn is_partial(&self) -> bool {
        let most = u64::from(PRUNE_ROWS_MAX);
        [self.sessions, self.migrations, self.samples, self.audit, self.claims]
            .iter()
            .any(|rows| *rows >= most)
    }
}

/// The statements of one kind of rows.
struct Rows {
    count: &'static str,
    /// Removes the oldest `$1`.
    oldest: &'static str,
    /// Removes the oldest `$1` of those before `$2`.
    older: &'static str,
}

const SESSIONS: Rows = Rows {
    count: "SELECT COUNT(*) FROM sessions WHERE live = 0",
    oldest: "DELETE FROM sessions WHERE live = 0 AND name IN (SELECT name FROM sessions WHERE live = 0 \
             ORDER BY opened_at_ms, name DESC LIMIT $1)",
    older: "DELETE FROM sessions WHERE live = 0 AND name IN (SELECT name FROM sessions WHERE live = 0 \
            AND opened_at_ms < $2 ORDER BY opened_at_ms, name DESC LIMIT $1)",
};

const MIGRATIONS: Rows = Rows {
    count: "SELECT COUNT(*) FROM migrations WHERE live = 0",
    oldest: "DELETE FROM migrations WHERE live = 0 AND name IN (SELECT name FROM migrations WHERE live = 0 \
             ORDER BY started_at_ms, name DESC LIMIT $1)",
    older: "DELETE FROM migrations WHERE live = 0 AND name IN (SELECT name FROM migrations WHERE live = 0 \
            AND started_at_ms < $2 ORDER BY started_at_ms, name DESC LIMIT $1)",
};

const SAMPLES: Rows = Rows {
    count: "SELECT COUNT(*) FROM path_samples",
    oldest: "DELETE FROM path_samples WHERE (peer, at_ms, measured_by) IN (SELECT peer, at_ms, measured_by \
             FROM path_samples ORDER BY at_ms LIMIT $1)",
    older: "DELETE FROM path_samples WHERE (peer, at_ms, measured_by) IN (SELECT peer, at_ms, measured_by \
            FROM path_samples WHERE at_ms < $2 ORDER BY at_ms LIMIT $1)",
};

async fn prune(backend: &Backend, rows: &Rows, rows_max: u32, before_ms: i64) -> Result<u64, StoreError> {
    let counted = backend.rows(Statement::query(rows.count, Vec::new())).await?;
    let mut count = counted.first().map_or(Ok(0), |row| row.count(0))?;
    let most = u64::from(PRUNE_ROWS_MAX);
    let mut removed = 0;
    let over = count.saturating_sub(u64::from(rows_max)).min(most);
    if over > 0 {
        removed = backend.one(Statement::write(rows.oldest, vec![over.into()])).await?.changed;
        count -= removed.min(count);
    }
    let aged = count.saturating_sub(u64::from(PRUNE_KEEP_MIN)).min(most - removed.min(most));
    if aged > 0 {
        let statement = Statement::write(rows.older, vec![aged.into(), before_ms.into()]);
        removed += backend.one(statement).await?.changed;
    }
    Ok(removed)
}

impl Store {
    /// Removes what the [`Retention`](crate::Retention) does not keep, at most
    /// [`PRUNE_ROWS_MAX`] rows of each kind. Live sessions and migrations stay. To be called now and then: once an hour
    /// is enough.
    ///
    /// # Errors
    /// The database's; what was removed before is removed.
    pub async fn prune(&self) -> Result<Pruned, StoreError> {
        self.prune_at(Timestamp::now()).await
    }

    /// [`prune`](Self::prune) as if it were `now`.
    ///
    /// # Errors
    /// As there.
    pub async fn prune_at(&self, now: Timestamp) -> Result<Pruned, StoreError> {
        let inner = &self.inner;
        let (backend, retention) = (&inner.backend, inner.retention);
        let before =
            |age: Duration| unix_ms(now).saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let records = before(retention.record_age_max);
        let expired = Statement::write(
            "DELETE FROM claims WHERE (caller, idempotency_key) IN (SELECT caller, idempotency_key FROM claims \
             WHERE expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2)",
            vec![inner.clock.now_ms().into(), PRUNE_ROWS_MAX.into()],
        );
        Ok(Pruned {
            sessions: prune(backend, &SESSIONS, retention.sessions_max, records).await?,
            migrations: prune(backend, &MIGRATIONS, retention.migrations_max, records).await?,
            samples: prune(backend, &SAMPLES, retention.samples_max, before(retention.sample_age_max))
                .await?,
            audit: {
                let _front = inner.log_front.lock().await;
                audit_log::let_go(backend, retention.audit_max).await?
            },
            claims: backend.one(expired).await?.changed,
        })
    }
}
