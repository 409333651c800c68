//! The receiving half of a session: frames become verified bytes, in order, within what was promised.

mod content;
mod parts;

use super::buffers::Buffers;
use super::connection_set::ConnectionSet;
use super::credit::{Promise, ReceiveMemory};
use super::job::{Job, LaneSetup, lane_owners};
use super::sorted::Sorted;
use crate::limits::{
    BATCH_LEN_MAX, BATCHES_UNDER_WAY_MAX, CONNECTIONS_MAX, LANE_PENDING_FRAMES_MAX, LANES_MAX,
    PROGRESS_ENTRIES_MAX, RECEIVE_SLACK_BYTES,
};
use crate::page::{Assembler, Bodies, ContentMemory, DecoderMemory, LaneDecoder, LaneTerms};
use crate::wire::{
    BATCH_FIELDS_BYTES, BatchFields, ConnectionOpen, Cursor, FRAME_HEADER_BYTES, FrameHeader, IndexFields,
    Kind, Lane, Progress, ProgressEntry, Reason, ReasonCode, WireError,
};
use bytes::Bytes;
use content::Contents;
use parts::{HeldPart, PageLane};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// What a received frame changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Connections that the peer opened, with their labels.
    pub opened: Vec<(u16, String)>,
    /// Connections that have verified bytes, or an end, to hand out.
    pub readable: Vec<u16>,
}

/// A slow hypervisor's progress is told each time that it took this much: a quarter of a batch or so.
const REPORT_BYTES: u64 = 64 * 1024;

/// One connection's incoming direction.
struct Receiving {
    /// Parts that wait for their batch's index, by batch and lane.
    parts: Sorted<(u64, u16), HeldPart>,
    parts_bytes: u64,
    /// Frames of the connection's lane that wait for an earlier one, or for their parts.
    pending: Sorted<u64, (FrameHeader, Bytes)>,
    /// Payload bytes of `pending`, and of this connection's parts that wait in their lanes.
    waiting_bytes: u64,
    verified_frames: u64,
    position: u64,
    hasher: blake3::Hasher,
    ready: VecDeque<Bytes>,
    /// Batches that were assembled and handed out, and where they end.
    lent: VecDeque<(u64, Bytes)>,
    handed_out: u64,
    consumed: u64,
    ended: bool,
    /// How far the peer was told that it may send.
    promise: Promise,
    /// Bytes that the hypervisor took since the peer last heard of it.
    unreported_bytes: u64,
}

/// What one connection's incoming direction has done, for records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivingState {
    /// The connection.
    pub connection: u16,
    /// Bytes verified.
    pub verified: u64,
    /// Bytes that the hypervisor here has taken.
    pub consumed: u64,
    /// BLAKE3 of the bytes verified; `None` where the session carries no digest.
    pub digest: Option<[u8; 32]>,
    /// The direction has ended, and the hypervisor has taken everything.
    pub ended: bool,
}

/// The receiving half of a session.
pub struct Inbound {
    digest: bool,
    lanes: Vec<PageLane>,
    /// Serves every lane: a part is decoded by itself, and its codecs' state takes far more than a lane.
    decoder: LaneDecoder,
    /// More than one: parts are decoded by others.
    codec_workers: u16,
    /// Parts to be decoded that were not handed out yet.
    jobs: VecDeque<Job>,
    jobs_under_way: usize,
    assembler: Assembler,
    /// Memory for decoded bodies and for assembled batches.
    buffers: Buffers,
    /// Pages that parts refer to by their content.
    contents: Contents,
    window: u64,
    /// What a new connection's sender may send before it is told more, and whose memory that is.
    first_promise: u64,
    memory: ReceiveMemory,
    connections_max: u16,
    /// The peer opens connections; from here they are opened where it does not.
    peer_opens: bool,
    connections: BTreeMap<u16, Receiving>,
    /// Connections whose peer has not heard how they stand.
    unreported: ConnectionSet,
    /// Some of it is worth a frame now. What is only verified waits until its hypervisor has taken it too: one frame
    /// then says both.
    report_now: bool,
}

