//! A whole migration's main connection from a description of it.

use super::{MainStream, Noise};
use crate::limits::PAGE_BYTES;

/// What a page of a [`Plan`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Zero: sent as a zero record.
    Zero,
    /// Noise from the plan's seed.
    Noise,
    /// One byte over and over: shrinks to nothing.
    Fill(u8),
}

/// One page of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedPage {
    /// The block, counted in [`Plan::blocks`]; taken modulo their number.
    pub block: usize,
    /// The page's number in its block.
    pub page: u64,
    /// What it holds.
    pub contents: Contents,
}

/// A whole precopy migration over the main connection.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The machine type's name.
    pub machine: String,
    /// Names and lengths in bytes of the RAM blocks; at least one.
    pub blocks: Vec<(String, u64)>,
    /// The pages of each pass, in the order of sending. The last pass goes into RAM's last section.
    pub passes: Vec<Vec<PlannedPage>>,
    /// Pages in one RAM section; QEMU fills a section for 50 ms. At least 1.
    pub section_pages: usize,
    /// Bytes of device state in the tail, noise.
    pub device_bytes: usize,
    /// What the noise comes from.
    pub seed: u64,
}

impl Plan {
    /// A guest of `pages` pages of noise, sent once, with every `zero_every`th page zero (0: none).
    pub fn filled(pages: u64, zero_every: u64, seed: u64) -> Self {
        let contents = |page: u64| match zero_every {
            0 => Contents::Noise,
            every if page % every == every - 1 => Contents::Zero,
            _ => Contents::Noise,
        };
        let first = (0..pages).map(|page| PlannedPage { block: 0, page, contents: contents(page) }).collect();
        Self {
            machine: "pc-q35-10.0".to_owned(),
            blocks: vec![("pc.ram".to_owned(), pages * PAGE_BYTES as u64), ("pc.bios".to_owned(), 0x4_0000)],
            passes: vec![first, Vec::new()],
            section_pages: 1000,
            device_bytes: 80_000,
            seed,
        }
    }

    /// The stream.
    pub fn build(&self) -> Vec<u8> {
        let mut noise = Noise::new(self.seed);
        let mut stream = MainStream::new(&self.machine);
        let blocks: Vec<(&str, u64)> = self.blocks.iter().map(|(name, len)| (&**name, *len)).collect();
        stream.command(1, &[]).command(2, &1_u32.to_be_bytes()).ram_start(&blocks);
        let (last, before) = self.passes.split_last().map_or((&[][..], &[][..]), |(l, b)| (&**l, b));
        for pass in before {
            for section in pass.chunks(self.section_pages.max(1)) {
                stream.ram_part(false);
                self.pages(&mut stream, &mut noise, section);
                stream.end_ram();
            }
        }
        stream.command(11, &[]).ram_part(true);
        self.pages(&mut stream, &mut noise, last);
        stream.end_ram();
        let mut state = Vec::with_capacity(self.device_bytes + 8);
        while state.len() < self.device_bytes {
            state.extend_from_slice(&noise.next_u64().to_le_bytes());
        }
        stream.device(4, 5, "cpu", &state).end("{\"configuration\": {}, \"devices\": []}");
        stream.into_bytes()
    }

    fn pages(&self, stream: &mut MainStream, noise: &mut Noise, pages: &[PlannedPage]) {
        for planned in pages {
            let Some((name, _)) = self.blocks.get(planned.block % self.blocks.len().max(1)) else { return };
            let offset = planned.page * PAGE_BYTES as u64;
            match planned.contents {
                Contents::Zero => stream.zero(name, offset),
                Contents::Noise => stream.page(name, offset, &noise.page()),
                Contents::Fill(byte) => stream.page(name, offset, &[byte; PAGE_BYTES]),
            };
        }
    }
}
