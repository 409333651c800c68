//! The identity folder of one gateway: what it shows its peers, whom it believes, and what they may do. The gateway
//! reads it, whole or not at all; this writes it, each file whole.
//!
//! ```text
//! IDENTITY/gateway.crt       its certificate (a caller's folder: caller.crt, caller.key)
//! IDENTITY/gateway.key       its key, 0600
//! IDENTITY/gateway.key.next  a key that a request was made for, until its certificate is installed
//! IDENTITY/authorities.pem   authorities for gateways: the own site's, and those of paired sites
//! IDENTITY/revoked.pem       their revocation lists
//! IDENTITY/peers.toml        which peers may do what
//! ```

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use novacron_control_api::{PeerRule, Peers};

use crate::authority::public_key;
use crate::bundle::{Bundle, BundleError, described};
use crate::certificate::{Certificate, CertificateError};
use crate::identity::{Identity, Role, Site};
use crate::issue::Request;
use crate::limits::AUTHORITIES_MAX;
use crate::revoke::RevocationList;
use crate::secret::Secret;
use crate::store::{self, Lock, Mode, StoreError};

/// The identity folder could not be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that holds something else.
    #[error("{path} cannot be used: {why}; nothing was changed")]
    Broken {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Bytes of others that are not taken.
    #[error("what was given is refused: {0}; nothing was changed")]
    Refused(String),
    /// A key or request could not be made.
    #[error(transparent)]
    Key(#[from] crate::authority::KeyError),
}

impl From<BundleError> for TrustError {
    fn from(why: BundleError) -> Self {
        Self::Refused(why.to_string())
    }
}

/// A gateway's identity folder.
#[derive(Debug, Clone)]
pub struct Trust {
    folder: PathBuf,
}

fn broken(path: &Path) -> impl FnOnce(CertificateError) -> TrustError {
    let path = path.to_owned();
    move |why| TrustError::Broken { path, why: why.to_string() }
}

/// What a new `peers.toml` says.
const PEERS_HEAD: &str = "\
# Which peers may do what; who is named by no entry is refused. 'novactl pair' adds entries.
#
# [[peer]]
# identity = \"novacron://site-b/gateway/*\"   # * only as the whole last part
# tenants = [\"*\"]                            # whose migrations; * for all
# directions = [\"from\", \"to\"]              # guests that come from there, guests that go there
";

impl Trust {
    /// The folder at this path, which need not be there yet.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The gateway's certificate.
    ///
    /// # Errors
    /// When there is none, or it is not a gateway's.
    pub fn own(&self) -> Result<Certificate, TrustError> {
        let path = self.path("gateway.crt");
        let chain = Certificate::from_pem(&store::read(&path)?).map_err(broken(&path))?;
        let is_gateway = |leaf: &Certificate| leaf.identity().is_some_and(|id| id.role == Role::Gateway);
        chain.into_iter().next().filter(is_gateway).ok_or_else(|| TrustError::Broken {
            path,
            why: "its first certificate must be a gateway's".into(),
        })
    }

    /// The gateway's site.
    ///
    /// # Errors
    /// As [`Trust::own`].
    pub fn site(&self) -> Result<Site, TrustError> {
        let own = self.own()?;
        let site = own.identity().map(|identity| identity.site.clone());
        site.ok_or_else(|| TrustError::Broken {
            path: self.path("gateway.crt"),
            why: "it names nobody".into(),
        })
    }

    /// The gateway's key; refused when others may read it.
    ///
    /// # Errors
    /// When there is none.
    pub fn key(&self) -> Result<Secret, TrustError> {
        Ok(store::read_secret(&self.path("gateway.key"))?)
    }

    /// Whom it believes; nobody where the file is absent.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn authorities(&self) -> Result<Vec<Certificate>, TrustError> {
        let path = self.path("authorities.pem");
        match store::read(&path) {
            Err(StoreError::Absent(_)) => Ok(Vec::new()),
            read => Certificate::from_pem(&read?).map_err(broken(&path)),
        }
    }

    /// What those authorities took back.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lists(&self) -> Result<Vec<RevocationList>, TrustError> {
        let path = self.path("revoked.pem");
        match store::read(&path) {
            Err(StoreError::Absent(_)) => Ok(Vec::new()),
            read => RevocationList::from_pem(&read?).map_err(broken(&path)),
        }
    }

    /// The text of `peers.toml`; that of a new one where it is absent.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn peers(&self) -> Result<String, TrustError> {
        match store::read_text(&self.path("peers.toml")) {
            Err(StoreError::Absent(_)) => Ok(PEERS_HEAD.into()),
            read => Ok(read?),
        }
    }

    /// What this site shows another: its own authorities that are valid, and their lists.
    ///
    /// # Errors
    /// When any of it is missing.
    pub fn bundle(&self, now: SystemTime) -> Result<Bundle, TrustError> {
        let site = self.site()?;
        let mut authorities = self.authorities()?;
        authorities.retain(|one| {
            one.authority().is_some_and(|name| name.site == site && name.role == Role::Gateway)
                && one.is_current(now)
        });
        let mut lists = self.lists()?;
        lists.retain(|list| authorities.iter().any(|authority| list.is_signed_by(authority)));
        let at = |why: BundleError| TrustError::Broken {
            path: self.path("authorities.pem"),
            why: why.to_string(),
        };
        Bundle::new(authorities, lists, now).map_err(at)
    }

    /// Makes a key and a request for the certificate that goes with it. The key waits beside the one in use.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn request(&self, identity: &Identity) -> Result<String, TrustError> {
        store::folder(&self.folder)?;
        let _lock = Lock::take(&self.folder)?;
        let (key, request) = Request::make(identity)?;
        store::write(&self.path(&format!("{}.key.next", identity.role)), key.expose(), Mode::Secret)?;
        Ok(request)
    }

    /// Installs a certificate with its key: the given one, or the one that waits since its request was made.
    /// `signer` is the authority that issued it, `bundle` whom of its own site the holder is to believe.
    ///
    /// # Errors
    /// When the certificate is not its authority's, or its key is not here.
    pub fn install(
        &self,
        certificate: &Certificate,
        key: Option<&Secret>,
        signer: &Certificate,
        bundle: &Bundle,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        let refused = |why: &str| TrustError::Refused(why.into());
        let identity = certificate
            .identity()
            .filter(|id| signer.authority().is_some_and(|by| (&by.site, by.role) == (&id.site, id.role)))
            .filter(|id| id.site == *bundle.site() && certificate.is_signed_by(signer))
            .ok_or_else(|| refused("the certificate is not signed by an authority for its holder"))?;
        if let Ok(site) = self.site()
            && site != identity.site
        {
            return Err(TrustError::Refused(format!(
                "the folder is a gateway's of the site {site}, the certificate {identity}'s"
            )));
        }
        let stem = identity.role.as_str();
        store::folder(&self.folder)?;
        let _lock = Lock::take(&self.folder)?;
        let (waits, used) = (self.path(&format!("{stem}.key.next")), self.path(&format!("{stem}.key")));
        let fits = |path: &Path| -> Result<Option<Secret>, TrustError> {
            if !path.exists() {
                return Ok(None);
            }
            let key = store::read_secret(path)?;
            Ok((public_key(&key)? == certificate.public_key_der).then_some(key))
        };
        let (fresh, waited) = match key {
            Some(key) => (Some(Secret::new(key.expose().to_vec())), false),
            None => match fits(&waits)? {
                Some(key) => (Some(key), true),
                None if fits(&used)?.is_some() => (None, false),
                None => return Err(refused("its key is not in this folder: the request was made elsewhere")),
            },
        };
        // Whom to believe comes first: a certificate in use must find its own authority there.
        self.believe(bundle, now)?;
        if identity.role == Role::Gateway && !self.path("peers.toml").exists() {
            store::write(&self.path("peers.toml"), PEERS_HEAD.as_bytes(), Mode::Public)?;
        }
        // Between the next two the key and the certificate in use do not match; a gateway that reads just then keeps
        // what it has until the second.
        if let Some(key) = fresh {
            store::write(&used, key.expose(), Mode::Secret)?;
        }
        store::write(&self.path(&format!("{stem}.crt")), certificate.to_pem().as_bytes(), Mode::Public)?;
        if waited {
            let _ = std::fs::remove_file(&waits);
        }
        Ok(())
    }

    /// Trusts another site's authorities, and lets its gateways do what `rule` says, unless the file has a rule for
    /// them: whoever wrote that meant it. Says whether the rule was added.
    ///
    /// # Errors
    /// When the bundle is of the own site, or takes the name of an authority that is believed; when `peers.toml` has a
    /// mistake. Then nobody new is trusted.
    pub fn pair(&self, bundle: &Bundle, rule: &PeerRule, now: SystemTime) -> Result<bool, TrustError> {
        let _lock = Lock::take(&self.folder)?;
        if self.site()? == *bundle.site() {
            return Err(TrustError::Refused(format!(
                "it is of the site {}, which is this one: sites pair with others",
                bundle.site()
            )));
        }
        let path = self.path("peers.toml");
        let mut text = self.peers()?;
        let broken = |why| TrustError::Broken { path: path.clone(), why };
        let known = Peers::parse(&text).map_err(broken)?;
        let add = !known.peers.iter().any(|one| one.identity == rule.identity);
        if add {
            // Added as text: what people wrote into the file stays as they wrote it.
            let entry = Peers { peers: vec![rule.clone()] }.to_toml().map_err(broken)?;
            text = format!("{}\n\n{entry}", text.trim_end());
            Peers::parse(&text).map_err(broken)?;
        }
        self.believe(bundle, now)?;
        // Who may do what comes last: until then the new site's gateways are refused.
        if add {
            store::write(&path, text.as_bytes(), Mode::Public)?;
        }
        Ok(add)
    }

    /// Takes newer revocation lists of authorities that are believed. Returns how many were newer.
    ///
    /// # Errors
    /// When one is of nobody who is believed: nothing of the rest is taken either.
    pub fn revoke(&self, lists: Vec<RevocationList>) -> Result<usize, TrustError> {
        let _lock = Lock::take(&self.folder)?;
        let authorities = self.authorities()?;
        if let Some(list) =
            lists.iter().find(|list| !authorities.iter().any(|authority| list.is_signed_by(authority)))
        {
            return Err(TrustError::Refused(format!(
                "the revocation list of '{}' is signed by no authority that is believed here",
                list.issuer
            )));
        }
        let (merged, newer) = merge(self.lists()?, lists);
        self.write_lists(&merged)?;
        Ok(newer)
    }

    /// Adds a bundle's authorities and lists to those that are believed. What has expired goes.
    fn believe(&self, bundle: &Bundle, now: SystemTime) -> Result<(), TrustError> {
        let mut authorities = self.authorities()?;
        authorities.retain(|one| one.left(now).is_some());
        for new in bundle.authorities() {
            if authorities.iter().any(|old| old.fingerprint == new.fingerprint) {
                continue;
            }
            // Revocation lists are found by the authority's name: two of one name would answer for each other.
            if authorities.iter().any(|old| old.subject_der == new.subject_der) {
                return Err(TrustError::Refused(format!(
                    "its authority calls itself '{}', as another that is believed already",
                    new.subject
                )));
            }
            authorities.push(new.clone());
        }
        if authorities.len() > AUTHORITIES_MAX {
            return Err(TrustError::Refused(format!(
                "more than {AUTHORITIES_MAX} authorities would be believed"
            )));
        }
        let (mut lists, _) = merge(self.lists()?, bundle.lists().to_vec());
        lists.retain(|list| authorities.iter().any(|authority| list.is_signed_by(authority)));
        // Lists first: at no moment is an authority believed whose list is missing.
        self.write_lists(&lists)?;
        let text: String = authorities.iter().map(described).collect();
        Ok(store::write(&self.path("authorities.pem"), text.as_bytes(), Mode::Public)?)
    }

    fn write_lists(&self, lists: &[RevocationList]) -> Result<(), TrustError> {
        let text: String = lists.iter().map(RevocationList::to_pem).collect();
        Ok(store::write(&self.path("revoked.pem"), text.as_bytes(), Mode::Public)?)
    }
}

/// Of each issuer the newest list; and how many came newly.
fn merge(mut lists: Vec<RevocationList>, new: Vec<RevocationList>) -> (Vec<RevocationList>, usize) {
    let mut newer = 0;
    for list in new {
        match lists.iter_mut().find(|old| old.issuer_der == list.issuer_der) {
            Some(old) if list.is_newer_than(old) => {
                *old = list;
                newer += 1;
            }
            Some(_) => {}
            None => {
                lists.push(list);
                newer += 1;
            }
        }
    }
    (lists, newer)
}
