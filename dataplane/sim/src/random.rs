//! The one source of chance in a run.

/// xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators"), written out here so that
/// a seed means the same run for as long as this file stands, whatever version a crate has.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

/// One step of SplitMix64: a good hash of a counter.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        let state = std::array::from_fn(|_| {
            counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(counter)
        });
        Random { state }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        result
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        debug_assert!(low <= high);
        match (high - low).checked_add(1) {
            Some(span) => low + self.next_u64() % span,
            None => self.next_u64(),
        }
    }

    /// A number from `low` to `high`, every order of magnitude as likely as another.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let bits = |value: u64| 64 - value.leading_zeros();
        let top = self.range(u64::from(bits(low)), u64::from(bits(high)));
        let ceiling = 1u64.checked_shl(top as u32).map_or(u64::MAX, |value| value - 1).min(high);
        let floor = if top == 0 { 0 } else { 1 << (top - 1) }.max(low).min(ceiling);
        self.range(floor, ceiling)
    }

    /// True in `percent` of all cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.next_u64() % 100 < percent
    }

    /// True in `count` of a million cases.
    pub fn per_million(&mut self, count: u64) -> bool {
        self.next_u64() % 1_000_000 < count
    }

    /// One of `choices`, which is not empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.range(0, choices.len() as u64 - 1) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_sequence_and_bounds_hold() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        for _ in 0..10_000 {
            assert_eq!(a.next_u64(), b.next_u64());
            assert!((3..=9).contains(&a.range(3, 9)) && (3..=9).contains(&b.range(3, 9)));
            assert!((1..=1000).contains(&a.spread(1, 1000)) && (1..=1000).contains(&b.spread(1, 1000)));
        }
        assert_ne!(Random::new(1).next_u64(), Random::new(2).next_u64());
    }
}
