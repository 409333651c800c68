//! Who a gateway is, and what its peers may do: the names in certificates, and the file `peers.toml`.
//!
//! A gateway's certificate names it once, as `novacron://SITE/gateway/NAME`; the certificate of the authority that issued
//! it is named `novacron://SITE/authority/NAME`. An authority vouches for its own site and no other, so that a site that is
//! broken into cannot speak for a third.
//!
//! ```toml
//! [[peer]]
//! identity = "novacron://site-b/gateway/*"  # `*` only as the whole last segment
//! tenants = ["*"]                           # whose sessions; `*`: anyone's
//! directions = ["from", "to"]               # sessions that come from there, sessions that go there
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{IDENTITY_BYTES_MAX, PEERS_MAX, TENANT_BYTES_MAX, TENANTS_MAX};

/// The scheme of every name.
const SCHEME: &str = "novacron://";

/// What kind of thing a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityKind {
    /// Issues certificates for a site.
    Authority,
    /// Moves guests between sites.
    Gateway,
    /// Tells gateways what to do.
    Caller,
}

impl IdentityKind {
    fn word(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Gateway => "gateway",
            Self::Caller => "caller",
        }
    }
}

/// A name, as a certificate carries it: `novacron://SITE/gateway/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIdentity {
    site: String,
    kind: IdentityKind,
    name: String,
}

/// A text that names nobody. Nothing was trusted because of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is not `novacron://SITE/KIND/NAME`.
    #[error("'{0}' is no name: it must be written as novacron://SITE/gateway/NAME")]
    Form(String),
    /// A part has a character or length that it must not have.
    #[error(
        "'{0}' holds a part that is no name: 1 to 63 of a-z, 0-9, '-' and '.', beginning with a letter or digit"
    )]
    Part(String),
}

fn is_part(part: &str) -> bool {
    (1..=63).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && part.as_bytes()[0].is_ascii_alphanumeric()
}

fn shown(text: &str) -> String {
    text.chars().take(IDENTITY_BYTES_MAX).collect()
}

impl PeerIdentity {
    /// A name from its parts.
    ///
    /// # Errors
    /// When a part is no name.
    pub fn new(site: &str, kind: IdentityKind, name: &str) -> Result<Self, IdentityError> {
        if !is_part(site) || !is_part(name) {
            return Err(IdentityError::Part(shown(&format!("{SCHEME}{site}/{}/{name}", kind.word()))));
        }
        Ok(Self { site: site.to_owned(), kind, name: name.to_owned() })
    }

    /// The site.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// What it names.
    pub fn kind(&self) -> IdentityKind {
        self.kind
    }

    /// The name within its site.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for PeerIdentity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(shown(text));
        let mut parts = text.strip_prefix(SCHEME).ok_or_else(form)?.split('/');
        let (Some(site), Some(kind), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        let kind = match kind {
            "authority" => IdentityKind::Authority,
            "gateway" => IdentityKind::Gateway,
            "caller" => IdentityKind::Caller,
            _ => return Err(form()),
        };
        Self::new(site, kind, name)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.site, self.kind.word(), self.name)
    }
}

impl Serialize for PeerIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerIdentity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Which gateways a rule is about: one, or all of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPattern {
    site: String,
    /// `None`: every gateway of the site.
    name: Option<String>,
}

impl PeerPattern {
    /// Every gateway of a site.
    ///
    /// # Errors
    /// When `site` is no name.
    pub fn whole_site(site: &str) -> Result<Self, IdentityError> {
        if !is_part(site) {
            return Err(IdentityError::Part(shown(site)));
        }
        Ok(Self { site: site.to_owned(), name: None })
    }

    /// Whether the rule is about this gateway. Never about anything that is no gateway.
    pub fn matches(&self, identity: &PeerIdentity) -> bool {
        identity.kind == IdentityKind::Gateway
            && identity.site == self.site
            && self.name.as_ref().is_none_or(|name| *name == identity.name)
    }
}

