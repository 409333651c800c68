//! A batch becomes an index and parts, or is better carried as it is.
//!
//! What a batch is to become is planned in one place, by [`BatchEncoder`]; the work that costs time, by lane, can be
//! done elsewhere, by any number of [`PartEncoder`]s.

use super::Effort;
use super::assemble::write_index;
use super::block::{Codec, Compressor};
use super::content::{KnownContent, SentContent};
use super::lane::LaneId;
use super::memory::EncoderMemory;
use super::part::{begin_part, set_codec};
use super::plan::{BatchPlan, PageBody, Planner};
use super::remembered::MemoryWriter;
use super::sample::Kind;
use super::terms::LaneTerms;
use crate::hypervisor::Span;
use crate::limits::PAGE_BYTES;
use crate::time::Clock;
use novacron_kernels::is_zero;
use std::sync::Arc;

/// How a batch is to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// As its own bytes; the output holds nothing.
    Raw(RawReason),
    /// As the index and parts in the output, which together are shorter than the batch.
    Structured,
}

/// Why a batch is carried as its own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawReason {
    /// The effort allows nothing else.
    Effort,
    /// Too short to gain.
    Short,
    /// Longer than a batch may be, or its spans do not cover it: a caller's mistake, which costs compression only.
    Mismatch,
    /// Samples say that it is incompressible.
    Sampled,
    /// It was encoded and did not become shorter.
    Fruitless,
}

/// Where the guest's bytes of a batch went. The first four and the pages that are known, changed, uniform or referred to add up to the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes carried as they are.
    pub raw_bytes: u64,
    /// Bytes carried in lz4 blocks, before compression.
    pub lz4_bytes: u64,
    /// Bytes carried in zstd blocks, before compression.
    pub zstd_bytes: u64,
    /// Bytes that the far side regenerates: words, zero records, zero pages.
    pub regenerated_bytes: u64,
    /// Bytes of index and parts, or of the batch if it is carried raw.
    pub encoded_bytes: u64,
    /// Pages with content, in structured batches.
    pub pages: u32,
    /// Zero pages and zero records, in structured batches.
    pub zero_pages: u32,
    /// Of the pages with content: those that are one word repeated.
    pub uniform_pages: u32,
    /// Those that are what their lane last carried.
    pub unchanged_pages: u32,
    /// Those of which only differences are carried.
    pub delta_pages: u32,
    /// Those of which a reference to content is carried that the far side is believed to hold.
    pub known_pages: u32,
    /// Those that are carried whole, in parts that remember.
    pub whole_pages: u32,
    /// Nanoseconds that comparing pages and remembering them took.
    pub memory_ns: u64,
    /// Nanoseconds that went into blocks which are carried as they are.
    pub raw_ns: u64,
    /// Nanoseconds of lz4.
    pub lz4_ns: u64,
    /// Nanoseconds of zstd.
    pub zstd_ns: u64,
}

impl Tally {
    fn raw(bytes: usize) -> Self {
        Self { raw_bytes: bytes as u64, encoded_bytes: bytes as u64, ..Self::default() }
    }

    /// Adds what another piece of the same batch came to.
    pub fn join(&mut self, other: &Tally) {
        self.raw_bytes += other.raw_bytes;
        self.lz4_bytes += other.lz4_bytes;
        self.zstd_bytes += other.zstd_bytes;
        self.regenerated_bytes += other.regenerated_bytes;
        self.encoded_bytes += other.encoded_bytes;
        self.pages += other.pages;
        self.zero_pages += other.zero_pages;
        self.uniform_pages += other.uniform_pages;
        self.unchanged_pages += other.unchanged_pages;
        self.delta_pages += other.delta_pages;
        self.known_pages += other.known_pages;
        self.whole_pages += other.whole_pages;
        self.memory_ns += other.memory_ns;
        self.raw_ns += other.raw_ns;
        self.lz4_ns += other.lz4_ns;
        self.zstd_ns += other.zstd_ns;
    }

    /// Whether a batch of `len` bytes that came to this is better carried as its own bytes (DWCP-52): less than a
    /// sixty-fourth saved is not worth the far side's work.
    pub fn is_fruitless(&self, len: usize) -> bool {
        self.encoded_bytes as usize + len / 64 >= len
    }

