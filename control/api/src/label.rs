//! What a hypervisor's connection is for: `migration`, `disk`, `disk-vda`, `control`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::endpoint::Endpoint;
use crate::limits::LABEL_BYTES_MAX;

/// Kinds of connections that a session may carry beside the migration.
const KINDS: [&str; 2] = ["disk", "control"];

/// The label of connections that are not the migration's: `disk` or `control`, then perhaps `-` and a name. Such a
/// connection is carried as opaque bytes; the one called `migration` is implied and cannot be named here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// The label of the connections that carry the guest.
pub const MIGRATION: &str = "migration";

/// A text that is not a label. Nothing was done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no label: it must be 'disk' or 'control', perhaps with a name of letters and digits behind '-', as in \
     'disk-vda'"
)]
pub struct LabelError(String);

impl Label {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `disk` or `control`.
    pub fn kind(&self) -> &str {
        self.0.split_once('-').map_or(&self.0, |(kind, _)| kind)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let (kind, name) = text.split_once('-').map_or((text, None), |(kind, name)| (kind, Some(name)));
        let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if text.len() > LABEL_BYTES_MAX || !KINDS.contains(&kind) || !name.is_none_or(plain) {
            return Err(LabelError(text.chars().take(2 * LABEL_BYTES_MAX).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Where a session's connections of one label meet its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LabelledEndpoint {
    /// What they are for.
    pub label: Label,
    /// At the source: where the gateway listens for them. At the destination: where it connects to.
    pub endpoint: Endpoint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_kind_and_perhaps_a_name() {
        for (text, kind) in [("disk", "disk"), ("disk-vda", "disk"), ("control-1", "control")] {
            assert_eq!(text.parse::<Label>().unwrap().kind(), kind);
        }
        for wrong in ["", "migration", "disk-", "disk-a-b", "disk-\n", "Disk", "disks", "disk vda"] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong}");
        }
        assert!(format!("disk-{}", "x".repeat(LABEL_BYTES_MAX)).parse::<Label>().is_err());
    }
}
