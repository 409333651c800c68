//! PostgreSQL through a bounded pool of verified TLS connections.

pub(crate) mod tls;

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Config, NoTls};

use crate::error::StoreError;
use crate::limits::{
    CALL_TIME_MAX, POSTGRES_CONNECT_TIME_MAX, POSTGRES_CONNECTIONS_MAX, POSTGRES_LOCK_WAIT,
    POSTGRES_SILENCE_MAX, POSTGRES_STATEMENT_TIME_MAX, RETRY_WAIT_MAX, RETRY_WAIT_MIN, UPGRADE_WAIT,
};
use crate::options::PostgresOptions;
use crate::schema::{self, Upgrade};
use crate::statement::{Answer, Done, Kind, Row, Statement, Value};

/// The advisory lock that starters take before they upgrade: "novacron" in ASCII, so that it is nobody else's.
const UPGRADE_LOCK: i64 = i64::from_be_bytes(*b"novacron");

/// What is known of a server that is away.
#[derive(Debug, Default)]
struct Away {
    wait: Duration,
    until: Option<Instant>,
}

/// The handle to the pool.
#[derive(Debug)]
pub(crate) struct Postgres {
    pool: Pool,
    away: Mutex<Away>,
}

impl Postgres {
    /// Connects once, so that a wrong address or password is heard of now, and upgrades the schema.
    pub(crate) async fn open(
        options: &PostgresOptions,
        upgrades: &[Upgrade],
        now_ms: i64,
    ) -> Result<Self, StoreError> {
        let config = configuration(options)?;
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if config.get_ssl_mode() == SslMode::Disable {
            Manager::from_config(config, NoTls, manager)
        } else {
            Manager::from_config(config, tls::Connector::new(options.tls.client()?), manager)
        };
        let timeouts = Timeouts {
            wait: Some(CALL_TIME_MAX),
            create: Some(POSTGRES_CONNECT_TIME_MAX),
            recycle: Some(POSTGRES_CONNECT_TIME_MAX),
        };
        let pool = Pool::builder(manager)
            .max_size(options.connections_max.clamp(1, POSTGRES_CONNECTIONS_MAX))
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Options { what: format!("PostgreSQL: {error}") })?;
        let postgres = Self { pool, away: Mutex::new(Away::default()) };
        timeout(UPGRADE_WAIT, postgres.upgrade(upgrades, now_ms)).await.unwrap_or_else(|_| {
            Err(StoreError::Locked {
                what: format!("another process has been upgrading for {} s", UPGRADE_WAIT.as_secs()),
            })
        })?;
        Ok(postgres)
    }

    /// Runs a batch: all of it, or nothing. Reads are tried once more where the first connection turns out dead.
    pub(crate) async fn transact(&self, batch: Vec<Statement>) -> Result<Done, StoreError> {
        self.look()?;
        let reads = batch.iter().all(|statement| statement.kind == Kind::Query);
        let call = async {
            match self.attempt(&batch).await {
                Err(StoreError::Unreachable { .. }) if reads => self.attempt(&batch).await,
                result => result,
            }
        };
        let result = timeout(CALL_TIME_MAX, call)
            .await
            .unwrap_or(Err(StoreError::Slow { seconds: CALL_TIME_MAX.as_secs() }));
        self.note(&result);
        result
    }

    /// While the server is known to be away, nobody waits for it to be found away again.
    fn look(&self) -> Result<(), StoreError> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match away.until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(left) => {
                let what =
                    format!("it was away a moment ago and is looked for again in {} ms", left.as_millis());
                Err(StoreError::Unreachable { what })
            }
            None => Ok(()),
        }
    }

    fn note(&self, result: &Result<Done, StoreError>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(StoreError::Unreachable { .. } | StoreError::Slow { .. }) => {
                away.wait = (away.wait * 2).clamp(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
                away.until = Some(Instant::now() + away.wait);
            }
            _ => *away = Away::default(),
        }
    }

    async fn connection(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => StoreError::Unreachable { what: sentence(&error) },
            PoolError::Timeout(_) => {
                StoreError::Unreachable { what: format!("no connection in time ({error})") }
            }
            PoolError::Closed => StoreError::Closed,
            error => StoreError::Unreachable { what: error.to_string() },
        })
    }

    async fn attempt(&self, batch: &[Statement]) -> Result<Done, StoreError> {
        let mut client = self.connection().await?;
        let transaction = client.transaction().await.map_err(|error| postgres_error(&error))?;
        let mut answers = Vec::with_capacity(batch.len());
        for statement in batch {
            let result = async {
                let prepared = transaction.prepare_cached(statement.sql).await?;
                let values: Vec<&(dyn ToSql + Sync)> = statement.values.iter().map(|v| v as _).collect();
                if statement.kind == Kind::Query {
                    let rows = transaction.query(&prepared, &values).await?;
                    let rows = rows.iter().map(row).collect::<Result<_, _>>()?;
                    Ok(Answer { rows, changed: 0 })
                } else {
                    let changed = transaction.execute(&prepared, &values).await?;
                    Ok(Answer { rows: Vec::new(), changed })
                }
            };
            match result.await {
                // Dropping the transaction undoes it.
                Ok(answer) if statement.kind == Kind::WriteOne && answer.changed != 1 => {
                    return Ok(Done::Undone);
                }
                Ok(answer) => answers.push(answer),
                Err(error) if is_undone(&error) => return Ok(Done::Undone),
                Err(error) => return Err(postgres_error(&error)),
            }
        }
        transaction.commit().await.map_err(|error| postgres_error(&error))?;
        Ok(Done::All(answers))
    }

    async fn upgrade(&self, upgrades: &[Upgrade], now_ms: i64) -> Result<(), StoreError> {
        let mut client = self.connection().await?;
        loop {
            let transaction = client.transaction().await.map_err(|error| postgres_error(&error))?;
            let step = async {
                // Waiting for another starter is not a statement that hangs.
                transaction
                    .batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
                    .await?;
                transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&UPGRADE_LOCK]).await?;
                transaction.batch_execute(schema::RECORD_TABLE).await?;
                let rows = transaction.query(schema::done().sql, &[]).await?;
                rows.iter().map(row).collect::<Result<Vec<_>, _>>()
            };
            let done = step.await.map_err(|error| postgres_error(&error))?;
            let Some(upgrade) = schema::next(&done, upgrades)? else {
                return transaction.commit().await.map_err(|error| postgres_error(&error));
            };
            let record = schema::record(upgrade, now_ms);
            let step = async {
                for statement in upgrade.statements {
                    transaction.batch_execute(statement).await?;
                }
                let values: Vec<&(dyn ToSql + Sync)> = record.values.iter().map(|v| v as _).collect();
                transaction.execute(record.sql, &values).await
            };
            step.await.map_err(|error| postgres_error(&error))?;
            transaction.commit().await.map_err(|error| postgres_error(&error))?;
            tracing::info!(version = upgrade.version, name = upgrade.name, "database upgraded");
        }
    }
}

