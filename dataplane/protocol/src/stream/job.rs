//! Codec work that a session lets others do: each job a value, complete in itself, that may cross threads.
//!
//! A session with more than one codec worker ([`crate::session::SessionConfig::codec_workers`]) does not encode and decode
//! within its calls. It hands out jobs and takes what was done. Everything that has an order stays in the session: positions,
//! digests, credit, sequences. A lane's jobs all name the same worker, which does them in the order in which they came;
//! workers need not agree with each other.

use super::buffers::Buffers;
use crate::limits::{BATCH_PAGES_MAX, PAGE_BYTES, PART_PAGE_BYTES_MAX};
use crate::page::{
    ContentKey, DecoderMemory, Effort, EncoderMemory, KnownContent, LaneDecoder, LaneId, LaneTerms, PageBody,
    PartEncoder, PartError, PartHeader, ReceivedContent, SentContent, Tally,
};
use crate::time::{Began, Clock, Cost};
use crate::wire::{BATCH_FIELDS_BYTES, IndexFields, PartFields, start_frame};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// What a frame, its fields and the headers of an index or a part take at most beside the bytes that they are about.
const INDEX_EXTRA_BYTES: usize = 512;

/// Which of a session's jobs this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    /// The index of a batch that is being encoded, by the batch's number.
    Index(u64),
    /// The part at a place among those of a batch that is being encoded.
    Part(u64, usize),
    /// A part that is being decoded.
    Decode { part: PartFields, lane: u16, sequence: u64 },
}

enum Work {
    Index {
        fields: [u8; BATCH_FIELDS_BYTES],
        lanes: IndexFields,
        ops: Vec<u8>,
        literals: Vec<u8>,
        effort: Effort,
    },
    Part {
        fields: PartFields,
        batch: Bytes,
        bodies: Vec<PageBody>,
        effort: Effort,
        lane: Option<LaneOwner>,
    },
    Decode {
        payload: Bytes,
        lane: Option<LaneOwner>,
    },
}

/// What a lane's memory begins with.
#[derive(Clone, Debug)]
pub(super) struct LaneSetup {
    pub(super) terms: LaneTerms,
    /// What an encoder may refer to.
    pub(super) known: Option<Arc<KnownContent>>,
    /// The key of what a decoder may find references to.
    pub(super) key: Option<Arc<ContentKey>>,
}

/// A lane's memory by its name: the worker of the lane keeps it for as long as the session has the name.
pub(super) type LaneOwner = Arc<LaneSetup>;

/// Names for the memories of so many lanes.
pub(super) fn lane_owners(setup: &LaneSetup, lanes: usize) -> Vec<LaneOwner> {
    (0..lanes).map(|_| Arc::new(setup.clone())).collect()
}

/// A bounded piece of codec work: at most a batch's bytes.
pub struct Job {
    pub(super) worker: u16,
    pub(super) ticket: Ticket,
    work: Work,
    /// Memory for what comes of it: nothing, before it is handed out.
    out: Vec<u8>,
}

/// What became of a job; for the session that handed it out.
pub struct Done {
    pub(super) ticket: Ticket,
    pub(super) outcome: Outcome,
    pub(super) cost: Cost,
    /// Bytes that the worker remembers of the job's lane.
    pub(super) remembered_bytes: u64,
    /// The list of bodies that it was about.
    pub(super) spent: Vec<PageBody>,
    /// The texts that it was about.
    pub(super) texts: [Vec<u8>; 2],
}

pub(super) enum Outcome {
    /// A frame but for its header, where the bytes went, and what is referred to.
    Encoded(Vec<u8>, Tally, SentContent),
    Decoded(Result<(Vec<u8>, ReceivedContent), PartError>),
}

impl Done {
    /// Whether it was encoding, rather than decoding.
    pub(crate) fn is_encoding(&self) -> bool {
        matches!(self.outcome, Outcome::Encoded(..))
    }
}

impl Job {
    /// An index to be encoded.
    pub(super) fn index(
        worker: u16,
        batch: u64,
        fields: [u8; BATCH_FIELDS_BYTES],
        lanes: IndexFields,
        (ops, literals): (&[u8], &[u8]),
        effort: Effort,
        buffers: &Buffers,
    ) -> Job {
        let own = |bytes: &[u8]| {
            let mut own = buffers.take_own(bytes.len());
            own.clear();
            own.extend_from_slice(bytes);
            own
        };
        Job {
            worker,
            ticket: Ticket::Index(batch),
            work: Work::Index { fields, lanes, ops: own(ops), literals: own(literals), effort },
            out: Vec::new(),
        }
    }

