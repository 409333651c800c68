//! Memory that receivers promise to their peers, shared by the sessions of a process, so that who does not read cannot
//! take it from who does.
//!
//! A connection's promise begins small, grows fourfold each time that its hypervisor took an eighth of it, and never exceeds half of
//! what is left: `n` connections that take no more leave a share of `1 / (n + 1)` to the next (Choudhury and Hahne,
//! "Dynamic queue length thresholds", IEEE/ACM ToN 6-2). The least is always there (DWCP-47). What was promised once is
//! never taken back; it is used up.

use crate::limits::{PROMISE_BYTES_FIRST, PROMISE_BYTES_MIN};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of what is left, a new connection is promised one part in this many.
const FIRST_SHARE: u64 = 64;
/// A promise grows so many times each time that a part of it was taken: streams that begin slowly double what they carry in each round
/// trip, and what they carried is taken one or two later.
const GROWTH: u64 = 4;
/// That part. Less is a word or two, and says nothing of a hypervisor that reads; with half of it promises held a long path up
/// for a third of its first 1.4 s, in a trace.
const GROWS_AFTER: u64 = 8;

/// Memory for what peers may send. Clones share it.
#[derive(Clone, Debug)]
pub struct ReceiveMemory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `None`: every connection may have its whole window.
    bytes: Option<u64>,
    promised: AtomicU64,
}

impl ReceiveMemory {
    /// `bytes` to be shared. Each connection gets [`PROMISE_BYTES_MIN`] even when they are spent, lest it stop for ever.
    pub fn new(bytes: u64) -> Self {
        Self::of(Some(bytes))
    }

    /// Memory without a common bound: windows alone hold.
    pub fn unshared() -> Self {
        Self::of(None)
    }

    fn of(bytes: Option<u64>) -> Self {
        ReceiveMemory { shared: Arc::new(Shared { bytes, promised: AtomicU64::new(0) }) }
    }

    /// Bytes promised and not taken by a hypervisor yet.
    pub fn promised(&self) -> u64 {
        // A count that is a moment old makes one promise a little larger or smaller.
        self.shared.promised.load(Ordering::Relaxed)
    }

    /// What each new connection of a session is promised to begin with, of a window of `window` bytes.
    pub(crate) fn first(&self, window: u64) -> u64 {
        match self.shared.bytes {
            None => window,
            Some(bytes) => {
                let left = bytes.saturating_sub(self.promised());
                (left / FIRST_SHARE).clamp(PROMISE_BYTES_MIN, PROMISE_BYTES_FIRST).min(window)
            }
        }
    }

    /// The most that a connection may be promised which has `own` bytes promised now.
    fn most(&self, own: u64, window: u64) -> u64 {
        match self.shared.bytes {
            None => window,
            Some(bytes) => (bytes.saturating_sub(self.promised().saturating_sub(own)) / 2).min(window),
        }
    }

