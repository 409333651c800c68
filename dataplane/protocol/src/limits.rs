//! Every bound of the protocol in one place, with what it bounds and why that much is enough.
//! Relations between bounds are asserted at compile time.

/// Bytes of a guest page, QEMU's `TARGET_PAGE_SIZE` on x86-64 and arm64.
pub const PAGE_BYTES: usize = 4096;

/// Most guest bytes in one batch: the unit of ingress reads, verification and acknowledgement.
/// Large enough that a system call, a digest finalisation and an acknowledgement cost under 1 % of moving it.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
