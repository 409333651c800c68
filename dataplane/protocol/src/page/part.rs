//! A part: the page bodies of one batch that belong to one lane, in batch order.
//!
//! ```text
//!  layout  u8         0; 1 refers to earlier parts of the lane (`remembered.rs`)
//!  codec   u8         of the block
//!  count   u16        pages; little-endian as everywhere on the wire
//!  present count bits, from bit 0 of the first byte; 0: the page is zero; padded with zero bits
//!  block              the present pages together; decodes to 4096 bytes each
//! ```

use std::fmt;

use super::block::{BlockError, Codec, Decompressor};
use super::memory::DecoderMemory;
use super::remembered::{self, MemoryHeader};
use crate::limits::{BATCH_PAGES_MAX, PAGE_BYTES};

/// The layout of parts that stand by themselves.
const LAYOUT: u8 = 0;
/// The layout of parts that refer to earlier ones.
pub(super) const MEMORY_LAYOUT: u8 = 1;
const HEADER_BYTES: usize = 4;

/// Why a part could not be decoded. Nothing of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartError {
    /// The payload ends within its header or bitmap.
    Short {
        /// Bytes that are there.
        len: usize,
        /// Bytes that the header needs.
        needed: usize,
    },
    /// The layout is reserved: the peer is newer, or the bytes are not a part.
    Layout {
        /// The layout.
        layout: u8,
    },
    /// No page, or more than allowed.
    Count {
        /// Pages declared.
        count: usize,
        /// Most that are allowed here.
        max: usize,
    },
    /// A bit beyond the last page is set.
    Padding,
    /// The block of bodies.
    Block(BlockError),
    /// It refers to earlier parts, and the session agreed on none being remembered.
    NoMemory,
    /// It belongs to a window, and the lane has none.
    NoWindow,
    /// Its block does not go on where the lane's window stands, or not to the declared bytes.
    Window {
        /// Declared decoded bytes.
        decoded: usize,
    },
    /// The numbers or kinds of its pages.
    Control,
    /// A page of a kind that is reserved.
    Kind {
        /// The kind.
        kind: u8,
    },
    /// A page that the lane does not remember is said to be what it was.
    Unknown {
        /// The page's number.
        page: u64,
    },
    /// A page is a reference to content, and the session agreed on no store.
    NoContent,
    /// The difference of a page leaves it, or is no difference.
    Delta {
        /// The page's number.
        page: u64,
    },
    /// Page bodies are missing.
    BodiesMissing,
    /// Bytes are left over.
    Left {
        /// Bytes left.
        bytes: usize,
    },
}

impl fmt::Display for PartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { len, needed } => {
                write!(f, "a part of {len} bytes ends within its {needed}-byte header")
            }
            Self::Layout { layout } => write!(f, "part layout {layout} is unknown to this build"),
            Self::Count { count, max } => write!(f, "a part of {count} pages where 1 to {max} are allowed"),
            Self::Padding => f.write_str("a part's bitmap marks pages beyond its last"),
            Self::Block(_) => f.write_str("a part's bodies cannot be decoded"),
            Self::NoMemory => f.write_str("a part refers to earlier ones, which nobody was to remember"),
            Self::NoWindow => f.write_str("a part belongs to a zstd window, and its lane has none"),
            Self::Window { decoded } => {
                write!(f, "a part does not continue its lane's window to {decoded} bytes")
            }
            Self::Control => f.write_str("a part does not say which pages it holds, or what becomes of them"),
            Self::Kind { kind } => {
                write!(f, "a part holds a page of kind {kind}, which is unknown to this build")
            }
            Self::Unknown { page } => {
                write!(f, "a part refers to page {page:#x}, which its lane does not remember")
            }
            Self::NoContent => f.write_str("a part refers to a content store, and the session has none"),
            Self::Delta { page } => write!(f, "the difference of page {page:#x} is none"),
            Self::BodiesMissing => f.write_str("a part lacks bytes of its pages"),
            Self::Left { bytes } => write!(f, "{bytes} bytes of a part are left over"),
        }
    }
}

impl std::error::Error for PartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Block(error) => Some(error),
            _ => None,
        }
    }
}

/// What a part says about itself before anything is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// Pages, zero ones included: the part decodes to `count * 4096` bytes.
    pub count: usize,
}

/// The same of a part that stands by itself.
struct Alone {
    /// Codec of the present bodies.
    codec: Codec,
    count: usize,
    /// Pages that are not zero: the block decodes to `present * 4096` bytes.
    present: usize,
}

