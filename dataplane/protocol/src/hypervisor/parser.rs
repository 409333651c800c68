//! The parser of one connection, source to destination.

use super::blocks::BlockTable;
use super::emit::Emitter;
use super::main_stream::MainStream;
use super::multifd::Multifd;
use super::progress::{StreamKind, StreamProgress, Tracker};
use super::ram::{self, RamRecords, Record};
use super::sniff::sniff;
use super::span::{BlockId, PAGE_RECORD_BYTES, Span, WORD_BYTES, ZERO_RECORD_BYTES};
use crate::limits::{CARRY_BYTES_MAX, MULTIFD_PACKET_PAGES, PAGE_BYTES};

/// What stands at the current place of the stream.
#[derive(Debug)]
pub(super) enum Step {
    /// More bytes are needed to tell; never once `CARRY_BYTES_MAX` are there.
    Incomplete,
    /// At least one byte of no interest; may reach past the buffer.
    Opaque(u64),
    /// A page's header. With a header of one word the record can be made from the word and the page.
    Page { header: usize, word: u64, block: BlockId },
    /// A whole zero record that can be made from its word.
    Zero { word: u64, block: BlockId },
    /// Not understood: opaque from here on.
    Lost,
}

/// Pages whose headers have been read and whose bodies come next.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    block: BlockId,
    /// The offset of each page, multiples of the page size. At most a multifd packet's.
    offsets: Vec<u64>,
    next: usize,
}

impl Bodies {
    /// Expects a body at each of these offsets; false, and expects nothing, if one is no page's offset.
    pub(super) fn set(&mut self, block: BlockId, offsets: impl Iterator<Item = u64>) -> bool {
        self.block = block;
        self.next = 0;
        self.offsets.clear();
        self.offsets.extend(offsets.take(MULTIFD_PACKET_PAGES));
        if self.offsets.iter().any(|offset| offset % PAGE_BYTES as u64 != 0) {
            self.offsets.clear();
        }
        !self.offsets.is_empty()
    }

    fn pending(&self) -> bool {
        self.next < self.offsets.len()
    }

    /// Takes the longest run of consecutive pages, `pages_max` at most: its first offset and its length.
    fn take_run(&mut self, pages_max: usize) -> Option<(u64, u32)> {
        let rest = self.offsets.get(self.next..)?;
        let first = *rest.first()?;
        let run = (rest.iter().take(pages_max).enumerate())
            .take_while(|(i, offset)| first.checked_add((i * PAGE_BYTES) as u64) == Some(**offset))
            .count();
        self.next += run;
        (run > 0).then_some((first, run as u32))
    }
}

#[derive(Debug, Default)]
enum Form {
    #[default]
    Unknown,
    Main(MainStream),
    Multifd(Multifd),
    Preempt(RamRecords),
    Opaque,
}

/// Finds the pages in what a hypervisor writes to one connection.
///
/// Total on any input: it never fails, looks at a bounded number of bytes for each byte it consumes, and its
/// memory is bounded by [`crate::limits`]. Bytes that it has given up understanding cost nothing at all.
///
/// # Splitting
/// However the stream is cut into calls, the spans (joined with [`Span::join`]) are the same, except around a cut
/// made with `more = false` in the middle of a record.
#[derive(Debug, Default)]
pub struct Parser {
    form: Form,
    blocks: BlockTable,
    tracker: Tracker,
    /// The beginning of an item that was cut by `more = false`. Its bytes have been handed out as opaque.
    carry: Vec<u8>,
    /// Bytes still to hand out as opaque before the next item.
    skip: u64,
    bodies: Bodies,
}

