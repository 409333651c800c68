//! Streams as QEMU writes them, made without QEMU: for tests, the simulator, fuzzing and benchmarks.
//!
//! [`MainStream`] and [`MultifdStream`] write item by item; [`Plan`] describes a whole migration's main
//! connection and is the same bytes for the same plan.

mod plan;
mod walk;

pub use plan::{Contents, Plan, PlannedPage};
pub use walk::{Piece, join_all, rebuild, walk};

use super::multifd::{HANDSHAKE_BYTES, PACKET_FIXED_BYTES};
use super::ram;
use super::sniff::{MAIN_MAGIC, MULTIFD_MAGIC};
use crate::limits::{MULTIFD_PACKET_HEADER_BYTES, MULTIFD_PACKET_PAGES, PAGE_BYTES};

/// The RAM section's number in every synthetic stream.
const RAM_SECTION: u32 = 2;

/// A generator of bytes that no codec can shrink, the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// Noise from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A page of noise.
    pub fn page(&mut self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        for word in page.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next_u64().to_le_bytes());
        }
        page
    }
}

/// The bytes of a main migration connection, written item by item. Nothing checks the order of items: a test may
/// write what QEMU never would.
#[derive(Clone, Debug, Default)]
pub struct MainStream {
    bytes: Vec<u8>,
    block: Option<String>,
}

impl MainStream {
    /// Magic, version and the configuration section with the machine's name.
    pub fn new(machine: &str) -> Self {
        let mut stream = Self::default();
        stream.raw(&MAIN_MAGIC).raw(&[7]).raw(&(machine.len() as u32).to_be_bytes()).raw(machine.as_bytes());
        stream
    }

    /// The bytes so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Any bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn counted(&mut self, name: &str) -> &mut Self {
        self.raw(&[name.len() as u8]).raw(name.as_bytes())
    }

    /// A command with its payload; see `enum qemu_vm_cmd` for the numbers.
    pub fn command(&mut self, command: u16, payload: &[u8]) -> &mut Self {
        self.raw(&[8]).raw(&command.to_be_bytes()).raw(&(payload.len() as u16).to_be_bytes()).raw(payload)
    }

    /// A nested stream in one package.
    pub fn packaged(&mut self, nested: &[u8]) -> &mut Self {
        self.command(7, &(nested.len() as u32).to_be_bytes()).raw(nested)
    }

    /// A section's header: 1 is START, 4 is FULL.
    pub fn section(&mut self, kind: u8, id: u32, name: &str) -> &mut Self {
        self.raw(&[kind])
            .raw(&id.to_be_bytes())
            .counted(name)
            .raw(&0_u32.to_be_bytes())
            .raw(&4_u32.to_be_bytes())
    }

    /// A section's footer.
    pub fn footer(&mut self, id: u32) -> &mut Self {
        self.raw(&[0x7e]).raw(&id.to_be_bytes())
    }

    /// A whole section of contents that carry no length: 4 is FULL.
    pub fn device(&mut self, kind: u8, id: u32, name: &str, contents: &[u8]) -> &mut Self {
        self.section(kind, id, name).raw(contents).footer(id)
    }

    /// A RAM record's word.
    pub fn word(&mut self, word: u64) -> &mut Self {
        self.raw(&word.to_be_bytes())
    }

    /// RAM's first section: the list of blocks with their lengths in bytes.
    pub fn ram_start(&mut self, blocks: &[(&str, u64)]) -> &mut Self {
        let total: u64 = blocks.iter().map(|block| block.1).sum();
        self.section(1, RAM_SECTION, "ram").word(total | ram::FLAG_MEM_SIZE);
        for (name, len) in blocks {
            self.counted(name).word(*len);
        }
        self.end_ram()
    }

    /// Opens a further RAM section.
    pub fn ram_part(&mut self, last: bool) -> &mut Self {
        self.block = None;
        self.raw(&[if last { 3 } else { 2 }]).raw(&RAM_SECTION.to_be_bytes())
    }

    /// Closes a RAM section.
    pub fn end_ram(&mut self) -> &mut Self {
        self.word(ram::FLAG_EOS).footer(RAM_SECTION)
    }

    /// A record's header, with the block's name where the block changes.
    pub fn header(&mut self, block: &str, offset: u64, flag: u64) -> &mut Self {
        if self.block.as_deref() == Some(block) {
            return self.word(offset | flag | ram::FLAG_CONTINUE);
        }
        self.block = Some(block.to_owned());
        self.word(offset | flag).counted(block)
    }

    /// A page record.
    pub fn page(&mut self, block: &str, offset: u64, page: &[u8; PAGE_BYTES]) -> &mut Self {
        self.header(block, offset, ram::FLAG_PAGE).raw(page)
    }

    /// A zero record.
    pub fn zero(&mut self, block: &str, offset: u64) -> &mut Self {
        self.header(block, offset, ram::FLAG_ZERO).raw(&[0])
    }

    /// An XBZRLE record of any content.
    pub fn xbzrle(&mut self, block: &str, offset: u64, delta: &[u8]) -> &mut Self {
        self.header(block, offset, ram::FLAG_XBZRLE)
            .raw(&[1])
            .raw(&(delta.len() as u16).to_be_bytes())
            .raw(delta)
    }

    /// The flush of multifd.
    pub fn multifd_flush(&mut self) -> &mut Self {
        self.word(ram::FLAG_MULTIFD_FLUSH)
    }

    /// The end marker and the JSON description.
    pub fn end(&mut self, description: &str) -> &mut Self {
        self.raw(&[0]);
        if !description.is_empty() {
            self.raw(&[6]).raw(&(description.len() as u32).to_be_bytes()).raw(description.as_bytes());
        }
        self
    }
}

