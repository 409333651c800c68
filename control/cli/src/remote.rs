//! A control process on another host: the same lines over TLS 1.3. This side shows a caller's certificate, the node its
//! gateway's, which must be of the caller's own site.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use novacron_keys::chain::{Usage, verify};
use novacron_keys::{Certificate, Identity, RevocationList, Role, Trust, store};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, OtherError, SignatureScheme,
    StreamOwned,
};

use crate::limits::{ADDRESSES_MAX, REMOTE_CONNECT};

/// An encrypted connection.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Whom to reach and as whom.
pub(crate) struct Remote<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// The folder with `authorities.pem`, and `caller.crt` and `caller.key` where a certificate is shown.
    pub(crate) identity: &'a Path,
    /// The gateway's name that the node must have; `None`: any of the site.
    pub(crate) node: Option<&'a str>,
    /// A token is shown afterwards: then no certificate is needed.
    pub(crate) by_token: bool,
}

/// Where a caller's papers are unless somebody says otherwise.
pub(crate) fn default_identity() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    Some(config?.join("novacron"))
}

/// Believes a node of the caller's site.
#[derive(Debug)]
struct OfSite {
    provider: Arc<CryptoProvider>,
    authorities: Vec<Certificate>,
    lists: Vec<RevocationList>,
    site: Option<String>,
    node: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Disbelieved(String);

impl OfSite {
    fn judge(&self, leaf: &CertificateDer<'_>) -> Result<(), String> {
        let leaf = Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        let identity = verify(&leaf, &self.authorities, &self.lists, Usage::Server, SystemTime::now())
            .map_err(|fault| fault.to_string())?;
        let Identity { site, name, .. } = identity;
        match (&self.site, &self.node) {
            (Some(own), _) if own != site.as_str() => {
                Err(format!("it is {identity}, of another site than {own}"))
            }
            (_, Some(node)) if node != name.as_str() => Err(format!("it is {identity}, and not {node}")),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for OfSite {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.judge(end_entity) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(why) => {
                let why = OtherError(Arc::new(Disbelieved(why)));
                Err(rustls::Error::InvalidCertificate(CertificateError::Other(why)))
            }
        }
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
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Remote<'_> {
    /// Connects and shakes hands. That the node takes this side's certificate shows with its first answer only: TLS 1.3
    /// tells the dialling side nothing before.
    ///
    /// # Errors
    /// In words; nothing was sent but this side's certificate.
    pub(crate) fn connect(&self) -> Result<Stream, String> {
        let config = self.config()?;
        // Who the node is stands in its certificate, and not in the address that it was dialled at.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
        let tls = ClientConnection::new(Arc::new(config), nobody).map_err(|error| error.to_string())?;
        let stream = dial(self.host, self.port)?;
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(REMOTE_CONNECT)).map_err(|error| error.to_string())?;
        }
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(tls, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| match told(&error) {
                Some(why) => format!("the node is not believed: {why}"),
                None => error.to_string(),
            })?;
        }
        Ok(stream)
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let trust = Trust::at(self.identity);
        let authorities = trust.authorities().map_err(|error| error.to_string())?;
        if authorities.is_empty() {
            return Err(format!(
                "{} names no authority to judge the node by: `novactl keys issue caller/NAME --identity DIR` makes such a folder, --identity names it",
                self.identity.join("authorities.pem").display()
            ));
        }
        let lists = trust.lists().map_err(|error| error.to_string())?;
        let own = match self.by_token && !self.identity.join("caller.crt").exists() {
            true => None,
            false => Some(self.own()?),
        };
        let site =
            own.as_ref().and_then(|(leaf, _)| leaf.identity().map(|identity| identity.site.to_string()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let node = self.node.map(str::to_owned);
        let believing = OfSite { provider: Arc::clone(&provider), authorities, lists, site, node };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(believing));
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((leaf, key)) => builder
                .with_client_auth_cert(vec![CertificateDer::from(leaf.der)], key)
                .map_err(|error| format!("caller.crt and caller.key: {error}"))?,
        };
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    fn own(&self) -> Result<(Certificate, PrivateKeyDer<'static>), String> {
        let (path, key) = (self.identity.join("caller.crt"), self.identity.join("caller.key"));
        let text = store::read(&path).map_err(|error| {
            format!("{error}; `novactl keys issue caller/NAME --identity DIR` makes one, --identity names the folder")
        })?;
        let chain = Certificate::from_pem(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let is_caller = |leaf: &Certificate| leaf.identity().is_some_and(|id| id.role == Role::Caller);
        let leaf = chain.into_iter().next().filter(is_caller);
        let leaf =
            leaf.ok_or_else(|| format!("{}: its first certificate must be a caller's", path.display()))?;
        let secret = store::read_secret(&key).map_err(|error| error.to_string())?;
        // The library's words may repeat what it read, and that is a key.
        let secret = PrivateKeyDer::from_pem_slice(secret.expose())
            .map_err(|_| format!("{} is no private key in PEM (PKCS#8)", key.display()))?;
        Ok((leaf, secret))
    }
}

fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses =
        (host, port).to_socket_addrs().map_err(|error| format!("{host} is not found: {error}"))?;
    let mut last = format!("{host} has no address");
    for address in addresses.take(ADDRESSES_MAX) {
        match TcpStream::connect_timeout(&address, REMOTE_CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// What TLS says of an error, where it is TLS's.
pub(crate) fn told(error: &std::io::Error) -> Option<String> {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        InvalidCertificate(CertificateError::Other(why)) => Some(why.to_string()),
        AlertReceived(alert) => Some(format!(
            "the node turned this caller away ({alert:?}): security.caller_authorities there says whose certificates it takes"
        )),
        other => Some(other.to_string()),
    }
}
