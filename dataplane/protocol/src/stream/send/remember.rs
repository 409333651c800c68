//! What the lanes of a sending half remember, and what that and the codecs made of the guest's bytes.

use super::Outbound;
use crate::limits::PAGE_BYTES;
use crate::page::{BatchEncoder, EncoderMemory, LaneTerms, Tally};

/// Nanoseconds that encoding took, by what they went into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodecTime {
    /// Comparing pages with what the far side remembers.
    pub memory_ns: u64,
    /// Pages that left as they are.
    pub raw_ns: u64,
    /// lz4.
    pub lz4_ns: u64,
    /// zstd.
    pub zstd_ns: u64,
}

impl Outbound {
    /// Lanes remember from now on what they carry, on terms that the peer agreed to; `None`: they forget.
    pub fn remember(&mut self, terms: Option<LaneTerms>) {
        let lanes = self.page_lanes.len() as u16;
        let hands_out = self.encoding.hands_out();
        self.encoder = match terms {
            None => BatchEncoder::new(lanes),
            Some(_) if hands_out => BatchEncoder::planning(lanes),
            Some(terms) => BatchEncoder::remembering(lanes, terms),
        };
        self.encoding.remember(terms.filter(|_| hands_out));
    }

    /// Bytes that are spent on remembering.
    pub fn remembered_bytes(&self) -> u64 {
        let here: u64 = self.encoder.memories().iter().map(EncoderMemory::held_bytes).sum();
        here + self.encoding.remembered_bytes()
    }

    /// Counts what a structured batch came to.
    pub(super) fn count(&mut self, tally: &Tally) {
        self.bytes.raw += tally.raw_bytes + tally.regenerated_bytes;
        self.bytes.lz4 += tally.lz4_bytes;
        self.bytes.zstd += tally.zstd_bytes;
        let bytes = |pages: u32| u64::from(pages) * PAGE_BYTES as u64;
        self.bytes.unchanged += bytes(tally.unchanged_pages);
        self.bytes.delta += bytes(tally.delta_pages);
        self.bytes.uniform += bytes(tally.uniform_pages);
        let time = &mut self.bytes.time;
        time.memory_ns += tally.memory_ns;
        time.raw_ns += tally.raw_ns;
        time.lz4_ns += tally.lz4_ns;
        time.zstd_ns += tally.zstd_ns;
    }
}
