//! A TLS handshake with a peer's gateway that looks at everything and believes nothing: what the peer shows is verified
//! afterwards, so that a fault is told and not only felt. No guest's byte and no session's secret is sent.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use novacron_keys::{Certificate, Secret};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::socket;
use crate::limits::{
    DOCTOR_ANSWER, DOCTOR_HANDSHAKE, DOCTOR_PROBE_BYTES, DOCTOR_PROBE_CERTIFICATES_MAX, DOCTOR_REFUSAL,
};

/// What gateways agree on inside TLS.
const PROTOCOL: &[u8] = b"dwcp/1";

/// What was seen of a peer.
#[derive(Debug)]
pub(super) struct Met {
    /// The key exchange.
    pub(super) key_exchange: String,
    /// The cipher suite.
    pub(super) cipher_suite: String,
    /// The certificate that the peer showed, if it can be read.
    pub(super) certificate: Result<Certificate, String>,
    /// Why the peer refused this side's, if it did.
    pub(super) refused: Option<String>,
    /// Path MTU, largest segment, and whether full ones arrived.
    pub(super) mtu: Option<u32>,
    pub(super) segment: Option<u32>,
    pub(super) arrived: Option<bool>,
    pub(super) probe_bytes: usize,
}

/// Why there was nothing to see.
#[derive(Debug)]
pub(super) enum Unmet {
    /// No TCP connection.
    Connect(io::Error),
    /// It connected, and then nothing came: large segments may get lost.
    Silent,
    /// It closed the connection, or speaks something else.
    Closed(String),
    /// This side's own files.
    Own(String),
}

/// Notes the peer's certificate; whether it is to be believed is asked afterwards.
#[derive(Debug)]
struct Noting(Arc<CryptoProvider>);

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What this side shows: its certificate, again and again, so that full segments go towards the peer that mean something
/// to TLS. The copies are nobody's issuer: whoever verifies the first passes over them at no cost, and refuses it for its
/// own sake.
fn shown(own: &Certificate) -> Vec<CertificateDer<'static>> {
    let copies = 1 + DOCTOR_PROBE_BYTES / own.der.len().max(1);
    vec![CertificateDer::from(own.der.clone()); copies.min(DOCTOR_PROBE_CERTIFICATES_MAX)]
}

/// Shakes hands once. With `segment`, no larger ones are sent.
pub(super) fn meet(
    address: SocketAddr,
    own: &Certificate,
    key: &Secret,
    segment: Option<u32>,
) -> Result<Met, Unmet> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = shown(own);
    let probe_bytes = chain.iter().map(|one| one.len()).sum();
    // The library's words may repeat what it read, and that is a key.
    let key = PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|_| Unmet::Own("gateway.key is no private key in PEM (PKCS#8)".into()))?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|why| Unmet::Own(why.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Noting(provider)))
        .with_client_auth_cert(chain, key)
        .map_err(|why| Unmet::Own(format!("gateway.key and gateway.crt: {why}")))?;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
    let mut tls =
        ClientConnection::new(Arc::new(config), nobody).map_err(|why| Unmet::Own(why.to_string()))?;

    let mut stream = socket::connect(address, segment, DOCTOR_ANSWER).map_err(Unmet::Connect)?;
    let deadline = Instant::now() + DOCTOR_HANDSHAKE;
    while tls.is_handshaking() {
        step(&mut tls, &mut stream, deadline)?;
    }
    while tls.wants_write() {
        tls.write_tls(&mut stream).map_err(|why| Unmet::Closed(why.to_string()))?;
    }
    let group =
        tls.negotiated_key_exchange_group().map_or_else(String::new, |group| format!("{:?}", group.name()));
    let suite =
        tls.negotiated_cipher_suite().map_or_else(String::new, |suite| format!("{:?}", suite.suite()));
    let certificate = tls
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or_else(|| "it showed none".to_owned())
        .and_then(|leaf| Certificate::from_der(leaf).map_err(|why| why.to_string()));
    let arrived = socket::acknowledged(&stream, DOCTOR_ANSWER);
    let met = Met {
        key_exchange: group,
        cipher_suite: suite,
        certificate,
        refused: refusal(&mut tls, &mut stream),
        mtu: socket::mtu(&stream),
        segment: socket::segment(&stream),
        arrived,
        probe_bytes,
    };
    tls.send_close_notify();
    let _ = tls.write_tls(&mut stream);
    Ok(met)
}

fn step(tls: &mut ClientConnection, stream: &mut TcpStream, deadline: Instant) -> Result<(), Unmet> {
    let closed = |why: io::Error| match why.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Unmet::Silent,
        _ => Unmet::Closed(why.to_string()),
    };
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_write_timeout(Some(left)).map_err(closed)?;
    stream.set_read_timeout(Some(left)).map_err(closed)?;
    if tls.wants_write() {
        tls.write_tls(stream).map_err(closed)?;
    } else if tls.read_tls(stream).map_err(closed)? == 0 {
        return Err(Unmet::Closed("it closed the connection".into()));
    } else if let Err(why) = tls.process_new_packets() {
        return Err(Unmet::Closed(why.to_string()));
    }
    if Instant::now() >= deadline { Err(Unmet::Silent) } else { Ok(()) }
}

/// Waits a moment for a no. A peer that says nothing has accepted.
fn refusal(tls: &mut ClientConnection, stream: &mut TcpStream) -> Option<String> {
    let deadline = Instant::now() + DOCTOR_REFUSAL;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) || stream.set_read_timeout(Some(left)).is_err() {
            return None;
        }
        match tls.read_tls(stream) {
            Ok(0) => return Some("it closed the connection".into()),
            Ok(_) => match tls.process_new_packets() {
                Err(why) => return Some(why.to_string()),
                Ok(state) if state.peer_has_closed() => return Some("it said farewell at once".into()),
                Ok(_) => {}
            },
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => return Some(why.to_string()),
        }
    }
}
