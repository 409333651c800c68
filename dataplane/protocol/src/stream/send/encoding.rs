//! Batches whose encoding was handed out: what came back, and in which order it leaves.
//!
//! Results come in any order. Frames leave batch by batch in the order of ingest, so that a lane's frames are numbered in
//! the order in which its worker made them; a batch that is sent as it is needs no place in it.

use super::Outbound;
use crate::limits::{ENCODING_BATCHES_MAX, JOBS_UNDER_WAY_MAX};
use crate::page::{
    BatchPlan, Choice, Effort, Kind as BatchKind, KnownContent, LaneId, LaneTerms, PartEncoder, RawReason,
    SentContent, Tally,
};
use crate::stream::buffers::Buffers;
use crate::stream::job::{
    Done, Job, LaneOwner, LaneSetup, Outcome, Ticket, copied, index_frame, lane_owners, worker_of,
};
use crate::time::{Began, Clock, Instant};
use crate::wire::{BatchFields, FrameHeader, IndexFields, Kind, Lane, PartFields, finish_frame};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;

/// Literals up to this many bytes are encoded at once, with the operations: a job of their own would cost more.
const INDEX_AT_ONCE_BYTES: usize = 4096;

/// Batches that a worker has in hand beyond the window: one that it does, one that is next.
const WORKER_BATCHES: u64 = 2;

/// A batch that is being encoded.
pub(super) struct Encoding {
    pub(super) connection: u16,
    /// The sequence of its frame in the connection's lane.
    pub(super) sequence: u64,
    pub(super) length: usize,
    /// The frame that leaves if encoding does not pay.
    pub(super) raw: Bytes,
    pub(super) effort: Effort,
    pub(super) kind: Option<BatchKind>,
    pub(super) tally: Tally,
    /// Processor time that encoding has taken so far, on whichever worker.
    pub(super) worked_ns: u64,
    /// The index frame but for its header.
    pub(super) index: BytesMut,
    /// Part frames but for their headers, by rising lane.
    pub(super) parts: Vec<Made>,
    /// Its lanes remember it: it must be sent as what was made of it.
    remembered: bool,
    /// Jobs that have not come back.
    missing: usize,
}

/// A part's frame but for its header, and what it is about.
pub(super) type Made = (LaneId, BytesMut, SentContent);

/// What [`EncodingQueue::add`] is told of a batch.
pub(super) struct Beginning {
    pub(super) connection: u16,
    pub(super) sequence: u64,
    pub(super) fields: BatchFields,
    pub(super) raw: Bytes,
    /// The batch's bytes.
    pub(super) batch: Bytes,
    pub(super) planned: Planned,
}

/// How a batch was planned whose plan stands in the queue, for others to carry out.
pub(super) struct Planned {
    pub(super) effort: Effort,
    pub(super) kind: Option<BatchKind>,
    /// Processor time that planning took.
    pub(super) worked_ns: u64,
}

/// Batches that are being encoded, in the order of ingest.
pub(super) struct EncodingQueue {
    workers: u16,
    lanes: u16,
    /// Names of what workers remember, by lane; empty: nothing is remembered.
    owners: Vec<LaneOwner>,
    /// Bytes that workers remember, by lane, as they said last.
    remembered_bytes: Vec<u64>,
    batches: VecDeque<Encoding>,
    /// The number of the first of them.
    first: u64,
    /// Not handed out yet.
    jobs: VecDeque<Job>,
    under_way: usize,
    /// Small indexes need no worker.
    encoder: PartEncoder,
    scratch: Vec<u8>,
    /// The batch that is to be added next.
    plan: BatchPlan,
    /// Lists of parts, of batches that have left.
    spare: Vec<Vec<Made>>,
    /// Memory for frames.
    buffers: Buffers,
}

impl EncodingQueue {
    pub(super) fn new(workers: u16, lanes: u16, buffers: Buffers) -> Self {
        EncodingQueue {
            workers,
            lanes,
            owners: Vec::new(),
            remembered_bytes: Vec::new(),
            batches: VecDeque::new(),
            first: 0,
            jobs: VecDeque::new(),
            under_way: 0,
            encoder: PartEncoder::new(),
            scratch: Vec::new(),
            plan: BatchPlan::default(),
            spare: Vec::new(),
            buffers,
        }
    }

    /// Lanes remember from now on, on these terms; `None`: they forget.
    pub(super) fn remember(&mut self, terms: Option<LaneTerms>, known: Option<Arc<KnownContent>>) {
        if terms.is_none() {
            // They would be done for nobody, and name lanes that are to be forgotten.
            self.jobs.clear();
        }
        let owners = |terms| lane_owners(&LaneSetup { terms, known, key: None }, usize::from(self.lanes));
        self.owners = terms.map_or_else(Vec::new, owners);
        self.remembered_bytes = vec![0; self.owners.len()];
    }

    /// Bytes that workers remember.
    pub(super) fn remembered_bytes(&self) -> u64 {
        self.remembered_bytes.iter().sum()
    }

