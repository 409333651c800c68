//! TLS towards PostgreSQL and Redis: who is believed there, and what is shown.

use std::path::{Path, PathBuf};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::limits::FILE_BYTES_MAX;

/// Files for TLS. There is no way to leave verification out: a database that anybody can play is no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that are believed, PEM; without it the system's.
    pub authorities: Option<PathBuf>,
    /// Our certificate and the ones above it, PEM, and its key: for servers that ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// A client's configuration: TLS 1.3, verified chain and host name.
    pub(crate) fn client(&self) -> Result<ClientConfig, StoreError> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(path) => {
                let pem = read(path)?;
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|error| unreadable(path, &error))?;
                    roots.add(certificate).map_err(|error| unreadable(path, &error))?;
                }
                if roots.is_empty() {
                    return Err(unreadable(path, &"it holds no certificate"));
                }
            }
            None => {
                // Some of a system's authorities may be too old to be parsed; those are then not believed.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    let what = "this system has no authorities (package ca-certificates), and no file of them is named";
                    return Err(StoreError::Options { what: what.to_owned() });
                }
            }
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::Options { what: format!("TLS: {error}") })?
            .with_root_certificates(roots);
        let Some((chain_path, key_path)) = &self.certificate else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = CertificateDer::pem_slice_iter(&read(chain_path)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unreadable(chain_path, &error))?;
        let key =
            PrivateKeyDer::from_pem_slice(&read(key_path)?).map_err(|error| unreadable(key_path, &error))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| unreadable(chain_path, &error))
    }
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Options { what: format!("{} cannot be used: {why}", path.display()) }
}

/// Reads a small file, which may be secret.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let size = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(path, &format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(|error| unreadable(path, &error))
}

/// Reads a password: the first line of a file that its owner alone can read.
pub(crate) fn read_password(path: &Path) -> Result<Zeroizing<String>, StoreError> {
    use std::os::unix::fs::MetadataExt;
    let mode = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.mode();
    if mode & 0o077 != 0 {
        let why = format!("its mode {:04o} lets others read it; set 0600 or 0400", mode & 0o7777);
        return Err(unreadable(path, &why));
    }
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable(path, &"it is not UTF-8"))?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}
