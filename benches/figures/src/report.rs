//! Verdicts, and the report of a run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::choice::Choice;
use crate::codec::CodecFigures;
use crate::control::ControlFigures;
use crate::fleet::{Fleet, Stuck};
use crate::flood::Flood;
use crate::guest_kills::GuestKills;
use crate::memory::Memory;
use crate::migrate::Migrations;
use crate::opening::Opening;
use crate::pause::Pauses;
use crate::probe::Probes;
use crate::relay::Relay;
use crate::shards::Shards;
use crate::tls::Tls;
use novacron_testbed::Host;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// One promised figure and what was measured of it. A benchmark tells; it does not fail.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) goal: Goal,
    pub(crate) measured: f64,
    pub(crate) unit: &'static str,
    pub(crate) reached: bool,
    /// By how much it is short of the goal, in its unit; 0 when it is reached.
    pub(crate) short_by: f64,
    /// How the measurements spread.
    pub(crate) detail: String,
}

impl Verdict {
    pub(crate) fn new(what: &str, goal: Goal, measured: f64, unit: &'static str) -> Self {
        let short_by = match goal {
            Goal::AtLeast(least) => least - measured,
            Goal::AtMost(most) => measured - most,
        };
        let reached = short_by <= 0.0;
        let short_by = short_by.max(0.0);
        Self { what: what.to_owned(), goal, measured, unit, reached, short_by, detail: String::new() }
    }

    pub(crate) fn with(mut self, detail: &str) -> Self {
        detail.clone_into(&mut self.detail);
        self
    }

    #[cfg(test)]
    pub(crate) fn reached(&self) -> bool {
        self.reached
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        let goal = match self.goal {
            Goal::AtLeast(least) => format!("at least {least}"),
            Goal::AtMost(most) => format!("at most {most}"),
        };
        let came_of_it = if self.reached {
            "REACHED".to_owned()
        } else {
            format!("SHORT by {:.2} {}", self.short_by, self.unit)
        };
        let Self { what, measured, unit, detail, .. } = self;
        format!("{came_of_it:<18} {what}: {measured:.2} {unit}, promised {goal} {unit}; {detail}")
    }
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) host: Host,
    pub(crate) figures: Vec<Verdict>,
    pub(crate) relay: Option<Relay>,
    pub(crate) migration: Option<Migrations>,
    pub(crate) memory: Option<Memory>,
    pub(crate) shards: Option<Shards>,
    pub(crate) multifd: Option<Migrations>,
    pub(crate) fleet: Option<Fleet>,
    pub(crate) stuck: Option<Stuck>,
    pub(crate) choice: Option<Choice>,
    pub(crate) codec: Option<CodecFigures>,
    pub(crate) probes: Option<Probes>,
    pub(crate) tls: Option<Tls>,
    pub(crate) opening: Option<Opening>,
    pub(crate) pause: Option<Pauses>,
    pub(crate) flood: Option<Flood>,
    pub(crate) control: Option<ControlFigures>,
    pub(crate) guest_kills: Option<GuestKills>,
}

impl Report {
    /// Tables and verdicts, for people.
    pub(crate) fn text(&self) -> String {
        let tables = [
            self.relay.as_ref().map(Relay::table),
            self.migration.as_ref().map(Migrations::table),
            self.memory.as_ref().map(Memory::table),
            self.shards.as_ref().map(Shards::table),
            self.multifd.as_ref().map(Migrations::table),
            self.fleet.as_ref().map(Fleet::table),
            self.stuck.as_ref().map(Stuck::table),
            self.choice.as_ref().map(Choice::table),
            self.codec.as_ref().map(CodecFigures::table),
            self.tls.as_ref().map(Tls::table),
            self.opening.as_ref().map(Opening::table),
            self.pause.as_ref().map(Pauses::table),
            self.flood.as_ref().map(Flood::table),
            self.control.as_ref().map(ControlFigures::table),
            self.guest_kills.as_ref().map(GuestKills::table),
        ];
        let mut text = format!("{}\n\n", self.host);
        for table in tables.into_iter().flatten() {
            text += &format!("{table}\n");
        }
        for figure in &self.figures {
            text += &format!("{}\n", figure.line());
        }
        text
    }

    /// Writes the report as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("writing the report as JSON")?;
        fs::write(path, format!("{json}\n")).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_is_told_with_by_how_much() {
        let short = Verdict::new("rate", Goal::AtLeast(0.75), 0.5, "x");
        assert!(!short.reached && short.short_by == 0.25);
        assert!(short.line().starts_with("SHORT by 0.25 x"), "{}", short.line());
        let long = Verdict::new("pause", Goal::AtMost(20.0), 23.5, "ms");
        assert!(!long.reached && long.short_by == 3.5);
    }

    #[test]
    fn the_goal_itself_is_reached() {
        for goal in [Goal::AtLeast(2.0), Goal::AtMost(2.0)] {
            let exact = Verdict::new("x", goal, 2.0, "x");
            assert!(exact.reached && exact.short_by == 0.0);
            assert!(exact.line().starts_with("REACHED"));
        }
    }
}
