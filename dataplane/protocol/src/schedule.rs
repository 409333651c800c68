//! Which frame leaves next.
//!
//! Streams pull: whichever stream has room takes the next frame, so that a fast stream carries more than a slow
//! one without anyone deciding it. Small frames overtake large ones of other connections, so that a return path
//! is never queued behind pages; order inside a lane is the receiver's to restore, and costs nothing here.

use crate::wire::Lane;
use std::collections::VecDeque;

/// A frame's place: its lane and its sequence there.
pub(crate) type FrameKey = (Lane, u64);

/// Frames of up to this many bytes overtake larger ones.
const SMALL_FRAME_BYTES: usize = 4096;

/// Frames that wait for a stream, as keys into what the sender retains.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    again: VecDeque<(FrameKey, usize)>,
    small: VecDeque<(FrameKey, usize)>,
    bulk: VecDeque<(FrameKey, usize)>,
    bytes: usize,
}

impl SendQueue {
    /// Adds a frame of `bytes` bytes.
    pub(crate) fn push(&mut self, key: FrameKey, bytes: usize) {
        let class = if bytes <= SMALL_FRAME_BYTES { &mut self.small } else { &mut self.bulk };
        class.push_back((key, bytes));
        self.bytes += bytes;
    }

    /// Adds a frame whose stream was lost: the receiver already waits for it, so it goes before all others.
    pub(crate) fn push_again(&mut self, key: FrameKey, bytes: usize) {
        self.again.push_back((key, bytes));
        self.bytes += bytes;
    }

    /// The frame that leaves next.
    pub(crate) fn pop(&mut self) -> Option<FrameKey> {
        let (key, bytes) =
            self.again.pop_front().or_else(|| self.small.pop_front()).or_else(|| self.bulk.pop_front())?;
        self.bytes -= bytes;
        Some(key)
    }

    /// The next small frame.
    pub(crate) fn pop_small(&mut self) -> Option<FrameKey> {
        let (key, bytes) = self.small.pop_front()?;
        self.bytes -= bytes;
        Some(key)
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.small.is_empty() && self.bulk.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_frames_first_then_small_then_bulk_each_in_order() {
        let mut queue = SendQueue::default();
        let key = |sequence| (Lane::Connection(0), sequence);
        for (sequence, bytes) in [(0, 100_000), (1, 50), (2, 100_000), (3, 4096)] {
            queue.push(key(sequence), bytes);
        }
        queue.push_again(key(9), 100_000);
        assert_eq!(queue.bytes(), 304_146);
        assert_eq!(queue.pop_small().map(|key| key.1), Some(1));
        queue.push(key(1), 50);
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|key| key.1).collect();
        assert_eq!(order, [9, 3, 1, 0, 2]);
        assert_eq!((queue.bytes(), queue.is_empty()), (0, true));
    }
}
