//! What the page codec does to every byte of a guest: is a page zero, is it one word repeated, where do two versions of it
//! differ.
//!
//! Each kernel exists in vector registers, where the processor has them, and as a scalar twin that says the same; which one runs
//! is decided when it is called. Property tests compare the two on any input. Nothing here knows what a page means.

pub mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// A page.
pub type Page = [u8; PAGE_BYTES];

/// A bit for each byte of a page, from bit 0 of the first word.
pub type ByteMask = [u64; PAGE_BYTES / 64];

/// A mask of no byte.
pub const NO_BYTE: ByteMask = [0; PAGE_BYTES / 64];

/// Whether all of `bytes` are zero.
#[inline]
pub fn is_zero(bytes: &[u8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just asked.
        return unsafe { x86::is_zero_avx2(bytes) };
    }
    scalar::is_zero(bytes)
}

/// The word that the page repeats from its first byte to its last, in memory order; `None` where it holds anything else.
#[inline]
pub fn repeated_word(page: &Page) -> Option<[u8; 8]> {
    // Most pages show at once that they are none of these.
    if page[..8] != page[8..16] || page[..8] != page[PAGE_BYTES - 8..] {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just asked.
        return unsafe { x86::repeated_word_avx2(page) };
    }
    scalar::repeated_word(page)
}

/// Sets in `mask` the bits of the bytes in which two pages differ, and clears all others; returns how many are set.
#[inline]
pub fn differences(a: &Page, b: &Page, mask: &mut ByteMask) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as was just asked.
            return unsafe { x86::differences_avx2(a, b, mask) };
        }
        // SSE2 belongs to every x86-64 processor.
        x86::differences_sse2(a, b, mask)
    }
    #[cfg(not(target_arch = "x86_64"))]
    scalar::differences(a, b, mask)
}

#[cfg(test)]
mod tests;
