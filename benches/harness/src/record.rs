//! What was measured: the contents of a results file. Whoever reads it needs neither the scenario's file nor this machine.
//!
//! Times are milliseconds, rates bytes a second, sizes bytes, wherever a name does not say otherwise. A value that could not be
//! had is `None`, never zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use novacron_testbed::Host;

/// Grows when a field changes its meaning; new fields alone do not change it.
pub const FORMAT: u32 = 1;

/// One invocation of the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`] of the program that wrote this.
    pub format: u32,
    /// When it began, RFC 3339, UTC.
    pub started_at: String,
    /// When it ended, in the same form; `None`: it was interrupted.
    pub ended_at: Option<String>,
    /// Where it ran.
    pub host: Host,
    /// In the order of their measurement.
    pub scenarios: Vec<Scenario>,
}

/// One scenario and its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name: the name of its file.
    pub name: String,
    /// What it is there to show, a sentence.
    pub why: String,
    /// What the guest does, as `redis` or `dirty`.
    pub workload: String,
    /// The guest's memory.
    pub memory_bytes: u64,
    /// The link, for people: "500 Mbit/s, 50 ms RTT, 0.1 % loss"; "loopback".
    pub link: String,
    /// Round-trip time of the link without load; `None` on loopback.
    pub rtt_ms: Option<f64>,
    /// Rate of the link, the narrower direction; `None`: no limit.
    pub rate_bytes_per_s: Option<f64>,
    /// A contender that takes longer has not finished.
    pub limit_ms: f64,
    /// Contenders by name, in the order of the scenario's file.
    pub contenders: Vec<Contender>,
    /// Every run in the order in which they ran: A B C A B C.
    pub runs: Vec<Run>,
}

/// Who is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// Its name in tables: `novacron`, `tcp`, `multifd-4-zstd`.
    pub name: String,
    /// One of ours: reports draw it apart.
    pub ours: bool,
    /// Settings as they were read back where they can be, else as they were made: congestion_control, max_bandwidth,
    /// downtime_limit, multifd_channels, codec, level ...
    pub settings: BTreeMap<String, String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// The guest has moved.
    Completed,
    /// It was not done within the scenario's limit and was given up.
    TimedOut,
    /// It failed by itself.
    Failed {
        /// What it said.
        why: String,
    },
    /// It completed, and counts nothing: the guest was starved or the lab was late.
    Void {
        /// Which, in numbers.
        why: String,
    },
    /// It could not be tried here.
    Skipped {
        /// What is missing.
        why: String,
    },
}

/// One run of one contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`Contender::name`].
    pub contender: String,
    /// Which repetition, from 0.
    pub repetition: u32,
    /// How it ended. Measurements of a run that is not `Completed` are kept and not counted.
    pub outcome: Outcome,
    /// From the command that starts it to the guest running at the destination.
    pub total_ms: Option<f64>,
    /// As the source hypervisor counts it.
    pub downtime_ms: Option<f64>,
    /// As the guest saw it, by its heartbeat.
    pub guest_pause_ms: Option<f64>,
    /// How exact that is.
    pub guest_pause_resolution_ms: Option<f64>,
    /// What the source hypervisor wrote.
    pub guest_bytes: Option<u64>,
    /// Bytes of whole Ethernet frames that the link carried towards the destination, as the lab counted them.
    pub wire_bytes_forward: Option<u64>,
    /// The same towards the source.
    pub wire_bytes_back: Option<u64>,
    /// Each process that took part.
    pub processes: Vec<Process>,
    /// The guest looked at everything it keeps and found it as it had left it.
    pub guest_verified: Option<bool>,
    /// The guest's work, outside the pause.
    pub work: Option<Work>,
    /// What the lab says of itself.
    pub lab: Option<LabHealth>,
    /// Passes over the guest's memory.
    pub iterations: Option<u64>,
    /// Bytes that crossed the link towards the destination, over the time of the run.
    pub throughput: Vec<Sample>,
}

/// What one process used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// `source hypervisor`, `destination gateway`, `lab` ...
    pub name: String,
    /// `source`, `destination` or `lab`.
    pub site: String,
    /// Processor time during the run, user and system, all threads, seconds.
    pub cpu_s: f64,
    /// The most resident memory that it ever had.
    pub memory_bytes_max: u64,
}

/// What the guest got done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// What it was asked for, each second; `None`: as much as it can.
    pub set: Option<f64>,
    /// What it did, each second, outside the pause.
    pub achieved: f64,
    /// Of what: `MB`, `requests`, `transactions` ...
    pub unit: String,
}

/// Whether the lab kept its own promises during a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabHealth {
    /// How much later than asked frames were handed on: half of them at most this.
    pub lateness_p50_ms: f64,
    /// 99 of 100 at most this.
    pub lateness_p99_ms: f64,
    /// The latest.
    pub lateness_max_ms: f64,
    /// Frames lost on purpose, both directions.
    pub lost_frames: u64,
    /// Frames that found the link's queue full.
    pub queue_dropped_frames: u64,
}

/// A point of a run's throughput.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the run's start.
    pub at_ms: f64,
    /// In the time since the point before.
    pub bytes: u64,
}

impl Run {
    /// Whether its measurements count.
    pub fn counts(&self) -> bool {
        self.outcome == Outcome::Completed
    }

    /// Processor time of everything but the lab, seconds.
    pub fn cpu_s(&self) -> f64 {
        self.processes.iter().filter(|process| process.site != "lab").map(|process| process.cpu_s).sum()
    }

    /// Bytes on the link, both directions.
    pub fn wire_bytes(&self) -> Option<u64> {
        self.wire_bytes_forward?.checked_add(self.wire_bytes_back?)
    }
}
