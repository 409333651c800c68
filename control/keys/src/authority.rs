//! An authority: a key that speaks for one role of one site, and a certificate that says so.
//!
//! Its certificate signs itself, names the site and role it answers for (`novacron://SITE/authority/gateway`), may
//! sign holders' certificates and revocation lists, and no further authority (`pathlen:0`). Its distinguished name
//! holds part of its serial number: two authorities of a site, an old one and its successor, must not share a name,
//! because a revocation list is found by it.

use std::time::{Duration, SystemTime};

use pkcs8::der::pem::PemLabel;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::certificate::{Certificate, CertificateError, hex};
use crate::identity::AuthorityName;
use crate::limits::BACKDATED;
use crate::secret::{Passphrase, Secret};

/// An authority, request or certificate could not be made or used. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library refused.
    #[error("the certificate could not be made: {0}")]
    Making(#[from] rcgen::Error),
    /// A certificate cannot be read.
    #[error("the certificate cannot be used: {0}")]
    Certificate(#[from] CertificateError),
    /// The key is encrypted, and there is nothing to open it with.
    #[error(
        "the key is encrypted and no passphrase was found: give --passphrase-file, \
         $NOVACRON_KEYS_PASSPHRASE or the systemd credential novacron-keys-passphrase"
    )]
    Locked,
    /// The passphrase is another one, or the file is damaged.
    #[error("the passphrase from {0} does not open the key: it is another one, or the file is damaged")]
    Passphrase(String),
    /// The key is no key, or of another certificate.
    #[error("the key cannot be used: {0}")]
    Key(&'static str),
    /// It is not an authority, or not in its time.
    #[error(
        "the authority {name} is not valid now ({from} to {to}); make another in a folder of its own with 'novactl keys init', and pair again"
    )]
    Expired {
        /// Which.
        name: AuthorityName,
        /// Its first moment.
        from: novacron_control_api::Timestamp,
        /// Its last.
        to: novacron_control_api::Timestamp,
    },
    /// A request that asks for what it may not have.
    #[error("the request is refused: {0}; nothing was issued")]
    Request(String),
}

/// An authority that can sign.
pub struct Authority {
    /// Which it is.
    pub name: AuthorityName,
    /// Its certificate.
    pub certificate: Certificate,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({}, key hidden)", self.name)
    }
}

/// A serial number that nobody can foresee: 127 random bits (RFC 5280, section 4.1.2.2: positive, at most 20 bytes).
pub(crate) fn serial() -> Result<(SerialNumber, String), KeyError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Key("the system gives no random bytes"))?;
    // Positive and never starting with a zero byte, so that it is written in one way only.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok((SerialNumber::from_slice(&bytes), hex(&bytes)))
}

/// Backdated start and end of something that is valid for some days from now, in whole seconds.
pub(crate) fn validity(now: SystemTime, days: u32) -> (OffsetDateTime, OffsetDateTime) {
    let day = Duration::from_secs(24 * 3600);
    let whole = |time: SystemTime| {
        let time = OffsetDateTime::from(time);
        time.replace_nanosecond(0).unwrap_or(time)
    };
    (whole(now - BACKDATED), whole(now + day * days))
}

/// A distinguished name of one common name: identities stand in the URI name, this is for people.
pub(crate) fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

pub(crate) fn uri(text: &str) -> Result<SanType, KeyError> {
    Ok(SanType::URI(text.try_into().map_err(KeyError::Making)?))
}

/// A new key: P-256, which every TLS library verifies and every hardware token can hold.
pub(crate) fn new_key() -> Result<KeyPair, KeyError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

