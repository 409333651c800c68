//! The one configuration model: keys, what they take, and which of several places wins.
//!
//! Values come in layers, later ones winning: defaults, a file, the environment, flags. Each layer gives texts under
//! keys; here they become one typed [`Configuration`], or a list of all mistakes, each with its place. Reading files
//! and the environment is done by others: this is pure.
//!
//! ```text
//! file entries, variables, flags ── Layers::resolve ──┬─ Resolved: Configuration, and where each value came from
//!                                                     └─ Vec<Mistake>: place, key, what is wrong, what was expected
//! ```

mod caller;
mod change;
mod check;
mod keys;
mod schema;
mod setting;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::BTreeMap;
use std::fmt;

pub use caller::{CallerName, CallerNameError};
pub use change::{Change, changes};
pub use keys::{
    Algorithm, AuthMethod, Backend, Compression, Configuration, Congestion, Consensus, ConsensusProtocol,
    Dataplane, ForcedMode, KEYS, LogFormat, LogLevel, Monitoring, Network, Rdma, SECTIONS, Security, Storage,
    System, Transport,
};
pub use schema::schema;
pub use setting::{Count, Name, Raw, ServerUrl, Setting, TcpEndpoint, Time};
pub use variables::variable_of;

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesEffect {
    /// On reload.
    AtOnce,
    /// When the process starts again.
    Restart,
    /// Not yet: what it would set is not built. It is read and checked.
    NotBuilt,
}

impl TakesEffect {
    /// For tables and schemas.
    pub fn words(self) -> &'static str {
        match self {
            Self::AtOnce => "on reload",
            Self::Restart => "after a restart",
            Self::NotBuilt => "not built: no effect yet",
        }
    }
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its full name, as `dwcp.transport.min_streams`.
    pub path: &'static str,
    about: &'static str,
    /// Its default, as a variable would write it.
    pub default: &'static str,
    /// When a change of it takes effect.
    pub takes_effect: TakesEffect,
    expected: fn() -> String,
    schema: fn() -> serde_json::Value,
    /// Whether it takes a list.
    pub is_list: bool,
}

impl Key {
    /// The key of this name.
    pub fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// What it is for.
    pub fn about(&self) -> &'static str {
        self.about.trim()
    }

    /// What it takes, to follow "expected ".
    pub fn expected(&self) -> String {
        (self.expected)()
    }
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In a file; lines and columns count from 1.
    File {
        /// The file.
        path: String,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In a variable of the environment.
    Variable(String),
    /// On the command line, as this flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Something that cannot be taken. Nothing of the configuration it stands in is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands.
    pub origin: Origin,
    /// The key it is about; empty when it is about none.
    pub key: String,
    /// What is wrong and what was expected.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Mistake {}

/// A value that some place gives for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, or what should be one.
    pub path: String,
    /// What is written there.
    pub raw: Raw,
    /// Where.
    pub origin: Origin,
}

/// The places that give values, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    entries: Vec<Entry>,
}

/// A configuration and where each value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The values.
    pub configuration: Configuration,
    /// The places of those that are no defaults, by key.
    pub origins: BTreeMap<&'static str, Origin>,
    /// What is no mistake, but probably not meant: keys that have no effect yet.
    pub warnings: Vec<Mistake>,
}

impl Resolved {
    /// Where a key's value came from.
    pub fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }
}

impl Layers {
    /// Nothing but defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a place that wins over those before.
    pub fn add(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.entries.extend(entries);
    }

    /// Lets the last place win for each key, reads and checks everything.
    ///
    /// # Errors
    /// All mistakes, in the order of the places; at least one. Nothing is to be used then.
    pub fn resolve(self) -> Result<Resolved, Vec<Mistake>> {
        let mut values = Values { given: BTreeMap::new(), mistakes: Vec::new() };
        for entry in &self.entries {
            match Key::find(&entry.path) {
                Some(key) => {
                    values.given.insert(key.path, entry);
                }
                None => values.mistakes.push(unknown(entry)),
            }
        }
        let read = Configuration::read(&mut values);
        let Values { given, mut mistakes } = values;
        let origins = given.iter().map(|(path, entry)| (*path, entry.origin.clone())).collect();
        // A value that was not read is a mistake already.
        let Some(configuration) = read else { return Err(mistakes) };
        let mut resolved = Resolved { configuration, origins, warnings: Vec::new() };
        mistakes.extend(check::check(&resolved));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        resolved.warnings = check::without_effect(&resolved);
        Ok(resolved)
    }
}

/// A key that does not exist, with the one that was probably meant.
fn unknown(entry: &Entry) -> Mistake {
    let what = match nearest(&entry.path, KEYS.iter().map(|key| key.path)) {
        Some(near) => format!("there is no such key; did you mean {near}?"),
        None => "there is no such key; `novactl config schema` lists all".to_owned(),
    };
    Mistake { origin: entry.origin.clone(), key: crate::method::shortened(&entry.path).to_owned(), what }
}

/// The name that was probably meant, if any is near.
pub fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = crate::method::shortened(text);
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    // The right name under a wrong section counts as near.
    let score = |name: &str| {
        let whole = strsim::normalized_damerau_levenshtein(text, name);
        if last(text) == last(name) { whole.max(0.9) } else { whole }
    };
    names
        .map(|name| (score(name), name))
        .filter(|(score, _)| *score > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// What is given for each key, and the mistakes found while it is read.
struct Values<'a> {
    given: BTreeMap<&'static str, &'a Entry>,
    mistakes: Vec<Mistake>,
}

impl Values<'_> {
    fn take<T: Setting>(&mut self, path: &'static str) -> Option<T> {
        let Some(entry) = self.given.get(path) else {
            let default = Key::find(path)?.default;
            let value = T::parse(&Raw::Given(default.to_owned()));
            if value.is_none() {
                let what = format!("the default '{default}' is not {}: report it", T::expected());
                self.mistakes.push(Mistake { origin: Origin::Default, key: path.to_owned(), what });
            }
            return value;
        };
        let value = T::parse(&entry.raw);
        if value.is_none() {
            let what = format!("{} is not what it takes; expected {}", entry.raw, T::expected());
            self.mistakes.push(Mistake { origin: entry.origin.clone(), key: path.to_owned(), what });
        }
        value
    }
}
