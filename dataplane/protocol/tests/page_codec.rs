//! Properties of the page codec: any batch comes back exactly, and hostile payloads stay within their bounds.

use bytes::BytesMut;
use novacron_protocol::hypervisor::{BlockId, Span};
use novacron_protocol::limits::{BATCH_BYTES_MAX, BATCH_PAGES_MAX, PAGE_BYTES};
use novacron_protocol::page::{
    Assembler, BatchEncoder, Bodies, Choice, Effort, EncodedBatch, LaneDecoder, PartHeader,
};
use novacron_protocol::time::Instant;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Content {
    Zero,
    Text(u8),
    Random(u64),
    /// The same 64 random bytes again and again.
    Repeated(u64),
}

#[derive(Clone, Debug)]
enum Piece {
    Opaque(usize, Content),
    Records(u64, Vec<Content>),
    Zeros(u64, u32),
    Bodies(u64, Vec<Content>),
    /// A span that does not say what the bytes are.
    Lie(u64, Content),
}

fn fill(content: &Content, len: usize, out: &mut Vec<u8>) {
    let end = out.len() + len;
    match content {
        Content::Zero => {}
        Content::Text(salt) => {
            let line = format!("{salt} a line of text that a guest keeps in its page cache, {salt} times\n");
            while out.len() + line.len() < end {
                out.extend_from_slice(line.as_bytes());
            }
        }
        Content::Random(seed) | Content::Repeated(seed) => {
            let mut state = seed | 1;
            let start = out.len();
            while out.len() < end {
                if matches!(content, Content::Repeated(_)) && out.len() >= start + 64 {
                    out.push(out[out.len() - 64]);
                    continue;
                }
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                out.push((state >> 24) as u8);
            }
        }
    }
    out.resize(end, 0);
}

/// The batch and its spans; pieces that would exceed a batch are left out.
fn build(pieces: &[Piece]) -> (Vec<u8>, Vec<Span>) {
    let (mut batch, mut spans, block) = (Vec::new(), Vec::new(), BlockId(1));
    for piece in pieces {
        let span = match piece {
            Piece::Opaque(len, _) => Span::Opaque { len: *len as u32 },
            Piece::Records(first_word, pages) => {
                Span::PageRecords { block, first_word: *first_word, count: pages.len() as u32 }
            }
            Piece::Zeros(first_word, count) => {
                Span::ZeroRecords { block, first_word: *first_word, count: *count }
            }
            Piece::Bodies(offset, pages) => {
                Span::PageBodies { block, offset: *offset, count: pages.len() as u32 }
            }
            Piece::Lie(first_word, _) => Span::ZeroRecords { block, first_word: *first_word, count: 50 },
        };
        if batch.len() + span.len() > BATCH_BYTES_MAX {
            continue;
        }
        spans.push(span);
        let word =
            |first_word: &u64, i: usize| first_word.wrapping_add((i * PAGE_BYTES) as u64).to_be_bytes();
        match piece {
            Piece::Opaque(len, content) => fill(content, *len, &mut batch),
            Piece::Records(first_word, pages) => {
                for (i, page) in pages.iter().enumerate() {
                    batch.extend_from_slice(&word(first_word, i));
                    fill(page, PAGE_BYTES, &mut batch);
                }
            }
            Piece::Zeros(first_word, count) => {
                for i in 0..*count as usize {
                    batch.extend_from_slice(&word(first_word, i));
                    batch.push(0);
                }
            }
            Piece::Bodies(_, pages) => {
                for page in pages {
                    fill(page, PAGE_BYTES, &mut batch);
                }
            }
            Piece::Lie(_, content) => fill(content, span.len(), &mut batch),
        }
    }
    (batch, spans)
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Zero),
        any::<u8>().prop_map(Content::Text),
        any::<u64>().prop_map(Content::Random),
        any::<u64>().prop_map(Content::Repeated),
    ]
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), (0u64..1 << 20).prop_map(|page| page << 12 | 0x28), Just(u64::MAX - 4095)]
}

fn piece() -> impl Strategy<Value = Piece> {
    let pages = || prop::collection::vec(content(), 1..24);
    prop_oneof![
        (1usize..9000, content()).prop_map(|(len, content)| Piece::Opaque(len, content)),
        (word(), pages()).prop_map(|(word, pages)| Piece::Records(word, pages)),
        (word(), pages()).prop_map(|(word, pages)| Piece::Records(word, pages)),
        (word(), 1u32..3000).prop_map(|(word, count)| Piece::Zeros(word, count)),
        (word(), pages()).prop_map(|(word, pages)| Piece::Bodies(word, pages)),
        (word(), content()).prop_map(|(word, content)| Piece::Lie(word, content)),
    ]
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    prop::collection::vec(piece(), 1..16)
}

fn effort() -> impl Strategy<Value = Effort> {
    prop_oneof![
        1 => Just(Effort::Raw),
        3 => Just(Effort::Lz4),
        3 => (-10i32..7).prop_map(|level| Effort::Zstd { level }),
    ]
}

