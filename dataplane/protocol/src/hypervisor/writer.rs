//! Spans, literals and pages, turned back into the stream's bytes.

use std::fmt;

use super::span::{BlockId, Span};
use crate::limits::PAGE_BYTES;

/// Where [`assemble`] gets pages from.
pub trait PageSource {
    /// The page at `offset` of `block`; none if there is no such page. Called once for each page, in stream
    /// order, so that a source may also be a plain sequence of pages.
    fn page(&mut self, block: BlockId, offset: u64) -> Option<&[u8; PAGE_BYTES]>;
}

/// Why spans could not be turned into bytes. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssembleError {
    /// The spans cover more bytes than allowed.
    TooLong {
        /// The limit that was given, in bytes.
        bytes_max: usize,
    },
    /// The opaque spans do not cover the literals exactly.
    Literals {
        /// Bytes that the opaque spans cover.
        wanted: u64,
        /// Bytes of literals that there are.
        given: usize,
    },
    /// The words or offsets of a span do not fit 64 bits.
    Address {
        /// The span's block.
        block: BlockId,
    },
    /// A page that a span names is not there.
    PageMissing {
        /// The page's block.
        block: BlockId,
        /// The page's offset in it.
        offset: u64,
    },
}

impl fmt::Display for AssembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AssembleError::TooLong { bytes_max } => {
                write!(f, "the spans cover more than the {bytes_max} bytes that they may")
            }
            AssembleError::Literals { wanted, given } => {
                write!(f, "the spans want {wanted} literal bytes and {given} came with them")
            }
            AssembleError::Address { block } => {
                write!(f, "a run of pages leaves the address space of block {}", block.0)
            }
            AssembleError::PageMissing { block, offset } => {
                write!(f, "the page at {offset:#x} of block {} is missing", block.0)
            }
        }?;
        f.write_str("; nothing was written: fail the session, its two ends disagree")
    }
}

impl std::error::Error for AssembleError {}

/// Appends to `out` the bytes that `spans` describe: opaque spans take the next bytes of `literals`, which they
/// must use up, pages come from `pages`, and words are made from the first of their run. At most `bytes_max`
/// bytes; total on hostile spans.
///
/// # Errors
/// [`AssembleError`]; `out` is then as it was.
pub fn assemble(
    spans: &[Span],
    literals: &[u8],
    pages: &mut impl PageSource,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), AssembleError> {
    // Lengths first: no byte is written for spans that promise too much.
    let mut bytes = 0_u64;
    let mut opaque = 0_u64;
    for span in spans {
        bytes = bytes.saturating_add(span.len() as u64);
        if let Span::Opaque { len } = span {
            opaque = opaque.saturating_add(u64::from(*len));
        }
    }
    if bytes > bytes_max as u64 {
        return Err(AssembleError::TooLong { bytes_max });
    }
    if opaque != literals.len() as u64 {
        return Err(AssembleError::Literals { wanted: opaque, given: literals.len() });
    }
    let start = out.len();
    out.reserve(bytes as usize);
    let result = write(spans, literals, pages, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write(
    spans: &[Span],
    mut literals: &[u8],
    pages: &mut impl PageSource,
    out: &mut Vec<u8>,
) -> Result<(), AssembleError> {
    for span in spans {
        match *span {
            Span::Opaque { len } => {
                let (now, later) = literals
                    .split_at_checked(len as usize)
                    .ok_or(AssembleError::Literals { wanted: len.into(), given: literals.len() })?;
                out.extend_from_slice(now);
                literals = later;
            }
            Span::PageRecords { block, first_word, count } => {
                for i in 0..count {
                    let word = nth(block, first_word, i)?;
                    out.extend_from_slice(&word.to_be_bytes());
                    copy_page(block, word & !(PAGE_BYTES as u64 - 1), pages, out)?;
                }
            }
            Span::ZeroRecords { block, first_word, count } => {
                for i in 0..count {
                    out.extend_from_slice(&nth(block, first_word, i)?.to_be_bytes());
                    out.push(0);
                }
            }
            Span::PageBodies { block, offset, count } => {
                for i in 0..count {
                    copy_page(block, nth(block, offset, i)?, pages, out)?;
                }
            }
        }
    }
    Ok(())
}

fn nth(block: BlockId, first: u64, i: u32) -> Result<u64, AssembleError> {
    first.checked_add(u64::from(i) * PAGE_BYTES as u64).ok_or(AssembleError::Address { block })
}

fn copy_page(
    block: BlockId,
    offset: u64,
    pages: &mut impl PageSource,
    out: &mut Vec<u8>,
) -> Result<(), AssembleError> {
    let page = pages.page(block, offset).ok_or(AssembleError::PageMissing { block, offset })?;
    out.extend_from_slice(page);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Same([u8; PAGE_BYTES], u64);

    impl PageSource for Same {
        fn page(&mut self, _: BlockId, offset: u64) -> Option<&[u8; PAGE_BYTES]> {
            (offset < self.1).then_some(&self.0)
        }
    }

    fn run(spans: &[Span], literals: &[u8], bytes_max: usize) -> Result<Vec<u8>, AssembleError> {
        let mut out = b"before".to_vec();
        let result = assemble(spans, literals, &mut Same([7; PAGE_BYTES], 0x3000), bytes_max, &mut out);
        match result {
            Ok(()) => Ok(out.split_off(6)),
            Err(error) => {
                assert_eq!(out, b"before", "an error leaves nothing behind");
                Err(error)
            }
        }
    }

    #[test]
    fn words_are_made_from_the_first() {
        let spans = [
            Span::Opaque { len: 2 },
            Span::ZeroRecords { block: BlockId(0), first_word: 0x1022, count: 2 },
            Span::PageBodies { block: BlockId(0), offset: 0, count: 1 },
        ];
        let out = run(&spans, b"ab", 10_000).unwrap();
        assert_eq!(out[..20], *b"ab\0\0\0\0\0\0\x10\x22\0\0\0\0\0\0\0\x20\x22\0");
        assert_eq!(out[20..], [7; PAGE_BYTES]);
    }

    #[test]
    fn hostile_spans_are_refused() {
        let block = BlockId(3);
        let huge = Span::PageRecords { block, first_word: 0x28, count: u32::MAX };
        assert_eq!(run(&[huge; 4], b"", 1 << 20), Err(AssembleError::TooLong { bytes_max: 1 << 20 }));
        assert_eq!(
            run(&[Span::Opaque { len: 3 }], b"ab", 100),
            Err(AssembleError::Literals { wanted: 3, given: 2 })
        );
        assert_eq!(
            run(&[Span::Opaque { len: 1 }], b"ab", 100),
            Err(AssembleError::Literals { wanted: 1, given: 2 })
        );
        let beyond = Span::ZeroRecords { block, first_word: u64::MAX - 0xfdd, count: 2 };
        assert_eq!(run(&[beyond], b"", 100), Err(AssembleError::Address { block }));
        let missing = Span::PageBodies { block, offset: 0x2000, count: 2 };
        assert_eq!(run(&[missing], b"", 10_000), Err(AssembleError::PageMissing { block, offset: 0x3000 }));
    }
}
