//! How a node is, component by component.

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// It does what it should.
    Up,
    /// It does some of what it should.
    Degraded,
    /// It does not.
    Down,
    /// It is being started.
    Starting,
    /// It was not started, or was stopped.
    Stopped,
    /// This version has none.
    NotBuilt,
}

impl HealthState {
    /// As the wire writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Stopped => "stopped",
            Self::NotBuilt => "not_built",
        }
    }
}

/// A part of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthPart {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: HealthState,
    /// In a sentence.
    pub detail: String,
}

/// A component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ComponentHealth {
    /// Its name.
    pub name: String,
    /// Whether the node cannot work without it.
    pub critical: bool,
    /// How it is.
    pub state: HealthState,
    /// In a sentence: why it is not up, or what it found.
    pub detail: String,
    /// Its parts, where it has any.
    #[serde(default)]
    pub parts: Vec<HealthPart>,
    /// When this was found out.
    pub checked_at: Timestamp,
}

/// Result of `node.health`, and what `/health` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// Whether the node takes work: it has started, and everything critical is up or degraded.
    pub ready: bool,
    /// The worst of the components' states; those that are not critical degrade the node, at worst.
    pub state: HealthState,
    /// Every component, in the order of starting.
    pub components: Vec<ComponentHealth>,
}
