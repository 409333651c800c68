use super::*;
use proptest::prelude::*;

/// A page of `fill`, changed in places.
fn page(fill: [u8; 8], changes: &[(usize, u8)]) -> Page {
    let mut page = [0; PAGE_BYTES];
    page.as_chunks_mut::<8>().0.fill(fill);
    for (at, byte) in changes {
        page[at % PAGE_BYTES] = *byte;
    }
    page
}

/// Every form of a comparison that this processor can run.
fn all_differences(a: &Page, b: &Page) -> Vec<(u32, ByteMask)> {
    let mut found = Vec::new();
    let mut run = |kernel: &dyn Fn(&Page, &Page, &mut ByteMask) -> u32| {
        // What stood in the mask before must not matter.
        let mut mask = [0x5555_5555_5555_5555; PAGE_BYTES / 64];
        let count = kernel(a, b, &mut mask);
        found.push((count, mask));
    };
    run(&scalar::differences);
    run(&differences);
    #[cfg(target_arch = "x86_64")]
    {
        run(&x86::differences_sse2);
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as was just asked.
            run(&|a, b, mask| unsafe { x86::differences_avx2(a, b, mask) });
        }
    }
    found
}

#[test]
fn one_bit_anywhere_is_seen() {
    let mut bytes = vec![0u8; PAGE_BYTES + 3];
    for len in [0, 1, 7, 127, 128, 129, 255, 256, 257, PAGE_BYTES, PAGE_BYTES + 3] {
        assert!(is_zero(&bytes[..len]) && scalar::is_zero(&bytes[..len]));
        for at in 0..len {
            bytes[at] = 1 << (at % 8);
            assert!(!is_zero(&bytes[..len]) && !scalar::is_zero(&bytes[..len]), "byte {at} of {len}");
            bytes[at] = 0;
        }
    }
}

#[test]
fn one_byte_anywhere_is_the_difference() {
    let a = page(*b"12345678", &[]);
    for at in 0..PAGE_BYTES {
        let b = page(*b"12345678", &[(at, 0)]);
        for (count, mask) in all_differences(&a, &b) {
            assert_eq!((count, mask[at / 64]), (1, 1 << (at % 64)), "byte {at}");
        }
        assert_eq!(repeated_word(&b), None, "byte {at}");
        assert_eq!(scalar::repeated_word(&b), None, "byte {at}");
    }
    assert_eq!(repeated_word(&a), Some(*b"12345678"));
    assert!(all_differences(&a, &a).iter().all(|found| *found == (0, NO_BYTE)));
}

proptest! {
    #[test]
    fn every_form_says_the_same(
        fill: [u8; 8],
        other: [u8; 8],
        same_fill: bool,
        left in proptest::collection::vec((0..PAGE_BYTES, any::<u8>()), 0..40),
        right in proptest::collection::vec((0..PAGE_BYTES, any::<u8>()), 0..40),
    ) {
        let a = page(fill, &left);
        let b = page(if same_fill { fill } else { other }, &right);
        let found = all_differences(&a, &b);
        prop_assert!(found.iter().all(|one| *one == found[0]));
        let expected = (0..PAGE_BYTES).filter(|at| a[*at] != b[*at]).count();
        prop_assert_eq!(found[0].0 as usize, expected);
        prop_assert_eq!(repeated_word(&a), scalar::repeated_word(&a));
    }

    #[test]
    fn zero_is_said_alike(len in 0usize..600, changes in proptest::collection::vec((0usize..600, any::<u8>()), 0..3)) {
        let mut bytes = vec![0; len];
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        prop_assert_eq!(is_zero(&bytes), bytes.iter().all(|byte| *byte == 0));
        prop_assert_eq!(scalar::is_zero(&bytes), is_zero(&bytes));
    }
}
