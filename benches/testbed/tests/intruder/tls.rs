//! A program that speaks TLS as a gateway does, with a certificate that a test chose, and believes whoever answers.

use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use novacron_testbed::Gateway;
use novacron_testbed::identity::Paper;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::wire::dial;

/// A stream to a gateway under TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

#[derive(Debug)]
struct Believing(Arc<CryptoProvider>);

impl ServerCertVerifier for Believing {
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

/// How a program presents itself.
pub(crate) struct Manner<'a> {
    /// `None`: it shows no certificate.
    pub(crate) paper: Option<&'a Paper>,
    pub(crate) group: &'static dyn SupportedKxGroup,
    /// What it wants to speak inside.
    pub(crate) protocol: &'a [u8],
}

impl<'a> Manner<'a> {
    /// As a gateway does.
    pub(crate) fn of(paper: &'a Paper) -> Self {
        Self { paper: Some(paper), group: aws_lc_rs::kx_group::X25519MLKEM768, protocol: b"dwcp/1" }
    }
}

/// Dials a gateway. That the gateway refuses is seen when something is read.
pub(crate) fn dial_tls(gateway: &Gateway, manner: &Manner<'_>) -> Result<TlsStream> {
    Ok(StreamOwned::new(connection(manner)?, dial(gateway)?))
}

/// What whoever dials says first.
pub(crate) fn first_word(manner: &Manner<'_>) -> Result<Vec<u8>> {
    let mut word = Vec::new();
    connection(manner)?.write_tls(&mut word)?;
    Ok(word)
}

fn connection(manner: &Manner<'_>) -> Result<ClientConnection> {
    let provider = CryptoProvider { kx_groups: vec![manner.group], ..aws_lc_rs::default_provider() };
    let provider = Arc::new(provider);
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believing(provider)));
    let mut config = match manner.paper {
        None => config.with_no_client_auth(),
        Some(paper) => {
            let certificate = CertificateDer::from_pem_slice(paper.certificate.as_bytes())?;
            let key = PrivateKeyDer::from_pem_slice(paper.key.as_bytes())?;
            config.with_client_auth_cert(vec![certificate], key)?
        }
    };
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![manner.protocol.to_vec()];
    let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
    ClientConnection::new(Arc::new(config), nobody).context("TLS of a test")
}
