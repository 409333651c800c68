//! A whole migration's main connection from a description of it.

use super::{MainStream, Noise};
use crate::limits::PAGE_BYTES;
use std::collections::HashMap;

/// What a page of a [`Plan`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Zero: sent as a zero record.
    Zero,
    /// Noise from the plan's seed.
    Noise,
    /// One byte over and over: shrinks to nothing.
    Fill(u8),
    /// What the plan's noise last put there, with so many bytes changed, or the same ones with 0; noise, if it put nothing.
    Again {
        /// Draws of a byte to change.
        changed_bytes: u16,
    },
    /// What the plan's noise last put at that page of the same block; noise, if it put nothing.
    Copy {
        /// The page.
        of: u64,
    },
}

/// The noise that pages hold, by block and page.
type Held = HashMap<(usize, u64), Box<[u8; PAGE_BYTES]>>;

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
        let again =
            |page: &PlannedPage| matches!(page.contents, Contents::Again { .. } | Contents::Copy { .. });
        // Copies of a large guest are made only where somebody asks for them.
        let mut held = self.passes.iter().flatten().any(again).then(Held::new);
        let mut stream = MainStream::new(&self.machine);
        let blocks: Vec<(&str, u64)> = self.blocks.iter().map(|(name, len)| (&**name, *len)).collect();
        stream.command(1, &[]).command(2, &1_u32.to_be_bytes()).ram_start(&blocks);
        let (last, before) = self.passes.split_last().map_or((&[][..], &[][..]), |(l, b)| (&**l, b));
        for pass in before {
            for section in pass.chunks(self.section_pages.max(1)) {
                stream.ram_part(false);
                self.pages(&mut stream, &mut noise, &mut held, section);
                stream.end_ram();
            }
        }
        stream.command(11, &[]).ram_part(true);
        self.pages(&mut stream, &mut noise, &mut held, last);
        stream.end_ram();
        let mut state = Vec::with_capacity(self.device_bytes + 8);
        while state.len() < self.device_bytes {
            state.extend_from_slice(&noise.next_u64().to_le_bytes());
        }
        stream.device(4, 5, "cpu", &state).end("{\"configuration\": {}, \"devices\": []}");
        stream.into_bytes()
    }

    fn pages(
        &self,
        stream: &mut MainStream,
        noise: &mut Noise,
        held: &mut Option<Held>,
        pages: &[PlannedPage],
    ) {
        for planned in pages {
            let block = planned.block % self.blocks.len().max(1);
            let Some((name, _)) = self.blocks.get(block) else { return };
            let offset = planned.page * PAGE_BYTES as u64;
            let changed_bytes = match planned.contents {
                Contents::Zero => {
                    stream.zero(name, offset);
                    continue;
                }
                Contents::Fill(byte) => {
                    stream.page(name, offset, &[byte; PAGE_BYTES]);
                    continue;
                }
                Contents::Noise => None,
                Contents::Copy { of } => {
                    let body = held.as_ref().and_then(|held| held.get(&(block, of)).cloned());
                    if let (Some(body), Some(held)) = (body, held.as_mut()) {
                        stream.page(name, offset, &body);
                        held.insert((block, planned.page), body);
                        continue;
                    }
                    None
                }
                Contents::Again { changed_bytes } => Some(changed_bytes),
            };
            let place = (block, planned.page);
            let last = changed_bytes.and_then(|changed| Some((held.as_mut()?.remove(&place)?, changed)));
            let body = match last {
                Some((mut body, changed_bytes)) => {
                    for _ in 0..changed_bytes {
                        let drawn = noise.next_u64();
                        body[drawn as usize % PAGE_BYTES] = (drawn >> 32) as u8;
                    }
                    body
                }
                None => Box::new(noise.page()),
            };
            stream.page(name, offset, &body);
            if let Some(held) = held {
                held.insert(place, body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_again_is_what_it_was_or_nearly() {
        let page = |contents| vec![PlannedPage { block: 0, page: 0, contents }];
        let again = |changed_bytes| page(Contents::Again { changed_bytes });
        let mut plan = Plan::filled(1, 0, 7);
        plan.device_bytes = 0;
        // Nothing was there to begin with.
        plan.passes =
            vec![again(9), page(Contents::Fill(3)), again(0), again(5), again(0), page(Contents::Noise)];
        let stream = plan.build();
        let first = Noise::new(7).page();
        let near = |other: &[u8]| first.iter().zip(other).filter(|(a, b)| a != b).count();
        let changed: Vec<usize> =
            stream.windows(PAGE_BYTES).map(near).filter(|changed| *changed < 100).collect();
        let [0, 0, nearly, again] = changed[..] else { panic!("{changed:?}") };
        assert!((1..=5).contains(&nearly) && again == nearly, "{changed:?}");
    }
}
