//! Every bound of the guest in one place.

use std::time::Duration;

/// Bytes of a page: x86's, and what QEMU's migration works in.
pub(crate) const PAGE_BYTES: usize = 4096;

/// The longest command taken from the serial port; what is longer is answered with `ERROR`.
pub(crate) const COMMAND_BYTES_MAX: usize = 128;

/// After so many `BAD` lines only the count goes on, so that a lost migration does not flood the serial port.
pub(crate) const BAD_LINES_MAX: u64 = 16;

/// Memory that `fill` leaves to the kernel: page tables of the fill itself, sockets of nobody, slab.
pub(crate) const FILL_RESERVE_BYTES: u64 = 24 << 20;

/// ... or this share of the memory in use, whichever is more.
pub(crate) const FILL_RESERVE_DIVISOR: u64 = 64;

/// The dirtier forgets what it is behind by more than this: it holds a rate, it does not catch up with a pause.
pub(crate) const DIRTY_DEBT_MAX: Duration = Duration::from_millis(100);

/// Pages rewritten before the working set is offered to a waiting sweep.
pub(crate) const DIRTY_BURST_PAGES: u64 = 32;

/// How long the loop sleeps when it is ahead of its rate.
pub(crate) const DRIVE_TICK: Duration = Duration::from_millis(1);

/// What a workload of programs may be behind: their steps vary more than a page does, and a second evens that out.
pub(crate) const PROGRAM_DEBT_MAX: Duration = Duration::from_secs(1);

/// For a program of the image to be ready. Emulation makes it slow; a guest that never comes up ends after this.
pub(crate) const PROGRAM_WAIT: Duration = Duration::from_secs(60);

/// For the disk to appear after its driver was loaded.
pub(crate) const DISK_WAIT: Duration = Duration::from_secs(10);

/// Requests that go to redis together: what one tick may bring at any rate that an emulated processor holds.
pub(crate) const REDIS_BURST_REQUESTS: u64 = 16;

/// The shortest value in redis; the longest is a page.
pub(crate) const REDIS_VALUE_BYTES_MIN: usize = 512;

/// The longest string taken from redis: no value is longer than a page.
pub(crate) const REPLY_BYTES_MAX: usize = 64 << 10;

/// The longest line taken from redis; its error messages are shorter.
pub(crate) const REPLY_LINE_BYTES_MAX: u64 = 4096;

/// Text of one row: half a page of the database, so that rows share pages.
pub(crate) const DATABASE_TEXT_BYTES: usize = 1900;

/// Rows that are filled in by one transaction: its log is as large as they are, and both have to fit into memory.
pub(crate) const DATABASE_ROWS_A_COMMIT: usize = 16_384;

/// Rows that a transaction writes anew.
pub(crate) const DATABASE_ROWS_A_TRANSACTION: usize = 4;

/// Rows of the history, beyond which it takes the place of older ones.
pub(crate) const DATABASE_HISTORY_ROWS: u64 = 16_384;

/// Rows read back in one piece when the database is verified: half a megabyte of text.
pub(crate) const DATABASE_ROWS_A_LOOK: usize = 256;

/// The longest line taken from the database's shell: a row is shorter.
pub(crate) const SQL_LINE_BYTES_MAX: u64 = 64 << 10;

/// Sources that are compiled in turn: each is compiled once before the guest is ready, which takes seconds.
pub(crate) const COMPILE_SOURCES_MAX: usize = 4;

/// Files are read and known in blocks of this size.
pub(crate) const DISK_BLOCK_BYTES: usize = 64 << 10;

/// Reading the disk ends when no more than this is left of memory, or the cache would push out its own beginning.
pub(crate) const DISK_FREE_BYTES_MIN: u64 = 64 << 20;

/// Blocks read before a waiting verification is let in.
pub(crate) const DISK_READ_BURST: u64 = 8;
