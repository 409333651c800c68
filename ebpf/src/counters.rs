//! What became of probes, as the program counts it.

use crate::abi::{COUNTS, ProcessorCounters};
use crate::shared::Shared;

/// Counters of every processor. An array with an entry a processor and not a per-CPU map, which cannot be shared memory.
#[derive(Debug)]
pub struct Counters(Shared<ProcessorCounters>);

impl Counters {
    pub(crate) fn new(shared: Shared<ProcessorCounters>) -> Self {
        Counters(shared)
    }

    /// Sums over the processors, in the order of [`crate::abi::COUNTS`].
    pub fn read(&self) -> [u64; COUNTS] {
        let mut sums = [0_u64; COUNTS];
        for processor in (0..self.0.len()).filter_map(|at| self.0.get(at)) {
            for (sum, count) in sums.iter_mut().zip(processor.count) {
                *sum = sum.wrapping_add(count);
            }
        }
        sums
    }
}
