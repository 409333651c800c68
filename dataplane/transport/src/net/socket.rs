//! A connected stream socket on a shard, and one that is on its way to a shard.
//!
//! Bytes move by `sendmsg` and `recvmsg` without blocking, straight between the kernel and the caller's buffers; glommio
//! (io_uring) is asked only when there is nothing to do but wait. No byte ever passes through a buffer of glommio's.

use super::options::{prefer_congestion, set_u32, unacknowledged_bytes};
use super::{AppliedOptions, NetError, PathStats, SocketOptions};
use crate::limits::SYSCALLS_PER_POLL_MAX;
use crate::tls::{Secured, TlsPeer};
use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recvmsg,
    sendmsg, sockopt,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine, as the kernel vouched for it when the connection was made.
    Unix {
        /// Process id.
        pid: i32,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// An address and port.
    Tcp(SocketAddr),
    /// The system did not say: the connection may have ended already.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { pid, uid, .. } => write!(f, "process {pid} of user {uid}"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unknown => write!(f, "unknown"),
        }
    }
}

/// A connected socket that belongs to no shard yet: it can be sent to the shard that is to serve it. Dropping it closes
/// the connection.
#[derive(Debug)]
pub struct OpenSocket {
    fd: OwnedFd,
    is_tcp: bool,
    tls: Option<Box<Secured>>,
}

impl OpenSocket {
    /// Takes over a connected stream socket, TCP or unix.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let is_tcp = matches!(sockopt::socket_domain(&fd)?, AddressFamily::INET | AddressFamily::INET6);
        Ok(Self { fd, is_tcp, tls: None })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        if self.is_tcp {
            return rustix::net::getpeername(&self.fd)
                .ok()
                .flatten()
                .and_then(|a| SocketAddr::try_from(a).ok())
                .map_or(Peer::Unknown, Peer::Tcp);
        }
        sockopt::socket_peercred(&self.fd).map_or(Peer::Unknown, |c| Peer::Unix {
            pid: c.pid.as_raw_pid(),
            uid: c.uid.as_raw(),
            gid: c.gid.as_raw(),
        })
    }

    /// The address of this end; `None` on a unix socket, or where the system does not say.
    pub fn local(&self) -> Option<SocketAddr> {
        let address = self.is_tcp.then(|| rustix::net::getsockname(&self.fd).ok()).flatten()?;
        SocketAddr::try_from(address).ok()
    }

    /// The processor on which its last packet arrived (`SO_INCOMING_CPU`, socket(7)); `None` on a unix socket.
    pub fn incoming_cpu(&self) -> Option<usize> {
        let cpu = self.is_tcp.then(|| sockopt::socket_incoming_cpu(&self.fd).ok()).flatten()?;
        usize::try_from(cpu).ok()
    }

    /// Whether this is TCP rather than a unix socket.
    pub fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    /// Who the other end has shown to be; `None` on a connection in the clear.
    pub fn tls_peer(&self) -> Option<&TlsPeer> {
        self.tls.as_ref().map(|secured| secured.peer())
    }

    /// The round trip that TCP's own handshake took, by the system's clock; `None` where that is not known.
    pub fn handshake_round_trip(&self) -> Option<Duration> {
        let stats = self.is_tcp.then(|| PathStats::read(self.fd.as_fd()).ok()).flatten()?;
        (stats.rtt_us > 0).then(|| Duration::from_micros(stats.rtt_us.into()))
    }

    pub(crate) fn with_tls(self, secured: Secured) -> Self {
        Self { tls: Some(Box::new(secured)), ..self }
    }

    /// The keys, which whoever attaches the socket must take over.
    pub(crate) fn take_tls(&mut self) -> Option<Box<Secured>> {
        self.tls.take()
    }
}

/// A connected socket on the shard that made it. One task may receive while another sends.
pub(crate) struct Socket {
    // Owns the descriptor, and is asked for readiness only.
    waiting: RefCell<TcpStream>,
    is_tcp: bool,
    // The last call took everything that was there (or filled everything that was free): ask for readiness first.
    maybe_empty: Cell<bool>,
    maybe_full: Cell<bool>,
}

impl Socket {
    /// Must run on a shard.
    pub(crate) fn attach(open: OpenSocket, options: &SocketOptions) -> Result<Self, NetError> {
        options.apply(open.fd.as_fd(), open.is_tcp)?;
        // SAFETY: `into_raw_fd` gives up the ownership that the stream takes over; it closes the descriptor when dropped.
        let stream = unsafe { TcpStream::from_raw_fd(open.fd.into_raw_fd()) };
        Ok(Self {
            waiting: RefCell::new(stream),
            is_tcp: open.is_tcp,
            maybe_empty: Cell::new(false),
            maybe_full: Cell::new(false),
        })
    }

