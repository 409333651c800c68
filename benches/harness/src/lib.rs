//! The benchmark harness: scenarios name a workload, a link, contenders and repetitions; runs are interleaved, and each leaves
//! a record.
//!
//! ```text
//! record    what was measured: the contents of a results file
//! measure   what is read off a run
//! units     numbers as people read them
//! page      results as one HTML page
//! compare   what got better or worse between two
//! ```

pub mod compare;
#[cfg(test)]
mod fixture;
pub mod measure;
pub mod page;
pub mod record;
pub mod units;