impl Alone {
    /// Reads the header and bitmap of `payload`; returns the header, the bitmap and the block.
    fn split(payload: &[u8]) -> Result<(Self, &[u8], &[u8]), PartError> {
        let short = |needed| PartError::Short { len: payload.len(), needed };
        let (&[layout, codec, low, high], rest) =
            payload.split_first_chunk::<HEADER_BYTES>().ok_or(short(HEADER_BYTES))?;
        if layout != LAYOUT {
            return Err(PartError::Layout { layout });
        }
        let codec = Codec::from_id(codec).ok_or(PartError::Block(BlockError::Codec { id: codec }))?;
        let count = usize::from(u16::from_le_bytes([low, high]));
        if count == 0 || count > BATCH_PAGES_MAX {
            return Err(PartError::Count { count, max: BATCH_PAGES_MAX });
        }
        let bitmap_bytes = count.div_ceil(8);
        let (bitmap, block) =
            rest.split_at_checked(bitmap_bytes).ok_or(short(HEADER_BYTES + bitmap_bytes))?;
        if (count..bitmap_bytes * 8).any(|page| is_present(bitmap, page)) {
            return Err(PartError::Padding);
        }
        let present = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
        Ok((Self { codec, count, present }, bitmap, block))
    }
}

impl PartHeader {
    /// Reads the header of a part's payload.
    pub fn parse(payload: &[u8]) -> Result<Self, PartError> {
        let count = match payload.first() {
            Some(&MEMORY_LAYOUT) => MemoryHeader::split(payload)?.0.count,
            _ => Alone::split(payload)?.0.count,
        };
        Ok(Self { count })
    }
}

fn is_present(bitmap: &[u8], page: usize) -> bool {
    bitmap[page / 8] & (1 << (page % 8)) != 0
}

/// Writes a part's header and bitmap, the codec still open; the block follows, then [`set_codec`].
pub(super) fn begin_part(out: &mut Vec<u8>, count: u16, present: impl Iterator<Item = bool>) {
    out.extend_from_slice(&[LAYOUT, Codec::Raw.id()]);
    out.extend_from_slice(&count.to_le_bytes());
    let bitmap = out.len();
    out.resize(bitmap + usize::from(count).div_ceil(8), 0);
    for (page, _) in present.enumerate().filter(|(_, present)| *present) {
        out[bitmap + page / 8] |= 1 << (page % 8);
    }
}

/// Names the codec of the block of the part in `out`.
pub(super) fn set_codec(out: &mut [u8], codec: Codec) {
    out[1] = codec.id();
}

/// Decodes parts; owns what codecs need between calls. Serves any number of lanes: what a lane remembers is all in the call.
pub struct LaneDecoder {
    decompressor: Decompressor,
    scratch: Vec<u8>,
}

impl Default for LaneDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl LaneDecoder {
    /// A decoder.
    pub fn new() -> Self {
        Self { decompressor: Decompressor::new(), scratch: Vec::new() }
    }

    /// Replaces `out` by the bodies of the part `payload`, zero pages included, 4096 bytes each.
    ///
    /// A part of more than `bodies_max` pages (or than a batch can hold) is refused before any allocation or
    /// decoding (DWCP-50). One that refers to earlier parts of its lane needs the lane's memory, and changes it; where it refers to the content store
    /// the body is left zero, and [`DecoderMemory::take_content`] says what belongs there. After an
    /// error `out` holds nothing, and the lane is not to be decoded any further.
    pub fn decode(
        &mut self,
        payload: &[u8],
        bodies_max: usize,
        mut memory: Option<&mut DecoderMemory>,
        out: &mut Vec<u8>,
    ) -> Result<(), PartError> {
        if let Some(memory) = memory.as_deref_mut() {
            // Also for a part that stands by itself: what an earlier one was about is not about this one.
            memory.last = Default::default();
        }
        let result = match payload.first() {
            Some(&MEMORY_LAYOUT) => self.recall(payload, bodies_max, memory, out),
            _ => self.decode_alone(payload, bodies_max, out),
        };
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn recall(
        &mut self,
        payload: &[u8],
        bodies_max: usize,
        memory: Option<&mut DecoderMemory>,
        out: &mut Vec<u8>,
    ) -> Result<(), PartError> {
        let memory = memory.ok_or(PartError::NoMemory)?;
        let count = MemoryHeader::split(payload)?.0.count;
        if count > bodies_max {
            return Err(PartError::Count { count, max: bodies_max });
        }
        remembered::read(&mut self.decompressor, payload, memory, &mut self.scratch, out)
    }

    fn decode_alone(
        &mut self,
        payload: &[u8],
        bodies_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), PartError> {
        let (Alone { codec, count, present }, bitmap, block) = Alone::split(payload)?;
        if count > bodies_max {
            return Err(PartError::Count { count, max: bodies_max });
        }
        // No clear() first: what is already there is overwritten, only growth is filled.
        out.resize(count * PAGE_BYTES, 0);
        self.decompressor.decode(codec, block, &mut out[..present * PAGE_BYTES]).map_err(PartError::Block)?;
        // From the last page back, so that each body moves up before its place is taken.
        let mut bodies = present;
        for page in (0..count).rev() {
            if bodies == page + 1 {
                break; // All pages from here down are present and in place.
            }
            let to = page * PAGE_BYTES;
            if is_present(bitmap, page) {
                bodies -= 1;
                out.copy_within(bodies * PAGE_BYTES..(bodies + 1) * PAGE_BYTES, to);
            } else {
                out[to..to + PAGE_BYTES].fill(0);
            }
        }
        Ok(())
    }
}

/// The decoded bodies of one lane's part, taken one after the other while a batch is assembled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bodies<'a> {
    rest: &'a [u8],
}