fn violation(text: impl Into<String>) -> Reason {
    Reason::new(ReasonCode::Protocol, text)
}

/// Keys of the parts of a batch whose index names these.
fn of_batch(batch: u64, named: &IndexFields) -> Range<(u64, u16)> {
    (batch, 0)..(batch, if named.lanes.is_empty() { 0 } else { LANES_MAX })
}

/// What a frame that waits takes of its connection's credit: its payload, less what is the same for every batch.
fn waiting_bytes(frame: &Bytes) -> u64 {
    frame.len().saturating_sub(FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES) as u64
}

impl From<WireError> for Reason {
    fn from(error: WireError) -> Reason {
        violation(format!("the peer sent what cannot be read: {error}"))
    }
}

impl Inbound {
    /// Nothing received yet, on `lanes` page lanes. `window` guest bytes are reserved for each connection.
    pub fn new(digest: bool, lanes: u16, window: u64, connections_max: u16, peer_opens: bool) -> Self {
        let connections_max = connections_max.min(CONNECTIONS_MAX);
        Inbound {
            digest,
            lanes: (0..lanes).map(|_| PageLane::default()).collect(),
            decoder: LaneDecoder::new(),
            codec_workers: 1,
            jobs: VecDeque::new(),
            jobs_under_way: 0,
            assembler: Assembler::new(),
            buffers: Buffers::default(),
            contents: Contents::default(),
            window,
            first_promise: window,
            memory: ReceiveMemory::unshared(),
            connections_max,
            peer_opens,
            connections: BTreeMap::new(),
            unreported: ConnectionSet::default(),
            report_now: false,
        }
    }

    /// Shares `memory` with other sessions: connections are promised `first` bytes to begin with, and more as their
    /// hypervisors take it, up to their window.
    pub fn with_memory(mut self, memory: ReceiveMemory, first: u64) -> Self {
        (self.memory, self.first_promise) = (memory, first.min(self.window));
        self
    }

    /// Lanes remember from now on what they carry, on terms that the peer agreed to; `None`: they forget. Parts may refer to what
    /// stands in `store`.
    pub fn remember(&mut self, terms: Option<LaneTerms>, store: Option<ContentMemory>) {
        let handed_out = self.codec_workers > 1;
        if terms.is_none() {
            // They would be done for nobody, and name lanes that are to be forgotten.
            self.jobs.clear();
        }
        self.contents.exchange(store);
        let key = self.contents.key();
        let setup = |terms| LaneSetup { terms, known: None, key: key.clone() };
        let owners = terms.filter(|_| handed_out).map(|terms| lane_owners(&setup(terms), self.lanes.len()));
        let mut owners = owners.into_iter().flatten();
        for lane in &mut self.lanes {
            let memory = |terms| DecoderMemory::new(terms).with_content(key.clone());
            lane.memory = terms.filter(|_| !handed_out).map(memory);
            (lane.owner, lane.remembered_bytes) = (owners.next(), 0);
        }
    }

    /// Bytes that are spent on remembering.
    pub fn remembered_bytes(&self) -> u64 {
        let of =
            |lane: &PageLane| lane.memory.as_ref().map_or(lane.remembered_bytes, DecoderMemory::held_bytes);
        self.lanes.iter().map(of).sum()
    }

    fn new_connection(&self) -> Receiving {
        Receiving::new(Promise::new(self.memory.clone(), self.first_promise, self.window))
    }

    /// Batches are put together in memory of `buffers`.
    pub fn with_buffers(mut self, buffers: Buffers) -> Self {
        self.buffers = buffers;
        self
    }

    /// Lets others decode parts, where they are more than one.
    pub fn with_codec_workers(mut self, workers: u16) -> Self {
        self.codec_workers = workers;
        self
    }

