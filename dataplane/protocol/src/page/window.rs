//! zstd that remembers: one frame for many parts of a lane, so that a part refers to what stood in earlier ones.
//!
//! A part ends with a flush (RFC 8878 calls what stands between two a block): what was put in so far can be decoded. Long matches
//! are found through zstd's table of them (`--long`), because the ordinary ones of a fast level reach half a mebibyte.

use zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective,
};

use std::sync::Arc;

use super::content::{ContentKey, KnownContent, ReceivedContent, SentContent};
use crate::limits::{PART_BYTES_MAX, WINDOW_LEVEL_PATIENCE, ZSTD_LEVEL_MAX, ZSTD_LEVEL_MIN};

/// At this level zstd looks in two tables, of matches of 8 bytes and more and of fewer (`dfast`). Long matches are found through their own
/// table here, so tables that the nearest caches hold find as much, and shorter matches pay.
const LEVEL_OF_TWO_TABLES: i32 = 3;
const TWO_TABLES_LOG: [u32; 2] = [15, 16];
const SHORTEST_MATCH: u32 = 4;

/// One position in 2^8 goes into the table of long matches: what repeats is a few hundred bytes and more, or was found as a difference.
const LONG_MATCH_RATE_LOG: u32 = 8;

/// From here on levels make their tables as large as the window unless they are told otherwise.
const LEVEL_OF_LARGE_TABLES: i32 = 4;

/// Entries of a table at such a level, as a power of two.
const TABLE_LOG: u32 = 18;

/// An end of a lane's window.
pub(super) trait Window {
    /// What this end needs of the content store.
    type Content;
    /// What the last part of the lane was about.
    type Last: Default;
    /// Of a lane that has carried nothing; the window is this power of two.
    fn new(log: u32) -> Self;
    /// Bytes taken, tables included.
    fn held_bytes(&self) -> u64;
}

/// The encoder's end of a lane's window.
pub struct WindowEncoder {
    log: u32,
    zstd: CCtx<'static>,
    /// The level of the frame that is open.
    level: Option<i32>,
    /// Parts in a row for which another level was asked.
    other_level: u32,
}

impl Window for WindowEncoder {
    type Content = Arc<KnownContent>;
    type Last = SentContent;

    fn new(log: u32) -> Self {
        Self { log, zstd: CCtx::create(), level: None, other_level: 0 }
    }

    fn held_bytes(&self) -> u64 {
        self.zstd.sizeof() as u64
    }
}

impl WindowEncoder {
    /// Appends `block` to `out`, coded so that it may refer to earlier ones; returns whether a new frame begins with it, or `None`
    /// where the codec failed: nothing was appended then, and the next block begins a frame.
    ///
    /// A frame has one level. Another one begins a new frame, which remembers nothing: only once it was asked for many
    /// times in a row.
    pub(super) fn append(&mut self, block: &[u8], level: i32, out: &mut Vec<u8>) -> Option<bool> {
        let level = level.clamp(ZSTD_LEVEL_MIN, ZSTD_LEVEL_MAX);
        self.other_level = if self.level == Some(level) { 0 } else { self.other_level + 1 };
        let begins = self.level.is_none() || self.other_level > WINDOW_LEVEL_PATIENCE;
        let began = out.len();
        let appended = self.try_append(block, begins.then_some(level), out);
        if appended.is_none() {
            out.truncate(began);
            self.level = None;
        }
        appended.map(|()| begins)
    }

