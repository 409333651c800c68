//! Content stores of this shard: of each tenant and peer one, for as long as a session of theirs runs, and longer where it was asked for.

use crate::limits::CONTENT_STORES_MAX;
use novacron_protocol::limits::CONTENT_PAGE_BYTES;
use novacron_protocol::page::{ContentKey, ContentMemory, ContentStore, KnownStores};
use novacron_protocol::session::SessionConfig;
use novacron_protocol::stream::{MemoryBudget, Reservation};
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// In whose name, and with which peer.
type Whose = (String, String);

struct Kept {
    store: ContentMemory,
    _memory: Reservation,
    /// Since when no session has had it.
    idle_since: Option<Instant>,
}

/// What this shard's destinations keep, and what its sources know of others' stores.
pub(super) struct Contents {
    memory: MemoryBudget,
    keep: Duration,
    stores: RefCell<HashMap<Whose, Kept>>,
    /// By tenant.
    known: RefCell<HashMap<String, KnownStores>>,
}

impl Contents {
    /// Stores of so much memory together; each is kept for so long after its last session.
    pub(super) fn new(memory: MemoryBudget, keep: Duration) -> Self {
        Contents { memory, keep, stores: RefCell::default(), known: RefCell::default() }
    }

    /// A source's session may refer to what this tenant's sessions have sent.
    pub(super) fn for_source(&self, tenant: &str, config: SessionConfig) -> SessionConfig {
        let mut known = self.known.borrow_mut();
        if !known.contains_key(tenant) && known.len() >= CONTENT_STORES_MAX {
            // Whoever still uses them has them; the others begin anew.
            known.clear();
        }
        SessionConfig { known_stores: known.entry(tenant.to_owned()).or_default().clone(), ..config }
    }

    /// A destination's session keeps what it verifies, beside what others of this tenant with this peer do.
    pub(super) fn for_destination(&self, tenant: &str, peer: &str, config: SessionConfig) -> SessionConfig {
        self.sweep();
        let whose = (tenant.to_owned(), peer.to_owned());
        let mut stores = self.stores.borrow_mut();
        if !stores.contains_key(&whose) && stores.len() < CONTENT_STORES_MAX {
            let memory = self.memory.reserve(u64::MAX);
            let mut key = [0; 32];
            // Without random bytes there is no secret key, and so no store.
            if memory.bytes() >= CONTENT_PAGE_BYTES && getrandom::fill(&mut key).is_ok() {
                let store = ContentMemory::new(ContentStore::new(ContentKey::new(key), memory.bytes()));
                stores.insert(whose.clone(), Kept { store, _memory: memory, idle_since: None });
            }
        }
        let kept = stores.get_mut(&whose);
        let content_store = kept.map(|kept| {
            kept.idle_since = None;
            kept.store.clone()
        });
        SessionConfig { content_store, ..config }
    }

    /// A peer is not believed any more: what it brought is given up.
    pub(super) fn give_up(&self, peer: &str) {
        let stores = self.stores.borrow();
        let theirs = stores.iter().filter(|((_, of), _)| of == peer);
        theirs.for_each(|(_, kept)| kept.store.give_up());
    }

    /// A session has ended: gives up what nobody has any more and was kept for long enough. When to look again.
    pub(super) fn sweep(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut stores = self.stores.borrow_mut();
        stores.retain(|_, kept| {
            if kept.store.is_shared() {
                return true;
            }
            let since = *kept.idle_since.get_or_insert(now);
            now.duration_since(since) < self.keep
        });
        stores.values().any(|kept| kept.idle_since.is_some()).then_some(self.keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_protocol::session::{Role, Token};

    fn config() -> SessionConfig {
        SessionConfig::new(Role::Destination, 1, Token::new([1; 32]))
    }

    fn contents(keep: Duration) -> Contents {
        Contents::new(MemoryBudget::new(1 << 20), keep)
    }

    #[test]
    fn a_store_is_of_one_tenant_and_one_peer() {
        let contents = contents(Duration::ZERO);
        let key = |tenant, peer| {
            let config = contents.for_destination(tenant, peer, config());
            let key = config.content_store.as_ref().unwrap().key();
            (key, config)
        };
        let (ours, _one) = key("red", "a");
        let (again, _two) = key("red", "a");
        let (tenant, _three) = key("blue", "a");
        let (peer, _four) = key("red", "b");
        assert!(ours == again && ours != tenant && ours != peer && tenant != peer);
    }

    #[test]
    fn a_store_ends_with_its_last_session_unless_it_is_kept() {
        for keep in [Duration::ZERO, Duration::from_secs(3600)] {
            let contents = contents(keep);
            let [one, two] = [0, 1].map(|_| contents.for_destination("red", "a", config()));
            drop(one);
            assert_eq!(contents.sweep(), None, "another has it");
            assert!(contents.memory.reserved() > 0);
            drop(two);
            assert_eq!(contents.sweep(), (keep > Duration::ZERO).then_some(keep));
            assert_eq!(contents.memory.reserved() > 0, keep > Duration::ZERO);
        }
    }

    #[test]
    fn stores_never_take_more_than_there_is() {
        let contents = contents(Duration::ZERO);
        let held: Vec<SessionConfig> =
            (0..1000).map(|peer| contents.for_destination("red", &peer.to_string(), config())).collect();
        let bytes: u64 =
            held.iter().filter_map(|c| c.content_store.as_ref()).map(|store| store.bytes().1).sum();
        assert!(bytes <= 1 << 20 && contents.stores.borrow().len() <= CONTENT_STORES_MAX);
        let none = Contents::new(MemoryBudget::new(0), Duration::ZERO);
        assert!(none.for_destination("red", "a", config()).content_store.is_none());
    }
}
