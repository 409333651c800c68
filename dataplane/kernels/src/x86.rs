//! The kernels in AVX2 and SSE2 registers.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm256_cmpeq_epi8,
    _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_testz_si256, _mm256_xor_si256,
};

use crate::{ByteMask, Page, scalar};

/// Bytes read between two looks at the result.
const STEP: usize = 128;

/// Loads 32 bytes, wherever they begin.
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference is to 32 readable bytes, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

fn load_sse2(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 readable bytes, the load asks for no alignment, and every x86-64 has SSE2.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
pub(crate) fn is_zero_avx2(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    for step in steps {
        let vectors = step.as_chunks::<32>().0;
        let seen =
            vectors.iter().fold(_mm256_setzero_si256(), |seen, vector| _mm256_or_si256(seen, load(vector)));
        if _mm256_testz_si256(seen, seen) == 0 {
            return false;
        }
    }
    scalar::is_zero(rest)
}

#[target_feature(enable = "avx2")]
pub(crate) fn repeated_word_avx2(page: &Page) -> Option<[u8; 8]> {
    let word = *page.first_chunk()?;
    let all = _mm256_set1_epi64x(i64::from_ne_bytes(word));
    for step in page.as_chunks::<STEP>().0 {
        let vectors = step.as_chunks::<32>().0;
        let other = vectors.iter().fold(_mm256_setzero_si256(), |other, vector| {
            _mm256_or_si256(other, _mm256_xor_si256(load(vector), all))
        });
        if _mm256_testz_si256(other, other) == 0 {
            return None;
        }
    }
    Some(word)
}

#[target_feature(enable = "avx2")]
pub(crate) fn differences_avx2(a: &Page, b: &Page, mask: &mut ByteMask) -> u32 {
    let (a, b) = (a.as_chunks::<32>().0, b.as_chunks::<32>().0);
    let mut count = 0;
    for ((bits, a), b) in mask.iter_mut().zip(a.as_chunks::<2>().0).zip(b.as_chunks::<2>().0) {
        let equal = |i: usize| _mm256_movemask_epi8(_mm256_cmpeq_epi8(load(&a[i]), load(&b[i]))) as u32;
        *bits = !(u64::from(equal(0)) | u64::from(equal(1)) << 32);
        count += bits.count_ones();
    }
    count
}

pub(crate) fn differences_sse2(a: &Page, b: &Page, mask: &mut ByteMask) -> u32 {
    let (a, b) = (a.as_chunks::<16>().0, b.as_chunks::<16>().0);
    let mut count = 0;
    for ((bits, a), b) in mask.iter_mut().zip(a.as_chunks::<4>().0).zip(b.as_chunks::<4>().0) {
        let mut equal = 0;
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            // SAFETY: every x86-64 has SSE2.
            let same = unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(load_sse2(a), load_sse2(b))) };
            equal |= u64::from(same as u32) << (16 * i);
        }
        *bits = !equal;
        count += bits.count_ones();
    }
    count
}