    /// How many work on it at once.
    pub(super) fn workers(&self) -> u16 {
        self.workers
    }

    /// Whether encoding is handed out at all.
    pub(super) fn hands_out(&self) -> bool {
        self.workers > 1
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether no further batch may be added, and hence nothing be read.
    pub(super) fn is_full(&self) -> bool {
        self.batches.len() >= ENCODING_BATCHES_MAX
    }

    /// Bytes that are kept until it is known whether encoding pays.
    pub(super) fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.raw.len()).sum()
    }

    /// Guest bytes that are being encoded, as far as they keep the workers busy: so many batches of `batch` bytes each.
    pub(super) fn in_hand(&self, batch: u64) -> u64 {
        if !self.hands_out() {
            return 0;
        }
        let in_hand: u64 = self.batches.iter().map(|batch| batch.length as u64).sum();
        in_hand.min(u64::from(self.workers) * WORKER_BATCHES * batch)
    }

    /// Whether a frame of this connection before `sequence` is still being encoded.
    pub(super) fn holds_before(&self, connection: u16, sequence: u64) -> bool {
        self.batches.iter().any(|batch| batch.connection == connection && batch.sequence < sequence)
    }

    /// The connection of the oldest batch, and its sequence there.
    pub(super) fn front(&self) -> Option<(u16, u64)> {
        self.batches.front().map(|batch| (batch.connection, batch.sequence))
    }

    /// The batch that was planned is to be encoded.
    pub(super) fn add(&mut self, beginning: Beginning) {
        let Beginning { connection, sequence, fields, raw, batch, planned } = beginning;
        let Planned { effort, kind, worked_ns } = planned;
        let plan = &mut self.plan;
        let number = self.first + self.batches.len() as u64;
        let mut encoding = Encoding {
            connection,
            sequence,
            length: fields.length as usize,
            raw,
            effort,
            kind,
            tally: plan.tally,
            worked_ns,
            index: BytesMut::new(),
            parts: self.spare.pop().unwrap_or_default(),
            remembered: !self.owners.is_empty() && !plan.parts.is_empty(),
            missing: plan.parts.len(),
        };
        let lanes = IndexFields { lanes: plan.parts.iter().map(|(lane, _)| lane.0).collect() };
        let part = PartFields { connection, batch: sequence };
        for (place, (lane, bodies)) in plan.parts.drain(..).enumerate() {
            encoding.parts.push((lane, BytesMut::new(), SentContent::default()));
            let worker = worker_of(lane, self.lanes, self.workers);
            self.jobs.push_back(Job::part(
                worker,
                Ticket::Part(number, place),
                part,
                (batch.clone(), bodies),
                effort,
                self.owners.get(usize::from(lane.0)).cloned(),
            ));
        }
        let fields = fields.to_bytes();
        if plan.literals.len() <= INDEX_AT_ONCE_BYTES {
            let (names, texts) = ((&fields, &lanes), (&plan.ops[..], &plan.literals[..]));
            let out = &mut self.scratch;
            encoding.tally.join(&index_frame(&mut self.encoder, names, texts, effort, out));
            encoding.index = copied(out, &self.buffers);
        } else {
            // An index needs no lane's memory: whoever's turn it is.
            let worker = (number % u64::from(self.workers.max(1))) as u16;
            encoding.missing += 1;
            let texts = (&plan.ops[..], &plan.literals[..]);
            self.jobs.push_back(Job::index(worker, number, fields, lanes, texts, effort, &self.buffers));
        }
        self.batches.push_back(encoding);
    }

    /// The next job to hand out; at most so many are under way.
    pub(super) fn next_job(&mut self) -> Option<Job> {
        if self.under_way >= JOBS_UNDER_WAY_MAX {
            return None;
        }
        let job = self.jobs.pop_front()?;
        self.under_way += 1;
        Some(job.equipped(&self.buffers))
    }

    /// A frame, but for its header, has been made.
    pub(super) fn done(
        &mut self,
        ticket: Ticket,
        (frame, content): (Vec<u8>, SentContent),
        tally: &Tally,
        (worked_ns, remembered_bytes): (u64, u64),
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        // Nobody knew how long it would become: it was made in room for the most.
        let room = frame;
        let frame = copied(&room, &self.buffers);
        self.buffers.give_back_own(room);
        let (Ticket::Index(number) | Ticket::Part(number, _)) = ticket else { return };
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        // Where everything was dropped meanwhile, nobody waits for it.
        let Some(batch) = place.and_then(|place| self.batches.get_mut(place)) else { return };
        match ticket {
            Ticket::Part(_, place) => {
                if let Some((lane, made, its_content)) = batch.parts.get_mut(place) {
                    (*made, *its_content) = (frame, content);
                    if let Some(held) = self.remembered_bytes.get_mut(usize::from(lane.0)) {
                        *held = remembered_bytes;
                    }
                }
            }
            _ => batch.index = frame,
        }
        batch.tally.join(tally);
        batch.worked_ns = batch.worked_ns.saturating_add(worked_ns);
        batch.missing = batch.missing.saturating_sub(1);
    }

    /// The next batch that has been encoded, if it is its turn.
    pub(super) fn next_encoded(&mut self) -> Option<Encoding> {
        if self.batches.front()?.missing > 0 {
            return None;
        }
        self.first += 1;
        self.batches.pop_front()
    }

    /// A batch has left: what it was made of serves the next ones.
    fn left(&mut self, mut parts: Vec<Made>) {
        if self.spare.len() < ENCODING_BATCHES_MAX {
            parts.clear();
            self.spare.push(parts);
        }
    }

    /// Nothing of it is needed any more.
    pub(super) fn drop_all(&mut self) {
        self.first += self.batches.len() as u64;
        self.batches.clear();
        self.jobs.clear();
    }
}

