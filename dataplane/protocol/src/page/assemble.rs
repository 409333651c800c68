//! The index payload, and a batch put together from it and its parts.
//!
//! ```text
//!  layout          u8      0; others are reserved
//!  ops codec       u8
//!  literals codec  u8
//!  reserved        u8      0
//!  ops bytes       u32     decoded; little-endian as everywhere on the wire
//!  ops encoded     u32
//!  literals bytes  u32     decoded; their encoded form is the rest of the payload
//!  ops, literals           two blocks
//! ```

use std::fmt;

use super::Effort;
use super::block::{BlockError, Codec, Compressor, Decompressor};
use super::lane::{LaneId, lane_of};
use super::ops::{Op, OpError, OpReader, RunKind};
use super::part::Bodies;
use crate::limits::{BATCH_LEN_MAX, PAGE_BYTES};
use bytes::{BufMut, BytesMut};

const LAYOUT: u8 = 0;
const HEADER_BYTES: usize = 16;

/// Why a batch could not be assembled. Nothing of it may be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexError {
    /// The batch is said to be longer than a batch may be.
    BatchTooLong {
        /// Bytes declared.
        len: usize,
    },
    /// The payload ends within its header or operations.
    Short {
        /// Bytes that are there.
        len: usize,
        /// Bytes that are needed.
        needed: usize,
    },
    /// The layout is reserved: the peer is newer, or the bytes are not an index.
    Layout {
        /// The layout.
        layout: u8,
    },
    /// The block of operations.
    Ops(BlockError),
    /// The block of literals.
    Literals(BlockError),
    /// An operation.
    Op(OpError),
    /// An operation would write beyond the batch.
    Overrun {
        /// Bytes of the batch.
        batch: usize,
    },
    /// The operations end before the batch does.
    Incomplete {
        /// Bytes written.
        written: usize,
        /// Bytes of the batch.
        batch: usize,
    },
    /// A literal needs more literal bytes than there are.
    LiteralsMissing,
    /// Literal bytes are left over.
    LiteralsLeft {
        /// Bytes left.
        bytes: usize,
    },
    /// A lane has too few bodies.
    BodyMissing {
        /// The lane.
        lane: LaneId,
    },
    /// A lane has bodies left over.
    BodiesLeft {
        /// The lane.
        lane: LaneId,
        /// Bytes left.
        bytes: usize,
    },
    /// More lanes than can be numbered, or none.
    Lanes {
        /// Lanes given.
        lanes: usize,
    },
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BatchTooLong { len } => {
                write!(f, "a batch of {len} bytes where {BATCH_LEN_MAX} are allowed")
            }
            Self::Short { len, needed } => write!(f, "an index of {len} bytes where {needed} are needed"),
            Self::Layout { layout } => write!(f, "index layout {layout} is unknown to this build"),
            Self::Ops(_) => f.write_str("an index's operations cannot be decoded"),
            Self::Literals(_) => f.write_str("an index's literals cannot be decoded"),
            Self::Op(_) => f.write_str("an index holds a malformed operation"),
            Self::Overrun { batch } => write!(f, "an operation writes beyond the batch of {batch} bytes"),
            Self::Incomplete { written, batch } => {
                write!(f, "the operations make {written} bytes of a batch of {batch}")
            }
            Self::LiteralsMissing => f.write_str("a literal is longer than the literal bytes that are left"),
            Self::LiteralsLeft { bytes } => write!(f, "{bytes} literal bytes are left over"),
            Self::BodyMissing { lane } => write!(f, "lane {} lacks a page body", lane.0),
            Self::BodiesLeft { lane, bytes } => {
                write!(f, "lane {} has {bytes} bytes of page bodies left over", lane.0)
            }
            Self::Lanes { lanes } => write!(f, "{lanes} lanes where 1 to {} are allowed", u16::MAX),
        }
    }
}

impl std::error::Error for IndexError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ops(error) | Self::Literals(error) => Some(error),
            Self::Op(error) => Some(error),
            _ => None,
        }
    }
}

