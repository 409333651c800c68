//! What a stream reads and writes: its socket, or TLS over it.

use super::TlsPeer;
use super::engine::{Arrived, Engine, Outgoing, RECORD_BYTES_MAX, RECORD_EXTRA_BYTES, Seal, Stepped};
use super::handshake::{Secured, alert};
use crate::limits::{SYSCALLS_PER_POLL_MAX, TLS_RECEIVE_BYTES, TLS_SEAL_BYTES};
use crate::net::{OpenSocket, Socket};
use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};

/// A stream's socket, in the clear or under TLS.
pub(crate) enum Channel {
    Plain(Socket),
    Tls(Box<Tls>),
}

/// TLS over a socket.
///
/// Sending, a byte is copied into its record, sealed there, and copied into what the socket takes: both copies are within a
/// record, so within the nearest cache. Receiving, it is opened where it arrived, copied out by the library, and copied into
/// its frame.
pub(crate) struct Tls {
    socket: Socket,
    engine: Engine,
    peer: TlsPeer,
    incoming: Vec<u8>,
    start: usize,
    end: usize,
    /// Deciphered bytes that found no room where they were to go.
    plain: Vec<u8>,
    plain_start: usize,
    out: Outgoing,
    /// Small frames on their way into one record.
    gathered: Vec<u8>,
    /// The peer has said farewell: nothing more comes.
    farewell: bool,
    /// Why the connection has failed: its keys are not to be used again.
    failed: Option<String>,
}

fn broken(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Channel {
    pub(crate) fn new(socket: Socket, secured: Option<Box<Secured>>) -> Self {
        let Some(secured) = secured else { return Self::Plain(socket) };
        let Secured { engine, plain, rest, peer } = *secured;
        let end = rest.len();
        let mut incoming = rest;
        incoming.resize(TLS_RECEIVE_BYTES.max(end), 0);
        Self::Tls(Box::new(Tls {
            socket,
            engine,
            peer,
            incoming,
            start: 0,
            end,
            plain,
            plain_start: 0,
            out: Outgoing::default(),
            gathered: Vec::new(),
            farewell: false,
            failed: None,
        }))
    }

    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    /// Who the other end has shown to be; `None` in the clear.
    pub(crate) fn tls_peer(&self) -> Option<&TlsPeer> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(&tls.peer),
        }
    }

    /// Bytes taken to be sent that the socket has not.
    pub(crate) fn waiting_bytes(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.out.waiting().len(),
        }
    }

    /// The connection without this shard. Refused while bytes wait that would be lost.
    pub(crate) fn detach(self) -> io::Result<OpenSocket> {
        match self {
            Self::Plain(socket) => socket.duplicate(),
            Self::Tls(mut tls) => {
                if !tls.out.waiting().is_empty() {
                    return Err(io::Error::other("bytes wait to be sent"));
                }
                tls.plain.drain(..tls.plain_start);
                let rest = tls.incoming[tls.start..tls.end].to_vec();
                let open = tls.socket.duplicate()?;
                Ok(open.with_tls(Secured { engine: tls.engine, plain: tls.plain, rest, peer: tls.peer }))
            }
        }
    }

    /// Receives into `buffers`, as [`Socket::poll_receive`].
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_receive(cx, buffers),
            Self::Tls(tls) => tls.poll_receive(cx, buffers),
        }
    }

    /// Takes bytes from `buffers`, as [`Socket::poll_send`]; some may wait in this process (see [`Channel::poll_flush`]).
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_send(cx, buffers),
            Self::Tls(tls) => tls.poll_send(cx, buffers),
        }
    }

    /// Completes when nothing waits in this process.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Prepares the farewell, if this kind has one: to be flushed before the socket is told.
    pub(crate) fn say_farewell(&mut self) {
        if let Self::Tls(tls) = self {
            // A connection that is broken needs none.
            let _ = tls.seal(Seal::Farewell);
        }
    }
}

/// Where deciphered bytes go: into the reader's buffers, one after the other.
struct Into<'a, 'b> {
    buffers: &'a mut [IoSliceMut<'b>],
    at: usize,
    filled: usize,
    total: usize,
}

impl Into<'_, '_> {
    fn is_full(&mut self) -> bool {
        while self.buffers.get(self.at).is_some_and(|buffer| self.filled == buffer.len()) {
            self.at += 1;
            self.filled = 0;
        }
        self.at == self.buffers.len()
    }