/// The bytes of a multifd connection, written packet by packet.
#[derive(Clone, Debug)]
pub struct MultifdStream {
    bytes: Vec<u8>,
    packets: u64,
}

impl MultifdStream {
    /// The handshake of connection number `id`.
    pub fn new(id: u8) -> Self {
        let mut bytes = MULTIFD_MAGIC.to_vec();
        bytes.resize(HANDSHAKE_BYTES, 0);
        bytes[24] = id;
        Self { bytes, packets: 0 }
    }

    /// The bytes so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A packet header. `offsets` are the pages' and then the zero pages'; `size` is what the header says of the
    /// contents that follow.
    pub fn header(&mut self, flags: u32, block: &str, normal: u32, offsets: &[u64], size: u32) -> &mut Self {
        let mut header = [0; MULTIFD_PACKET_HEADER_BYTES];
        header[..8].copy_from_slice(&MULTIFD_MAGIC);
        let allocated = if offsets.is_empty() { 0 } else { MULTIFD_PACKET_PAGES as u32 };
        let zero = offsets.len() as u32 - normal;
        for (at, field) in [(8, flags), (12, allocated), (16, normal), (20, size), (32, zero)] {
            header[at..at + 4].copy_from_slice(&field.to_be_bytes());
        }
        header[24..32].copy_from_slice(&self.packets.to_be_bytes());
        header[64..64 + block.len()].copy_from_slice(block.as_bytes());
        for (slot, offset) in header[PACKET_FIXED_BYTES..].chunks_exact_mut(8).zip(offsets) {
            slot.copy_from_slice(&offset.to_be_bytes());
        }
        self.packets += 1;
        self.bytes.extend_from_slice(&header);
        self
    }

    /// A packet of uncompressed pages, 128 at most, each with its offset.
    pub fn packet(&mut self, block: &str, pages: &[(u64, [u8; PAGE_BYTES])], zero: &[u64]) -> &mut Self {
        let mut offsets: Vec<u64> = pages.iter().map(|page| page.0).collect();
        offsets.extend_from_slice(zero);
        self.header(0, block, pages.len() as u32, &offsets, (pages.len() * PAGE_BYTES) as u32);
        for (_, page) in pages {
            self.bytes.extend_from_slice(page);
        }
        self
    }

    /// A packet that only synchronises.
    pub fn sync(&mut self) -> &mut Self {
        self.header(1, "", 0, &[], 0)
    }

    /// Any bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }
}
