//! Who may be named in the lists of callers: a local user or group, a certificate's holder, a token's name.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::{Raw, Setting};
use crate::peers::{IdentityKind, PeerIdentity};

/// Somebody who calls, as a list of callers names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerName {
    /// A user of this host, as the kernel tells it of a unix socket (`SO_PEERCRED`, unix(7)).
    Uid(u32),
    /// A group of this host: the caller's own one, told the same way.
    Gid(u32),
    /// The holder of a caller's certificate.
    Certificate(PeerIdentity),
    /// Whoever knows the token of this name in the file of tokens.
    Token(String),
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Gid(gid) => write!(f, "gid:{gid}"),
            Self::Certificate(identity) => write!(f, "{identity}"),
            Self::Token(name) => write!(f, "token:{name}"),
        }
    }
}

/// A text that names no caller. Nobody was let in because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a caller is uid:N, gid:N, novacron://SITE/caller/NAME or token:NAME")]
pub struct CallerNameError;

impl FromStr for CallerName {
    type Err = CallerNameError;

    fn from_str(text: &str) -> Result<Self, CallerNameError> {
        let number = |text: &str| -> Option<u32> {
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
        };
        let word = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            (1..=64).contains(&name.len()) && name.bytes().all(plain)
        };
        let named = match text.split_once(':') {
            Some(("uid", uid)) => number(uid).map(Self::Uid),
            Some(("gid", gid)) => number(gid).map(Self::Gid),
            Some(("token", name)) if word(name) => Some(Self::Token(name.to_owned())),
            Some(("novacron", _)) => text
                .parse()
                .ok()
                .filter(|identity: &PeerIdentity| identity.kind() == IdentityKind::Caller)
                .map(Self::Certificate),
            _ => None,
        };
        named.ok_or(CallerNameError)
    }
}

impl Setting for CallerName {
    fn expected() -> String {
        "uid:N, gid:N, novacron://SITE/caller/NAME or token:NAME".into()
    }

    fn parse(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Plain(text) | Raw::Quoted(text) | Raw::Given(text) => text.parse().ok(),
            Raw::List(_) => None,
        }
    }

    fn to_json(&self) -> Value {
        json!(self.to_string())
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^(uid:[0-9]+|gid:[0-9]+|token:[A-Za-z0-9._-]+|novacron://[^/]+/caller/[^/]+)$"})
    }
}
