//! Who is measured: the ones known by name, and what a scenario may change of them.

mod tuning;

use std::collections::BTreeMap;

pub use tuning::{Codec, Entry, PageCompression, Tuning};

/// By what a guest or a stream is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Our gateways, one at each site, told by `novactl migrate`.
    Novacron,
    /// QEMU to QEMU, without anything between.
    Qemu,
    /// A socat at each site, QEMU before and behind.
    Socat,
    /// `zstd --long | socat`, one way.
    ZstdLong,
    /// No migration: what the link can carry.
    Iperf3,
}

/// One contender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Its name in tables.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How it is set.
    pub tuning: Tuning,
}

/// A contender known by name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it does, for the list.
    pub what: &'static str,
}

/// Every contender that a scenario may name.
pub const KNOWN: &[Known] = &[
    Known {
        name: "novacron",
        kind: Kind::Novacron,
        what: "our gateways over TLS, as `novactl migrate` sets them",
    },
    Known { name: "tcp", kind: Kind::Qemu, what: "QEMU to QEMU over one TCP connection" },
    Known { name: "multifd-2", kind: Kind::Qemu, what: "QEMU to QEMU over 2 connections for pages" },
    Known { name: "multifd-4", kind: Kind::Qemu, what: "the same over 4" },
    Known { name: "multifd-8", kind: Kind::Qemu, what: "the same over 8" },
    Known { name: "multifd-2-zstd", kind: Kind::Qemu, what: "over 2, pages compressed with zstd, level 1" },
    Known { name: "multifd-4-zstd", kind: Kind::Qemu, what: "over 4, pages compressed with zstd, level 1" },
    Known { name: "xbzrle", kind: Kind::Qemu, what: "tcp, changes of pages found in a cache of 64 MiB" },
    Known { name: "postcopy", kind: Kind::Qemu, what: "tcp, switched to postcopy after the first pass" },
    Known {
        name: "postcopy-preempt",
        kind: Kind::Qemu,
        what: "the same, pages waited for have a connection of their own",
    },
    Known { name: "socat", kind: Kind::Socat, what: "a socat at each site between the two QEMUs" },
    Known { name: "zstd-long", kind: Kind::ZstdLong, what: "zstd -1 --long | socat, for streams alone" },
    Known { name: "iperf3", kind: Kind::Iperf3, what: "what the link carries; no migration" },
];

/// The names, for messages.
pub fn known_names() -> String {
    KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().join(", ")
}

impl Contender {
    /// What an entry of a scenario means.
    ///
    /// # Errors
    /// A name that is not known (lists those that are), a setting that the contender does not have.
    pub fn of(entry: &Entry) -> Result<Self, String> {
        let Some(known) = KNOWN.iter().find(|known| known.name == entry.like) else {
            return Err(format!("contender {:?} is not known, expected of: {}", entry.like, known_names()));
        };
        let tuning = usual(known.name).with(&entry.tuning);
        if let Some(name) = entry.tuning.foreign_to(known.kind) {
            let has = Tuning::names_of(known.kind).join(", ");
            let has = if has.is_empty() { "none" } else { &has };
            return Err(format!("{} has no setting {name:?}, expected of: {has}", known.name));
        }
        tuning.check()?;
        Ok(Self { name: entry.name.clone(), kind: known.kind, tuning })
    }

    /// Whether this can carry what a scenario moves.
    ///
    /// # Errors
    /// What it needs instead.
    pub fn can_carry(&self, stream: bool, has_link: bool) -> Result<(), String> {
        match (self.kind, stream) {
            (Kind::Qemu, true) => Err(format!(
                "{} moves guests: expected novacron, socat, zstd-long or iperf3 with [stream]",
                self.name
            )),
            (Kind::ZstdLong, false) => Err(format!(
                "{} has no way back, which a running migration needs: expected a table [stream] with it",
                self.name
            )),
            (Kind::Iperf3, _) if !has_link => {
                Err(format!("{} measures a link: expected a table [link] with it", self.name))
            }
            _ => Ok(()),
        }
    }

