//! The last version of each page of a lane, within a number of pages.
//!
//! Both sides of a session keep one for each lane, and hear of the same pages in the same order: that of the lane's parts. What is
//! given up for a new page therefore depends on that order and nothing else, so that both hold the same without a word about
//! it.
//!
//! Migrations go over memory in passes, which is the worst for a store that gives up what was used longest ago: where a pass is
//! larger than the store, it finds nothing at all. So pages are counted whenever they are sent, kept or not, and a new one takes
//! the place of another only if it was sent more often ("TinyLFU": Einziger, Friedman and Manes, ACM ToS 13-4). The other is the
//! least counted of a few places drawn by a generator that both sides start alike.

use std::collections::HashMap;

use crate::limits::{MEMORY_PAGE_BYTES, PAGE_BYTES};
use novacron_kernels::Page;

/// Pages of one allocation: memory grows with what is kept, and never moves.
const CHUNK_PAGES: usize = 64;

/// Places that are drawn for each page given up.
const DRAWN: usize = 4;

/// What the generator starts from, and what spreads page numbers over the counters: 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Counters for each page that may be kept, rounded up to a power of two: pages that share one are few.
const COUNTERS_PER_PAGE: usize = 4;

/// Pages sent for each counter before all of them forget half: what was hot once does not stay for ever.
const FORGET_AFTER: usize = 4;

/// Bytes of a place and its counters beside its page and its entry in the index.
const PLACE_BYTES: usize = size_of::<u64>() + 2 * COUNTERS_PER_PAGE;

/// Last versions of pages, by number.
pub(super) struct PageStore {
    pages_max: usize,
    /// Where the page of that number stands. Nobody goes over it in its own order, so its keys may be secret.
    index: HashMap<u64, u32>,
    /// The page at each place.
    places: Vec<u64>,
    chunks: Vec<Box<[u8]>>,
    /// How often pages were sent, by what their numbers are spread to.
    counters: Vec<u8>,
    /// Pages sent since counters last forgot.
    counted: usize,
    drawn: u64,
}

impl PageStore {
    /// An empty store of at most `pages_max` pages; it takes memory as they come.
    pub(super) fn new(pages_max: u32) -> Self {
        Self {
            pages_max: pages_max as usize,
            index: HashMap::new(),
            places: Vec::new(),
            chunks: Vec::new(),
            counters: Vec::new(),
            counted: 0,
            drawn: GOLDEN,
        }
    }

    /// A page is being sent. Its last version, if that is kept; what is done to it both sides must do.
    pub(super) fn sent(&mut self, page: u64) -> Option<&mut Page> {
        self.count(page);
        self.last(page)
    }

    /// Its last version, of a page that was counted already.
    pub(super) fn last(&mut self, page: u64) -> Option<&mut Page> {
        let at = *self.index.get(&page)? as usize;
        Some(self.body(at))
    }

    /// Keeps a page of which [`PageStore::sent`] had no version, if there is room or it is sent more often than another.
    pub(super) fn keep(&mut self, page: u64, body: &Page) {
        let at = if self.places.len() < self.pages_max {
            let at = self.places.len();
            if at == self.chunks.len() * CHUNK_PAGES {
                let pages = CHUNK_PAGES.min(self.pages_max - at);
                self.chunks.push(vec![0; pages * PAGE_BYTES].into_boxed_slice());
            }
            self.places.push(page);
            at
        } else {
            let drawn: [usize; DRAWN] = std::array::from_fn(|_| self.draw());
            let mut least = drawn[0];
            for at in drawn {
                if self.counter(self.places[at]) < self.counter(self.places[least]) {
                    least = at;
                }
            }
            if self.counter(page) <= self.counter(self.places[least]) {
                return;
            }
            self.index.remove(&self.places[least]);
            self.places[least] = page;
            least
        };
        // Places are numbered in 32 bits, as `pages_max` was.
        self.index.insert(page, at as u32);
        *self.body(at) = *body;
    }

    fn count(&mut self, page: u64) {
        if self.counters.is_empty() {
            self.counters = vec![0; (self.pages_max * COUNTERS_PER_PAGE).next_power_of_two()];
        }
        let at = self.counter_at(page);
        self.counters[at] = self.counters[at].saturating_add(1);
        self.counted += 1;
        if self.counted >= self.counters.len() * FORGET_AFTER {
            self.counted = 0;
            self.counters.iter_mut().for_each(|counter| *counter /= 2);
        }
    }