    /// A part to be encoded: the pages whose bodies begin at `bodies` in `batch`.
    pub(super) fn part(
        worker: u16,
        ticket: Ticket,
        fields: PartFields,
        (batch, bodies): (Bytes, Vec<PageBody>),
        effort: Effort,
        lane: Option<LaneOwner>,
    ) -> Job {
        Job { worker, ticket, work: Work::Part { fields, batch, bodies, effort, lane }, out: Vec::new() }
    }

    /// A part to be decoded, whose header has been read already.
    pub(super) fn decode(worker: u16, ticket: Ticket, payload: Bytes, lane: Option<LaneOwner>) -> Job {
        Job { worker, ticket, work: Work::Decode { payload, lane }, out: Vec::new() }
    }

    /// It is handed out now, with memory for the most that may come of it.
    pub(super) fn equipped(mut self, buffers: &Buffers) -> Job {
        let bytes = match &self.work {
            Work::Index { ops, literals, .. } => ops.len() + literals.len() + INDEX_EXTRA_BYTES,
            Work::Part { bodies, .. } => bodies.len() * PART_PAGE_BYTES_MAX + INDEX_EXTRA_BYTES,
            Work::Decode { payload, .. } => {
                PartHeader::parse(payload).map_or(0, |header| header.count * PAGE_BYTES)
            }
        };
        self.out = buffers.take_own(bytes);
        self
    }

    /// Guest bytes that it is about.
    pub fn guest_bytes(&self) -> usize {
        match &self.work {
            Work::Index { literals, .. } => literals.len(),
            Work::Part { bodies, .. } => bodies.len() * PAGE_BYTES,
            Work::Decode { payload, .. } => payload.len(),
        }
    }

    /// The worker that is to do it, below the session's number of them.
    pub fn worker(&self) -> usize {
        usize::from(self.worker)
    }
}

/// What does jobs: codecs and their memory, and what the lanes of its sessions remember. One serves any number of sessions.
#[derive(Default)]
pub struct CodecWorker {
    encoder: PartEncoder,
    decoder: LaneDecoder,
    encoders: Lanes<EncoderMemory>,
    decoders: Lanes<DecoderMemory>,
}

/// Memories of lanes, by where their names stand: a name stays in its place for as long as somebody holds it, even weakly.
struct Lanes<M> {
    memories: HashMap<usize, (Weak<LaneSetup>, M)>,
}

impl<M> Default for Lanes<M> {
    fn default() -> Self {
        Lanes { memories: HashMap::new() }
    }
}

impl<M> Lanes<M> {
    /// The memory of a lane, which begins here where it is new.
    fn of(&mut self, owner: &LaneOwner, new: impl FnOnce(&LaneSetup) -> M) -> &mut M {
        let name = Arc::as_ptr(owner) as usize;
        if !self.memories.contains_key(&name) {
            self.release_ended();
        }
        &mut self.memories.entry(name).or_insert_with(|| (Arc::downgrade(owner), new(owner))).1
    }

    fn release_ended(&mut self) {
        self.memories.retain(|_, (owner, _)| owner.strong_count() > 0);
    }
}

impl CodecWorker {
    /// A worker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what it remembers of lanes whose sessions have ended.
    pub fn release_ended(&mut self) {
        self.encoders.release_ended();
        self.decoders.release_ended();
    }

