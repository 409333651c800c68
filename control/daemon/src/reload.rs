//! When the configuration is read again: on SIGHUP and when its file changes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::limits::FILE_LOOK;
use crate::node::Node;

/// What a file looked like: device, inode, last change, size.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, i64, i64, u64)>);

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok();
    Stamp(found.map(|found| (found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size())))
}

/// Reads again whenever it is due; ends never.
pub(crate) async fn watch(node: Arc<Node>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else {
        tracing::error!(
            "SIGHUP cannot be received: the configuration is read again only when asked over the socket"
        );
        return;
    };
    let mut looks = interval(FILE_LOOK);
    // After a stop of the whole process one look is enough.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let file = node.sources().file.clone();
    let mut known = file.as_deref().map(stamp);
    loop {
        let asked = tokio::select! {
            hangup = hangups.recv() => hangup.is_some(),
            _ = looks.tick() => false,
        };
        let now = file.as_deref().map(stamp);
        if !asked && now == known {
            continue;
        }
        known = now;
        tracing::info!(asked, "the configuration is read again");
        let reading = Arc::clone(&node);
        // It says itself what came of it.
        let _ = tokio::task::spawn_blocking(move || reading.reload()).await;
    }
}
