//! A cache with bounds: in this process, or in a Redis that several share.
//!
//! A cache holds what can be had again, so nothing here is an error for a caller: what cannot be cached is not cached,
//! what cannot be asked is a miss. A Redis that does not answer is left alone for
//! [`REDIS_RETRY_WAIT`]; meanwhile the cache in this process serves, and [`Cache::health`] says so. When
//! Redis is back, what was put or removed in between is removed there first, so that no value returns that was replaced
//! while nobody could say so.

mod local;
mod redis;

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::RedisError;
use bytes::Bytes;
use tokio::time::timeout;

use self::local::Local;
pub use self::redis::RedisOptions;
use self::redis::Remote;
use crate::error::StoreError;
use crate::limits::{
    CACHE_BYTES_MAX, CACHE_ENTRIES_MAX, CACHE_LIFE_MAX, CACHE_VALUE_BYTES_MAX, REDIS_ANSWER_TIME_MAX,
    REDIS_RETRY_WAIT, TEXT_BYTES_MAX,
};

/// Bounds of the cache in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Entries.
    pub entries_max: usize,
    /// Bytes of keys and values.
    pub bytes_max: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { entries_max: CACHE_ENTRIES_MAX, bytes_max: CACHE_BYTES_MAX }
    }
}

/// How the cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheHealth {
    /// `in-process` or `redis`: what was asked for.
    pub cache: &'static str,
    /// Why Redis is not used at the moment; `None` while it is, or was not asked for.
    pub degraded: Option<String>,
    /// Entries in this process.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Values found, since the start.
    pub hits: u64,
    /// Values not found, since the start.
    pub misses: u64,
}

