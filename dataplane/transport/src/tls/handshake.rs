//! From a connected socket to one with keys, or to a reason why not.

use super::credentials::PROTOCOL;
use super::engine::{Engine, Outgoing, RECORD_BYTES_MAX, Stepped};
use super::{TlsCredentials, TlsPeer};
use crate::limits::TLS_HANDSHAKE_BYTES_MAX;
use crate::net::{OpenSocket, Socket, SocketOptions};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, CertificateError, Error};
use std::fmt;
use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::task::Poll;

/// Keys of a stream, and what has arrived for it already.
pub(crate) struct Secured {
    pub(super) engine: Engine,
    /// Plaintext that came with the handshake's last bytes.
    pub(super) plain: Vec<u8>,
    /// Bytes after that, not deciphered yet.
    pub(super) rest: Vec<u8>,
    pub(super) peer: TlsPeer,
}

impl Secured {
    /// Who the other end is.
    pub(crate) fn peer(&self) -> &TlsPeer {
        &self.peer
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("peer", &self.peer.identity).finish_non_exhaustive()
    }
}

/// Why there is no secure stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Its certificate is past its time.
    Expired,
    /// Its certificate's time has not come; or a clock is wrong.
    NotYetValid,
    /// Its certificate was revoked.
    Revoked,
    /// No authority that is believed here issued its certificate.
    UnknownAuthority,
    /// Its certificate is not one for this: its name, its purpose, its encoding.
    WrongCertificate,
    /// It showed none.
    NoCertificate,
    /// It speaks no TLS, an older one, or without the key exchange that is asked for.
    Protocol,
    /// It refused this side.
    RefusedByPeer,
    /// It closed the connection, or sent too much.
    Broken,
}

impl Refusal {
    /// All of them, for counters.
    pub const ALL: [Self; 9] = [
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::UnknownAuthority,
        Self::WrongCertificate,
        Self::NoCertificate,
        Self::Protocol,
        Self::RefusedByPeer,
        Self::Broken,
    ];

    /// As counters and scripts know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::UnknownAuthority => "unknown_authority",
            Self::WrongCertificate => "wrong_certificate",
            Self::NoCertificate => "no_certificate",
            Self::Protocol => "protocol",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Broken => "broken",
        }
    }
}

/// A handshake failed. Nothing but the handshake was exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFailure {
    /// Which kind of reason.
    pub refusal: Refusal,
    text: String,
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsFailure {}

impl TlsFailure {
    fn broken(text: impl Into<String>) -> Self {
        Self { refusal: Refusal::Broken, text: text.into() }
    }
}

/// What the peer's alert means to people.
pub(super) fn alert(alert: AlertDescription) -> String {
    let said = match alert {
        AlertDescription::CertificateExpired => "this gateway's certificate has expired",
        AlertDescription::CertificateRevoked => "this gateway's certificate was revoked",
        AlertDescription::UnknownCA => {
            "it knows no authority that vouches for this gateway: pair the two sites"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => "it does not take this gateway's certificate",
        AlertDescription::CertificateRequired => "this gateway showed no certificate",
        AlertDescription::ProtocolVersion => "it speaks no TLS 1.3",
        AlertDescription::HandshakeFailure => "it has no key exchange in common with this gateway",
        AlertDescription::NoApplicationProtocol => "it speaks TLS, but is no gateway",
        _ => return format!("the peer refused with the TLS alert {alert:?}"),
    };
    format!("the peer refused: {said}")
}

/// What is wrong with a certificate, in words that fit any.
pub(super) fn fault(error: Error) -> String {
    failure(error).text.replace("the peer's certificate", "the certificate")
}

fn failure(error: Error) -> TlsFailure {
    let (refusal, text) = match &error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                (Refusal::Expired, "the peer's certificate has expired".to_owned())
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                Refusal::NotYetValid,
                "the peer's certificate is not valid yet: compare the clocks".to_owned(),
            ),
            CertificateError::Revoked => (Refusal::Revoked, "the peer's certificate was revoked".to_owned()),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                Refusal::UnknownAuthority,
                "no authority that is known here vouches for the peer's certificate: pair the two sites"
                    .to_owned(),
            ),
            CertificateError::Other(why) => {
                (Refusal::WrongCertificate, format!("the peer's certificate is not taken: {}", why.0))
            }
            why => (Refusal::WrongCertificate, format!("the peer's certificate is not taken: {why}")),
        },
        Error::NoCertificatesPresented => {
            (Refusal::NoCertificate, "the peer showed no certificate".to_owned())
        }
        Error::AlertReceived(why) => (Refusal::RefusedByPeer, alert(*why)),
        Error::NoApplicationProtocol => {
            (Refusal::Protocol, "the peer speaks TLS, but is no gateway".to_owned())
        }
        Error::InvalidMessage(_) => (Refusal::Protocol, format!("the peer speaks no TLS: {error}")),
        _ => (Refusal::Protocol, format!("no TLS 1.3 with X25519MLKEM768 with this peer: {error}")),
    };
    TlsFailure { refusal, text }
}

impl TlsCredentials {
    /// Secures a connection that this side made. Must run on a shard; takes as long as the peer lets it, so give it a time
    /// limit.
    pub async fn secure_dialled(&self, socket: OpenSocket) -> Result<OpenSocket, TlsFailure> {
        let client =
            UnbufferedClientConnection::new(Arc::clone(&self.client), Self::no_name()).map_err(failure)?;
        let engine = Engine::Client(Box::new(client));
        secure(engine, attach(socket)?, incoming(), 0).await
    }

