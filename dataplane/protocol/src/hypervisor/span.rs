//! What a run of stream bytes is.

use crate::limits::PAGE_BYTES;

/// A RAM block of one hypervisor connection, numbered in the order in which the parser first met its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u16);

/// A run of consecutive stream bytes of one kind. The spans of a batch cover every byte of it, once, in order.
///
/// A *word* is the big-endian `u64` that opens each RAM record of QEMU's stream: the page's offset in its
/// block with flags in the low 12 bits (`migration/ram.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// `len` bytes that are carried as they are.
    Opaque {
        /// Bytes.
        len: u32,
    },
    /// `count` records, each a word and a page; the words are `first_word + i * 4096`.
    PageRecords {
        /// The block that the pages belong to.
        block: BlockId,
        /// The first record's word, flags included.
        first_word: u64,
        /// Records.
        count: u32,
    },
    /// `count` records that say "this page is zero": a word and a zero byte each; words as above.
    ZeroRecords {
        /// The block that the pages belong to.
        block: BlockId,
        /// The first record's word, flags included.
        first_word: u64,
        /// Records.
        count: u32,
    },
    /// `count` pages without any header (it went before as opaque bytes), at `offset + i * 4096`.
    PageBodies {
        /// The block that the pages belong to.
        block: BlockId,
        /// The first page's offset in its block; a multiple of 4096.
        offset: u64,
        /// Pages.
        count: u32,
    },
}

/// Bytes of the word that opens a RAM record.
pub const WORD_BYTES: usize = 8;
/// Bytes of a page record: word and page.
pub const PAGE_RECORD_BYTES: usize = WORD_BYTES + PAGE_BYTES;
/// Bytes of a zero record: word and one zero byte.
pub const ZERO_RECORD_BYTES: usize = WORD_BYTES + 1;

impl Span {
    /// Stream bytes that this span covers.
    pub fn len(&self) -> usize {
        match *self {
            Span::Opaque { len } => len as usize,
            Span::PageRecords { count, .. } => count as usize * PAGE_RECORD_BYTES,
            Span::ZeroRecords { count, .. } => count as usize * ZERO_RECORD_BYTES,
            Span::PageBodies { count, .. } => count as usize * PAGE_BYTES,
        }
    }

    /// Whether the span covers no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// This span and `next`, which follows it in the stream, as one span; none if they do not continue each
    /// other. Words and offsets inside a joined span never overflow.
    pub fn join(self, next: Span) -> Option<Span> {
        let page = PAGE_BYTES as u64;
        let follows = |first: u64, count: u32, then: u64| {
            first.checked_add(u64::from(count) * page).is_some_and(|end| end == then)
        };
        match (self, next) {
            (Span::Opaque { len: a }, Span::Opaque { len: b }) => {
                Some(Span::Opaque { len: a.checked_add(b)? })
            }
            (
                Span::PageRecords { block, first_word, count },
                Span::PageRecords { block: b, first_word: w, count: c },
            ) if block == b && follows(first_word, count, w) => {
                Some(Span::PageRecords { block, first_word, count: count.checked_add(c)? })
            }
            (
                Span::ZeroRecords { block, first_word, count },
                Span::ZeroRecords { block: b, first_word: w, count: c },
            ) if block == b && follows(first_word, count, w) => {
                Some(Span::ZeroRecords { block, first_word, count: count.checked_add(c)? })
            }
            (
                Span::PageBodies { block, offset, count },
                Span::PageBodies { block: b, offset: o, count: c },
            ) if block == b && follows(offset, count, o) => {
                Some(Span::PageBodies { block, offset, count: count.checked_add(c)? })
            }
            _ => None,
        }
    }
}
