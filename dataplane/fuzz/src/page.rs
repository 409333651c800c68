//! The page codec: decoders on any bytes stay within their bounds, and any batch comes back.
//!
//! Input: what to do, then what that needs.

use crate::input::Input;
use bytes::BytesMut;
use novacron_protocol::hypervisor::{BlockId, Span};
use novacron_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_LEN_MAX, BATCH_PAGES_MAX, PAGE_BYTES, WINDOW_LOG_MIN,
};
use novacron_protocol::page::{
    Assembler, BatchEncoder, Bodies, Choice, ContentKey, DecoderMemory, Effort, EncodedBatch, LaneDecoder,
    LaneTerms, PartHeader,
};
use novacron_protocol::time::Instant;
use std::sync::Arc;

/// Decode the rest as a part: at most how many bodies, then the payload.
pub const PART: u8 = 0;
/// Assemble the rest: lanes, batch length (u16 pages, u16 bytes), a body less or more, then the index.
pub const INDEX: u8 = 1;
/// Encode a batch of these pieces and decode it.
pub const BATCH: u8 = 2;
/// The same, but damage what was encoded first: how often, where and how, then the pieces.
pub const DAMAGED: u8 = 3;
/// Encode batches one after the other on lanes that remember, and decode them: lanes, how much is remembered, then for each batch
/// its effort, how often and where what was encoded is damaged, how many bytes describe it, and these.
pub const REMEMBERED: u8 = 4;
/// Decode the rest as a part of a lane that remembers a few pages.
pub const MEMORY_PART: u8 = 5;

/// Bytes of a batch that one input describes: enough for several lanes, few enough for many runs a second.
const PIECES_BYTES: usize = 24 * PAGE_BYTES;
/// Batches that one input describes at most.
const BATCHES_MAX: usize = 16;

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    match input.byte() % 6 {
        PART => {
            let bodies_max = usize::from(input.byte());
            part(input.rest(), bodies_max, None, &mut Vec::new());
        }
        INDEX => index(&mut input),
        BATCH => batch(&mut input, 0),
        REMEMBERED => remembered(&mut input),
        MEMORY_PART => memory_part(&mut input),
        _ => {
            let damages = 1 + input.below(8);
            batch(&mut input, damages);
        }
    }
}