/// Decodes as a destination would; None if anything is refused. Checks the bounds on the way.
fn decode(index: &[u8], parts: &[(u16, Vec<u8>)], lanes: u16, batch_len: usize) -> Option<Vec<u8>> {
    let (mut assembler, mut decoder) = (Assembler::new(), LaneDecoder::new());
    let mut counts = vec![0; usize::from(lanes)];
    let counted = assembler.bodies_by_lane(index, batch_len, &mut counts);
    let mut decoded = vec![Vec::new(); usize::from(lanes)];
    let mut refused = counted.is_err();
    for (lane, payload) in parts {
        let bodies = &mut decoded[usize::from(*lane)];
        let bodies_max = counts[usize::from(*lane)] as usize;
        refused |= decoder.decode(payload, bodies_max, None, bodies).is_err();
        assert!(bodies.capacity() <= bodies_max * PAGE_BYTES, "allocated beyond the bound");
        // And with the widest bound, which a mutated count could reach.
        let mut unbounded = Vec::new();
        if decoder.decode(payload, usize::MAX, None, &mut unbounded).is_ok() {
            assert_eq!(
                unbounded.len(),
                PartHeader::parse(payload).expect("it was decoded").count * PAGE_BYTES
            );
        }
        assert!(unbounded.capacity() <= BATCH_PAGES_MAX * PAGE_BYTES, "allocated beyond a batch");
    }
    let mut cursors: Vec<Bodies<'_>> = decoded.iter().map(|bodies| Bodies::new(bodies)).collect();
    let mut batch = BytesMut::new();
    let assembled = assembler.assemble(index, &mut cursors, batch_len, &mut batch);
    assert!(batch.capacity() <= batch_len, "allocated beyond the batch");
    match assembled {
        Ok(()) => assert_eq!(batch.len(), batch_len),
        Err(_) => assert!(batch.is_empty()),
    }
    (assembled.is_ok() && !refused).then(|| batch.into())
}

fn owned(out: &EncodedBatch) -> Vec<(u16, Vec<u8>)> {
    out.parts.iter().map(|part| (part.lane.0, part.payload.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_batch_comes_back(batches in prop::collection::vec((pieces(), effort()), 1..4), lanes in 1u16..9) {
        let (mut encoder, mut out) = (BatchEncoder::new(lanes), EncodedBatch::default());
        for (pieces, effort) in &batches {
            let (batch, spans) = build(pieces);
            let choice = encoder.encode(&batch, &spans, *effort, &Instant::START, &mut out);
            let tally = out.tally;
            prop_assert_eq!(tally.coded_bytes() + tally.regenerated_bytes, batch.len() as u64);
            if choice == Choice::Structured {
                let payloads = out.index.len() + out.parts.iter().map(|part| part.payload.len()).sum::<usize>();
                prop_assert_eq!(tally.encoded_bytes, payloads as u64);
                prop_assert!(payloads < batch.len());
                prop_assert!(out.parts.is_sorted_by(|a, b| a.lane < b.lane));
                prop_assert!(decode(&out.index, &owned(&out), lanes, batch.len()) == Some(batch));
            } else {
                prop_assert!(out.index.is_empty() && out.parts.is_empty());
                prop_assert_eq!(tally.encoded_bytes, batch.len() as u64);
            }
        }
    }

    #[test]
    fn mutated_payloads_stay_within_bounds(
        pieces in pieces(),
        effort in effort(),
        lanes in 1u16..9,
        mutations in prop::collection::vec((any::<u16>(), any::<u32>(), any::<u8>(), 0u8..4), 1..6),
        stretch in -9000isize..9000,
    ) {
        let (batch, spans) = build(&pieces);
        let (mut encoder, mut out) = (BatchEncoder::new(lanes), EncodedBatch::default());
        if encoder.encode(&batch, &spans, effort, &Instant::START, &mut out) != Choice::Structured {
            return Ok(());
        }
        let (mut index, mut parts) = (out.index.clone(), owned(&out));
        for (which, at, byte, how) in mutations {
            let payload = match usize::from(which) % (parts.len() + 1) {
                0 => &mut index,
                part => &mut parts[part - 1].1,
            };
            if payload.is_empty() {
                continue;
            }
            // Headers decide most: half of the mutations fall there.
            let at = at as usize % if at % 2 == 0 { payload.len().min(24) } else { payload.len() };
            match how {
                0 => payload[at] = byte,
                1 => payload[at] ^= 1 << (byte % 8),
                2 => payload.truncate(at),
                _ => payload.insert(at, byte),
            }
        }
        let batch_len = batch.len().saturating_add_signed(stretch);
        decode(&index, &parts, lanes, batch.len());
        decode(&index, &parts, lanes, batch_len);
    }

    #[test]
    fn garbage_stays_within_bounds(
        mut index in prop::collection::vec(any::<u8>(), 0..400),
        payload in prop::collection::vec(any::<u8>(), 0..400),
        plausible in any::<bool>(),
        batch_len in 0usize..2 * BATCH_BYTES_MAX,
    ) {
        if plausible && index.len() > 40 {
            // A well-formed header over random operations.
            let ops = index.len() - 16 - 8;
            index[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, ops as u8, 0, 0, 0, ops as u8, 0, 0, 0, 8]);
            index[6] = (ops >> 8) as u8;
            index[10] = (ops >> 8) as u8;
        }
        decode(&index, &[(0, payload.clone()), (1, payload)], 2, batch_len);
    }
}
