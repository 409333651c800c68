//! Which shard serves the next stream.
//!
//! Where packets are spread over processors, the shard on whose processor a stream's packets arrive; elsewhere, the shard that
//! serves the fewest. A hash puts several streams on one processor now and then: what that would give a shard beyond its share
//! goes to another, because a stream that waits for its turn costs more than one whose packets were touched elsewhere.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How many streams more than the least loaded shard one may serve because their packets arrive there.
const LEAD_MAX: usize = 1;

/// The streams of one shard's sessions, by the shard that serves them.
#[derive(Debug)]
pub(super) struct Placing {
    /// The shard whose sessions these are.
    own: usize,
    /// The processor of each shard; empty: the kernel moves them about.
    cpus: Vec<usize>,
    serves: Rc<RefCell<Vec<usize>>>,
    turns: Cell<usize>,
}

/// A stream that is served somewhere, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shard: usize,
    /// Whether that is where its packets arrive.
    pub(super) where_packets_arrive: bool,
    serves: Rc<RefCell<Vec<usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.serves.borrow_mut()[self.shard] -= 1;
    }
}

impl Placing {
    pub(super) fn new(own: usize, shards: usize, cpus: Vec<usize>) -> Placing {
        Placing {
            own,
            cpus,
            serves: Rc::new(RefCell::new(vec![0; shards.max(own + 1)])),
            turns: Cell::new(0),
        }
    }

    /// A place for one stream more. `incoming`: the processor on which its packets arrive, where that is known to last.
    pub(super) fn place(&self, incoming: Option<usize>) -> Place {
        let mut serves = self.serves.borrow_mut();
        let least = serves.iter().copied().min().unwrap_or(0);
        let there = incoming.and_then(|incoming| self.cpus.iter().position(|cpu| *cpu == incoming));
        let there =
            there.filter(|shard| serves.get(*shard).is_some_and(|serves| *serves <= least + LEAD_MAX));
        let shard = there.unwrap_or_else(|| {
            // Of equals, the others first, since this one has the sessions as well; and not always the same.
            let turn = self.turns.replace(self.turns.get().wrapping_add(1));
            let count = serves.len();
            let order = (0..count).map(|step| (self.own + 1 + turn % count + step) % count);
            order.min_by_key(|shard| serves[*shard]).unwrap_or(self.own)
        });
        serves[shard] += 1;
        Place { shard, where_packets_arrive: there.is_some(), serves: Rc::clone(&self.serves) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(places: &[Place]) -> Vec<usize> {
        places.iter().map(|place| place.shard).collect()
    }

    #[test]
    fn without_queues_shards_take_turns_and_those_that_lost_streams_come_first() {
        let placing = Placing::new(1, 3, vec![4, 5, 6]);
        let mut places: Vec<Place> = (0..6).map(|_| placing.place(None)).collect();
        assert_eq!(shards(&places), [2, 0, 1, 2, 0, 1]);
        places.retain(|place| place.shard != 0);
        let more: Vec<Place> = (0..2).map(|_| placing.place(None)).collect();
        assert_eq!(shards(&more), [0, 0]);
        assert!(more.iter().all(|place| !place.where_packets_arrive));
    }

    #[test]
    fn a_stream_goes_where_its_packets_arrive() {
        let placing = Placing::new(0, 2, vec![4, 7]);
        let places: Vec<Place> = [7, 4, 7, 4].map(|cpu| placing.place(Some(cpu))).into();
        assert_eq!(shards(&places), [1, 0, 1, 0]);
        assert!(places.iter().all(|place| place.where_packets_arrive));
    }

    #[test]
    fn a_hash_that_puts_everything_on_one_processor_does_not_load_one_shard() {
        let placing = Placing::new(0, 4, vec![0, 1, 2, 3]);
        let places: Vec<Place> = (0..16).map(|_| placing.place(Some(2))).collect();
        let served = |shard| places.iter().filter(|place| place.shard == shard).count();
        assert!((0..4).all(|shard| (3..=5).contains(&served(shard))), "{places:?}");
    }

    #[test]
    fn a_processor_without_a_shard_counts_as_none() {
        let placing = Placing::new(0, 2, vec![4, 5]);
        let places: Vec<Place> = (0..2).map(|_| placing.place(Some(9))).collect();
        assert_eq!(shards(&places), [1, 0]);
        assert!(places.iter().all(|place| !place.where_packets_arrive));
        let unpinned = Placing::new(0, 1, Vec::new());
        assert_eq!(unpinned.place(Some(0)).shard, 0);
    }
}
