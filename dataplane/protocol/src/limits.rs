//! Every bound of the protocol in one place, with what it bounds and why that much is enough.
//! Relations between bounds are asserted at compile time.

/// Bytes of a guest page, QEMU's `TARGET_PAGE_SIZE` on x86-64 and arm64.
pub const PAGE_BYTES: usize = 4096;

/// Most guest bytes in one batch: the unit of ingress reads, verification and acknowledgement.
/// Large enough that a system call, a digest finalisation and an acknowledgement cost under 1 % of moving it.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

// ---- Page codec ------------------------------------------------------------------------------------------

/// Most pages in one batch, hence most bodies in one lane's part of it.
pub const BATCH_PAGES_MAX: usize = BATCH_BYTES_MAX / PAGE_BYTES;

/// Largest zstd window, as a power of two: what an encoder asks for and what a decoder admits. A block is at most
/// a batch, so a wider window would find nothing and only cost memory.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 20;

/// Weakest zstd level that a caller may ask for; below it lz4 is faster and as strong.
pub const ZSTD_LEVEL_MIN: i32 = -5;

/// Strongest zstd level that a caller may ask for; the ones above cost many times the processor time for less
/// than a per cent on blocks of this size.
pub const ZSTD_LEVEL_MAX: i32 = 19;

const _: () = assert!(BATCH_BYTES_MAX <= 1 << ZSTD_WINDOW_LOG_MAX, "a window covers a batch");
const _: () = assert!(BATCH_PAGES_MAX <= u16::MAX as usize, "a part counts its pages in 16 bits");
const _: () = assert!(BATCH_BYTES_MAX <= i32::MAX as usize / 2, "lz4 counts bytes in an int");