    /// Expects a connection's direction that the peer does not announce, because it was opened from here.
    pub fn open(&mut self, connection: u16) {
        let new = self.new_connection();
        self.connections.entry(connection).or_insert(new).verified_frames = 1;
    }

    /// Takes a frame of a page lane or a connection's lane; `receipt` gets what it changed. An error is the session's end.
    pub fn receive(
        &mut self,
        header: FrameHeader,
        frame: Bytes,
        receipt: &mut Receipt,
    ) -> Result<(), Reason> {
        match header.lane {
            Lane::Connection(connection) => {
                self.receive_ordered(connection, header, frame)?;
                self.advance(connection, receipt)?;
            }
            Lane::Page(lane) if header.kind == Kind::Part => {
                self.receive_part(lane, header, frame, receipt)?
            }
            Lane::Page(_) | Lane::Unordered => {
                return Err(violation(format!("a {:?} frame came on lane {:?}", header.kind, header.lane)));
            }
        }
        Ok(())
    }

    /// The connection, which begins here where it is new: its frames may overtake the one that opens it.
    fn connection(&mut self, connection: u16) -> Result<Option<&mut Receiving>, Reason> {
        if !self.connections.contains_key(&connection) {
            if !self.peer_opens {
                return Err(violation(format!(
                    "a frame came for connection {connection}, which is not open"
                )));
            }
            // They are numbered in the order in which they were opened (DWCP-45).
            if connection >= self.connections_max {
                let text =
                    format!("the peer opens more than the {} connections agreed", self.connections_max);
                return Err(Reason::new(ReasonCode::Limit, text));
            }
            let new = self.new_connection();
            self.connections.insert(connection, new);
        }
        Ok(self.connections.get_mut(&connection))
    }

    /// Keeps a frame of a connection's lane until its turn; what came before is dropped (DWCP-31).
    fn receive_ordered(&mut self, connection: u16, header: FrameHeader, frame: Bytes) -> Result<(), Reason> {
        let window = self.window;
        let Some(receiving) = self.connection(connection)? else { return Ok(()) };
        if header.sequence < receiving.verified_frames {
            // The sender has not heard that it was verified.
            self.report(connection);
            return Ok(());
        }
        if header.sequence - receiving.verified_frames > BATCHES_UNDER_WAY_MAX as u64 {
            return Err(violation(format!("connection {connection} has more frames under way than allowed")));
        }
        if matches!(header.kind, Kind::Batch | Kind::Index) {
            let fields = BatchFields::take(&mut Cursor::new(&frame[FRAME_HEADER_BYTES..]))?;
            if fields.end()? > receiving.promise.limit() {
                return Err(violation(format!("connection {connection} exceeds its credit")));
            }
        }
        if !receiving.pending.contains(&header.sequence) {
            receiving.check_room(connection, waiting_bytes(&frame), window)?;
            receiving.waiting_bytes += waiting_bytes(&frame);
            receiving.pending.insert(header.sequence, (header, frame));
        }
        Ok(())
    }