    fn try_append(&mut self, block: &[u8], begin: Option<i32>, out: &mut Vec<u8>) -> Option<()> {
        if let Some(level) = begin {
            self.begin(level)?;
        }
        let mut input = InBuffer::around(block);
        loop {
            out.reserve(zstd_safe::compress_bound(block.len() - input.pos()) + 64);
            let at = out.len();
            let mut output = OutBuffer::around_pos(out, at);
            let left =
                self.zstd.compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_flush).ok()?;
            if left == 0 && input.pos() == block.len() {
                return Some(());
            }
        }
    }

    fn begin(&mut self, level: i32) -> Option<()> {
        let zstd = &mut self.zstd;
        zstd.reset(ResetDirective::SessionAndParameters).ok()?;
        zstd.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        zstd.set_parameter(CParameter::WindowLog(self.log)).ok()?;
        zstd.set_parameter(CParameter::EnableLongDistanceMatching(true)).ok()?;
        zstd.set_parameter(CParameter::LdmHashRateLog(LONG_MATCH_RATE_LOG)).ok()?;
        // Every batch is verified as a whole by its digest.
        zstd.set_parameter(CParameter::ChecksumFlag(false)).ok()?;
        if level == LEVEL_OF_TWO_TABLES {
            zstd.set_parameter(CParameter::HashLog(TWO_TABLES_LOG[0])).ok()?;
            zstd.set_parameter(CParameter::ChainLog(TWO_TABLES_LOG[1])).ok()?;
            zstd.set_parameter(CParameter::MinMatch(SHORTEST_MATCH)).ok()?;
        }
        if level >= LEVEL_OF_LARGE_TABLES {
            zstd.set_parameter(CParameter::HashLog(TABLE_LOG)).ok()?;
            zstd.set_parameter(CParameter::ChainLog(TABLE_LOG)).ok()?;
        }
        (self.level, self.other_level) = (Some(level), 0);
        Some(())
    }
}

/// The decoder's end of a lane's window.
pub struct WindowDecoder {
    zstd: DCtx<'static>,
    open: bool,
}

impl Window for WindowDecoder {
    type Content = Arc<ContentKey>;
    type Last = ReceivedContent;

    fn new(log: u32) -> Self {
        let mut zstd = DCtx::create();
        // Within zstd's range, so it cannot fail; a frame that asks for more is refused.
        let _ = zstd.set_parameter(DParameter::WindowLogMax(log));
        Self { zstd, open: false }
    }

    fn held_bytes(&self) -> u64 {
        self.zstd.sizeof() as u64
    }
}