    fn counter(&self, page: u64) -> u8 {
        self.counters.get(self.counter_at(page)).copied().unwrap_or(0)
    }

    fn counter_at(&self, page: u64) -> usize {
        // The top half times a number of counters that 32 bits hold, over 2^32: below that number.
        let spread = page.wrapping_mul(GOLDEN) >> 32;
        ((spread * self.counters.len() as u64) >> 32) as usize
    }

    /// A place, by xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators").
    fn draw(&mut self) -> usize {
        self.drawn ^= self.drawn >> 12;
        self.drawn ^= self.drawn << 25;
        self.drawn ^= self.drawn >> 27;
        let high = self.drawn.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // Below the number of places, which 32 bits count.
        ((high * self.places.len() as u64) >> 32) as usize
    }

    fn body(&mut self, at: usize) -> &mut Page {
        let chunk = &mut self.chunks[at / CHUNK_PAGES];
        // Each chunk is whole pages, and places are numbered within them.
        &mut chunk.as_chunks_mut::<PAGE_BYTES>().0[at % CHUNK_PAGES]
    }

    /// Pages kept.
    pub(super) fn pages(&self) -> usize {
        self.places.len()
    }

    /// Bytes taken, tables included.
    pub(super) fn held_bytes(&self) -> u64 {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        // hashbrown: entries of a power of two of buckets, of which seven in eight are used, and a byte of control each.
        let buckets = (self.index.capacity() * 8).div_ceil(7);
        let index = buckets * (size_of::<(u64, u32)>() + 1);
        (chunks + self.places.capacity() * size_of::<u64>() + self.counters.len() + index) as u64
    }
}

const _: () = {
    assert!(DRAWN > 0);
    // Growing doubles tables: twice what is used, and the old beside the new.
    assert!(MEMORY_PAGE_BYTES as usize >= PAGE_BYTES + 2 * PLACE_BYTES + 3 * (size_of::<(u64, u32)>() + 1));
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(fill: u8) -> Page {
        [fill; PAGE_BYTES]
    }

    /// A page is sent, as an encoder or a decoder does it.
    fn send(store: &mut PageStore, number: u64, body: &Page) -> bool {
        match store.sent(number) {
            Some(kept) => {
                *kept = *body;
                true
            }
            None => {
                store.keep(number, body);
                false
            }
        }
    }

    #[test]
    fn the_last_version_is_there() {
        let mut store = PageStore::new(3);
        assert!(store.sent(7).is_none());
        store.keep(7, &page(1));
        assert_eq!(store.sent(7), Some(&mut page(1)));
        *store.sent(7).unwrap() = page(2);
        assert_eq!(store.sent(7), Some(&mut page(2)));
    }

    #[test]
    fn a_pass_larger_than_the_store_still_finds_some_of_it() {
        let mut store = PageStore::new(250);
        let mut found = 0;
        for _ in 0..20 {
            found += (0..1000).filter(|number| send(&mut store, *number, &page(1))).count();
        }
        // A store of the least recently used would find none. The best there is keeps a quarter.
        assert!(found > 20 * 1000 / 8, "{found} of 20000");
    }

    #[test]
    fn what_is_sent_again_outlives_what_was_sent_once() {
        let mut store = PageStore::new(100);
        for pass in 0..50 {
            (0..20).for_each(|number| {
                send(&mut store, number, &page(1));
            });
            (0..100).for_each(|number| {
                send(&mut store, 1000 + pass * 100 + number, &page(2));
            });
        }
        let kept = (0..20).filter(|number| store.sent(*number).is_some()).count();
        assert!(kept >= 19, "{kept} of 20");
    }

    proptest! {
        /// Two stores that hear the same agree, whatever they hear, and stay within their bound.
        // DWCP-72
        #[test]
        fn two_stores_that_hear_the_same_hold_the_same(
            pages_max in 1u32..40,
            sent in proptest::collection::vec((0u64..60, any::<u8>()), 0..400),
        ) {
            let (mut a, mut b) = (PageStore::new(pages_max), PageStore::new(pages_max));
            for (number, fill) in &sent {
                prop_assert_eq!(send(&mut a, *number, &page(*fill)), send(&mut b, *number, &page(*fill)));
                prop_assert!(a.pages() <= pages_max as usize);
                prop_assert!(a.held_bytes() <= u64::from(pages_max) * MEMORY_PAGE_BYTES + 256);
            }
            for number in 0..60 {
                prop_assert_eq!(a.sent(number), b.sent(number));
            }
        }
    }
}
