//! Page lanes at the receiver: parts in order, decoded here or by others, held until their batch is complete.

use super::{Inbound, Receipt, violation, waiting_bytes};
use crate::limits::{
    BATCH_PAGES_MAX, BATCHES_UNDER_WAY_MAX, JOBS_UNDER_WAY_MAX, LANE_PENDING_FRAMES_MAX, PAGE_BYTES,
};
use crate::page::{DecoderMemory, Hole, LaneId, PartError, PartHeader, ReceivedContent};
use crate::stream::job::{Done, Job, LaneOwner, Outcome, Ticket, worker_of};
use crate::stream::sorted::Sorted;
use crate::wire::{Cursor, FRAME_HEADER_BYTES, FrameHeader, PartFields, Reason, ReasonCode};
use bytes::Bytes;

/// A page lane: parts are decoded in its order, and wait for nothing else.
#[derive(Default)]
pub(super) struct PageLane {
    next: u64,
    pub(super) pending: Sorted<u64, Bytes>,
    /// What it remembers, where its parts are decoded here.
    pub(super) memory: Option<DecoderMemory>,
    /// The name of what its worker remembers, where they are not.
    pub(super) owner: Option<LaneOwner>,
    /// Bytes that its worker remembers, as it said last.
    pub(super) remembered_bytes: u64,
}

/// A part whose turn in its lane has come.
pub(super) struct HeldPart {
    /// Bytes of its bodies, known before they are decoded.
    pub(super) bytes: u64,
    /// `None` while they are being decoded.
    pub(super) bodies: Option<Vec<u8>>,
    /// Which of them came whole, and their fingerprints.
    pub(super) whole: Vec<(u16, u64)>,
    /// Pages that were only referred to and are not here: the peer has been asked for them.
    pub(super) missing: Vec<Hole>,
}

impl HeldPart {
    /// Whether its batch may be put together.
    pub(super) fn is_whole(&self) -> bool {
        self.bodies.is_some() && self.missing.is_empty()
    }
}

fn undecodable(lane: u16, sequence: u64, error: &PartError) -> Reason {
    let text = format!("part {sequence} of page lane {lane} cannot be decoded: {error}");
    Reason::new(ReasonCode::Decode, text)
}

impl Inbound {
    /// Takes a part, and decodes as many of its lane as stand in order (DWCP-22, DWCP-31, DWCP-80).
    pub(super) fn receive_part(
        &mut self,
        lane: u16,
        header: FrameHeader,
        frame: Bytes,
        receipt: &mut Receipt,
    ) -> Result<(), Reason> {
        let Some(entry) = self.lanes.get_mut(usize::from(lane)) else {
            return Err(violation(format!("a part came on page lane {lane}, which was not agreed")));
        };
        if header.sequence < entry.next {
            // Decoded already; the sender repeats it because it has not heard that its batch was verified.
            let part = PartFields::take(&mut Cursor::new(&frame[FRAME_HEADER_BYTES..]))?;
            if self.connections.contains_key(&part.connection) {
                self.report(part.connection);
            }
            return Ok(());
        }
        if header.sequence - entry.next > LANE_PENDING_FRAMES_MAX as u64 {
            return Err(violation(format!("page lane {lane} has more frames under way than allowed")));
        }
        if !entry.pending.contains(&header.sequence) {
            // Whose credit it takes is known before its turn comes: lanes would hold any number of large frames else.
            let part = PartFields::take(&mut Cursor::new(&frame[FRAME_HEADER_BYTES..]))?;
            let window = self.window;
            if let Some(receiving) = self.connection(part.connection)? {
                receiving.check_room(part.connection, waiting_bytes(&frame), window)?;
                receiving.waiting_bytes += waiting_bytes(&frame);
            }
            self.lanes[usize::from(lane)].pending.insert(header.sequence, frame);
        }
        loop {
            let entry = &mut self.lanes[usize::from(lane)];
            let Some(frame) = entry.pending.remove(&entry.next) else { return Ok(()) };
            entry.next += 1;
            let sequence = entry.next - 1;
            let mut cursor = Cursor::new(&frame[FRAME_HEADER_BYTES..]);
            let part = PartFields::take(&mut cursor)?;
            let payload = frame.slice(frame.len() - cursor.rest().len()..);
            if let Some(receiving) = self.connections.get_mut(&part.connection) {
                receiving.waiting_bytes -= waiting_bytes(&frame);
            }
            let header = PartHeader::parse(&payload).map_err(|error| undecodable(lane, sequence, &error))?;
            self.hold_part(lane, &part, header.count * PAGE_BYTES)?;
            if self.codec_workers > 1 {
                let worker = worker_of(LaneId(lane), self.lanes.len() as u16, self.codec_workers);
                let ticket = Ticket::Decode { part, lane, sequence };
                let owner = self.lanes[usize::from(lane)].owner.clone();
                self.jobs.push_back(Job::decode(worker, ticket, payload, owner));
                continue;
            }
            let mut bodies = self.buffers.take_own(header.count * PAGE_BYTES);
            let mut memory = self.lanes[usize::from(lane)].memory.as_mut();
            self.decoder
                .decode(&payload, BATCH_PAGES_MAX, memory.as_deref_mut(), &mut bodies)
                .map_err(|error| undecodable(lane, sequence, &error))?;
            let content = memory.map(DecoderMemory::take_content).unwrap_or_default();
            self.keep_part(lane, &part, (bodies, content), receipt)?;
        }
    }

