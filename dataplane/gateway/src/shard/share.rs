//! A session's share of the memory for frames to send: a peer that verifies nothing must not take it from the others.

use crate::limits::{SEND_BYTES_MIN, SEND_SHARE};
use std::cell::Cell;
use std::rc::Rc;

/// What the sessions of a shard may keep unverified together.
pub(crate) struct SendMemory {
    bytes: u64,
    used: Cell<u64>,
}

impl SendMemory {
    pub(crate) fn new(bytes: u64) -> Rc<SendMemory> {
        Rc::new(SendMemory { bytes, used: Cell::new(0) })
    }
}

/// What one of them keeps.
pub(crate) struct Share {
    memory: Rc<SendMemory>,
    own: Cell<u64>,
}

impl Share {
    pub(crate) fn new(memory: Rc<SendMemory>) -> Share {
        Share { memory, own: Cell::new(0) }
    }

    /// The session keeps this much now.
    pub(crate) fn keeps(&self, bytes: u64) {
        let before = self.own.replace(bytes);
        self.memory.used.set(self.memory.used.get() + bytes - before);
    }

    /// Whether it keeps as much as it may: a part of what is left, so that who comes later finds something.
    pub(crate) fn is_spent(&self) -> bool {
        let left = self.memory.bytes.saturating_sub(self.memory.used.get());
        self.own.get() >= (left / SEND_SHARE).max(SEND_BYTES_MIN)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.keeps(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as much as it may, by the batch.
    fn fill(share: &Share) -> u64 {
        while !share.is_spent() {
            share.keeps(share.own.get() + 256 * 1024);
        }
        share.own.get()
    }

    #[test]
    fn sessions_whose_peers_hang_leave_the_next_a_share() {
        const MIB: u64 = 1 << 20;
        let memory = SendMemory::new(96 * MIB);
        let hung: Vec<_> = (0..3).map(|_| Share::new(Rc::clone(&memory))).collect();
        assert!((32 * MIB..33 * MIB).contains(&fill(&hung[0])), "a third, where there is no other");
        for share in &hung[1..] {
            fill(share);
        }
        let next = Share::new(Rc::clone(&memory));
        assert!(fill(&next) >= 9 * MIB);
        drop(hung);
        assert!(fill(&next) >= 32 * MIB, "what they held is there again");
        drop(next);
        assert_eq!(memory.used.get(), 0);
    }

    #[test]
    fn nobody_is_left_without() {
        let memory = SendMemory::new(SEND_BYTES_MIN);
        let all: Vec<_> = (0..64).map(|_| Share::new(Rc::clone(&memory))).collect();
        assert!(all.iter().all(|share| fill(share) >= SEND_BYTES_MIN));
    }
}
