//! A set of connections.

use crate::limits::CONNECTIONS_MAX;

/// Connections, each one bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionSet {
    words: [u64; CONNECTIONS_MAX.div_ceil(64) as usize],
}

impl ConnectionSet {
    /// Adds one; beyond [`CONNECTIONS_MAX`] there is none.
    pub(super) fn insert(&mut self, connection: u16) {
        if let Some(word) = self.words.get_mut(usize::from(connection / 64)) {
            *word |= 1 << (connection % 64);
        }
    }

    /// Takes out the lowest.
    pub(super) fn pop_first(&mut self) -> Option<u16> {
        let (word, place) = self.words.iter_mut().zip(0u16..).find(|(word, _)| **word != 0)?;
        let bit = word.trailing_zeros() as u16;
        *word &= *word - 1;
        Some(place * 64 + bit)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

impl Extend<u16> for ConnectionSet {
    fn extend<I: IntoIterator<Item = u16>>(&mut self, connections: I) {
        connections.into_iter().for_each(|connection| self.insert(connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_leaves_once_and_in_order() {
        let mut set = ConnectionSet::default();
        set.extend([CONNECTIONS_MAX - 1, 5, 64, 0, 63, 5]);
        set.insert(u16::MAX);
        let order: Vec<u16> = std::iter::from_fn(|| set.pop_first()).collect();
        assert_eq!(order, [0, 5, 63, 64, CONNECTIONS_MAX - 1]);
        assert!(set.is_empty());
    }
}