impl Outbound {
    /// What a batch is like, if the choice of its effort asks for that. What looking costs no effort is charged with: it is paid
    /// whatever is chosen.
    pub(super) fn look(&mut self, data: &[u8], clock: &impl Clock) -> Option<BatchKind> {
        if !self.policy.looks() {
            return None;
        }
        let began = Began::now(clock);
        let kind = self.encoder.look(data);
        self.times.encoded(began.cost(clock), true);
        Some(kind)
    }

    /// What a batch is to become; for others to carry out. `None`: it is better carried as it is.
    pub(super) fn plan(&mut self, data: &[u8], clock: &impl Clock) -> Option<Planned> {
        let kind = self.look(data, clock);
        let began = Began::now(clock);
        let effort = self.policy.choose(data.len(), kind);
        self.encoder.plan(data, &self.spans, effort, &mut self.encoding.plan).ok()?;
        let cost = began.cost(clock);
        self.times.encoded(cost, true);
        Some(Planned { effort, kind, worked_ns: cost.worked_ns })
    }

    /// The next piece of encoding for a worker.
    pub fn next_job(&mut self) -> Option<Job> {
        self.encoding.next_job()
    }

    /// A worker has done a job. True: more may be read than before.
    pub fn job_done(&mut self, done: Done, now: Instant) -> bool {
        let Outcome::Encoded(frame, tally, content) = done.outcome else { return false };
        self.encoding.plan.give_back(done.spent);
        done.texts.into_iter().for_each(|text| self.encoding.buffers.give_back_own(text));
        let was_full = self.encoding.is_full();
        self.times.encoded(done.cost, false);
        let made = (frame, content);
        self.encoding.done(done.ticket, made, &tally, (done.cost.worked_ns, done.remembered_bytes));
        self.send_encoded(now);
        let freed = self.allowance.settle(now);
        freed || was_full && !self.encoding.is_full()
    }

    /// Whether the far side waits for a batch that a worker has not encoded yet.
    pub fn waits_for_encoding(&self) -> bool {
        let first = |connection| self.connections.get(&connection).map(|sending| sending.verified_frames);
        self.encoding.front().is_some_and(|(connection, sequence)| first(connection) == Some(sequence))
    }

    /// Batches that have been encoded leave, each as whatever is shorter.
    pub(super) fn send_encoded(&mut self, now: Instant) {
        while let Some(encoding) = self.encoding.next_encoded() {
            let fruitless = !encoding.remembered && encoding.tally.is_fruitless(encoding.length);
            let Encoding {
                connection,
                sequence,
                length,
                raw,
                effort,
                kind,
                tally,
                worked_ns,
                index,
                mut parts,
                ..
            } = encoding;
            let choice = if fruitless { Choice::Raw(RawReason::Fruitless) } else { Choice::Structured };
            self.policy.observe(effort, kind, choice, &tally, worked_ns);
            if fruitless {
                self.bytes.raw += length as u64;
                if let Some(sending) = self.connections.get_mut(&connection) {
                    sending.became(sequence, Vec::new(), raw.len() as u64, now);
                }
                self.enqueue((Lane::Connection(connection), sequence), (connection, sequence), raw);
                self.retained.give_back(index.freeze());
                parts.drain(..).for_each(|(_, frame, _)| self.retained.give_back(frame.freeze()));
                self.encoding.left(parts);
                continue;
            }
            self.count(&tally);
            let (mut keys, mut encoded) = (self.spare_keys.pop().unwrap_or_default(), 0);
            let mut carried = Vec::new();
            for (lane, frame, content) in parts.drain(..) {
                self.references.keep((connection, sequence), lane.0, content.referred);
                carried.extend(content.carried);
                encoded += frame.len();
                keys.push(self.send_part(lane, (connection, sequence), frame));
            }
            self.encoding.left(parts);
            encoded += index.len();
            if let Some(sending) = self.connections.get_mut(&connection) {
                sending.became(sequence, keys, encoded as u64, now);
            }
            self.carries(connection, sequence, carried);
            let lane = Lane::Connection(connection);
            let header =
                FrameHeader { kind: Kind::Index, lane, session: self.session, epoch: self.epoch, sequence };
            self.enqueue((lane, sequence), (connection, sequence), finish_frame(index, header));
        }
    }
}
