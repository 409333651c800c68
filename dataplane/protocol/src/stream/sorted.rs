//! Few things in the order of their keys, of which most come at the end and go from the front.
//!
//! A tree would do, and allocate a node for every few of them. Here, memory is what the most at once have needed.

use std::collections::VecDeque;
use std::ops::Range;

/// Values by rising keys.
#[derive(Debug)]
pub(super) struct Sorted<K, V> {
    entries: VecDeque<(K, V)>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Sorted { entries: VecDeque::new() }
    }
}

impl<K: Ord + Copy, V> Sorted<K, V> {
    /// The place of a key, or the one that it would have.
    fn place(&self, key: &K) -> Result<usize, usize> {
        // Without a search where it comes next or goes next.
        match (self.entries.front(), self.entries.back()) {
            (_, None) => Err(0),
            (_, Some((last, _))) if last < key => Err(self.entries.len()),
            (Some((first, _)), _) if first == key => Ok(0),
            _ => self.entries.binary_search_by(|(other, _)| other.cmp(key)),
        }
    }

    /// Adds a value; returns whether its key was new. Where it was not, nothing has changed.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        let place = self.place(&key);
        if let Err(place) = place {
            self.entries.insert(place, (key, value));
        }
        place.is_err()
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key).ok()?;
        self.entries.remove(place).map(|(_, value)| value)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(self.place(key).ok()?).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.place(key).ok()?;
        self.entries.get_mut(place).map(|(_, value)| value)
    }

    pub(super) fn first(&self) -> Option<&(K, V)> {
        self.entries.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    fn places(&self, keys: Range<K>) -> Range<usize> {
        let place = |key: &K| self.place(key).unwrap_or_else(|place| place);
        place(&keys.start)..place(&keys.end)
    }

    /// Those with a key in the range.
    pub(super) fn range(&self, keys: Range<K>) -> impl Iterator<Item = &(K, V)> {
        self.entries.range(self.places(keys))
    }

    /// Takes out those with a key in the range.
    pub(super) fn drain(&mut self, keys: Range<K>) -> impl Iterator<Item = V> {
        let places = self.places(keys);
        self.entries.drain(places).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// It is what a tree is.
        #[test]
        fn as_a_tree(steps in proptest::collection::vec((0u8..5, 0u64..40, 0u64..8), 0..200)) {
            let (mut sorted, mut tree) = (Sorted::default(), BTreeMap::new());
            for (number, (what, key, more)) in steps.into_iter().enumerate() {
                match what {
                    0 | 1 => {
                        let new = !tree.contains_key(&key);
                        tree.entry(key).or_insert(number);
                        prop_assert_eq!(sorted.insert(key, number), new);
                    }
                    2 => prop_assert_eq!(sorted.remove(&key), tree.remove(&key)),
                    3 => {
                        let of_tree: Vec<_> = tree.range(key..key + more).map(|(key, value)| (*key, *value)).collect();
                        prop_assert_eq!(sorted.range(key..key + more).copied().collect::<Vec<_>>(), of_tree);
                    }
                    _ => {
                        let there: Vec<_> = tree.range(key..key + more).map(|(key, _)| *key).collect();
                        let of_tree: Vec<_> = there.iter().filter_map(|key| tree.remove(key)).collect();
                        prop_assert_eq!(sorted.drain(key..key + more).collect::<Vec<_>>(), of_tree);
                    }
                }
                prop_assert_eq!(sorted.get(&key), tree.get(&key));
                prop_assert_eq!(sorted.contains(&key), tree.contains_key(&key));
                prop_assert_eq!(sorted.first().map(|first| first.0), tree.first_key_value().map(|first| *first.0));
            }
        }
    }
}