    /// Bytes that went through a codec or past it: those that cost an encoder time.
    pub fn coded_bytes(&self) -> u64 {
        let compared = self.uniform_pages + self.unchanged_pages + self.delta_pages + self.known_pages;
        self.raw_bytes + self.lz4_bytes + self.zstd_bytes + u64::from(compared) * PAGE_BYTES as u64
    }

    fn add(&mut self, codec: Codec, bytes: usize) {
        *match codec {
            Codec::Raw => &mut self.raw_bytes,
            Codec::Lz4 => &mut self.lz4_bytes,
            Codec::Zstd => &mut self.zstd_bytes,
        } += bytes as u64;
    }
}

/// One lane's part of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The lane.
    pub lane: LaneId,
    /// The part's payload.
    pub payload: Vec<u8>,
    /// What it carries whole, and what it refers to, where there is a content store.
    pub content: SentContent,
}

/// An encoded batch. Its buffers are reused by the next [`BatchEncoder::encode`] into it.
#[derive(Debug, Default)]
pub struct EncodedBatch {
    /// The index payload.
    pub index: Vec<u8>,
    /// The parts, by rising lane, at most one a lane.
    pub parts: Vec<Part>,
    /// Where the bytes went.
    pub tally: Tally,
    /// Payload buffers of earlier parts.
    spare: Vec<Vec<u8>>,
}

impl EncodedBatch {
    fn clear(&mut self) {
        self.index.clear();
        self.spare.extend(self.parts.drain(..).map(|part| part.payload));
        self.tally = Tally::default();
    }

    fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }
}

/// Encodes one lane's share of a batch, or its index; owns what codecs need between calls. Serves any number of lanes and
/// sessions: what a part is made of is all in the call.
pub struct PartEncoder {
    compressor: Compressor,
    gathered: Vec<u8>,
    writer: MemoryWriter,
}

impl Default for PartEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl PartEncoder {
    /// An encoder.
    pub fn new() -> Self {
        Self { compressor: Compressor::new(), gathered: Vec::new(), writer: MemoryWriter::new() }
    }

    /// Appends to `out` the part of these pages of `batch`; says where their bytes went, and how long it took by `clock`.
    /// A body that the batch does not hold whole counts as a zero page; the batch's digest would tell.
    ///
    /// With the `memory` of its lane a part refers to earlier ones. It must be sent then, and in this order: the far side's
    /// memory follows the lane.
    pub fn encode_part(
        &mut self,
        (batch, bodies): (&[u8], &[PageBody]),
        effort: Effort,
        memory: Option<&mut EncoderMemory>,
        clock: &impl Clock,
        out: &mut Vec<u8>,
    ) -> Tally {
        match memory {
            Some(memory) => {
                self.writer.write(&mut self.compressor, (batch, bodies), effort, memory, clock, out)
            }
            None => self.encode_alone((batch, bodies), effort, clock, out),
        }
    }

    fn encode_alone(
        &mut self,
        (batch, bodies): (&[u8], &[PageBody]),
        effort: Effort,
        clock: &impl Clock,
        out: &mut Vec<u8>,
    ) -> Tally {
        let start = clock.now();
        let mut tally = Tally::default();
        let began = out.len();
        self.gathered.clear();
        let gathered = &mut self.gathered;
        let present = bodies.iter().map(|PageBody { at, .. }| {
            let body = batch.get(*at as usize..*at as usize + PAGE_BYTES).filter(|body| !is_zero(body));
            if let Some(body) = body {
                gathered.extend_from_slice(body);
            }
            body.is_some()
        });
        // A batch holds fewer pages than 16 bits count (asserted in limits).
        begin_part(out, bodies.len() as u16, present);
        let codec = self.compressor.append(&self.gathered, effort, out);
        set_codec(&mut out[began..], codec);
        tally.add(codec, self.gathered.len());
        tally.pages = (self.gathered.len() / PAGE_BYTES) as u32;
        tally.zero_pages = bodies.len() as u32 - tally.pages;
        tally.regenerated_bytes = u64::from(tally.zero_pages) * PAGE_BYTES as u64;
        tally.encoded_bytes = (out.len() - began) as u64;
        let ns = u64::try_from(clock.now().since(start).as_nanos()).unwrap_or(u64::MAX);
        *match codec {
            Codec::Raw => &mut tally.raw_ns,
            Codec::Lz4 => &mut tally.lz4_ns,
            Codec::Zstd => &mut tally.zstd_ns,
        } = ns;
        tally
    }

