//! A batch becomes an index and parts, or is better carried as it is.

use super::Effort;
use super::assemble::write_index;
use super::block::{Codec, Compressor};
use super::lane::{LaneId, lane_of};
use super::ops::{Op, OpWriter, RunKind};
use super::part::{begin_part, set_codec};
use super::sample::Sampler;
use super::zero::is_zero;
use crate::hypervisor::{Span, WORD_BYTES};
use crate::limits::{BATCH_LEN_MAX, PAGE_BYTES};

/// Batches shorter than this are carried as they are: frames and headers would eat what an index saves.
const STRUCTURED_FROM_BYTES: usize = 512;

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

/// Where the guest's bytes of a batch went; the first four add up to the batch.
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
}

impl Tally {
    fn raw(bytes: usize) -> Self {
        Self { raw_bytes: bytes as u64, encoded_bytes: bytes as u64, ..Self::default() }
    }

    /// Bytes that went through a codec or past it: those that cost an encoder time.
    pub fn coded_bytes(&self) -> u64 {
        self.raw_bytes + self.lz4_bytes + self.zstd_bytes
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

/// A page body of the batch at hand.
struct Body {
    lane: LaneId,
    /// Where it begins in the batch.
    at: usize,
    zero: bool,
}

/// Encodes batches; owns what codecs need between calls. Serves any number of connections of a session.
pub struct BatchEncoder {
    lanes: u16,
    sampler: Sampler,
    compressor: Compressor,
    ops: OpWriter,
    literals: Vec<u8>,
    bodies: Vec<Body>,
    gathered: Vec<u8>,
}

impl BatchEncoder {
    /// An encoder for a session with that many lanes; none counts as one.
    pub fn new(lanes: u16) -> Self {
        Self {
            lanes: lanes.max(1),
            sampler: Sampler::new(),
            compressor: Compressor::new(),
            ops: OpWriter::default(),
            literals: Vec::new(),
            bodies: Vec::new(),
            gathered: Vec::new(),
        }
    }

    /// Encodes `input`, whose bytes `spans` describe, into `out`, which is emptied first.
    ///
    /// What the spans say is checked: what does not match the bytes is carried as literal bytes.
    pub fn encode(&mut self, input: &[u8], spans: &[Span], effort: Effort, out: &mut EncodedBatch) -> Choice {
        out.clear();
        let choice = match self.refuse(input, spans, effort) {
            Some(reason) => Choice::Raw(reason),
            None => self.structure(input, spans, effort, out),
        };
        if choice != Choice::Structured {
            out.clear();
            out.tally = Tally::raw(input.len());
        }
        choice
    }

    /// Why not to begin; decided without touching more than a sample.
    fn refuse(&mut self, input: &[u8], spans: &[Span], effort: Effort) -> Option<RawReason> {
        if effort == Effort::Raw {
            return Some(RawReason::Effort);
        }
        if input.len() < STRUCTURED_FROM_BYTES {
            return Some(RawReason::Short);
        }
        let covered = spans.iter().try_fold(0usize, |sum, span| sum.checked_add(span.len()));
        if input.len() > BATCH_LEN_MAX || covered != Some(input.len()) {
            return Some(RawReason::Mismatch);
        }
        (!self.sampler.compressible(input, effort)).then_some(RawReason::Sampled)
    }

    fn structure(&mut self, input: &[u8], spans: &[Span], effort: Effort, out: &mut EncodedBatch) -> Choice {
        let mut tally = self.plan(input, spans);
        let ops = self.ops.finish();
        // The decoder bounds operations by the batch; more of them than that could not pay anyway.
        if ops.len() > input.len() {
            return Choice::Raw(RawReason::Fruitless);
        }
        let codec = write_index(&mut self.compressor, effort, ops, &self.literals, &mut out.index);
        tally.add(codec, self.literals.len());
        tally.encoded_bytes = out.index.len() as u64;
        self.write_parts(input, effort, out, &mut tally);
        out.tally = tally;
        // DWCP-52; and less than a sixty-fourth saved is not worth the far side's work.
        if tally.encoded_bytes as usize + input.len() / 64 >= input.len() {
            return Choice::Raw(RawReason::Fruitless);
        }
        Choice::Structured
    }

    /// Turns the spans into operations, literals and bodies.
    fn plan(&mut self, input: &[u8], spans: &[Span]) -> Tally {
        self.ops.clear();
        self.literals.clear();
        self.bodies.clear();
        let (mut tally, mut at) = (Tally::default(), 0);
        for span in spans {
            let bytes = &input[at..at + span.len()];
            let run = match *span {
                Span::PageRecords { first_word, count, .. } => Some((RunKind::Pages, first_word, count)),
                Span::ZeroRecords { first_word, count, .. } => Some((RunKind::Zeros, first_word, count)),
                Span::PageBodies { offset, count, .. } => Some((RunKind::Bodies, offset, count)),
                Span::Opaque { .. } => None,
            };
            match run {
                Some((kind, first_word, count)) if regenerates(bytes, kind, first_word) => {
                    self.ops.push(Op::Run { kind, first_word, count: u64::from(count) });
                    self.take_bodies(input, at, kind, first_word, count, &mut tally);
                }
                _ => {
                    self.ops.push(Op::Literal { bytes: bytes.len() as u64 });
                    self.literals.extend_from_slice(bytes);
                }
            }
            at += span.len();
        }
        tally
    }

    /// Notes the bodies of a run that begins at `at`.
    fn take_bodies(
        &mut self,
        input: &[u8],
        at: usize,
        kind: RunKind,
        first_word: u64,
        count: u32,
        tally: &mut Tally,
    ) {
        if kind == RunKind::Zeros {
            tally.zero_pages += count;
            tally.regenerated_bytes += u64::from(count) * kind.unit_bytes() as u64;
            return;
        }
        let word_bytes = kind.unit_bytes() - PAGE_BYTES;
        for i in 0..count as usize {
            let at = at + i * kind.unit_bytes() + word_bytes;
            let offset = first_word.wrapping_add((i * PAGE_BYTES) as u64);
            let zero = is_zero(&input[at..at + PAGE_BYTES]);
            tally.regenerated_bytes += (word_bytes + if zero { PAGE_BYTES } else { 0 }) as u64;
            *if zero { &mut tally.zero_pages } else { &mut tally.pages } += 1;
            self.bodies.push(Body { lane: lane_of(offset, self.lanes), at, zero });
        }
    }

    /// One part for each lane that has a body.
    fn write_parts(&mut self, input: &[u8], effort: Effort, out: &mut EncodedBatch, tally: &mut Tally) {
        // Batch order within each lane, by an unstable sort because a stable one allocates.
        self.bodies.sort_unstable_by_key(|body| (body.lane, body.at));
        for of_lane in self.bodies.chunk_by(|a, b| a.lane == b.lane) {
            self.gathered.clear();
            for body in of_lane.iter().filter(|body| !body.zero) {
                self.gathered.extend_from_slice(&input[body.at..body.at + PAGE_BYTES]);
            }
            let mut payload = out.buffer();
            // A batch holds fewer pages than 16 bits count (asserted in limits).
            begin_part(&mut payload, of_lane.len() as u16, of_lane.iter().map(|body| !body.zero));
            let codec = self.compressor.append(&self.gathered, effort, &mut payload);
            set_codec(&mut payload, codec);
            tally.add(codec, self.gathered.len());
            tally.encoded_bytes += payload.len() as u64;
            out.parts.push(Part { lane: of_lane[0].lane, payload });
        }
    }
}

/// Whether the far side would regenerate exactly the words and zero bytes of these records.
fn regenerates(records: &[u8], kind: RunKind, first_word: u64) -> bool {
    if kind == RunKind::Bodies {
        return true;
    }
    let mut word = first_word;
    for record in records.chunks_exact(kind.unit_bytes()) {
        let zero_byte = kind == RunKind::Pages || record[WORD_BYTES] == 0;
        if record[..WORD_BYTES] != word.to_be_bytes() || !zero_byte {
            return false;
        }
        word = word.wrapping_add(PAGE_BYTES as u64);
    }
    true
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Assembler, Bodies, LaneDecoder};
    use super::*;
    use crate::hypervisor::BlockId;

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
            decoder.decode(&part.payload, counts[lane] as usize, &mut decoded[lane]).unwrap();
        }
        let mut bodies: Vec<Bodies> = decoded.iter().map(|bytes| Bodies::new(bytes)).collect();
        let mut batch = Vec::new();
        assembler.assemble(&out.index, &mut bodies, len, &mut batch).unwrap();
        batch
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
            assert_eq!(encoder.encode(&input, &spans, effort, &mut out), Choice::Structured);
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
            let choice = encoder.encode(input, spans, effort, &mut out);
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
        assert_eq!(encoder.encode(&input, &spans, Effort::Lz4, &mut out), Choice::Structured);
        assert!(out.parts.is_empty());
        assert!(back(&out, 2, input.len()) == input);
    }

    #[test]
    fn zero_records_cost_almost_nothing() {
        let input: Vec<u8> =
            (0..20_000u64).flat_map(|i| (i << 12 | 0x22).to_be_bytes().into_iter().chain([0])).collect();
        let span = Span::ZeroRecords { block: BLOCK, first_word: 0x22, count: 20_000 };
        let (mut encoder, mut out) = (BatchEncoder::new(4), EncodedBatch::default());
        assert_eq!(encoder.encode(&input, &[span], Effort::Lz4, &mut out), Choice::Structured);
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
            encoder.encode(&input, &[span], ZSTD, &mut out);
        }
        let before = (sizes(&out), out.index.capacity());
        for _ in 0..8 {
            encoder.encode(&input, &[span], ZSTD, &mut out);
            assert_eq!((sizes(&out), out.index.capacity()), before);
        }
    }
}
