//! The kernels in plain words, for every processor: what the vector forms must agree with.

use crate::{ByteMask, PAGE_BYTES, Page};

/// Bytes read between two looks at the result: few enough that a page with content is left early, enough that the compiler fills
/// vector registers where it may.
const STEP: usize = 256;

/// Whether all of `bytes` are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    for step in steps {
        let seen = step.as_chunks::<8>().0.iter().fold(0, |seen, word| seen | u64::from_ne_bytes(*word));
        if seen != 0 {
            return false;
        }
    }
    rest.iter().all(|byte| *byte == 0)
}

/// The word that the page repeats, in memory order.
pub fn repeated_word(page: &Page) -> Option<[u8; 8]> {
    let words = page.as_chunks::<8>().0;
    let first = words[0];
    words.iter().all(|word| *word == first).then_some(first)
}

/// Sets in `mask` the bits of the bytes in which two pages differ; returns how many.
pub fn differences(a: &Page, b: &Page, mask: &mut ByteMask) -> u32 {
    let mut count = 0;
    for (word, bits) in mask.iter_mut().enumerate() {
        *bits = 0;
        for bit in 0..64 {
            let at = word * 64 + bit;
            *bits |= u64::from(a[at] != b[at]) << bit;
        }
        count += bits.count_ones();
    }
    count
}

const _: () = assert!(PAGE_BYTES.is_multiple_of(64));