    /// Appends to `out` the index of these operations and literals, neither of them longer than a batch.
    pub fn encode_index(&mut self, ops: &[u8], literals: &[u8], effort: Effort, out: &mut Vec<u8>) -> Tally {
        let mut tally = Tally::default();
        let began = out.len();
        let codec = write_index(&mut self.compressor, effort, ops, literals, out);
        tally.add(codec, literals.len());
        tally.encoded_bytes = (out.len() - began) as u64;
        tally
    }
}

/// Encodes batches; owns what codecs need between calls. Serves any number of connections of a session.
pub struct BatchEncoder {
    planner: Planner,
    encoder: PartEncoder,
    /// What each lane remembers, where it does and parts are encoded here.
    memories: Vec<EncoderMemory>,
}

impl BatchEncoder {
    /// An encoder for a session with that many lanes; none counts as one.
    pub fn new(lanes: u16) -> Self {
        Self { planner: Planner::new(lanes, false), encoder: PartEncoder::new(), memories: Vec::new() }
    }

    /// What the batch to be encoded or planned next is like.
    pub fn look(&mut self, input: &[u8]) -> Kind {
        self.planner.look(input)
    }

    /// The same, whose lanes remember on these terms.
    pub fn remembering(lanes: u16, terms: LaneTerms) -> Self {
        Self::knowing(lanes, terms, None)
    }

    /// The same, and pages may be references to what the far side's store is known to hold.
    pub fn knowing(lanes: u16, terms: LaneTerms, known: Option<&Arc<KnownContent>>) -> Self {
        let memory = || EncoderMemory::new(terms).with_content(known.cloned());
        let memories = (0..lanes.max(1)).map(|_| memory()).collect();
        Self { planner: Planner::new(lanes, true), encoder: PartEncoder::new(), memories }
    }

    /// An encoder that only plans, for lanes that are remembered elsewhere.
    pub fn planning(lanes: u16) -> Self {
        Self { planner: Planner::new(lanes, true), ..Self::new(lanes) }
    }

    /// What each lane remembers; none where nothing is.
    pub fn memories(&self) -> &[EncoderMemory] {
        &self.memories
    }

    /// Encodes `input`, whose bytes `spans` describe, into `out`, which is emptied first; `clock` says how long it took.
    ///
    /// What the spans say is checked: what does not match the bytes is carried as literal bytes. Where lanes remember, what was
    /// structured must be sent, in this order.
    pub fn encode(
        &mut self,
        input: &[u8],
        spans: &[Span],
        effort: Effort,
        clock: &impl Clock,
        out: &mut EncodedBatch,
    ) -> Choice {
        out.clear();
        let choice = match self.planner.plan(input, spans, effort) {
            Ok(tally) => self.structure(input, tally, effort, clock, out),
            Err(reason) => Choice::Raw(reason),
        };
        if choice != Choice::Structured {
            out.clear();
            out.tally = Tally::raw(input.len());
        }
        choice
    }

    /// What `input` would become, for [`PartEncoder`]s to carry out, in the place of what `plan` was: the index, and a part for each
    /// lane named. An error: it is to be carried as it is.
    pub fn plan(
        &mut self,
        input: &[u8],
        spans: &[Span],
        effort: Effort,
        plan: &mut BatchPlan,
    ) -> Result<(), RawReason> {
        let tally = self.planner.plan(input, spans, effort)?;
        self.planner.take(tally, plan);
        Ok(())
    }

