//! The memory under test: pages that are dirtied over and over, then pages that only stand there.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::drive::{Report, Work};
use crate::limits::{DIRTY_BURST_PAGES, DIRTY_DEBT_MAX, PAGE_BYTES};
use crate::page::{Kind, Page, PageId};
use crate::params::Mix;
use crate::random::Random;

/// A page that does not hold what was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) index: u64,
    pub(crate) generation: u32,
}

/// Pages and, kept apart from them, what each one must hold.
pub(crate) struct Workset {
    seed: u64,
    mix: Mix,
    /// The first so many pages are dirtied.
    work: u64,
    pages: Vec<Page>,
    generations: Vec<u32>,
    /// Where a page is written anew to be compared.
    expected: Box<Page>,
    random: Random,
}

impl Workset {
    /// Writes `work + fill` pages in one pass over memory.
    pub(crate) fn new(seed: u64, mix: Mix, work: u64, fill: u64) -> Self {
        let count = usize::try_from(work + fill).unwrap_or(usize::MAX);
        let mut workset = Self {
            seed,
            mix,
            work,
            pages: Vec::with_capacity(count),
            generations: vec![0; count],
            expected: Box::new(Page::ZERO),
            random: Random::new(seed),
        };
        for index in 0..work + fill {
            let (id, kind) = workset.belongs(index, 0);
            workset.pages.push(Page::ZERO);
            if let Some(page) = workset.pages.last_mut() {
                page.write(id, kind);
            }
        }
        workset
    }

    /// What belongs in a page of a generation. Beyond the dirtied ones no page is zero.
    fn belongs(&self, index: u64, generation: u32) -> (PageId, Kind) {
        let id = PageId { index, generation, seed: self.seed };
        match id.kind(self.mix) {
            Kind::Zero if index >= self.work => (id, Kind::Text),
            kind => (id, kind),
        }
    }

    fn check(&mut self, index: u64) -> Option<Bad> {
        let generation = self.generations[index as usize];
        let (id, kind) = self.belongs(index, generation);
        self.expected.write(id, kind);
        (self.pages[index as usize] != *self.expected).then_some(Bad { index, generation })
    }

    /// Verifies one page of the working set, chosen at random, and rewrites it. Says so if it was not intact.
    pub(crate) fn dirty_one(&mut self) -> Option<Bad> {
        let index = self.random.next() % self.work;
        let bad = self.check(index);
        let generation = self.generations[index as usize].wrapping_add(1);
        self.generations[index as usize] = generation;
        let (id, kind) = self.belongs(index, generation);
        self.pages[index as usize].write(id, kind);
        bad
    }

    /// Verifies every page, repairs none, and reports each bad one.
    pub(crate) fn sweep(&mut self, mut report: impl FnMut(Bad)) {
        for index in 0..self.pages() {
            if let Some(bad) = self.check(index) {
                report(bad);
            }
        }
    }

    /// Damages one page, so that it is known that damage is found. Returns its index.
    pub(crate) fn corrupt_one(&mut self) -> u64 {
        let index = self.random.next() % self.pages();
        self.pages[index as usize].corrupt();
        index
    }

    /// Pages in all, dirtied or not.
    pub(crate) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }
}

/// The dirtier, and with a rate of nothing the guest that only stands there.
impl Work for Workset {
    fn unit(&self) -> &'static str {
        "MB"
    }

    fn step(&self) -> u64 {
        // A page, in millionths of a megabyte.
        PAGE_BYTES as u64
    }

    fn burst(&self) -> u64 {
        DIRTY_BURST_PAGES
    }

    fn debt_max(&self) -> Duration {
        DIRTY_DEBT_MAX
    }

    fn run(&mut self, steps: u64, bad: &mut Report) -> Result<()> {
        for _ in 0..steps {
            if let Some(page) = self.dirty_one() {
                bad.bad(&page.to_string());
            }
        }
        Ok(())
    }

    fn verify(&mut self, bad: &mut Report) -> Result<u64> {
        self.sweep(|page| bad.bad(&page.to_string()));
        Ok(self.pages())
    }

    fn corrupt(&mut self) -> Result<u64> {
        Ok(self.corrupt_one())
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page={} generation={}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Workset {
        Workset::new(7, Mix { zero: 20, text: 50, random: 30 }, 32, 8)
    }

    fn swept(workset: &mut Workset) -> Vec<Bad> {
        let mut bad = Vec::new();
        workset.sweep(|page| bad.push(page));
        bad
    }

    #[test]
    fn stays_intact_while_it_is_dirtied() {
        let mut workset = small();
        for _ in 0..1000 {
            assert_eq!(workset.dirty_one(), None);
        }
        assert_eq!(swept(&mut workset), []);
        assert_eq!(workset.pages(), 40);
    }

    #[test]
    fn a_corrupt_page_is_found_by_the_sweep() {
        let mut workset = small();
        let index = workset.corrupt_one();
        assert_eq!(swept(&mut workset), [Bad { index, generation: 0 }]);
    }

    #[test]
    fn an_old_page_is_found_by_the_dirtier() {
        let mut workset = small();
        workset.generations.iter_mut().for_each(|generation| *generation += 1);
        assert!((0..100).any(|_| workset.dirty_one().is_some()));
    }

    #[test]
    fn pages_beyond_the_working_set_are_never_zero() {
        let workset = Workset::new(7, Mix { zero: 1, text: 0, random: 0 }, 4, 4);
        assert!(workset.pages[..4].iter().all(|page| *page == Page::ZERO));
        assert!(workset.pages[4..].iter().all(|page| *page != Page::ZERO));
    }
}