impl WindowDecoder {
    /// Decodes a block into all of `out`, with `begins` as the first of a new frame. `None`: it is damaged, of another length, or
    /// belongs to no frame. Work is bounded by both lengths.
    pub(super) fn decode(&mut self, block: &[u8], begins: bool, out: &mut [u8]) -> Option<()> {
        let open = std::mem::take(&mut self.open);
        if out.len() > PART_BYTES_MAX || !(begins || open) {
            return None;
        }
        if begins {
            self.zstd.reset(ResetDirective::SessionOnly).ok()?;
        }
        let len = out.len();
        let mut input = InBuffer::around(block);
        let mut output = OutBuffer::around(out);
        while input.pos() < block.len() {
            let before = (input.pos(), output.pos());
            let wanted = self.zstd.decompress_stream(&mut output, &mut input).ok()?;
            // The frame's end: another would have to begin with a part of its own.
            if wanted == 0 || before == (input.pos(), output.pos()) {
                return None;
            }
        }
        // What was taken in may still wait to be handed out, and must not be more than there is room for.
        while output.pos() < len {
            let before = output.pos();
            self.zstd.decompress_stream(&mut output, &mut InBuffer::around(&[])).ok()?;
            if output.pos() == before {
                return None;
            }
        }
        let mut more = [0; 1];
        let mut beyond = OutBuffer::around(&mut more[..]);
        self.zstd.decompress_stream(&mut beyond, &mut InBuffer::around(&[])).ok()?;
        if beyond.pos() > 0 {
            return None;
        }
        self.open = true;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::tests::{noise, text};
    use super::super::terms::LaneTerms;
    use super::*;
    use crate::limits::WINDOW_LOG_MIN;

    const LEVELS: [i32; 6] = [ZSTD_LEVEL_MIN, 1, 3, 9, 19, ZSTD_LEVEL_MAX];

    #[test]
    fn blocks_come_back_and_refer_to_earlier_ones() {
        for level in LEVELS {
            let (mut encoder, mut decoder) =
                (WindowEncoder::new(WINDOW_LOG_MIN), WindowDecoder::new(WINDOW_LOG_MIN));
            let mut sizes = Vec::new();
            for block in [noise(1, 200_000), text(2, 70_000), noise(3, 1), noise(1, 200_000)] {
                let mut encoded = vec![0xee];
                let begins = encoder.append(&block, level, &mut encoded).unwrap();
                assert_eq!(begins, sizes.is_empty());
                let mut out = vec![0x55; block.len()];
                decoder.decode(&encoded[1..], begins, &mut out).unwrap();
                assert!(out == block);
                sizes.push(encoded.len());
            }
            assert!(sizes[3] < sizes[0] / 100, "level {level}: {sizes:?}");
        }
    }

    /// What the terms promise is what is taken, at any level.
    #[test]
    fn memory_stays_within_its_terms() {
        let log = WINDOW_LOG_MIN;
        let terms = LaneTerms { pages: 0, window_log: Some(log) };
        let block = noise(5, 1 << 18);
        for level in LEVELS {
            let (mut encoder, mut decoder) = (WindowEncoder::new(log), WindowDecoder::new(log));
            for _ in 0..2 << (log - 18) {
                let mut encoded = Vec::new();
                let begins = encoder.append(&block, level, &mut encoded).unwrap();
                decoder.decode(&encoded, begins, &mut vec![0; block.len()]).unwrap();
            }
            for held in [encoder.held_bytes(), decoder.held_bytes()] {
                assert!(held <= terms.bytes_max(), "level {level}: {held} of {}", terms.bytes_max());
            }
        }
    }

    #[test]
    fn another_level_begins_anew_once_it_is_meant() {
        let mut encoder = WindowEncoder::new(WINDOW_LOG_MIN);
        let mut append = |level| encoder.append(&text(1, 5000), level, &mut Vec::new()).unwrap();
        assert!(append(1));
        for _ in 0..3 {
            assert!((0..WINDOW_LEVEL_PATIENCE).all(|_| !append(3)));
            assert!(!append(1), "a level that comes back leaves the frame as it is");
        }
        let begun = (0..WINDOW_LEVEL_PATIENCE + 5).filter(|_| append(3)).count();
        assert_eq!(begun, 1);
    }

    // DWCP-74
    #[test]
    fn hostile_blocks_are_refused() {
        let block = text(1, 50_000);
        let mut encoder = WindowEncoder::new(WINDOW_LOG_MIN);
        let mut encoded = Vec::new();
        encoder.append(&block, 1, &mut encoded).unwrap();
        let refused = |encoded: &[u8], begins, len: usize| {
            WindowDecoder::new(WINDOW_LOG_MIN).decode(encoded, begins, &mut vec![0; len]).is_none()
        };
        assert!(!refused(&encoded, true, block.len()));
        assert!(refused(&encoded, false, block.len()), "no frame is open");
        for len in [0, 1, block.len() - 1, block.len() + 1, PART_BYTES_MAX, PART_BYTES_MAX + 1] {
            assert!(refused(&encoded, true, len), "length {len}");
        }
        for cut in [0, 1, 5, encoded.len() / 2, encoded.len() - 1] {
            assert!(refused(&encoded[..cut], true, block.len()), "cut at {cut}");
        }
        // A frame that has ended, and one with a larger window than agreed.
        let mut whole = vec![0; 60_000];
        let len = CCtx::create().compress(&mut whole[..], &block, 1).unwrap();
        assert!(refused(&whole[..len], true, block.len()));
        let mut large = Vec::new();
        WindowEncoder::new(WINDOW_LOG_MIN + 1).append(&block, 1, &mut large).unwrap();
        assert!(refused(&large, true, block.len()));
        // Sixteen mebibytes in a few hundred bytes: no more work than was asked for.
        let mut bomb = Vec::new();
        WindowEncoder::new(WINDOW_LOG_MIN).append(&vec![0; 16 << 20], 1, &mut bomb).unwrap();
        assert!(bomb.len() < 4096 && refused(&bomb, true, PART_BYTES_MAX));
    }
}
