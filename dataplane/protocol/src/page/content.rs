//! Content that the far side has, whichever page, lane or session brought it there.
//!
//! ```text
//!  receiver   ContentStore   pages as they were verified, the first that came; its key is drawn at random and told to the sender
//!  sender     KnownContent   fingerprints of what was acknowledged as verified, as much as fits the store
//!  reference  fingerprint (finds the page)  +  keyed BLAKE3 of all of it (says whether it is the one)
//! ```
//!
//! A reference is a guess: the receiver may never have kept the page, or have given it up, and asks for it then (DWCP-77). A fingerprint costs
//! a twentieth of a digest and is made of every page that is carried whole; the full hash only of pages that are referred to. So
//! content that nobody has costs next to nothing.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;
use zeroize::Zeroize;

use crate::limits::{
    CONTENT_PAGE_BYTES, KNOWN_PAGES_MAX, KNOWN_STORES_MAX, PAGE_BYTES, REPAIRS_FREE, REPAIRS_SHARE,
};
use novacron_kernels::Page;

/// Bytes of a reference: fingerprint and hash.
pub(super) const REFERENCE_BYTES: usize = 8 + 32;

/// The key of a content store: without it, hashes and fingerprints of pages say nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey {
    key: [u8; 32],
    seed: u64,
}

impl ContentKey {
    /// A key from its bytes, which its store drew at random.
    pub fn new(key: [u8; 32]) -> Self {
        let derived = blake3::keyed_hash(&key, b"novacron content fingerprint");
        let seed = derived.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        ContentKey { key, seed }
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// What a page is found by. Pages may share one: it proves nothing.
    pub(super) fn fingerprint(&self, page: &Page) -> u64 {
        xxh3_64_with_seed(page, self.seed)
    }

    /// What a page is known by.
    pub(crate) fn hash(&self, page: &Page) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, page).as_bytes()
    }
}

/// Keys stay out of logs.
impl std::fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentKey(..)")
    }
}

/// Places that a fingerprint may stand at.
const WAYS: usize = 4;

/// What a sender believes that one store holds: the first that it was sent, as many as fit. Shards share it without a lock: what
/// gets lost between them costs a repair, or a page that is sent once more.
pub struct KnownContent {
    key: ContentKey,
    /// Pages that the store holds at most.
    pages: u64,
    /// Fingerprints; 0: none.
    places: Box<[AtomicU64]>,
    held: AtomicU64,
    referred: AtomicU64,
    repaired: AtomicU64,
}

impl KnownContent {
    /// Nothing is known yet of the store of this key, which spends `bytes` on pages.
    pub fn new(key: ContentKey, bytes: u64) -> Self {
        let pages = (bytes / CONTENT_PAGE_BYTES).min(KNOWN_PAGES_MAX);
        let places = (2 * pages as usize).next_power_of_two().max(WAYS);
        KnownContent {
            key,
            pages,
            places: (0..places).map(|_| AtomicU64::new(0)).collect(),
            held: AtomicU64::new(0),
            referred: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
        }
    }

    /// Where the fingerprint stands.
    fn place(&self, fingerprint: u64) -> Option<&AtomicU64> {
        self.ways(fingerprint).iter().find(|place| place.load(Ordering::Relaxed) == fingerprint)
    }

    fn ways(&self, fingerprint: u64) -> &[AtomicU64] {
        // Both are powers of two, and there is at least one set.
        let set = fingerprint as usize & (self.places.len() / WAYS - 1);
        &self.places[set * WAYS..][..WAYS]
    }