    /// Returns what found no room.
    fn take<'d>(&mut self, mut data: &'d [u8]) -> &'d [u8] {
        while !data.is_empty() && !self.is_full() {
            let room = &mut self.buffers[self.at][self.filled..];
            let count = room.len().min(data.len());
            room[..count].copy_from_slice(&data[..count]);
            self.filled += count;
            self.total += count;
            data = &data[count..];
        }
        data
    }
}

impl Tls {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..SYSCALLS_PER_POLL_MAX {
            let taken = self.open_what_is_there(buffers)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            if self.farewell {
                return Poll::Ready(Ok(0));
            }
            // What TLS itself has to say in return leaves when the socket has room.
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.incoming.len() {
                let why = "a TLS record is longer than any may be";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            let room = &mut self.incoming[self.end..];
            match ready!(self.socket.poll_receive(cx, &mut [IoSliceMut::new(room)]))? {
                0 => {
                    // Whoever can cut a connection must not be able to make that look like an end.
                    let why = "the connection was cut: it ended without TLS's farewell";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
                }
                count => self.end += count,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Deciphers whole records until `buffers` are full. Returns how many bytes these got; the rest of the last record waits.
    fn open_what_is_there(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.check()?;
        let mut into = Into { buffers, at: 0, filled: 0, total: 0 };
        if !into.take(&self.plain[self.plain_start..]).is_empty() {
            self.plain_start += into.total;
            return Ok(into.total);
        }
        self.plain.clear();
        self.plain_start = 0;
        let plain = &mut self.plain;
        while !self.farewell && !into.is_full() {
            let incoming = &mut self.incoming[self.start..self.end];
            let mut take = |data: &[u8]| plain.extend_from_slice(into.take(data));
            let (done, stepped) = self.engine.step(incoming, &mut self.out, None, &mut take);
            self.start += done;
            match stepped {
                Ok(Stepped::Again | Stepped::Sealed) => {}
                Ok(Stepped::Wants | Stepped::Ready) => break,
                Ok(Stepped::Farewell) => self.farewell = true,
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(into.total)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.waiting().is_empty() {
            let sent = ready!(self.socket.poll_send(cx, &[IoSlice::new(self.out.waiting())]))?;
            self.out.sent(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let mut taken = 0;
        for buffer in buffers {
            let room = TLS_SEAL_BYTES - taken - self.gathered.len();
            let part = &buffer[..buffer.len().min(room)];
            // Small frames share a record; a large one fills records of its own.
            if self.gathered.len() + part.len() <= RECORD_BYTES_MAX && part.len() < RECORD_BYTES_MAX / 2 {
                self.gathered.extend_from_slice(part);
            } else {
                taken += self.seal_gathered()?;
                self.seal(Seal::Data(part))?;
                taken += part.len();
            }
            if part.len() < buffer.len() || taken + self.gathered.len() >= TLS_SEAL_BYTES {
                break;
            }
        }
        taken += self.seal_gathered()?;
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What the socket did not take waits here, and wakes this task.
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn seal_gathered(&mut self) -> io::Result<usize> {
        let gathered = std::mem::take(&mut self.gathered);
        if !gathered.is_empty() {
            self.seal(Seal::Data(&gathered))?;
        }
        let count = gathered.len();
        self.gathered = gathered;
        self.gathered.clear();
        Ok(count)
    }

    fn seal(&mut self, what: Seal<'_>) -> io::Result<()> {
        self.check()?;
        let arrived = Arrived {
            incoming: &mut self.incoming[..self.end],
            done: &mut self.start,
            plain: &mut self.plain,
        };
        let sealed = self.engine.seal(what, arrived, &mut self.out);
        sealed.map_err(|error| self.fail(error))
    }

    /// The peer is told, as well as it can be, and no key is used again.
    fn fail(&mut self, error: rustls::Error) -> io::Error {
        self.engine.last_words(&mut self.incoming[self.start..self.end], &mut self.out);
        let text = match error {
            rustls::Error::AlertReceived(why) => alert(why),
            error => format!("what arrived is not what the peer sent: {error}"),
        };
        self.failed = Some(text.clone());
        broken(text)
    }

    fn check(&self) -> io::Result<()> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(broken(why.clone())))
    }
}

const _: () = assert!(TLS_RECEIVE_BYTES > 2 * (RECORD_BYTES_MAX + 256 + RECORD_EXTRA_BYTES));
const _: () = assert!(TLS_SEAL_BYTES >= RECORD_BYTES_MAX);
