//! What an authority takes back: its revocation list.

use std::time::SystemTime;

use novacron_control_api::Timestamp;
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::authority::{Authority, KeyError, validity};
use crate::certificate::{Certificate, CertificateError, blocks, hex, to_pem};
use crate::limits::REVOCATION_LIST_DAYS;

/// Why a certificate was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// No reason is told.
    Unspecified,
    /// Somebody else may hold the key.
    KeyCompromise,
    /// A successor took its place.
    Superseded,
    /// Its holder is no more.
    CessationOfOperation,
}

impl Why {
    fn code(self) -> Option<RevocationReason> {
        match self {
            // RFC 5280, section 5.3.1: this one is told by leaving it out.
            Self::Unspecified => None,
            Self::KeyCompromise => Some(RevocationReason::KeyCompromise),
            Self::Superseded => Some(RevocationReason::Superseded),
            Self::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
        }
    }
}

/// One certificate that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: Why,
}

/// A revocation list, read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevocationList {
    /// Whose.
    pub issuer: String,
    /// When it was made.
    pub made: Timestamp,
    /// When a newer one is due.
    pub next: Option<Timestamp>,
    /// Its number: a newer list has a higher one.
    pub number: Option<String>,
    /// The serial numbers that it takes back.
    pub serials: Vec<String>,
    /// The issuer's name as it stands there.
    #[serde(skip)]
    pub issuer_der: Vec<u8>,
    /// The list itself.
    #[serde(skip)]
    pub der: Vec<u8>,
    #[serde(skip)]
    rank: Vec<u8>,
}

impl Authority {
    /// Signs the list of what was taken back.
    ///
    /// # Errors
    /// When a serial number is none.
    pub fn revocation_list(
        &self,
        revoked: &[Revocation],
        number: u64,
        now: SystemTime,
    ) -> Result<RevocationList, KeyError> {
        let revoked_certs = revoked
            .iter()
            .map(|one| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&unhex(&one.serial)?),
                    revocation_time: SystemTime::from(one.at).into(),
                    reason_code: one.why.code(),
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, KeyError>>()?;
        let (this_update, next_update) = validity(now, REVOCATION_LIST_DAYS);
        let list = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)?;
        Ok(RevocationList::from_der(list.der())?)
    }
}

fn unhex(digits: &str) -> Result<Vec<u8>, KeyError> {
    let pairs = digits.as_bytes().chunks(2);
    let value = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.map(|pair| (pair.len() == 2).then(|| value(pair)).flatten()).collect();
    bytes.filter(|bytes| !bytes.is_empty()).ok_or(KeyError::Key("a serial number is not hexadecimal"))
}

impl RevocationList {
    /// Reads one from DER. Total.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| CertificateError::Der)?;
        if !rest.is_empty() {
            return Err(CertificateError::Der);
        }
        let moment = |time: x509_parser::time::ASN1Time| {
            let since = std::time::Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
            Timestamp::from(SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH))
        };
        let rank = list.crl_number().map_or_else(Vec::new, |number| number.to_bytes_be());
        Ok(Self {
            issuer: crate::certificate::printable(&list.issuer().to_string()),
            made: moment(list.last_update()),
            next: list.next_update().map(moment),
            number: list.crl_number().map(ToString::to_string),
            serials: list.iter_revoked_certificates().map(|one| hex(one.raw_serial())).collect(),
            issuer_der: list.issuer().as_raw().to_vec(),
            der: der.to_vec(),
            rank,
        })
    }

    /// Reads the lists of a PEM text.
    ///
    /// # Errors
    /// When the text or any of them cannot be read.
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        blocks(text, "X509 CRL")?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// In PEM.
    pub fn to_pem(&self) -> String {
        to_pem("X509 CRL", &self.der)
    }

    /// Whether it takes this certificate back.
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        self.issuer_der == certificate.issuer_der && self.serials.contains(&certificate.serial)
    }

    /// Whether this authority's key signed it.
    pub fn is_signed_by(&self, authority: &Certificate) -> bool {
        use x509_parser::certificate::X509Certificate;
        let Ok((_, list)) = CertificateRevocationList::from_der(&self.der) else { return false };
        let Ok((_, by)) = X509Certificate::from_der(&authority.der) else { return false };
        self.issuer_der == authority.subject_der && list.verify_signature(by.public_key()).is_ok()
    }

    /// Whether it is newer than another of the same authority.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.rank.len(), &self.rank, self.made) > (other.rank.len(), &other.rank, other.made)
    }
}
