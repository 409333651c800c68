//! Bytes on their way in, cut into frames.
//!
//! Small frames are read many at a time into a staging buffer and copied out. A frame that is not complete there gets a
//! buffer of its own; the rest of it is received straight into that, together with a little of what follows.

use super::HeaderCheck;
use super::small::SmallFrames;
use crate::contract::CloseReason;
use crate::frame::frame_len;
use crate::limits::{
    SMALL_FRAME_BYTES_MAX, STAGING_BYTES, STAGING_BYTES_BESIDE_PAYLOAD, SYSCALLS_PER_POLL_MAX,
};

use crate::pool::{FrameBuffer, FramePool, PoolWait};
use crate::tls::Channel;
use bytes::Bytes;
use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};

pub(super) enum Progress {
    Frame(Bytes),
    /// Others should have a turn; nothing is known about readiness.
    TurnOver,
}

pub(super) struct Reassembly {
    pool: FramePool,
    wait: PoolWait,
    payload_bytes_max: usize,
    header_check: HeaderCheck,
    staging: Box<[u8]>,
    small: SmallFrames,
    // Unread bytes of `staging`.
    start: usize,
    end: usize,
    // A frame with memory of its own, and how much of it is there.
    partial: Option<(FrameBuffer, usize)>,
}

impl Reassembly {
    pub(super) fn new(pool: FramePool, payload_bytes_max: usize, header_check: HeaderCheck) -> Self {
        Self {
            pool,
            wait: PoolWait::default(),
            payload_bytes_max,
            header_check,
            staging: vec![0; STAGING_BYTES].into_boxed_slice(),
            small: SmallFrames::default(),
            start: 0,
            end: 0,
            partial: None,
        }
    }

    /// Whether no byte waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && self.partial.is_none()
    }

    pub(super) fn poll(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Progress, CloseReason>> {
        for _ in 0..SYSCALLS_PER_POLL_MAX {
            if let Some(frame) = ready!(self.poll_cut(cx))? {
                return Poll::Ready(Ok(Progress::Frame(frame)));
            }
            let received = ready!(self.poll_fill(channel, cx));
            match received {
                Ok(0) => return Poll::Ready(Err(self.end_reason())),
                Ok(_) => {}
                Err(e) => {
                    return Poll::Ready(Err(CloseReason::io("receiving from the peer gateway failed", &e)));
                }
            }
        }
        Poll::Ready(Ok(Progress::TurnOver))
    }

    /// A whole frame if there is one; otherwise leaves the beginning of the next where the next bytes can follow it.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, CloseReason>> {
        if let Some((buffer, filled)) = self.partial.take() {
            if filled < buffer.len() {
                self.partial = Some((buffer, filled));
                return Poll::Ready(Ok(None));
            }
            return Poll::Ready(Ok(Some(buffer.freeze())));
        }
        let staged = &self.staging[self.start..self.end];
        if staged.first_chunk().is_some_and(|header| !(self.header_check)(header)) {
            return Poll::Ready(Err(CloseReason::Damaged));
        }
        let Some(len) = frame_len(staged, self.payload_bytes_max).map_err(CloseReason::Oversize)? else {
            // Less than a header: move it to the front so that the most can follow.
            self.staging.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return Poll::Ready(Ok(None));
        };
        let have = staged.len().min(len);
        if len <= SMALL_FRAME_BYTES_MAX && have == len {
            let frame = self.small.copy(&staged[..len]);
            self.start += len;
            return Poll::Ready(Ok(Some(frame)));
        }
        if len <= SMALL_FRAME_BYTES_MAX {
            // A small frame in two parts waits for the rest in staging, where it needs no pool memory.
            self.staging.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return Poll::Ready(Ok(None));
        }
        let mut buffer = ready!(self.wait.poll_alloc(&self.pool, len, cx));
        self.wait.leave(&self.pool);
        buffer[..have].copy_from_slice(&self.staging[self.start..self.start + have]);
        self.start += have;
        if have == len {
            return Poll::Ready(Ok(Some(buffer.freeze())));
        }
        // Everything staged belonged to this frame.
        self.start = 0;
        self.end = 0;
        self.partial = Some((buffer, have));
        Poll::Ready(Ok(None))
    }

    /// One receive: the rest of a large frame and a little of what follows, or as much as staging holds.
    fn poll_fill(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((buffer, filled)) = &mut self.partial else {
            let received =
                ready!(channel.poll_receive(cx, &mut [IoSliceMut::new(&mut self.staging[self.end..])]))?;
            self.end += received;
            return Poll::Ready(Ok(received));
        };
        let rest = buffer.len() - *filled;
        let beside = &mut self.staging[..STAGING_BYTES_BESIDE_PAYLOAD];
        let received = ready!(
            channel.poll_receive(cx, &mut [IoSliceMut::new(&mut buffer[*filled..]), IoSliceMut::new(beside)])
        )?;
        *filled += received.min(rest);
        self.end = received.saturating_sub(rest);
        Poll::Ready(Ok(received))
    }

    fn end_reason(&self) -> CloseReason {
        let received_bytes = match &self.partial {
            Some((_, filled)) => *filled,
            None => self.end - self.start,
        };
        if received_bytes == 0 { CloseReason::Finished } else { CloseReason::Truncated { received_bytes } }
    }

    pub(super) fn clear(&mut self) {
        self.wait.leave(&self.pool);
        self.partial = None;
        self.start = 0;
        self.end = 0;
    }
}

impl Drop for Reassembly {
    fn drop(&mut self) {
        self.clear();
    }
}
