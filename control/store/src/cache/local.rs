//! The cache in this process: the least recently used goes first, within a number of entries and of bytes.

use std::time::Instant;

use bytes::Bytes;
use lru::LruCache;

use super::CacheLimits;

#[derive(Debug)]
struct Entry {
    value: Bytes,
    until: Instant,
}

#[derive(Debug)]
pub(super) struct Local {
    entries: LruCache<String, Entry>,
    bytes: usize,
    limits: CacheLimits,
}

impl Local {
    pub(super) fn new(limits: CacheLimits) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, limits }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&mut self, key: &str, now: Instant) -> Option<Bytes> {
        let entry = self.entries.get(key)?;
        if entry.until <= now {
            self.remove(key);
            return None;
        }
        Some(entry.value.clone())
    }

    pub(super) fn put(&mut self, key: &str, value: Bytes, until: Instant) {
        self.remove(key);
        self.bytes += key.len() + value.len();
        self.entries.put(key.to_owned(), Entry { value, until });
        while self.entries.len() > self.limits.entries_max || self.bytes > self.limits.bytes_max {
            let Some((key, entry)) = self.entries.pop_lru() else { break };
            self.bytes -= key.len() + entry.value.len();
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.pop(key) {
            self.bytes -= key.len() + entry.value.len();
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_least_recently_used_goes_and_a_life_ends() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut local = Local::new(CacheLimits { entries_max: 2, bytes_max: 1000 });
        local.put("a", Bytes::from_static(b"1"), later);
        local.put("b", Bytes::from_static(b"2"), later);
        assert!(local.get("a", now).is_some());
        local.put("c", Bytes::from_static(b"3"), later);
        assert_eq!((local.get("a", now).is_some(), local.get("b", now)), (true, None));
        assert_eq!(local.get("a", later), None);
        assert_eq!((local.len(), local.bytes()), (1, 2));
    }

    proptest! {
        /// Whatever is put and removed: the bounds hold, and the bytes that are counted are those that are there.
        #[test]
        fn bounds_hold(steps in proptest::collection::vec((0..12u8, 0..60usize, any::<bool>()), 0..200)) {
            let now = Instant::now();
            let mut local = Local::new(CacheLimits { entries_max: 5, bytes_max: 100 });
            for (key, length, put) in steps {
                let key = key.to_string();
                if put {
                    local.put(&key, Bytes::from(vec![0; length]), now + Duration::from_secs(1));
                } else {
                    local.remove(&key);
                    prop_assert_eq!(local.get(&key, now), None);
                }
                let counted: usize = local.entries.iter().map(|(key, entry)| key.len() + entry.value.len()).sum();
                prop_assert_eq!(local.bytes(), counted);
                prop_assert!(local.len() <= 5 && local.bytes() <= 100);
            }
        }
    }
}