    fn with_fd<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        let stream = self.waiting.borrow();
        // SAFETY: the stream owns the descriptor and is borrowed, so alive, until `f` returns.
        f(unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) })
    }

    /// Receives into `buffers`, as much as is there in one call. Zero bytes: the peer has finished. Readiness wakes the
    /// last task that polled.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted: usize = buffers.iter().map(|b| b.len()).sum();
        for _ in 0..SYSCALLS_PER_POLL_MAX {
            if !self.maybe_empty.get() {
                let received = self.with_fd(|fd| {
                    recvmsg(fd, buffers, &mut RecvAncillaryBuffer::default(), RecvFlags::DONTWAIT)
                });
                match received {
                    Ok(message) => {
                        // Zero is the end, and must be reported again when asked again. A unix socket gives what one of
                        // its messages held, which says nothing about the next.
                        self.maybe_empty.set(self.is_tcp && message.bytes > 0 && message.bytes < wanted);
                        return Poll::Ready(Ok(message.bytes));
                    }
                    Err(Errno::AGAIN) => self.maybe_empty.set(true),
                    Err(Errno::INTR) => continue,
                    Err(e) => return Poll::Ready(Err(e.into())),
                }
            }
            // An empty read is a readiness question: it takes no byte, and pends while there is none. Until it is
            // answered, whatever else wakes this task does not try again.
            ready!(Pin::new(&mut *self.waiting.borrow_mut()).poll_read(cx, &mut []))?;
            self.maybe_empty.set(false);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Completes when a receive would not wait.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.maybe_empty.set(false);
        Pin::new(&mut *self.waiting.borrow_mut()).poll_read(cx, &mut []).map_ok(drop)
    }

    /// Sends from `buffers` as much as the kernel takes in one call. Readiness wakes the last task that polled.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(first) = buffers.iter().find(|b| !b.is_empty()) else { return Poll::Ready(Ok(0)) };
        let wanted: usize = buffers.iter().map(|b| b.len()).sum();
        for _ in 0..SYSCALLS_PER_POLL_MAX {
            if !self.maybe_full.get() {
                let sent = self.with_fd(|fd| {
                    sendmsg(
                        fd,
                        buffers,
                        &mut SendAncillaryBuffer::default(),
                        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                    )
                });
                match sent {
                    Ok(bytes) => {
                        self.maybe_full.set(bytes < wanted);
                        return Poll::Ready(Ok(bytes));
                    }
                    Err(Errno::AGAIN) => {}
                    Err(Errno::INTR) => continue,
                    Err(e) => return Poll::Ready(Err(e.into())),
                }
            }
            // There is no empty send that waits, so the question is asked with the first buffer; it may succeed.
            self.maybe_full.set(false);
            return Pin::new(&mut *self.waiting.borrow_mut()).poll_write(cx, first);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Looks without waiting and without reading.
    pub(crate) fn is_closed_by_peer(&self) -> bool {
        self.with_fd(|fd| {
            let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            let mut asked = [PollFd::from_borrowed_fd(fd, ends)];
            // A failing poll says nothing about the peer.
            poll(&mut asked, Some(&Timespec::default())).is_ok() && asked[0].revents().intersects(ends)
        })
    }

    /// The same connection, free of this shard: the original, dropped, takes its pending readiness request with it.
    pub(crate) fn duplicate(&self) -> io::Result<OpenSocket> {
        OpenSocket::adopt(self.with_fd(|fd| fd.try_clone_to_owned())?)
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn shutdown_send(&self) -> io::Result<()> {
        Ok(self.with_fd(|fd| rustix::net::shutdown(fd, Shutdown::Write))?)
    }

    /// Ends both directions now; whoever waits on the socket is woken.
    pub(crate) fn shutdown(&self) {
        // It fails only when the connection has ended already, which is what is wanted.
        let _ = self.with_fd(|fd| rustix::net::shutdown(fd, Shutdown::Both));
    }

    pub(crate) fn unacknowledged_bytes(&self) -> io::Result<usize> {
        self.with_fd(unacknowledged_bytes)
    }

    /// `TCP_NOTSENT_LOWAT`: bytes that may wait unsent in the kernel before the socket stops being writable.
    pub(crate) fn bound_unsent(&self, bytes: u32) -> io::Result<()> {
        self.with_fd(|fd| set_u32(fd, libc::TCP_NOTSENT_LOWAT, bytes))
    }

    /// `TCP_CONGESTION`, where the system has it and grants it.
    pub(crate) fn prefer_congestion(&self, name: &str) -> io::Result<()> {
        self.with_fd(|fd| Ok(prefer_congestion(fd, name)?))
    }

    pub(crate) fn applied_options(&self) -> io::Result<AppliedOptions> {
        self.with_fd(AppliedOptions::read)
    }

    pub(crate) fn path_stats(&self) -> io::Result<PathStats> {
        if !self.is_tcp {
            return Ok(PathStats::default());
        }
        self.with_fd(PathStats::read)
    }
}
