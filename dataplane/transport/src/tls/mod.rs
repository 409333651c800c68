//! Streams that nobody else can read, between gateways that know each other: mutual TLS 1.3.
//!
//! ```text
//!  credentials   files -> what this gateway shows and whom it believes
//!  verify        a peer's certificate: chain, purpose, time, revocation, and its one name
//!  handshake     a connected socket -> the same socket with keys, or why not
//!  engine        rustls without sockets: bytes in, bytes out
//!  channel       what a stream reads and writes: its socket, or TLS over it
//! ```
//!
//! Only TLS 1.3, only X25519MLKEM768 for the key exchange, no early data and no resumption: each stream shows its
//! certificate anew, so that a revoked one opens nothing. A stream that ends without TLS's farewell was cut, and says so.

mod channel;
mod credentials;
mod engine;
mod handshake;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use channel::Channel;
pub use credentials::{CredentialError, TlsCredentials, TlsFiles};
pub(crate) use handshake::Secured;
pub use handshake::{Refusal, TlsFailure};
pub use verify::Vouches;

use rustls::pki_types::CertificateDer;

/// What a handshake found out about a stream's other end.
#[derive(Debug, Clone)]
pub struct TlsPeer {
    /// The name in its certificate.
    pub identity: String,
    /// The key exchange, e.g. `X25519MLKEM768`.
    pub key_exchange: String,
    /// The cipher suite, e.g. `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// Its certificates, its own first: asked again when revocation lists change.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}
