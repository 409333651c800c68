//! A site's certificate authorities, what they issue and take back, and how two sites come to trust each other.
//!
//! Certificates, requests and revocation lists are made by `rcgen` and read by `x509-parser`; keys are encrypted by
//! `pkcs8`, chains verified by `rustls-webpki`, all secrets and digests come from `aws-lc-rs`. What is here decides
//! what they say, where they stand and who may read them.
#![forbid(unsafe_code)]

pub mod authority;
pub mod bundle;
pub mod certificate;
pub mod chain;
pub mod fingerprint;
pub mod identity;
pub mod issue;
pub mod ledger;
pub mod limits;
pub mod pairing;
pub mod revoke;
pub mod secret;
pub mod store;
pub mod trust;

#[cfg(test)]
mod tests;

pub use authority::{Authority, KeyError};
pub use bundle::{Bundle, BundleError};
pub use certificate::{Certificate, CertificateError, Holder};
pub use fingerprint::Fingerprint;
pub use identity::{AuthorityName, Identity, IdentityError, Name, Role, Site};
pub use issue::{Issued, Request, read_reply, reply};
pub use ledger::{Entry, Ledger, LedgerError, Standing, Which};
pub use revoke::{Revocation, RevocationList, Why};
pub use secret::{Passphrase, Secret};
pub use store::StoreError;
pub use trust::{Trust, TrustError};
