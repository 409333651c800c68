//! Frames on their way out: a bounded queue, emptied several frames a system call.

use super::TcpConfig;
use crate::contract::Refused;
use crate::frame::frame_len;
use crate::limits::FRAMES_PER_SEND_MAX;
use crate::tls::Channel;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

#[derive(Debug, Default)]
pub(super) struct SendQueue {
    // The first may be the rest of a frame.
    frames: VecDeque<Bytes>,
    bytes: usize,
    wants_writable: bool,
}

impl SendQueue {
    /// `beside` bytes wait below this queue, and count as if they waited here.
    pub(super) fn push(&mut self, frame: Bytes, beside: usize, config: &TcpConfig) -> Result<(), Refused> {
        match frame_len(&frame, config.payload_bytes_max) {
            Ok(Some(len)) if len == frame.len() => {}
            Ok(_) => return Err(Refused::Malformed { frame }),
            Err(oversize) => return Err(Refused::Oversize { frame, oversize }),
        }
        let queued_bytes = self.bytes + beside;
        if queued_bytes + frame.len() > config.queue_bytes_max || self.frames.len() >= config.queue_frames_max
        {
            self.wants_writable = true;
            return Err(Refused::Full { frame, queued_bytes });
        }
        self.bytes += frame.len();
        self.wants_writable |= self.bytes > config.queue_low_water_bytes;
        self.frames.push_back(frame);
        Ok(())
    }

    /// One system call for as many frames as fit it.
    pub(super) fn poll_send(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_SEND_MAX];
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(frame);
            count += 1;
        }
        let sent = ready!(channel.poll_send(cx, &slices[..count]))?;
        self.advance(sent);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, sent: usize) {
        self.bytes = self.bytes.saturating_sub(sent);
        let mut left = sent;
        while left > 0 {
            let Some(front) = self.frames.front_mut() else { return };
            if front.len() > left {
                front.advance(left);
                return;
            }
            left -= front.len();
            self.frames.pop_front();
        }
    }

    /// The queue's length, once, when somebody was refused or filled it and there is room again.
    pub(super) fn take_writable(&mut self, beside: usize, low_water_bytes: usize) -> Option<usize> {
        let queued_bytes = self.bytes + beside;
        (self.wants_writable && queued_bytes <= low_water_bytes).then(|| {
            self.wants_writable = false;
            queued_bytes
        })
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
        self.wants_writable = false;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}
