//! rustls without sockets: bytes in, bytes out.

use crate::limits::TLS_SEAL_BYTES;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, Error};

/// What TLS adds to a record at most: its header, the inner type, a tag.
pub(super) const RECORD_EXTRA_BYTES: usize = 5 + 1 + 16;

/// Plaintext of a full record (RFC 8446, section 5.1).
pub(super) const RECORD_BYTES_MAX: usize = 16 * 1024;

/// One end of a TLS connection.
pub(super) enum Engine {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stepped {
    /// There may be more to do with what is there.
    Again,
    /// The handshake needs more bytes.
    Wants,
    /// The handshake is over, and no whole record is there.
    Ready,
    /// The peer has said farewell.
    Farewell,
    /// What was asked for was sealed.
    Sealed,
}

/// What is to be sealed.
#[derive(Clone, Copy)]
pub(super) enum Seal<'a> {
    Data(&'a [u8]),
    Farewell,
}

/// Bytes that wait for the socket. Memory is reused and filled with zeros once.
#[derive(Default)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn sent(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room for `bytes` more.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.buffer.len() - self.end < bytes {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let wanted = (self.end + bytes).max(TLS_SEAL_BYTES / 16);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
        &mut self.buffer[self.end..]
    }
}

impl Engine {
    pub(super) fn state(&self) -> &CommonState {
        match self {
            Self::Client(client) => client,
            Self::Server(server) => server,
        }
    }

    /// One step with what has arrived. Returns how many of the bytes at the front are done with.
    pub(super) fn step(
        &mut self,
        incoming: &mut [u8],
        out: &mut Outgoing,
        seal: Option<Seal<'_>>,
        take: &mut dyn FnMut(&[u8]),
    ) -> (usize, Result<Stepped, Error>) {
        match self {
            Self::Client(client) => handle(client.process_tls_records(incoming), out, seal, take),
            Self::Server(server) => handle(server.process_tls_records(incoming), out, seal, take),
        }
    }

    /// Seals something; whatever TLS itself has to say leaves before it. Fails on a connection that is not open. The library
    /// wants to see what has arrived and is not done with, whatever it is asked for: records that are whole are opened on the
    /// way, and `done` moves past them.
    pub(super) fn seal(
        &mut self,
        what: Seal<'_>,
        arrived: Arrived<'_>,
        out: &mut Outgoing,
    ) -> Result<(), Error> {
        let Arrived { incoming, done, plain } = arrived;
        loop {
            let (discard, stepped) =
                self.step(&mut incoming[*done..], out, Some(what), &mut |data| plain.extend_from_slice(data));
            *done += discard;
            match stepped? {
                Stepped::Sealed => return Ok(()),
                // Each of these takes something away: a record, a message of TLS's own, the farewell.
                Stepped::Again => {}
                Stepped::Farewell | Stepped::Wants | Stepped::Ready => {
                    return Err(Error::HandshakeNotComplete);
                }
            }
        }
    }

    /// After an error: what the peer is to be told of it. Once, and nothing after it: a connection that has failed must not
    /// be asked again. `incoming` is what had arrived when it happened.
    pub(super) fn last_words(&mut self, incoming: &mut [u8], out: &mut Outgoing) {
        // An alert that waits is what it gives first; without one it fails again.
        let _ = self.step(incoming, out, None, &mut |_| {});
    }
}

/// What has arrived: bytes, how many of them are done with, and where opened records go.
pub(super) struct Arrived<'a> {
    pub(super) incoming: &'a mut [u8],
    pub(super) done: &'a mut usize,
    pub(super) plain: &'a mut Vec<u8>,
}

fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    out: &mut Outgoing,
    seal: Option<Seal<'_>>,
    take: &mut dyn FnMut(&[u8]),
) -> (usize, Result<Stepped, Error>) {
    let discard = status.discard;
    (discard, status.state.and_then(|state| enter(state, out, seal, take)))
}

fn enter<D>(
    state: ConnectionState<'_, '_, D>,
    out: &mut Outgoing,
    seal: Option<Seal<'_>>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<Stepped, Error> {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                take(record?.payload);
            }
            Ok(Stepped::Again)
        }
        ConnectionState::EncodeTlsData(mut message) => {
            let mut wanted = 0;
            loop {
                match message.encode(out.room(wanted)) {
                    Ok(count) => out.end += count,
                    Err(EncodeError::InsufficientSize(size)) if wanted == 0 => {
                        wanted = size.required_size;
                        continue;
                    }
                    Err(error) => return Err(Error::General(error.to_string())),
                }
                return Ok(Stepped::Again);
            }
        }
        ConnectionState::TransmitTlsData(message) => {
            message.done();
            Ok(Stepped::Again)
        }
        ConnectionState::WriteTraffic(mut traffic) => {
            let (sealed, wanted) = match seal {
                None => return Ok(Stepped::Ready),
                Some(Seal::Data(data)) => {
                    let records = data.len().div_ceil(RECORD_BYTES_MAX) + 1;
                    let wanted = data.len() + records * RECORD_EXTRA_BYTES;
                    (traffic.encrypt(data, out.room(wanted)), wanted)
                }
                Some(Seal::Farewell) => (traffic.queue_close_notify(out.room(64)), 64),
            };
            let sealed = match sealed {
                // Besides the data there was a message of TLS's own.
                Err(EncryptError::InsufficientSize(size)) if size.required_size > wanted => match seal {
                    Some(Seal::Data(data)) => traffic.encrypt(data, out.room(size.required_size)),
                    _ => traffic.queue_close_notify(out.room(size.required_size)),
                },
                sealed => sealed,
            };
            out.end += sealed.map_err(|error| Error::General(error.to_string()))?;
            Ok(Stepped::Sealed)
        }
        ConnectionState::BlockedHandshake => Ok(Stepped::Wants),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Stepped::Farewell),
        // Early data is off on both sides; whatever else comes is nothing that is known here.
        _ => Err(Error::General("unexpected state of TLS".to_owned())),
    }
}