/// Reads the URL, and sets what no URL may leave out.
fn configuration(options: &PostgresOptions) -> Result<Config, StoreError> {
    let wrong = |what: &str| StoreError::Options { what: format!("the URL of PostgreSQL {what}") };
    // The parser's error may quote the URL, and with it a password.
    let mut config: Config = options.url.parse().map_err(|_| {
        wrong("cannot be read; expected postgres://USER@HOST/DATABASE, or ?host=/run/postgresql for a unix socket")
    })?;
    if config.get_password().is_some() {
        return Err(wrong(
            "holds a password, which would be seen wherever it is printed; name a file of it instead",
        ));
    }
    if config.get_hosts().is_empty() {
        return Err(wrong("names no host"));
    }
    let unix = |host: &Host| matches!(host, Host::Unix(_));
    if config.get_hosts().iter().all(unix) {
        config.ssl_mode(SslMode::Disable);
    } else if config.get_hosts().iter().any(unix) {
        return Err(wrong("mixes unix sockets and hosts; name one kind"));
    } else if config.get_ssl_mode() == SslMode::Disable {
        return Err(wrong("turns TLS off; only a unix socket goes without"));
    } else {
        config.ssl_mode(SslMode::Require);
    }
    if let Some(path) = &options.password_file {
        config.password(crate::tls::read_password(path)?.as_bytes());
    }
    config
        .application_name("novacron-control")
        .connect_timeout(POSTGRES_CONNECT_TIME_MAX)
        .tcp_user_timeout(POSTGRES_SILENCE_MAX)
        .keepalives_idle(POSTGRES_SILENCE_MAX)
        .options(format!(
            "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} \
             -c default_transaction_isolation=read\\ committed",
            POSTGRES_STATEMENT_TIME_MAX.as_millis(),
            POSTGRES_LOCK_WAIT.as_millis(),
            CALL_TIME_MAX.as_millis(),
        ));
    Ok(config)
}

