//! Frames stay until they are acknowledged as verified, so that a lost stream loses nothing.

use crate::schedule::{FrameKey, SendQueue};
use crate::wire::Lane;
use bytes::Bytes;
use std::collections::BTreeMap;

/// One transport connection between two gateways, as the gateway numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// A frame that has not been verified yet.
#[derive(Debug)]
struct Retained {
    frame: Bytes,
    /// The stream that took it; `None` while it waits for one.
    stream: Option<StreamId>,
}

/// Frames that have not been verified yet, those that wait for a stream in the order in which they leave.
#[derive(Debug, Default)]
pub(super) struct Retention {
    frames: BTreeMap<FrameKey, Retained>,
    bytes: u64,
    queue: SendQueue,
}

impl Retention {
    /// Keeps a frame, which waits for a stream.
    pub(super) fn keep(&mut self, key: FrameKey, frame: Bytes) {
        self.bytes += frame.len() as u64;
        self.queue.push(key, frame.len());
        self.frames.insert(key, Retained { frame, stream: None });
    }

    /// The next frame for `stream`.
    pub(super) fn next(&mut self, stream: StreamId) -> Option<Bytes> {
        while let Some(key) = self.queue.pop() {
            // A frame that was verified while its repetition waited needs no stream.
            if let Some(retained) = self.frames.get_mut(&key) {
                retained.stream = Some(stream);
                return Some(retained.frame.clone());
            }
        }
        None
    }

    /// The sequence of the oldest frame of a lane that has not been verified.
    pub(super) fn oldest(&self, lane: Lane) -> Option<u64> {
        let mut frames = self.frames.range((lane, 0)..=(lane, u64::MAX));
        frames.next().map(|((_, sequence), _)| *sequence)
    }

    /// A frame has been verified.
    pub(super) fn release(&mut self, key: &FrameKey) {
        if let Some(retained) = self.frames.remove(key) {
            self.bytes -= retained.frame.len() as u64;
        }
    }

    /// Everything has been verified.
    pub(super) fn release_all(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// A stream died: what it carried leaves again (DWCP-31).
    pub(super) fn stream_lost(&mut self, stream: StreamId) {
        for (key, retained) in &mut self.frames {
            if retained.stream == Some(stream) {
                retained.stream = None;
                self.queue.push_again(*key, retained.frame.len());
            }
        }
    }

    /// Whether a frame waits for a stream.
    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Bytes kept, and bytes of them that wait for a stream.
    pub(super) fn bytes(&self) -> (u64, usize) {
        (self.bytes, self.queue.bytes())
    }
}
