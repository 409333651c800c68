//! What the node remembers: one store for calls, sessions, migrations and paths, and the cache before it.
//!
//! ```text
//! gateway::sessions ── recorder ─┐
//! gateway (path.list) ── paths ──┼── store ── SQLite or PostgreSQL, a spool while it is away
//! server::books ── calls ────────┤     └ history, cache: what callers ask for
//! migration.report ── reported ──┘
//! ```

mod history;
mod migration;
mod paths;
mod recorder;
mod reported;
mod written;

use std::sync::{Mutex, MutexGuard, PoisonError};

use novacron_store::{Cache, Store, StoreError};

pub(crate) use history::{audit_list, audit_verify, ended_session, migrations, path_samples, sessions};
pub(crate) use paths::sample_over;
pub(crate) use recorder::Recorder;
pub(crate) use reported::report;

/// The store and the cache, once they are open.
#[derive(Default)]
pub(crate) struct Records {
    store: Mutex<Option<Store>>,
    cache: Mutex<Option<std::sync::Arc<Cache>>>,
    written: tokio::sync::Mutex<written::Written>,
    /// Why the audit log is not to be believed.
    broken: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Records {
    pub(crate) fn open(&self, store: Store) {
        *lock(&self.store) = Some(store);
    }

    /// The store.
    ///
    /// # Errors
    /// [`StoreError::Closed`] before it is open and after it was closed.
    pub(crate) fn store(&self) -> Result<Store, StoreError> {
        lock(&self.store).clone().ok_or(StoreError::Closed)
    }

    /// Takes the store away from everybody, to close it.
    pub(crate) fn close(&self) -> Option<Store> {
        lock(&self.store).take()
    }

    /// The migrations; one reads and writes them at a time.
    async fn written(&self) -> tokio::sync::MutexGuard<'_, written::Written> {
        self.written.lock().await
    }

    pub(crate) fn set_cache(&self, cache: Option<Cache>) {
        *lock(&self.cache) = cache.map(std::sync::Arc::new);
    }

    pub(crate) fn cache(&self) -> Option<std::sync::Arc<Cache>> {
        lock(&self.cache).clone()
    }

    /// The audit log was changed by somebody: from now on nothing is carried out that must be written to it.
    pub(crate) fn set_broken(&self, why: String) {
        *lock(&self.broken) = Some(why);
    }

    pub(crate) fn broken(&self) -> Option<String> {
        lock(&self.broken).clone()
    }
}
