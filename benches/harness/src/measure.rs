//! What is read off a run, in one place for the report and for comparisons.

use novacron_testbed::stats::Spread;
use serde::Serialize;

use crate::record::{Outcome, Run, Scenario};
use crate::units::Unit;

/// A quantity that every run has or lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// From the command to the guest running at the destination.
    TotalTime,
    /// How long the guest stood still, as it saw it.
    GuestPause,
    /// How long it stood still, as the source hypervisor counts.
    HypervisorPause,
    /// Bytes on the link, both directions.
    WireBytes,
    /// Processor seconds of both sides for each gigabyte of the guest's memory. The guest's memory, and not what its
    /// hypervisor wrote: one that compresses writes less, and would seem to need more for the same work.
    CpuPerGb,
    /// Resident memory of all that took part, each at its most.
    PeakMemory,
    /// What the guest got done each second, outside the pause.
    Work,
}

impl Measure {
    /// Every measure, in the order of tables.
    pub const ALL: [Measure; 7] = [
        Measure::TotalTime,
        Measure::GuestPause,
        Measure::HypervisorPause,
        Measure::WireBytes,
        Measure::CpuPerGb,
        Measure::PeakMemory,
        Measure::Work,
    ];

    /// Those that are drawn. Work is not: a run in which it differs from what was set is void, so there is nothing to see.
    pub const DRAWN: [Measure; 6] = [
        Measure::TotalTime,
        Measure::WireBytes,
        Measure::GuestPause,
        Measure::HypervisorPause,
        Measure::CpuPerGb,
        Measure::PeakMemory,
    ];

    /// Its name above a column or a plot.
    pub fn title(self) -> &'static str {
        match self {
            Measure::TotalTime => "Total time",
            Measure::GuestPause => "Pause, as the guest saw it",
            Measure::HypervisorPause => "Pause, as QEMU counts it",
            Measure::WireBytes => "Bytes on the wire",
            Measure::CpuPerGb => "CPU for each guest GB",
            Measure::PeakMemory => "Peak memory",
            Measure::Work => "Guest's work",
        }
    }

    /// What it is, in a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Measure::TotalTime => {
                "From the command that starts the migration to the guest running at the destination."
            }
            Measure::GuestPause => "The longest gap in the guest's own heartbeat around the switchover.",
            Measure::HypervisorPause => "What the source hypervisor reports as downtime.",
            Measure::WireBytes => "Whole Ethernet frames, both directions, counted on the link by the lab.",
            Measure::CpuPerGb => {
                "Processor seconds of every process on both sides, the lab left out, for each gigabyte of the guest's memory."
            }
            Measure::PeakMemory => {
                "The most resident memory of each process on both sides, added up; hypervisors hold the guest itself."
            }
            Measure::Work => "What the guest's workload achieved each second outside the pause.",
        }
    }

    /// Whether less of it is better.
    pub fn less_is_better(self) -> bool {
        self != Measure::Work
    }

    /// What a run says of it; `None` when it says nothing usable.
    pub fn of(self, scenario: &Scenario, run: &Run) -> Option<f64> {
        let value = match self {
            Measure::TotalTime => run.total_ms?,
            Measure::GuestPause => run.guest_pause_ms?,
            Measure::HypervisorPause => run.downtime_ms?,
            Measure::WireBytes => run.wire_bytes()? as f64,
            Measure::CpuPerGb if run.processes.is_empty() || scenario.memory_bytes == 0 => return None,
            Measure::CpuPerGb => run.cpu_s() / (scenario.memory_bytes as f64 / 1e9),
            Measure::PeakMemory if run.processes.is_empty() => return None,
            Measure::PeakMemory => {
                let hosts = run.processes.iter().filter(|process| process.site != "lab");
                hosts.map(|process| process.memory_bytes_max as f64).sum()
            }
            Measure::Work => run.work.as_ref()?.achieved,
        };
        (value.is_finite() && value >= 0.0).then_some(value)
    }

    /// A value with its unit.
    pub fn text(self, scenario: &Scenario, value: f64) -> String {
        self.unit(scenario).text(value)
    }

    /// Its unit. That of work is what the guest's workload says.
    pub fn unit(self, scenario: &Scenario) -> Unit<'_> {
        match self {
            Measure::TotalTime | Measure::GuestPause | Measure::HypervisorPause => Unit::Ms,
            Measure::WireBytes | Measure::PeakMemory => Unit::Bytes,
            Measure::CpuPerGb => Unit::SecondsPerGb,
            Measure::Work => Unit::PerSecond(
                scenario.runs.iter().find_map(|run| run.work.as_ref()).map_or("units", |work| &work.unit),
            ),
        }
    }
}

/// The runs of one contender, in their order.
pub fn runs_of<'a>(scenario: &'a Scenario, contender: &'a str) -> impl Iterator<Item = &'a Run> + Clone {
    scenario.runs.iter().filter(move |run| run.contender == contender)
}

/// What the runs that count say of one measure.
pub fn spread(scenario: &Scenario, contender: &str, measure: Measure) -> Option<Spread> {
    let counted = runs_of(scenario, contender).filter(|run| run.counts());
    Spread::of(counted.filter_map(|run| measure.of(scenario, run)))
}

/// How the runs of one contender ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Runs that count.
    pub completed: usize,
    /// Given up at the limit.
    pub timed_out: usize,
    /// Failed by themselves.
    pub failed: usize,
    /// Completed without counting.
    pub void: usize,
    /// Not tried.
    pub skipped: usize,
    /// Runs after which the guest found bad memory, whatever their result.
    pub unverified: usize,
}

impl Tally {
    /// Of one contender.
    pub fn of(scenario: &Scenario, contender: &str) -> Tally {
        let mut tally = Tally::default();
        for run in runs_of(scenario, contender) {
            *match run.outcome {
                Outcome::Completed => &mut tally.completed,
                Outcome::TimedOut => &mut tally.timed_out,
                Outcome::Failed { .. } => &mut tally.failed,
                Outcome::Void { .. } => &mut tally.void,
                Outcome::Skipped { .. } => &mut tally.skipped,
            } += 1;
            tally.unverified += usize::from(run.guest_verified == Some(false));
        }
        tally
    }

    /// Runs that were tried and could have counted.
    pub fn tried(&self) -> usize {
        self.completed + self.timed_out + self.failed
    }

    /// Every run that could have counted did.
    pub fn always_completed(&self) -> bool {
        self.completed > 0 && self.completed == self.tried()
    }

    /// Every run, whatever came of it.
    pub fn runs(&self) -> usize {
        self.tried() + self.void + self.skipped
    }

    /// "3 of 3", and what the others are: "1 of 3, 2 timed out".
    pub fn text(&self) -> String {
        let mut text = format!("{} of {}", self.completed, self.runs());
        for (count, what) in [
            (self.timed_out, "timed out"),
            (self.failed, "failed"),
            (self.void, "void"),
            (self.skipped, "skipped"),
        ] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text
    }
}