    /// Does a job, and measures by `clock` how long it took.
    pub fn carry_out(&mut self, job: Job, clock: &impl Clock) -> Done {
        let began = Began::now(clock);
        let (mut remembered_bytes, mut spent, mut texts) = (0, Vec::new(), Default::default());
        let mut out = job.out;
        let outcome = match job.work {
            Work::Index { fields, lanes, ops, literals, effort } => {
                let tally =
                    index_frame(&mut self.encoder, (&fields, &lanes), (&ops, &literals), effort, &mut out);
                texts = [ops, literals];
                Outcome::Encoded(out, tally, SentContent::default())
            }
            Work::Part { fields, batch, bodies, effort, lane } => {
                out.clear();
                start_frame(&mut out);
                fields.put(&mut out);
                let mut memory = lane.as_ref().map(|lane| {
                    self.encoders
                        .of(lane, |setup| EncoderMemory::new(setup.terms).with_content(setup.known.clone()))
                });
                let pages = (&batch[..], &bodies[..]);
                let tally = self.encoder.encode_part(pages, effort, memory.as_deref_mut(), clock, &mut out);
                remembered_bytes = memory.as_ref().map_or(0, |memory| memory.held_bytes());
                let content = memory.map(EncoderMemory::take_content).unwrap_or_default();
                spent = bodies;
                Outcome::Encoded(out, tally, content)
            }
            Work::Decode { payload, lane } => {
                let mut memory = lane.as_ref().map(|lane| {
                    self.decoders
                        .of(lane, |setup| DecoderMemory::new(setup.terms).with_content(setup.key.clone()))
                });
                let decoded = self.decoder.decode(&payload, BATCH_PAGES_MAX, memory.as_deref_mut(), &mut out);
                remembered_bytes = memory.as_ref().map_or(0, |memory| memory.held_bytes());
                let content = memory.map(DecoderMemory::take_content).unwrap_or_default();
                Outcome::Decoded(decoded.map(|()| (out, content)))
            }
        };
        Done { ticket: job.ticket, outcome, cost: began.cost(clock), remembered_bytes, spent, texts }
    }
}

/// A frame but for its header, in a buffer of its length.
pub(super) fn copied(frame: &[u8], buffers: &Buffers) -> BytesMut {
    let mut buffer = buffers.take(frame.len());
    buffer.put_slice(frame);
    buffer
}

/// Replaces `out` by an index frame but for its header.
pub(super) fn index_frame(
    encoder: &mut PartEncoder,
    (fields, lanes): (&[u8; BATCH_FIELDS_BYTES], &IndexFields),
    (ops, literals): (&[u8], &[u8]),
    effort: Effort,
    out: &mut Vec<u8>,
) -> Tally {
    out.clear();
    start_frame(out);
    out.extend_from_slice(fields);
    lanes.put(out);
    encoder.encode_index(ops, literals, effort, out)
}

/// The worker, of `workers`, that does the jobs of a lane, of `lanes`. Neighbouring lanes share one: the spread of pages over
/// lanes is even in every such range, so that consecutive regions keep all workers busy.
pub(super) fn worker_of(lane: LaneId, lanes: u16, workers: u16) -> u16 {
    let (lane, lanes) = (u32::from(lane.0), u32::from(lanes.max(1)));
    // Below `workers`, for a lane below `lanes`.
    (lane.min(lanes - 1) * u32::from(workers.max(1)) / lanes) as u16
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("worker", &self.worker)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Done").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for CodecWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodecWorker").finish_non_exhaustive()
    }
}

/// Jobs and what was done cross threads.
const _: () = {
    const fn crosses<T: Send + 'static>() {}
    crosses::<Job>();
    crosses::<Done>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_shared_out_evenly_among_workers() {
        for (lanes, workers) in [(4, 2), (4, 3), (64, 8), (5, 2), (1, 4)] {
            let of: Vec<u16> = (0..lanes).map(|lane| worker_of(LaneId(lane), lanes, workers)).collect();
            assert!(of.is_sorted() && of.iter().all(|worker| *worker < workers));
            let share = |worker: u16| of.iter().filter(|of| **of == worker).count();
            let shares: Vec<usize> = (0..workers).map(share).collect();
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
        }
        assert_eq!(worker_of(LaneId(9), 4, 2), 1, "a lane that there is not");
    }

    #[test]
    fn a_lane_is_remembered_for_as_long_as_its_session_names_it() {
        let terms = LaneTerms { pages: 4, window_log: None };
        let setup = LaneSetup { terms, known: None, key: None };
        let owners = lane_owners(&setup, 2);
        let mut lanes: Lanes<u32> = Lanes::default();
        *lanes.of(&owners[0], |_| 0) = 7;
        assert_eq!(*lanes.of(&owners[1], |_| 0), 0, "another lane on the same terms");
        assert_eq!(*lanes.of(&owners[0], |_| 0), 7);
        drop(owners);
        let new = lane_owners(&setup, 8);
        assert!(new.iter().all(|owner| *lanes.of(owner, |_| 0) == 0));
        assert_eq!(lanes.memories.len(), 8, "what nobody names is gone");
        drop(new);
        lanes.release_ended();
        assert!(lanes.memories.is_empty());
    }
}
