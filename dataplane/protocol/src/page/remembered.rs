//! A part that refers to earlier ones of its lane.
//!
//! ```text
//!  layout   u8         1
//!  codec    u8         of the block; 3 and 4: zstd in the lane's window
//!  count    u16        pages; little-endian as everywhere on the wire
//!  bodies   u32        decoded bytes
//!  control  u32        decoded bytes
//!  block               bodies, then control, together
//!
//!  control  = numbers (which pages) ++ kinds (what becomes of each) ++ positions (of what differs)
//! ```
//!
//! A page is zero, one word repeated, itself, what it was when the lane last carried it, that with some runs of bytes changed, or
//! something that the far side's content store is believed to hold.

use super::block::{Codec, Compressor, Decompressor};
use super::content::{Hole, REFERENCE_BYTES, Referred};
use super::delta::{DeltaError, Runs, apply};
use super::encode::Tally;
use super::memory::{DecoderMemory, EncoderMemory};
use super::ops::{OpError, put, take};
use super::part::{MEMORY_LAYOUT, PartError};
use super::plan::PageBody;
use super::sample::Sampler;
use super::{BlockError, Effort};
use crate::limits::{
    BATCH_LEN_MAX, BATCH_PAGES_MAX, PAGE_BYTES, PART_BYTES_MAX, PART_PAGE_BYTES_MAX, WINDOW_LEVEL_MIN,
};
use crate::time::Clock;
use novacron_kernels::{NO_BYTE, Page, differences, repeated_word};

pub(super) const HEADER_BYTES: usize = 12;

/// A zstd frame of the lane's window begins with this block.
const WINDOW_BEGINS: u8 = 3;
/// The block goes on in the lane's window.
const WINDOW_GOES_ON: u8 = 4;

/// Blocks with fewer bytes than this are not worth a sample: most of them are positions and small differences.
const SAMPLED_FROM_BYTES: usize = 2 * PAGE_BYTES;

/// What becomes of a page; numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zero = 0,
    Word = 1,
    Whole = 2,
    Same = 3,
    Delta = 4,
    Known = 5,
}

impl Kind {
    const BITS: u32 = 3;

    fn from_wire(wire: u64) -> Option<Kind> {
        [Kind::Zero, Kind::Word, Kind::Whole, Kind::Same, Kind::Delta, Kind::Known]
            .into_iter()
            .find(|kind| *kind as u64 == wire)
    }
}

/// Writes such parts; keeps its buffers from one to the next.
pub(super) struct MemoryWriter {
    bodies: Vec<u8>,
    numbers: Vec<u8>,
    kinds: Vec<u8>,
    positions: Vec<u8>,
    runs: Runs,
    sampler: Sampler,
}

impl MemoryWriter {
    pub(super) fn new() -> Self {
        Self {
            bodies: Vec::new(),
            numbers: Vec::new(),
            kinds: Vec::new(),
            positions: Vec::new(),
            runs: Runs::default(),
            sampler: Sampler::new(),
        }
    }

    /// Appends to `out` the part of these pages of `batch`. From now on `memory` holds what the far side will when it has
    /// decoded it: the part must be sent, in this order.
    pub(super) fn write(
        &mut self,
        compressor: &mut Compressor,
        (batch, pages): (&[u8], &[PageBody]),
        effort: Effort,
        memory: &mut EncoderMemory,
        clock: &impl Clock,
        out: &mut Vec<u8>,
    ) -> Tally {
        let began = clock.now();
        let mut tally = Tally::default();
        self.describe(batch, pages, memory, &mut tally);
        let (header, bodies) = (out.len(), self.bodies.len());
        for control in [&self.numbers, &self.kinds, &self.positions] {
            self.bodies.extend_from_slice(control);
        }
        let control = self.bodies.len() - bodies;
        debug_assert!(self.bodies.len() <= pages.len() * PART_PAGE_BYTES_MAX);
        let compared = clock.now();
        tally.memory_ns = nanoseconds(compared.since(began));

        out.extend_from_slice(&[MEMORY_LAYOUT, Codec::Raw.id()]);
        // A batch holds fewer pages than 16 bits count, and fewer bytes than 32 (asserted in limits).
        out.extend_from_slice(&(pages.len() as u16).to_le_bytes());
        out.extend_from_slice(&(bodies as u32).to_le_bytes());
        out.extend_from_slice(&(control as u32).to_le_bytes());
        let codec = self.compress(compressor, bodies, effort, memory, out);
        out[header + 1] = codec;
        let whole = u64::from(tally.whole_pages) * PAGE_BYTES as u64;
        *match codec {
            0 => &mut tally.raw_bytes,
            1 => &mut tally.lz4_bytes,
            _ => &mut tally.zstd_bytes,
        } += whole;
        let ns = nanoseconds(clock.now().since(compared));
        *match codec {
            0 => &mut tally.raw_ns,
            1 => &mut tally.lz4_ns,
            _ => &mut tally.zstd_ns,
        } += ns;
        tally.encoded_bytes = (out.len() - header) as u64;
        tally
    }

