//! Kinds of values: how each is read from text, what it takes, and how it is written.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::limits::{LIST_ENTRIES_MAX, TEXT_BYTES_MAX};

/// A value as its place wrote it, before anybody knows what it is to mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// In a file, without quotes.
    Plain(String),
    /// In a file, in quotes: a text, whatever it looks like.
    Quoted(String),
    /// From a variable or a flag, where nothing has quotes; lists are separated by commas.
    Given(String),
    /// A list in a file.
    List(Vec<String>),
}

impl Raw {
    /// The text of a value that is no list.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) | Self::Quoted(text) | Self::Given(text) => Some(text),
            Self::List(_) => None,
        }
    }

    /// The text of a number or truth value: quotes make a text of it, in JSON as in YAML.
    fn unquoted(&self) -> Option<&str> {
        match self {
            Self::Plain(text) | Self::Given(text) => Some(text),
            Self::Quoted(_) | Self::List(_) => None,
        }
    }
}

/// For messages: what was written, shortened.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) | Self::Given(text) => write!(f, "{}", crate::method::shortened(text)),
            Self::Quoted(text) => write!(f, "\"{}\"", crate::method::shortened(text)),
            Self::List(entries) => write!(f, "a list of {}", entries.len()),
        }
    }
}

/// What a key's value can be.
pub trait Setting: Sized {
    /// Whether it is a list.
    const IS_LIST: bool = false;
    /// What is expected, to follow "expected ".
    fn expected() -> String;
    /// The value; `None` when the text is not what is expected.
    fn parse(raw: &Raw) -> Option<Self>;
    /// As JSON and YAML write it.
    fn to_json(&self) -> Value;
    /// Its JSON Schema.
    fn schema() -> Value;
}

impl Setting for bool {
    fn expected() -> String {
        "true or false".into()
    }

