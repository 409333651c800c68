//! Two sessions, a network between them and hypervisors beside them, all driven by a script.
//!
//! Two kinds of run. In an *honest* one the network keeps its contract (whole frames, in order on a stream, or the
//! stream is dead), streams come and go, and clocks and hypervisors do what they like: the bytes that come out are
//! those that went in, nothing breaks the protocol, and at the end, given a good stream, everything is delivered
//! and both sides finish. In a *hostile* one frames are also changed, repeated, reordered, dropped and made up: no
//! side panics, holds more than it reserved, hands out a byte that was not written, or says anything more once it
//! has failed.
//!
//! Input: a byte of options, the windows' size, then operations of [`OPERATIONS`] until it ends.

mod hostile;
mod world;

use crate::input::Input;
use world::World;

/// Bit 0 of the options: the network is hostile.
pub const HOSTILE: u8 = 1;
/// Bit 1: batches carry no digest. Not in a hostile run: there the digest is what keeps bytes true.
pub const NO_DIGEST: u8 = 2;
/// Bit 2: windows of a few kilobytes instead of a megabyte.
pub const SMALL_WINDOWS: u8 = 4;
/// Bit 3: zstd instead of lz4; bits 4 and 5: one to four lanes.
pub const ZSTD: u8 = 8;
/// Bit 6: codec work is done by three workers, late.
pub const WORKERS: u8 = 64;

/// A stream comes up: which.
pub const STREAM_UP: u8 = 0;
/// One side loses a stream: side, which.
pub const STREAM_LOST: u8 = 1;
/// Frames go to a stream: side, which, how many.
pub const SEND: u8 = 2;
/// Frames arrive: to which side, on which stream, how many.
pub const ARRIVE: u8 = 3;
/// A hypervisor writes: side, connection, how much.
pub const WRITE: u8 = 4;
/// A hypervisor reads: side, connection, how much.
pub const READ: u8 = 5;
/// A hypervisor closes its writing side: side, connection.
pub const CLOSE: u8 = 6;
/// The source's hypervisor connects.
pub const CONNECT: u8 = 7;
/// Time passes: how much.
pub const WAIT: u8 = 8;
/// A side's caller gives up, if the argument is 255: side.
pub const CANCEL: u8 = 9;
/// Everything moves: all frames of both sides on one stream, several times over.
pub const EXCHANGE: u8 = 10;
/// A frame under way is changed: to which side, on which stream; where, and by what.
pub const CHANGE: u8 = 11;
/// A frame under way is repeated, dropped or goes last: to which side, on which stream, which of these.
pub const DISORDER: u8 = 12;
/// A frame is made up: to which side, on which stream; kind, lane, sequence, payload.
pub const MAKE_UP: u8 = 13;
/// A batch that fits is made up: to which side, on which stream; connection, how far ahead, how much.
pub const FIT: u8 = 14;
/// How many operations there are.
pub const OPERATIONS: u8 = 15;

/// Most operations of one run: what an input of ordinary length has.
const STEPS_MAX: usize = 2000;

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut world = World::new(input.byte(), input.byte());
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.check();
    }
    world.end();
}
