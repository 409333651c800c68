//! What the page codec is measured against: zstd over the whole stream, copying, and what the stream is like.

use std::collections::HashSet;
use std::hint::black_box;

use anyhow::{Result, anyhow};
use novacron_protocol::hypervisor::{Parser, Span};
use novacron_protocol::limits::BATCH_BYTES_MAX;
use rustix::time::{ClockId, clock_gettime};
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, zstd_sys::ZSTD_EndDirective};

use crate::limits::PAGE_BYTES;

/// Bytes, and the processor time that they took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressed {
    pub(super) bytes: u64,
    pub(super) ns: f64,
}

fn processor_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// zstd over all of it, on one core; `long`: with a window of that power of two.
pub(super) fn zstd(bytes: &[u8], level: i32, long: Option<u32>) -> Result<Compressed> {
    let failed = |code| anyhow!("zstd: {}", zstd_safe::get_error_name(code));
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
    if let Some(log) = long {
        context.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(failed)?;
        context.set_parameter(CParameter::WindowLog(log)).map_err(failed)?;
    }
    let began = processor_ns();
    let (mut out, mut total) = (vec![0; 1 << 20], 0);
    let mut input = InBuffer::around(bytes);
    loop {
        let mut output = OutBuffer::around(&mut out[..]);
        let end = ZSTD_EndDirective::ZSTD_e_end;
        let left = context.compress_stream2(&mut output, &mut input, end).map_err(failed)?;
        total += output.pos() as u64;
        if left == 0 {
            return Ok(Compressed { bytes: total, ns: processor_ns() - began });
        }
    }
}

/// Nanoseconds that copying all of it takes, the best of three.
pub(super) fn memcpy(bytes: &[u8]) -> f64 {
    let mut to = vec![1u8; 64 * BATCH_BYTES_MAX];
    let once = || {
        let began = processor_ns();
        for chunk in bytes.chunks(to.len()) {
            to[..chunk.len()].copy_from_slice(black_box(chunk));
        }
        black_box(&mut to);
        processor_ns() - began
    };
    std::iter::repeat_with(once).take(3).fold(f64::MAX, f64::min)
}

/// What a stream is like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Shape {
    /// Pages with content, how many of them were sent before, and how many there are.
    pub(super) pages: u64,
    pub(super) again: u64,
    pub(super) distinct: u64,
    /// Where the first page begins that was sent before; the stream's end where there is none.
    pub(super) first_again: usize,
}

pub(super) fn shape(bytes: &[u8]) -> Shape {
    let (mut parser, mut spans, mut at) = (Parser::new(), Vec::new(), 0);
    let mut shape = Shape { first_again: bytes.len(), ..Shape::default() };
    let mut seen = HashSet::new();
    while at < bytes.len() {
        let end = (at + BATCH_BYTES_MAX).min(bytes.len());
        spans.clear();
        let taken = parser.parse(&bytes[at..end], end < bytes.len(), &mut spans);
        if taken == 0 {
            at = end;
            continue;
        }
        let mut begins = at;
        for span in &spans {
            let (block, first, count) = match *span {
                Span::PageRecords { block, first_word, count } => (block, first_word, count),
                Span::PageBodies { block, offset, count } => (block, offset, count),
                Span::ZeroRecords { .. } | Span::Opaque { .. } => (Default::default(), 0, 0),
            };
            for page in 0..u64::from(count) {
                shape.pages += 1;
                if !seen.insert((block, first / PAGE_BYTES as u64 + page)) {
                    shape.again += 1;
                    shape.first_again = shape.first_again.min(begins);
                }
            }
            begins += span.len();
        }
        at += taken;
    }
    shape.distinct = seen.len() as u64;
    shape
}
