//! What is a batch like, and is it worth compressing? Asked before any work, so that incompressible batches pass almost for
//! free.

use lz4::block::{CompressionMode, compress_bound, compress_to_buffer};

use super::Effort;

/// Pieces looked at, evenly spaced over the batch.
const PIECES: usize = 8;
/// Bytes of a piece: enough for lz4 to find what repeats within a page.
const PIECE_BYTES: usize = 512;
/// Bytes looked at in all: under 2 % of a full batch.
const SAMPLE_BYTES: usize = PIECES * PIECE_BYTES;

/// What a batch is like, from a sample of it: batches of a kind cost about the same and shrink about as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    /// lz4 gains nothing, yet some bytes are more frequent than others.
    pub(super) const UNEVEN: Kind = Kind(8);
    /// Nothing is gained.
    const RANDOM: Kind = Kind(9);
    /// How many there are.
    pub(crate) const COUNT: usize = 10;
    /// All of them.
    pub(crate) const ALL: [Kind; Kind::COUNT] = {
        let mut all = [Kind(0); Kind::COUNT];
        let mut at = 0;
        while at < all.len() {
            all[at] = Kind(at as u8);
            at += 1;
        }
        all
    };

    /// Its place in [`Kind::ALL`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// How many kinds lie between this one and another that lz4 shrinks as well; `None`: they have nothing in common.
    pub(super) fn away(self, other: Kind) -> Option<i32> {
        let alike = self == other || self.0.max(other.0) < Kind::UNEVEN.0;
        alike.then(|| i32::from(self.0.abs_diff(other.0)))
    }

    /// Whether any effort is likely to make it shorter.
    pub(super) fn may_shrink(self) -> bool {
        self != Kind::RANDOM
    }

    /// About how much of the sample lz4 left.
    pub(super) fn share(self) -> f64 {
        if self.0 < Kind::UNEVEN.0 { (f64::from(self.0) + 0.5) / 8.0 } else { 1.0 }
    }

    /// Whether compressing with `effort` is likely to pay.
    pub(super) fn pays(self, effort: Effort) -> bool {
        match effort {
            Effort::Raw => false,
            Effort::Lz4 => self.0 < Kind::UNEVEN.0,
            Effort::Zstd { .. } => self.may_shrink(),
        }
    }
}

/// Looks at samples of batches.
pub(super) struct Sampler {
    gathered: [u8; SAMPLE_BYTES],
    compressed: Vec<u8>,
}

impl Sampler {
    pub(super) fn new() -> Self {
        let bound = compress_bound(SAMPLE_BYTES).unwrap_or(2 * SAMPLE_BYTES);
        Self { gathered: [0; SAMPLE_BYTES], compressed: vec![0; bound] }
    }

    /// Whether compressing `input` with `effort` is likely to pay.
    pub(super) fn compressible(&mut self, input: &[u8], effort: Effort) -> bool {
        effort != Effort::Raw && self.kind(input).pays(effort)
    }

    /// What `input` is like.
    pub(super) fn kind(&mut self, input: &[u8]) -> Kind {
        let sample = self.gather(input);
        let mode = Some(CompressionMode::FAST(1));
        // The buffer has lz4's own bound: it cannot fail for want of room, and any failure only means "no".
        let len = self.gathered[..sample].len();
        let packed = compress_to_buffer(&self.gathered[..sample], mode, false, &mut self.compressed);
        // A sixteenth: one piece of the eight that shrinks well is enough, framing noise is not.
        match packed {
            Ok(packed) if packed + len / 16 <= len => Kind((packed * 8 / len.max(1)) as u8),
            // zstd also gains where nothing repeats but bytes are unevenly used (text in base64, sensor data).
            _ if uneven(&self.gathered[..sample]) => Kind::UNEVEN,
            _ => Kind::RANDOM,
        }
    }

    /// Copies the pieces together; returns their length.
    fn gather(&mut self, input: &[u8]) -> usize {
        if input.len() <= SAMPLE_BYTES {
            self.gathered[..input.len()].copy_from_slice(input);
            return input.len();
        }
        // The stride is no multiple of a page, so the pieces fall on different parts of their pages.
        let stride = (input.len() - PIECE_BYTES) / (PIECES - 1);
        for (i, piece) in self.gathered.chunks_exact_mut(PIECE_BYTES).enumerate() {
            piece.copy_from_slice(&input[i * stride..][..PIECE_BYTES]);
        }
        SAMPLE_BYTES
    }
}

/// Whether bytes coincide clearly more often than uniform ones would: the sum of squared counts of `n` uniform
/// bytes is about `n^2 / 256 + n`.
fn uneven(sample: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let sum: u64 = counts.iter().map(|count| u64::from(*count) * u64::from(*count)).sum();
    let n = sample.len() as u64;
    sum * 4 > (n * n / 256 + n) * 5
}

#[cfg(test)]
mod tests {
    use super::super::encode::tests::{noise, text};
    use super::*;

    const ZSTD: Effort = Effort::Zstd { level: 1 };

    #[test]
    fn random_bytes_are_refused_and_text_is_taken() {
        let mut sampler = Sampler::new();
        for seed in 0..200 {
            for len in [512, 4096, 5000, 100_000, 256 * 1024] {
                let random = noise(seed, len);
                assert!(!sampler.compressible(&random, Effort::Lz4), "seed {seed} len {len}");
                assert!(!sampler.compressible(&random, ZSTD), "seed {seed} len {len}");
            }
        }
        for len in [512, 4096, 5000, 256 * 1024] {
            assert!(sampler.compressible(&text(1, len), Effort::Lz4));
            assert!(sampler.compressible(&text(1, len), ZSTD));
            assert!(!sampler.compressible(&text(1, len), Effort::Raw));
        }
    }

    #[test]
    fn few_symbols_without_repetition_are_for_zstd() {
        let base64: Vec<u8> = noise(7, 256 * 1024).iter().map(|byte| b'0' + byte % 64).collect();
        let mut sampler = Sampler::new();
        assert!(!sampler.compressible(&base64, Effort::Lz4));
        assert!(sampler.compressible(&base64, ZSTD));
    }

    #[test]
    fn a_quarter_of_zero_pages_is_noticed() {
        let mut input = noise(3, 64 * 4096);
        for page in input.chunks_exact_mut(4096).step_by(4) {
            page.fill(0);
        }
        assert!(Sampler::new().compressible(&input, Effort::Lz4));
    }
}
