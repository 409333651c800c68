//! Memory for frames: bounded, reused, never filled with zeros twice.
//!
//! A [`FrameBuffer`] is frozen into [`Bytes`]; when the last clone of those is dropped, on whichever shard, the memory
//! returns to its pool.

use crate::limits::{POOL_CLASS_BYTES, POOL_CLASSES};
use crate::waiters::{Ticket, Waiters};
use bytes::Bytes;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// A bounded pool of frame memory. Clones share it.
#[derive(Clone)]
pub struct FramePool {
    shared: Arc<Shared>,
}

struct Shared {
    bytes_max: usize,
    state: Mutex<State>,
    waiters: Waiters,
}

#[derive(Default)]
struct State {
    free: [Vec<Box<[u8]>>; POOL_CLASSES],
    stats: PoolStats,
}

/// What a pool holds and has done. Bytes count whole buffers, not the parts in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes handed out and not returned.
    pub used_bytes: usize,
    /// Most bytes that were ever handed out at once.
    pub used_bytes_peak: usize,
    /// Bytes kept for reuse.
    pub free_bytes: usize,
    /// Buffers served from memory kept for reuse.
    pub reused: u64,
    /// Buffers that needed fresh memory.
    pub created: u64,
    /// Requests refused because the budget was spent.
    pub refused: u64,
}

fn class_of(len: usize) -> Option<usize> {
    POOL_CLASS_BYTES.iter().position(|&bytes| len <= bytes)
}

impl FramePool {
    /// A pool that never holds more than `bytes_max` bytes, in use and kept for reuse together.
    pub fn new(bytes_max: usize) -> Self {
        Self { shared: Arc::new(Shared { bytes_max, state: Mutex::default(), waiters: Waiters::default() }) }
    }

    /// A buffer of `len` bytes whose contents are unspecified (what the last user left). `None` when the budget is
    /// spent or `len` is larger than the largest class.
    pub fn alloc(&self, len: usize) -> Option<FrameBuffer> {
        let class = class_of(len)?;
        let bytes = POOL_CLASS_BYTES[class];
        let mut state = self.shared.lock();
        let memory = if let Some(memory) = state.free[class].pop() {
            state.stats.free_bytes -= bytes;
            state.stats.reused += 1;
            memory
        } else {
            if state.stats.used_bytes + bytes > self.shared.bytes_max {
                state.stats.refused += 1;
                return None;
            }
            state.make_room(self.shared.bytes_max - bytes);
            state.stats.created += 1;
            // Fresh zero pages from the kernel for the large classes; the only time that this memory is filled.
            vec![0u8; bytes].into_boxed_slice()
        };
        state.stats.used_bytes += bytes;
        state.stats.used_bytes_peak = state.stats.used_bytes_peak.max(state.stats.used_bytes);
        drop(state);
        Some(FrameBuffer { block: Block { memory, pool: Arc::clone(&self.shared) }, len })
    }

    /// Waits for a buffer of `len` bytes. Pends for ever if `len` is larger than the largest class or than the budget:
    /// check with [`FramePool::could_ever_alloc`].
    pub async fn alloc_when_free(&self, len: usize) -> FrameBuffer {
        let mut wait = PoolWait::default();
        let buffer = std::future::poll_fn(|cx| wait.poll_alloc(self, len, cx)).await;
        wait.leave(self);
        buffer
    }

    /// Whether an empty pool could serve `len` bytes.
    pub fn could_ever_alloc(&self, len: usize) -> bool {
        class_of(len).is_some_and(|class| POOL_CLASS_BYTES[class] <= self.shared.bytes_max)
    }

    /// Gives memory that is kept for reuse back to the system, until at most `keep_bytes` are kept.
    pub fn trim(&self, keep_bytes: usize) {
        let mut state = self.shared.lock();
        let used = state.stats.used_bytes;
        state.make_room(used + keep_bytes);
    }

    /// The budget in bytes.
    pub fn bytes_max(&self) -> usize {
        self.shared.bytes_max
    }

    /// What the pool holds and has done.
    pub fn stats(&self) -> PoolStats {
        self.shared.lock().stats
    }
}

impl fmt::Debug for FramePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramePool")
            .field("bytes_max", &self.shared.bytes_max)
            .field("stats", &self.stats())
            .finish()
    }
}