    /// What becomes of each page, into the buffers.
    fn describe(&mut self, batch: &[u8], pages: &[PageBody], memory: &mut EncoderMemory, tally: &mut Tally) {
        for buffer in [&mut self.bodies, &mut self.numbers, &mut self.kinds, &mut self.positions] {
            buffer.clear();
        }
        memory.last = Default::default();
        let (mut expected, mut run) = (0u64, 0u64);
        let mut kinds: (Kind, u64) = (Kind::Zero, 0);
        let mut mask = NO_BYTE;
        for (place, PageBody { at, page }) in pages.iter().enumerate() {
            let next = pages.get(place + 1);
            run += 1;
            if next.is_none_or(|next| next.page != page.wrapping_add(1)) {
                let first = page.wrapping_sub(run - 1);
                let delta = first.wrapping_sub(expected) as i64;
                put(&mut self.numbers, ((delta << 1) ^ (delta >> 63)) as u64);
                put(&mut self.numbers, run);
                (expected, run) = (page.wrapping_add(1), 0);
            }
            // A body that the batch does not hold whole counts as a zero page; the batch's digest would tell.
            let body = batch.get(*at as usize..).and_then(|rest| rest.first_chunk::<PAGE_BYTES>());
            let kind = match body {
                Some(body) => self.describe_page((place as u16, *page), body, memory, &mut mask),
                None => Kind::Zero,
            };
            if kinds.0 != kind && kinds.1 > 0 {
                put(&mut self.kinds, (kinds.1 << Kind::BITS) | kinds.0 as u64);
                kinds.1 = 0;
            }
            kinds = (kind, kinds.1 + 1);
            match kind {
                Kind::Zero => tally.zero_pages += 1,
                Kind::Word => tally.uniform_pages += 1,
                Kind::Whole => tally.whole_pages += 1,
                Kind::Same => tally.unchanged_pages += 1,
                Kind::Delta => tally.delta_pages += 1,
                Kind::Known => tally.known_pages += 1,
            }
        }
        if kinds.1 > 0 {
            put(&mut self.kinds, (kinds.1 << Kind::BITS) | kinds.0 as u64);
        }
        tally.pages = pages.len() as u32 - tally.zero_pages;
        tally.regenerated_bytes = u64::from(tally.zero_pages) * PAGE_BYTES as u64;
    }

    fn describe_page(
        &mut self,
        (place, number): (u16, u64),
        body: &Page,
        memory: &mut EncoderMemory,
        mask: &mut [u64; PAGE_BYTES / 64],
    ) -> Kind {
        if let Some(word) = repeated_word(body) {
            if word == [0; 8] {
                return Kind::Zero;
            }
            self.bodies.extend_from_slice(&word);
            return Kind::Word;
        }
        let last = memory.store.sent(number);
        if let Some(last) = last {
            if differences(last, body, mask) == 0 {
                return Kind::Same;
            }
            if self.runs.find(mask) {
                self.runs.write(body, last, &mut self.positions, &mut self.bodies);
                return Kind::Delta;
            }
        }
        if let Some(known) = &memory.content {
            let (fingerprint, hash) = known.find(body);
            if let Some(hash) = hash {
                self.bodies.extend_from_slice(&fingerprint.to_le_bytes());
                self.bodies.extend_from_slice(&hash);
                memory.last.referred.push(Referred { place, fingerprint, page: Box::new(*body) });
                return Kind::Known;
            }
            memory.last.carried.push(fingerprint);
        }
        // It was counted above; this only looks it up again, for a page that is copied and compressed.
        match memory.store.last(number) {
            Some(last) => *last = *body,
            None => memory.store.keep(number, body),
        }
        self.bodies.extend_from_slice(body);
        Kind::Whole
    }

