//! Running a test's body on a shard.

use super::{RuntimeConfig, run_shards};
use std::sync::mpsc;

/// Runs `body` on one unpinned shard; a panic there fails the test here.
pub(crate) fn on_shard<F, Fut>(body: F)
where
    F: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (done, finished) = mpsc::channel();
    let config = RuntimeConfig { shards: 1, ..RuntimeConfig::default() };
    let shards = run_shards(&config, move |_| {
        let (body, done) = (body.clone(), done.clone());
        async move {
            body().await;
            let _ = done.send(());
        }
    })
    .unwrap();
    shards.join().unwrap();
    finished.try_recv().unwrap();
}
