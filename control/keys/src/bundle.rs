//! What one site shows another: its gateways' authorities and their revocation lists. All of it is public; what must
//! be sure is whose it is, and that is what pairing shows.

use std::time::SystemTime;

use crate::authority::KeyError;
use crate::certificate::{Certificate, CertificateError};
use crate::fingerprint::Fingerprint;
use crate::identity::{Role, Site};
use crate::limits::BUNDLE_AUTHORITIES_MAX;
use crate::revoke::RevocationList;

/// A bundle that is not used. Nothing was trusted because of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] CertificateError),
    /// No authority, or too many.
    #[error("it holds {0} authorities; 1 to {BUNDLE_AUTHORITIES_MAX} are taken")]
    Count(usize),
    /// Something that is no authority for gateways, or not of this site.
    #[error("it holds {0}, which is no authority for gateways of one and the same site")]
    Foreign(String),
    /// A certificate that its own key did not sign, or that may not sign others.
    #[error("the authority {0} is not signed by its own key, or may not sign certificates")]
    Unsigned(String),
    /// Not in its time.
    #[error("the authority {0} is not valid now: it is from {1} to {2}")]
    Time(String, novacron_control_api::Timestamp, novacron_control_api::Timestamp),
    /// A list that none of its authorities signed, or none for one of them.
    #[error("{0}")]
    Lists(&'static str),
}

impl From<BundleError> for KeyError {
    fn from(why: BundleError) -> Self {
        Self::Request(why.to_string())
    }
}

/// A site's gateways' authorities with their revocation lists; every one was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    site: Site,
    authorities: Vec<Certificate>,
    lists: Vec<RevocationList>,
}

impl Bundle {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// Whatever makes it no bundle of one site, valid now.
    pub fn new(
        authorities: Vec<Certificate>,
        lists: Vec<RevocationList>,
        now: SystemTime,
    ) -> Result<Self, BundleError> {
        if authorities.len() > BUNDLE_AUTHORITIES_MAX || lists.len() > BUNDLE_AUTHORITIES_MAX {
            return Err(BundleError::Count(authorities.len().max(lists.len())));
        }
        let first = authorities.first().ok_or(BundleError::Count(0))?;
        let name = first.authority().ok_or_else(|| BundleError::Foreign(first.holder.to_string()))?;
        let site = name.site.clone();
        for authority in &authorities {
            let holder = authority.holder.to_string();
            if authority.authority().is_none_or(|name| name.site != site || name.role != Role::Gateway) {
                return Err(BundleError::Foreign(holder));
            }
            if !authority.is_authority || !authority.is_signed_by(authority) {
                return Err(BundleError::Unsigned(holder));
            }
            if !authority.is_current(now) {
                return Err(BundleError::Time(holder, authority.not_before, authority.not_after));
            }
            if !lists.iter().any(|list| list.is_signed_by(authority)) {
                return Err(BundleError::Lists("it lacks the revocation list of one of its authorities"));
            }
        }
        if !lists.iter().all(|list| authorities.iter().any(|authority| list.is_signed_by(authority))) {
            return Err(BundleError::Lists("it holds a revocation list that none of its authorities signed"));
        }
        Ok(Self { site, authorities, lists })
    }

    /// Reads one from PEM text. Total.
    ///
    /// # Errors
    /// As [`Bundle::new`], or when it cannot be read.
    pub fn from_pem(text: &[u8], now: SystemTime) -> Result<Self, BundleError> {
        Self::new(Certificate::from_pem(text)?, RevocationList::from_pem(text)?, now)
    }

    /// In PEM, with a line of words before each authority.
    pub fn to_pem(&self) -> String {
        let authorities: String = self.authorities.iter().map(described).collect();
        authorities + &self.lists.iter().map(RevocationList::to_pem).collect::<String>()
    }

    /// Whose it is.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The authorities.
    pub fn authorities(&self) -> &[Certificate] {
        &self.authorities
    }

    /// Their revocation lists.
    pub fn lists(&self) -> &[RevocationList] {
        &self.lists
    }

    /// What two people compare, in the bundle's order.
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.authorities.iter().map(|authority| authority.fingerprint).collect()
    }
}

/// An authority in PEM, with a line before it that says which it is; readers of PEM pass over it.
pub(crate) fn described(authority: &Certificate) -> String {
    format!(
        "# {}, until {}\n# SHA-256 {}\n{}",
        authority.holder,
        authority.not_after,
        authority.fingerprint,
        authority.to_pem()
    )
}