impl<'a> Bodies<'a> {
    /// The bodies that [`LaneDecoder::decode`] left in `bytes`; of a lane without a part: none.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next body.
    pub fn take(&mut self) -> Option<&'a [u8; PAGE_BYTES]> {
        let (body, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(body)
    }

    /// Bytes not yet taken.
    pub fn remaining_bytes(&self) -> usize {
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(pages: &[bool]) -> (Vec<u8>, Vec<u8>) {
        let (mut payload, mut bodies) = (Vec::new(), Vec::new());
        begin_part(&mut payload, pages.len() as u16, pages.iter().copied());
        for (i, present) in pages.iter().enumerate() {
            let body = [if *present { i as u8 + 1 } else { 0 }; PAGE_BYTES];
            bodies.extend_from_slice(&body);
            if *present {
                payload.extend_from_slice(&body);
            }
        }
        (payload, bodies)
    }

    #[test]
    fn zero_pages_come_back_in_their_places() {
        let mut decoder = LaneDecoder::new();
        let mut out = vec![0xaa; 7];
        for count in [1, 2, 7, 8, 9, 10] {
            for pattern in 0..1u32 << count {
                let pages: Vec<bool> = (0..count).map(|i| pattern & (1 << i) != 0).collect();
                let (payload, bodies) = part(&pages);
                decoder.decode(&payload, count, None, &mut out).unwrap();
                assert!(out == bodies, "pattern {pattern:b} of {count}");
            }
        }
    }

    // DWCP-50
    #[test]
    fn bounds_hold_before_any_allocation() {
        let mut decoder = LaneDecoder::new();
        let mut out = Vec::new();
        let (payload, _) = part(&[false; 9]);
        let refused = decoder.decode(&payload, 8, None, &mut out);
        assert_eq!(refused, Err(PartError::Count { count: 9, max: 8 }));
        let many = [&[0, 0, 0xff, 0xff][..], &[0; 8192]].concat();
        let refused = decoder.decode(&many, usize::MAX, None, &mut out);
        assert_eq!(refused, Err(PartError::Count { count: 65535, max: BATCH_PAGES_MAX }));
        assert_eq!(out.capacity(), 0);
    }

    // DWCP-50
    #[test]
    fn malformed_parts_are_named() {
        let refused = |bytes: &[u8]| PartHeader::parse(bytes).unwrap_err();
        assert_eq!(refused(&[0, 0, 0]), PartError::Short { len: 3, needed: 4 });
        assert_eq!(refused(&[2, 0, 1, 0, 1]), PartError::Layout { layout: 2 });
        assert_eq!(refused(&[1, 0, 1, 0, 1]), PartError::Short { len: 5, needed: 12 });
        assert_eq!(refused(&[0, 3, 1, 0, 1]), PartError::Block(BlockError::Codec { id: 3 }));
        assert_eq!(refused(&[0, 0, 0, 0]), PartError::Count { count: 0, max: BATCH_PAGES_MAX });
        assert_eq!(refused(&[0, 0, 9, 0, 1]), PartError::Short { len: 5, needed: 6 });
        assert_eq!(refused(&[0, 0, 1, 0, 2]), PartError::Padding);
        let mut out = vec![1; 9];
        let cut = LaneDecoder::new().decode(&[0, 0, 1, 0, 1, 5], 1, None, &mut out);
        assert_eq!(
            cut,
            Err(PartError::Block(BlockError::Length { codec: Codec::Raw, encoded: 1, decoded: PAGE_BYTES }))
        );
        assert!(out.is_empty());
    }
}
