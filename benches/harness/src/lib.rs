//! The benchmark harness: scenarios name a workload, a link, contenders and repetitions; runs are interleaved, and each leaves
//! a record.
//!
//! ```text
//! scenario   what is measured: a TOML file, checked
//! contender  who is measured
//! ability    what of it can run here
//! run        the runs of a scenario: network, guest, mover, meter, void or not
//! record     what was measured: the contents of a results file
//! capture    a guest's migration stream in a file
//! store      results on disk, after every run
//! table      results at a terminal
//! measure    what is read off a run
//! units      numbers as people read them
//! page       results as one HTML page
//! compare    what got better or worse between two
//! demo       `make demo`
//! ```

pub mod ability;
pub mod capture;
pub mod compare;
pub mod contender;
pub mod demo;
#[cfg(test)]
mod fixture;
pub mod interrupt;
pub mod limits;
pub mod list;
pub mod measure;
pub mod meter;
pub mod network;
pub mod page;
pub mod progress;
pub mod record;
pub mod run;
pub mod scenario;
pub mod store;
pub mod table;
pub mod units;
pub mod void;
pub mod workload;
