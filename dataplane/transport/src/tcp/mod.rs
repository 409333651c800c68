//! Streams between gateways over TCP.

mod receive;
mod send;
mod small;

use crate::contract::{Caps, CloseReason, Event, Flow, Refused, Transport};
use crate::limits::{FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_CEILING, SYSCALLS_PER_POLL_MAX};
use crate::net::{AppliedOptions, NetError, OpenSocket, PathStats, Peer, Socket, SocketOptions};
use crate::pool::{FrameBuffer, FramePool};
use crate::tls::{Channel, TlsPeer};
use bytes::Bytes;
use receive::{Progress, Reassembly};
use send::SendQueue;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Whether a frame's header is what its sender wrote, for protocols whose headers can tell.
pub type HeaderCheck = fn(&[u8; FRAME_HEADER_BYTES]) -> bool;

/// How a TCP stream behaves.
#[derive(Debug, Clone)]
pub struct TcpConfig {
    /// Largest payload accepted in either direction, bytes.
    pub payload_bytes_max: usize,
    /// Asked of every header as soon as it is there: a damaged length must not make anybody wait for a payload that
    /// nobody sent.
    pub header_check: HeaderCheck,
    /// Bytes that may wait in this process to be sent. At least one largest frame.
    pub queue_bytes_max: usize,
    /// Frames that may wait in this process to be sent.
    pub queue_frames_max: usize,
    /// [`Event::Writable`] comes when the queue falls to this many bytes.
    pub queue_low_water_bytes: usize,
    /// Options of the socket.
    pub socket: SocketOptions,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            payload_bytes_max: 272 * 1024 - FRAME_HEADER_BYTES,
            header_check: |_| true,
            queue_bytes_max: 2 << 20,
            queue_frames_max: 1024,
            queue_low_water_bytes: 512 * 1024,
            socket: SocketOptions::for_streams(),
        }
    }
}

impl TcpConfig {
    fn check(&self, receive: &FramePool) -> Result<(), NetError> {
        let problem = if self.payload_bytes_max > FRAME_PAYLOAD_BYTES_CEILING {
            "payload_bytes_max is larger than the largest buffer"
        } else if self.queue_bytes_max < FRAME_HEADER_BYTES + self.payload_bytes_max {
            "queue_bytes_max is smaller than the largest frame"
        } else if self.queue_frames_max == 0 {
            "queue_frames_max is zero"
        } else if self.queue_low_water_bytes >= self.queue_bytes_max {
            "queue_low_water_bytes is not below queue_bytes_max"
        } else if !receive.could_ever_alloc(FRAME_HEADER_BYTES + self.payload_bytes_max) {
            "the receive pool cannot hold the largest frame"
        } else {
            return Ok(());
        };
        Err(NetError::Config { problem })
    }
}

/// A stream over TCP (or over a unix socket, where two gateways share a machine).
pub struct TcpTransport {
    channel: Channel,
    peer: Peer,
    config: TcpConfig,
    send_pool: FramePool,
    queue: SendQueue,
    incoming: Reassembly,
    dead: Option<CloseReason>,
    // Sending failed; what the peer said before is still read, then this becomes `dead`.
    send_failed: Option<CloseReason>,
    finishing: bool,
    said_farewell: bool,
    finished: bool,
    // The task that polls, to be told of frames that others submit.
    poller: Option<Waker>,
    /// What [`Transport::bound_unsent`] said last.
    unsent_bound: usize,
}

impl std::fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpTransport")
            .field("peer", &self.peer)
            .field("queued_bytes", &self.queue.bytes())
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

fn send_failed(error: &std::io::Error) -> CloseReason {
    CloseReason::io("sending to the peer gateway failed", error)
}

impl TcpTransport {
    /// Takes over a connected socket, on the shard that will serve it. Frames to send come from `send_pool` (see
    /// [`Transport::alloc`]), received ones from `receive_pool`: keep them apart, or frames that wait for their
    /// acknowledgement may leave no memory to receive it (small frames, at most
    /// [`crate::limits::SMALL_FRAME_BYTES_MAX`], are received without the pool in any case, unless a larger one comes first).
    pub fn attach(
        mut open: OpenSocket,
        config: TcpConfig,
        send_pool: FramePool,
        receive_pool: FramePool,
    ) -> Result<Self, NetError> {
        config.check(&receive_pool)?;
        let peer = open.peer();
        let secured = open.take_tls();
        let channel = Channel::new(Socket::attach(open, &config.socket)?, secured);
        Ok(Self {
            channel,
            peer,
            queue: SendQueue::default(),
            incoming: Reassembly::new(receive_pool, config.payload_bytes_max, config.header_check),
            config,
            send_pool,
            dead: None,
            send_failed: None,
            finishing: false,
            said_farewell: false,
            finished: false,
            poller: None,
            unsent_bound: usize::MAX,
        })
    }

