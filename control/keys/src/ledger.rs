//! The keys folder: a site's two authorities, what they issued and what they took back.
//!
//! ```text
//! KEYS/gateway/authority.crt   certificate of the authority for gateways
//! KEYS/gateway/authority.key   its key, encrypted or owner-only
//! KEYS/gateway/issued/*.crt    every certificate it issued, by serial number
//! KEYS/gateway/revoked.json    what it took back, when and why; the number of the last list
//! KEYS/gateway/revoked.pem     its revocation list
//! KEYS/caller/...              the same of the authority for callers
//! ```
//!
//! It belongs on one host, which need be neither a gateway nor reachable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::authority::{Authority, KeyError, is_encrypted};
use crate::bundle::Bundle;
use crate::certificate::{Certificate, CertificateError};
use crate::identity::{AuthorityName, Identity, Role, Site};
use crate::issue::{Issued, Request};
use crate::limits::ISSUED_MAX;
use crate::revoke::{Revocation, RevocationList, Why};
use crate::secret::Passphrase;
use crate::store::{self, Lock, Mode, StoreError};

/// The keys folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file of it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key or certificate of it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file that holds something else.
    #[error("{path} cannot be used: {why}; nothing was changed")]
    Broken {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There are authorities already.
    #[error(
        "{0} holds authorities already: nothing was changed. A site keeps its authorities; name another folder with \
         --keys to make others"
    )]
    Exists(PathBuf),
    /// There are none.
    #[error(
        "{0} holds no authorities: make them with 'novactl keys init SITE', or name the folder with --keys"
    )]
    None(PathBuf),
    /// The identity has a certificate.
    #[error(
        "{identity} has a certificate that is valid until {until}; nothing was issued. 'novactl keys rotate' issues \
         its successor"
    )]
    Issued {
        /// Whose.
        identity: Identity,
        /// Its end.
        until: novacron_control_api::Timestamp,
    },
    /// Nothing to succeed.
    #[error(
        "{0} has no valid certificate, so there is nothing to rotate; 'novactl keys issue' issues its first"
    )]
    NotIssued(Identity),
    /// Nothing by that name.
    #[error("{0} is no certificate of this folder; 'novactl keys list' shows them. Nothing was changed")]
    Unknown(String),
    /// Too many for one folder.
    #[error("{0} holds {ISSUED_MAX} certificates, the most that are kept in one; nothing was issued")]
    Full(PathBuf),
}

/// What a certificate is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// In use.
    Valid,
    /// In use; its end is near and it has no successor.
    Expiring,
    /// In its time, and a newer one of the same identity took its place.
    Superseded,
    /// Its time has not come: this host's clock is wrong.
    Early,
    /// Its time has passed.
    Expired,
    /// Taken back.
    Revoked,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Superseded => "superseded",
            Self::Early => "early",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

/// One certificate of the folder.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// It.
    #[serde(flatten)]
    pub certificate: Certificate,
    /// What it is worth.
    pub standing: Standing,
    /// Whole days until its end; 0 when it has passed.
    pub days_left: u64,
    /// When and why it was taken back.
    pub revoked: Option<Revocation>,
    /// Whether nothing of its identity is valid beyond the term that was asked about: somebody must act.
    pub needs_action: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    number: u64,
    revoked: Vec<Revocation>,
}

/// One authority of a keys folder and its papers.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    /// Its certificate.
    pub certificate: Certificate,
    /// Which it is.
    pub name: AuthorityName,
}

fn broken(path: &Path) -> impl FnOnce(CertificateError) -> LedgerError {
    let path = path.to_owned();
    move |why| LedgerError::Broken { path, why: why.to_string() }
}

fn read_certificate(path: &Path) -> Result<Certificate, LedgerError> {
    let mut read = Certificate::from_pem(&store::read(path)?).map_err(broken(path))?;
    match (read.pop(), read.is_empty()) {
        (Some(certificate), true) => Ok(certificate),
        _ => Err(LedgerError::Broken { path: path.to_owned(), why: "it must hold one certificate".into() }),
    }
}

impl Ledger {
    /// Makes a site's authorities, one for each role, each with an empty revocation list.
    ///
    /// # Errors
    /// When the folder holds authorities, or cannot be written.
    pub fn init(
        keys: &Path,
        site: &Site,
        days: u32,
        passphrase: Option<&Passphrase>,
        now: SystemTime,
    ) -> Result<Vec<Self>, LedgerError> {
        store::folder(keys)?;
        let _lock = Lock::take(keys)?;
        if Role::ALL.iter().any(|role| keys.join(role.as_str()).join("authority.key").exists()) {
            return Err(LedgerError::Exists(keys.to_owned()));
        }
        Role::ALL
            .into_iter()
            .map(|role| {
                let name = AuthorityName { site: site.clone(), role };
                let authority = Authority::make(&name, days, now)?;
                let folder = keys.join(role.as_str());
                store::folder(&folder.join("issued"))?;
                let certificate = authority.certificate.clone();
                store::write(&folder.join("authority.crt"), certificate.to_pem().as_bytes(), Mode::Public)?;
                let ledger = Self { folder, certificate, name };
                ledger.publish(&authority, &Revoked::default(), now)?;
                // The key is last: a folder that has it has everything.
                let key = authority.key_pem(passphrase)?;
                store::write(&ledger.folder.join("authority.key"), key.expose(), Mode::Secret)?;
                Ok(ledger)
            })
            .collect()
    }

