//! Multifd connections: `migration/multifd.c`.

use super::blocks::BlockTable;
use super::bytes::{be32, be64};
use super::parser::{Bodies, Step};
use super::progress::{StreamPhase, Tracker};
use super::sniff::MULTIFD_MAGIC;
use crate::limits::{MULTIFD_PACKET_HEADER_BYTES, MULTIFD_PACKET_PAGES, PAGE_BYTES};

/// `MultiFDInit_t`: magic, version, UUID, the connection's number, room.
pub(super) const HANDSHAKE_BYTES: usize = 64;
/// The fixed part of `MultiFDPacket_t`; the offsets follow.
pub(super) const PACKET_FIXED_BYTES: usize = 320;
const RAMBLOCK_AT: usize = 64;
/// `MultiFDPacketDeviceState_t` (QEMU 10.0): magic, version, flags, name[256], instance, size.
const DEVICE_STATE_BYTES: usize = 276;

/// Five bits from bit 1 on: how the pages are compressed, 0 is not at all.
const FLAGS_COMPRESSION: u32 = 0x1f << 1;
const FLAG_SYNC: u32 = 1;
const FLAG_DEVICE_STATE: u32 = 32 << 1;

/// Where a multifd connection stands.
#[derive(Debug, Default)]
pub(super) struct Multifd {
    shaken: bool,
}

impl Multifd {
    /// Reads the handshake or the packet header at the start of `buf`. Of an uncompressed packet it leaves the
    /// pages in `bodies`.
    pub(super) fn step(
        &mut self,
        buf: &[u8],
        bodies: &mut Bodies,
        blocks: &mut BlockTable,
        tracker: &mut Tracker,
    ) -> Step {
        if !self.shaken {
            if buf.len() < HANDSHAKE_BYTES {
                return Step::Incomplete;
            }
            self.shaken = true;
            tracker.enter(StreamPhase::Precopy);
            return Step::Opaque(HANDSHAKE_BYTES as u64);
        }
        if buf.iter().zip(MULTIFD_MAGIC).any(|(have, want)| *have != want) {
            return Step::Lost;
        }
        let Some(flags) = be32(buf, 8) else { return Step::Incomplete };
        if flags & !(FLAG_SYNC | FLAGS_COMPRESSION | FLAG_DEVICE_STATE) != 0 {
            return Step::Lost;
        }
        if flags & FLAG_DEVICE_STATE != 0 {
            return match be32(buf, DEVICE_STATE_BYTES - 4) {
                Some(size) => Step::Opaque(DEVICE_STATE_BYTES as u64 + u64::from(size)),
                None => Step::Incomplete,
            };
        }
        match buf.get(..MULTIFD_PACKET_HEADER_BYTES) {
            Some(header) => Self::packet(header, flags, bodies, blocks, tracker),
            None => Step::Incomplete,
        }
    }

    fn packet(
        header: &[u8],
        flags: u32,
        bodies: &mut Bodies,
        blocks: &mut BlockTable,
        tracker: &mut Tracker,
    ) -> Step {
        let field = |at| be32(header, at).unwrap_or(0);
        let (allocated, normal, size, zero) = (field(12), field(16), field(20), field(32));
        // A full packet is 512 KiB of pages, and its header has room for all their offsets. Another number means
        // another page size. From QEMU 9.1 on a packet that only synchronises leaves the number at 0.
        let pages_max = MULTIFD_PACKET_PAGES as u32;
        if (allocated != pages_max && allocated != 0)
            || u64::from(normal) + u64::from(zero) > u64::from(allocated)
        {
            return Step::Lost;
        }
        tracker.packet(normal, zero);
        let whole = Step::Opaque(MULTIFD_PACKET_HEADER_BYTES as u64 + u64::from(size));
        if normal == 0
            || flags & FLAGS_COMPRESSION != 0
            || u64::from(normal) * PAGE_BYTES as u64 != u64::from(size)
        {
            return whole;
        }
        let name = &header[RAMBLOCK_AT..PACKET_FIXED_BYTES];
        let name = name.split(|byte| *byte == 0).next().unwrap_or(name);
        let Some(block) = blocks.intern(name) else { return whole };
        let offsets = (0..normal as usize).map_while(|i| be64(header, PACKET_FIXED_BYTES + 8 * i));
        if bodies.set(block, offsets) { Step::Opaque(MULTIFD_PACKET_HEADER_BYTES as u64) } else { whole }
    }
}
