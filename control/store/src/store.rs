//! The store: opening, writing in order, closing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::audit::{AuditDraft, Head, anchor, random_id};
use crate::audit_log;
use crate::backend::Backend;
use crate::clock::SteadyClock;
use crate::error::StoreError;
use crate::limits::{CLOSE_TIME_MAX, REPLAY_WAIT_MAX, RETRY_WAIT_MAX, RETRY_WAIT_MIN, WRITERS_MAX};
use crate::options::{Retention, StoreOptions};
use crate::record::{MigrationRecord, PathSample, SeenSession};
use crate::schema::{self, UPGRADES};
use crate::spool::Spool;
use crate::statement::Done;
use crate::write::Write;

/// Where a record that must not be lost is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In the database.
    Stored,
    /// In the spool: the database is away, and gets it when it is back.
    Spooled {
        /// Whether it is also in the spool's file. If not, it is lost if this process ends before the database is back.
        on_disk: bool,
    },
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    /// The schema's version.
    pub schema_version: i64,
    /// Why the last write or look found the database away; `None` while it answers.
    pub away: Option<String>,
    /// Records that wait in the spool.
    pub spooled: usize,
    /// Their bytes.
    pub spooled_bytes: usize,
    /// Whether all of them are on disk.
    pub spool_on_disk: bool,
    /// Records stored since the start, those from the spool included.
    pub stored: u64,
    /// Records that went through the spool since the start.
    pub spooled_ever: u64,
    /// Records that were refused because the spool was full, since the start: these are lost.
    pub refused: u64,
    /// Records that the database will never take, and that were set aside, since the start.
    pub set_aside: u64,
    /// The end of the audit log, as last written or read by this process; `None` before that.
    pub audit_head: Option<Head>,
    /// Why the file with the audit log's head could not be written; `None` while it can.
    pub anchor_fault: Option<String>,
}

#[derive(Debug, Default)]
struct Counters {
    stored: AtomicU64,
    spooled: AtomicU64,
    refused: AtomicU64,
    set_aside: AtomicU64,
}

#[derive(Debug, Default)]
struct Noted {
    away: Option<String>,
    anchor_fault: Option<String>,
    head: Option<Head>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) backend: Backend,
    pub(crate) clock: SteadyClock,
    pub(crate) instance: String,
    pub(crate) retention: Retention,
    state_dir: PathBuf,
    /// Whoever holds it writes: records reach the database in the order in which they came.
    turn: AsyncMutex<()>,
    /// Whoever holds it may rely on the audit log's oldest entry: it is being verified, or let go of.
    pub(crate) log_front: AsyncMutex<()>,
    waiting: Semaphore,
    spool: Arc<Mutex<Spool>>,
    noted: Mutex<Noted>,
    counters: Counters,
    spooled: Arc<Notify>,
    drained: Notify,
}

