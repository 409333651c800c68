//! Properties of lanes that remember: whatever a guest does to its pages comes back, both sides hold the same, and hostile parts
//! stay within their bounds.

use bytes::BytesMut;
use novacron_protocol::hypervisor::{BlockId, Span};
use novacron_protocol::limits::{MEMORY_PAGE_BYTES, PAGE_BYTES};
use novacron_protocol::page::{
    Assembler, BatchEncoder, Bodies, Choice, ContentKey, DecoderMemory, Effort, EncodedBatch, Hole,
    LaneDecoder, LaneTerms, PartError,
};
use novacron_protocol::time::Instant;
use proptest::prelude::*;
use std::sync::Arc;

const PAGES: u64 = 24;
/// Some batches remember more than the guest has, some less.
const ROOMY: LaneTerms = LaneTerms { pages: 64, window_log: Some(22) };
const TIGHT: LaneTerms = LaneTerms { pages: 5, window_log: None };

/// What the guest does to a page before it is sent.
#[derive(Clone, Debug)]
enum Write {
    Nothing,
    Zero,
    Word(u64),
    Text(u8),
    Random(u64),
    Bytes(usize, usize, u8),
    Scattered(usize, u8),
    /// It becomes what another page is.
    Copy(u64),
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        4 => Just(Write::Nothing),
        1 => Just(Write::Zero),
        1 => any::<u64>().prop_map(Write::Word),
        2 => any::<u8>().prop_map(Write::Text),
        2 => any::<u64>().prop_map(Write::Random),
        4 => (0..PAGE_BYTES, 1usize..300, any::<u8>()).prop_map(|(at, len, byte)| Write::Bytes(at, len, byte)),
        2 => (2usize..200, any::<u8>()).prop_map(|(step, byte)| Write::Scattered(step, byte)),
        1 => (0..PAGES).prop_map(Write::Copy),
    ]
}

fn effort() -> impl Strategy<Value = Effort> {
    prop_oneof![
        1 => Just(Effort::Raw),
        2 => Just(Effort::Lz4),
        4 => prop_oneof![Just(-5), Just(1), Just(3), Just(19)].prop_map(|level| Effort::Zstd { level }),
    ]
}

fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..PAGE_BYTES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

struct Guest {
    pages: Vec<Vec<u8>>,
}

impl Guest {
    fn new() -> Self {
        Guest { pages: vec![vec![0; PAGE_BYTES]; PAGES as usize] }
    }

    fn write(&mut self, page: u64, write: &Write) {
        let other = match write {
            Write::Copy(other) => self.pages[*other as usize].clone(),
            _ => Vec::new(),
        };
        let page = &mut self.pages[page as usize];
        match write {
            Write::Nothing => {}
            Write::Zero => page.fill(0),
            Write::Word(word) => page.as_chunks_mut::<8>().0.fill(word.to_ne_bytes()),
            Write::Text(salt) => {
                let line = format!("{salt} a line that a guest keeps in its page cache, {salt} times\n");
                for (to, from) in page.iter_mut().zip(line.bytes().cycle()) {
                    *to = from;
                }
            }
            Write::Random(seed) => *page = noise(*seed),
            Write::Bytes(at, len, byte) => {
                let end = (at + len).min(PAGE_BYTES);
                page[*at..end].fill(*byte);
            }
            Write::Scattered(step, byte) => page.iter_mut().step_by(*step).for_each(|place| *place ^= byte),
            Write::Copy(_) => *page = other,
        }
    }

    /// These pages as a hypervisor sends them.
    fn batch(&self, pages: &[u64]) -> (Vec<u8>, Vec<Span>) {
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        for page in pages {
            // A region apart each, so that they are spread over the lanes.
            let first_word = page << 18 | 0x28;
            bytes.extend_from_slice(&first_word.to_be_bytes());
            bytes.extend_from_slice(&self.pages[*page as usize]);
            spans.push(Span::PageRecords { block: BlockId(2), first_word, count: 1 });
        }
        (bytes, spans)
    }
}

/// The receiving end of all lanes.
struct Destination {
    assembler: Assembler,
    decoder: LaneDecoder,
    lanes: Vec<DecoderMemory>,
}

impl Destination {
    fn new(lanes: u16, terms: LaneTerms) -> Self {
        let lanes = (0..lanes).map(|_| DecoderMemory::new(terms)).collect();
        Destination { assembler: Assembler::new(), decoder: LaneDecoder::new(), lanes }
    }

