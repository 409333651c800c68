//! What a certificate says, read for people and for decisions. Reading is total: any bytes are read or refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use novacron_control_api::Timestamp;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::fingerprint::Fingerprint;
use crate::identity::{AuthorityName, Identity};
use crate::limits::PEM_BLOCKS_MAX;

/// Bytes that are no certificate, or none that is used here. Nothing was trusted because of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The text around the bytes.
    #[error("it is no PEM text: {0}")]
    Pem(String),
    /// The bytes.
    #[error("it is no X.509 certificate")]
    Der,
    /// Not one URI name, or one that is no identity.
    #[error("it names nobody: exactly one URI name 'novacron://...' is needed, {0}")]
    Name(String),
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Whom it speaks for.
    pub holder: Holder,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Its issuer's distinguished name.
    pub issuer: String,
    /// Its own.
    pub subject: String,
    /// First moment at which it is valid.
    pub not_before: Timestamp,
    /// Last one.
    pub not_after: Timestamp,
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Algorithm of its key.
    pub key: String,
    /// What it may be used for.
    pub usages: Vec<&'static str>,
    /// Whether it may sign certificates.
    pub is_authority: bool,
    /// The certificate itself.
    #[serde(skip)]
    pub der: Vec<u8>,
    /// The issuer's name as it stands in the certificate: revocation lists are found by it.
    #[serde(skip)]
    pub issuer_der: Vec<u8>,
    /// Its own name as it stands there.
    #[serde(skip)]
    pub subject_der: Vec<u8>,
    /// The public key with its algorithm, as it stands there.
    #[serde(skip)]
    pub public_key_der: Vec<u8>,
}

/// Whom a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Holder {
    /// A gateway or caller.
    Identity(Identity),
    /// An authority.
    Authority(AuthorityName),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity(identity) => identity.fmt(f),
            Self::Authority(authority) => authority.fmt(f),
        }
    }
}

impl Certificate {
    /// Reads one from DER.
    ///
    /// # Errors
    /// What it lacks.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| CertificateError::Der)?;
        if !rest.is_empty() {
            return Err(CertificateError::Der);
        }
        let names = x509.subject_alternative_name().map_err(|_| CertificateError::Der)?;
        let names: Vec<&GeneralName<'_>> =
            names.iter().flat_map(|extension| &extension.value.general_names).collect();
        let holder = match names.as_slice() {
            [GeneralName::URI(text)] => holder(text)
                .ok_or_else(|| CertificateError::Name(format!("and '{}' is none", printable(text))))?,
            _ => return Err(CertificateError::Name(format!("and it has {} names", names.len()))),
        };
        let usages = x509.extended_key_usage().map_err(|_| CertificateError::Der)?;
        let usages = usages.map_or_else(Vec::new, |usage| {
            let usage = usage.value;
            [(usage.server_auth, "server"), (usage.client_auth, "client"), (usage.any, "any")]
                .into_iter()
                .filter_map(|(has, name)| has.then_some(name))
                .collect()
        });
        Ok(Self {
            holder,
            serial: hex(x509.raw_serial()),
            issuer: printable(&x509.issuer().to_string()),
            subject: printable(&x509.subject().to_string()),
            not_before: moment(x509.validity().not_before.timestamp()),
            not_after: moment(x509.validity().not_after.timestamp()),
            fingerprint: Fingerprint::of(der),
            key: algorithm(&x509),
            usages,
            is_authority: x509.is_ca(),
            der: der.to_vec(),
            issuer_der: x509.issuer().as_raw().to_vec(),
            subject_der: x509.subject().as_raw().to_vec(),
            public_key_der: x509.public_key().raw.to_vec(),
        })
    }

    /// Reads the certificates of a PEM text, in its order.
    ///
    /// # Errors
    /// When the text or any of them cannot be read: a list with a mistake is not used in part.
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        blocks(text, "CERTIFICATE")?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// In PEM.
    pub fn to_pem(&self) -> String {
        to_pem("CERTIFICATE", &self.der)
    }

    /// Whom it speaks for, unless it is an authority's.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.holder {
            Holder::Identity(identity) => Some(identity),
            Holder::Authority(_) => None,
        }
    }

    /// Which authority it is, unless it is a holder's.
    pub fn authority(&self) -> Option<&AuthorityName> {
        match &self.holder {
            Holder::Authority(authority) => Some(authority),
            Holder::Identity(_) => None,
        }
    }

    /// Time until its end; `None` when that has passed.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        SystemTime::from(self.not_after).duration_since(now).ok()
    }

    /// Whether its time has come and not passed.
    pub fn is_current(&self, now: SystemTime) -> bool {
        SystemTime::from(self.not_before) <= now && self.left(now).is_some()
    }

    /// Whether its signature is by this authority's key.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let read = |der| X509Certificate::from_der(der).ok().map(|(_, x509)| x509);
        let (Some(this), Some(by)) = (read(&self.der), read(&authority.der)) else { return false };
        self.issuer_der == authority.subject_der && this.verify_signature(Some(by.public_key())).is_ok()
    }
}

fn holder(text: &str) -> Option<Holder> {
    let identity = text.parse().map(Holder::Identity);
    identity.or_else(|_| text.parse().map(Holder::Authority)).ok()
}

/// Certificates may lie anywhere in time; what cannot be written becomes the nearest that can.
fn moment(seconds: i64) -> Timestamp {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Timestamp::from(UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH))
}

fn algorithm(x509: &X509Certificate<'_>) -> String {
    use x509_parser::oid_registry as oid;
    let key = x509.public_key();
    let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    match (&key.algorithm.algorithm, curve) {
        (id, Some(curve)) if *id == oid::OID_KEY_TYPE_EC_PUBLIC_KEY && curve == oid::OID_EC_P256 => {
            "P-256".into()
        }
        (id, Some(curve)) if *id == oid::OID_KEY_TYPE_EC_PUBLIC_KEY && curve == oid::OID_NIST_EC_P384 => {
            "P-384".into()
        }
        (id, _) if *id == oid::OID_SIG_ED25519 => "Ed25519".into(),
        (id, _) => id.to_id_string(),
    }
}

/// Bytes as lower-case hexadecimal, without the zero in front that DER adds to a positive number.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text of others, without what moves a terminal's cursor, and not too much of it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

/// The blocks of one kind in a PEM text, in its order; other kinds are passed over.
pub(crate) fn blocks(text: &[u8], kind: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    let pems = pem::parse_many(text).map_err(|why| CertificateError::Pem(why.to_string()))?;
    if pems.len() > PEM_BLOCKS_MAX {
        return Err(CertificateError::Pem(format!("more than {PEM_BLOCKS_MAX} blocks")));
    }
    Ok(pems.into_iter().filter(|block| block.tag() == kind).map(pem::Pem::into_contents).collect())
}

/// One block of PEM, with the line ends of this system.
pub(crate) fn to_pem(kind: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(kind, der), config)
}
