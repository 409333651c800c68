//! A set of page lanes.

use crate::limits::LANES_MAX;

/// Page lanes, each one bit: [`LANES_MAX`] of them fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSet(u64);

impl LaneSet {
    /// Adds a lane; beyond [`LANES_MAX`] there is none.
    pub fn insert(&mut self, lane: u16) {
        if lane < LANES_MAX {
            self.0 |= 1 << lane;
        }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that there are, rising.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (0..LANES_MAX).filter(move |lane| self.0 >> lane & 1 != 0)
    }
}

impl FromIterator<u16> for LaneSet {
    fn from_iter<I: IntoIterator<Item = u16>>(lanes: I) -> Self {
        let mut set = LaneSet::default();
        lanes.into_iter().for_each(|lane| set.insert(lane));
        set
    }
}

const _: () = assert!(LANES_MAX as u32 <= u64::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_rise_and_stand_once() {
        let set: LaneSet = [63, 0, 5, 5, LANES_MAX].into_iter().collect();
        assert_eq!((set.iter().collect::<Vec<_>>(), set.len()), (vec![0, 5, 63], 3));
        assert!(LaneSet::default().is_empty() && !set.is_empty());
    }
}
