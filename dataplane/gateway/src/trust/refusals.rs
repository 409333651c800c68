//! How often strangers were refused, and why: what an operator looks at.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Counters by reason. The reasons are this program's own words, so there are few.
#[derive(Default)]
pub(crate) struct Refusals {
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Refusals {
    pub(crate) fn count(&self, what: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
    }
}
