//! SQLite on a thread of its own.
//!
//! One connection, one thread, a bounded queue in front: SQLite has one writer at a time anyway, and nobody's runtime
//! waits for a disk. The file is in WAL mode with `synchronous=FULL`: what was answered survives a power cut.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, TransactionBehavior, params_from_iter};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::StoreError;
use crate::limits::{
    CALL_TIME_MAX, SQLITE_LOCK_PAUSE, SQLITE_LOCK_WAIT, SQLITE_LOG_BYTES, SQLITE_QUEUE_MAX, UPGRADE_WAIT,
};
use crate::schema::{self, Upgrade};
use crate::statement::{Answer, Done, Kind, Row, Statement, Value};

enum Job {
    /// Runs a batch.
    Transact(Vec<Statement>, oneshot::Sender<Result<Done, StoreError>>),
    /// Closes the file. Nothing is taken any more.
    Close(oneshot::Sender<()>),
}

/// The handle to the thread. The thread ends when it is told to, or when the last handle is gone.
#[derive(Debug, Clone)]
pub(crate) struct Sqlite {
    jobs: mpsc::Sender<Job>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transact(batch, _) => write!(f, "Transact({} statements)", batch.len()),
            Self::Close(_) => write!(f, "Close"),
        }
    }
}

impl Sqlite {
    /// Opens the file, makes it where there is none, and upgrades its schema.
    pub(crate) async fn open(
        path: PathBuf,
        upgrades: &'static [Upgrade],
        now_ms: i64,
    ) -> Result<Self, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(SQLITE_QUEUE_MAX);
        let (opened, open) = oneshot::channel();
        thread::Builder::new()
            .name("store-sqlite".to_owned())
            .spawn(move || {
                let mut connection = match connect_and_upgrade(&path, upgrades, now_ms) {
                    Ok(connection) => connection,
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                if opened.send(Ok(())).is_err() {
                    return;
                }
                let closed = loop {
                    match queue.blocking_recv() {
                        // Who asked has stopped waiting: not begun, so nothing to undo.
                        Some(Job::Transact(_, reply)) if reply.is_closed() => {}
                        Some(Job::Transact(batch, reply)) => {
                            let _ = reply.send(transact(&mut connection, &batch));
                        }
                        Some(Job::Close(closed)) => break Some(closed),
                        None => break None,
                    }
                };
                // The last connection folds the write-ahead log into the file as it closes.
                drop(connection);
                if let Some(closed) = closed {
                    let _ = closed.send(());
                }
            })
            .map_err(|error| StoreError::Options { what: format!("no thread for the database: {error}") })?;
        match open.await {
            Ok(result) => result.map(|()| Self { jobs }),
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Runs a batch: all of it, or nothing.
    pub(crate) async fn transact(&self, batch: Vec<Statement>) -> Result<Done, StoreError> {
        let call = async {
            let (reply, answer) = oneshot::channel();
            self.jobs.send(Job::Transact(batch, reply)).await.map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)?
        };
        timeout(CALL_TIME_MAX, call)
            .await
            .unwrap_or(Err(StoreError::Slow { seconds: CALL_TIME_MAX.as_secs() }))
    }

    /// Closes the file once what is asked already is done, and waits for that: a process that ends before leaves its
    /// write-ahead log beside the file.
    pub(crate) async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.jobs.send(Job::Close(closed)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

/// SQLite does not wait for every lock by itself: who finds a file that another switches to its write-ahead log, or that the last to
/// close it folds that log into, may be told at once that it is locked.
fn connect_and_upgrade(
    path: &Path,
    upgrades: &'static [Upgrade],
    now_ms: i64,
) -> Result<Connection, StoreError> {
    let deadline = Instant::now() + UPGRADE_WAIT;
    loop {
        let opened = connect(path)
            .and_then(|mut connection| upgrade(&mut connection, upgrades, now_ms).map(|()| connection));
        match opened {
            Err(StoreError::Locked { .. }) if Instant::now() < deadline => thread::sleep(SQLITE_LOCK_PAUSE),
            opened => return opened,
        }
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // Made by us and not by SQLite, so that nobody else can read it, not even for a moment; WAL files follow its mode.
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|error| {
        StoreError::Options {
            what: format!(
                "the database {} cannot be opened: {error}. See that its folder exists and belongs to this user",
                path.display()
            ),
        }
    })?;
    let connection = Connection::open(path).map_err(sqlite_error)?;
    connection.busy_timeout(UPGRADE_WAIT).map_err(sqlite_error)?;
    let pragmas = [
        ("journal_mode", "WAL".to_owned()),
        ("synchronous", "FULL".to_owned()),
        ("foreign_keys", "ON".to_owned()),
        ("trusted_schema", "OFF".to_owned()),
        ("cell_size_check", "ON".to_owned()),
        ("journal_size_limit", SQLITE_LOG_BYTES.to_string()),
    ];
    for (name, value) in pragmas {
        connection.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(|error| match error {
            // Some pragmas answer with a row, some with none.
            rusqlite::Error::QueryReturnedNoRows => Ok(()),
            error => Err(sqlite_error(error)),
        })?;
    }
    Ok(connection)
}

fn upgrade(connection: &mut Connection, upgrades: &[Upgrade], now_ms: i64) -> Result<(), StoreError> {
    loop {
        // IMMEDIATE takes the write lock at once: of two starters the second waits here and then sees what the first did.
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite_error)?;
        transaction.execute_batch(schema::RECORD_TABLE).map_err(sqlite_error)?;
        let done = run(&transaction, &schema::done()).map_err(sqlite_error)?;
        let Some(upgrade) = schema::next(&done.rows, upgrades)? else {
            transaction.commit().map_err(sqlite_error)?;
            break;
        };
        for statement in upgrade.statements {
            transaction.execute_batch(statement).map_err(sqlite_error)?;
        }
        run(&transaction, &schema::record(upgrade, now_ms)).map_err(sqlite_error)?;
        transaction.commit().map_err(sqlite_error)?;
        tracing::info!(version = upgrade.version, name = upgrade.name, "database upgraded");
    }
    connection.busy_timeout(SQLITE_LOCK_WAIT).map_err(sqlite_error)
}

fn transact(connection: &mut Connection, batch: &[Statement]) -> Result<Done, StoreError> {
    let reads = batch.iter().all(|statement| statement.kind == Kind::Query);
    let behavior = if reads { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
    let transaction = connection.transaction_with_behavior(behavior).map_err(sqlite_error)?;
    let mut answers = Vec::with_capacity(batch.len());
    for statement in batch {
        match run(&transaction, statement) {
            Ok(answer) if statement.kind == Kind::WriteOne && answer.changed != 1 => return Ok(Done::Undone),
            Ok(answer) => answers.push(answer),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                return Ok(Done::Undone);
            }
            Err(error) => return Err(sqlite_error(error)),
        }
    }
    transaction.commit().map_err(sqlite_error)?;
    Ok(Done::All(answers))
}

fn run(connection: &Connection, statement: &Statement) -> rusqlite::Result<Answer> {
    // The text is a constant of this crate, in which `$` stands for nothing else.
    let mut prepared = connection.prepare(&statement.sql.replace('$', "?"))?;
    if statement.kind != Kind::Query {
        let changed = prepared.execute(params_from_iter(&statement.values))?;
        return Ok(Answer { rows: Vec::new(), changed: changed as u64 });
    }
    let columns = prepared.column_count();
    let mut rows = Vec::new();
    let mut found = prepared.query(params_from_iter(&statement.values))?;
    while let Some(row) = found.next()? {
        let values = (0..columns)
            .map(|column| match row.get_ref(column)? {
                ValueRef::Null => Ok(Value::Null),
                ValueRef::Integer(number) => Ok(Value::Int(number)),
                other => other.as_str().map(Value::from).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(column, other.data_type(), Box::new(error))
                }),
            })
            .collect::<rusqlite::Result<_>>()?;
        rows.push(Row(values));
    }
    Ok(Answer { rows, changed: 0 })
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn sqlite_error(error: rusqlite::Error) -> StoreError {
    let what = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { what },
        // A quota, a file size limit or a broken disk shows as an I/O error: the transaction was undone all the same.
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => StoreError::Full { what },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            StoreError::Full { what }
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged { what },
        _ => match error {
            rusqlite::Error::FromSqlConversionFailure(..) => StoreError::Damaged { what },
            _ => StoreError::Refused { what },
        },
    }
}
