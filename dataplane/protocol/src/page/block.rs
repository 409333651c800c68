//! A block: bytes that are compressed together, or left as they are where that does not pay.

use std::fmt;

use lz4::block::{CompressionMode, compress_bound, compress_to_buffer, decompress_to_buffer};
use zstd_safe::{CCtx, CParameter, DCtx, DParameter};

use super::Effort;
use crate::limits::{BATCH_LEN_MAX, ZSTD_LEVEL_MAX, ZSTD_LEVEL_MIN, ZSTD_WINDOW_LOG_MAX};

/// How a block is coded, by its number on the wire. Numbers from 3 on are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// 0: the bytes themselves.
    Raw,
    /// 1: one lz4 block, without a frame.
    Lz4,
    /// 2: one zstd frame that carries its content size.
    Zstd,
}

impl Codec {
    /// The number on the wire.
    pub fn id(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }

    /// The codec with that number, if there is one.
    pub fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// Why a block could not be decoded. Nothing of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The codec number is reserved: the peer is newer, or the bytes are not a block.
    Codec {
        /// The number.
        id: u8,
    },
    /// The decoded length is above what the place allows.
    TooLong {
        /// Declared decoded bytes.
        decoded: usize,
        /// Most that is allowed here.
        max: usize,
    },
    /// A raw block whose length is not the declared one, or a compressed one that is no shorter than its content.
    Length {
        /// Codec of the block.
        codec: Codec,
        /// Bytes that are there.
        encoded: usize,
        /// Declared decoded bytes.
        decoded: usize,
    },
    /// The compressed bytes are damaged or decode to another length than declared.
    Corrupt {
        /// Codec of the block.
        codec: Codec,
        /// Declared decoded bytes.
        decoded: usize,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec { id } => write!(f, "codec {id} is not one of raw (0), lz4 (1), zstd (2)"),
            Self::TooLong { decoded, max } => {
                write!(f, "declares {decoded} decoded bytes where {max} are allowed")
            }
            Self::Length { codec, encoded, decoded } => {
                write!(f, "{encoded} bytes of {codec:?} cannot stand for {decoded} decoded bytes")
            }
            Self::Corrupt { codec, decoded } => {
                write!(f, "{codec:?} bytes do not decode to the declared {decoded} bytes")
            }
        }
    }
}

impl std::error::Error for BlockError {}

/// Blocks shorter than this stay raw: a frame header and a codec call cost more than they save.
const COMPRESS_FROM_BYTES: usize = 64;

/// Compresses blocks; owns what codecs need between calls.
pub(super) struct Compressor {
    zstd: CCtx<'static>,
    /// The level that `zstd` is set to.
    level: Option<i32>,
    /// As long as the longest compressed block yet: codecs write here, what pays is copied on.
    scratch: Vec<u8>,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self { zstd: CCtx::create(), level: None, scratch: Vec::new() }
    }

    /// Appends `block`, coded as `effort` allows, to `out`; returns the codec that was taken.
    ///
    /// Never appends more than `block.len()` bytes.
    pub(super) fn append(&mut self, block: &[u8], effort: Effort, out: &mut Vec<u8>) -> Codec {
        if let Some((codec, len)) = self.compress(block, effort)
            // Saving less than a thirty-second is not worth the far side's decoding.
            && len + block.len() / 32 < block.len()
        {
            out.extend_from_slice(&self.scratch[..len]);
            return codec;
        }
        out.extend_from_slice(block);
        Codec::Raw
    }

    /// Compresses into the scratch buffer. None: not asked for, too short, too long, or the codec failed.
    fn compress(&mut self, block: &[u8], effort: Effort) -> Option<(Codec, usize)> {
        if block.len() < COMPRESS_FROM_BYTES || block.len() > BATCH_LEN_MAX {
            return None;
        }
        match effort {
            Effort::Raw => None,
            Effort::Lz4 => {
                // With lz4's own bound it cannot run out of room, so its failure path never allocates.
                self.room(compress_bound(block.len()).ok()?);
                let mode = Some(CompressionMode::FAST(1));
                let len = compress_to_buffer(block, mode, false, &mut self.scratch).ok()?;
                Some((Codec::Lz4, len))
            }
            Effort::Zstd { level } => {
                self.set_level(level.clamp(ZSTD_LEVEL_MIN, ZSTD_LEVEL_MAX))?;
                self.room(zstd_safe::compress_bound(block.len()));
                let len = self.zstd.compress2(&mut self.scratch[..], block).ok()?;
                Some((Codec::Zstd, len))
            }
        }
    }

    fn room(&mut self, bytes: usize) {
        if self.scratch.len() < bytes {
            self.scratch.resize(bytes, 0);
        }
    }

    fn set_level(&mut self, level: i32) -> Option<()> {
        if self.level != Some(level) {
            self.level = None;
            self.zstd.set_parameter(CParameter::CompressionLevel(level)).ok()?;
            self.zstd.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG_MAX)).ok()?;
            // Every batch is verified as a whole by its digest: a checksum per block would be paid twice.
            self.zstd.set_parameter(CParameter::ChecksumFlag(false)).ok()?;
            self.level = Some(level);
        }
        Some(())
    }
}

