//! One of the two databases, behind one interface.

use crate::error::StoreError;
use crate::options::Database;
use crate::postgres::Postgres;
use crate::schema::Upgrade;
use crate::sqlite::Sqlite;
use crate::statement::{Answer, Done, Row, Statement};

/// The database.
#[derive(Debug)]
pub(crate) enum Backend {
    /// On this host.
    Sqlite(Sqlite),
    /// A server.
    Postgres(Postgres),
}

impl Backend {
    /// Opens and upgrades it.
    pub(crate) async fn open(
        database: &Database,
        upgrades: &'static [Upgrade],
        now_ms: i64,
    ) -> Result<Self, StoreError> {
        Ok(match database {
            Database::Sqlite(path) => Self::Sqlite(Sqlite::open(path.clone(), upgrades, now_ms).await?),
            Database::Postgres(options) => Self::Postgres(Postgres::open(options, upgrades, now_ms).await?),
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Runs statements in one transaction: all of them, or none.
    pub(crate) async fn transact(&self, batch: Vec<Statement>) -> Result<Done, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.transact(batch).await,
            Self::Postgres(postgres) => postgres.transact(batch).await,
        }
    }

    /// Lets go of it; nothing can be asked any more.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close().await,
            // Connections end with the last handle, and leave nothing.
            Self::Postgres(_) => {}
        }
    }

    /// Runs one query.
    pub(crate) async fn rows(&self, query: Statement) -> Result<Vec<Row>, StoreError> {
        Ok(self.one(query).await?.rows)
    }

    /// Runs one statement that no other process can be in the way of.
    pub(crate) async fn one(&self, statement: Statement) -> Result<Answer, StoreError> {
        match self.transact(vec![statement]).await? {
            Done::All(mut answers) => Ok(answers.pop().unwrap_or_default()),
            Done::Undone => Err(StoreError::Contended { what: "a row" }),
        }
    }
}