    /// The same for a connection that was accepted. At most [`TLS_HANDSHAKE_BYTES_MAX`] are read. Once the peer's first record
    /// has arrived, `turn` is waited for: nothing before it costs more than the read, what follows costs cryptography.
    pub async fn secure_accepted(
        &self,
        socket: OpenSocket,
        turn: impl Future<Output = ()>,
    ) -> Result<OpenSocket, TlsFailure> {
        let (socket, mut incoming, mut end) = (attach(socket)?, incoming(), 0);
        while !holds_a_record(&incoming[..end]) {
            end += receive(&socket, &mut incoming[end..]).await?;
        }
        turn.await;
        let server = UnbufferedServerConnection::new(Arc::clone(&self.server)).map_err(failure)?;
        secure(Engine::Server(Box::new(server)), socket, incoming, end).await
    }
}

async fn flush(socket: &Socket, out: &mut Outgoing) -> Result<(), TlsFailure> {
    while !out.waiting().is_empty() {
        let sent = poll_fn(|cx| socket.poll_send(cx, &[IoSlice::new(out.waiting())])).await;
        out.sent(sent.map_err(|error| TlsFailure::broken(format!("the handshake cannot be sent: {error}")))?);
    }
    Ok(())
}

fn attach(open: OpenSocket) -> Result<Socket, TlsFailure> {
    Socket::attach(open, &SocketOptions::for_streams()).map_err(|error| TlsFailure::broken(error.to_string()))
}

/// Room for all that a handshake may be.
fn incoming() -> Vec<u8> {
    vec![0; TLS_HANDSHAKE_BYTES_MAX]
}

/// Whether a whole record has arrived (RFC 8446, 5.1), or what begins none: the engine refuses that.
fn holds_a_record(received: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    const HEADER_BYTES: usize = 5;
    match *received {
        [] => false,
        [kind, ..] if kind != HANDSHAKE => true,
        [_, _, _, high, low, ..] => {
            let payload = usize::from(u16::from_be_bytes([high, low]));
            payload > RECORD_BYTES_MAX || received.len() >= HEADER_BYTES + payload
        }
        _ => false,
    }
}

async fn receive(socket: &Socket, room: &mut [u8]) -> Result<usize, TlsFailure> {
    if room.is_empty() {
        let why = format!("the peer's handshake is longer than {TLS_HANDSHAKE_BYTES_MAX} bytes");
        return Err(TlsFailure::broken(why));
    }
    match poll_fn(|cx| socket.poll_receive(cx, &mut [IoSliceMut::new(&mut room[..])])).await {
        Ok(0) => Err(TlsFailure::broken("the peer closed the connection during the handshake")),
        Ok(count) => Ok(count),
        Err(error) => Err(TlsFailure::broken(format!("the connection broke during the handshake: {error}"))),
    }
}

/// Goes on from the first `end` bytes of `incoming`, which have arrived.
async fn secure(
    mut engine: Engine,
    socket: Socket,
    mut incoming: Vec<u8>,
    mut end: usize,
) -> Result<OpenSocket, TlsFailure> {
    let (mut start, mut out, mut plain) = (0, Outgoing::default(), Vec::new());
    loop {
        let (done, stepped) =
            engine.step(&mut incoming[start..end], &mut out, None, &mut |data| plain.extend_from_slice(data));
        start += done;
        match stepped {
            Ok(Stepped::Again | Stepped::Sealed) => {}
            Ok(Stepped::Wants) => {
                flush(&socket, &mut out).await?;
                end += receive(&socket, &mut incoming[end..]).await?;
            }
            Ok(Stepped::Ready) => break,
            Ok(Stepped::Farewell) => {
                return Err(TlsFailure::broken("the peer said farewell during the handshake"));
            }
            Err(error) => {
                engine.last_words(&mut incoming[start..end], &mut out);
                // One try: whoever was refused may not be listening.
                let words = out.waiting().to_vec();
                let _ = poll_fn(|cx| Poll::Ready(socket.poll_send(cx, &[IoSlice::new(&words)]))).await;
                return Err(failure(error));
            }
        }
    }
    flush(&socket, &mut out).await?;
    let state = engine.state();
    if state.alpn_protocol() != Some(PROTOCOL) {
        return Err(failure(Error::NoApplicationProtocol));
    }
    let chain = state.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    let identity = TlsCredentials::name_of(&chain).ok_or_else(|| failure(Error::NoCertificatesPresented))?;
    let peer = TlsPeer {
        identity,
        key_exchange: state
            .negotiated_key_exchange_group()
            .map_or_else(String::new, |group| format!("{:?}", group.name())),
        cipher_suite: state
            .negotiated_cipher_suite()
            .map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        chain,
    };
    let rest = incoming[start..end].to_vec();
    let open = socket.duplicate().map_err(|error| TlsFailure::broken(error.to_string()))?;
    Ok(open.with_tls(Secured { engine, plain, rest, peer }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_when_its_last_byte_is_there() {
        let record = [&[22, 3, 1, 0, 40][..], &[1; 40]].concat();
        for held in 0..record.len() {
            assert!(!holds_a_record(&record[..held]), "{held} bytes of {}", record.len());
        }
        assert!(holds_a_record(&record));
        assert!(holds_a_record(&[record, vec![22]].concat()));
        // What no record can be is not waited for.
        assert!(holds_a_record(b"G"));
        assert!(holds_a_record(&[22, 3, 1, 0xff, 0xff]));
    }
}
