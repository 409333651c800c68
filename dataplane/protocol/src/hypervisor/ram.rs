//! RAM records: `migration/ram.c`, `ram_load_precopy` and `ram_load_postcopy`.

use super::blocks::BlockTable;
use super::bytes::{be16, be32, be64, counted_string};
use super::parser::Step;
use super::progress::{StreamPhase, Tracker};
use super::span::{BlockId, PAGE_RECORD_BYTES, WORD_BYTES, ZERO_RECORD_BYTES};
use crate::limits::PAGE_BYTES;

/// The bits of a word that are flags and not address.
pub(super) const FLAGS_MASK: u64 = PAGE_BYTES as u64 - 1;
pub(super) const FLAG_ZERO: u64 = 0x02;
pub(super) const FLAG_MEM_SIZE: u64 = 0x04;
pub(super) const FLAG_PAGE: u64 = 0x08;
pub(super) const FLAG_EOS: u64 = 0x10;
pub(super) const FLAG_CONTINUE: u64 = 0x20;
pub(super) const FLAG_XBZRLE: u64 = 0x40;
/// Sent by QEMU up to 9.0.
pub(super) const FLAG_COMPRESS_PAGE: u64 = 0x100;
pub(super) const FLAG_MULTIFD_FLUSH: u64 = 0x200;

/// QEMU may put a block's page size and its address behind the block's length in the list of blocks
/// (`ram_save_setup`, with postcopy and huge pages, and with x-ignore-shared).
const EXTRA_WORDS_MAX: u8 = 2;
/// zlib's `compressBound` of a page is 4110.
const COMPRESSED_BYTES_MAX: u32 = 2 * PAGE_BYTES as u32;

/// One record, or the end of the section's records.
pub(super) enum Record {
    Step(Step),
    /// The end marker, 8 bytes.
    End,
}

/// Where a connection stands among its RAM records.
#[derive(Debug, Default)]
pub(super) struct RamRecords {
    /// The block that a record with `CONTINUE` belongs to.
    block: Option<BlockId>,
    /// Inside the list of blocks: guest bytes that the list has not accounted for yet.
    list_left: Option<u64>,
    /// Words that may follow here without being a record.
    extra_words: u8,
}

impl RamRecords {
    /// Reads the record at the start of `buf`. What it remembers of a page record is the same however often
    /// the record is read.
    pub(super) fn step(&mut self, buf: &[u8], blocks: &mut BlockTable, tracker: &mut Tracker) -> Record {
        Record::Step(match self.list_left {
            Some(left) => self.list_entry(buf, left, blocks),
            None => {
                let Some(word) = be64(buf, 0) else { return Record::Step(Step::Incomplete) };
                if word == FLAG_EOS {
                    return Record::End;
                }
                self.record(word, buf, blocks, tracker)
            }
        })
    }

    fn record(&mut self, word: u64, buf: &[u8], blocks: &mut BlockTable, tracker: &mut Tracker) -> Step {
        const PAGE_CONTINUED: u64 = FLAG_PAGE | FLAG_CONTINUE;
        const ZERO_CONTINUED: u64 = FLAG_ZERO | FLAG_CONTINUE;
        let flags = word & FLAGS_MASK;
        let offset = word & !FLAGS_MASK;
        match flags {
            PAGE_CONTINUED => match self.block {
                Some(block) => Step::Page { header: WORD_BYTES, word, block },
                None => Step::Lost,
            },
            ZERO_CONTINUED => match (self.block, buf.get(WORD_BYTES)) {
                (None, _) => Step::Lost,
                (_, None) => Step::Incomplete,
                (Some(block), Some(0)) => Step::Zero { word, block },
                // Filled with another byte: QEMU before 1.x. It can be stepped over, not made again.
                (Some(_), Some(_)) => Step::Opaque(ZERO_RECORD_BYTES as u64),
            },
            FLAG_MULTIFD_FLUSH if offset == 0 => {
                tracker.flush();
                Step::Opaque(WORD_BYTES as u64)
            }
            FLAG_MEM_SIZE => {
                tracker.set_ram_total(offset);
                self.list_left = Some(offset).filter(|left| *left > 0);
                Step::Opaque(WORD_BYTES as u64)
            }
            0 if self.extra_words > 0 => {
                self.extra_words -= 1;
                Step::Opaque(WORD_BYTES as u64)
            }
            _ => self.named_record(flags, offset, buf, blocks, tracker),
        }
    }