    fn structure(
        &mut self,
        input: &[u8],
        mut tally: Tally,
        effort: Effort,
        clock: &impl Clock,
        out: &mut EncodedBatch,
    ) -> Choice {
        let (ops, literals) = self.planner.index();
        tally.join(&self.encoder.encode_index(ops, literals, effort, &mut out.index));
        for (lane, bodies) in self.planner.parts() {
            let mut payload = out.buffer();
            let mut memory = self.memories.get_mut(usize::from(lane.0));
            let memory_here = memory.as_deref_mut();
            tally.join(&self.encoder.encode_part((input, bodies), effort, memory_here, clock, &mut payload));
            let content = memory.map(EncoderMemory::take_content).unwrap_or_default();
            out.parts.push(Part { lane, payload, content });
        }
        out.tally = tally;
        // What a lane remembers now, its far end must learn.
        let taught = !self.memories.is_empty() && !out.parts.is_empty();
        if !taught && tally.is_fruitless(input.len()) {
            Choice::Raw(RawReason::Fruitless)
        } else {
            Choice::Structured
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Assembler, Bodies, LaneDecoder};
    use super::*;
    use crate::hypervisor::{BlockId, WORD_BYTES};
    use crate::limits::BATCH_LEN_MAX;
    use crate::time::Instant;
    use bytes::BytesMut;

    const ZSTD: Effort = Effort::Zstd { level: 1 };

    /// Pseudo-random bytes (xorshift64*).
    pub(in super::super) fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// Words of a small vocabulary.
    pub(in super::super) fn text(seed: u64, len: usize) -> Vec<u8> {
        const WORDS: [&[u8]; 8] = [
            b"page ",
            b"the lane ",
            b"of ",
            b"migration ",
            b"0x00000000",
            b"\0\0\0\0\0\0\0\0",
            b"guest ",
            b"\n",
        ];
        let mut out: Vec<u8> = noise(seed, len)
            .iter()
            .flat_map(|byte| WORDS[usize::from(byte % 8)].iter().copied())
            .take(len)
            .collect();
        out.resize(len, b'.');
        out
    }

    const BLOCK: BlockId = BlockId(0);

    fn page_records(first_word: u64, bodies: &[u8]) -> (Vec<u8>, Span) {
        let mut out = Vec::new();
        for (i, body) in bodies.chunks_exact(PAGE_BYTES).enumerate() {
            out.extend_from_slice(&first_word.wrapping_add((i * PAGE_BYTES) as u64).to_be_bytes());
            out.extend_from_slice(body);
        }
        (out, Span::PageRecords { block: BLOCK, first_word, count: (bodies.len() / PAGE_BYTES) as u32 })
    }

    fn back(out: &EncodedBatch, lanes: u16, len: usize) -> Vec<u8> {
        let mut counts = vec![0; usize::from(lanes)];
        let (mut assembler, mut decoder) = (Assembler::new(), LaneDecoder::new());
        assembler.bodies_by_lane(&out.index, len, &mut counts).unwrap();
        let mut decoded = vec![Vec::new(); usize::from(lanes)];
        for part in &out.parts {
            let lane = usize::from(part.lane.0);
            decoder.decode(&part.payload, counts[lane] as usize, None, &mut decoded[lane]).unwrap();
        }
        let mut bodies: Vec<Bodies> = decoded.iter().map(|bytes| Bodies::new(bytes)).collect();
        let mut batch = BytesMut::new();
        assembler.assemble(&out.index, &mut bodies, len, &mut batch).unwrap();
        batch.into()
    }

    #[test]
    fn pages_zero_pages_and_literals_come_back() {
        let mut bodies = text(1, 30 * PAGE_BYTES);
        bodies[3 * PAGE_BYTES..5 * PAGE_BYTES].fill(0);
        let (mut input, records) = page_records(0x7f_f028, &bodies);
        let opaque = text(9, 777);
        input.extend_from_slice(&opaque);
        let spans = [records, Span::Opaque { len: 777 }];
        for effort in [Effort::Lz4, ZSTD] {
            let (mut encoder, mut out) = (BatchEncoder::new(3), EncodedBatch::default());
            assert_eq!(encoder.encode(&input, &spans, effort, &Instant::START, &mut out), Choice::Structured);
            assert!(back(&out, 3, input.len()) == input);
            let tally = out.tally;
            assert_eq!((tally.pages, tally.zero_pages), (28, 2));
            assert_eq!(tally.regenerated_bytes, (30 * WORD_BYTES + 2 * PAGE_BYTES) as u64);
            let sum = tally.raw_bytes + tally.lz4_bytes + tally.zstd_bytes + tally.regenerated_bytes;
            assert_eq!(sum, input.len() as u64);
            assert!(tally.encoded_bytes < input.len() as u64 / 2);
        }
    }

    // DWCP-52
    #[test]
    fn what_does_not_pay_is_carried_as_it_is() {
        let (mut encoder, mut out) = (BatchEncoder::new(4), EncodedBatch::default());
        let mut choose = |input: &[u8], spans: &[Span], effort| {
            let choice = encoder.encode(input, spans, effort, &Instant::START, &mut out);
            if choice != Choice::Structured {
                assert!(out.index.is_empty() && out.parts.is_empty());
                assert_eq!(out.tally, Tally::raw(input.len()));
            }
            choice
        };
        let (random, span) = page_records(0x28, &noise(1, 63 * PAGE_BYTES));
        assert_eq!(choose(&random, &[span], ZSTD), Choice::Raw(RawReason::Sampled));
        let (easy, span) = page_records(0x28, &text(1, 63 * PAGE_BYTES));
        assert_eq!(choose(&easy, &[span], Effort::Raw), Choice::Raw(RawReason::Effort));
        assert_eq!(choose(&easy, &[span], Effort::Lz4), Choice::Structured);
        assert_eq!(choose(&easy, &[span, span], Effort::Lz4), Choice::Raw(RawReason::Mismatch));
        assert_eq!(choose(&easy, &[], Effort::Lz4), Choice::Raw(RawReason::Mismatch));
        assert_eq!(choose(&[0; 100], &[Span::Opaque { len: 100 }], ZSTD), Choice::Raw(RawReason::Short));
        let long = vec![0; BATCH_LEN_MAX + 1];
        let span = Span::Opaque { len: long.len() as u32 };
        assert_eq!(choose(&long, &[span], ZSTD), Choice::Raw(RawReason::Mismatch));
    }

    #[test]
    fn spans_that_lie_cost_bytes_and_not_exactness() {
        let (mut input, span) = page_records(0x28, &text(1, 20 * PAGE_BYTES));
        input[5 * (PAGE_BYTES + WORD_BYTES) + 7] ^= 1;
        let zeros = vec![1u8; 90];
        input.extend_from_slice(&zeros);
        let spans = [span, Span::ZeroRecords { block: BLOCK, first_word: 0x0101_0101_0101_0101, count: 10 }];
        let (mut encoder, mut out) = (BatchEncoder::new(2), EncodedBatch::default());
        assert_eq!(
            encoder.encode(&input, &spans, Effort::Lz4, &Instant::START, &mut out),
            Choice::Structured
        );
        assert!(out.parts.is_empty());
        assert!(back(&out, 2, input.len()) == input);
    }

    #[test]
    fn zero_records_cost_almost_nothing() {
        let input: Vec<u8> =
            (0..20_000u64).flat_map(|i| (i << 12 | 0x22).to_be_bytes().into_iter().chain([0])).collect();
        let span = Span::ZeroRecords { block: BLOCK, first_word: 0x22, count: 20_000 };
        let (mut encoder, mut out) = (BatchEncoder::new(4), EncodedBatch::default());
        assert_eq!(
            encoder.encode(&input, &[span], Effort::Lz4, &Instant::START, &mut out),
            Choice::Structured
        );
        assert!(out.index.len() < 32, "{} bytes", out.index.len());
        assert!(back(&out, 4, input.len()) == input);
    }

    #[test]
    fn buffers_stop_growing() {
        let (input, span) = page_records(0x28, &text(1, 63 * PAGE_BYTES));
        let (mut encoder, mut out) = (BatchEncoder::new(4), EncodedBatch::default());
        let sizes = |out: &EncodedBatch| {
            let mut sizes: Vec<(*const u8, usize)> =
                out.parts.iter().map(|part| (part.payload.as_ptr(), part.payload.capacity())).collect();
            sizes.sort_unstable();
            sizes
        };
        for _ in 0..8 {
            encoder.encode(&input, &[span], ZSTD, &Instant::START, &mut out);
        }
        let before = (sizes(&out), out.index.capacity());
        for _ in 0..8 {
            encoder.encode(&input, &[span], ZSTD, &Instant::START, &mut out);
            assert_eq!((sizes(&out), out.index.capacity()), before);
        }
    }
}