    /// Verifies as many frames of a connection's lane as stand in order.
    fn advance(&mut self, connection: u16, receipt: &mut Receipt) -> Result<(), Reason> {
        let (assembler, lanes, digest) = (&mut self.assembler, self.lanes.len(), self.digest);
        let (window, contents, buffers) = (self.window, &self.contents, &self.buffers);
        let Some(receiving) = self.connections.get_mut(&connection) else { return Ok(()) };
        let before = receiving.verified_frames;
        while let Some((header, frame)) = receiving.pending.remove(&receiving.verified_frames) {
            if receiving.ended {
                return Err(violation(format!("connection {connection} goes on after its end")));
            }
            receiving.waiting_bytes -= waiting_bytes(&frame);
            let payload = frame.slice(FRAME_HEADER_BYTES..);
            match header.kind {
                Kind::ConnectionOpen if header.sequence == 0 => {
                    receipt.opened.push((connection, ConnectionOpen::read(&payload)?.label));
                }
                Kind::Batch if header.sequence > 0 => {
                    let mut cursor = Cursor::new(&payload);
                    let fields = BatchFields::take(&mut cursor)?;
                    let bytes = payload.slice(payload.len() - cursor.rest().len()..);
                    receiving.verify(connection, &fields, &bytes, digest)?;
                    receiving.hand_over(connection, bytes, window)?;
                }
                Kind::Index if header.sequence > 0 => {
                    let mut cursor = Cursor::new(&payload);
                    let fields = BatchFields::take(&mut cursor)?;
                    let named = IndexFields::take(&mut cursor, lanes as u16)?;
                    if !receiving.has_parts(header.sequence, &named) {
                        receiving.waiting_bytes += waiting_bytes(&frame);
                        receiving.pending.insert(header.sequence, (header, frame));
                        break;
                    }
                    let mut bodies = [Bodies::default(); LANES_MAX as usize];
                    for ((_, lane), part) in receiving.parts_of(header.sequence, &named) {
                        bodies[usize::from(*lane)] =
                            part.bodies.as_deref().map(Bodies::new).unwrap_or_default();
                    }
                    let bodies = &mut bodies[..lanes];
                    let mut out = buffers.take(fields.length as usize);
                    assembler.assemble(cursor.rest(), bodies, fields.length as usize, &mut out).map_err(
                        |error| {
                            let text = format!(
                                "connection {connection}: the index at {} cannot be used: {error}",
                                header.sequence
                            );
                            Reason::new(ReasonCode::Decode, text)
                        },
                    )?;
                    receiving.verify(connection, &fields, &out, digest)?;
                    receiving.drop_parts(header.sequence, &named, |part| {
                        let bodies = part.bodies.unwrap_or_default();
                        contents.keep(&bodies, &part.whole);
                        buffers.give_back_own(bodies);
                    });
                    let out = out.freeze();
                    receiving.lent.push_back((receiving.position, out.clone()));
                    receiving.hand_over(connection, out, window)?;
                }
                Kind::ConnectionEnd if header.sequence > 0 => {
                    let mut cursor = Cursor::new(&payload);
                    let fields = BatchFields::take(&mut cursor)?;
                    cursor.end()?;
                    receiving.verify(connection, &fields, &[], digest)?;
                    receiving.ended = true;
                    receiving.promise.end_at(receiving.position);
                }
                kind => {
                    let text =
                        format!("a {kind:?} frame stands at {} of connection {connection}", header.sequence);
                    return Err(violation(text));
                }
            }
            receiving.verified_frames += 1;
            if receiving.parts.first().is_some_and(|((batch, _), _)| *batch < receiving.verified_frames) {
                return Err(violation(format!(
                    "batch {} has parts that its index does not name",
                    header.sequence
                )));
            }
        }
        if receiving.verified_frames > before {
            let nothing_to_take = receiving.ready.is_empty() || receiving.ended;
            self.unreported.insert(connection);
            self.report_now |= nothing_to_take;
            receipt.readable.push(connection);
        }
        Ok(())
    }

    /// The next verified bytes of a connection, to be written to the hypervisor.
    pub fn next_output(&mut self, connection: u16) -> Option<Bytes> {
        let receiving = self.connections.get_mut(&connection)?;
        let bytes = receiving.ready.pop_front()?;
        receiving.handed_out += bytes.len() as u64;
        Some(bytes)
    }

    /// Whether the connection's direction has ended and every byte was handed out.
    pub fn at_end(&self, connection: u16) -> bool {
        self.connections.get(&connection).is_some_and(|r| r.ended && r.ready.is_empty())
    }