    /// Whether it is one of ours.
    pub fn ours(&self) -> bool {
        self.kind == Kind::Novacron
    }

    /// Its settings, for the record.
    pub fn settings(&self) -> BTreeMap<String, String> {
        self.tuning.said()
    }
}

/// How a known contender is set when a scenario says nothing.
fn usual(name: &str) -> Tuning {
    let none = Tuning::default();
    let zstd =
        Tuning { compression: Some(PageCompression::Zstd), compression_level: Some(1), ..none.clone() };
    match name {
        "multifd-2" => Tuning { channels: Some(2), ..none },
        "multifd-4" => Tuning { channels: Some(4), ..none },
        "multifd-8" => Tuning { channels: Some(8), ..none },
        "multifd-2-zstd" => Tuning { channels: Some(2), ..zstd },
        "multifd-4-zstd" => Tuning { channels: Some(4), ..zstd },
        "xbzrle" => Tuning { cache_mib: Some(64), ..none },
        "postcopy" => Tuning { postcopy: Some(true), ..none },
        "postcopy-preempt" => Tuning { postcopy: Some(true), preempt: Some(true), ..none },
        "zstd-long" => Tuning { level: Some(1), ..none },
        "iperf3" => Tuning { streams: Some(crate::limits::IPERF3_STREAMS), ..none },
        _ => none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Result<Contender, String> {
        #[derive(serde::Deserialize)]
        struct One {
            it: Entry,
        }
        let one: One = toml::from_str(&format!("it = {text}")).map_err(|error| error.message().to_owned())?;
        Contender::of(&one.it)
    }

    #[test]
    fn names_and_changed_ones() {
        assert_eq!(entry("\"multifd-4-zstd\"").unwrap().tuning.compression_level, Some(1));
        let wide = entry("{ name = \"wide\", like = \"multifd-8\", channels = 16 }").unwrap();
        assert_eq!((wide.name.as_str(), wide.kind, wide.tuning.channels), ("wide", Kind::Qemu, Some(16)));
        let plain = entry("{ like = \"novacron\", codec = \"zstd\", level = 1, streams = 8 }").unwrap();
        assert_eq!(plain.name, "novacron");
        assert_eq!(plain.settings()["codec"], "zstd");
        let clear = entry("{ name = \"clear\", like = \"novacron\", plaintext = true }").unwrap();
        assert_eq!((clear.tuning.plaintext, plain.tuning.plaintext), (Some(true), None));
        assert!(entry("{ like = \"tcp\", plaintext = true }").is_err());
        for known in KNOWN {
            assert!(entry(&format!("\"{}\"", known.name)).is_ok(), "{}", known.name);
        }
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        for (text, said) in [
            ("\"tpc\"", "postcopy"),
            ("{ like = \"tcp\", streams = 4 }", "expected of: channels"),
            ("{ like = \"novacron\", chanels = 4 }", "expected one of"),
            ("{ like = \"novacron\", codec = \"brotli\" }", "`zstd`"),
            ("{ like = \"novacron\", streams = 0 }", "1 to 512"),
            ("{ like = \"xbzrle\", cache_mib = 65 }", "power of two"),
            ("{ like = \"xbzrle\", channels = 2 }", "xbzrle"),
            ("{ like = \"postcopy\", channels = 2 }", "postcopy"),
            ("{ like = \"tcp\", compression = \"zstd\" }", "channels"),
            ("{ name = \"x\" }", "like"),
            ("7", "name"),
        ] {
            let error = entry(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn streams_and_guests_have_their_own_contenders() {
        let can = |name: &str, stream, link| entry(name).unwrap().can_carry(stream, link).is_ok();
        assert!(can("\"zstd-long\"", true, true) && !can("\"zstd-long\"", false, true));
        assert!(can("\"tcp\"", false, false) && !can("\"tcp\"", true, true));
        assert!(can("\"iperf3\"", true, true) && !can("\"iperf3\"", false, false));
    }
}
