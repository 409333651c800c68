//! The cache before the database, in this process or in a Redis.

use std::sync::Arc;

use novacron_control_api::control::HealthState;
use novacron_store::{Cache, CacheLimits, RedisOptions};

use super::database::tls;
use crate::component::{Component, Fault, Found, Work};
use crate::node::Node;
use crate::plan::{Declared, Phase};

pub(crate) struct CacheBefore {
    node: Arc<Node>,
}

impl CacheBefore {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

impl Component for CacheBefore {
    fn declared(&self) -> Declared {
        Declared { name: "cache", phase: Phase::Core, needs: &["security"], critical: false }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async {
            let of = self.node.at_start();
            let storage = &of.storage;
            let cache = match (storage.enable_cache, &storage.cache_url) {
                (false, _) => None,
                (true, None) => Some(Cache::in_process(CacheLimits::default())),
                (true, Some(url)) => {
                    let options = RedisOptions {
                        url: url.as_str().to_owned(),
                        password_file: storage.cache_password_file.clone(),
                        tls: tls(of),
                    };
                    let made = Cache::redis(&options, CacheLimits::default());
                    Some(made.map_err(|error| {
                        Fault::lasting(format!("{error}; storage.cache_url and the keys beside it name it"))
                    })?)
                }
            };
            self.node.records.set_cache(cache);
            Ok(())
        })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async {
            let Some(cache) = self.node.records.cache() else {
                return Found::up("off, by storage.enable_cache: the database is asked each time");
            };
            cache.check().await;
            let health = cache.health();
            let what = format!(
                "{}, {} hits, {} misses, {} entries ({} bytes) in this process",
                health.cache, health.hits, health.misses, health.entries, health.bytes
            );
            match health.degraded {
                Some(why) => Found::new(
                    HealthState::Degraded,
                    format!("Redis is away: {why}; the cache in this process serves meanwhile; {what}"),
                ),
                None => Found::up(what),
            }
        })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async { self.node.records.set_cache(None) })
    }
}