    /// The hypervisor has taken `bytes` more bytes of what was handed out: credit for as many returns.
    pub fn consumed(&mut self, connection: u16, bytes: u64) {
        if let Some(receiving) = self.connections.get_mut(&connection) {
            receiving.consumed = (receiving.consumed + bytes).min(receiving.handed_out);
            receiving.promise.consumed(receiving.consumed);
            while receiving.lent.front().is_some_and(|(end, _)| *end <= receiving.consumed) {
                let Some((_, taken)) = receiving.lent.pop_front() else { break };
                self.buffers.give_back(taken);
            }
            receiving.unreported_bytes += bytes;
            let all_taken = receiving.consumed == receiving.position;
            if all_taken || receiving.unreported_bytes >= REPORT_BYTES.min(self.window / 4) {
                self.report(connection);
            } else {
                self.unreported.insert(connection);
            }
        }
    }

    /// The peer is to hear how a connection stands, now.
    fn report(&mut self, connection: u16) {
        self.unreported.insert(connection);
        self.report_now = true;
    }

    /// Whether the peer has not heard what was verified, because the hypervisor has not taken it yet.
    pub fn owes_report(&self) -> bool {
        !self.report_now && !self.unreported.is_empty()
    }

    /// The hypervisor takes too long: the peer is to hear what was verified.
    pub fn report_verified(&mut self) {
        self.report_now |= !self.unreported.is_empty();
    }

    /// Whether the peer should hear how some connection stands.
    pub fn has_progress(&self) -> bool {
        self.report_now && !self.unreported.is_empty()
    }

    /// What the peer has not heard yet, at most as much as one frame holds, in the place of what `progress` said.
    pub fn take_progress(&mut self, progress: &mut Progress) {
        progress.entries.clear();
        while progress.entries.len() < PROGRESS_ENTRIES_MAX {
            let Some(connection) = self.unreported.pop_first() else { break };
            let Some(receiving) = self.connections.get_mut(&connection) else { continue };
            receiving.unreported_bytes = 0;
            progress.entries.push(ProgressEntry {
                connection,
                verified_frames: receiving.verified_frames,
                consumed: receiving.consumed,
                limit: receiving.promise.renew(),
            });
        }
        self.report_now = !self.unreported.is_empty();
    }

    /// A stream was lost, and with it perhaps the last word: say everything again (DWCP-31).
    pub fn repeat_progress(&mut self) {
        self.ask_again();
        self.unreported.extend(self.connections.keys().copied());
        self.report_now = true;
    }

    /// Whether the connection's direction has ended and the hypervisor has taken everything.
    pub fn is_ended(&self, connection: u16) -> bool {
        self.connections.get(&connection).is_some_and(Receiving::is_ended)
    }

    /// Whether any connection exists and the end of every one has been verified; a hypervisor may still have to
    /// take its last bytes.
    pub fn all_received(&self) -> bool {
        !self.connections.is_empty() && self.connections.values().all(|receiving| receiving.ended)
    }

    /// Whether any connection exists and every one has ended.
    pub fn all_ended(&self) -> bool {
        !self.connections.is_empty() && self.connections.values().all(Receiving::is_ended)
    }

    /// Bytes held: verified ones that wait for a hypervisor, and frames and parts that wait for earlier ones.
    pub fn held_bytes(&self) -> u64 {
        let lanes: usize = self.lanes.iter().flat_map(|lane| lane.pending.values()).map(Bytes::len).sum();
        let connections = self.connections.values().map(|receiving| {
            let ready: usize = receiving.ready.iter().map(Bytes::len).sum();
            let pending: usize = receiving.pending.values().map(|(_, frame)| frame.len()).sum();
            (ready + pending) as u64 + receiving.parts_bytes
        });
        lanes as u64 + connections.sum::<u64>()
    }

    /// Every connection's state.
    pub fn states(&self) -> impl Iterator<Item = ReceivingState> + '_ {
        self.connections.iter().map(|(connection, receiving)| ReceivingState {
            connection: *connection,
            verified: receiving.position,
            consumed: receiving.consumed,
            digest: self.digest.then(|| *receiving.hasher.finalize().as_bytes()),
            ended: receiving.is_ended(),
        })
    }
}

