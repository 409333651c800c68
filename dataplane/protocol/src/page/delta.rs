//! A sparse difference: where a page differs from its last version, and what stands there now.
//!
//! XBZRLE (QEMU, `migration/xbzrle.c`) sends the same. Here positions and bytes stand apart, so that the positions of one page are
//! compressed with those of the next.

use super::ops::{OpError, put, take};
use crate::limits::PAGE_BYTES;
use novacron_kernels::{ByteMask, Page};

/// Runs as close as this are one: a position costs at least two bytes.
const GAP_MIN: usize = 4;

/// A difference that takes more than this is no gain over the page compressed with its neighbours. What a program writes often does
/// not compress, so even most of a page is: at half a page, a Redis stream of re-sends took 2 % more and no other stream less.
const DELTA_BYTES_MAX: usize = PAGE_BYTES * 7 / 8;

/// Runs of bytes.
#[derive(Default)]
pub(super) struct Runs {
    runs: Vec<(u16, u16)>,
    bytes: usize,
}

impl Runs {
    /// The runs that a mask sets; false: a difference would not pay.
    pub(super) fn find(&mut self, mask: &ByteMask) -> bool {
        self.runs.clear();
        self.bytes = 0;
        let mut at = next(mask, 0, true);
        while at < PAGE_BYTES {
            let mut end = next(mask, at, false);
            let following = loop {
                let following = next(mask, end, true);
                if following >= PAGE_BYTES || following - end > GAP_MIN {
                    break following;
                }
                end = next(mask, following, false);
            };
            self.runs.push((at as u16, (end - at) as u16));
            self.bytes += end - at;
            if self.bytes + 3 * self.runs.len() > DELTA_BYTES_MAX {
                return false;
            }
            at = following;
        }
        true
    }

    /// Appends the positions to `positions` and what `page` holds there to `bytes`, and brings `last` up to date.
    pub(super) fn write(&self, page: &Page, last: &mut Page, positions: &mut Vec<u8>, bytes: &mut Vec<u8>) {
        put(positions, self.runs.len() as u64);
        let mut expected = 0;
        for (at, len) in self.runs.iter().map(|(at, len)| (usize::from(*at), usize::from(*len))) {
            put(positions, (at - expected) as u64);
            put(positions, len as u64);
            let run = &page[at..at + len];
            bytes.extend_from_slice(run);
            last[at..at + len].copy_from_slice(run);
            expected = at + len;
        }
    }
}

/// The first bit from `from` on that is `set`; the page's length where there is none.
fn next(mask: &ByteMask, from: usize, set: bool) -> usize {
    if from >= PAGE_BYTES {
        return PAGE_BYTES;
    }
    let flip = if set { 0 } else { u64::MAX };
    let mut word = from / 64;
    let mut bits = (mask[word] ^ flip) & (u64::MAX << (from % 64));
    while bits == 0 {
        word += 1;
        match mask.get(word) {
            Some(next) => bits = next ^ flip,
            None => return PAGE_BYTES,
        }
    }
    word * 64 + bits.trailing_zeros() as usize
}

/// Why a difference cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeltaError {
    /// The positions are cut or no numbers.
    Position(OpError),
    /// A run leaves the page, or is empty.
    Run,
    /// Bytes are missing.
    Bytes,
}

