//! Streams to be replayed: synthetic guests, or captures.

use novacron_protocol::hypervisor::synthetic::{MainStream, Noise};

use crate::limits::PAGE_BYTES;

/// What a guest's pages are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Words of text.
    Text,
    /// Records of integers and pointers, text, and noise.
    Busy,
    /// Bytes that no codec shrinks.
    Random,
    /// By turns of a few megabytes: text, busy, random; and zero pages among them.
    Mixed,
}

/// What is replayed unless captures are given.
pub(crate) const ALL: [Pages; 4] = [Pages::Text, Pages::Busy, Pages::Random, Pages::Mixed];

/// Pages in a RAM section.
const SECTION_PAGES: u64 = 1000;
/// Pages of one sort in a row in a mixed guest: 4 MiB.
const TURN_PAGES: u64 = 1024;
const WORDS: [&[u8]; 8] =
    [b"connection ", b"the ", b"lane ", b"value: ", b"\"key\": ", b"\n  ", b"return ", b"page_offset, "];

impl Pages {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pages::Text => "text",
            Pages::Busy => "busy",
            Pages::Random => "random",
            Pages::Mixed => "mixed",
        }
    }

    /// A migration's main connection that sends so many pages, each of them once.
    pub(crate) fn stream(self, pages: u64) -> Vec<u8> {
        let mut noise = Noise::new(0x00c0_ffee);
        let mut stream = MainStream::new("pc-q35-10.0");
        let ram = pages * PAGE_BYTES as u64;
        stream.command(1, &[]).command(2, &1_u32.to_be_bytes()).ram_start(&[("pc.ram", ram)]);
        for page in 0..pages {
            if page % SECTION_PAGES == 0 {
                if page > 0 {
                    stream.end_ram();
                }
                stream.ram_part(false);
            }
            let offset = page * PAGE_BYTES as u64;
            let sort = match (self, page / TURN_PAGES % 3) {
                (Pages::Mixed, 0) => Pages::Text,
                (Pages::Mixed, 1) => Pages::Busy,
                (Pages::Mixed, _) => Pages::Random,
                (other, _) => other,
            };
            if self == Pages::Mixed && page % 7 == 0 {
                stream.zero("pc.ram", offset);
            } else {
                stream.page("pc.ram", offset, &sort.page(&mut noise));
            }
        }
        stream.end_ram();
        stream.command(11, &[]).ram_part(true).end_ram();
        stream.device(4, 5, "cpu", &[7; 8192]).end("{\"configuration\": {}, \"devices\": []}");
        stream.into_bytes()
    }

    fn page(self, noise: &mut Noise) -> [u8; PAGE_BYTES] {
        if self == Pages::Random {
            return noise.page();
        }
        let mut page = Vec::with_capacity(PAGE_BYTES + 16);
        while page.len() < PAGE_BYTES {
            let word = WORDS[(noise.next_u64() >> 32) as usize % WORDS.len()];
            match (self, page.len() / (PAGE_BYTES / 4)) {
                (Pages::Text, _) | (_, 2) => page.extend_from_slice(word),
                (_, 0 | 1) => {
                    page.extend_from_slice(&(noise.next_u64() % 512).to_le_bytes());
                    page.extend_from_slice(&(0x7f3a_0000_0000 | (noise.next_u64() & 0xfff8)).to_le_bytes());
                }
                _ => page.extend_from_slice(&noise.next_u64().to_le_bytes()),
            }
        }
        std::array::from_fn(|at| page[at])
    }
}
