//! The cache over a Redis in earnest: shared, killed, back again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use novacron_store::{Cache, CacheLimits};

use crate::servers::certificates;
use crate::servers::redis::Redis;

const LIFE: Duration = Duration::from_secs(600);

fn redis() -> Option<Redis> {
    match Redis::new() {
        Ok(redis) => Some(redis),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// Asks until Redis is used, within a minute: a busy machine may take longer for the first handshake than callers wait.
async fn until_used(cache: &Cache) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        cache.get("nothing").await;
        let Some(why) = cache.health().degraded else { return };
        assert!(Instant::now() < deadline, "{why}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_dies_and_returns_serves_nothing_old() {
    let Some(mut redis) = redis() else { return };
    let limits = CacheLimits::default();
    let cache = Cache::redis(&redis.options(), limits).unwrap();
    let other = Cache::redis(&redis.options(), limits).unwrap();
    until_used(&cache).await;
    until_used(&other).await;
    for key in ["kept", "replaced", "removed"] {
        cache.put(key, Bytes::from_static(b"before"), LIFE).await;
    }
    assert_eq!(cache.health().degraded, None);
    assert_eq!(cache.health().entries, 0, "the values are in Redis");
    assert_eq!(other.get("kept").await.as_deref(), Some(b"before".as_slice()));

    redis.kill();
    assert_eq!(cache.get("kept").await, None);
    let health = cache.health();
    assert!(health.degraded.is_some(), "{health:?}");
    cache.put("replaced", Bytes::from_static(b"meanwhile"), LIFE).await;
    cache.remove("removed").await;
    assert_eq!(cache.get("replaced").await.as_deref(), Some(b"meanwhile".as_slice()));
    // A dead Redis costs nobody time.
    let begun = Instant::now();
    for _ in 0..100 {
        cache.get("kept").await;
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    redis.start();
    until_used(&cache).await;
    until_used(&other).await;
    // It kept its file, and with it what was replaced and removed while it was away.
    assert_eq!(cache.get("kept").await.as_deref(), Some(b"before".as_slice()));
    assert_eq!(cache.get("replaced").await, None);
    assert_eq!(cache.get("removed").await, None);
    assert_eq!(other.get("removed").await, None);
    assert_eq!(cache.health().entries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_ends_and_large_values_stay_out() {
    let Some(redis) = redis() else { return };
    let limits = CacheLimits { entries_max: 3, bytes_max: 3 << 20 };
    let shared = Cache::redis(&redis.options(), limits).unwrap();
    until_used(&shared).await;
    for cache in [shared, Cache::in_process(limits)] {
        cache.put("a", Bytes::from_static(b"1"), LIFE).await;
        assert!(cache.get("a").await.is_some());
        cache.put("a", Bytes::from(vec![0; (1 << 20) + 1]), LIFE).await;
        assert_eq!(cache.get("a").await, None, "too large to be cached, so the old value goes");
        cache.put("b", Bytes::from_static(b"1"), Duration::from_millis(50)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(cache.get("b").await, None);
        let health = cache.health();
        assert_eq!(health.degraded, None);
        assert!(health.hits >= 1 && health.misses >= 2, "{health:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_in_the_servers_place_is_told_nothing() {
    let Some(redis) = redis() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut options = redis.options();
    options.tls.authorities = Some(certificates::make(dir.path()).authority);
    let cache = Cache::redis(&options, CacheLimits::default()).unwrap();
    for _ in 0..5 {
        cache.put("a", Bytes::from_static(b"1"), LIFE).await;
        assert_eq!(
            cache.get("a").await.as_deref(),
            Some(b"1".as_slice()),
            "the cache in this process serves"
        );
        assert!(cache.health().degraded.is_some());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nothing reached it: whoever is believed finds nothing.
    let believed = Cache::redis(&redis.options(), CacheLimits::default()).unwrap();
    until_used(&believed).await;
    assert_eq!(believed.get("a").await, None);
}
