//! What a scenario may set of a contender.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::Kind;

/// Settings; each belongs to some kinds of contenders. `None`: as the contender is by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// novacron, iperf3: transport connections.
    pub streams: Option<u32>,
    /// novacron: codec lanes.
    pub lanes: Option<u32>,
    /// novacron: how pages are compressed.
    pub codec: Option<Codec>,
    /// novacron, zstd-long: zstd's level.
    pub level: Option<u32>,
    /// novacron: whether every batch carries the running digest.
    pub digest: Option<bool>,
    /// novacron: whether its gateways do without TLS, to see what that costs.
    pub plaintext: Option<bool>,
    /// QEMU: multifd's connections.
    pub channels: Option<u8>,
    /// QEMU: how multifd compresses.
    pub compression: Option<PageCompression>,
    /// QEMU: its level.
    pub compression_level: Option<u8>,
    /// QEMU: xbzrle's cache, MiB.
    pub cache_mib: Option<u64>,
    /// QEMU: switch to postcopy after the first pass.
    pub postcopy: Option<bool>,
    /// QEMU: pages that are waited for have a connection of their own.
    pub preempt: Option<bool>,
    /// QEMU: the destination must agree to the switchover.
    pub switchover_ack: Option<bool>,
}

/// A gateway's codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Chosen batch by batch.
    Adaptive,
    /// None.
    None,
    /// Always lz4.
    Lz4,
    /// Always zstd.
    Zstd,
}

/// multifd's compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageCompression {
    /// zlib.
    Zlib,
    /// zstd.
    Zstd,
}

const NOVACRON: &[&str] = &["streams", "lanes", "codec", "level", "digest", "plaintext"];
const QEMU: &[&str] =
    &["channels", "compression", "compression_level", "cache_mib", "postcopy", "preempt", "switchover_ack"];

impl Tuning {
    /// What a kind of contender can be set.
    pub fn names_of(kind: Kind) -> &'static [&'static str] {
        match kind {
            Kind::Novacron => NOVACRON,
            Kind::Qemu => QEMU,
            Kind::Socat => &[],
            Kind::ZstdLong => &["level"],
            Kind::Iperf3 => &["streams"],
        }
    }

    /// The first setting that a kind does not have.
    pub(super) fn foreign_to(&self, kind: Kind) -> Option<String> {
        self.said().into_keys().find(|name| !Self::names_of(kind).contains(&name.as_str()))
    }

    /// These settings, and what `change` says instead.
    #[must_use]
    pub(super) fn with(self, change: &Self) -> Self {
        Self {
            streams: change.streams.or(self.streams),
            lanes: change.lanes.or(self.lanes),
            codec: change.codec.or(self.codec),
            level: change.level.or(self.level),
            digest: change.digest.or(self.digest),
            plaintext: change.plaintext.or(self.plaintext),
            channels: change.channels.or(self.channels),
            compression: change.compression.or(self.compression),
            compression_level: change.compression_level.or(self.compression_level),
            cache_mib: change.cache_mib.or(self.cache_mib),
            postcopy: change.postcopy.or(self.postcopy),
            preempt: change.preempt.or(self.preempt),
            switchover_ack: change.switchover_ack.or(self.switchover_ack),
        }
    }

    /// Bounds, and what QEMU refuses together.
    pub(super) fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: Option<u64>, most: u64| match value {
            Some(value) if !(1..=most).contains(&value) => {
                Err(format!("`{name}` is {value}, expected 1 to {most}"))
            }
            _ => Ok(()),
        };
        within("streams", self.streams.map(u64::from), 512)?;
        within("lanes", self.lanes.map(u64::from), 64)?;
        within("level", self.level.map(u64::from), 22)?;
        within("channels", self.channels.map(u64::from), 255)?;
        within("compression_level", self.compression_level.map(u64::from), 20)?;
        within("cache_mib", self.cache_mib, 1 << 20)?;
        if self.cache_mib.is_some_and(|mib| !mib.is_power_of_two()) {
            return Err("`cache_mib`: expected a power of two".to_owned());
        }
        if self.compression.is_some() && self.channels.is_none() {
            return Err("`compression` is multifd's, expected `channels` with it".to_owned());
        }
        if self.channels.is_some() && self.cache_mib.is_some() {
            return Err(
                "QEMU refuses multifd and xbzrle together: expected `channels` or `cache_mib`".to_owned()
            );
        }
        if self.channels.is_some() && self.postcopy == Some(true) {
            return Err(
                "QEMU refuses multifd and postcopy together: expected `channels` or `postcopy`".to_owned()
            );
        }
        if self.preempt == Some(true) && self.postcopy != Some(true) {
            return Err("`preempt` is postcopy's, expected `postcopy = true` with it".to_owned());
        }
        Ok(())
    }

    /// What is set, by name, for people and records.
    pub(crate) fn said(&self) -> BTreeMap<String, String> {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self) else {
            return BTreeMap::new();
        };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, text(value)))
            .collect()
    }
}

/// A contender as a scenario writes it: a name, or `{ name = .., like = .., .. }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in tables.
    pub name: String,
    /// The contender that it is, but for `tuning`.
    pub like: String,
    /// What is unlike it.
    pub tuning: Tuning,
}

impl Entry {
    /// A known contender as it is.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), like: name.to_owned(), tuning: Tuning::default() }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a contender's name, or a table {{ name = \"...\", like = \"...\", ... }}")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Entry, E> {
        Ok(Entry::named(name))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let (mut name, mut like, mut settings) = (None, None, toml::Table::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => name = Some(map.next_value::<String>()?),
                "like" => like = Some(map.next_value::<String>()?),
                _ => {
                    settings.insert(key, map.next_value::<toml::Value>()?);
                }
            }
        }
        let tuning = Tuning::deserialize(settings).map_err(|error| de::Error::custom(error.message()))?;
        let like: String = like.ok_or_else(|| de::Error::missing_field("like"))?;
        Ok(Entry { name: name.unwrap_or_else(|| like.clone()), like, tuning })
    }
}
