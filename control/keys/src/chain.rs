//! Whether a gateway's certificate would be believed, and if not, why: in words for people. The same rules as a gateway's
//! own: chain, purpose, time, revocation, and an authority that answers for the site.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert, aws_lc_rs as algorithms,
};

use crate::certificate::Certificate;
use crate::identity::{Identity, Role};
use crate::revoke::RevocationList;

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// By the side that was dialled.
    Server,
    /// By the side that dials.
    Client,
}

/// Why a certificate would not be believed. Nothing was trusted because of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// Not a gateway's.
    #[error("it is no gateway's certificate: it names {0}")]
    Holder(String),
    /// Nobody who is believed answers for its site.
    #[error("no authority of the site {0} is believed here")]
    Site(String),
    /// Signed by somebody else.
    #[error("none of the authorities of {0} that are believed here signed it")]
    Signer(String),
    /// Its time.
    #[error("it is valid from {0} to {1}, and not now")]
    Time(novacron_control_api::Timestamp, novacron_control_api::Timestamp),
    /// Taken back.
    #[error("it was taken back (revoked)")]
    Revoked,
    /// Anything else.
    #[error("it cannot be verified: {0}")]
    Other(String),
}

/// Whom a gateway's certificate speaks for, if it would be believed now.
///
/// # Errors
/// Why it would not.
pub fn verify<'a>(
    leaf: &'a Certificate,
    authorities: &[Certificate],
    lists: &[RevocationList],
    usage: Usage,
    now: SystemTime,
) -> Result<&'a Identity, ChainFault> {
    let other = |why: webpki::Error| ChainFault::Other(why.to_string());
    let identity = leaf
        .identity()
        .filter(|identity| identity.role == Role::Gateway)
        .ok_or_else(|| ChainFault::Holder(leaf.holder.to_string()))?;
    // An authority is asked about its own site only.
    let of_site: Vec<&Certificate> = authorities
        .iter()
        .filter(|one| {
            one.authority().is_some_and(|name| name.site == identity.site && name.role == Role::Gateway)
        })
        .collect();
    if of_site.is_empty() {
        return Err(ChainFault::Site(identity.site.to_string()));
    }
    let ders: Vec<CertificateDer<'_>> = of_site.iter().map(|one| one.der.as_slice().into()).collect();
    let anchors: Vec<TrustAnchor<'_>> =
        ders.iter().map(anchor_from_trusted_cert).collect::<Result<_, _>>().map_err(other)?;
    let lists: Vec<CertRevocationList<'static>> = lists
        .iter()
        .filter(|list| of_site.iter().any(|authority| list.is_signed_by(authority)))
        .map(|list| {
            let der = CertificateRevocationListDer::from(list.der.as_slice());
            OwnedCertRevocationList::from_der(&der).map(Into::into)
        })
        .collect::<Result<_, _>>()
        .map_err(other)?;
    let lists: Vec<&CertRevocationList<'static>> = lists.iter().collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options.with_depth(RevocationCheckDepth::Chain).with_status_policy(UnknownStatusPolicy::Allow).build()
    });
    let purpose = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    let der: CertificateDer<'_> = leaf.der.as_slice().into();
    let entity = EndEntityCert::try_from(&der).map_err(other)?;
    let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let known = [
        algorithms::ECDSA_P256_SHA256,
        algorithms::ECDSA_P256_SHA384,
        algorithms::ECDSA_P384_SHA256,
        algorithms::ECDSA_P384_SHA384,
        algorithms::ED25519,
    ];
    match entity.verify_for_usage(&known, &anchors, &[], time, purpose, revocation, None) {
        Ok(_) => Ok(identity),
        Err(webpki::Error::CertRevoked) => Err(ChainFault::Revoked),
        Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
            Err(ChainFault::Time(leaf.not_before, leaf.not_after))
        }
        Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
            Err(ChainFault::Signer(identity.site.to_string()))
        }
        Err(why) => Err(other(why)),
    }
}
