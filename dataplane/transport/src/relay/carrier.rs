//! The serving shard's side of a relayed stream.

use super::{Homeward, Outward, Stands};
use crate::contract::{CloseReason, Event, Refused, Transport};
use crate::limits::{
    RELAY_BATCH_BYTES, RELAY_BATCH_FRAMES, RELAY_STEPS_PER_POLL, STREAM_LOOK, STREAM_LOOK_MIN,
};
use crate::shard::{Receiver, Sender, sleep, yield_if_needed};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What the serving shard runs for a relayed stream. Dropping it ends the stream.
#[derive(Debug)]
pub struct Carrier {
    outward: Receiver<Outward>,
    homeward: Sender<Homeward>,
}

impl Carrier {
    pub(super) fn new(outward: Receiver<Outward>, homeward: Sender<Homeward>) -> Self {
        Self { outward, homeward }
    }

    /// Carries the stream over `transport` until either end has had enough.
    pub async fn carry<T: Transport>(self, transport: T) {
        let Self { outward, homeward } = self;
        let mut carrying = Carrying::new(outward, transport);
        loop {
            let word = poll_fn(|cx| carrying.turn(cx)).await;
            let ended = word.ended.is_some();
            // While home takes nothing, nothing more is received for it.
            if homeward.send(word).await.is_err() || ended {
                break;
            }
            yield_if_needed().await;
        }
        carrying.transport.close();
    }

    /// The stream could not be served.
    pub async fn fail(self, reason: CloseReason) {
        // Home may have given it up.
        let _ = self.homeward.send(Homeward { ended: Some(reason), ..Homeward::default() }).await;
    }
}

struct Carrying<T> {
    outward: Receiver<Outward>,
    transport: T,
    /// Frames that the transport has no room for yet.
    waiting: VecDeque<Bytes>,
    waiting_finish: bool,
    given_bytes: u64,
    gone_bytes: u64,
    /// Home has been told of so much.
    told_bytes: u64,
    /// Received, and not passed on yet.
    received: Vec<Bytes>,
    received_bytes: usize,
    /// `None`: home has yet to hear how it stands, its congestion control included.
    looked_at: Option<Instant>,
    /// How often home has asked for a congestion control.
    asked: u32,
    /// Bytes that had arrived, and the round trip, when it was last looked at.
    arrived_bytes: u64,
    round_trip: Duration,
    look: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl<T: Transport> Carrying<T> {
    fn new(outward: Receiver<Outward>, transport: T) -> Self {
        Self {
            outward,
            transport,
            waiting: VecDeque::new(),
            waiting_finish: false,
            given_bytes: 0,
            gone_bytes: 0,
            told_bytes: 0,
            received: Vec::new(),
            received_bytes: 0,
            looked_at: None,
            asked: 0,
            arrived_bytes: 0,
            round_trip: Duration::ZERO,
            look: None,
        }
    }

    /// Moves bytes in both directions until there is something to tell home.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Homeward> {
        for _ in 0..RELAY_STEPS_PER_POLL {
            if !self.take(cx) {
                return Poll::Ready(self.part(cx));
            }
            if let Err(reason) = self.submit() {
                return Poll::Ready(self.word(Some(reason)));
            }
            match self.transport.poll(cx) {
                Poll::Ready(Event::Received(frame)) => {
                    self.received_bytes += frame.len();
                    self.received.push(frame);
                    if self.received_bytes >= RELAY_BATCH_BYTES || self.received.len() >= RELAY_BATCH_FRAMES {
                        return Poll::Ready(self.word(None));
                    }
                }
                Poll::Ready(Event::Writable { .. }) => {}
                Poll::Ready(Event::Closed(reason)) => return Poll::Ready(self.word(Some(reason))),
                Poll::Pending => return self.rest(cx),
            }
        }
        cx.waker().wake_by_ref();
        if self.received.is_empty() { Poll::Pending } else { Poll::Ready(self.word(None)) }
    }

