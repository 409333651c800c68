//! Reads the configuration from where it stands: a YAML or JSON file, `NOVACRON_*` variables, flags. What the values
//! mean is decided by [`novacron_control_api::configuration`]; here texts and places are collected.
//!
//! JSON is read by the YAML reader, which takes it (YAML 1.2, section 1.2); so both have lines and columns.
#![forbid(unsafe_code)]

mod document;
mod environment;
pub mod limits;
mod print;
mod sources;

pub use document::entries;
pub use environment::{Variables, variables};
pub use print::{as_yaml, with_origin};
pub use sources::{LoadError, Sources, setting};
