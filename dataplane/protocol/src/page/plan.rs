//! What a batch is to become: operations, literals, and the page bodies of each lane.

use super::Effort;
use super::encode::{RawReason, Tally};
use super::lane::{LaneId, lane_of};
use super::ops::{Op, OpWriter, RunKind};
use super::sample::{Kind, Sampler};
use crate::hypervisor::{BlockId, Span, WORD_BYTES};
use crate::limits::{BATCH_LEN_MAX, LANES_MAX, PAGE_BYTES};

/// Batches shorter than this are carried as they are: frames and headers would eat what an index saves.
const STRUCTURED_FROM_BYTES: usize = 512;

/// A page's body in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageBody {
    /// Where it begins.
    pub at: u32,
    /// The page's number within its lane: its block's, and its own there.
    pub page: u64,
}

impl PageBody {
    /// The number of the page at `offset` of its block. Two pages of one number would only be compared in vain.
    fn number(block: BlockId, offset: u64) -> u64 {
        (u64::from(block.0) << 48) ^ (offset / PAGE_BYTES as u64)
    }
}

/// What a batch is to become. Its lists are reused by the next one that is planned into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchPlan {
    /// The index's operations.
    pub ops: Vec<u8>,
    /// The index's literals.
    pub literals: Vec<u8>,
    /// By rising lane, the bodies of its pages.
    pub parts: Vec<(LaneId, Vec<PageBody>)>,
    /// What the far side regenerates from operations alone.
    pub tally: Tally,
    /// Lists of bodies for parts to come.
    pub spare: Vec<Vec<PageBody>>,
}

impl BatchPlan {
    /// A list of bodies that is needed no more; so many are kept as one batch has parts, twice.
    pub fn give_back(&mut self, mut bodies: Vec<PageBody>) {
        if self.spare.len() < 2 * usize::from(LANES_MAX) {
            bodies.clear();
            self.spare.push(bodies);
        }
    }
}

/// Plans batches; keeps its buffers from one to the next.
pub(super) struct Planner {
    lanes: u16,
    /// Lanes remember pages: what does not compress may still be known, or be worth remembering.
    remembers: bool,
    sampler: Sampler,
    /// What the next batch is like, where that has been looked at already.
    looked: Option<Kind>,
    ops: OpWriter,
    literals: Vec<u8>,
    /// The bodies, with their lanes.
    bodies: Vec<(LaneId, PageBody)>,
    /// The bodies alone, lane by lane.
    places: Vec<PageBody>,
}

impl Planner {
    pub(super) fn new(lanes: u16, remembers: bool) -> Self {
        Self {
            lanes: lanes.max(1),
            remembers,
            sampler: Sampler::new(),
            looked: None,
            ops: OpWriter::default(),
            literals: Vec::new(),
            bodies: Vec::new(),
            places: Vec::new(),
        }
    }

    /// What the batch to be planned next is like. It is not looked at again for that.
    pub(super) fn look(&mut self, input: &[u8]) -> Kind {
        let kind = self.sampler.kind(input);
        self.looked = Some(kind);
        // Where pages are remembered, those that nothing shortens may be what they were, and are worth remembering.
        if self.remembers && !kind.may_shrink() { Kind::UNEVEN } else { kind }
    }

    /// Turns the spans into operations, literals and bodies; returns what the operations alone make. An error: the batch
    /// is to be carried as it is.
    pub(super) fn plan(&mut self, input: &[u8], spans: &[Span], effort: Effort) -> Result<Tally, RawReason> {
        let looked = self.looked.take();
        self.refuse(input, spans, effort)?;
        if !self.remembers && !self.pays(looked, input, effort) {
            return Err(RawReason::Sampled);
        }
        let tally = self.walk(input, spans);
        // No page of it could be remembered.
        if self.remembers && self.bodies.is_empty() && !self.pays(looked, input, effort) {
            return Err(RawReason::Sampled);
        }
        // The decoder bounds operations by the batch; more of them than that could not pay anyway.
        if self.ops.finish().len() > input.len() {
            return Err(RawReason::Fruitless);
        }
        // Batch order within each lane, by an unstable sort because a stable one allocates.
        self.bodies.sort_unstable();
        self.places.clear();
        self.places.extend(self.bodies.iter().map(|(_, body)| *body));
        Ok(tally)
    }

    /// Operations and literals of the batch planned last.
    pub(super) fn index(&mut self) -> (&[u8], &[u8]) {
        (self.ops.finish(), &self.literals)
    }

