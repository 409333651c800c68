//! The session's side of a relayed stream.

use super::{Homeward, Outward, RelayConfig, Stands};
use crate::contract::{Caps, CloseReason, Event, Flow, Refused, Transport};
use crate::frame::frame_len;
use crate::pool::{FrameBuffer, FramePool};
use crate::shard::{MailboxFull, Receiver, Sender};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::task::{Context, Poll, Waker};

/// A stream over a `T` that another shard serves. Dropping it ends the stream.
pub struct Relayed<T> {
    config: RelayConfig,
    send_pool: FramePool,
    /// `None` once this side has closed.
    outward: Option<Sender<Outward>>,
    homeward: Receiver<Homeward>,
    /// What leaves for the serving shard with the next poll.
    next: Outward,
    received: VecDeque<Bytes>,
    submitted_bytes: u64,
    gone_bytes: u64,
    /// Where each frame that has not left ends, among all bytes submitted.
    waiting: VecDeque<u64>,
    /// How the stream stood when so many bytes had been given to its transport.
    flow: Option<(u64, Flow)>,
    /// Its congestion control; `None` until that is told, again each time another was asked for.
    congestion: Option<String>,
    asked: u32,
    wants_writable: bool,
    /// The stream has ended behind what was received.
    ended: Option<CloseReason>,
    dead: Option<CloseReason>,
    finishing: bool,
    /// The task that polls, to be told of frames that others submit.
    poller: Option<Waker>,
    carried: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Relayed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relayed")
            .field("submitted_bytes", &self.submitted_bytes)
            .field("gone_bytes", &self.gone_bytes)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

impl<T> Relayed<T> {
    pub(super) fn new(
        config: RelayConfig,
        send_pool: FramePool,
        outward: Sender<Outward>,
        homeward: Receiver<Homeward>,
    ) -> Self {
        Self {
            config,
            send_pool,
            outward: Some(outward),
            homeward,
            next: Outward::default(),
            received: VecDeque::new(),
            submitted_bytes: 0,
            gone_bytes: 0,
            waiting: VecDeque::new(),
            flow: None,
            congestion: None,
            asked: 0,
            wants_writable: false,
            ended: None,
            dead: None,
            finishing: false,
            poller: None,
            carried: PhantomData,
        }
    }

    fn queued(&self) -> usize {
        usize::try_from(self.submitted_bytes - self.gone_bytes).unwrap_or(usize::MAX)
    }

    /// Sends what waits for the serving shard. Where its mailbox is full it has yet to take what is there, and says so.
    fn pass_on(&mut self) {
        if self.next.is_empty() {
            return;
        }
        let Some(outward) = &self.outward else { return };
        match outward.try_send(std::mem::take(&mut self.next)) {
            Ok(()) => {}
            Err(MailboxFull::Full(back)) => self.next = back,
            // What the serving shard said last is still to be read.
            Err(MailboxFull::Closed(_)) => self.outward = None,
        }
    }

    fn absorb(&mut self, word: Homeward) {
        self.received.extend(word.frames);
        self.gone_bytes = word.gone_bytes.clamp(self.gone_bytes, self.submitted_bytes);
        while self.waiting.front().is_some_and(|end| *end <= self.gone_bytes) {
            self.waiting.pop_front();
        }
        if let Some(Stands { given_bytes, flow, congestion }) = word.stands {
            self.flow = flow.map(|flow| (given_bytes, flow));
            if let Some((asked, congestion)) = congestion
                && asked == self.asked
            {
                self.congestion = Some(congestion);
            }
        }
        self.ended = word.ended;
    }

    fn die(&mut self, reason: CloseReason) -> Poll<Event> {
        // The carrier sees that nobody is there any more, and closes.
        self.outward = None;
        self.next = Outward::default();
        self.received.clear();
        self.waiting.clear();
        self.gone_bytes = self.submitted_bytes;
        self.dead = Some(reason.clone());
        Poll::Ready(Event::Closed(reason))
    }

