//! Who may connect to a source's gateway as a hypervisor: an address, or a user of this machine.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where a hypervisor's connection must come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This address; for TCP.
    Address(IpAddr),
    /// A process of this user, as the kernel vouches for it; for unix sockets.
    User(u32),
}

/// A text that names no origin. Nothing was done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither an address, as '192.0.2.10', nor a user, as 'uid:107'")]
pub struct OriginError(String);

impl Origin {
    /// Whether a TCP connection from `address` comes from here.
    pub fn is_address(self, address: IpAddr) -> bool {
        // A listener on [::] sees an IPv4 peer as ::ffff:192.0.2.10.
        matches!(self, Self::Address(named) if named.to_canonical() == address.to_canonical())
    }

    /// Whether a unix socket's peer of user `uid` comes from here.
    pub fn is_user(self, uid: u32) -> bool {
        self == Self::User(uid)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::User(uid) => write!(f, "uid:{uid}"),
        }
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let wrong = || OriginError(text.chars().take(100).collect());
        match text.strip_prefix("uid:") {
            Some(uid) => uid.parse().map(Self::User).map_err(|_| wrong()),
            None => text.parse().map(Self::Address).map_err(|_| wrong()),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_addresses_and_users() {
        let origin = |text: &str| text.parse::<Origin>();
        assert_eq!(origin("uid:107"), Ok(Origin::User(107)));
        assert!(origin("uid:107").unwrap().is_user(107) && !origin("uid:107").unwrap().is_user(0));
        let address = origin("192.0.2.10").unwrap();
        assert!(address.is_address("192.0.2.10".parse().unwrap()));
        assert!(address.is_address("::ffff:192.0.2.10".parse().unwrap()));
        assert!(!address.is_address("192.0.2.11".parse().unwrap()) && !address.is_user(0));
        for text in ["2001:db8::1", "uid:0"] {
            assert_eq!(origin(text).unwrap().to_string(), text);
        }
        for wrong in ["", "uid:", "uid:-1", "host", "192.0.2.10:80", "192.0.2.0/24"] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