    /// Takes what home has sent. False: nobody is there any more.
    fn take(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(outward) = self.outward.poll_receive(cx) {
            let Some(Outward { frames, unsent_bound, congestion, finish }) = outward else { return false };
            self.waiting.extend(frames);
            self.waiting_finish |= finish;
            if let Some(bytes) = unsent_bound {
                self.transport.bound_unsent(bytes);
            }
            if let Some((asked, name)) = congestion {
                self.transport.prefer_congestion(&name);
                self.asked = asked;
                // It is looked at again, and home told.
                self.looked_at = None;
            }
        }
        true
    }

    fn submit(&mut self) -> Result<(), CloseReason> {
        while let Some(frame) = self.waiting.pop_front() {
            let len = frame.len() as u64;
            match self.transport.submit(frame) {
                Ok(()) => self.given_bytes += len,
                Err(Refused::Full { frame, .. }) => {
                    self.waiting.push_front(frame);
                    return Ok(());
                }
                // It is dead, and says why when it is polled.
                Err(Refused::Closed { .. }) => return Ok(()),
                Err(refused @ (Refused::Malformed { .. } | Refused::Oversize { .. })) => {
                    return Err(CloseReason::Io {
                        kind: std::io::ErrorKind::InvalidInput,
                        detail: refused.to_string(),
                    });
                }
            }
        }
        if std::mem::take(&mut self.waiting_finish) {
            self.transport.finish();
        }
        Ok(())
    }

    /// Home has gone: what it had sent before may still leave with what the kernel takes at once.
    fn part(&mut self, cx: &mut Context<'_>) -> Homeward {
        if self.submit().is_ok() {
            self.transport.finish();
            let _ = self.transport.poll(cx);
        }
        self.word(Some(CloseReason::Local))
    }

    /// Nothing more can be done now: tells home what it does not know yet, or waits.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<Homeward> {
        self.count_gone();
        if !self.received.is_empty() || self.gone_bytes > self.told_bytes || self.looked_at.is_none() {
            return Poll::Ready(self.word(None));
        }
        if self.arrived_bytes < self.given_bytes {
            let (least, most) = STREAM_LOOK;
            let wait = (self.round_trip / 8).clamp(least, most);
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(wait)));
            if look.as_mut().poll(cx).is_ready() {
                self.look = None;
                return Poll::Ready(self.word(None));
            }
        }
        Poll::Pending
    }

    fn count_gone(&mut self) {
        let gone = self.given_bytes.saturating_sub(self.transport.queued_bytes() as u64);
        self.gone_bytes = self.gone_bytes.max(gone);
    }

    fn word(&mut self, ended: Option<CloseReason>) -> Homeward {
        self.count_gone();
        self.told_bytes = self.gone_bytes;
        self.received_bytes = 0;
        Homeward {
            frames: std::mem::take(&mut self.received),
            gone_bytes: self.gone_bytes,
            stands: self.stands(),
            ended,
        }
    }

    /// How the stream stands, unless it was looked at just now: each time costs system calls.
    fn stands(&mut self) -> Option<Stands> {
        let now = Instant::now();
        if self.looked_at.is_some_and(|at| now.duration_since(at) < STREAM_LOOK_MIN) {
            return None;
        }
        let first = self.looked_at.replace(now).is_none();
        let congestion = first.then(|| self.transport.congestion()).flatten().map(|name| (self.asked, name));
        let flow = self.transport.flow();
        // Where nothing can be known, nothing is waited for.
        let outstanding = flow.as_ref().map_or(0, |flow| flow.outstanding_bytes as u64);
        self.arrived_bytes = self.given_bytes.saturating_sub(outstanding);
        self.round_trip = flow.as_ref().map_or(Duration::ZERO, |flow| flow.round_trip);
        Some(Stands { given_bytes: self.given_bytes, flow, congestion })
    }
}