    fn wake(&mut self) {
        if let Some(poller) = self.poller.take() {
            poller.wake();
        }
    }
}

impl<T: Transport> Transport for Relayed<T> {
    const CAPS: Caps = T::CAPS;

    fn alloc(&mut self, len: usize) -> Option<FrameBuffer> {
        self.send_pool.alloc(len)
    }

    fn submit(&mut self, frame: Bytes) -> Result<(), Refused> {
        if self.dead.is_some() || self.ended.is_some() || self.finishing {
            return Err(Refused::Closed { frame });
        }
        match frame_len(&frame, self.config.payload_bytes_max) {
            Ok(Some(len)) if len == frame.len() => {}
            Ok(_) => return Err(Refused::Malformed { frame }),
            Err(oversize) => return Err(Refused::Oversize { frame, oversize }),
        }
        let queued_bytes = self.queued();
        if queued_bytes + frame.len() > self.config.queue_bytes_max
            || self.waiting.len() >= self.config.queue_frames_max
        {
            self.wants_writable = true;
            return Err(Refused::Full { frame, queued_bytes });
        }
        self.submitted_bytes += frame.len() as u64;
        self.waiting.push_back(self.submitted_bytes);
        self.wants_writable |= self.queued() > self.config.queue_low_water_bytes;
        self.next.frames.push(frame);
        self.wake();
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(reason) = &self.dead {
            return Poll::Ready(Event::Closed(reason.clone()));
        }
        self.pass_on();
        loop {
            if self.wants_writable && self.queued() <= self.config.queue_low_water_bytes {
                self.wants_writable = false;
                return Poll::Ready(Event::Writable { queued_bytes: self.queued() });
            }
            if let Some(frame) = self.received.pop_front() {
                return Poll::Ready(Event::Received(frame));
            }
            if let Some(reason) = self.ended.take() {
                return self.die(reason);
            }
            match self.homeward.poll_receive(cx) {
                Poll::Ready(Some(word)) => {
                    self.absorb(word);
                    // It has taken what was there before it said this: there is room for what waits.
                    self.pass_on();
                }
                Poll::Ready(None) => {
                    return self.die(CloseReason::Io {
                        kind: ErrorKind::BrokenPipe,
                        detail: "the shard that served the stream has stopped".to_owned(),
                    });
                }
                Poll::Pending => break,
            }
        }
        if !self.poller.as_ref().is_some_and(|poller| poller.will_wake(cx.waker())) {
            self.poller = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn finish(&mut self) {
        self.finishing = true;
        self.next.finish = true;
        self.wake();
    }

    fn close(&mut self) {
        if self.dead.is_none() {
            let _ = self.die(CloseReason::Local);
            self.wake();
        }
    }

    fn queued_bytes(&self) -> usize {
        self.queued()
    }

    fn unacknowledged_bytes(&self) -> usize {
        self.flow().map_or(0, |flow| flow.outstanding_bytes.saturating_sub(self.queued()))
    }

    fn flow(&self) -> Option<Flow> {
        if self.dead.is_some() {
            return None;
        }
        let (given_bytes, flow) = self.flow?;
        // What was submitted since it was looked at is under way as well.
        let since = usize::try_from(self.submitted_bytes - given_bytes).unwrap_or(usize::MAX);
        Some(Flow {
            outstanding_bytes: flow.outstanding_bytes.saturating_add(since),
            unsent_bytes: flow.unsent_bytes.saturating_add(since),
            ..flow
        })
    }

    fn bound_unsent(&mut self, bytes: usize) {
        self.next.unsent_bound = Some(bytes);
    }

    fn prefer_congestion(&mut self, name: &str) {
        self.asked = self.asked.wrapping_add(1);
        self.congestion = None;
        self.next.congestion = Some((self.asked, name.to_owned()));
        self.wake();
    }

    fn congestion(&self) -> Option<String> {
        self.congestion.clone()
    }
}
