//! What a gateway shows to its peers, and whom it believes: from files to TLS configurations.

use super::TlsPeer;
use super::handshake::fault;
use super::verify::{Verifier, Vouches, only_name};
use crate::limits::{AUTHORITIES_MAX, CHAIN_MAX};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use webpki::{EndEntityCert, KeyUsage, OwnedCertRevocationList};

/// What is agreed inside TLS: a gateway speaks this to gateways and nothing else.
pub(super) const PROTOCOL: &[u8] = b"dwcp/1";

/// The contents of a gateway's files, all PEM.
#[derive(Clone, Copy)]
pub struct TlsFiles<'a> {
    /// Its certificate, then any between that and an authority.
    pub chain: &'a [u8],
    /// The certificate's key, PKCS#8.
    pub key: &'a [u8],
    /// Authorities that it believes.
    pub authorities: &'a [u8],
    /// Their lists of revoked certificates; may be empty.
    pub revoked: &'a [u8],
}

/// The files cannot be used. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialError {
    what: &'static str,
    why: String,
}

impl CredentialError {
    pub(super) fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used: {}", self.what, self.why)
    }
}

impl std::error::Error for CredentialError {}

/// What a gateway shows, and whom it believes. Clones share it.
#[derive(Clone)]
pub struct TlsCredentials {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    verifier: Arc<Verifier>,
    identity: String,
    expires_at: SystemTime,
}

impl fmt::Debug for TlsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("TlsCredentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The library's cryptography, cut down to what gateways speak: one key exchange, so that nobody can talk two of them into
/// a weaker one.
fn provider() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| CredentialError::new(what, error.to_string()))?;
    if found.is_empty() {
        return Err(CredentialError::new(what, "it holds no certificate"));
    }
    Ok(found)
}

impl TlsCredentials {
    /// Reads the contents of files. All of them must fit together, the gateway's own certificate included: it has to be
    /// one that this gateway would believe itself.
    pub fn read(files: TlsFiles<'_>, vouches: Vouches) -> Result<Self, CredentialError> {
        let chain = certificates("the gateway's certificate", files.chain)?;
        if chain.len() > CHAIN_MAX {
            let why = format!("{} certificates stand in it, at most {CHAIN_MAX} may", chain.len());
            return Err(CredentialError::new("the gateway's certificate", why));
        }
        // The library's words may repeat what it read, and that is a key.
        let key = PrivateKeyDer::from_pem_slice(files.key)
            .map_err(|_| CredentialError::new("the gateway's key", "it is no private key in PEM (PKCS#8)"))?;
        let authorities = certificates("the list of authorities", files.authorities)?;
        if authorities.len() > AUTHORITIES_MAX {
            let why = format!("it names {}, at most {AUTHORITIES_MAX} are", authorities.len());
            return Err(CredentialError::new("the list of authorities", why));
        }
        let mut revoked = Vec::new();
        for list in CertificateRevocationListDer::pem_slice_iter(files.revoked) {
            let unusable = |why: String| CredentialError::new("a list of revoked certificates", why);
            let list = list.map_err(|error| unusable(error.to_string()))?;
            let list =
                OwnedCertRevocationList::from_der(&list).map_err(|error| unusable(error.to_string()))?;
            revoked.push(list.into());
        }

        let provider = Arc::new(provider());
        // Asked for the first time in a process, the library gathers entropy, for 40 ms and more (AWS-LC's CPU jitter). It is asked
        // here, so that neither the first handshake nor anything else on its shard waits for that.
        provider.secure_random.fill(&mut [0; 32]).map_err(|_| {
            CredentialError::new("the cryptographic library", "it has no random bytes".to_owned())
        })?;
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(Verifier::new(&authorities, revoked, vouches, algorithms)?);
        let own = |why: String| CredentialError::new("the gateway's certificate", why);
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).map_err(|e| own(e.to_string()))?;
        let expires_at = u64::try_from(leaf.validity().not_after.timestamp())
            .map_or(SystemTime::UNIX_EPOCH, |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let identity = {
            let leaf = EndEntityCert::try_from(&chain[0]).map_err(|error| own(error.to_string()))?;
            only_name(leaf.valid_uri_names()).map_err(|why| own(why.to_owned()))?.to_owned()
        };
        for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
            verifier
                .verify(&chain[0], &chain[1..], UnixTime::now(), usage)
                .map_err(|error| own(fault(error)))?;
        }

        let unfit = |error: rustls::Error| CredentialError::new("the gateway's key", error.to_string());
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(unfit)?;
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.enable_sni = false;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = Arc::new(NoTickets);
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { client: Arc::new(client), server: Arc::new(server), verifier, identity, expires_at })
    }

    /// The name in this gateway's own certificate.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The last moment of this gateway's own certificate.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Whether a peer that was believed when its stream opened would be believed now.
    pub fn still_believes(&self, peer: &TlsPeer, it_dialled: bool) -> Result<(), String> {
        let usage = if it_dialled { KeyUsage::client_auth() } else { KeyUsage::server_auth() };
        let (leaf, rest) = peer.chain.split_first().ok_or("it showed no certificate")?;
        self.verifier.verify(leaf, rest, UnixTime::now(), usage).map(drop).map_err(fault)
    }

    /// Whom a chain names that the handshake has verified already.
    pub(super) fn name_of(chain: &[CertificateDer<'_>]) -> Option<String> {
        let leaf = EndEntityCert::try_from(chain.first()?).ok()?;
        only_name(leaf.valid_uri_names()).ok().map(str::to_owned)
    }

    /// For tests that show a peer what no gateway would.
    #[cfg(test)]
    pub(super) fn verifier(&self) -> Arc<dyn rustls::client::danger::ServerCertVerifier> {
        Arc::clone(&self.verifier) as _
    }

    /// What TLS wants a server to be called. Names are compared elsewhere.
    pub(super) fn no_name() -> ServerName<'static> {
        ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])))
    }
}

/// No stream resumes another.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }
    fn lifetime(&self) -> u32 {
        0
    }
    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}