    fn take(&self, bytes: u64) {
        self.shared.promised.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        self.shared.promised.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one connection's sender has been promised.
#[derive(Debug)]
pub(super) struct Promise {
    memory: ReceiveMemory,
    window: u64,
    first: u64,
    /// How far ahead of its hypervisor the sender may be, as far as this promise goes.
    reach: u64,
    /// Position up to which the sender may send.
    limit: u64,
    consumed: u64,
    /// Where the hypervisor has to be for the reach to grow.
    grows_at: u64,
}

impl Promise {
    /// The first of a connection: the sender may send `first` bytes.
    pub(super) fn new(memory: ReceiveMemory, first: u64, window: u64) -> Self {
        memory.take(first);
        Promise {
            memory,
            window,
            first,
            reach: first,
            limit: first,
            consumed: 0,
            grows_at: first / GROWS_AFTER,
        }
    }

    /// Position up to which the sender may send, as it was last told.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that may be under way or wait here.
    pub(super) fn outstanding(&self) -> u64 {
        self.limit - self.consumed
    }

    /// The hypervisor has taken everything before `consumed`.
    pub(super) fn consumed(&mut self, consumed: u64) {
        let consumed = consumed.min(self.limit);
        self.memory.give_back(consumed - self.consumed);
        self.consumed = consumed;
    }

    /// Promises anew, before the sender is told how the connection stands. Returns the limit.
    pub(super) fn renew(&mut self) -> u64 {
        if self.consumed >= self.grows_at {
            self.reach = self.reach.saturating_mul(GROWTH);
            self.grows_at = self.consumed.saturating_add(self.reach / GROWS_AFTER);
        }
        let most = self.memory.most(self.outstanding(), self.window).max(self.first);
        self.reach = self.reach.min(most);
        let limit = self.limit.max(self.consumed.saturating_add(self.reach));
        self.memory.take(limit - self.limit);
        self.limit = limit;
        limit
    }

    /// The sender sends nothing beyond `end`: the rest of its promise is free again.
    pub(super) fn end_at(&mut self, end: u64) {
        let end = end.clamp(self.consumed, self.limit);
        self.memory.give_back(self.limit - end);
        (self.limit, self.reach, self.first) = (end, 0, 0);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.memory.give_back(self.outstanding());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: u64 = 32 << 20;
    const BYTES: u64 = 64 << 20;

    /// A hypervisor that takes everything at once, `rounds` times.
    fn run(promise: &mut Promise, rounds: usize) {
        for _ in 0..rounds {
            promise.consumed(promise.limit());
            promise.renew();
        }
    }

    #[test]
    fn a_connection_alone_gets_its_window_in_a_few_round_trips() {
        let memory = ReceiveMemory::new(BYTES);
        let mut promise = Promise::new(memory.clone(), memory.first(WINDOW), WINDOW);
        assert_eq!(promise.outstanding(), BYTES / FIRST_SHARE);
        run(&mut promise, 6);
        assert_eq!(promise.outstanding(), WINDOW);
        drop(promise);
        assert_eq!(memory.promised(), 0);
    }

    #[test]
    fn a_promise_grows_before_it_is_used_up() {
        let mut promise = Promise::new(ReceiveMemory::new(BYTES), 1 << 20, WINDOW);
        promise.consumed((1 << 20) / GROWS_AFTER - 1);
        promise.renew();
        assert_eq!(promise.outstanding(), 1 << 20, "nobody knows yet whether this hypervisor reads");
        promise.consumed((1 << 20) / GROWS_AFTER);
        promise.renew();
        assert_eq!(promise.outstanding(), GROWTH << 20);
    }

    #[test]
    fn connections_that_nobody_reads_leave_most_to_the_next() {
        let memory = ReceiveMemory::new(BYTES);
        let new = || Promise::new(memory.clone(), memory.first(WINDOW), WINDOW);
        // They ran once, and stop now; a connection that was never read keeps its first promise.
        let mut stuck: Vec<_> = (0..3).map(|_| new()).collect();
        stuck.iter_mut().for_each(|promise| run(promise, 10));
        let never_read: Vec<_> = (0..64).map(|_| new()).collect();
        let mut next = new();
        run(&mut next, 10);
        assert!(next.outstanding() > 1 << 20, "{} of {}", next.outstanding(), memory.promised());
        assert!(memory.promised() < BYTES + 65 * PROMISE_BYTES_MIN, "{}", memory.promised());
        drop((stuck, never_read));
        run(&mut next, 10);
        assert_eq!(next.outstanding(), WINDOW, "what they held is there again");
    }

    #[test]
    fn an_end_frees_what_is_not_needed() {
        let memory = ReceiveMemory::new(BYTES);
        let mut promise = Promise::new(memory.clone(), memory.first(WINDOW), WINDOW);
        promise.end_at(1000);
        assert_eq!((memory.promised(), promise.renew()), (1000, 1000));
        promise.consumed(1000);
        assert_eq!(memory.promised(), 0);
    }

    proptest! {
        /// Whatever happens, what was promised is what is counted, limits only grow, and nobody is left without.
        #[test]
        fn promises_add_up(steps in proptest::collection::vec((0usize..4, 0u64..5), 1..300)) {
            let memory = ReceiveMemory::new(8 << 20);
            let new = || Promise::new(memory.clone(), memory.first(WINDOW), WINDOW);
            let mut all: Vec<_> = (0..4).map(|_| new()).collect();
            for (which, quarters) in steps {
                let promise = &mut all[which];
                let (before, outstanding) = (promise.limit(), promise.outstanding());
                promise.consumed(before - outstanding + outstanding * quarters / 4);
                let after = promise.renew();
                prop_assert!(after >= before && promise.outstanding() <= WINDOW);
                prop_assert!(quarters == 0 || promise.outstanding() >= PROMISE_BYTES_MIN.min(outstanding));
                let sum: u64 = all.iter().map(Promise::outstanding).sum();
                prop_assert_eq!(memory.promised(), sum);
            }
            drop(all);
            prop_assert_eq!(memory.promised(), 0);
        }
    }
}
