//! How far connections are, as it is said to the peer many times a second.

use crate::limits::SAID_FRAMES_MAX;
use crate::stream::Buffers;
use crate::wire::Progress;
use bytes::Bytes;
use std::collections::VecDeque;

/// What is said of progress. Such a frame is kept only to be looked at again: once nobody else has it, the next is made of it.
#[derive(Debug, Default)]
pub(super) struct Said {
    progress: Progress,
    /// Frames that were said, the oldest first.
    frames: VecDeque<Bytes>,
}

impl Said {
    /// What is to be said next.
    pub(super) fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// It, as a frame.
    pub(super) fn frame(&mut self, session: u64, epoch: u32, buffers: &Buffers) -> Bytes {
        while let Some(left) = self.frames.pop_front() {
            if !left.is_unique() {
                self.frames.push_front(left);
                break;
            }
            buffers.give_back(left);
        }
        let buffer = buffers.take(self.progress.frame_bytes());
        let frame = self.progress.to_frame_in(buffer, session, epoch);
        if self.frames.len() < SAID_FRAMES_MAX {
            self.frames.push_back(frame.clone());
        }
        frame
    }
}
