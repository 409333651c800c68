//! What happens, told to those who ask for it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::timestamp::Timestamp;

/// Notification that carries an [`Event`].
pub const EVENT: &str = "event";
/// Notification that a subscriber was too slow; carries [`EventsLost`].
pub const EVENTS_LOST: &str = "events.lost";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Its number in this run of the control process, from 1, without gaps.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What kind: `component.state`, `session.opened`, `gateway.lost`, `config.reloaded`, ...
    pub kind: String,
    /// What it happened to: a component's, session's or key's name.
    pub subject: String,
    /// What happened, in a sentence.
    pub text: String,
    /// The same for programs; `null` where the text says it all.
    #[serde(default)]
    pub data: Value,
}

/// Parameters of `events.subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Kinds that are told, by how they begin: `session` tells of `session.opened` too. Empty: all.
    #[serde(default)]
    pub kinds: Vec<String>,
}

impl Subscription {
    /// Whether an event is asked for.
    pub fn wants(&self, event: &Event) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| event.kind.starts_with(kind.as_str()))
    }
}

/// Result of `events.subscribe`; notifications `event` follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscribed {
    /// The number of the last event before the subscription.
    pub after: u64,
}

/// A subscriber was slower than what happened: so many events were dropped for it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventsLost {
    /// How many.
    pub count: u64,
}

/// Result of `events.recent`: the last events of this run, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RecentEvents {
    /// The events.
    pub events: Vec<Event>,
}