/// Brings `last` up to date by the positions and bytes that stand in front of `positions` and `bytes`.
pub(super) fn apply(last: &mut Page, positions: &mut &[u8], bytes: &mut &[u8]) -> Result<(), DeltaError> {
    let runs = take(positions).map_err(DeltaError::Position)?;
    let mut at = 0usize;
    for _ in 0..runs {
        let gap = take(positions).map_err(DeltaError::Position)?;
        let len = take(positions).map_err(DeltaError::Position)?;
        if len == 0 || gap > PAGE_BYTES as u64 || len > PAGE_BYTES as u64 {
            return Err(DeltaError::Run);
        }
        at += gap as usize;
        let target = last.get_mut(at..at + len as usize).ok_or(DeltaError::Run)?;
        let (run, rest) = bytes.split_at_checked(len as usize).ok_or(DeltaError::Bytes)?;
        target.copy_from_slice(run);
        *bytes = rest;
        at += len as usize;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_kernels::{NO_BYTE, differences};
    use proptest::prelude::*;

    /// Writes the difference and applies it; how many bytes it took.
    fn back(last: &Page, page: &Page) -> Option<usize> {
        let (mut mask, mut runs) = (NO_BYTE, Runs::default());
        differences(last, page, &mut mask);
        if !runs.find(&mask) {
            return None;
        }
        let (mut ours, mut theirs) = (*last, *last);
        let (mut positions, mut bytes) = (Vec::new(), Vec::new());
        runs.write(page, &mut ours, &mut positions, &mut bytes);
        assert!(ours == *page);
        let taken = positions.len() + bytes.len();
        let (mut positions, mut bytes) = (&positions[..], &bytes[..]);
        apply(&mut theirs, &mut positions, &mut bytes).unwrap();
        assert!(theirs == *page && positions.is_empty() && bytes.is_empty());
        Some(taken)
    }

    #[test]
    fn edges_of_a_page_come_back() {
        let last = [7; PAGE_BYTES];
        for at in [0, 1, 63, 64, 127, PAGE_BYTES - 2, PAGE_BYTES - 1] {
            let mut page = last;
            page[at] = 0;
            assert!(back(&last, &page).unwrap() <= 5);
        }
        assert_eq!(back(&last, &last), Some(1));
        assert_eq!(back(&last, &[8; PAGE_BYTES]), None, "all of it differs");
    }

    #[test]
    fn close_runs_are_one() {
        let last = [0; PAGE_BYTES];
        let mut page = last;
        page[100] = 1;
        page[105] = 1;
        assert_eq!(back(&last, &page), Some(1 + 2 + 6));
        page[105] = 0;
        page[106] = 1;
        assert_eq!(back(&last, &page), Some(1 + 2 + 2 + 2));
    }

    // DWCP-73
    #[test]
    fn what_leaves_the_page_is_refused() {
        let refused = |positions: &[u8], bytes: &[u8]| {
            let (mut positions, mut bytes) = (positions, bytes);
            apply(&mut [0; PAGE_BYTES], &mut positions, &mut bytes).unwrap_err()
        };
        assert_eq!(refused(&[], &[]), DeltaError::Position(OpError::Cut));
        assert_eq!(refused(&[1, 0], &[]), DeltaError::Position(OpError::Cut));
        assert_eq!(refused(&[1, 0, 0], &[]), DeltaError::Run);
        assert_eq!(refused(&[1, 0x80, 0x20, 1], &[1]), DeltaError::Run);
        assert_eq!(refused(&[1, 0xff, 0x1f, 2], &[1, 1]), DeltaError::Run);
        assert_eq!(refused(&[1, 0, 2], &[1]), DeltaError::Bytes);
        // A number of runs without end costs no more than its positions hold.
        let endless = [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..], &[0, 1]].concat();
        assert_eq!(refused(&endless, &[1]), DeltaError::Position(OpError::Cut));
    }

    proptest! {
        #[test]
        fn any_difference_comes_back(
            fill: u8,
            changes in proptest::collection::vec((0..PAGE_BYTES, 1usize..64, any::<u8>()), 0..60),
        ) {
            let last = [fill; PAGE_BYTES];
            let mut page = last;
            for (at, len, byte) in changes {
                let end = (at + len).min(PAGE_BYTES);
                page[at..end].fill(byte);
            }
            if let Some(taken) = back(&last, &page) {
                prop_assert!(taken <= PAGE_BYTES / 2 + 8);
            }
        }
    }
}