/// Decodes a part into `out`; whether it is one.
fn part(payload: &[u8], bodies_max: usize, memory: Option<&mut DecoderMemory>, out: &mut Vec<u8>) -> bool {
    let decoded = LaneDecoder::new().decode(payload, bodies_max, memory, out);
    assert!(out.capacity() <= 2 * BATCH_PAGES_MAX * PAGE_BYTES, "{} bytes allocated", out.capacity());
    match decoded {
        Ok(()) => {
            let header = PartHeader::parse(payload).expect("a part that was decoded has a header");
            assert_eq!(out.len(), header.count * PAGE_BYTES);
            assert!(header.count <= bodies_max.min(BATCH_PAGES_MAX));
            true
        }
        Err(error) => {
            assert!(out.is_empty());
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// A part, for a lane that remembers eight pages.
fn memory_part(input: &mut Input<'_>) {
    let options = input.byte();
    let terms = LaneTerms { pages: 8, window_log: (options & 1 != 0).then_some(WINDOW_LOG_MIN) };
    let (mut encoder, mut encoded) = (BatchEncoder::remembering(1, terms), EncodedBatch::default());
    let key = (options & 2 != 0).then(|| Arc::new(ContentKey::new([9; 32])));
    let mut memory = DecoderMemory::new(terms).with_content(key);
    let first = Span::PageRecords { block: BlockId(0), first_word: 0x28, count: 8 };
    let mut bytes = Vec::new();
    for page in 0..8u8 {
        bytes.extend_from_slice(&(u64::from(page) << 12 | 0x28).to_be_bytes());
        let at = bytes.len();
        bytes.resize(at + PAGE_BYTES, 0);
        fill(2 + page % 2, page + 1, &mut bytes[at..]);
    }
    encoder.encode(&bytes, &[first], Effort::Zstd { level: 1 }, &Instant::START, &mut encoded);
    for of_lane in &encoded.parts {
        assert!(part(&of_lane.payload, BATCH_PAGES_MAX, Some(&mut memory), &mut Vec::new()));
    }
    let mut out = Vec::new();
    if part(input.rest(), BATCH_PAGES_MAX, Some(&mut memory), &mut out) {
        let content = memory.take_content();
        assert!(content.holes.is_empty() || options & 2 != 0);
        let places =
            content.holes.iter().map(|hole| hole.place).chain(content.whole.iter().map(|(place, _)| *place));
        assert!(places.into_iter().all(|place| (usize::from(place) + 1) * PAGE_BYTES <= out.len()));
    }
    assert!(memory.pages() <= 8);
}

/// Batches on lanes that remember.
fn remembered(input: &mut Input<'_>) {
    let lanes = 1 + u16::from(input.byte() % 4);
    let kept = input.byte();
    let terms =
        LaneTerms { pages: 1 + u32::from(kept >> 1), window_log: (kept & 1 != 0).then_some(WINDOW_LOG_MIN) };
    let (mut encoder, mut encoded) = (BatchEncoder::remembering(lanes, terms), EncodedBatch::default());
    let mut memories: Vec<DecoderMemory> = (0..lanes).map(|_| DecoderMemory::new(terms)).collect();
    let mut assembler = Assembler::new();
    for _ in 0..BATCHES_MAX {
        if input.is_empty() {
            return;
        }
        let effort = match input.byte() % 4 {
            0 => Effort::Lz4,
            1 => Effort::Zstd { level: 1 },
            2 => Effort::Zstd { level: 3 },
            _ => Effort::Raw,
        };
        let [damaged, at, xor, length] = input.array();
        let described: Vec<u8> = (0..length).map(|_| input.byte()).collect();
        let Described { bytes, spans } = describe(&mut Input::new(&described));
        if encoder.encode(&bytes, &spans, effort, &Instant::START, &mut encoded) != Choice::Structured {
            continue;
        }
        let mut harmed = false;
        if damaged > 0xe0
            && let Some(part) = encoded.parts.first_mut()
        {
            let at = usize::from(at) % part.payload.len();
            part.payload[at] ^= xor;
            harmed = xor != 0;
        }
        let mut decoded = vec![Vec::new(); usize::from(lanes)];
        for of_lane in &encoded.parts {
            let lane = usize::from(of_lane.lane.0);
            let memory = Some(&mut memories[lane]);
            if !part(&of_lane.payload, BATCH_PAGES_MAX, memory, &mut decoded[lane]) {
                assert!(harmed, "a part that was just encoded was refused");
                return;
            }
            assert!(memories[lane].pages() <= terms.pages as usize);
        }
        let mut bodies: Vec<Bodies<'_>> = decoded.iter().map(|bytes| Bodies::new(bytes)).collect();
        let mut out = BytesMut::new();
        let assembled = assembler.assemble(&encoded.index, &mut bodies, bytes.len(), &mut out);
        // What was damaged may say other pages: then the batch's digest would tell, and the session ends.
        if harmed {
            return;
        }
        assert!(assembled.is_ok() && out == bytes, "a batch did not come back");
    }
}

/// An index on its own: bodies are there as it asks for them, but for a few.
fn index(input: &mut Input<'_>) {
    let lanes = usize::from(input.byte() % 80);
    let len = usize::from(input.u16() % 70) * PAGE_BYTES + usize::from(input.u16());
    let astray = input.byte();
    let index = input.rest();

    let mut assembler = Assembler::new();
    let mut counts = vec![0u32; lanes];
    let counted = assembler.bodies_by_lane(index, len, &mut counts).is_ok();
    let pages: u32 = counts.iter().sum();
    assert!(!counted || pages as usize * PAGE_BYTES <= len);
    let asked = counts.clone();
    if astray & 1 != 0
        && let Some(count) = counts.get_mut(usize::from(astray >> 2) % lanes.max(1))
    {
        *count = if astray & 2 != 0 { *count + 1 } else { count.saturating_sub(1) };
    }
    let bodies = vec![0x5a; (pages as usize + 1).min(BATCH_PAGES_MAX + 1) * PAGE_BYTES];
    let mut parts: Vec<Bodies<'_>> = counts
        .iter()
        .map(|count| Bodies::new(&bodies[..(*count as usize * PAGE_BYTES).min(bodies.len())]))
        .collect();
    let mut out = BytesMut::new();
    match assembler.assemble(index, &mut parts, len, &mut out) {
        Ok(()) => {
            assert!(counted && counts == asked, "assembled from bodies that it did not ask for");
            assert_eq!(out.len(), len);
        }
        Err(error) => {
            assert!(out.is_empty());
            assert!(!error.to_string().is_empty());
        }
    }
    assert!(out.capacity() <= 2 * BATCH_LEN_MAX, "{} bytes allocated", out.capacity());
}

/// Bytes of a page: what codecs like and what they do not.
fn fill(kind: u8, salt: u8, out: &mut [u8]) {
    match kind % 4 {
        0 => {}
        1 => out.fill(salt),
        2 => {
            for (i, byte) in out.iter_mut().enumerate() {
                *byte = b"a line of a guest's memory, "[i % 28] ^ (salt & 7);
            }
        }
        _ => {
            let mut state = u64::from(salt) << 1 | 1;
            for byte in out {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = (state >> 24) as u8;
            }
        }
    }
}

/// A batch and what is said of it.
struct Described {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

fn describe(input: &mut Input<'_>) -> Described {
    let (mut bytes, mut spans, block) = (Vec::new(), Vec::new(), BlockId(0));
    let mut next_word = 0u64;
    while !input.is_empty() {
        let [kind, count, content, salt] = input.array();
        let count = u32::from(count % 16);
        // Words mostly continue each other, as a pass over memory does.
        let word = match kind >> 4 {
            0..=9 => next_word,
            10..=13 => u64::from(input.u16()) << 12 | u64::from(salt),
            _ => input.u64(),
        };
        let span = match kind % 4 {
            0 => Span::Opaque { len: count * 37 },
            1 => Span::PageRecords { block, first_word: word, count },
            2 => Span::ZeroRecords { block, first_word: word, count },
            _ => Span::PageBodies { block, offset: word, count },
        };
        if bytes.len() + span.len() > PIECES_BYTES.min(BATCH_BYTES_MAX) {
            break;
        }
        next_word = word.wrapping_add(u64::from(count) * PAGE_BYTES as u64);
        spans.push(span);
        let mut put = |len: usize, content| {
            let at = bytes.len();
            bytes.resize(at + len, 0);
            fill(content, salt, &mut bytes[at..]);
        };
        // Bit 3: the span lies, its bytes are anything of its length.
        if kind & 8 != 0 || matches!(span, Span::Opaque { .. }) {
            put(span.len(), content);
            continue;
        }
        for i in 0..u64::from(count) {
            let page = content.wrapping_add((i as u8).wrapping_mul(content >> 4));
            match span {
                Span::PageRecords { .. } | Span::ZeroRecords { .. } => {
                    bytes.extend_from_slice(&word.wrapping_add(i * PAGE_BYTES as u64).to_be_bytes());
                    let len = if matches!(span, Span::ZeroRecords { .. }) { 1 } else { PAGE_BYTES };
                    let at = bytes.len();
                    bytes.resize(at + len, 0);
                    if len > 1 {
                        fill(page, salt, &mut bytes[at..]);
                    }
                }
                _ => {
                    let at = bytes.len();
                    bytes.resize(at + PAGE_BYTES, 0);
                    fill(page, salt, &mut bytes[at..]);
                }
            }
        }
    }
    Described { bytes, spans }
}

fn batch(input: &mut Input<'_>, damages: usize) {
    let lanes = 1 + u16::from(input.byte() % 8);
    let effort = match input.byte() % 4 {
        0 | 1 => Effort::Lz4,
        2 => Effort::Zstd { level: 1 },
        _ => Effort::Zstd { level: -5 },
    };
    let damage: Vec<(u16, u8)> = (0..damages).map(|_| (input.u16(), input.byte())).collect();
    let Described { bytes, spans } = describe(input);

    let mut encoded = EncodedBatch::default();
    let choice = BatchEncoder::new(lanes).encode(&bytes, &spans, effort, &Instant::START, &mut encoded);
    if choice != Choice::Structured {
        assert!(encoded.index.is_empty() && encoded.parts.is_empty());
        return;
    }
    let parts: usize = encoded.parts.iter().map(|part| part.payload.len()).sum();
    assert!(encoded.index.len() + parts < bytes.len(), "encoding made a batch longer");
    assert_eq!(encoded.tally.encoded_bytes, (encoded.index.len() + parts) as u64);

    for (at, xor) in &damage {
        let which = usize::from(*xor) % (1 + encoded.parts.len());
        let payload = match encoded.parts.get_mut(which) {
            Some(part) => &mut part.payload,
            None => &mut encoded.index,
        };
        let at = usize::from(*at) % payload.len().max(1);
        // What matters most stands in front.
        let at = if xor & 0x80 != 0 { at % 24 } else { at };
        match payload.get_mut(at) {
            Some(byte) if *xor != 0x7f => *byte ^= xor,
            _ => payload.truncate(at),
        }
    }

    let mut assembler = Assembler::new();
    let mut counts = vec![0u32; usize::from(lanes)];
    let counted = assembler.bodies_by_lane(&encoded.index, bytes.len(), &mut counts);
    let mut decoded = vec![Vec::new(); usize::from(lanes)];
    for of_lane in &encoded.parts {
        let lane = usize::from(of_lane.lane.0);
        let taken = part(&of_lane.payload, counts[lane] as usize, None, &mut decoded[lane]);
        assert!(taken || damages > 0);
    }
    let mut bodies: Vec<Bodies<'_>> = decoded.iter().map(|bytes| Bodies::new(bytes)).collect();
    let mut out = BytesMut::new();
    let assembled = assembler.assemble(&encoded.index, &mut bodies, bytes.len(), &mut out);
    assert_eq!(out.len(), if assembled.is_ok() { bytes.len() } else { 0 });
    if damages == 0 {
        assert!(counted.is_ok() && assembled.is_ok());
        assert!(out == bytes, "a batch did not come back");
    }
}