/// What the control process remembers. Clones are handles to the same store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens the database, upgrades its schema, and takes up what an earlier process left in the spool.
    ///
    /// # Errors
    /// Any [`StoreError`]; [`is_passing`](StoreError::is_passing) says whether trying again makes sense.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let clock = SteadyClock::start();
        let state_dir = options.state_dir.clone();
        let spool =
            spawn_blocking(move || Spool::open(&state_dir)).await.map_err(|_| StoreError::Closed)??;
        let left = spool.len();
        let backend = Backend::open(&options.database, UPGRADES, clock.now_ms()).await?;
        let inner = Arc::new(Inner {
            backend,
            clock,
            instance: random_id()?,
            retention: options.retention,
            state_dir: options.state_dir,
            turn: AsyncMutex::new(()),
            log_front: AsyncMutex::new(()),
            waiting: Semaphore::new(WRITERS_MAX),
            spool: Arc::new(Mutex::new(spool)),
            noted: Mutex::new(Noted::default()),
            counters: Counters::default(),
            spooled: Arc::new(Notify::new()),
            drained: Notify::new(),
        });
        if left > 0 {
            tracing::info!(records = left, "records of an earlier process wait in the spool");
            inner.spooled.notify_one();
        }
        tokio::spawn(replay(Arc::downgrade(&inner), inner.spooled.clone()));
        Ok(Self { inner })
    }

    /// Keeps a session as it was seen just now, in place of how it was seen before.
    ///
    /// # Errors
    /// [`StoreError`]: the record was not kept. A database that is away is no error: see [`Kept`].
    pub async fn save_session(&self, seen: SeenSession) -> Result<Kept, StoreError> {
        self.keep(Write::Session(Box::new(seen))).await
    }

    /// Keeps a migration as it stands, in place of how it stood before.
    ///
    /// # Errors
    /// As [`save_session`](Self::save_session).
    pub async fn save_migration(&self, record: MigrationRecord) -> Result<Kept, StoreError> {
        self.keep(Write::Migration(Box::new(record))).await
    }

    /// Keeps samples of paths.
    ///
    /// # Errors
    /// As [`save_session`](Self::save_session).
    pub async fn save_samples(&self, samples: Vec<PathSample>) -> Result<Kept, StoreError> {
        self.keep(Write::Samples(samples)).await
    }

    /// Adds an entry to the audit log. While the database is away it waits in the spool and is chained when it is stored.
    ///
    /// # Errors
    /// As [`save_session`](Self::save_session). A call whose entry was not kept should be refused.
    pub async fn audit(&self, draft: AuditDraft) -> Result<Kept, StoreError> {
        self.keep(Write::Audit(Box::new(draft))).await
    }

    /// Keeps the answer to a call whose key was claimed.
    ///
    /// # Errors
    /// As [`save_session`](Self::save_session).
    pub async fn answer(&self, caller: &str, key: &str, answer: String) -> Result<Kept, StoreError> {
        self.keep(Write::Answer { caller: caller.to_owned(), key: key.to_owned(), answer }).await
    }

    async fn keep(&self, write: Write) -> Result<Kept, StoreError> {
        let inner = &self.inner;
        write.check()?;
        let _place = inner.waiting.try_acquire().map_err(|_| StoreError::Busy { waiting: WRITERS_MAX })?;
        let _turn = inner.turn.lock().await;
        let reason = if lock(&inner.spool).len() > 0 {
            // Behind what waits, or it would be stored out of order.
            StoreError::Unreachable { what: "earlier records wait in the spool".to_owned() }
        } else {
            match inner.store(&write).await {
                Ok(()) => return Ok(Kept::Stored),
                Err(error) if error.is_passing() => error,
                Err(error) => return Err(error),
            }
        };
        let spool = inner.spool.clone();
        let pushed = spawn_blocking(move || lock(&spool).push(write, &reason))
            .await
            .map_err(|_| StoreError::Closed)?;
        match pushed {
            Ok(on_disk) => {
                inner.counters.spooled.fetch_add(1, Ordering::Relaxed);
                inner.spooled.notify_one();
                Ok(Kept::Spooled { on_disk })
            }
            Err(error) => {
                inner.counters.refused.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// How the store is, without asking the database.
    pub fn health(&self) -> StoreHealth {
        let inner = &self.inner;
        let (spooled, spooled_bytes, spool_on_disk) = {
            let spool = lock(&inner.spool);
            (spool.len(), spool.bytes(), spool.is_on_disk())
        };
        let noted = lock(&inner.noted);
        StoreHealth {
            database: inner.backend.name(),
            schema_version: schema::VERSION,
            away: noted.away.clone(),
            spooled,
            spooled_bytes,
            spool_on_disk,
            stored: inner.counters.stored.load(Ordering::Relaxed),
            spooled_ever: inner.counters.spooled.load(Ordering::Relaxed),
            refused: inner.counters.refused.load(Ordering::Relaxed),
            set_aside: inner.counters.set_aside.load(Ordering::Relaxed),
            audit_head: noted.head,
            anchor_fault: noted.anchor_fault.clone(),
        }
    }

    /// Asks the database whether it answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        let result = self.inner.backend.rows(schema::done()).await;
        // A database that another process writes to can be read all the same: what waits says whether it takes anything.
        if result.is_err() || lock(&self.inner.spool).len() == 0 {
            self.inner.note(result.as_ref().err());
        }
        schema::next(&result?, UPGRADES).map(drop)
    }

    /// Waits until nothing is in the spool.
    pub async fn drained(&self) {
        loop {
            let drained = self.inner.drained.notified();
            if lock(&self.inner.spool).len() == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Gives the spool a bounded time to reach the database, then lets go of that for all handles. What is left is in the
    /// spool's file for the next process.
    pub async fn close(self) -> StoreHealth {
        let _ = timeout(CLOSE_TIME_MAX, self.drained()).await;
        let _ = timeout(CLOSE_TIME_MAX, self.inner.backend.close()).await;
        self.health()
    }
}

impl Inner {
    pub(crate) fn note(&self, error: Option<&StoreError>) {
        let mut noted = lock(&self.noted);
        match error {
            None => {
                if noted.away.take().is_some() {
                    tracing::info!("the database answers again");
                }
            }
            Some(error) if error.is_passing() => {
                if noted.away.is_none() {
                    tracing::warn!(%error, "the database is away");
                }
                noted.away = Some(error.to_string());
            }
            Some(_) => {}
        }
    }

    pub(crate) fn note_head(&self, head: Head) {
        lock(&self.noted).head = Some(head);
    }

    pub(crate) fn state_dir(&self) -> &std::path::Path {
        &self.state_dir
    }

    /// Stores one record now. The caller has the turn.
    async fn store(&self, write: &Write) -> Result<(), StoreError> {
        let result = match write {
            Write::Audit(draft) => self.store_audit(draft).await,
            write => match self.backend.transact(write.statements()?).await {
                Ok(Done::All(_)) => Ok(()),
                Ok(Done::Undone) => Err(StoreError::Contended { what: "a record" }),
                Err(error) => Err(error),
            },
        };
        self.note(result.as_ref().err());
        if result.is_ok() {
            self.counters.stored.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn store_audit(&self, draft: &AuditDraft) -> Result<(), StoreError> {
        let head = audit_log::append(&self.backend, draft).await?;
        self.note_head(head);
        // The entry stands; a head that lags behind by some entries still finds most of what it is there for.
        let dir = self.state_dir.clone();
        let written = spawn_blocking(move || anchor::write(&dir, head)).await;
        let fault = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => return Err(StoreError::Closed),
        };
        if let Some(error) = &fault {
            tracing::warn!(error, "the file with the audit log's head cannot be written");
        }
        lock(&self.noted).anchor_fault = fault;
        Ok(())
    }

    /// Stores the first record of the spool. Whether there was one.
    async fn store_first(&self) -> Result<bool, StoreError> {
        let _turn = self.turn.lock().await;
        let Some(write) = lock(&self.spool).first().cloned() else { return Ok(false) };
        let result = self.store(&write).await;
        let spool = self.spool.clone();
        match result {
            Ok(()) => {
                let _ = spawn_blocking(move || lock(&spool).pop()).await;
                Ok(true)
            }
            Err(error) if error.is_passing() => Err(error),
            Err(StoreError::Closed) => Err(StoreError::Closed),
            Err(error) => {
                tracing::error!(%error, "a record from the spool will never be taken: set aside");
                self.counters.set_aside.fetch_add(1, Ordering::Relaxed);
                let _ = spawn_blocking(move || lock(&spool).set_first_aside()).await;
                Ok(true)
            }
        }
    }
}

/// Brings what is spooled to the database, in order, for as long as the store lives.
async fn replay(inner: Weak<Inner>, spooled: Arc<Notify>) {
    let mut wait = RETRY_WAIT_MIN;
    loop {
        let Some(alive) = inner.upgrade() else { return };
        match alive.store_first().await {
            Ok(true) => {
                wait = RETRY_WAIT_MIN;
                continue;
            }
            Ok(false) => {
                alive.drained.notify_waiters();
                wait = RETRY_WAIT_MIN;
                // The store must not live on because of this handle; and once it is gone, nobody notifies any more.
                drop(alive);
                let _ = timeout(RETRY_WAIT_MAX, spooled.notified()).await;
            }
            Err(_) => {
                drop(alive);
                sleep(wait).await;
                wait = (wait * 2).min(REPLAY_WAIT_MAX);
            }
        }
    }
}
