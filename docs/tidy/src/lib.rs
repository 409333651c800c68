//! The house rules, as tests.
//!
//! Each module holds one rule as a pure function from text to findings, and a test that shows the rule failing
//! on a bad sample. `tests/house.rs` applies all of them to this repository.

pub mod bounds;
pub mod links;
pub mod manifest;
pub mod names;
pub mod purity;
pub mod requirements;
pub mod rooms;
pub mod rust;
pub mod shown;
pub mod size;
pub mod text;
pub mod tree;
pub mod words;

use std::fmt;

/// A place that breaks a rule, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the repository's root, or the crate.
    pub place: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

impl Finding {
    /// A finding on a line.
    pub fn at(place: &str, line: usize, text: impl Into<String>) -> Self {
        Finding { place: place.to_owned(), line, text: text.into() }
    }

    /// A finding on a whole file or crate.
    pub fn on(place: &str, text: impl Into<String>) -> Self {
        Finding::at(place, 0, text)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.text),
            line => write!(f, "{}:{line}: {}", self.place, self.text),
        }
    }
}
