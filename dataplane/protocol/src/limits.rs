//! Every bound of the protocol in one place, with what it bounds and why that much is enough.
//! Relations between bounds are asserted at compile time.

/// Bytes of a guest page, QEMU's `TARGET_PAGE_SIZE` on x86-64 and arm64.
pub const PAGE_BYTES: usize = 4096;

/// Most guest bytes in one batch: the unit of ingress reads, verification and acknowledgement.
/// Large enough that a system call, a digest finalisation and an acknowledgement cost under 1 % of moving it.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Most bytes that the hypervisor parser may leave unconsumed for the caller to put in front of the next buffer.
/// The longest record that it wants whole is a RAM record with its page (`8 + 1 + 255 + 4096` bytes).
pub const CARRY_BYTES_MAX: usize = 2 * PAGE_BYTES;

/// Most RAM blocks that the parser tells apart on one connection. QEMU has a few tens; past this the connection
/// is carried as opaque bytes.
pub const RAM_BLOCKS_MAX: usize = 1024;

/// Most bytes of a RAM block's name: QEMU sends its length in one byte.
pub const RAM_BLOCK_NAME_BYTES_MAX: usize = 255;

/// Most bytes of a machine type's name; QEMU's longest has about 30.
pub const MACHINE_NAME_BYTES_MAX: usize = 255;

/// Most capabilities that a stream's configuration section may list; QEMU 10 has 25.
pub const CAPABILITIES_MAX: u32 = 256;

/// Pages in a full multifd packet: QEMU's `MULTIFD_PACKET_SIZE` (512 KiB) in pages.
pub const MULTIFD_PACKET_PAGES: usize = 128;

/// Bytes that come before the pages of a multifd packet: the fixed part and one offset a page.
pub const MULTIFD_PACKET_HEADER_BYTES: usize = 320 + 8 * MULTIFD_PACKET_PAGES;

const _: () = assert!(8 + 1 + RAM_BLOCK_NAME_BYTES_MAX + PAGE_BYTES < CARRY_BYTES_MAX);
const _: () = assert!(MULTIFD_PACKET_HEADER_BYTES < CARRY_BYTES_MAX);
const _: () = assert!(1 + 4 + MACHINE_NAME_BYTES_MAX < CARRY_BYTES_MAX);
const _: () = assert!(CARRY_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(RAM_BLOCKS_MAX <= u16::MAX as usize + 1);