    /// The store has verified a page of this fingerprint.
    pub(crate) fn learn(&self, fingerprint: u64) {
        if self.held.load(Ordering::Relaxed) >= self.pages || self.place(fingerprint).is_some() {
            return;
        }
        let free = self.ways(fingerprint).iter().find(|place| place.load(Ordering::Relaxed) == 0);
        if let Some(place) = free {
            place.store(fingerprint, Ordering::Relaxed);
            self.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The store has not got it.
    pub(crate) fn forget(&self, fingerprint: u64) {
        self.repaired.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = self.place(fingerprint) {
            place.store(0, Ordering::Relaxed);
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether guesses have been good enough for another.
    fn may_refer(&self) -> bool {
        let referred = self.referred.load(Ordering::Relaxed);
        self.repaired.load(Ordering::Relaxed) <= REPAIRS_FREE + referred / REPAIRS_SHARE
    }

    /// The fingerprint of a page, and its hash if the store may hold it.
    pub(super) fn find(&self, page: &Page) -> (u64, Option<[u8; 32]>) {
        let fingerprint = self.key.fingerprint(page);
        if self.place(fingerprint).is_none() || !self.may_refer() {
            return (fingerprint, None);
        }
        self.referred.fetch_add(1, Ordering::Relaxed);
        (fingerprint, Some(self.key.hash(page)))
    }
}

/// Guest content stays out of logs.
impl std::fmt::Debug for KnownContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownContent").field("pages", &self.pages).finish_non_exhaustive()
    }
}

/// What is believed of stores, by their keys: of those of one tenant, as long as its sessions share this.
#[derive(Clone, Debug, Default)]
pub struct KnownStores {
    stores: Rc<RefCell<VecDeque<Arc<KnownContent>>>>,
}

impl KnownStores {
    /// What is known of the store of this key. A key that was drawn anew names another store, of which nothing is known.
    pub(crate) fn of(&self, key: ContentKey, bytes: u64) -> Arc<KnownContent> {
        let mut stores = self.stores.borrow_mut();
        if let Some(known) = stores.iter().find(|known| known.key == key) {
            return Arc::clone(known);
        }
        if stores.len() >= KNOWN_STORES_MAX {
            stores.pop_front();
        }
        let known = Arc::new(KnownContent::new(key, bytes));
        stores.push_back(Arc::clone(&known));
        known
    }
}

/// What a part refers to or carries whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentContent {
    /// Fingerprints of pages that are carried whole: the far side has them once the part is verified.
    pub carried: Vec<u64>,
    /// Pages of which only a reference is carried.
    pub referred: Vec<Referred>,
}

/// A page of which a part carries only a reference.
#[derive(Clone, PartialEq, Eq)]
pub struct Referred {
    /// Its place among the part's pages.
    pub place: u16,
    /// What it is found by.
    pub fingerprint: u64,
    /// Itself, in case that the far side has it not.
    pub page: Box<Page>,
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for Referred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Referred").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What a decoded part is about beside its bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedContent {
    /// Pages that came whole: place and fingerprint.
    pub whole: Vec<(u16, u64)>,
    /// Pages that are still to be put in.
    pub holes: Vec<Hole>,
}

/// A page of a part that stands in the content store, or is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Its place among the part's pages.
    pub place: u16,
    /// What it is found by.
    pub fingerprint: u64,
    /// What it is known by.
    pub hash: [u8; 32],
}

/// What a receiver has verified and holds: what came first, as much as fits. Guests are larger than stores and go over their memory in
/// order: if the newest took the place of the oldest, a second guest would find each page just given up.
pub struct ContentStore {
    key: ContentKey,
    bytes_max: u64,
    pages: Vec<Box<Page>>,
    /// Where the page of a fingerprint stands.
    index: HashMap<u64, u32>,
}

impl ContentStore {
    /// An empty store that spends at most `bytes`; nobody else must have its key.
    pub fn new(key: ContentKey, bytes: u64) -> Self {
        // Places are numbered in 32 bits.
        let bytes_max = bytes.min(u64::from(u32::MAX) * CONTENT_PAGE_BYTES);
        ContentStore { key, bytes_max, pages: Vec::new(), index: HashMap::new() }
    }

    /// Bytes held, tables included.
    fn bytes(&self) -> u64 {
        self.pages.len() as u64 * CONTENT_PAGE_BYTES
    }

