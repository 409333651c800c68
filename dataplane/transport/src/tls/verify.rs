//! Whether a peer's certificate may be believed, and whom it names.

use super::credentials::CredentialError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use std::sync::Arc;
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, anchor_from_trusted_cert,
};

/// Whether an authority of the second name may vouch for a gateway of the first. Both are from certificates.
pub type Vouches = fn(gateway: &str, authority: &str) -> Result<(), String>;

/// An authority, and the name that its own certificate carries.
struct Anchor {
    anchor: TrustAnchor<'static>,
    name: String,
}

/// Believes certificates that one of its authorities issued, for both ends of a stream.
pub(super) struct Verifier {
    anchors: Vec<TrustAnchor<'static>>,
    names: Vec<String>,
    revoked: Vec<CertRevocationList<'static>>,
    vouches: Vouches,
    algorithms: WebPkiSupportedAlgorithms,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("authorities", &self.names).finish_non_exhaustive()
    }
}

/// Why a certificate is refused, where rustls has no word for it.
#[derive(Debug)]
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn refused(why: impl Into<String>) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(why.into())))))
}

/// The one URI name of a certificate.
pub(super) fn only_name<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<&'a str, &'static str> {
    let name = names.next().ok_or("it carries no URI name")?;
    if names.next().is_some() {
        return Err("it carries more than one URI name");
    }
    Ok(name)
}

fn anchor(der: &CertificateDer<'_>) -> Result<Anchor, CredentialError> {
    let unusable = |why: String| CredentialError::new("an authority's certificate", why);
    let (_, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|error| unusable(error.to_string()))?;
    let names = certificate.subject_alternative_name().map_err(|error| unusable(error.to_string()))?;
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let name = only_name(names).map_err(|why| unusable(why.to_owned()))?.to_owned();
    let anchor = anchor_from_trusted_cert(der).map_err(|error| unusable(error.to_string()))?.to_owned();
    Ok(Anchor { anchor, name })
}

impl Verifier {
    pub(super) fn new(
        authorities: &[CertificateDer<'_>],
        revoked: Vec<CertRevocationList<'static>>,
        vouches: Vouches,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, CredentialError> {
        let found = authorities.iter().map(anchor).collect::<Result<Vec<_>, _>>()?;
        let (anchors, names) = found.into_iter().map(|found| (found.anchor, found.name)).unzip();
        Ok(Self { anchors, names, revoked, vouches, algorithms })
    }

    /// Whom these certificates name, if they may be believed now.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<String, Error> {
        let leaf = EndEntityCert::try_from(leaf).map_err(error)?;
        let lists: Vec<_> = self.revoked.iter().collect();
        // A list that is past its time still says who was revoked; an authority without a list has revoked nobody. An
        // authority that is away must not stop migrations.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .build()
        });
        let path = leaf
            .verify_for_usage(self.algorithms.all, &self.anchors, intermediates, now, usage, revocation, None)
            .map_err(error)?;
        let authority = self
            .anchors
            .iter()
            .position(|anchor| anchor.subject_public_key_info == path.anchor().subject_public_key_info)
            .and_then(|at| self.names.get(at))
            .ok_or_else(|| Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let name = only_name(leaf.valid_uri_names()).map_err(refused)?;
        (self.vouches)(name, authority).map_err(refused)?;
        Ok(name.to_owned())
    }
}

/// In rustls's words, which decide what the peer is told.
fn error(error: webpki::Error) -> Error {
    use webpki::Error as Found;
    Error::InvalidCertificate(match error {
        Found::CertExpired { .. } => CertificateError::Expired,
        Found::CertNotValidYet { .. } => CertificateError::NotValidYet,
        Found::CertRevoked => CertificateError::Revoked,
        Found::UnknownIssuer | Found::CaUsedAsEndEntity => CertificateError::UnknownIssuer,
        Found::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Found::RequiredEkuNotFoundContext(_) | Found::EmptyEkuExtension => CertificateError::InvalidPurpose,
        Found::BadDer | Found::BadDerTime | Found::TrailingData(_) => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

fn only_tls13() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Who dialled compares the name with the one that it expects; a gateway is found by address, not by DNS.
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())
            .map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Strangers need not know whom this gateway believes.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::client_auth())
            .map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
