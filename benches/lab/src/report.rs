//! What a lab says of itself.

use serde::{Deserialize, Serialize};

use crate::conditions::Conditions;
use crate::lateness::Lateness;
use crate::model::Counters;

/// A lab since its start or the last reset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabReport {
    /// The lab's ID.
    pub id: String,
    /// Its topology's name.
    pub topology: String,
    /// The process that is the lab.
    pub pid: u32,
    /// What chance comes from: the same seed loses the same frames.
    pub seed: u64,
    /// How late frames left, all links and ways together.
    pub lateness: Lateness,
    /// In the topology's order.
    pub links: Vec<LinkReport>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Its name.
    pub name: String,
    /// The site at one end.
    pub from: String,
    /// The site at the other.
    pub to: String,
    /// `from` to `to`.
    pub forward: WayReport,
    /// `to` to `from`.
    pub back: WayReport,
}

/// One direction of a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayReport {
    /// What it does now.
    pub conditions: Conditions,
    /// What became of frames.
    #[serde(flatten)]
    pub counters: Counters,
    /// Frames that wait or are under way.
    pub inside: u64,
    /// Frames that the kernel dropped before the lab saw them, as it did not read in time, since the lab's start.
    pub overrun: u64,
    /// How late frames left.
    pub lateness: Lateness,
}

impl LabReport {
    /// The link of this name.
    pub fn link(&self, name: &str) -> Option<&LinkReport> {
        self.links.iter().find(|link| link.name == name)
    }

    /// One frame in a hundred, of all that the lab passed on, left later than this, in milliseconds.
    pub fn lateness_p99_ms(&self) -> f64 {
        self.lateness.p99_ms
    }
}
