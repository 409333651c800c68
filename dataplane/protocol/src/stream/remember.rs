//! Memory that sessions of a process may spend on remembering what they carried, so that many of them together stay within it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory for remembering. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes: u64,
    reserved: AtomicU64,
}

impl MemoryBudget {
    /// `bytes` to be shared.
    pub fn new(bytes: u64) -> Self {
        MemoryBudget { shared: Arc::new(Shared { bytes, reserved: AtomicU64::new(0) }) }
    }

    /// As much as each session asks for.
    pub fn unshared() -> Self {
        Self::new(u64::MAX)
    }

    /// Bytes reserved by sessions.
    pub fn reserved(&self) -> u64 {
        self.shared.reserved.load(Ordering::Relaxed)
    }

    /// Reserves at most `wanted`, and at most half of what is left: a session that comes later finds some, too.
    pub fn reserve(&self, wanted: u64) -> Reservation {
        let mut bytes = 0;
        let share = |reserved: u64| wanted.min(self.shared.bytes.saturating_sub(reserved) / 2);
        // Another shard may reserve at the same time: what is reserved must never exceed the whole.
        let _ = self.shared.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserved| {
            bytes = share(reserved);
            reserved.checked_add(bytes)
        });
        Reservation { budget: self.clone(), bytes }
    }
}

/// What one session may spend; given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: u64,
}

impl Reservation {
    /// How much it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let given_back = self.bytes.saturating_sub(bytes);
        self.budget.shared.reserved.fetch_sub(given_back, Ordering::Relaxed);
        self.bytes -= given_back;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_exceed_the_budget_and_come_back() {
        let budget = MemoryBudget::new(1000);
        let mut first = budget.reserve(400);
        let second = budget.reserve(400);
        let third = budget.reserve(400);
        assert_eq!((first.bytes(), second.bytes(), third.bytes()), (400, 300, 150));
        assert_eq!(budget.reserved(), 850);
        first.shrink(100);
        first.shrink(200);
        assert_eq!((first.bytes(), budget.reserved()), (100, 550));
        drop((first, second, third));
        assert_eq!(budget.reserved(), 0);
        assert_eq!(MemoryBudget::unshared().reserve(1 << 40).bytes(), 1 << 40);
    }
}
