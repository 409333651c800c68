//! Every bound of what is stored and cached, in one place.

use std::time::Duration;

/// Largest record as JSON, in bytes: a session of 257 connections, both directions each, is a tenth of it.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Longest name, address or other short text, in bytes: identities, endpoints and labels are all shorter.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest detail of an audit entry, in bytes: the parameters of a call without its secrets; `session.open` with every
/// field filled is 20 kB.
pub const AUDIT_DETAIL_BYTES_MAX: usize = 32 << 10;
/// Longest line of an audit export that is read back, in bytes: every field at its longest, each byte escaped to six.
pub const AUDIT_LINE_BYTES_MAX: usize = 6 * (AUDIT_DETAIL_BYTES_MAX + 8 * TEXT_BYTES_MAX);
/// Most path samples of one call: they are one transaction, which must end within a statement's time.
pub const SAMPLES_AT_ONCE_MAX: usize = 4096;
/// Most items of one page: a thousand session records are a few megabytes, and no query holds the database longer.
pub const PAGE_ITEMS_MAX: u32 = 1000;
/// Items of a page unless told otherwise: what people look through.
pub const PAGE_ITEMS: u32 = 100;
/// Tries to append an audit entry while other processes append too. Each lost try means that another one got in.
pub const AUDIT_TRIES_MAX: u32 = 16;

/// Writes that wait for their turn. Beyond it callers are told to slow down, and nothing was taken.
pub const WRITERS_MAX: usize = 1024;
/// Records that wait in the spool for a database that is away: at one progress record a second of 32 sessions, eight
/// minutes; of audit entries alone far more than people and programs call in an hour.
pub const SPOOL_ENTRIES_MAX: usize = 16_384;
/// Bytes of the spool, in memory and again on disk: typical records are 2 kB, so entries are the bound that is met.
pub const SPOOL_BYTES_MAX: usize = 64 << 20;
/// Bytes of what could not be stored for good and was set aside for people to look at; more is dropped and counted.
pub const SET_ASIDE_BYTES_MAX: u64 = 16 << 20;

/// Jobs that wait for SQLite's thread: reads of many callers; writes come one at a time.
pub const SQLITE_QUEUE_MAX: usize = 256;
/// How long SQLite waits for another process's lock: shorter than a caller waits, so that the caller hears why.
pub const SQLITE_LOCK_WAIT: Duration = Duration::from_secs(2);
/// The write-ahead log is cut to this after a checkpoint, in bytes: an upgrade or a prune must not hold disk for ever.
pub const SQLITE_LOG_BYTES: i64 = 16 << 20;
/// How long one call to either database may take, waiting included. Whoever waits longer has stopped caring.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// Most connections to PostgreSQL: the specification's `storage.max_connections`; opened as they are needed.
pub const POSTGRES_CONNECTIONS_MAX: usize = 100;
/// Longest to wait for PostgreSQL to accept a connection, TLS and login included.
pub const POSTGRES_CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// PostgreSQL's own limit on a statement: every statement here reads or writes at most a page.
pub const POSTGRES_STATEMENT_TIME_MAX: Duration = Duration::from_secs(5);
/// PostgreSQL's own limit on waiting for a lock, below a statement's so that the error names the lock.
pub const POSTGRES_LOCK_WAIT: Duration = Duration::from_secs(3);
/// Without an answer for so long, a silent network counts as a lost connection.
pub const POSTGRES_SILENCE_MAX: Duration = Duration::from_secs(8);
/// First wait after a database was found away.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait between looks at a database that is away: it is found within this of its return.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(4);
/// Longest wait between tries to store what is spooled; within the wait above a try costs nothing.
pub const REPLAY_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a starter waits for a process that is ending to let go of the state folder.
pub const STATE_WAIT: Duration = Duration::from_secs(5);
/// How long a starter waits for another one that upgrades the schema.
pub const UPGRADE_WAIT: Duration = Duration::from_secs(60);
/// Between two tries to open a file that somebody else has locked, until [`UPGRADE_WAIT`] is over.
pub const SQLITE_LOCK_PAUSE: Duration = Duration::from_millis(10);
/// How long closing waits for what is spooled to be stored; what is left stays in the spool's file.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// Largest file of certificates or a password that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Rows that one prune removes of one kind: it ends within a statement's time, the next one goes on.
pub const PRUNE_ROWS_MAX: u32 = 10_000;
/// The newest so many of each kind stay whatever their age: a clock that jumps a year ahead must not empty a table.
pub const PRUNE_KEEP_MIN: u32 = 1000;
/// Ended sessions kept unless told otherwise.
pub const SESSIONS_KEPT: u32 = 50_000;
/// Ended migrations kept unless told otherwise: they are what was promised to whom, so more of them.
pub const MIGRATIONS_KEPT: u32 = 200_000;
/// Path samples kept unless told otherwise: one a second of one peer for eleven days, or one in 30 s of thirty peers
/// for as long; about 150 MB.
pub const SAMPLES_KEPT: u32 = 1_000_000;
/// Audit entries kept unless told otherwise: about 500 MB. The oldest go once there are more, and the log says so.
pub const AUDIT_KEPT: u32 = 1_000_000;
/// Sessions and migrations older than this are removed unless told otherwise: a year, for yearly questions.
pub const RECORD_AGE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Path samples older than this are removed unless told otherwise: models learn from a season, not from other hardware.
pub const SAMPLE_AGE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long an idempotency key answers: a caller that retries after a day asks anew.
pub const CLAIM_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Idempotency keys held at most; beyond it a new one is refused until old ones expire: a key that was dropped early
/// would let a change happen twice.
pub const CLAIMS_MAX: u32 = 100_000;

/// Entries of the cache unless told otherwise.
pub const CACHE_ENTRIES_MAX: usize = 10_000;
/// Bytes of the cache, keys and values, unless told otherwise.
pub const CACHE_BYTES_MAX: usize = 32 << 20;
/// Largest value that is cached, in bytes: one value must not push all others out.
pub const CACHE_VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest life of a cached value: a cache is no memory.
pub const CACHE_LIFE_MAX: Duration = Duration::from_secs(3600);
/// Longest to wait for Redis: later than this the database itself would have answered.
pub const REDIS_ANSWER_TIME_MAX: Duration = Duration::from_millis(250);
/// Longest to wait for Redis to accept a connection.
pub const REDIS_CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a Redis that failed is left alone, so that a dead one costs each caller nothing.
pub const REDIS_RETRY_WAIT: Duration = Duration::from_secs(2);

const _: () = assert!(PAGE_ITEMS <= PAGE_ITEMS_MAX);
const _: () = assert!(AUDIT_DETAIL_BYTES_MAX < RECORD_BYTES_MAX && RECORD_BYTES_MAX < SPOOL_BYTES_MAX);
const _: () = assert!(POSTGRES_LOCK_WAIT.as_millis() < POSTGRES_STATEMENT_TIME_MAX.as_millis());
const _: () = assert!(POSTGRES_STATEMENT_TIME_MAX.as_millis() < CALL_TIME_MAX.as_millis());
const _: () = assert!(SQLITE_LOCK_WAIT.as_millis() < CALL_TIME_MAX.as_millis());
const _: () = assert!(RETRY_WAIT_MIN.as_millis() < RETRY_WAIT_MAX.as_millis());
const _: () = assert!(PRUNE_KEEP_MIN < SESSIONS_KEPT && PRUNE_KEEP_MIN < AUDIT_KEPT);
const _: () = assert!(CACHE_VALUE_BYTES_MAX < CACHE_BYTES_MAX);
