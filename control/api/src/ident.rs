//! Names of sessions, their secrets, and digests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hex;

/// A text that is not the identifier it should be. Nothing was done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be exactly {digits} hexadecimal digits")]
pub struct IdentError {
    what: &'static str,
    digits: usize,
}

/// A session's name: 64 bits, written as 16 hex digits, chosen at random by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = IdentError;

    fn from_str(text: &str) -> Result<Self, IdentError> {
        hex::decode(text)
            .map(|bytes| Self(u64::from_be_bytes(bytes)))
            .ok_or(IdentError { what: "a session id", digits: 16 })
    }
}

/// The secret that lets a gateway join a session: 32 random bytes, given to both gateways by the caller.
///
/// Neither `Debug` nor `Display` shows it; only serialising does, because the control socket must carry it.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// A token of these bytes, which the caller drew from the system's random source.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for the handshake between gateways.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Compares in a time that does not depend on where the first difference is.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl FromStr for Token {
    type Err = IdentError;

    fn from_str(text: &str) -> Result<Self, IdentError> {
        hex::decode(text).map(Self).ok_or(IdentError { what: "a token", digits: 64 })
    }
}

/// A digest of 32 bytes, written as 64 hex digits: BLAKE3 of streams and of the audit log, SHA-256 of callers' tokens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = IdentError;

    fn from_str(text: &str) -> Result<Self, IdentError> {
        hex::decode(text).map(Self).ok_or(IdentError { what: "a digest", digits: 64 })
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Token {
    /// The error never repeats the text: a mistyped token is still mostly the secret.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text =
            String::deserialize(deserializer).map_err(|_| de::Error::custom("a token must be a string"))?;
        text.parse().map_err(de::Error::custom)
    }
}

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

serde_by_text!(SessionId, Digest);