    /// Keeps pages of verified `bodies`, by their places and fingerprints, as long as there is room.
    fn keep(&mut self, bodies: &[u8], whole: &[(u16, u64)]) {
        for (place, fingerprint) in whole {
            if self.bytes() + CONTENT_PAGE_BYTES > self.bytes_max {
                return;
            }
            let page = bodies.get(usize::from(*place) * PAGE_BYTES..).and_then(|rest| rest.first_chunk());
            if let (Some(page), Entry::Vacant(entry)) = (page, self.index.entry(*fingerprint)) {
                entry.insert(self.pages.len() as u32);
                self.pages.push(Box::new(*page));
            }
        }
    }

    /// The page that a reference means, if it is here.
    fn find(&self, hole: &Hole) -> Option<&Page> {
        let page = &**self.pages.get(*self.index.get(&hole.fingerprint)? as usize)?;
        (self.key.hash(page) == hole.hash).then_some(page)
    }

    fn give_up(&mut self) {
        // What guests held is gone, not only free.
        self.pages.iter_mut().for_each(|page| page.zeroize());
        (self.pages, self.index) = (Vec::new(), HashMap::new());
    }
}

/// What guests held is gone with the store.
impl Drop for ContentStore {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// A content store that the sessions of a shard share.
#[derive(Clone)]
pub struct ContentMemory {
    store: Rc<RefCell<ContentStore>>,
}

impl ContentMemory {
    /// Shares a store.
    pub fn new(store: ContentStore) -> Self {
        ContentMemory { store: Rc::new(RefCell::new(store)) }
    }

    /// Its key.
    pub fn key(&self) -> ContentKey {
        self.store.borrow().key.clone()
    }

    /// Bytes held, tables included, and the most that may be.
    pub fn bytes(&self) -> (u64, u64) {
        let store = self.store.borrow();
        (store.bytes(), store.bytes_max)
    }

    /// Whether a session besides the holder of this has it.
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.store) > 1
    }

    /// Gives up all that it holds. Who refers to it is asked for the pages.
    pub fn give_up(&self) {
        self.store.borrow_mut().give_up();
    }

    pub(crate) fn keep(&self, bodies: &[u8], whole: &[(u16, u64)]) {
        self.store.borrow_mut().keep(bodies, whole);
    }

    /// Puts into `bodies` what is here; returns what is not.
    pub(crate) fn fill(&self, holes: Vec<Hole>, bodies: &mut [u8]) -> Vec<Hole> {
        let store = self.store.borrow();
        holes
            .into_iter()
            .filter(|hole| !store.find(hole).is_some_and(|page| put(bodies, hole, page)))
            .collect()
    }
}

