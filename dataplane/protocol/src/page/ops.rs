//! Template operations: how a batch is put together from literals, regenerated words and page bodies.
//!
//! ```text
//!  tag   varint: bits 0-1 kind, then
//!          LITERAL (0)                     bits 2.. bytes
//!          PAGES (1) ZEROS (2) BODIES (3)  bit 2 "flags follow", bits 3.. count
//!  runs: page   zigzag varint: first page minus the page after the previous run, of whatever kind
//!        flags  varint, if bit 2: the low 12 bits of the word, else those of the previous run of this kind
//! ```
//! Varints are LEB128. A pass over memory that finds zero and other pages in turn costs two bytes a run.

use std::fmt;

use crate::hypervisor::{PAGE_RECORD_BYTES, ZERO_RECORD_BYTES};
use crate::limits::PAGE_BYTES;

const FLAGS: u64 = PAGE_BYTES as u64 - 1;
const FLAGS_FOLLOW: u64 = 1 << 2;
const LITERAL: u64 = 0;

/// What a run regenerates for each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunKind {
    /// The word; then a body from the page's lane.
    Pages = 1,
    /// The word and a zero byte.
    Zeros = 2,
    /// A body from the page's lane. The "word" is the page's offset.
    Bodies = 3,
}

impl RunKind {
    /// Batch bytes of one page of such a run.
    pub(super) fn unit_bytes(self) -> usize {
        match self {
            RunKind::Pages => PAGE_RECORD_BYTES,
            RunKind::Zeros => ZERO_RECORD_BYTES,
            RunKind::Bodies => PAGE_BYTES,
        }
    }
}

/// One operation. Numbers are as read: the reader of a batch bounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// The next `bytes` literal bytes.
    Literal { bytes: u64 },
    /// `count` pages whose words are `first_word + i * 4096`, modulo 2^64.
    Run { kind: RunKind, first_word: u64, count: u64 },
}

/// Why an operation could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpError {
    /// The operations end within one.
    Cut,
    /// A number of more than 64 bits.
    Number,
    /// A literal or run of nothing.
    Empty,
    /// Flags of more than 12 bits.
    Flags {
        /// The flags.
        flags: u64,
    },
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the operations end within one"),
            Self::Number => f.write_str("a number has more than 64 bits"),
            Self::Empty => f.write_str("an operation stands for nothing"),
            Self::Flags { flags } => write!(f, "word flags {flags:#x} exceed 12 bits"),
        }
    }
}

impl std::error::Error for OpError {}

/// What runs are coded relative to; equal at writer and reader after each operation.
#[derive(Default)]
struct Context {
    /// Offset of the page after the previous run.
    next_offset: u64,
    /// Flags of the previous run, by kind.
    flags: [u64; 4],
}

impl Context {
    fn advance(&mut self, kind: RunKind, first_word: u64, count: u64) {
        self.next_offset = (first_word & !FLAGS).wrapping_add(count.wrapping_mul(PAGE_BYTES as u64));
        self.flags[kind as usize] = first_word & FLAGS;
    }
}

/// Writes operations; joins neighbours that continue each other.
#[derive(Default)]
pub(super) struct OpWriter {
    bytes: Vec<u8>,
    context: Context,
    pending: Option<Op>,
}

impl OpWriter {
    /// Forgets everything but its buffer.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.context = Context::default();
        self.pending = None;
    }

    /// Adds an operation; one that stands for nothing is left out.
    pub(super) fn push(&mut self, op: Op) {
        match (&mut self.pending, op) {
            (_, Op::Literal { bytes: 0 } | Op::Run { count: 0, .. }) => {}
            (Some(Op::Literal { bytes }), Op::Literal { bytes: more }) => *bytes += more,
            (Some(Op::Run { kind, first_word, count }), Op::Run { kind: k, first_word: w, count: more })
                if *kind == k && first_word.wrapping_add(count.wrapping_mul(PAGE_BYTES as u64)) == w =>
            {
                *count = count.wrapping_add(more);
            }
            _ => {
                self.flush();
                self.pending = Some(op);
            }
        }
    }

    /// All operations, coded.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.flush();
        &self.bytes
    }

    fn flush(&mut self) {
        match self.pending.take() {
            None => {}
            Some(Op::Literal { bytes }) => put(&mut self.bytes, (bytes << 2) | LITERAL),
            Some(Op::Run { kind, first_word, count }) => {
                let flags = first_word & FLAGS;
                let flags_follow = flags != self.context.flags[kind as usize];
                let bit = if flags_follow { FLAGS_FOLLOW } else { 0 };
                put(&mut self.bytes, (count << 3) | bit | kind as u64);
                // Both are multiples of a page, so the shift loses nothing.
                let pages = ((first_word & !FLAGS).wrapping_sub(self.context.next_offset) as i64) >> 12;
                put(&mut self.bytes, ((pages << 1) ^ (pages >> 63)) as u64);
                if flags_follow {
                    put(&mut self.bytes, flags);
                }
                self.context.advance(kind, first_word, count);
            }
        }
    }
}