    /// Gives the connection up, so that another shard can take it over. Refused while bytes wait in either direction:
    /// they would be lost.
    pub fn detach(self) -> std::io::Result<OpenSocket> {
        if !self.queue.is_empty() || !self.incoming.is_empty() || self.channel.waiting_bytes() > 0 {
            return Err(std::io::Error::other("bytes wait on the stream; it cannot move to another shard"));
        }
        self.channel.detach()
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Who the other end has shown to be; `None` on a stream in the clear.
    pub fn tls_peer(&self) -> Option<&TlsPeer> {
        self.channel.tls_peer()
    }

    /// Options as the socket has them.
    pub fn applied_options(&self) -> std::io::Result<AppliedOptions> {
        self.channel.socket().applied_options()
    }

    /// What TCP measured on the path.
    pub fn path_stats(&self) -> std::io::Result<PathStats> {
        self.channel.socket().path_stats()
    }

    /// Frames that wait in this process to be sent.
    pub fn queued_frames(&self) -> usize {
        self.queue.frames()
    }

    /// Sends until the kernel takes no more. True: its turn was used up, there is more to do.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..SYSCALLS_PER_POLL_MAX {
            if self.queue.is_empty() {
                if self.finishing && !self.said_farewell {
                    self.said_farewell = true;
                    self.channel.say_farewell();
                }
                match self.channel.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(e)) => self.send_failed = Some(send_failed(&e)),
                    Poll::Pending => return false,
                }
                if self.finishing && !self.finished {
                    self.finished = true;
                    // Fails only if the connection is gone, which receiving will report.
                    let _ = self.channel.socket().shutdown_send();
                }
                return false;
            }
            match self.queue.poll_send(&mut self.channel, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => {
                    self.queue.clear();
                    self.send_failed = Some(send_failed(&e));
                    return false;
                }
                Poll::Pending => return false,
            }
        }
        !self.queue.is_empty()
    }

    fn die(&mut self, reason: CloseReason) -> Poll<Event> {
        self.queue.clear();
        self.incoming.clear();
        self.channel.socket().shutdown();
        self.poller = None;
        self.dead = Some(reason.clone());
        Poll::Ready(Event::Closed(reason))
    }
}

impl Transport for TcpTransport {
    const CAPS: Caps = Caps {
        reliable: true,
        ordered: true,
        zero_copy: false,
        encrypted: false,
        frame_bytes_max: FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_CEILING,
    };

    fn alloc(&mut self, len: usize) -> Option<FrameBuffer> {
        self.send_pool.alloc(len)
    }

    fn submit(&mut self, frame: Bytes) -> Result<(), Refused> {
        if self.dead.is_some() || self.send_failed.is_some() || self.finishing {
            return Err(Refused::Closed { frame });
        }
        self.queue.push(frame, self.channel.waiting_bytes(), &self.config)?;
        if let Some(poller) = self.poller.take() {
            poller.wake();
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(reason) = &self.dead {
            return Poll::Ready(Event::Closed(reason.clone()));
        }
        let mut again = self.flush(cx);
        if let Some(queued_bytes) =
            self.queue.take_writable(self.channel.waiting_bytes(), self.config.queue_low_water_bytes)
        {
            return Poll::Ready(Event::Writable { queued_bytes });
        }
        match self.incoming.poll(&mut self.channel, cx) {
            Poll::Ready(Ok(Progress::Frame(frame))) => return Poll::Ready(Event::Received(frame)),
            Poll::Ready(Ok(Progress::TurnOver)) => again = true,
            Poll::Ready(Err(reason)) => {
                // The reason why sending failed (a reset) says more than the end that follows it.
                let reason = self.send_failed.take().unwrap_or(reason);
                return self.die(reason);
            }
            Poll::Pending => {
                if let Some(reason) = self.send_failed.take() {
                    return self.die(reason);
                }
            }
        }
        if again {
            cx.waker().wake_by_ref();
        } else if !self.poller.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            self.poller = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn finish(&mut self) {
        self.finishing = true;
        if let Some(poller) = self.poller.take() {
            poller.wake();
        }
    }

    fn close(&mut self) {
        if self.dead.is_none() {
            let poller = self.poller.take();
            let _ = self.die(CloseReason::Local);
            if let Some(poller) = poller {
                poller.wake();
            }
        }
    }

    fn queued_bytes(&self) -> usize {
        if self.dead.is_some() { 0 } else { self.queue.bytes() + self.channel.waiting_bytes() }
    }

    fn unacknowledged_bytes(&self) -> usize {
        self.channel.socket().unacknowledged_bytes().unwrap_or(0)
    }

    fn flow(&self) -> Option<Flow> {
        if self.dead.is_some() {
            return None;
        }
        let path = self.path_stats().ok()?;
        let queued = self.queued_bytes();
        let rate = path.window_bytes.saturating_mul(1_000_000) / u64::from(path.rtt_us.max(1));
        let unacknowledged = self.unacknowledged_bytes();
        Some(Flow {
            outstanding_bytes: queued + unacknowledged,
            beyond_bytes: usize::try_from(path.beyond_bytes).unwrap_or(usize::MAX).min(unacknowledged),
            unsent_bytes: queued + path.unsent_bytes as usize,
            rate_bytes_per_s: rate,
            round_trip: Duration::from_micros(path.rtt_us.into()),
            round_trip_min: Duration::from_micros(path.rtt_min_us.into()),
            retransmits: path.retransmits,
        })
    }

    fn bound_unsent(&mut self, bytes: usize) {
        // A quarter more or less is not worth a system call.
        if bytes.abs_diff(self.unsent_bound) > self.unsent_bound / 4 {
            self.unsent_bound = bytes;
            // Unix sockets have no such bound, and a kernel that refused it would only queue more.
            let _ = self.channel.socket().bound_unsent(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    fn prefer_congestion(&mut self, name: &str) {
        if self.dead.is_none() {
            // What the system refuses, it goes on without; a socket that has died says so when it is polled.
            let _ = self.channel.socket().prefer_congestion(name);
        }
    }

    fn congestion(&self) -> Option<String> {
        self.applied_options().ok()?.congestion
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