impl State {
    /// Frees kept memory, largest first, until used and kept bytes together are at most `bytes`.
    fn make_room(&mut self, bytes: usize) {
        for class in (0..POOL_CLASSES).rev() {
            while self.stats.used_bytes + self.stats.free_bytes > bytes {
                if self.free[class].pop().is_none() {
                    break;
                }
                self.stats.free_bytes -= POOL_CLASS_BYTES[class];
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters and lists change together without a call that could panic in between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, memory: Box<[u8]>) {
        if let Some(class) = class_of(memory.len()) {
            let mut state = self.lock();
            state.stats.used_bytes -= memory.len();
            state.stats.free_bytes += memory.len();
            state.free[class].push(memory);
        }
        self.waiters.wake_all();
    }
}

/// A place in the queue for memory; for tasks that poll rather than await.
#[derive(Default)]
pub(crate) struct PoolWait {
    ticket: Ticket,
}

impl PoolWait {
    pub(crate) fn poll_alloc(
        &mut self,
        pool: &FramePool,
        len: usize,
        cx: &mut Context<'_>,
    ) -> Poll<FrameBuffer> {
        if let Some(buffer) = pool.alloc(len) {
            return Poll::Ready(buffer);
        }
        pool.shared.waiters.enter(&mut self.ticket, cx.waker());
        // Memory may have come back between the first look and the registration.
        match pool.alloc(len) {
            Some(buffer) => Poll::Ready(buffer),
            None => Poll::Pending,
        }
    }

    pub(crate) fn leave(&mut self, pool: &FramePool) {
        pool.shared.waiters.leave(&mut self.ticket);
    }
}

struct Block {
    memory: Box<[u8]>,
    pool: Arc<Shared>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.memory));
    }
}

/// Writable memory for one frame. Dereferences to its `len` bytes.
pub struct FrameBuffer {
    block: Block,
    len: usize,
}

impl FrameBuffer {
    /// Bytes that the buffer can be resized to.
    pub fn capacity(&self) -> usize {
        self.block.memory.len()
    }

    /// Changes the length, without touching contents: bytes beyond the old length are unspecified. A `len` beyond the
    /// capacity is cut to the capacity; the length that now holds is returned.
    pub fn resize(&mut self, len: usize) -> usize {
        self.len = len.min(self.capacity());
        self.len
    }

    /// The bytes as shared, immutable memory, without a copy.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(Frozen { block: self.block, len: self.len })
    }
}

impl Deref for FrameBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.block.memory[..self.len]
    }
}

impl DerefMut for FrameBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.block.memory[..self.len]
    }
}

impl fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the contents: they are guest memory.
        f.debug_struct("FrameBuffer").field("len", &self.len).field("capacity", &self.capacity()).finish()
    }
}

struct Frozen {
    block: Block,
    len: usize,
}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        &self.block.memory[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_returns_when_the_last_clone_is_dropped_and_is_reused_as_it_was() {
        let pool = FramePool::new(1 << 20);
        let mut buffer = pool.alloc(100).unwrap();
        buffer.fill(7);
        let bytes = buffer.freeze();
        assert_eq!(&bytes[..], &[7u8; 100][..]);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(pool.stats().used_bytes, POOL_CLASS_BYTES[0]);
        std::thread::spawn(move || drop(part)).join().unwrap();
        assert_eq!(pool.stats().used_bytes, 0);
        let again = pool.alloc(50).unwrap();
        assert_eq!(&again[..], &[7u8; 50][..]);
        assert_eq!((pool.stats().reused, pool.stats().created), (1, 1));
    }

    #[test]
    fn the_budget_holds_and_kept_memory_of_another_class_makes_room() {
        let large = POOL_CLASS_BYTES[3];
        let pool = FramePool::new(large + POOL_CLASS_BYTES[0]);
        let first = pool.alloc(large).unwrap();
        assert!(pool.alloc(POOL_CLASS_BYTES[1]).is_none());
        assert_eq!(pool.stats().refused, 1);
        drop(first);
        assert_eq!(pool.stats().free_bytes, large);
        let _medium = pool.alloc(POOL_CLASS_BYTES[1]).unwrap();
        assert_eq!(pool.stats().free_bytes, 0);
        assert!(pool.alloc(large + 1).is_none());
        assert!(!pool.could_ever_alloc(large + 1));
        assert!(pool.stats().used_bytes <= pool.bytes_max());
    }

    #[test]
    fn resize_stays_within_capacity_and_trim_frees() {
        let pool = FramePool::new(1 << 20);
        let mut buffer = pool.alloc(10).unwrap();
        assert_eq!(buffer.resize(usize::MAX), POOL_CLASS_BYTES[0]);
        drop(buffer);
        pool.trim(0);
        assert_eq!(
            pool.stats(),
            PoolStats { created: 1, used_bytes_peak: POOL_CLASS_BYTES[0], ..PoolStats::default() }
        );
    }
}