impl Authority {
    /// Makes one, valid from now for so many days.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn make(name: &AuthorityName, days: u32, now: SystemTime) -> Result<Self, KeyError> {
        let key = new_key()?;
        let (number, digits) = serial()?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = validity(now, days);
        params.serial_number = Some(number);
        params.distinguished_name =
            common_name(&format!("novacron {} {}s {}", name.site, name.role, &digits[..8]));
        params.subject_alt_names = vec![uri(&name.to_string())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = Certificate::from_der(params.self_signed(&key)?.der())?;
        Ok(Self { name: name.clone(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Puts one together from its files.
    ///
    /// # Errors
    /// When the key does not open, or is not the certificate's.
    pub fn load(
        certificate: Certificate,
        key: &Secret,
        passphrase: Option<&Passphrase>,
    ) -> Result<Self, KeyError> {
        let name = certificate.authority().ok_or(KeyError::Key("its certificate is a holder's"))?.clone();
        let pkcs8 = open(key, passphrase)?;
        let key = KeyPair::try_from(pkcs8.as_bytes()).map_err(|_| KeyError::Key("it is no PKCS#8 key"))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != certificate.public_key_der {
            return Err(KeyError::Key("it is another certificate's"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der.as_slice().into(), key)?;
        Ok(Self { name, certificate, issuer })
    }

    /// Its key in PEM: encrypted (PKCS#8, PBES2 with scrypt and AES-256) where there is a passphrase.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn key_pem(&self, passphrase: Option<&Passphrase>) -> Result<Secret, KeyError> {
        key_pem(self.issuer.key(), passphrase)
    }

    /// Refuses an authority whose time has passed.
    ///
    /// # Errors
    /// [`KeyError::Expired`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), KeyError> {
        let certificate = &self.certificate;
        if certificate.is_current(now) {
            return Ok(());
        }
        Err(KeyError::Expired {
            name: self.name.clone(),
            from: certificate.not_before,
            to: certificate.not_after,
        })
    }
}

/// A key in PEM.
pub(crate) fn key_pem(key: &KeyPair, passphrase: Option<&Passphrase>) -> Result<Secret, KeyError> {
    let broken = |_| KeyError::Key("it cannot be written as PKCS#8");
    let info = PrivateKeyInfoRef::try_from(key.serialized_der())
        .map_err(|_| KeyError::Key("it is no PKCS#8 key"))?;
    let (document, label) = match passphrase {
        Some(passphrase) => (
            info.encrypt(passphrase.expose()).map_err(|_| KeyError::Key("it cannot be encrypted"))?,
            EncryptedPrivateKeyInfoRef::PEM_LABEL,
        ),
        None => (SecretDocument::encode_msg(&info).map_err(broken)?, PrivateKeyInfoRef::PEM_LABEL),
    };
    let text = document.to_pem(label, LineEnding::LF).map_err(broken)?;
    Ok(Secret::new(text.as_bytes().to_vec()))
}

/// Whether a key's file is encrypted, as its first line says.
pub fn is_encrypted(key: &Secret) -> bool {
    key.expose().starts_with(b"-----BEGIN ENCRYPTED")
}

fn open(key: &Secret, passphrase: Option<&Passphrase>) -> Result<SecretDocument, KeyError> {
    let text = std::str::from_utf8(key.expose()).map_err(|_| KeyError::Key("it is no PEM text"))?;
    let (label, document) = SecretDocument::from_pem(text).map_err(|_| KeyError::Key("it is no PEM text"))?;
    if label != EncryptedPrivateKeyInfoRef::PEM_LABEL {
        return Ok(document);
    }
    let passphrase = passphrase.ok_or(KeyError::Locked)?;
    let wrong = |_| KeyError::Passphrase(passphrase.from.clone());
    let info: EncryptedPrivateKeyInfoRef<'_> =
        document.decode_msg().map_err(|_| KeyError::Key("it is no encrypted PKCS#8 key"))?;
    info.decrypt(passphrase.expose()).map_err(wrong)
}

/// The public key, with its algorithm, of a private key in PEM that is not encrypted.
pub(crate) fn public_key(key: &Secret) -> Result<Vec<u8>, KeyError> {
    let pkcs8 = open(key, None)?;
    let key = KeyPair::try_from(pkcs8.as_bytes()).map_err(|_| KeyError::Key("it is no PKCS#8 key"))?;
    Ok(rcgen::PublicKeyData::subject_public_key_info(&key))
}