    fn take(&mut self, out: &EncodedBatch, len: usize) -> Vec<u8> {
        let mut decoded = vec![Vec::new(); self.lanes.len()];
        for part in &out.parts {
            let lane = usize::from(part.lane.0);
            self.decoder
                .decode(&part.payload, 66, Some(&mut self.lanes[lane]), &mut decoded[lane])
                .expect("a part that was just encoded");
        }
        let mut bodies: Vec<Bodies<'_>> = decoded.iter().map(|bytes| Bodies::new(bytes)).collect();
        let mut batch = BytesMut::new();
        self.assembler
            .assemble(&out.index, &mut bodies, len, &mut batch)
            .expect("an index that was just made");
        batch.into()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// DWCP-71, DWCP-72: every batch comes back, at any effort, whatever was sent past the lanes in between; both sides
    /// remember as many pages, within their bound.
    #[test]
    fn whatever_a_guest_does_comes_back(
        rounds in prop::collection::vec((effort(), prop::collection::vec((0..PAGES, write()), 1..40)), 1..12),
        lanes in 1u16..5,
        tight: bool,
    ) {
        let terms = if tight { TIGHT } else { ROOMY };
        let mut encoder = BatchEncoder::remembering(lanes, terms);
        let (mut destination, mut guest) = (Destination::new(lanes, terms), Guest::new());
        let mut out = EncodedBatch::default();
        for (effort, writes) in &rounds {
            let mut pages = Vec::new();
            for (page, write) in writes {
                guest.write(*page, write);
                pages.push(*page);
            }
            let (batch, spans) = guest.batch(&pages);
            let choice = encoder.encode(&batch, &spans, *effort, &Instant::START, &mut out);
            let tally = out.tally;
            prop_assert_eq!(tally.coded_bytes() + tally.regenerated_bytes, batch.len() as u64);
            if choice == Choice::Structured {
                prop_assert!(destination.take(&out, batch.len()) == batch);
                prop_assert!(tally.encoded_bytes <= batch.len() as u64 * 65 / 64 + 256 * u64::from(lanes));
            }
            for (ours, theirs) in encoder.memories().iter().zip(&destination.lanes) {
                prop_assert_eq!(ours.pages(), theirs.pages());
                prop_assert!(ours.pages() <= terms.pages as usize);
                if terms.window_log.is_none() {
                    // Tables grow by doubling, from a few entries.
                    let most = (u64::from(terms.pages) + 1) * MEMORY_PAGE_BYTES;
                    prop_assert!(ours.held_bytes() <= most && theirs.held_bytes() <= most);
                }
            }
        }
    }

    /// DWCP-73, DWCP-74: parts that were damaged, cut, or come where their lane does not stand are refused or decoded to whole
    /// pages, without a panic and without more memory.
    #[test]
    fn hostile_parts_stay_within_bounds(
        writes in prop::collection::vec((0..PAGES, write()), 1..30),
        effort in effort(),
        damages in prop::collection::vec((any::<u32>(), any::<u8>(), 0u8..3), 0..5),
        stale: bool,
    ) {
        let mut encoder = BatchEncoder::remembering(1, ROOMY);
        let (mut destination, mut guest) = (Destination::new(1, ROOMY), Guest::new());
        let (mut first, mut second) = (EncodedBatch::default(), EncodedBatch::default());
        (0..PAGES).for_each(|page| guest.write(page, &Write::Random(page)));
        let (batch, spans) = guest.batch(&(0..PAGES).collect::<Vec<_>>());
        encoder.encode(&batch, &spans, Effort::Zstd { level: 1 }, &Instant::START, &mut first);
        writes.iter().for_each(|(page, write)| guest.write(*page, write));
        let pages: Vec<u64> = writes.iter().map(|(page, _)| *page).collect();
        let (batch, spans) = guest.batch(&pages);
        if encoder.encode(&batch, &spans, effort, &Instant::START, &mut second) != Choice::Structured {
            return Ok(());
        }
        if !stale {
            destination.take(&first, 24 * (PAGE_BYTES + 8));
        }
        let mut payload = second.parts[0].payload.clone();
        for (at, byte, how) in damages {
            // Headers decide most: half of the damage falls there.
            let at = at as usize % if at % 2 == 0 { payload.len().min(16) } else { payload.len() }.max(1);
            match how {
                0 if at < payload.len() => payload[at] ^= byte,
                1 => payload.truncate(at),
                _ => payload.insert(at.min(payload.len()), byte),
            }
        }
        let mut bodies = Vec::new();
        let memory = &mut destination.lanes[0];
        match destination.decoder.decode(&payload, 66, Some(&mut *memory), &mut bodies) {
            Ok(()) => prop_assert!(bodies.len().is_multiple_of(PAGE_BYTES)),
            Err(error) => prop_assert!(bodies.is_empty() && !error.to_string().is_empty()),
        }
        prop_assert!(memory.held_bytes() <= ROOMY.bytes_max() + 64 * MEMORY_PAGE_BYTES);
        prop_assert!(bodies.capacity() <= 2 * 66 * PAGE_BYTES);
    }
}

/// DWCP-73: a page that the lane does not remember is named.
#[test]
fn a_page_that_was_never_sent_is_refused() {
    // Numbers: one run of one page from 5; kinds: one page of kind 3, what it was.
    let same = [&[1, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0][..], &[10, 1, 1 << 3 | 3]].concat();
    let mut out = Vec::new();
    let mut memory = DecoderMemory::new(TIGHT);
    let refused = LaneDecoder::new().decode(&same, 66, Some(&mut memory), &mut out);
    assert_eq!(refused, Err(PartError::Unknown { page: 5 }));
    assert_eq!(LaneDecoder::new().decode(&same, 66, None, &mut out), Err(PartError::NoMemory));
    let mut window = same.clone();
    window[1] = 4;
    let refused = LaneDecoder::new().decode(&window, 66, Some(&mut memory), &mut out);
    assert_eq!(refused, Err(PartError::NoWindow));
    let mut kind = same;
    *kind.last_mut().unwrap() = 1 << 3 | 7;
    let refused = LaneDecoder::new().decode(&kind, 66, Some(&mut memory), &mut out);
    assert_eq!(refused, Err(PartError::Kind { kind: 7 }));
}

/// DWCP-76: a page is said to be content, and nobody keeps any; where somebody does it is left to be put in.
#[test]
fn a_reference_without_a_store_is_refused() {
    let known = [&[1, 0, 1, 0, 40, 0, 0, 0, 3, 0, 0, 0][..], &[7; 40], &[10, 1, 1 << 3 | 5]].concat();
    let mut out = Vec::new();
    let mut decode = |payload: &[u8], memory: &mut DecoderMemory| {
        LaneDecoder::new().decode(payload, 66, Some(memory), &mut out)
    };
    assert_eq!(decode(&known, &mut DecoderMemory::new(TIGHT)), Err(PartError::NoContent));
    let key = Arc::new(ContentKey::new([3; 32]));
    let mut memory = DecoderMemory::new(TIGHT).with_content(Some(key));
    assert_eq!(decode(&known, &mut memory), Ok(()));
    let hole = Hole { place: 0, fingerprint: u64::from_le_bytes([7; 8]), hash: [7; 32] };
    assert_eq!(memory.take_content().holes, [hole]);
    assert_eq!(memory.pages(), 0, "what was guessed is not remembered");
    let mut short = known.clone();
    short[4] = 39;
    short.remove(20);
    assert_eq!(decode(&short, &mut memory), Err(PartError::BodiesMissing));
}

/// What a part was about is not what the next is about, if that one stands by itself and nobody asked in between.
#[test]
fn a_part_that_stands_by_itself_is_about_no_content() {
    let known = [&[1, 0, 1, 0, 40, 0, 0, 0, 3, 0, 0, 0][..], &[7; 40], &[10, 1, 1 << 3 | 5]].concat();
    let zero_page = [0, 0, 1, 0, 0];
    let mut memory = DecoderMemory::new(TIGHT).with_content(Some(Arc::new(ContentKey::new([3; 32]))));
    let (mut decoder, mut out) = (LaneDecoder::new(), Vec::new());
    for part in [&known[..], &zero_page] {
        assert_eq!(decoder.decode(part, 66, Some(&mut memory), &mut out), Ok(()));
    }
    let content = memory.take_content();
    assert!(content.holes.is_empty() && content.whole.is_empty());
}

/// Pages that were sent before cost next to nothing, random ones included.
#[test]
fn what_did_not_change_is_not_sent_again() {
    let mut guest = Guest::new();
    (0..PAGES).for_each(|page| guest.write(page, &Write::Random(page)));
    let (batch, spans) = guest.batch(&(0..PAGES).collect::<Vec<_>>());
    let mut encoder = BatchEncoder::remembering(2, ROOMY);
    let mut out = EncodedBatch::default();
    for round in 0..3 {
        let choice = encoder.encode(&batch, &spans, Effort::Lz4, &Instant::START, &mut out);
        assert_eq!(choice, Choice::Structured);
        assert!(
            out.tally.encoded_bytes < if round == 0 { batch.len() as u64 } else { 400 },
            "{:?}",
            out.tally
        );
    }
    assert_eq!(out.tally.unchanged_pages, PAGES as u32);
}

/// What a program receives it copies: random bytes stand in a buffer of its system and, moved, in its own memory. The window finds
/// them, and a part that seems to be of nothing but random bytes is no reason to keep them from it.
#[test]
fn random_bytes_that_were_copied_elsewhere_are_found() {
    const MOVED: usize = 100;
    let mut guest = Guest::new();
    let (buffers, copies): (Vec<u64>, Vec<u64>) = (0..PAGES).partition(|page| page % 2 == 0);
    for page in &buffers {
        guest.write(*page, &Write::Random(*page));
        let mut copy = guest.pages[*page as usize].clone();
        copy.rotate_left(MOVED);
        guest.pages[*page as usize + 1] = copy;
    }
    let effort = Effort::Zstd { level: 3 };
    let (mut encoder, mut destination) = (BatchEncoder::remembering(1, ROOMY), Destination::new(1, ROOMY));
    let mut sizes = Vec::new();
    for pages in [&buffers, &copies] {
        let (batch, spans) = guest.batch(pages);
        let mut out = EncodedBatch::default();
        assert_eq!(encoder.encode(&batch, &spans, effort, &Instant::START, &mut out), Choice::Structured);
        assert!(destination.take(&out, batch.len()) == batch);
        sizes.push(out.tally.encoded_bytes);
    }
    assert!(sizes[1] < sizes[0] / 10, "{sizes:?}");
}
