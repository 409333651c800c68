//! Is a page all zeros?

/// Bytes read between two looks at the result: few enough that a page with content is left early, enough that
/// the compiler fills vector registers.
const STEP: usize = 256;

/// Whether all of `bytes` are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    for step in steps {
        let mut seen = 0u64;
        for word in step.as_chunks::<8>().0 {
            seen |= u64::from_ne_bytes(*word);
        }
        if seen != 0 {
            return false;
        }
    }
    rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_seen() {
        for len in [0, 1, 7, 255, 256, 257, 4096, 4099] {
            let mut page = vec![0u8; len];
            assert!(is_zero(&page));
            for at in 0..len {
                page[at] = 1 << (at % 8);
                assert!(!is_zero(&page), "bit in byte {at} of {len}");
                page[at] = 0;
            }
        }
    }
}