/// Puts a page into its place; false: there is none.
pub(crate) fn put(bodies: &mut [u8], hole: &Hole, page: &Page) -> bool {
    let place = bodies.get_mut(usize::from(hole.place) * PAGE_BYTES..);
    let Some(place) = place.and_then(|rest| rest.first_chunk_mut::<PAGE_BYTES>()) else { return false };
    *place = *page;
    true
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for ContentMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentMemory").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::tests::noise;
    use super::*;
    use proptest::prelude::*;

    fn key() -> ContentKey {
        ContentKey::new([7; 32])
    }

    fn page(seed: u64) -> Page {
        noise(seed, PAGE_BYTES).try_into().unwrap()
    }

    fn hole(page: &Page) -> Hole {
        Hole { place: 0, fingerprint: key().fingerprint(page), hash: key().hash(page) }
    }

    fn keep(store: &mut ContentStore, page: &Page) {
        let whole = [(0, store.key.fingerprint(page))];
        store.keep(page, &whole);
    }

    // DWCP-76
    #[test]
    fn a_page_is_found_by_its_fingerprint_and_believed_by_its_hash() {
        let mut store = ContentStore::new(key(), 1 << 20);
        let (ours, other) = (page(1), page(2));
        keep(&mut store, &ours);
        assert_eq!(store.find(&hole(&ours)), Some(&ours));
        assert_eq!(store.find(&hole(&other)), None);
        // A sketch that was made to collide: the fingerprint of what is here, the hash of something else.
        let collides = Hole { hash: hole(&other).hash, ..hole(&ours) };
        assert_eq!(store.find(&collides), None);
    }

    #[test]
    fn another_key_makes_other_hashes_and_fingerprints() {
        let (ours, theirs, page) = (key(), ContentKey::new([8; 32]), page(1));
        assert_ne!(ours.hash(&page), theirs.hash(&page));
        assert_ne!(ours.fingerprint(&page), theirs.fingerprint(&page));
        assert_ne!(ours.hash(&page), *blake3::hash(&page).as_bytes());
        assert_eq!(format!("{ours:?}"), "ContentKey(..)");
    }

    #[test]
    fn no_more_is_known_than_a_store_holds() {
        let known = KnownContent::new(key(), 100 * CONTENT_PAGE_BYTES);
        let pages: Vec<Page> = (1..=300).map(page).collect();
        for page in &pages {
            assert_eq!(known.find(page).1, None);
            known.learn(known.find(page).0);
        }
        let found = |pages: &[Page]| pages.iter().filter(|page| known.find(page).1.is_some()).count();
        let (first, later) = (found(&pages[..100]), found(&pages[100..]));
        // The table is half full: few fingerprints find no place.
        assert!(first >= 90 && first + later == 100, "{first} of the first hundred, {later} later ones");
        assert_eq!(known.find(&pages[0]).1, Some(key().hash(&pages[0])));
        known.forget(known.find(&pages[0]).0);
        assert_eq!(known.find(&pages[0]).1, None);
    }

    /// DWCP-77: a receiver that asks for everything is not referred to any more.
    #[test]
    fn bad_guesses_come_to_an_end() {
        let known = KnownContent::new(key(), 1000 * CONTENT_PAGE_BYTES);
        let page = page(1);
        let mut referred = 0u64;
        for _ in 0..100_000 {
            let (fingerprint, hash) = known.find(&page);
            known.learn(fingerprint);
            if hash.is_some() {
                referred += 1;
                known.forget(fingerprint);
                known.learn(fingerprint);
            }
        }
        assert!(referred <= REPAIRS_FREE * 2, "{referred}");
    }

    #[test]
    fn a_key_names_a_store() {
        let stores = KnownStores::default();
        let first = stores.of(key(), 1 << 20);
        assert!(Arc::ptr_eq(&first, &stores.of(key(), 1 << 20)));
        for other in 0..2 * KNOWN_STORES_MAX as u8 {
            stores.of(ContentKey::new([100 + other; 32]), 1 << 20);
        }
        assert!(stores.stores.borrow().len() <= KNOWN_STORES_MAX);
        // A peer that says it has an exabyte does not make this side spend more than it may.
        let boasts = stores.of(ContentKey::new([1; 32]), u64::MAX);
        assert!(boasts.places.len() as u64 <= 4 * KNOWN_PAGES_MAX);
    }

    proptest! {
        /// DWCP-75: a store holds what came first, and never more than its bytes.
        #[test]
        fn a_store_stays_within_its_bytes(
            pages_max in 0u64..40,
            parts in prop::collection::vec(prop::collection::vec((0u64..60, any::<bool>()), 1..12), 1..40),
        ) {
            let bytes = pages_max * CONTENT_PAGE_BYTES;
            let mut store = ContentStore::new(key(), bytes);
            let mut expected: Vec<u64> = Vec::new();
            for pages in parts {
                let bodies: Vec<u8> = pages.iter().flat_map(|(seed, _)| page(*seed)).collect();
                let kept = (0u16..).zip(&pages).filter(|(_, (_, kept))| *kept);
                let whole: Vec<(u16, u64)> =
                    kept.map(|(place, (seed, _))| (place, store.key.fingerprint(&page(*seed)))).collect();
                for (seed, _) in pages.iter().filter(|(_, kept)| *kept) {
                    if !expected.contains(seed) && (expected.len() as u64) < pages_max {
                        expected.push(*seed);
                    }
                }
                store.keep(&bodies, &whole);
                prop_assert!(store.bytes() <= bytes);
                prop_assert_eq!(store.pages.len(), expected.len());
            }
            for seed in 0..60 {
                let page = page(seed);
                prop_assert_eq!(store.find(&hole(&page)).is_some(), expected.contains(&seed));
            }
            store.give_up();
            prop_assert!(store.bytes() == 0 && store.find(&hole(&page(0))).is_none());
        }
    }
}
