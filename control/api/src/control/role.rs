//! Who calls, and what they may do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a caller may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Open, cancel and release sessions.
    Operator,
    /// Everything: drain a gateway, reload the configuration, read the audit log.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// Parameters of `caller.identify`: a token in place of, or beside, what the connection shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Identify {
    /// The token. It is compared by its SHA-256 and never kept.
    pub token: String,
}

/// The token is a secret.
impl fmt::Debug for Identify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identify(hidden)")
    }
}

/// Result of `caller.info` and `caller.identify`: whom the connection belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CallerInfo {
    /// The caller, as the configuration would name it: `uid:0`, `novacron://SITE/caller/NAME`, `token:NAME`.
    pub caller: String,
    /// What it may do; `null`: nothing.
    pub role: Option<Role>,
}