    fn parse(raw: &Raw) -> Option<Self> {
        match raw.unquoted()? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({"type": "boolean"})
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Setting for Count<MIN, MAX> {
    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn parse(raw: &Raw) -> Option<Self> {
        let text = raw.unquoted()?;
        // `u64::from_str` takes a leading '+'.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if plain { text.parse().ok()? } else { return None };
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }

    fn to_json(&self) -> Value {
        json!(self.0)
    }

    fn schema() -> Value {
        json!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

/// A time from `MIN_MS` to `MAX_MS` milliseconds, written as `500ms`, `30s`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const MIN_MS: u64, const MAX_MS: u64>(u64);

impl<const MIN_MS: u64, const MAX_MS: u64> Time<MIN_MS, MAX_MS> {
    /// The time.
    pub fn get(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// The time in milliseconds.
    pub fn ms(self) -> u64 {
        self.0
    }
}

fn time_text(ms: u64) -> String {
    match ms {
        0 => "0s".into(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        // One minute is spelled as the owner spells it.
        ms if ms > 60_000 && ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

impl<const MIN_MS: u64, const MAX_MS: u64> Setting for Time<MIN_MS, MAX_MS> {
    fn expected() -> String {
        format!("a time from {} to {}, as in 500ms, 30s, 5m or 1h", time_text(MIN_MS), time_text(MAX_MS))
    }

    fn parse(raw: &Raw) -> Option<Self> {
        let text = raw.text()?;
        let unit = text.find(|letter: char| !letter.is_ascii_digit())?;
        let number: u64 = text[..unit].parse().ok()?;
        let factor = match &text[unit..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let ms = number.checked_mul(factor)?;
        (MIN_MS..=MAX_MS).contains(&ms).then_some(Self(ms))
    }

    fn to_json(&self) -> Value {
        json!(time_text(self.0))
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"})
    }
}

/// One of some words; declares the enum and how it is read.
macro_rules! choice {
    ($(#[doc = $doc:literal])* $name:ident { $( $(#[doc = $word_doc:literal])* $variant:ident = $word:literal ),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $word_doc])* $variant ),* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As it is written.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl $crate::configuration::Setting for $name {
            fn expected() -> String {
                let words: Vec<String> = Self::ALL.iter().map(|one| match one.word() {
                    "" => "\"\"".to_owned(),
                    word => word.to_owned(),
                }).collect();
                format!("one of {}", words.join(", "))
            }

            fn parse(raw: &$crate::configuration::Raw) -> Option<Self> {
                use $crate::configuration::Raw;
                let (Raw::Plain(text) | Raw::Quoted(text) | Raw::Given(text)) = raw else { return None };
                Self::ALL.iter().copied().find(|one| one.word() == text)
            }

            fn to_json(&self) -> serde_json::Value {
                serde_json::json!(self.word())
            }

            fn schema() -> serde_json::Value {
                let words: Vec<&str> = Self::ALL.iter().map(|one| one.word()).collect();
                serde_json::json!({"type": "string", "enum": words})
            }
        }
    };
}

pub(crate) use choice;

/// A word of letters, digits and signs, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The word; empty where none was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for Name {
    fn expected() -> String {
        "at most 64 letters, digits, '-', '.' and '_'".into()
    }

    fn parse(raw: &Raw) -> Option<Self> {
        let text = raw.text()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        (text.len() <= 64 && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    fn to_json(&self) -> Value {
        json!(self.0)
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{0,64}$"})
    }
}

/// The URL of a server. Whether it holds a password is checked with all values, where what is wrong is told without
/// showing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it holds a password: between a user and the host, or as a parameter.
    pub fn holds_password(&self) -> bool {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let user = place.rsplit_once('@').map_or("", |(user, _)| user);
        user.contains(':') || parameters.to_ascii_lowercase().contains("pass")
    }
}

impl Setting for ServerUrl {
    fn expected() -> String {
        format!("a URL of at most {TEXT_BYTES_MAX} bytes")
    }

    fn parse(raw: &Raw) -> Option<Self> {
        let text = raw.text()?;
        (!text.is_empty() && text.len() <= TEXT_BYTES_MAX).then(|| Self(text.to_owned()))
    }

    fn to_json(&self) -> Value {
        json!(self.0)
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[a-z+]+://"})
    }
}

impl Setting for PathBuf {
    fn expected() -> String {
        "an absolute path".into()
    }

    fn parse(raw: &Raw) -> Option<Self> {
        let text = raw.text()?;
        (text.starts_with('/') && text.len() <= TEXT_BYTES_MAX && !text.contains('\0'))
            .then(|| PathBuf::from(text))
    }

    fn to_json(&self) -> Value {
        json!(self.display().to_string())
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^/"})
    }
}

impl Setting for IpAddr {
    fn expected() -> String {
        "an IPv4 or IPv6 address, as in 127.0.0.1 or ::1".into()
    }

    fn parse(raw: &Raw) -> Option<Self> {
        raw.text()?.parse().ok()
    }

    fn to_json(&self) -> Value {
        json!(self.to_string())
    }

    fn schema() -> Value {
        json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
    }
}

/// A TCP endpoint whose host is an address or a name: `tcp:192.0.2.1:9090`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpEndpoint(Endpoint);

impl TcpEndpoint {
    /// The endpoint.
    pub fn get(&self) -> &Endpoint {
        &self.0
    }
}

impl Setting for TcpEndpoint {
    fn expected() -> String {
        "an address as in tcp:192.0.2.1:9090".into()
    }

    fn parse(raw: &Raw) -> Option<Self> {
        let endpoint: Endpoint = raw.text()?.parse().ok()?;
        matches!(endpoint, Endpoint::Tcp { .. }).then_some(Self(endpoint))
    }

    fn to_json(&self) -> Value {
        json!(self.0)
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^tcp:.+:[0-9]+$"})
    }
}

/// A value, or nothing: the empty text.
impl<T: Setting> Setting for Option<T> {
    fn expected() -> String {
        format!("{}, or \"\" for none", T::expected())
    }

    fn parse(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Quoted(text) | Raw::Given(text) if text.is_empty() => Some(None),
            raw => T::parse(raw).map(Some),
        }
    }

    fn to_json(&self) -> Value {
        self.as_ref().map_or_else(|| json!(""), T::to_json)
    }

    fn schema() -> Value {
        json!({"anyOf": [T::schema(), {"const": ""}]})
    }
}

/// Some of them, in order.
impl<T: Setting> Setting for Vec<T> {
    const IS_LIST: bool = true;

    fn expected() -> String {
        format!("a list of at most {LIST_ENTRIES_MAX}, each {}", T::expected())
    }

    fn parse(raw: &Raw) -> Option<Self> {
        let entries: Vec<String> = match raw {
            Raw::List(entries) => entries.clone(),
            Raw::Given(text) if text.is_empty() => Vec::new(),
            Raw::Given(text) => text.split(',').map(|entry| entry.trim().to_owned()).collect(),
            Raw::Plain(_) | Raw::Quoted(_) => return None,
        };
        if entries.len() > LIST_ENTRIES_MAX {
            return None;
        }
        entries.into_iter().map(|entry| T::parse(&Raw::Quoted(entry))).collect()
    }

    fn to_json(&self) -> Value {
        Value::Array(self.iter().map(T::to_json).collect())
    }

    fn schema() -> Value {
        json!({"type": "array", "items": T::schema(), "maxItems": LIST_ENTRIES_MAX})
    }
}
