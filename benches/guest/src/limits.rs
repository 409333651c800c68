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
