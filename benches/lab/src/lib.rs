//! A network lab on one machine: sites are network namespaces, links join them with the rate, delay, jitter, loss,
//! reordering, duplication and queue that a topology asks for, each changeable while it runs.
//!
//! ```text
//!   namespace a            process novacron-lab            namespace b
//!   TAP device  --frames-->  queue, rate, loss, delay  -->  TAP device
//!               <-----------------------------------------
//! ```
//!
//! [`Model`] is the pure part: what becomes of a frame, and when. A thread for each direction of a link does it with
//! real frames. [`Lab`] starts the program `novacron-lab` as a process of its own, so that what it costs is counted apart.

mod addresses;
mod check;
mod conditions;
mod control;
mod direction;
mod emulator;
mod lab;
mod lateness;
pub mod limits;
mod model;
mod namespace;
mod program;
mod report;
mod state;
mod topology;

pub use addresses::End;
pub use check::{Allowed, CheckReport, Finding, check};
pub use conditions::{Burst, Change, Conditions, Queue};
pub use control::Way;
pub use lab::{Lab, Site};
pub use lateness::Lateness;
pub use model::{Count, Counters, Model, Nanos};
pub use program::run;
pub use report::{LabReport, LinkReport, WayReport};
pub use state::{Leavings, living, sweep};
pub use topology::{BUILT_IN, LinkSpec, SiteSpec, Topology};

/// Writes to stderr. `eprintln!` panics where that fails, and what is said here is said while things are removed.
pub(crate) fn tell(text: &str) {
    let _ = std::io::Write::write_all(
        &mut std::io::stderr().lock(),
        format!("novacron-lab: {text}\n").as_bytes(),
    );
}

/// Says whether a lab can be made here.
///
/// # Errors
/// What is missing, a sentence: root, `/dev/net/tun`, `ip`, `nsenter`.
pub fn available() -> Result<(), String> {
    namespace::available()
}
