//! What the benchmarks read.

use novacron_protocol::hypervisor::synthetic::Noise;
use novacron_protocol::limits::PAGE_BYTES;

/// A page: half of it is records of small integers and pointers, a quarter is words of text, a quarter is noise. It compresses
/// about as well as what a busy guest sends.
pub(crate) fn page(noise: &mut Noise) -> [u8; PAGE_BYTES] {
    const WORDS: [&[u8]; 6] = [b"connection ", b"the ", b"lane ", b"value: ", b"\"key\": ", b"\n  "];
    let mut page = Vec::with_capacity(PAGE_BYTES + 16);
    while page.len() < PAGE_BYTES {
        match page.len() / (PAGE_BYTES / 4) {
            0 | 1 => {
                page.extend_from_slice(&(noise.next_u64() % 512).to_le_bytes());
                page.extend_from_slice(&(0x7f3a_0000_0000 | (noise.next_u64() & 0xfff8)).to_le_bytes());
            }
            2 => page.extend_from_slice(WORDS[(noise.next_u64() >> 32) as usize % WORDS.len()]),
            _ => page.extend_from_slice(&noise.next_u64().to_le_bytes()),
        }
    }
    std::array::from_fn(|at| page[at])
}
