//! The benchmark harness: scenarios name a workload, a link, contenders and repetitions; runs are interleaved, and each leaves
//! a record.
//!
//! ```text
//! record    what was measured: the contents of a results file
//! ```

pub mod record;