impl Receiving {
    fn new(promise: Promise) -> Self {
        Receiving {
            promise,
            parts: Sorted::default(),
            parts_bytes: 0,
            pending: Sorted::default(),
            waiting_bytes: 0,
            verified_frames: 0,
            position: 0,
            hasher: blake3::Hasher::new(),
            ready: VecDeque::new(),
            lent: VecDeque::new(),
            handed_out: 0,
            consumed: 0,
            ended: false,
            unreported_bytes: 0,
        }
    }

    fn is_ended(&self) -> bool {
        self.ended && self.consumed == self.position
    }

    /// Whether every part that an index names is here, and whole.
    fn has_parts(&self, batch: u64, named: &IndexFields) -> bool {
        let whole = |lane| self.parts.get(&(batch, lane)).is_some_and(HeldPart::is_whole);
        named.lanes.iter().all(whole)
    }

    /// The parts of a batch. Those that its index does not name are among them, unless it names none: it does not fit them either.
    fn parts_of(&self, batch: u64, named: &IndexFields) -> impl Iterator<Item = &((u64, u16), HeldPart)> {
        self.parts.range(of_batch(batch, named))
    }

    /// The batch has been put together: its parts are needed no more.
    fn drop_parts(&mut self, batch: u64, named: &IndexFields, mut each: impl FnMut(HeldPart)) {
        for part in self.parts.drain(of_batch(batch, named)) {
            self.parts_bytes -= part.bytes;
            each(part);
        }
    }

    /// Whether `bytes` more fit into what was reserved beside all that is held here. Each byte of a batch is held once,
    /// as itself or encoded, whatever stage it is in; an index and its parts take a few bytes for each page beside
    /// them.
    fn check_room(&self, connection: u16, bytes: u64, window: u64) -> Result<(), Reason> {
        let held = self.position - self.consumed + self.waiting_bytes + self.parts_bytes + bytes;
        // Memory is there for what was promised, which is at most the window.
        let window = window.min(self.promise.outstanding());
        if held > window.saturating_add(window / 32 + RECEIVE_SLACK_BYTES) {
            return Err(violation(format!("connection {connection} exceeds its credit")));
        }
        Ok(())
    }

    /// Verified bytes wait for the hypervisor. Where they were encoded they take more than they did.
    fn hand_over(&mut self, connection: u16, bytes: Bytes, window: u64) -> Result<(), Reason> {
        self.check_room(connection, 0, window)?;
        if self.ready.len() > BATCHES_UNDER_WAY_MAX {
            return Err(violation(format!(
                "connection {connection} has more batches under way than allowed"
            )));
        }
        if !bytes.is_empty() {
            self.ready.push_back(bytes);
        }
        Ok(())
    }

    /// Checks a batch's position, length and digest (promise 1, DWCP-20), and moves over it.
    fn verify(
        &mut self,
        connection: u16,
        fields: &BatchFields,
        bytes: &[u8],
        digest: bool,
    ) -> Result<(), Reason> {
        if fields.position != self.position || fields.length as usize != bytes.len() {
            return Err(violation(format!(
                "connection {connection}: a batch of {} bytes for position {} says {} bytes at {}",
                bytes.len(),
                self.position,
                fields.length,
                fields.position
            )));
        }
        if digest {
            self.hasher.update(bytes);
            if self.hasher.finalize() != fields.digest {
                let text = format!(
                    "connection {connection}: the {} bytes at position {} are not what the source wrote",
                    bytes.len(),
                    self.position
                );
                return Err(Reason::new(ReasonCode::DigestMismatch, text));
            }
        }
        self.position += bytes.len() as u64;
        Ok(())
    }
}

const _: () = assert!(LANE_PENDING_FRAMES_MAX >= BATCHES_UNDER_WAY_MAX && BATCH_LEN_MAX > 0);

/// Guest bytes stay out of logs.
impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}
