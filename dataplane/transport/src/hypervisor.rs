//! The hypervisor's side: byte streams, read in batches and written in order.

use crate::net::{AppliedOptions, NetError, OpenSocket, Peer, Socket, SocketOptions};
use crate::pool::FrameBuffer;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::task::{Context, Poll, ready};

/// Buffers handed to one `sendmsg`.
const BUFFERS_PER_SEND_MAX: usize = 16;

/// A hypervisor's socket on a shard. It is used through shared references: one task may read while another writes, not
/// more than one each. Dropping it closes the connection.
pub struct HypervisorStream {
    socket: Socket,
    peer: Peer,
}

impl std::fmt::Debug for HypervisorStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HypervisorStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl HypervisorStream {
    /// Takes over a socket that was accepted or connected, on the shard that will serve it.
    pub fn attach(open: OpenSocket, options: &SocketOptions) -> Result<Self, NetError> {
        let peer = open.peer();
        Ok(Self { socket: Socket::attach(open, options)?, peer })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Options as the socket has them.
    pub fn applied_options(&self) -> io::Result<AppliedOptions> {
        self.socket.applied_options()
    }

    /// Reads into `buffer[range]` whatever is there, up to its end, waiting only while there is nothing; returns how many
    /// bytes, 0 when the hypervisor has finished (or the range is empty). Room before the range is the caller's headroom.
    /// Cancelling loses nothing. A range beyond the buffer is an error of kind `InvalidInput`.
    pub async fn read(&self, buffer: &mut FrameBuffer, range: Range<usize>) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer, range.clone())).await
    }

    /// See [`HypervisorStream::read`].
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut FrameBuffer,
        range: Range<usize>,
    ) -> Poll<io::Result<usize>> {
        let Some(target) = buffer.get_mut(range) else {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, "range beyond the buffer")));
        };
        self.poll_read_slice(cx, target)
    }

    /// Like [`HypervisorStream::read`], into any memory.
    pub async fn read_slice(&self, target: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read_slice(cx, target)).await
    }

    /// Completes when there is something to read, an end or an error included, so that a buffer need not be held while
    /// nothing comes.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.socket.poll_readable(cx)).await
    }

    fn poll_read_slice(&self, cx: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        if target.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.socket.poll_receive(cx, &mut [IoSliceMut::new(target)])
    }

    /// Writes all of `bytes`. When cancelled or failed, a part may have been written: the connection is unusable then.
    pub async fn write_all(&self, bytes: Bytes) -> io::Result<()> {
        let mut queue = VecDeque::from([bytes]);
        self.write_queue(&mut queue).await
    }

    /// Writes and removes everything in `queue`, several buffers in one system call. What remains in the queue when this is
    /// cancelled or fails has not been written, so that it can be called again after a cancellation.
    pub async fn write_queue(&self, queue: &mut VecDeque<Bytes>) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                while queue.front().is_some_and(Bytes::is_empty) {
                    queue.pop_front();
                }
                if queue.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_write_some(cx, queue))?;
            }
        })
        .await
    }

    /// Writes some bytes from the front of `queue` in one system call and removes them; returns how many.
    pub fn poll_write_some(
        &self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); BUFFERS_PER_SEND_MAX];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(queue.iter()) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let sent = ready!(self.socket.poll_send(cx, &slices[..count]))?;
        let mut left = sent;
        while left > 0 {
            let Some(front) = queue.front_mut() else { break };
            if front.len() > left {
                front.advance(left);
                break;
            }
            left -= front.len();
            queue.pop_front();
        }
        Poll::Ready(Ok(sent))
    }

    /// Whether the hypervisor has closed its side, or the connection has failed, whatever is still unread.
    pub fn is_closed_by_peer(&self) -> bool {
        self.socket.is_closed_by_peer()
    }

    /// Tells the hypervisor that nothing more comes; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.socket.shutdown_send()
    }

    /// Ends both directions now and wakes the tasks that read and write. The descriptor closes when this is dropped.
    pub fn close(&self) {
        self.socket.shutdown();
    }

    /// Bytes written that the hypervisor has not read (unix) or its kernel has not acknowledged (TCP).
    pub fn unread_bytes(&self) -> io::Result<usize> {
        self.socket.unacknowledged_bytes()
    }
}

#[cfg(test)]
#[path = "hypervisor_tests.rs"]
mod tests;