    /// The next part for a worker to decode; at most so many are under way.
    pub fn next_job(&mut self) -> Option<Job> {
        if self.jobs_under_way >= JOBS_UNDER_WAY_MAX {
            return None;
        }
        let job = self.jobs.pop_front()?;
        self.jobs_under_way += 1;
        Some(job.equipped(&self.buffers))
    }

    /// A worker has decoded a part; `receipt` gets what that changed. An error is the session's end.
    pub fn job_done(&mut self, done: Done, receipt: &mut Receipt) -> Result<(), Reason> {
        let Ticket::Decode { part, lane, sequence } = done.ticket else { return Ok(()) };
        let Outcome::Decoded(decoded) = done.outcome else { return Ok(()) };
        self.jobs_under_way = self.jobs_under_way.saturating_sub(1);
        let decoded = decoded.map_err(|error| undecodable(lane, sequence, &error))?;
        if let Some(lane) = self.lanes.get_mut(usize::from(lane)) {
            lane.remembered_bytes = done.remembered_bytes;
        }
        self.keep_part(lane, &part, decoded, receipt)
    }

    /// Room for the bodies of a part is taken from the connection's credit before they are decoded.
    fn hold_part(&mut self, lane: u16, part: &PartFields, bytes: usize) -> Result<(), Reason> {
        let (window, bytes) = (self.window, bytes as u64);
        let Some(receiving) = self.connection(part.connection)? else { return Ok(()) };
        let ahead = part.batch.checked_sub(receiving.verified_frames);
        if ahead.is_none_or(|ahead| ahead > BATCHES_UNDER_WAY_MAX as u64) {
            return Err(violation(format!(
                "a part belongs to batch {}, which cannot be under way",
                part.batch
            )));
        }
        receiving.check_room(part.connection, bytes, window)?;
        receiving.parts_bytes += bytes;
        let held = HeldPart { bytes, bodies: None, whole: Vec::new(), missing: Vec::new() };
        if !receiving.parts.insert((part.batch, lane), held) {
            return Err(violation(format!("batch {} has two parts on page lane {lane}", part.batch)));
        }
        Ok(())
    }

    /// Decoded bodies wait for their batch's index, or complete it.
    fn keep_part(
        &mut self,
        lane: u16,
        part: &PartFields,
        (bodies, content): (Vec<u8>, ReceivedContent),
        receipt: &mut Receipt,
    ) -> Result<(), Reason> {
        let Some(receiving) = self.connections.get_mut(&part.connection) else { return Ok(()) };
        let held = receiving.parts.get_mut(&(part.batch, lane));
        if let Some(held) = held
            && self.contents.fill(held, bodies, content)
        {
            self.ask_for(part, lane);
            return Ok(());
        }
        self.advance(part.connection, receipt)
    }
}
