//! TLS for remote callers: the node shows its gateway's certificate, callers show one of a site's authority for callers,
//! or a token afterwards.

use std::path::Path;
use std::sync::Arc;

use novacron_control_api::configuration::{AuthMethod, Configuration};
use novacron_keys::{Certificate, RevocationList, Role, Trust, store};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::server::access::Who;

#[cfg(test)]
mod tests;

/// Takes TLS connections and tells whose they are.
pub(crate) struct Acceptor {
    tls: TlsAcceptor,
    /// Authorities for callers; each answers for its own site only.
    authorities: Vec<Certificate>,
}

/// What remote callers are judged by: certificates and revocation lists of one PEM file.
fn callers(file: &Path) -> Result<(Vec<Certificate>, Vec<RevocationList>), String> {
    let told = |why: String| format!("security.caller_authorities: {} cannot be used: {why}", file.display());
    let text = store::read(file).map_err(|error| error.to_string())?;
    let certificates = Certificate::from_pem(&text).map_err(|error| told(error.to_string()))?;
    let lists = RevocationList::from_pem(&text).map_err(|error| told(error.to_string()))?;
    let authorities: Vec<Certificate> = certificates
        .into_iter()
        .filter(|one| one.authority().is_some_and(|name| name.role == Role::Caller))
        .collect();
    if authorities.is_empty() {
        return Err(told("it holds no authority for callers".to_owned()));
    }
    Ok((authorities, lists))
}

fn verifier(
    authorities: &[Certificate],
    lists: &[RevocationList],
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from(authority.der.clone())).map_err(|error| error.to_string())?;
    }
    let signed = lists.iter().filter(|list| authorities.iter().any(|authority| list.is_signed_by(authority)));
    let lists: Vec<_> = signed.map(|list| CertificateRevocationListDer::from(list.der.clone())).collect();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !lists.is_empty() {
        // An authority without a list has taken nothing back yet.
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    builder.build().map_err(|error| error.to_string())
}

/// Reads what is needed.
///
/// # Errors
/// What is missing or wrong, in words.
pub(crate) fn acceptor(configuration: &Configuration) -> Result<Arc<Acceptor>, String> {
    let security = &configuration.security;
    let trust = Trust::at(&security.identity_dir);
    let own = trust.own().map_err(|error| error.to_string())?;
    let key = trust.key().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|_| "the node's key cannot be read".to_owned())?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let (builder, authorities) = match (&security.auth_method, &security.caller_authorities) {
        (AuthMethod::Mtls, Some(file)) => {
            let (authorities, lists) = callers(file)?;
            (builder.with_client_cert_verifier(verifier(&authorities, &lists)?), authorities)
        }
        (AuthMethod::Mtls, None) => return Err("security.caller_authorities names no file".to_owned()),
        (AuthMethod::Token | AuthMethod::None, _) => (builder.with_no_client_auth(), Vec::new()),
    };
    let chain = vec![CertificateDer::from(own.der.clone())];
    let config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    Ok(Arc::new(Acceptor { tls: TlsAcceptor::from(Arc::new(config)), authorities }))
}

impl Acceptor {
    /// Takes a connection.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Who), String> {
        let stream = self.tls.accept(stream).await.map_err(|error| error.to_string())?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        let who = match shown {
            None => Who::Unknown,
            Some(leaf) => self.named(&leaf)?,
        };
        Ok((stream, who))
    }

    /// Whom a certificate whose chain was verified speaks for: a caller of the very site whose authority signed it.
    fn named(&self, leaf: &CertificateDer<'_>) -> Result<Who, String> {
        let leaf = Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        let identity = leaf.identity().filter(|identity| identity.role == Role::Caller);
        let identity = identity.ok_or("its certificate is no caller's")?;
        let vouched = self.authorities.iter().any(|authority| {
            authority.authority().is_some_and(|name| name.site == identity.site)
                && leaf.is_signed_by(authority)
        });
        if !vouched {
            return Err(format!("no authority of the site {} signed its certificate", identity.site));
        }
        let name = identity.to_string().parse().map_err(|_| format!("{identity} is no name of a caller"))?;
        Ok(Who::Certificate(name))
    }
}