impl FromStr for PeerPattern {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if let Some(site) = text.strip_prefix(SCHEME).and_then(|rest| rest.strip_suffix("/gateway/*")) {
            return Self::whole_site(site);
        }
        let identity: PeerIdentity = text.parse()?;
        if identity.kind != IdentityKind::Gateway {
            return Err(IdentityError::Form(shown(text)));
        }
        Ok(Self { site: identity.site, name: Some(identity.name) })
    }
}

impl fmt::Display for PeerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/gateway/{}", self.site, self.name.as_deref().unwrap_or("*"))
    }
}

impl Serialize for PeerPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Which way sessions go, seen from the gateway that reads the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerDirection {
    /// Guests come from the peer: it dials, this gateway is the destination's.
    From,
    /// Guests go to the peer: this gateway dials, and is the source's.
    To,
}

impl fmt::Display for PeerDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::From => "from",
            Self::To => "to",
        })
    }
}

/// What some peers may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerRule {
    /// Which peers.
    pub identity: PeerPattern,
    /// Whose sessions they may share; `*` alone: anyone's.
    pub tenants: Vec<String>,
    /// Which ways.
    pub directions: Vec<PeerDirection>,
}

impl PeerRule {
    fn names_tenant(&self, tenant: &str) -> bool {
        self.tenants.iter().any(|named| named == "*" || named == tenant)
    }
}

/// The file `peers.toml`: who may be a peer, and for what. Who is not named is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// The rules; a peer may do what any of them allows.
    #[serde(default, rename = "peer")]
    pub peers: Vec<PeerRule>,
}

