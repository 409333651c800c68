//! Callers' tokens: which are taken, and how one follows another.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::ident::Digest;
use crate::limits::{TENANT_BYTES_MAX, TOKEN_OVERLAP_MS_MAX};
use crate::timestamp::Timestamp;

/// A token that is taken. The token itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeptToken {
    /// Whose it is: `token:NAME` in the lists of callers.
    pub name: String,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Until when it is taken, where another follows it; `null`: as long as it stands in the file.
    pub until: Option<Timestamp>,
}

/// Result of `token.list`, `token.rotate` and `token.revoke`: those that are taken now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenList {
    /// The tokens, in the order of the file.
    pub tokens: Vec<KeptToken>,
}

/// Parameters of `token.rotate`: a new token of a name, or its first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRotate {
    /// Whose: letters, digits, `-`, `_` and `.`, at most 64.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The SHA-256 of the new token. Whoever calls makes the token, of 32 random bytes, and keeps it: it never crosses.
    pub sha256: Digest,
    /// How long the tokens that were there are taken beside it, in milliseconds, at most 90 days; 0: not at all.
    #[serde(deserialize_with = "overlap")]
    pub overlap_ms: u64,
}

/// Parameters of `token.revoke`. Connections that showed the token end what they watch, and may do nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRevoke {
    /// Whose.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// Those alone that another follows; else all of the name.
    #[serde(default)]
    pub old_only: bool,
}

fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let fits = (1..=TENANT_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match fits {
        true => Ok(name),
        false => Err(D::Error::custom(format!(
            "a token's name has 1 to {TENANT_BYTES_MAX} letters, digits, '-', '_' and '.'"
        ))),
    }
}

fn overlap<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let overlap = u64::deserialize(from)?;
    match overlap <= TOKEN_OVERLAP_MS_MAX {
        true => Ok(overlap),
        false => Err(D::Error::custom(format!("an overlap is at most {TOKEN_OVERLAP_MS_MAX} ms"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_overlaps_are_bounded() {
        let asked = |name: &str, overlap_ms: u64| {
            let told = json!({"name": name, "sha256": "ab".repeat(32), "overlap_ms": overlap_ms});
            serde_json::from_value::<TokenRotate>(told)
        };
        assert_eq!(asked("fleet-1.a_b", 5).map(|one| one.overlap_ms).ok(), Some(5));
        for wrong in ["", "a b", "#a", "a\nb", &"x".repeat(65)] {
            assert!(asked(wrong, 5).is_err(), "{wrong:?}");
        }
        assert!(asked("a", TOKEN_OVERLAP_MS_MAX + 1).is_err());
    }
}
