//! A page of guest memory and what belongs in it.
//!
//! The contents follow from [`PageId`] alone, so that a page that was lost, torn, old or another one's is seen.

use crate::limits::PAGE_BYTES;
use crate::params::Mix;

const PAGE_WORDS: usize = PAGE_BYTES / 8;

/// First word of every page that is not zero.
const MAGIC: u64 = u64::from_le_bytes(*b"NOVAPAGE");

/// One page, aligned as the hypervisor sees it.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(4096))]
pub(crate) struct Page([u64; PAGE_WORDS]);

/// What the contents of a page follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageId {
    pub(crate) index: u64,
    pub(crate) generation: u32,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All zero.
    Zero,
    /// Words of a small vocabulary: compresses several times.
    Text,
    /// Does not compress.
    Random,
}

impl PageId {
    /// 64 well mixed bits that differ for every page, generation and seed (the finalizer of splitmix64).
    pub(crate) fn key(self) -> u64 {
        let mut key =
            self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.index ^ (u64::from(self.generation) << 40);
        key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        key ^ (key >> 31)
    }

    /// The kind changes from one generation to the next, so that pages turn from zero to text to random and back
    /// while the shares stay those of `mix`.
    pub(crate) fn kind(self, mix: Mix) -> Kind {
        let draw = (self.key() >> 20) % (u64::from(mix.zero) + u64::from(mix.text) + u64::from(mix.random));
        if draw < u64::from(mix.zero) {
            Kind::Zero
        } else if draw < u64::from(mix.zero) + u64::from(mix.text) {
            Kind::Text
        } else {
            Kind::Random
        }
    }
}

impl Page {
    pub(crate) const ZERO: Self = Self([0; PAGE_WORDS]);

    /// Makes this the page that `id` and `kind` stand for.
    pub(crate) fn write(&mut self, id: PageId, kind: Kind) {
        let mut state = id.key();
        // An emulated processor runs this: a few plain operations a word, so that filling memory takes seconds.
        let mut draw = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (state ^ (state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
        };
        match kind {
            Kind::Zero => {
                self.0.fill(0);
                return;
            }
            Kind::Text => {
                for words in self.0.chunks_exact_mut(8) {
                    for (word, choice) in words.iter_mut().zip(draw().to_le_bytes()) {
                        *word = VOCABULARY[usize::from(choice)];
                    }
                }
            }
            Kind::Random => self.0.fill_with(draw),
        }
        self.0[..4].copy_from_slice(&[MAGIC, id.index, u64::from(id.generation), id.seed]);
    }

    /// What stands in it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Damages the page so that [`Page::write`] would never have written it.
    pub(crate) fn corrupt(&mut self) {
        self.0[PAGE_WORDS / 2] ^= 1 << 17;
    }
}

/// 256 words of eight letters, each four syllables: read in a dump they look like text, and compress like it.
static VOCABULARY: [u64; 256] = vocabulary();

const fn vocabulary() -> [u64; 256] {
    let consonants = b"bdfgklmnprstvwz ";
    let vowels = b"aeiou y.";
    let mut words = [0; 256];
    let mut i = 0;
    while i < words.len() {
        let mut letters = [0; 8];
        let mut mixed = (i as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut j = 0;
        while j < letters.len() {
            letters[j] = consonants[(mixed >> 33) as usize % consonants.len()];
            letters[j + 1] = vowels[(mixed >> 45) as usize % vowels.len()];
            mixed = mixed.wrapping_mul(0x94d0_49bb_1331_11eb).rotate_left(23);
            j += 2;
        }
        words[i] = u64::from_le_bytes(letters);
        i += 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn written(id: PageId, kind: Kind) -> Page {
        let mut page = Page::ZERO;
        page.write(id, kind);
        page
    }

    #[test]
    fn contents_follow_from_the_identity() {
        let id = PageId { index: 5, generation: 2, seed: 1 };
        for kind in [Kind::Text, Kind::Random] {
            let page = written(id, kind);
            assert!(page == written(id, kind));
            assert!(page != written(PageId { index: 6, ..id }, kind));
            assert!(page != written(PageId { generation: 3, ..id }, kind));
            assert!(page != written(PageId { seed: 2, ..id }, kind));
            assert!(page != Page::ZERO);
        }
    }

    #[test]
    fn the_mix_is_held() {
        let mix = Mix { zero: 10, text: 60, random: 30 };
        let mut counts = [0u32; 3];
        for index in 0..10_000 {
            counts[PageId { index, generation: 7, seed: 3 }.kind(mix) as usize] += 1;
        }
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
        assert!((5800..6200).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn damage_is_seen_in_every_kind() {
        let id = PageId { index: 1, generation: 1, seed: 1 };
        for kind in [Kind::Zero, Kind::Text, Kind::Random] {
            let mut page = written(id, kind);
            page.corrupt();
            assert!(page != written(id, kind));
        }
    }

    #[test]
    fn random_pages_do_not_repeat_words_and_text_does() {
        let id = PageId { index: 3, generation: 2, seed: 1 };
        let distinct = |kind| written(id, kind).0.iter().collect::<HashSet<_>>().len();
        assert_eq!(distinct(Kind::Random), PAGE_WORDS);
        assert!(distinct(Kind::Text) <= 256 + 4);
        assert_eq!(VOCABULARY.iter().collect::<HashSet<_>>().len(), 256);
    }
}