    /// Opens one authority's papers. Its key stays where it is.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(keys: &Path, role: Role) -> Result<Self, LedgerError> {
        let folder = keys.join(role.as_str());
        let path = folder.join("authority.crt");
        let certificate = match read_certificate(&path) {
            Err(LedgerError::Store(StoreError::Absent(_))) => return Err(LedgerError::None(keys.to_owned())),
            other => other?,
        };
        let name = certificate
            .authority()
            .cloned()
            .ok_or_else(|| LedgerError::Broken { path, why: "it is no authority's certificate".into() })?;
        Ok(Self { folder, certificate, name })
    }

    /// Opens its key too.
    ///
    /// # Errors
    /// When others may read it, or the passphrase does not open it.
    pub fn authority(&self, passphrase: Option<&Passphrase>) -> Result<Authority, LedgerError> {
        let key = store::read_secret(&self.folder.join("authority.key"))?;
        Ok(Authority::load(self.certificate.clone(), &key, passphrase)?)
    }

    /// Whether its key is encrypted.
    ///
    /// # Errors
    /// When others may read it.
    pub fn is_encrypted(&self) -> Result<bool, LedgerError> {
        Ok(is_encrypted(&store::read_secret(&self.folder.join("authority.key"))?))
    }

    /// Issues and records. `rotating` says whether the identity must have a valid certificate, or must not.
    ///
    /// # Errors
    /// When it has one where it must not, or not where it must; when the request is refused.
    pub fn issue(
        &self,
        identity: &Identity,
        request: Option<&Request>,
        rotating: bool,
        days: u32,
        passphrase: Option<&Passphrase>,
        now: SystemTime,
    ) -> Result<Issued, LedgerError> {
        let _lock = Lock::take(&self.folder)?;
        let entries = self.list(now, Duration::ZERO)?;
        let valid = entries.iter().find(|entry| {
            entry.certificate.identity() == Some(identity) && entry.standing == Standing::Valid
        });
        match (rotating, valid) {
            (false, Some(entry)) => {
                let until = entry.certificate.not_after;
                return Err(LedgerError::Issued { identity: identity.clone(), until });
            }
            (true, None) => return Err(LedgerError::NotIssued(identity.clone())),
            _ => {}
        }
        if entries.len() >= ISSUED_MAX {
            return Err(LedgerError::Full(self.folder.clone()));
        }
        let authority = self.authority(passphrase)?;
        let issued = match request {
            Some(request) => authority.issue_requested(request, identity, days, now)?,
            None => authority.issue(identity, days, now)?,
        };
        // Recorded before anybody has it: what is not in the books cannot be revoked.
        let path = self.folder.join("issued").join(format!("{}.crt", issued.certificate.serial));
        store::write(&path, issued.certificate.to_pem().as_bytes(), Mode::Public)?;
        self.publish(&authority, &self.revoked()?, now)?;
        Ok(issued)
    }

    /// Takes a certificate back, by serial number, or everything valid of an identity. Returns what was taken back
    /// now; nothing where all of it had been before.
    ///
    /// # Errors
    /// When it is not of this folder.
    pub fn revoke(
        &self,
        which: &Which,
        why: Why,
        passphrase: Option<&Passphrase>,
        now: SystemTime,
    ) -> Result<Vec<Entry>, LedgerError> {
        let _lock = Lock::take(&self.folder)?;
        let entries: Vec<Entry> = self
            .list(now, Duration::ZERO)?
            .into_iter()
            .filter(|entry| which.is(&entry.certificate))
            .collect();
        if entries.is_empty() {
            return Err(LedgerError::Unknown(which.to_string()));
        }
        let fresh: Vec<Entry> = entries.into_iter().filter(|entry| entry.revoked.is_none()).collect();
        let authority = self.authority(passphrase)?;
        let mut revoked = self.revoked()?;
        revoked.revoked.extend(fresh.iter().map(|entry| Revocation {
            serial: entry.certificate.serial.clone(),
            at: now.into(),
            why,
        }));
        self.publish(&authority, &revoked, now)?;
        Ok(fresh)
    }

    /// Its revocation list.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn revocation_list(&self) -> Result<RevocationList, LedgerError> {
        let path = self.folder.join("revoked.pem");
        let mut lists = RevocationList::from_pem(&store::read(&path)?).map_err(broken(&path))?;
        lists.pop().ok_or_else(|| LedgerError::Broken { path, why: "it holds no revocation list".into() })
    }

    /// Whether it issued the certificate with this serial number.
    pub fn issued(&self, serial: &str) -> bool {
        let plain = !serial.is_empty() && serial.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain && self.folder.join("issued").join(format!("{serial}.crt")).exists()
    }

    /// Where its revocation list stands.
    pub fn revocation_list_path(&self) -> PathBuf {
        self.folder.join("revoked.pem")
    }

    /// What its site's gateways show others and believe of their own.
    ///
    /// # Errors
    /// When it cannot be read, or the authority's time has passed.
    pub fn bundle(&self, now: SystemTime) -> Result<Bundle, LedgerError> {
        let list = self.revocation_list()?;
        Bundle::new(vec![self.certificate.clone()], vec![list], now).map_err(|why| LedgerError::Broken {
            path: self.folder.join("authority.crt"),
            why: why.to_string(),
        })
    }

    /// Everything it issued, oldest first. What ends within `expiring` and has no successor is marked.
    ///
    /// # Errors
    /// When a file of the folder cannot be read: a list that leaves out what it cannot read would mislead.
    pub fn list(&self, now: SystemTime, expiring: Duration) -> Result<Vec<Entry>, LedgerError> {
        let folder = self.folder.join("issued");
        let read = |why| StoreError::System { path: folder.clone(), what: "read", why };
        let mut certificates = Vec::new();
        for file in fs::read_dir(&folder).map_err(read)? {
            let path = file.map_err(read)?.path();
            if path.extension().is_some_and(|extension| extension == "crt") {
                certificates.push(read_certificate(&path)?);
            }
        }
        let revoked = self.revoked()?.revoked;
        let revoked = |certificate: &Certificate| revoked.iter().find(|one| one.serial == certificate.serial);
        let age = |one: &Certificate| (one.not_before, one.not_after, one.serial.clone());
        certificates.sort_by_key(age);
        let usable =
            |certificate: &Certificate| revoked(certificate).is_none() && certificate.is_current(now);
        // Of each identity the one that lasts longest is in use; what it leaves behind needs nobody's care.
        let mut newest: BTreeMap<String, (novacron_control_api::Timestamp, String)> = BTreeMap::new();
        for certificate in certificates.iter().filter(|certificate| usable(certificate)) {
            let this = (certificate.not_after, certificate.serial.clone());
            let newest = newest.entry(certificate.holder.to_string()).or_insert_with(|| this.clone());
            // Of two that end together, the later in the list.
            if this.0 >= newest.0 {
                *newest = this;
            }
        }
        // An identity whose last certificate has expired unrevoked is out of service, and nobody may have noticed.
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for certificate in &certificates {
            last.insert(certificate.holder.to_string(), certificate.serial.clone());
        }
        Ok(certificates
            .into_iter()
            .map(|certificate| {
                let holder = certificate.holder.to_string();
                let revoked = revoked(&certificate).cloned();
                let left = certificate.left(now);
                let is_newest = newest.get(&holder).is_none_or(|(_, serial)| *serial == certificate.serial);
                let standing = match left {
                    _ if revoked.is_some() => Standing::Revoked,
                    None => Standing::Expired,
                    Some(_) if SystemTime::from(certificate.not_before) > now => Standing::Early,
                    Some(_) if !is_newest => Standing::Superseded,
                    Some(left) if left < expiring => Standing::Expiring,
                    Some(_) => Standing::Valid,
                };
                let lapsed = standing == Standing::Expired
                    && !newest.contains_key(&holder)
                    && last.get(&holder) == Some(&certificate.serial);
                Entry {
                    standing,
                    days_left: left.map_or(0, |left| left.as_secs() / (24 * 3600)),
                    revoked,
                    needs_action: lapsed || matches!(standing, Standing::Expiring | Standing::Early),
                    certificate,
                }
            })
            .collect())
    }

    fn revoked(&self) -> Result<Revoked, LedgerError> {
        let path = self.folder.join("revoked.json");
        let text = store::read(&path)?;
        serde_json::from_slice(&text).map_err(|why| LedgerError::Broken { path, why: why.to_string() })
    }

    /// Writes what is revoked, and the list that says so. The books come first: a list that a crash kept back is
    /// written by the next change.
    fn publish(&self, authority: &Authority, revoked: &Revoked, now: SystemTime) -> Result<(), LedgerError> {
        let number = revoked.number + 1;
        let list = authority.revocation_list(&revoked.revoked, number, now)?;
        let books = Revoked { number, revoked: revoked.revoked.clone() };
        let text = serde_json::to_string_pretty(&books).unwrap_or_default() + "\n";
        store::write(&self.folder.join("revoked.json"), text.as_bytes(), Mode::Public)?;
        store::write(&self.folder.join("revoked.pem"), list.to_pem().as_bytes(), Mode::Public)?;
        Ok(())
    }
}

/// Which certificates are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one with this serial number, in hexadecimal.
    Serial(String),
    /// All of this identity.
    Identity(Identity),
}

impl Which {
    fn is(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Serial(serial) => certificate.serial == *serial,
            Self::Identity(identity) => certificate.identity() == Some(identity),
        }
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial(serial) => f.write_str(serial),
            Self::Identity(identity) => identity.fmt(f),
        }
    }
}