/// A Redis that is left alone.
#[derive(Debug)]
struct Degraded {
    why: String,
    /// Not to be asked before.
    until: Instant,
    /// Keys that were put or removed here meanwhile: what Redis has of them is old.
    changed: HashSet<String>,
    /// When more were changed than are remembered: then everything that Redis holds must have expired first.
    forgotten_at: Option<Instant>,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    local: Mutex<Local>,
    remote: Option<Remote>,
    degraded: Mutex<Option<Degraded>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// A cache in this process.
    pub fn in_process(limits: CacheLimits) -> Self {
        Self {
            local: Mutex::new(Local::new(limits)),
            remote: None,
            degraded: Mutex::new(None),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A cache in Redis, and in this process while Redis is away. Must be called within a tokio runtime. Whether Redis
    /// answers shows with the first call: a dead one is no reason not to start.
    ///
    /// # Errors
    /// [`StoreError::Options`]: an address without TLS, a password in the URL, files that cannot be read.
    pub fn redis(options: &RedisOptions, limits: CacheLimits) -> Result<Self, StoreError> {
        Ok(Self { remote: Some(Remote::new(options)?), ..Self::in_process(limits) })
    }

    /// The value of a key, if it is there and its life is not over.
    pub async fn get(&self, key: &str) -> Option<Bytes> {
        let found = match &self.remote {
            Some(remote) => match self.ask(remote.get(key)).await {
                Some(found) => found.map(Bytes::from),
                None => lock(&self.local).get(key, Instant::now()),
            },
            None => lock(&self.local).get(key, Instant::now()),
        };
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Puts a value, for a life of at most [`CACHE_LIFE_MAX`]. Larger than [`CACHE_VALUE_BYTES_MAX`], or under a key
    /// of more than [`TEXT_BYTES_MAX`] bytes, it is not cached, and what was there is removed.
    pub async fn put(&self, key: &str, value: Bytes, life: Duration) {
        if key.len() > TEXT_BYTES_MAX {
            return;
        }
        if value.len() > CACHE_VALUE_BYTES_MAX || life.is_zero() {
            return self.remove(key).await;
        }
        let life = life.min(CACHE_LIFE_MAX);
        if let Some(remote) = &self.remote {
            if self.ask(remote.put(key, &value, life)).await.is_some() {
                return;
            }
            self.changed(key);
        }
        lock(&self.local).put(key, value, Instant::now() + life);
    }

    /// Removes a value.
    pub async fn remove(&self, key: &str) {
        if key.len() > TEXT_BYTES_MAX {
            return;
        }
        if let Some(remote) = &self.remote {
            if self.ask(remote.remove(vec![key.to_owned()])).await.is_some() {
                return;
            }
            self.changed(key);
        }
        lock(&self.local).remove(key);
    }

    /// Asks Redis whether it answers, so that [`health`](Self::health) tells of now; in this process there is nothing to
    /// ask.
    pub async fn check(&self) {
        if let Some(remote) = &self.remote {
            let _ = self.ask(remote.ping()).await;
        }
    }

    /// How the cache is.
    pub fn health(&self) -> CacheHealth {
        let local = lock(&self.local);
        CacheHealth {
            cache: if self.remote.is_some() { "redis" } else { "in-process" },
            degraded: lock(&self.degraded).as_ref().map(|degraded| degraded.why.clone()),
            entries: local.len(),
            bytes: local.bytes(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    /// Asks Redis, unless it is left alone; `None` where it did not answer.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, RedisError>>) -> Option<T> {
        if !self.is_back().await {
            return None;
        }
        match timeout(REDIS_ANSWER_TIME_MAX, question).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => self.leave_alone(error.to_string()),
            Err(_) => self.leave_alone(format!("no answer within {} ms", REDIS_ANSWER_TIME_MAX.as_millis())),
        }
    }

    /// Whether Redis may be asked. After a time away, what it holds of changed keys is removed first.
    async fn is_back(&self) -> bool {
        let Some(remote) = &self.remote else { return false };
        let changed = {
            let mut degraded = lock(&self.degraded);
            let Some(degraded) = degraded.as_mut() else { return true };
            let now = Instant::now();
            let old = degraded.forgotten_at.is_some_and(|at| now.duration_since(at) < CACHE_LIFE_MAX);
            if now < degraded.until || old {
                return false;
            }
            // One caller looks; the others go on without, and the next look is as far away as after a failure.
            degraded.until = now + REDIS_RETRY_WAIT;
            degraded.changed.iter().cloned().collect::<Vec<_>>()
        };
        let looked = timeout(REDIS_ANSWER_TIME_MAX, async {
            remote.ping().await?;
            remote.remove(changed.clone()).await
        });
        if let Ok(Ok(())) = looked.await {
            let mut degraded = lock(&self.degraded);
            // A key that was changed during the look waits for the next one.
            let all = degraded.as_mut().is_none_or(|degraded| {
                degraded.changed.retain(|key| !changed.contains(key));
                degraded.changed.is_empty()
            });
            if all {
                *degraded = None;
                lock(&self.local).clear();
                tracing::info!("Redis answers again");
                return true;
            }
            if let Some(degraded) = degraded.as_mut() {
                degraded.until = Instant::now();
            }
        }
        false
    }

    fn leave_alone<T>(&self, why: String) -> Option<T> {
        let mut degraded = lock(&self.degraded);
        let until = Instant::now() + REDIS_RETRY_WAIT;
        match degraded.as_mut() {
            Some(degraded) => degraded.until = until,
            None => {
                tracing::warn!(why, "Redis is away: the cache in this process serves");
                *degraded = Some(Degraded { why, until, changed: HashSet::new(), forgotten_at: None });
            }
        }
        None
    }

    fn changed(&self, key: &str) {
        // Redis came back between the failed question and now: then what it has was not touched since, or by others.
        let mut degraded = lock(&self.degraded);
        let degraded = degraded.get_or_insert_with(|| Degraded {
            why: "a change could not be told it".to_owned(),
            until: Instant::now(),
            changed: HashSet::new(),
            forgotten_at: None,
        });
        if degraded.changed.len() < CACHE_ENTRIES_MAX || degraded.changed.contains(key) {
            degraded.changed.insert(key.to_owned());
        } else {
            degraded.forgotten_at = Some(Instant::now());
        }
    }
}