    /// Appends the block, of which the first `bodies` bytes are bodies; returns the codec's number.
    fn compress(
        &mut self,
        compressor: &mut Compressor,
        bodies: usize,
        effort: Effort,
        memory: &mut EncoderMemory,
        out: &mut Vec<u8>,
    ) -> u8 {
        let block = &self.bodies;
        // Whatever it looks like: random bytes come again, in a page that they were copied to, and are found only in a window that
        // has them.
        if let (Effort::Zstd { level }, Some(window)) = (effort, &mut memory.window)
            && level >= WINDOW_LEVEL_MIN
            && let Some(begins) = window.append(block, level, out)
        {
            return if begins { WINDOW_BEGINS } else { WINDOW_GOES_ON };
        }
        if bodies >= SAMPLED_FROM_BYTES && !self.sampler.compressible(&block[..bodies], effort) {
            out.extend_from_slice(block);
            return Codec::Raw.id();
        }
        compressor.append(block, effort, out).id()
    }
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What such a part says about itself before anything is allocated for it.
#[derive(Clone, Copy)]
pub(super) struct MemoryHeader {
    pub(super) count: usize,
    codec: u8,
    bodies: usize,
    control: usize,
}

impl MemoryHeader {
    /// Reads the header of a payload whose layout byte said that it is such a part; returns the block, too.
    pub(super) fn split(payload: &[u8]) -> Result<(Self, &[u8]), PartError> {
        let short = PartError::Short { len: payload.len(), needed: HEADER_BYTES };
        let (header, block) = payload.split_first_chunk::<HEADER_BYTES>().ok_or(short)?;
        let [_, codec, low, high, sizes @ ..] = *header;
        let count = usize::from(u16::from_le_bytes([low, high]));
        if count == 0 || count > BATCH_PAGES_MAX {
            return Err(PartError::Count { count, max: BATCH_PAGES_MAX });
        }
        let (sizes, _) = sizes.as_chunks::<4>();
        let [bodies, control] = [0, 1].map(|i| u32::from_le_bytes(sizes[i]) as usize);
        let (decoded, max) = (bodies.saturating_add(control), count * PART_PAGE_BYTES_MAX);
        if decoded > max {
            return Err(PartError::Block(BlockError::TooLong { decoded, max }));
        }
        Ok((Self { count, codec, bodies, control }, block))
    }
}

/// Decodes such a part into `out`, and remembers it; `scratch` is a buffer.
pub(super) fn read(
    decompressor: &mut Decompressor,
    payload: &[u8],
    memory: &mut DecoderMemory,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), PartError> {
    let (header, block) = MemoryHeader::split(payload)?;
    let decoded = header.bodies + header.control;
    let block = match header.codec {
        0 if block.len() == decoded => block,
        WINDOW_BEGINS | WINDOW_GOES_ON => {
            let window = memory.window.as_mut().ok_or(PartError::NoWindow)?;
            let scratch = room(scratch, decoded);
            let begins = header.codec == WINDOW_BEGINS;
            window.decode(block, begins, scratch).ok_or(PartError::Window { decoded })?;
            scratch
        }
        id => {
            let codec = Codec::from_id(id).ok_or(PartError::Block(BlockError::Codec { id }))?;
            if decoded > BATCH_LEN_MAX {
                let error = BlockError::TooLong { decoded, max: BATCH_LEN_MAX };
                return Err(PartError::Block(error));
            }
            let scratch = room(scratch, decoded);
            decompressor.decode(codec, block, scratch).map_err(PartError::Block)?;
            scratch
        }
    };
    let (bodies, control) = block.split_at(header.bodies);
    out.clear();
    out.reserve_exact(header.count * PAGE_BYTES);
    recall(header.count, bodies, control, memory, out)
}

/// So many bytes of a buffer, which only grows: filling it anew each time would cost as much as what is put into it.
fn room(scratch: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if scratch.len() < bytes {
        scratch.resize(bytes, 0);
    }
    &mut scratch[..bytes]
}

/// Appends the `count` pages that `bodies` and `control` describe.
fn recall(
    count: usize,
    mut bodies: &[u8],
    mut control: &[u8],
    memory: &mut DecoderMemory,
    out: &mut Vec<u8>,
) -> Result<(), PartError> {
    let mut numbers = [0u64; BATCH_PAGES_MAX];
    let numbers = numbers.get_mut(..count).ok_or(PartError::Control)?;
    read_numbers(&mut control, numbers).map_err(|_| PartError::Control)?;
    let mut kinds = [Kind::Zero; BATCH_PAGES_MAX];
    let kinds = kinds.get_mut(..count).ok_or(PartError::Control)?;
    read_kinds(&mut control, kinds)?;
    for ((place, number), kind) in (0u16..).zip(numbers.iter()).zip(kinds) {
        let unknown = PartError::Unknown { page: *number };
        match kind {
            Kind::Zero => out.resize(out.len() + PAGE_BYTES, 0),
            Kind::Word => {
                let (word, rest) = bodies.split_first_chunk::<8>().ok_or(PartError::BodiesMissing)?;
                (0..PAGE_BYTES / 8).for_each(|_| out.extend_from_slice(word));
                bodies = rest;
            }
            Kind::Whole => {
                let (body, rest) =
                    bodies.split_first_chunk::<PAGE_BYTES>().ok_or(PartError::BodiesMissing)?;
                match memory.store.sent(*number) {
                    Some(last) => *last = *body,
                    None => memory.store.keep(*number, body),
                }
                if let Some(key) = &memory.content {
                    memory.last.whole.push((place, key.fingerprint(body)));
                }
                out.extend_from_slice(body);
                bodies = rest;
            }
            Kind::Known => {
                if memory.content.is_none() {
                    return Err(PartError::NoContent);
                }
                let (reference, rest) =
                    bodies.split_first_chunk::<REFERENCE_BYTES>().ok_or(PartError::BodiesMissing)?;
                let (fingerprint, hash) = (reference.first_chunk::<8>(), reference.last_chunk::<32>());
                let (Some(fingerprint), Some(hash)) = (fingerprint, hash) else {
                    return Err(PartError::BodiesMissing);
                };
                let fingerprint = u64::from_le_bytes(*fingerprint);
                memory.store.sent(*number);
                memory.last.holes.push(Hole { place, fingerprint, hash: *hash });
                out.resize(out.len() + PAGE_BYTES, 0);
                bodies = rest;
            }
            Kind::Same => out.extend_from_slice(memory.store.sent(*number).ok_or(unknown)?),
            Kind::Delta => {
                let last = memory.store.sent(*number).ok_or(unknown)?;
                apply(last, &mut control, &mut bodies).map_err(|error| match error {
                    DeltaError::Bytes => PartError::BodiesMissing,
                    DeltaError::Position(_) | DeltaError::Run => PartError::Delta { page: *number },
                })?;
                out.extend_from_slice(last);
            }
        }
    }
    let left = bodies.len() + control.len();
    if left > 0 { Err(PartError::Left { bytes: left }) } else { Ok(()) }
}

fn read_numbers(control: &mut &[u8], numbers: &mut [u64]) -> Result<(), OpError> {
    let (mut expected, mut at) = (0u64, 0usize);
    while at < numbers.len() {
        let zigzag = take(control)?;
        let mut number = expected.wrapping_add((zigzag >> 1) ^ (zigzag & 1).wrapping_neg());
        let run = take(control)?;
        if run == 0 || run > (numbers.len() - at) as u64 {
            return Err(OpError::Empty);
        }
        for place in &mut numbers[at..at + run as usize] {
            *place = number;
            number = number.wrapping_add(1);
        }
        (expected, at) = (number, at + run as usize);
    }
    Ok(())
}

fn read_kinds(control: &mut &[u8], kinds: &mut [Kind]) -> Result<(), PartError> {
    let mut at = 0usize;
    while at < kinds.len() {
        let run = take(control).map_err(|_| PartError::Control)?;
        let wire = run & ((1 << Kind::BITS) - 1);
        let kind = Kind::from_wire(wire).ok_or(PartError::Kind { kind: wire as u8 })?;
        let count = run >> Kind::BITS;
        if count == 0 || count > (kinds.len() - at) as u64 {
            return Err(PartError::Control);
        }
        kinds[at..at + count as usize].fill(kind);
        at += count as usize;
    }
    Ok(())
}

const _: () = assert!(BATCH_PAGES_MAX * PART_PAGE_BYTES_MAX <= PART_BYTES_MAX);