/// Whether this is a tenant's name. `*` is none: it stands for all of them in a rule.
pub fn is_tenant(tenant: &str) -> bool {
    (1..=TENANT_BYTES_MAX).contains(&tenant.len())
        && tenant.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl Peers {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// What is wrong and where, for people. Nothing of a file that has a mistake is used.
    pub fn parse(text: &str) -> Result<Self, String> {
        let peers: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if peers.peers.len() > PEERS_MAX {
            return Err(format!("{} peers are named; {PEERS_MAX} are read at most", peers.peers.len()));
        }
        for rule in &peers.peers {
            let who = &rule.identity;
            if rule.tenants.len() > TENANTS_MAX {
                return Err(format!(
                    "{who}: {} tenants are named; at most {TENANTS_MAX} are",
                    rule.tenants.len()
                ));
            }
            if let Some(tenant) = rule.tenants.iter().find(|tenant| *tenant != "*" && !is_tenant(tenant)) {
                return Err(format!(
                    "{who}: '{}' is no tenant: 1 to {TENANT_BYTES_MAX} letters, digits, '-', '_' and '.', or '*' for all",
                    shown(tenant)
                ));
            }
        }
        Ok(peers)
    }

    /// Whether this peer may have sessions that go this way, whosever they are.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn allows(&self, peer: &PeerIdentity, direction: PeerDirection) -> Result<(), String> {
        self.decide(peer, direction, None)
    }

    /// Whether this peer may have a tenant's sessions that go this way.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn allows_tenant(
        &self,
        peer: &PeerIdentity,
        direction: PeerDirection,
        tenant: &str,
    ) -> Result<(), String> {
        self.decide(peer, direction, Some(tenant))
    }

    fn decide(
        &self,
        peer: &PeerIdentity,
        direction: PeerDirection,
        tenant: Option<&str>,
    ) -> Result<(), String> {
        let mut known = false;
        let mut right_way = false;
        for rule in self.peers.iter().filter(|rule| rule.identity.matches(peer)) {
            known = true;
            if rule.directions.contains(&direction) {
                right_way = true;
                if tenant.is_none_or(|tenant| rule.names_tenant(tenant)) {
                    return Ok(());
                }
            }
        }
        Err(match (known, right_way, tenant) {
            (true, true, Some(tenant)) => format!("{peer} may not have sessions of the tenant {tenant}"),
            (true, ..) => format!("no session may go {direction} {peer}"),
            (false, ..) => format!("{peer} is not named in peers.toml"),
        })
    }

    /// The text of the file.
    ///
    /// # Errors
    /// When it cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = r#"
        [[peer]]
        identity = "novacron://site-b/gateway/*"
        tenants = ["*"]
        directions = ["from", "to"]

        [[peer]]
        identity = "novacron://site-c/gateway/edge-1"
        tenants = ["red", "blue"]
        directions = ["from"]
    "#;

    fn name(text: &str) -> PeerIdentity {
        text.parse().unwrap()
    }

    #[test]
    fn who_is_not_named_may_nothing() {
        let peers = Peers::parse(FILE).unwrap();
        use PeerDirection::{From, To};
        let b = name("novacron://site-b/gateway/anything");
        assert_eq!(peers.allows_tenant(&b, To, "red"), Ok(()));
        let c = name("novacron://site-c/gateway/edge-1");
        assert_eq!(peers.allows_tenant(&c, From, "blue"), Ok(()));
        let why = peers.allows_tenant(&c, From, "green").unwrap_err();
        assert!(why.contains("tenant green"), "{why}");
        let why = peers.allows(&c, To).unwrap_err();
        assert!(why.contains("may go to"), "{why}");
        for stranger in
            ["novacron://site-c/gateway/edge-2", "novacron://site-bb/gateway/x", "novacron://site-b/caller/x"]
        {
            let why = peers.allows(&name(stranger), From).unwrap_err();
            assert!(why.contains("not named"), "{why}");
        }
        assert!(Peers::default().allows(&b, From).is_err());
    }

    #[test]
    fn mistakes_are_refused_whole() {
        for (wrong, said) in [
            ("[[peer]]\nidentity = \"novacron://b/gateway/*\"\n", "tenants"),
            ("[[peer]]\nidentity = \"novacron://*/gateway/x\"\ntenants=[]\ndirections=[]", "novacron"),
            ("[[peer]]\nidentity = \"novacron://b/gateway/x*\"\ntenants=[]\ndirections=[]", "x*"),
            ("[[peer]]\nidentity = \"novacron://b/caller/x\"\ntenants=[]\ndirections=[]", "caller"),
            ("[[peer]]\nidentity = \"novacron://b/gateway/x\"\ntenants=[\"r d\"]\ndirections=[]", "r d"),
            ("[[peer]]\nidentity = \"novacron://b/gateway/x\"\ntenants=[]\ndirections=[\"up\"]", "up"),
            ("[[peers]]\nidentity = \"novacron://b/gateway/x\"\ntenants=[]\ndirections=[]", "peers"),
        ] {
            let why = Peers::parse(wrong).unwrap_err();
            assert!(why.contains(said), "{wrong}: {why}");
        }
    }

    #[test]
    fn names() {
        for good in
            ["novacron://a/gateway/b", "novacron://site-1.example/authority/ca", "novacron://a/caller/0"]
        {
            assert_eq!(name(good).to_string(), good);
        }
        for bad in [
            "",
            "novacron://",
            "novacron://a/gateway",
            "novacron://a/gateway/",
            "novacron://a/gateway/b/c",
            "https://a/gateway/b",
            "novacron://A/gateway/b",
            "novacron://a/gateway/*",
            "novacron://a/router/b",
            "novacron://-a/gateway/b",
            "novacron://a/gateway/b?tenant=x",
            "novacron://a b/gateway/c",
        ] {
            assert!(bad.parse::<PeerIdentity>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_is_total(text in "\\PC{0,200}") {
            let _ = (text.parse::<PeerIdentity>(), text.parse::<PeerPattern>(), Peers::parse(&text));
        }

        #[test]
        fn what_is_written_is_read(sites in prop::collection::vec(("[a-z0-9]{1,20}", prop::option::of("[a-z0-9]{1,20}"),
            prop::collection::vec("[A-Za-z0-9_.-]{1,20}", 0..4)), 0..5))
        {
            let peers = Peers { peers: sites.into_iter().map(|(site, name, tenants)| PeerRule {
                identity: PeerPattern { site, name },
                tenants,
                directions: vec![PeerDirection::To],
            }).collect() };
            prop_assert_eq!(Peers::parse(&peers.to_toml().unwrap()), Ok(peers));
        }
    }
}