fn row(row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    let mut values = Vec::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        values.push(if *column.type_() == Type::INT8 {
            row.try_get::<_, Option<i64>>(index)?.into()
        } else {
            row.try_get::<_, Option<&str>>(index)?.into()
        });
    }
    Ok(Row(values))
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *kind == Type::INT8 => number.to_sql(kind, out),
            Self::Text(text) if <&str as ToSql>::accepts(kind) => text.to_sql(kind, out),
            other => Err(format!("a parameter of type {kind} was given {other:?}").into()),
        }
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::INT8 || <&str as ToSql>::accepts(kind)
    }

    to_sql_checked!();
}

/// Whether the statement lost against another process, or a key was taken.
fn is_undone(error: &tokio_postgres::Error) -> bool {
    let codes = [
        SqlState::UNIQUE_VIOLATION,
        SqlState::CHECK_VIOLATION,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| codes.contains(code))
}

/// An error with what stands behind it: the crate's own text says only where it happened.
fn sentence(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}

/// By the classes of the PostgreSQL manual's appendix A.
fn postgres_error(error: &tokio_postgres::Error) -> StoreError {
    let what = sentence(error);
    let Some(code) = error.code() else {
        // Without a code it was not the server that spoke: the connection broke, or a value does not fit.
        let broken = error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>());
        return if broken { StoreError::Unreachable { what } } else { StoreError::Refused { what } };
    };
    match code.code() {
        "55P03" => StoreError::Locked { what },
        "57014" => StoreError::Slow { seconds: POSTGRES_STATEMENT_TIME_MAX.as_secs() },
        "53100" => StoreError::Full { what },
        // A server that was restarted as a standby, or set read only: it may be the primary again.
        "25006" => StoreError::Unreachable { what },
        code if ["08", "28", "3D", "53", "57"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Unreachable { what }
        }
        code if code.starts_with("58") => StoreError::Full { what },
        code if code.starts_with("XX") => StoreError::Damaged { what },
        _ => StoreError::Refused { what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let options = PostgresOptions::new(url);
        configuration(&options).unwrap_err().to_string()
    }

    #[test]
    fn passwords_in_urls_are_refused_and_not_repeated() {
        for url in
            ["postgres://me:hunter2@db/x", "host=db user=me password=hunter2", "postgres://me:hunter2@[/x"]
        {
            let text = refused(url);
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(refused("postgres://me:hunter2@db/x").contains("name a file"));
    }

    #[test]
    fn only_unix_sockets_go_without_tls() {
        assert!(refused("postgres://me@db/x?sslmode=disable").contains("turns TLS off"));
        assert!(refused("host=/run/postgresql,db").contains("mixes"));
        assert!(refused("user=me").contains("no host"));
        let mode = |url| configuration(&PostgresOptions::new(url)).unwrap().get_ssl_mode();
        assert_eq!(mode("postgres://me@db/x"), SslMode::Require);
        assert_eq!(mode("postgres://me@db/x?sslmode=prefer"), SslMode::Require);
        assert_eq!(mode("postgres:///x?host=/run/postgresql"), SslMode::Disable);
    }
}
