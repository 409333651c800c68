//! Numbers that look random and follow from a seed (xorshift64).

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_covers_its_range() {
        let draw = |seed| -> Vec<u64> {
            let mut random = Random::new(seed);
            (0..1000).map(|_| random.next() % 16).collect()
        };
        assert_eq!(draw(8), draw(8));
        assert!((0..16).all(|number| draw(8).contains(&number)));
    }
}