    /// The bodies of the batch planned last, by rising lane.
    pub(super) fn parts(&self) -> impl Iterator<Item = (LaneId, &[PageBody])> {
        let mut places = &self.places[..];
        self.bodies.chunk_by(|a, b| a.0 == b.0).map(move |of_lane| {
            let (here, rest) = places.split_at(of_lane.len());
            places = rest;
            (of_lane[0].0, here)
        })
    }

    /// The batch planned last, to be carried out elsewhere: replaces `plan`.
    pub(super) fn take(&mut self, tally: Tally, plan: &mut BatchPlan) {
        plan.spare.extend(plan.parts.drain(..).map(|(_, bodies)| bodies));
        for (lane, bodies) in self.parts() {
            let mut own = plan.spare.pop().unwrap_or_default();
            own.clear();
            own.extend_from_slice(bodies);
            plan.parts.push((lane, own));
        }
        plan.ops.clear();
        plan.ops.extend_from_slice(self.ops.finish());
        std::mem::swap(&mut plan.literals, &mut self.literals);
        plan.tally = tally;
    }

    /// Whether compressing the batch is likely to pay, by what was seen of it, or a look at it.
    fn pays(&mut self, looked: Option<Kind>, input: &[u8], effort: Effort) -> bool {
        looked.map_or_else(|| self.sampler.compressible(input, effort), |kind| kind.pays(effort))
    }

    /// Why not to begin; decided without touching a byte.
    fn refuse(&self, input: &[u8], spans: &[Span], effort: Effort) -> Result<(), RawReason> {
        if effort == Effort::Raw {
            return Err(RawReason::Effort);
        }
        if input.len() < STRUCTURED_FROM_BYTES {
            return Err(RawReason::Short);
        }
        let covered = spans.iter().try_fold(0usize, |sum, span| sum.checked_add(span.len()));
        if input.len() > BATCH_LEN_MAX || covered != Some(input.len()) {
            return Err(RawReason::Mismatch);
        }
        Ok(())
    }

    fn walk(&mut self, input: &[u8], spans: &[Span]) -> Tally {
        self.ops.clear();
        self.literals.clear();
        self.bodies.clear();
        let (mut tally, mut at) = (Tally::default(), 0);
        for span in spans {
            let bytes = &input[at..at + span.len()];
            let run = match *span {
                Span::PageRecords { block, first_word, count } => {
                    Some((RunKind::Pages, block, first_word, count))
                }
                Span::ZeroRecords { block, first_word, count } => {
                    Some((RunKind::Zeros, block, first_word, count))
                }
                Span::PageBodies { block, offset, count } => Some((RunKind::Bodies, block, offset, count)),
                Span::Opaque { .. } => None,
            };
            match run {
                Some((kind, block, first_word, count)) if regenerates(bytes, kind, first_word) => {
                    self.ops.push(Op::Run { kind, first_word, count: u64::from(count) });
                    self.take_bodies(at, (kind, block, first_word, count), &mut tally);
                }
                _ => {
                    self.ops.push(Op::Literal { bytes: bytes.len() as u64 });
                    self.literals.extend_from_slice(bytes);
                }
            }
            at += span.len();
        }
        tally
    }

    /// Notes the bodies of a run that begins at `at`.
    fn take_bodies(
        &mut self,
        at: usize,
        (kind, block, first_word, count): (RunKind, BlockId, u64, u32),
        tally: &mut Tally,
    ) {
        if kind == RunKind::Zeros {
            tally.zero_pages += count;
            tally.regenerated_bytes += u64::from(count) * kind.unit_bytes() as u64;
            return;
        }
        let word_bytes = kind.unit_bytes() - PAGE_BYTES;
        tally.regenerated_bytes += u64::from(count) * word_bytes as u64;
        for i in 0..count as usize {
            let offset = first_word.wrapping_add((i * PAGE_BYTES) as u64);
            // A batch is far shorter than 32 bits count (asserted in limits).
            let at = (at + i * kind.unit_bytes() + word_bytes) as u32;
            let page = PageBody::number(block, offset);
            self.bodies.push((lane_of(offset, self.lanes), PageBody { at, page }));
        }
    }
}

/// Whether the far side would regenerate exactly the words and zero bytes of these records.
fn regenerates(records: &[u8], kind: RunKind, first_word: u64) -> bool {
    if kind == RunKind::Bodies {
        return true;
    }
    let mut word = first_word;
    for record in records.chunks_exact(kind.unit_bytes()) {
        let zero_byte = kind == RunKind::Pages || record[WORD_BYTES] == 0;
        if record[..WORD_BYTES] != word.to_be_bytes() || !zero_byte {
            return false;
        }
        word = word.wrapping_add(PAGE_BYTES as u64);
    }
    true
}