impl Parser {
    /// A parser at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Walks `input`, the stream's next bytes, and appends spans that cover exactly the returned number of bytes,
    /// in order.
    ///
    /// With `more` it may leave up to [`CARRY_BYTES_MAX`] bytes at the end unconsumed, the beginning of a record:
    /// put them in front of the next bytes. Without `more` it consumes everything: the bytes of an unfinished
    /// record become opaque, and the parser remembers where inside the record it stands. Use that when no more
    /// bytes are there and those that are should travel.
    pub fn parse(&mut self, input: &[u8], more: bool, spans: &mut Vec<Span>) -> usize {
        let mut out = Emitter::new(spans);
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            let consumed = if self.skip > 0 {
                let bytes = usize::try_from(self.skip).unwrap_or(usize::MAX).min(rest.len());
                self.skip -= bytes as u64;
                out.opaque(bytes);
                bytes
            } else if self.bodies.pending() {
                match self.take_bodies(rest, more, &mut out) {
                    0 => break,
                    bytes => bytes,
                }
            } else if matches!(self.form, Form::Opaque) {
                out.opaque(rest.len());
                rest.len()
            } else if !self.carry.is_empty() {
                self.feed_carry(rest, &mut out)
            } else {
                match self.step(rest) {
                    Step::Incomplete if more && rest.len() < CARRY_BYTES_MAX => break,
                    Step::Incomplete => {
                        let bytes = rest.len().min(CARRY_BYTES_MAX);
                        self.carry.extend_from_slice(&rest[..bytes]);
                        out.opaque(bytes);
                        bytes
                    }
                    Step::Page { header: WORD_BYTES, word, block } if rest.len() >= PAGE_RECORD_BYTES => {
                        let count = ram::page_run(rest, word);
                        self.tracker.pages(block, word & !ram::FLAGS_MASK, count);
                        out.push(Span::PageRecords { block, first_word: word, count });
                        count as usize * PAGE_RECORD_BYTES
                    }
                    // Wait for the page rather than part it from its word.
                    Step::Page { header: WORD_BYTES, .. } if more => break,
                    Step::Zero { word, block } => {
                        let count = ram::zero_run(rest, word).max(1);
                        self.tracker.zero_pages(block, word & !ram::FLAGS_MASK, count);
                        out.push(Span::ZeroRecords { block, first_word: word, count });
                        count as usize * ZERO_RECORD_BYTES
                    }
                    step => {
                        self.enter(step, 0);
                        0
                    }
                }
            };
            at += consumed;
        }
        at
    }

    /// What the connection has shown so far.
    pub fn progress(&self) -> StreamProgress {
        self.tracker.progress()
    }

    /// Whether the source has stopped its guest ([`StreamProgress::stopped`]).
    pub fn is_stopped(&self) -> bool {
        self.tracker.is_stopped()
    }

    /// The name that the hypervisor gave to a block; block numbers mean nothing outside this connection.
    pub fn block_name(&self, block: BlockId) -> Option<&[u8]> {
        self.blocks.name(block)
    }

    /// Reads the item at the start of `buf`.
    fn step(&mut self, buf: &[u8]) -> Step {
        if matches!(self.form, Form::Unknown) {
            let Some(kind) = sniff(buf) else { return Step::Incomplete };
            self.tracker.set_kind(kind);
            self.form = match kind {
                StreamKind::QemuMain => Form::Main(MainStream::default()),
                StreamKind::QemuMultifd => Form::Multifd(Multifd::default()),
                StreamKind::QemuPreempt => Form::Preempt(RamRecords::preempt(&mut self.tracker)),
                StreamKind::Unknown | StreamKind::Opaque => Form::Opaque,
            };
        }
        match &mut self.form {
            Form::Unknown | Form::Opaque => Step::Lost,
            Form::Main(main) => main.step(buf, &mut self.blocks, &mut self.tracker),
            Form::Multifd(multifd) => {
                multifd.step(buf, &mut self.bodies, &mut self.blocks, &mut self.tracker)
            }
            Form::Preempt(records) => match records.step(buf, &mut self.blocks, &mut self.tracker) {
                Record::Step(step) => step,
                Record::End => Step::Opaque(WORD_BYTES as u64),
            },
        }
    }

    /// Commits to a step whose first `seen` bytes have been handed out already. The rest of it is handed out by
    /// way of `skip` and `bodies`.
    fn enter(&mut self, step: Step, seen: usize) {
        let seen = seen as u64;
        match step {
            Step::Incomplete => {}
            Step::Opaque(bytes) => self.skip = bytes.saturating_sub(seen),
            Step::Page { header, word, block } => {
                let offset = word & !ram::FLAGS_MASK;
                self.tracker.pages(block, offset, 1);
                self.skip = (header as u64).saturating_sub(seen);
                self.bodies.set(block, std::iter::once(offset));
            }
            Step::Zero { word, block } => {
                self.tracker.zero_pages(block, word & !ram::FLAGS_MASK, 1);
                self.skip = (ZERO_RECORD_BYTES as u64).saturating_sub(seen);
            }
            Step::Lost => self.form = Form::Opaque,
        }
    }

    /// Goes on with an item that was cut: completes the carried bytes from `rest`. Returns the bytes consumed,
    /// which may be none when the carry alone got shorter.
    fn feed_carry(&mut self, rest: &[u8], out: &mut Emitter<'_>) -> usize {
        let mut carry = std::mem::take(&mut self.carry);
        let seen = carry.len();
        let fed = rest.len().min(CARRY_BYTES_MAX.saturating_sub(seen));
        carry.extend_from_slice(&rest[..fed]);
        let consumed = match self.step(&carry) {
            Step::Incomplete if fed == 0 => {
                // Every item is told by CARRY_BYTES_MAX bytes; were one not, nothing after it could be trusted.
                self.form = Form::Opaque;
                carry.clear();
                0
            }
            Step::Incomplete => {
                out.opaque(fed);
                fed
            }
            Step::Opaque(bytes) if bytes < seen as u64 => {
                carry.truncate(seen);
                carry.drain(..bytes as usize);
                0
            }
            step => {
                carry.clear();
                self.enter(step, seen);
                0
            }
        };
        self.carry = carry;
        consumed
    }

    /// Hands out the bodies that `rest` holds; 0 if it must wait for more bytes.
    fn take_bodies(&mut self, rest: &[u8], more: bool, out: &mut Emitter<'_>) -> usize {
        let whole = rest.len() / PAGE_BYTES;
        if let Some((offset, count)) = self.bodies.take_run(whole) {
            out.bodies(self.bodies.block, offset, count);
            return count as usize * PAGE_BYTES;
        }
        if more {
            return 0;
        }
        // A page cut in two: both halves are opaque.
        self.bodies.next += 1;
        self.skip = PAGE_BYTES as u64;
        let bytes = rest.len().min(PAGE_BYTES);
        self.skip -= bytes as u64;
        out.opaque(bytes);
        bytes
    }
}
