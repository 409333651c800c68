//! Bounds of this crate.

/// Most processors that counters are kept for: what Linux supports on the machines that we run on.
pub const PROCESSORS_MAX: u32 = 8192;

/// Longest frame of a test run.
pub const FRAME_BYTES_MAX: usize = 4096;
