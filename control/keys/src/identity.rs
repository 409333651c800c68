//! Who a certificate speaks for: `novacron://SITE/gateway/NAME`, `novacron://SITE/caller/NAME`, and of an authority
//! itself `novacron://SITE/authority/gateway`.
//!
//! The text stands in a certificate as its one URI name (RFC 5280, section 4.2.1.6). There is exactly one spelling of
//! each identity: no capitals, no escapes, no port, no query. So comparing texts compares identities, and nothing
//! that looks alike to a person differs to a program.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{IDENTITY_BYTES_MAX, NAME_BYTES_MAX, SITE_BYTES_MAX};

const SCHEME: &str = "novacron://";

/// A text that is no identity, site or name. Nothing was done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A site's name is not one.
    #[error(
        "a site is 1 to 63 of a-z, 0-9, '-' and '.', each part beginning and ending with a letter or digit"
    )]
    Site,
    /// A gateway's or caller's name is not one.
    #[error("a name is 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")]
    Name,
    /// Neither gateway nor caller.
    #[error("a role is 'gateway' or 'caller'")]
    Role,
    /// Not of the form of an identity.
    #[error("an identity is 'novacron://SITE/gateway/NAME' or 'novacron://SITE/caller/NAME'")]
    Form,
}

/// Which of a site's two authorities: each answers for one kind of holder and for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Gateways: they accept and dial each other.
    Gateway,
    /// Callers of the fleet: people and programs that command it. They only dial.
    Caller,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gateway, Self::Caller];

    /// As it stands in an identity.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Caller => "caller",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(IdentityError::Role)
    }
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
}

/// A site's name, as `site-a` or `fra1.example.net`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(String);

/// A gateway's or caller's name within its site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl FromStr for Site {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let fits = text.len() <= SITE_BYTES_MAX && text.split('.').all(is_label);
        if fits { Ok(Self(text.to_owned())) } else { Err(IdentityError::Site) }
    }
}

impl FromStr for Name {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let fits = text.len() <= NAME_BYTES_MAX && is_label(text);
        if fits { Ok(Self(text.to_owned())) } else { Err(IdentityError::Name) }
    }
}

/// Whom a certificate of an authority speaks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Its site.
    pub site: Site,
    /// What it is.
    pub role: Role,
    /// Its name there.
    pub name: Name,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.site, self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.len() > IDENTITY_BYTES_MAX {
            return Err(IdentityError::Form);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdentityError::Form)?;
        let mut parts = rest.split('/');
        let (Some(site), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Form);
        };
        Ok(Self { site: site.parse()?, role: role.parse()?, name: name.parse()? })
    }
}

/// One of a site's authorities, as its own certificate names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityName {
    /// Its site: it may sign for nobody of another.
    pub site: Site,
    /// What it signs for.
    pub role: Role,
}

impl fmt::Display for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/authority/{}", self.site, self.role)
    }
}

impl FromStr for AuthorityName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.len() > IDENTITY_BYTES_MAX {
            return Err(IdentityError::Form);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdentityError::Form)?;
        let (site, role) = rest.split_once("/authority/").ok_or(IdentityError::Form)?;
        Ok(Self { site: site.parse()?, role: role.parse()? })
    }
}

macro_rules! text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    )*};
}

text!(Site, Name);

macro_rules! serde_by_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serde_by_text!(Site, Name, Identity, AuthorityName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_spelling_each() {
        let text = "novacron://fra1.example.net/gateway/gw-1";
        let identity: Identity = text.parse().expect("an identity");
        assert_eq!(
            (identity.site.as_str(), identity.role, identity.name.as_str()),
            ("fra1.example.net", Role::Gateway, "gw-1")
        );
        assert_eq!(identity.to_string(), text);
        for wrong in [
            "",
            "novacron://",
            "novacron://a/gateway",
            "novacron://a/gateway/",
            "novacron://a/gateway/b/",
            "novacron://a/gateway/b/c",
            "novacron://a//b",
            "novacron://A/gateway/b",
            "novacron://a/Gateway/b",
            "novacron://a/gateway/B",
            "novacron://a/authority/gateway",
            "novacron://a/gateway/*",
            "novacron://a:1/gateway/b",
            "novacron://u@a/gateway/b",
            "novacron://a/gateway/b?tenant=c",
            "novacron://a/gateway/b#c",
            "novacron://a/gateway/%62",
            "novacron://a./gateway/b",
            "novacron://.a/gateway/b",
            "novacron://-a/gateway/b",
            "novacron://a/gateway/b-",
            "novacron://a/gateway/b.c",
            "https://a/gateway/b",
            " novacron://a/gateway/b",
            "novacron://a/gateway/b\n",
            "novacron://\u{e9}/gateway/b",
        ] {
            assert!(wrong.parse::<Identity>().is_err(), "{wrong:?}");
        }
        assert!("a".repeat(63).parse::<Name>().is_ok() && "a".repeat(64).parse::<Name>().is_err());
        assert!("a".repeat(63).parse::<Site>().is_ok() && "a".repeat(64).parse::<Site>().is_err());
    }

    #[test]
    fn an_authority_is_no_holder() {
        let name: AuthorityName = "novacron://a/authority/caller".parse().expect("a name");
        assert_eq!(name.to_string(), "novacron://a/authority/caller");
        for wrong in ["novacron://a/authority/", "novacron://a/authority/x", "novacron://a/gateway/b"] {
            assert!(wrong.parse::<AuthorityName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_longest_identity_fits_its_bound() {
        let longest =
            format!("{SCHEME}{}/gateway/{}", "a".repeat(SITE_BYTES_MAX), "b".repeat(NAME_BYTES_MAX));
        assert!(longest.len() <= IDENTITY_BYTES_MAX && longest.parse::<Identity>().is_ok());
        assert!((longest + "c").parse::<Identity>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            site in "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?){0,3}",
            name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
            role in prop::sample::select(Role::ALL.to_vec()),
        ) {
            let identity = Identity { site: site.parse().unwrap(), role, name: name.parse().unwrap() };
            prop_assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
        }

        /// Total, and whatever is taken is spelled as it came.
        #[test]
        fn any_text_is_refused_or_spelled_as_it_came(text in "(novacron://)?[a-zA-Z0-9./:@?#%*\\-\u{e9}\n ]{0,90}|\\PC{0,40}") {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), text.clone());
            }
            if let Ok(name) = text.parse::<AuthorityName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