    /// A record that may name its block.
    fn named_record(
        &mut self,
        flags: u64,
        offset: u64,
        buf: &[u8],
        blocks: &mut BlockTable,
        tracker: &mut Tracker,
    ) -> Step {
        let kind = flags & !FLAG_CONTINUE;
        if !matches!(kind, FLAG_PAGE | FLAG_ZERO | FLAG_XBZRLE | FLAG_COMPRESS_PAGE) {
            return Step::Lost;
        }
        let mut header = WORD_BYTES;
        if flags & FLAG_CONTINUE == 0 {
            let Some(name) = counted_string(buf, header) else { return Step::Incomplete };
            let Some(block) = blocks.intern(name) else { return Step::Lost };
            self.block = Some(block);
            header += 1 + name.len();
        }
        let Some(block) = self.block else { return Step::Lost };
        let body = match kind {
            FLAG_PAGE => return Step::Page { header, word: flags | offset, block },
            FLAG_ZERO => {
                if buf.len() <= header {
                    return Step::Incomplete;
                }
                tracker.zero_pages(block, offset, 1);
                return Step::Opaque(header as u64 + 1);
            }
            // One byte says which encoding, two how long it is.
            FLAG_XBZRLE => be16(buf, header + 1).map(|len| (3, u32::from(len), PAGE_BYTES as u32)),
            _ => be32(buf, header).map(|len| (4, len, COMPRESSED_BYTES_MAX)),
        };
        match body {
            None => Step::Incomplete,
            Some((_, len, len_max)) if len > len_max => Step::Lost,
            Some((fixed, len, _)) => {
                tracker.pages(block, offset, 1);
                Step::Opaque(header as u64 + fixed + u64::from(len))
            }
        }
    }

    /// An entry of the list of blocks: name and length, and perhaps more words.
    fn list_entry(&mut self, buf: &[u8], left: u64, blocks: &mut BlockTable) -> Step {
        if buf.first() == Some(&0) {
            // No block has an empty name, and a page size or an address starts with a zero byte.
            if self.extra_words == 0 {
                return Step::Lost;
            }
            if buf.len() < 8 {
                return Step::Incomplete;
            }
            self.extra_words -= 1;
            return Step::Opaque(8);
        }
        let Some(name) = counted_string(buf, 0) else { return Step::Incomplete };
        let Some(len) = be64(buf, 1 + name.len()) else { return Step::Incomplete };
        let (Some(_), Some(left)) = (blocks.intern(name), left.checked_sub(len)) else { return Step::Lost };
        self.list_left = Some(left).filter(|left| *left > 0);
        self.extra_words = EXTRA_WORDS_MAX;
        Step::Opaque(1 + name.len() as u64 + 8)
    }

    /// Forgets what may only follow the list of blocks. Called where a section's records end.
    pub(super) fn end_section(&mut self) {
        self.extra_words = 0;
    }

    /// Starts the connection's RAM records outside any section.
    pub(super) fn preempt(tracker: &mut Tracker) -> Self {
        tracker.enter(StreamPhase::Postcopy);
        Self::default()
    }
}

/// How many page records stand whole at the start of `buf` if the first has `first_word` and each word is one
/// page above the one before. The first word is not read again.
pub(super) fn page_run(buf: &[u8], first_word: u64) -> u32 {
    run(buf, first_word, PAGE_RECORD_BYTES, |_| true)
}

/// As [`page_run`], for zero records; the byte after each word must be zero.
pub(super) fn zero_run(buf: &[u8], first_word: u64) -> u32 {
    run(buf, first_word, ZERO_RECORD_BYTES, |record| record[WORD_BYTES] == 0)
}

#[inline]
fn run(buf: &[u8], first_word: u64, record_bytes: usize, holds: impl Fn(&[u8]) -> bool) -> u32 {
    let mut records = buf.chunks_exact(record_bytes);
    let Some(first) = records.next() else { return 0 };
    if !holds(first) {
        return 0;
    }
    let mut count = 1;
    let mut word = first_word;
    for record in records {
        let Some(next) = word.checked_add(PAGE_BYTES as u64) else { break };
        if record.first_chunk() != Some(&next.to_be_bytes()) || !holds(record) || count == u32::MAX {
            break;
        }
        word = next;
        count += 1;
    }
    count
}