/// Decompresses blocks; owns what codecs need between calls.
pub(super) struct Decompressor {
    zstd: DCtx<'static>,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        let mut zstd = DCtx::create();
        // Whole frames decode straight into the output and need no window, so this binds only if someone makes
        // this a streaming decoder. The value is in zstd's range, so setting it cannot fail.
        let _ = zstd.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
        Self { zstd }
    }

    /// Decodes `encoded` into all of `out`. The caller has bounded `out`; work is bounded by both lengths.
    pub(super) fn decode(&mut self, codec: Codec, encoded: &[u8], out: &mut [u8]) -> Result<(), BlockError> {
        let decoded = out.len();
        let fits = match codec {
            Codec::Raw => encoded.len() == decoded,
            _ => encoded.len() < decoded,
        };
        if !fits {
            return Err(BlockError::Length { codec, encoded: encoded.len(), decoded });
        }
        if decoded > BATCH_LEN_MAX {
            return Err(BlockError::TooLong { decoded, max: BATCH_LEN_MAX });
        }
        let corrupt = BlockError::Corrupt { codec, decoded };
        let written = match codec {
            Codec::Raw => {
                out.copy_from_slice(encoded);
                decoded
            }
            Codec::Lz4 => {
                decompress_to_buffer(encoded, i32::try_from(decoded).ok(), out).map_err(|_| corrupt)?
            }
            Codec::Zstd => {
                // Refused before any work: another length than declared, or more than one frame.
                match zstd_safe::get_frame_content_size(encoded) {
                    Ok(Some(size)) if size == decoded as u64 => {}
                    _ => return Err(corrupt),
                }
                if zstd_safe::find_frame_compressed_size(encoded) != Ok(encoded.len()) {
                    return Err(corrupt);
                }
                self.zstd.decompress(out, encoded).map_err(|_| corrupt)?
            }
        };
        if written == decoded { Ok(()) } else { Err(corrupt) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::tests::{noise, text};
    use super::*;
    use crate::limits::ZSTD_COMPRESSOR_BYTES_MAX;

    const EFFORTS: [Effort; 4] =
        [Effort::Raw, Effort::Lz4, Effort::Zstd { level: 1 }, Effort::Zstd { level: i32::MAX }];

    #[test]
    fn blocks_come_back_and_never_grow() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        for effort in EFFORTS {
            for len in [0, 1, 63, 64, 65, 4096, 65536, BATCH_LEN_MAX] {
                for block in [text(1, len), noise(1, len), vec![0; len]] {
                    let mut encoded = vec![0xee];
                    let codec = compressor.append(&block, effort, &mut encoded);
                    assert!(encoded.len() - 1 <= len);
                    let mut out = vec![0x55; len];
                    decompressor.decode(codec, &encoded[1..], &mut out).unwrap();
                    assert_eq!(out, block);
                }
            }
        }
    }

    #[test]
    fn codecs_are_taken_where_they_pay() {
        let mut compressor = Compressor::new();
        let mut out = Vec::new();
        assert_eq!(compressor.append(&text(1, 65536), Effort::Lz4, &mut out), Codec::Lz4);
        assert_eq!(compressor.append(&text(1, 65536), Effort::Zstd { level: 3 }, &mut out), Codec::Zstd);
        assert_eq!(compressor.append(&noise(1, 65536), Effort::Zstd { level: 3 }, &mut out), Codec::Raw);
        assert_eq!(compressor.append(&text(1, 65536), Effort::Raw, &mut out), Codec::Raw);
    }

    /// A caller chooses the level; what it costs in memory stays bounded at the strongest.
    #[test]
    fn no_level_takes_more_memory_than_promised() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        let block = text(1, BATCH_LEN_MAX);
        for level in [ZSTD_LEVEL_MIN, 0, 19, ZSTD_LEVEL_MAX] {
            let mut encoded = Vec::new();
            assert_eq!(compressor.append(&block, Effort::Zstd { level }, &mut encoded), Codec::Zstd);
            let bytes = compressor.zstd.sizeof();
            assert!(bytes <= ZSTD_COMPRESSOR_BYTES_MAX, "level {level} takes {bytes} bytes");
            let mut out = vec![0; block.len()];
            decompressor.decode(Codec::Zstd, &encoded, &mut out).unwrap();
            assert!(out == block);
        }
    }

    // DWCP-50
    #[test]
    fn another_length_than_declared_is_refused() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        for effort in EFFORTS {
            let mut encoded = Vec::new();
            let codec = compressor.append(&[7; 8192], effort, &mut encoded);
            for len in [8191, 8193, 4096, 1, 0, BATCH_LEN_MAX] {
                assert!(decompressor.decode(codec, &encoded, &mut vec![0; len]).is_err(), "{effort:?} {len}");
            }
            let cut = &encoded[..encoded.len() - 1];
            assert!(decompressor.decode(codec, cut, &mut [0; 8192]).is_err(), "{effort:?} cut");
        }
        let too_long = &mut vec![0; BATCH_LEN_MAX + 1];
        assert!(matches!(decompressor.decode(Codec::Lz4, &[0], too_long), Err(BlockError::TooLong { .. })));
    }

    // DWCP-50
    #[test]
    fn a_second_zstd_frame_is_refused() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        let mut encoded = Vec::new();
        compressor.append(&[7; 8192], Effort::Zstd { level: 1 }, &mut encoded);
        decompressor.decode(Codec::Zstd, &encoded, &mut [0; 8192]).unwrap();
        // A skippable frame (RFC 8878, 3.1.2) of no bytes.
        encoded.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
        let corrupt = BlockError::Corrupt { codec: Codec::Zstd, decoded: 8192 };
        assert_eq!(decompressor.decode(Codec::Zstd, &encoded, &mut [0; 8192]), Err(corrupt));
    }

    #[test]
    fn ids_are_stable() {
        for (id, codec) in [(0, Codec::Raw), (1, Codec::Lz4), (2, Codec::Zstd)] {
            assert_eq!(codec.id(), id);
            assert_eq!(Codec::from_id(id), Some(codec));
        }
        assert_eq!(Codec::from_id(3), None);
    }
}