/// Reads operations; ends after the first error.
pub(super) struct OpReader<'a> {
    rest: &'a [u8],
    context: Context,
}

impl<'a> OpReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, context: Context::default() }
    }

    fn read(&mut self) -> Result<Op, OpError> {
        let tag = take(&mut self.rest)?;
        let kind = match tag & 3 {
            1 => RunKind::Pages,
            2 => RunKind::Zeros,
            3 => RunKind::Bodies,
            _ => {
                let bytes = tag >> 2;
                return if bytes == 0 { Err(OpError::Empty) } else { Ok(Op::Literal { bytes }) };
            }
        };
        let count = tag >> 3;
        if count == 0 {
            return Err(OpError::Empty);
        }
        let zigzag = take(&mut self.rest)?;
        let pages = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        let offset = self.context.next_offset.wrapping_add(pages << 12);
        let flags = match tag & FLAGS_FOLLOW {
            0 => self.context.flags[kind as usize],
            _ => take(&mut self.rest)?,
        };
        if flags > FLAGS {
            return Err(OpError::Flags { flags });
        }
        let first_word = offset | flags;
        self.context.advance(kind, first_word, count);
        Ok(Op::Run { kind, first_word, count })
    }
}

impl Iterator for OpReader<'_> {
    type Item = Result<Op, OpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let op = self.read();
        if op.is_err() {
            self.rest = &[];
        }
        Some(op)
    }
}

/// Appends a LEB128 number.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The LEB128 number in front of `rest`, which it leaves.
pub(super) fn take(rest: &mut &[u8]) -> Result<u64, OpError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(OpError::Cut)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            return Err(OpError::Number);
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(OpError::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(ops: &[Op]) -> Vec<u8> {
        let mut writer = OpWriter::default();
        for op in ops {
            writer.push(*op);
        }
        writer.finish().to_vec()
    }

    fn run(kind: RunKind, first_word: u64, count: u64) -> Op {
        Op::Run { kind, first_word, count }
    }

    #[test]
    fn operations_come_back() {
        let ops = [
            run(RunKind::Zeros, 0x22, 3),
            run(RunKind::Pages, 0x3028, 1),
            Op::Literal { bytes: 300 },
            run(RunKind::Bodies, u64::MAX, u64::MAX >> 3),
            run(RunKind::Bodies, 7, 1),
            run(RunKind::Pages, 1 << 63, 40),
            Op::Literal { bytes: 1 },
        ];
        let bytes = coded(&ops);
        assert_eq!(OpReader::new(&bytes).collect::<Result<Vec<_>, _>>().unwrap(), ops);
        for cut in 1..bytes.len() {
            let read: Vec<_> = OpReader::new(&bytes[..cut]).collect();
            assert!(read.len() <= ops.len());
        }
    }

    #[test]
    fn neighbours_join_and_alternation_is_cheap() {
        let joined = coded(&[
            run(RunKind::Pages, 0x28, 1),
            run(RunKind::Pages, 0x1028, 2),
            Op::Literal { bytes: 0 },
            run(RunKind::Pages, 0x3028, 1),
        ]);
        assert_eq!(joined, coded(&[run(RunKind::Pages, 0x28, 4)]));
        let mut writer = OpWriter::default();
        for i in 0..100 {
            writer.push(run(RunKind::Pages, (2 * i) << 12 | 0x28, 1));
            writer.push(run(RunKind::Zeros, (2 * i + 1) << 12 | 0x22, 1));
        }
        assert_eq!(writer.finish().len(), 200 * 2 + 2);
    }

    #[test]
    fn malformed_operations_are_named() {
        let first = |bytes: &[u8]| OpReader::new(bytes).next();
        assert_eq!(first(&[]), None);
        assert_eq!(first(&[0]), Some(Err(OpError::Empty)));
        assert_eq!(first(&[1, 0]), Some(Err(OpError::Empty)));
        assert_eq!(first(&[9]), Some(Err(OpError::Cut)));
        assert_eq!(first(&[0x80]), Some(Err(OpError::Cut)));
        assert_eq!(first(&[0xff; 11]), Some(Err(OpError::Number)));
        assert_eq!(first(&[0b1101, 0, 0x80, 0x20]), Some(Err(OpError::Flags { flags: 4096 })));
        let mut after_error = OpReader::new(&[0, 4]);
        assert!(after_error.next().is_some_and(|op| op.is_err()));
        assert_eq!(after_error.next(), None);
    }
}
