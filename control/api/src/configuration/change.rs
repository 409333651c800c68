//! What differs between two configurations, and what of that a running process takes.

use super::{Configuration, Key, TakesEffect};

/// A key whose value differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: &'static str,
    /// Its value before.
    pub from: serde_json::Value,
    /// Its value now.
    pub to: serde_json::Value,
    /// When that takes effect.
    pub takes_effect: TakesEffect,
}

/// Every difference, in the order of the keys.
pub fn changes(from: &Configuration, to: &Configuration) -> Vec<Change> {
    let differing = from.values().into_iter().zip(to.values()).filter(|(old, new)| old.1 != new.1);
    differing
        .filter_map(|((key, from), (_, to))| {
            Some(Change { key, from, to, takes_effect: Key::find(key)?.takes_effect })
        })
        .collect()
}
