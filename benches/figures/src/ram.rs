//! A hypervisor's stream of guest memory, made without a hypervisor: pages that cost a codec much time and shrink.

use crate::limits::PAGE_BYTES;

/// Flags of a RAM record's word (QEMU, `migration/ram.c`).
const MEM_SIZE: u64 = 0x04;
const PAGE: u64 = 0x08;
const EOS: u64 = 0x10;
const CONTINUE: u64 = 0x20;

/// Kinds of sections (QEMU, `migration/savevm.c`).
const START: u8 = 0x01;
const END: u8 = 0x03;
const FOOTER: u8 = 0x7e;
const CONFIGURATION: u8 = 0x07;
const EOF: u8 = 0x00;

const BLOCK: &str = "pc.ram";
const SECTION: u32 = 2;

/// A whole migration of `pages` pages, every page once and none of them zero, then the end of the stream.
pub(crate) fn stream(pages: u64, seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity((pages as usize + 1) * (PAGE_BYTES + 8));
    out.extend_from_slice(&[0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3]);
    out.push(CONFIGURATION);
    let machine = b"pc-i440fx-10.0";
    out.extend_from_slice(&(machine.len() as u32).to_be_bytes());
    out.extend_from_slice(machine);
    section(&mut out, START);
    counted(&mut out, "ram");
    out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 4]);
    let memory = pages * PAGE_BYTES as u64;
    word(&mut out, memory | MEM_SIZE);
    counted(&mut out, BLOCK);
    word(&mut out, memory);
    end(&mut out);
    section(&mut out, END);
    let mut random = Random(seed);
    for page in 0..pages {
        let continues = if page == 0 { 0 } else { CONTINUE };
        word(&mut out, (page * PAGE_BYTES as u64) | PAGE | continues);
        if page == 0 {
            counted(&mut out, BLOCK);
        }
        random.page(&mut out);
    }
    end(&mut out);
    out.push(EOF);
    out
}

fn section(out: &mut Vec<u8>, kind: u8) {
    out.push(kind);
    out.extend_from_slice(&SECTION.to_be_bytes());
}

fn counted(out: &mut Vec<u8>, name: &str) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn word(out: &mut Vec<u8>, word: u64) {
    out.extend_from_slice(&word.to_be_bytes());
}

fn end(out: &mut Vec<u8>) {
    word(out, EOS);
    section(out, FOOTER);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A page as of a program's heap: small numbers, pointers of one region, words of a vocabulary, and noise.
    fn page(&mut self, out: &mut Vec<u8>) {
        const WORDS: [&[u8]; 8] = [
            b"connection ",
            b"migration ",
            b"page ",
            b"the lane of ",
            b"\"key\": ",
            b"value",
            b"\n    ",
            b"0x",
        ];
        let until = out.len() + PAGE_BYTES;
        while out.len() < until {
            let draw = self.next();
            match draw % 5 {
                0 => out.extend_from_slice(&(draw >> 54).to_le_bytes()),
                1 => out.extend_from_slice(&(0x7f3a_0000_0000 | (draw >> 40 & 0xfff8)).to_le_bytes()),
                2 | 3 => out.extend_from_slice(WORDS[(draw >> 32) as usize % WORDS.len()]),
                _ => out.extend_from_slice(&draw.to_le_bytes()[..5]),
            }
        }
        out.truncate(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_for_the_same_seed_and_as_long_as_its_pages() {
        let stream = stream(100, 7);
        assert_eq!(stream, super::stream(100, 7));
        assert_ne!(stream, super::stream(100, 8));
        let fields = stream.len() - 100 * (PAGE_BYTES + 8);
        assert!(fields < 256, "{fields} bytes beside the pages");
        assert_eq!(stream.last(), Some(&EOF));
    }
}
