//! What the lanes of a sending half remember, and what that and the codecs made of the guest's bytes.

use super::Outbound;
use super::content::References;
use crate::limits::PAGE_BYTES;
use crate::page::{BatchEncoder, EncoderMemory, KnownContent, LaneTerms, Tally};
use std::sync::Arc;

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

/// Bytes of guest data by how they left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentBytes {
    /// Guest bytes.
    pub guest: u64,
    /// Guest bytes that left as they are.
    pub raw: u64,
    /// Guest bytes that left compressed with lz4.
    pub lz4: u64,
    /// Guest bytes that left compressed with zstd.
    pub zstd: u64,
    /// Guest bytes of pages that were what the far side remembered.
    pub unchanged: u64,
    /// Guest bytes of pages of which only differences left.
    pub delta: u64,
    /// Guest bytes of pages that are one word repeated.
    pub uniform: u64,
    /// Guest bytes of pages of which only a reference to content left.
    pub known: u64,
    /// Pages that were referred to and had to be sent after all.
    pub repaired_pages: u64,
    /// The bytes of these frames, headers included.
    pub repair: u64,
    /// Nanoseconds of codec work by what it was.
    pub time: CodecTime,
    /// Payload and header bytes, each frame counted once; repairs are not among them.
    pub encoded: u64,
    /// Bytes handed to streams, repetitions included.
    pub wire: u64,
    /// Of them, frames that were stuck on a stream and left on another as well.
    pub repeated: u64,
}

impl Outbound {
    /// Lanes remember from now on what they carry, on terms that the peer agreed to; `None`: they forget. What is `known` of the far
    /// side's content is referred to.
    pub fn remember(&mut self, terms: Option<LaneTerms>, known: Option<Arc<KnownContent>>) {
        let lanes = self.page_lanes.len() as u16;
        let hands_out = self.encoding.hands_out();
        self.encoder = match terms {
            None => BatchEncoder::new(lanes),
            Some(_) if hands_out => BatchEncoder::planning(lanes),
            Some(terms) => BatchEncoder::knowing(lanes, terms, known.as_ref()),
        };
        self.encoding.remember(terms.filter(|_| hands_out), known.clone());
        self.known = known;
        if terms.is_none() {
            self.references = References::default();
        }
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
        self.bytes.known += bytes(tally.known_pages);
        let time = &mut self.bytes.time;
        time.memory_ns += tally.memory_ns;
        time.raw_ns += tally.raw_ns;
        time.lz4_ns += tally.lz4_ns;
        time.zstd_ns += tally.zstd_ns;
    }
}