/// Appends to `out` an index of these operations and literals; returns the codec of the literals.
///
/// Neither block may be longer than a batch.
pub(super) fn write_index(
    compressor: &mut Compressor,
    effort: Effort,
    ops: &[u8],
    literals: &[u8],
    out: &mut Vec<u8>,
) -> Codec {
    let began = out.len();
    let blocks = began + HEADER_BYTES;
    out.resize(blocks, 0);
    let ops_codec = compressor.append(ops, effort, out);
    let ops_encoded = out.len() - blocks;
    let literals_codec = compressor.append(literals, effort, out);
    let header = &mut out[began..blocks];
    header[..4].copy_from_slice(&[LAYOUT, ops_codec.id(), literals_codec.id(), 0]);
    for (field, value) in [ops.len(), ops_encoded, literals.len()].into_iter().enumerate() {
        header[4 + field * 4..][..4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    literals_codec
}

/// Puts batches together; owns what codecs need between calls. Serves any number of connections.
pub struct Assembler {
    decompressor: Decompressor,
    ops: Vec<u8>,
    literals: Vec<u8>,
}

impl Default for Assembler {
    fn default() -> Self {
        Self::new()
    }
}

/// An index with its blocks decoded.
struct Opened<'a> {
    ops: OpReader<'a>,
    literals: &'a [u8],
}

impl Assembler {
    /// An assembler.
    pub fn new() -> Self {
        Self { decompressor: Decompressor::new(), ops: Vec::new(), literals: Vec::new() }
    }

    /// Replaces `out` by the batch of `batch_len` bytes that `index` describes; bodies come from `parts`, one
    /// entry a lane of the session, empty where the batch has no part on that lane.
    ///
    /// After an error `out` holds nothing. The result is exactly `batch_len` bytes, and every body and literal was
    /// used (DWCP-51); whether it is what the source wrote is for the batch's digest to say.
    pub fn assemble(
        &mut self,
        index: &[u8],
        parts: &mut [Bodies<'_>],
        batch_len: usize,
        out: &mut BytesMut,
    ) -> Result<(), IndexError> {
        out.clear();
        let result = self.splice(index, parts, batch_len, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    /// Counts the bodies that `index` needs, by lane, into `counts` (one entry a lane of the session): which parts
    /// a batch waits for, and the `bodies_max` of each.
    pub fn bodies_by_lane(
        &mut self,
        index: &[u8],
        batch_len: usize,
        counts: &mut [u32],
    ) -> Result<(), IndexError> {
        counts.fill(0);
        let lanes = lane_count(counts.len())?;
        let opened = self.open(index, batch_len)?;
        let mut written = 0;
        for op in opened.ops {
            let op = op.map_err(IndexError::Op)?;
            written += op_bytes(op, batch_len - written).ok_or(IndexError::Overrun { batch: batch_len })?;
            if let Op::Run { kind: RunKind::Pages | RunKind::Bodies, first_word, count } = op {
                // At most a batch's worth of pages, as was just checked.
                for word in words(first_word, count) {
                    counts[usize::from(lane_of(word, lanes).0)] += 1;
                }
            }
        }
        Ok(())
    }

    /// Checks the header and decodes both blocks, each bounded by the batch.
    fn open<'a>(&'a mut self, index: &'a [u8], batch_len: usize) -> Result<Opened<'a>, IndexError> {
        if batch_len > BATCH_LEN_MAX {
            return Err(IndexError::BatchTooLong { len: batch_len });
        }
        let short = |needed| IndexError::Short { len: index.len(), needed };
        let (header, blocks) = index.split_first_chunk::<HEADER_BYTES>().ok_or(short(HEADER_BYTES))?;
        let [layout, ops_codec, literals_codec, reserved, sizes @ ..] = *header;
        if layout != LAYOUT || reserved != 0 {
            return Err(IndexError::Layout { layout });
        }
        let [ops_len, ops_encoded, literals_len] = fields(&sizes);
        let (ops, literals) =
            blocks.split_at_checked(ops_encoded).ok_or(short(HEADER_BYTES.saturating_add(ops_encoded)))?;
        let bound = batch_len;
        let ops = decode(&mut self.decompressor, ops_codec, ops, ops_len, bound, &mut self.ops);
        let ops = OpReader::new(ops.map_err(IndexError::Ops)?);
        let literals =
            decode(&mut self.decompressor, literals_codec, literals, literals_len, bound, &mut self.literals);
        Ok(Opened { ops, literals: literals.map_err(IndexError::Literals)? })
    }

    fn splice(
        &mut self,
        index: &[u8],
        parts: &mut [Bodies<'_>],
        batch_len: usize,
        out: &mut BytesMut,
    ) -> Result<(), IndexError> {
        let lanes = lane_count(parts.len())?;
        let Opened { ops, mut literals } = self.open(index, batch_len)?;
        out.reserve(batch_len);
        for op in ops {
            let op = op.map_err(IndexError::Op)?;
            op_bytes(op, batch_len - out.len()).ok_or(IndexError::Overrun { batch: batch_len })?;
            match op {
                Op::Literal { bytes } => {
                    // At most a batch's bytes, as was just checked.
                    let (literal, rest) =
                        literals.split_at_checked(bytes as usize).ok_or(IndexError::LiteralsMissing)?;
                    out.extend_from_slice(literal);
                    literals = rest;
                }
                Op::Run { kind: RunKind::Zeros, first_word, count } => {
                    for word in words(first_word, count) {
                        out.extend_from_slice(&word.to_be_bytes());
                        out.put_u8(0);
                    }
                }
                Op::Run { kind, first_word, count } => {
                    for word in words(first_word, count) {
                        let lane = lane_of(word, lanes);
                        let body =
                            parts[usize::from(lane.0)].take().ok_or(IndexError::BodyMissing { lane })?;
                        if kind == RunKind::Pages {
                            out.extend_from_slice(&word.to_be_bytes());
                        }
                        out.extend_from_slice(body);
                    }
                }
            }
        }
        if out.len() != batch_len {
            return Err(IndexError::Incomplete { written: out.len(), batch: batch_len });
        }
        if !literals.is_empty() {
            return Err(IndexError::LiteralsLeft { bytes: literals.len() });
        }
        match parts.iter().position(|part| part.remaining_bytes() > 0) {
            None => Ok(()),
            Some(lane) => {
                let bytes = parts[lane].remaining_bytes();
                Err(IndexError::BodiesLeft { lane: LaneId(lane as u16), bytes })
            }
        }
    }
}

fn lane_count(lanes: usize) -> Result<u16, IndexError> {
    match u16::try_from(lanes) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(IndexError::Lanes { lanes }),
    }
}

fn fields(sizes: &[u8; 12]) -> [usize; 3] {
    let (words, _) = sizes.as_chunks::<4>();
    [0, 1, 2].map(|i| u32::from_le_bytes(words[i]) as usize)
}

/// The words of a run.
fn words(first_word: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |i| first_word.wrapping_add(i.wrapping_mul(PAGE_BYTES as u64)))
}

/// Batch bytes of an operation; None if they exceed `room`.
fn op_bytes(op: Op, room: usize) -> Option<usize> {
    let bytes = match op {
        Op::Literal { bytes } => bytes,
        Op::Run { kind, count, .. } => count.checked_mul(kind.unit_bytes() as u64)?,
    };
    usize::try_from(bytes).ok().filter(|bytes| *bytes <= room)
}

/// A block's content: in place if it is raw, else decoded into `scratch`. Bounded before any allocation.
fn decode<'a>(
    decompressor: &mut Decompressor,
    codec: u8,
    encoded: &'a [u8],
    decoded: usize,
    max: usize,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], BlockError> {
    let codec = Codec::from_id(codec).ok_or(BlockError::Codec { id: codec })?;
    if decoded > max {
        return Err(BlockError::TooLong { decoded, max });
    }
    if codec == Codec::Raw {
        let fits = encoded.len() == decoded;
        return if fits {
            Ok(encoded)
        } else {
            Err(BlockError::Length { codec, encoded: encoded.len(), decoded })
        };
    }
    scratch.resize(decoded, 0);
    decompressor.decode(codec, encoded, scratch)?;
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use super::super::ops::OpWriter;
    use super::*;

    fn index(ops: &[Op], literals: &[u8]) -> Vec<u8> {
        let mut writer = OpWriter::default();
        for op in ops {
            writer.push(*op);
        }
        let mut out = Vec::new();
        write_index(&mut Compressor::new(), Effort::Lz4, writer.finish(), literals, &mut out);
        out
    }

    fn run(kind: RunKind, first_word: u64, count: u64) -> Op {
        Op::Run { kind, first_word, count }
    }

    fn assemble(index: &[u8], parts: &[&[u8]], batch_len: usize) -> Result<Vec<u8>, IndexError> {
        let mut parts: Vec<Bodies> = parts.iter().map(|part| Bodies::new(part)).collect();
        let mut out = BytesMut::from(&[9; 3][..]);
        let result = Assembler::new().assemble(index, &mut parts, batch_len, &mut out);
        assert!(result.is_ok() || out.is_empty());
        result.map(|()| out.to_vec())
    }

    #[test]
    fn operations_become_bytes() {
        let ops = [
            Op::Literal { bytes: 2 },
            run(RunKind::Zeros, 0x22, 2),
            run(RunKind::Pages, 0x2028, 1),
            run(RunKind::Bodies, 0x3000, 1),
            Op::Literal { bytes: 1 },
        ];
        let bodies = [[5u8; 4096], [6; 4096]].concat();
        let zeros = [0, 0, 0, 0, 0, 0, 0, 0x22, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x22, 0];
        let batch = [b"ab", &zeros[..], &[0, 0, 0, 0, 0, 0, 0x20, 0x28], &bodies[..], b"c"].concat();
        assert_eq!(assemble(&index(&ops, b"abc"), &[&bodies], batch.len()).unwrap(), batch);
    }

    #[test]
    fn the_header_is_laid_out_as_specified() {
        let index = index(&[Op::Literal { bytes: 0x0102 }], &[7; 0x0102]);
        // Two bytes of operations as they are, then one lz4 block.
        assert_eq!(index[..16], [0, 0, 1, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 0, 0]);
    }

    // DWCP-51
    #[test]
    fn every_disagreement_is_an_error() {
        let body = [5u8; 4096];
        let page = index(&[run(RunKind::Bodies, 0, 1)], b"");
        assert_eq!(assemble(&page, &[&body], 4096), Ok(body.to_vec()));
        assert_eq!(assemble(&page, &[&body], 4095), Err(IndexError::Overrun { batch: 4095 }));
        assert_eq!(
            assemble(&page, &[&body], 4097),
            Err(IndexError::Incomplete { written: 4096, batch: 4097 })
        );
        assert_eq!(assemble(&page, &[b""], 4096), Err(IndexError::BodyMissing { lane: LaneId(0) }));
        assert_eq!(
            assemble(&page, &[&[body, body].concat()], 4096),
            Err(IndexError::BodiesLeft { lane: LaneId(0), bytes: 4096 })
        );
        assert_eq!(
            assemble(&page, &[&body], BATCH_LEN_MAX + 1),
            Err(IndexError::BatchTooLong { len: BATCH_LEN_MAX + 1 })
        );
        assert_eq!(assemble(&page, &[], 4096), Err(IndexError::Lanes { lanes: 0 }));
        let literal = index(&[Op::Literal { bytes: 3 }], b"abcd");
        assert_eq!(
            assemble(&literal, &[b""], 3),
            Err(IndexError::Literals(BlockError::TooLong { decoded: 4, max: 3 }))
        );
        let left = index(&[Op::Literal { bytes: 3 }, run(RunKind::Zeros, 0, 1)], b"abcd");
        assert_eq!(assemble(&left, &[b""], 12), Err(IndexError::LiteralsLeft { bytes: 1 }));
        let missing = index(&[Op::Literal { bytes: 5 }], b"abcd");
        assert_eq!(assemble(&missing, &[b""], 5), Err(IndexError::LiteralsMissing));
        let huge = index(&[run(RunKind::Pages, 0, u64::MAX >> 3)], b"");
        assert_eq!(assemble(&huge, &[&body], 4104), Err(IndexError::Overrun { batch: 4104 }));
        let mut other = page.clone();
        other[0] = 7;
        assert_eq!(assemble(&other, &[&body], 4096), Err(IndexError::Layout { layout: 7 }));
        let mut beyond = page.clone();
        beyond[8..12].fill(0xff);
        assert!(matches!(assemble(&beyond, &[&body], 4096), Err(IndexError::Short { .. })));
        assert!(matches!(assemble(&page[..15], &[&body], 4096), Err(IndexError::Short { .. })));
    }

    // DWCP-51
    #[test]
    fn bodies_are_counted_by_lane() {
        let ops =
            [run(RunKind::Bodies, 0, 40), run(RunKind::Zeros, 0x22, 7), run(RunKind::Pages, 1 << 30, 3)];
        let (batch_len, mut counts) = (40 * 4096 + 63 + 3 * 4104, [0u32; 3]);
        Assembler::new().bodies_by_lane(&index(&ops, b""), batch_len, &mut counts).unwrap();
        let mut expected = [0u32; 3];
        for offset in (0..40).map(|i| i * 4096).chain((0..3).map(|i| (1 << 30) + i * 4096)) {
            expected[usize::from(lane_of(offset, 3).0)] += 1;
        }
        assert_eq!(counts, expected);
        let overrun = Assembler::new().bodies_by_lane(&index(&ops, b""), batch_len - 1, &mut counts);
        assert_eq!(overrun, Err(IndexError::Overrun { batch: batch_len - 1 }));
    }
}
