//! The sending half of a session: guest bytes become frames, and frames stay until they are verified.

mod allowance;
mod content;
mod crossed;
mod encoding;
mod follow;
mod progress;
mod remember;
mod repeat;

use super::buffers::Buffers;
use super::link::Link;
use super::retain::{Owner, Retention, StreamId};
use super::sending::{Sending, SendingState, UnderWay};
use super::times::{Times, Wait};
use crate::hypervisor::{Parser, Span, StreamProgress};
use crate::limits::{
    BATCHES_UNDER_WAY_MAX, CARRY_BYTES_MAX, CONNECTIONS_MAX, HOLE_WINDOWS, LANE_PENDING_FRAMES_MAX,
    RECEIVE_WINDOW_BYTES,
};
use crate::page::policy::{Mode, Policy};
use crate::page::{BatchEncoder, Choice, EncodedBatch, KnownContent, LaneId};
use crate::schedule::FrameKey;
use crate::session::MIGRATION;
use crate::time::{Began, Clock, Instant};
use crate::wire::{
    BATCH_FIELDS_BYTES, BatchFields, ConnectionOpen, FRAME_HEADER_BYTES, FrameHeader, IndexFields, Kind,
    Lane, PART_FIELDS_BYTES, PartFields, finish_frame, start_frame,
};
use allowance::Allowance;
use bytes::{BufMut, Bytes};
use content::References;
use crossed::Crossed;
use encoding::{Beginning, EncodingQueue, Planned};
pub use remember::{CodecTime, SentBytes};
use repeat::{Advances, Arrivals};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Free bytes that an ingress buffer holds before the bytes read: room for an incomplete record that waited and
/// for the frame's own fields, so that a batch which is sent as it is needs no copy.
pub const INGEST_HEADROOM: usize = FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES + CARRY_BYTES_MAX;

/// A far hypervisor that has not taken this many batches of what was verified is slower than the link.
const FAR_BATCHES: u64 = 2;

/// Frames that one read may cause: its batch, what it left over and the connection's end.
const FRAMES_AFTER_A_READ: usize = 3;

/// A buffer that the gateway filled from a hypervisor's socket: [`INGEST_HEADROOM`] free bytes, then bytes read.
pub trait BatchBuffer {
    /// The whole buffer.
    fn as_mut(&mut self) -> &mut [u8];
    /// The whole buffer, shared from now on.
    fn freeze(self) -> Bytes;
}

impl BatchBuffer for Vec<u8> {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
    fn freeze(self) -> Bytes {
        self.into()
    }
}

/// The sending half of a session.
pub struct Outbound {
    session: u64,
    epoch: u32,
    digest: bool,
    /// Whether connections of this direction carry a hypervisor's pages.
    parse: bool,
    connections: BTreeMap<u16, Sending>,
    retained: Retention,
    /// The next sequence of each page lane.
    page_lanes: Vec<u64>,
    policy: Policy,
    encoder: BatchEncoder,
    encoded: EncodedBatch,
    /// Lists of parts, of batches that have been verified.
    spare_keys: Vec<Vec<FrameKey>>,
    /// Where encoding is handed out: what is under way.
    encoding: EncodingQueue,
    spans: Vec<Span>,
    /// How fast encoded bytes are verified.
    link: Link,
    /// What guest bytes spend their time on.
    times: Times,
    /// When the peer last verified something.
    verified_at: Instant,
    bytes: SentBytes,
    /// A connection has shown that the guest is stopped: nothing waits for company any more.
    stopped: bool,
    /// What the far side's content store is believed to hold, where there is one.
    known: Option<Arc<KnownContent>>,
    /// Pages of which only references are under way.
    references: References,
    window_granted: u64,
    /// Most guest bytes under way, each connection, whatever the path would take.
    window_bytes_max: u64,
    /// How long frames take to arrive.
    arrivals: Arrivals,
    /// What has crossed the path and waits there in streams.
    crossed: Crossed,
    advances: Advances,
    /// What the caller lets it send.
    allowance: Allowance,
}

impl Outbound {
    /// Nothing sent yet. `pages` says how guest pages are encoded, over how many lanes; `None` for the direction
    /// that carries none (destination to source). More than one of `codec_workers`: encoding is handed out.
    pub fn new(
        session: u64,
        epoch: u32,
        digest: bool,
        pages: Option<(Mode, u16)>,
        codec_workers: u16,
    ) -> Self {
        let (mode, lanes) = pages.unwrap_or((Mode::None, 1));
        Outbound {
            session,
            epoch,
            digest,
            parse: pages.is_some(),
            connections: BTreeMap::new(),
            retained: Retention::default(),
            page_lanes: vec![0; usize::from(lanes)],
            policy: Policy::new(mode),
            encoder: BatchEncoder::new(lanes),
            encoded: EncodedBatch::default(),
            spare_keys: Vec::new(),
            encoding: EncodingQueue::new(codec_workers, lanes, Buffers::default()),
            spans: Vec::new(),
            link: Link::default(),
            times: Times::default(),
            verified_at: Instant::START,
            bytes: SentBytes::default(),
            stopped: false,
            known: None,
            references: References::default(),
            window_granted: RECEIVE_WINDOW_BYTES,
            window_bytes_max: u64::MAX,
            arrivals: Arrivals::default(),
            crossed: Crossed::default(),
            advances: Advances::default(),
            allowance: Allowance::default(),
        }
    }

    /// Frames are made in memory of `buffers`.
    pub fn with_buffers(mut self, buffers: Buffers) -> Self {
        let lanes = self.page_lanes.len() as u16;
        self.encoding = EncodingQueue::new(self.encoding.workers(), lanes, buffers.clone());
        self.retained = Retention::new(buffers);
        self
    }

    /// No more encoded bytes a second are sent than `rate`; `None`: whatever the path takes.
    pub fn with_rate_limit(mut self, rate: Option<u64>) -> Self {
        self.allowance = Allowance::new(rate);
        self.link.bound(rate);
        self
    }

    /// What the peer reserves for each connection, as it said when the session opened.
    pub fn grant(&mut self, receive_window: u64) {
        self.window_granted = receive_window;
        for sending in self.connections.values_mut() {
            sending.limit = sending.limit.max(sending.consumed.saturating_add(receive_window));
        }
    }

    /// Starts a connection's direction; its opening frame is sent where `announce` is given.
    pub fn open(&mut self, connection: u16, announce: Option<&ConnectionOpen>, now: Instant) {
        debug_assert!(connection < CONNECTIONS_MAX);
        // Only the migration's connections carry pages; what a disk's or a control connection says is opaque (DWCP-46).
        let parse = self.parse && announce.is_none_or(|announce| announce.label == MIGRATION);
        let mut sending = Sending::new(parse, self.window_granted, now);
        let frame = announce.map(|announce| announce.to_frame(self.session, self.epoch, connection));
        if let Some(frame) = &frame {
            sending.verified_frames = 0;
            sending.encoded_under_way = frame.len() as u64;
            sending.under_way.push_back(UnderWay::new(0, 0, Vec::new(), frame.len() as u64, now));
        }
        self.connections.insert(connection, sending);
        if let Some(frame) = frame {
            self.enqueue((Lane::Connection(connection), 0), (connection, 0), frame);
        }
    }

    /// Bytes that the gateway may read from the hypervisor now, at most [`BATCH_BYTES_MAX`]; 0: wait.
    pub fn read_budget(&self, connection: u16) -> usize {
        let Some(sending) = self.connections.get(&connection) else { return 0 };
        if sending.ended {
            return 0;
        }
        if self.encoding.is_full() {
            sending.wait.set(Wait::Encoders);
            return 0;
        }
        if self.allowance.is_spent() {
            sending.wait.set(Wait::Path);
            return 0;
        }
        let frames = sending.under_way.len() + sending.verified_under_way.len();
        let ahead = sending.position + sending.carry.len() as u64;
        let credit = sending.limit.saturating_sub(ahead);
        let batch = sending.pace.batch();
        let window = sending.pace.window().min(self.window_bytes_max);
        // What workers have in hand is not on the path yet: without it they would wait for each other's round trips.
        let window = window.saturating_add(self.encoding.in_hand(batch));
        // What waits behind a hole has left the path to others. Held back for it, every stream would pause for the loss of one.
        let across = sending.waits_across(self.crossed_share()).min(window.saturating_mul(HOLE_WINDOWS));
        let across = sending.across_or_late(across, window);
        let window = window.saturating_sub(ahead.saturating_sub(sending.consumed).saturating_sub(across));
        let budget = credit.min(window).min(batch) as usize;
        // Reading a sliver each time an acknowledgement trickles in would cost a system call and a digest each.
        let sliver = !self.stopped && (budget as u64) < batch / 4 && ahead > sending.consumed;
        let frames_spent = frames + FRAMES_AFTER_A_READ >= BATCHES_UNDER_WAY_MAX;
        if sliver || frames_spent || self.link_is_full(sending) {
            sending.wait.set(Wait::Path);
            return 0;
        }
        budget
    }

    /// Whether as many encoded bytes are under way as may be; what has arrived is not, within the same measure as of guest bytes.
    fn link_is_full(&self, sending: &Sending) -> bool {
        let window = self.link.window();
        // Of this connection alone: one whose hypervisor does not read must not stop another, for which it may be waiting. What is
        // being encoded has not left.
        let left = sending.encoded_under_way.saturating_sub(self.encoding.bytes() as u64);
        self.bytes_to_cross() >= window || left >= window.saturating_mul(1 + HOLE_WINDOWS)
    }

    /// Takes `filled` bytes that were read into `buffer` behind its headroom, and makes frames of them.
    pub fn ingest<B: BatchBuffer>(
        &mut self,
        connection: u16,
        mut buffer: B,
        filled: usize,
        clock: &impl Clock,
    ) {
        let Some(sending) = self.connections.get_mut(&connection) else { return };
        let now = clock.now();
        let carried = sending.carry.len();
        let start = INGEST_HEADROOM - carried;
        let bytes = buffer.as_mut();
        let end = (INGEST_HEADROOM + filled).min(bytes.len());
        bytes[start..INGEST_HEADROOM].copy_from_slice(&sending.carry);
        self.spans.clear();
        let data = &bytes[start..end];
        let taken = match &mut sending.parser {
            Some(parser) => {
                let taken = parser.parse(data, true, &mut self.spans);
                self.stopped |= parser.is_stopped();
                taken
            }
            None => data.len(),
        };
        sending.carry.clear();
        sending.carry.extend_from_slice(&data[taken..]);
        if carried == 0 || taken > 0 {
            sending.carry_since = now;
        }
        if taken > 0 {
            self.send_batch(connection, buffer, start, taken, clock);
        }
    }

    /// Sends what waits for its rest too long, or, with `all`, whatever waits.
    fn flush_carry(&mut self, connection: u16, now: Instant) {
        let Some(sending) = self.connections.get_mut(&connection) else { return };
        if sending.carry.is_empty() {
            return;
        }
        self.spans.clear();
        if let Some(parser) = &mut sending.parser {
            parser.parse(&sending.carry, false, &mut self.spans);
        }
        let start = FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES;
        let mut buffer = vec![0; start];
        buffer.extend_from_slice(&sending.carry);
        sending.carry.clear();
        let length = buffer.len() - start;
        self.send_batch(connection, buffer, start, length, &now);
    }

    /// The bytes `start..start + length` of `buffer` become the connection's next batch: as they are, or as an index
    /// and parts, whichever gets them across sooner.
    fn send_batch<B: BatchBuffer>(
        &mut self,
        connection: u16,
        mut buffer: B,
        start: usize,
        length: usize,
        clock: &impl Clock,
    ) {
        let now = clock.now();
        let Some(sending) = self.connections.get_mut(&connection) else { return };
        let wait = sending.wait.replace(Wait::Source);
        let held_up = self.times.begin(wait, now);
        self.link.sent(held_up, now);
        let bytes = buffer.as_mut();
        let data = &bytes[start..start + length];
        let fields = sending.advance(data, self.digest);
        self.bytes.guest += length as u64;
        let mut plan: Option<Planned> = None;
        if sending.parser.is_some() && self.lanes_have_room() {
            if self.encoding.hands_out() {
                plan = self.plan(data, clock);
            } else if self.encode(data, clock) {
                self.send_structured(connection, &fields, now);
                return self.batch_sent(length, clock);
            }
        }
        let fields_at = start - BATCH_FIELDS_BYTES;
        let frame_at = fields_at - FRAME_HEADER_BYTES;
        bytes[fields_at..start].copy_from_slice(&fields.to_bytes());
        let encoded = FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES + length;
        let header = self.connection_header(Kind::Batch, connection, Vec::new(), encoded, now);
        header.write(BATCH_FIELDS_BYTES + length, &mut bytes[frame_at..fields_at]);
        // A nearly empty buffer would stay whole until its few bytes are verified.
        let frame = if 2 * length < bytes.len() {
            Bytes::copy_from_slice(&bytes[frame_at..start + length])
        } else {
            buffer.freeze().slice(frame_at..start + length)
        };
        let Some(planned) = plan else {
            self.bytes.raw += length as u64;
            self.enqueue((header.lane, header.sequence), (connection, header.sequence), frame);
            return self.batch_sent(length, clock);
        };
        let batch = frame.slice(FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES..);
        let sequence = header.sequence;
        self.encoding.add(Beginning { connection, sequence, fields, raw: frame, batch, planned });
        self.send_encoded(now);
        self.batch_sent(length, clock);
    }

    /// A batch of `length` bytes has been taken in; at the end of a period the policy learns where the time went.
    fn batch_sent(&mut self, length: usize, clock: &impl Clock) {
        let now = clock.now();
        self.allowance.settle(now);
        self.times.end(length, now);
        self.times.settle(&mut self.policy, &self.link, self.encoding.workers(), now);
    }

    /// A part, which is a frame but for its header, leaves as the next of its lane.
    fn send_part(&mut self, lane: LaneId, owner: Owner, frame: impl AsMut<[u8]> + Into<Bytes>) -> FrameKey {
        let next = &mut self.page_lanes[usize::from(lane.0)];
        let sequence = *next;
        *next += 1;
        let lane = Lane::Page(lane.0);
        let (session, epoch) = (self.session, self.epoch);
        let header = FrameHeader { kind: Kind::Part, lane, session, epoch, sequence };
        self.enqueue((lane, sequence), owner, finish_frame(frame, header));
        (lane, sequence)
    }

    /// Whether every page lane may take another part: connections share them, and a receiver bounds how far ahead
    /// of a missing part a lane may run (DWCP-34).
    fn lanes_have_room(&self) -> bool {
        let coming = self.encoding.len() as u64;
        self.page_lanes.iter().zip(0..).all(|(next, lane)| {
            let oldest = self.retained.oldest(Lane::Page(lane)).unwrap_or(*next);
            next + coming - oldest < LANE_PENDING_FRAMES_MAX as u64
        })
    }

    /// Encodes a batch with what effort pays, and learns what it cost. False: it is better carried as it is.
    fn encode(&mut self, data: &[u8], clock: &impl Clock) -> bool {
        let kind = self.look(data, clock);
        let began = Began::now(clock);
        let effort = self.policy.choose(data.len(), kind);
        let choice = self.encoder.encode(data, &self.spans, effort, clock, &mut self.encoded);
        let cost = began.cost(clock);
        self.times.encoded(cost, true);
        self.policy.observe(effort, kind, choice, &self.encoded.tally, cost.worked_ns);
        choice == Choice::Structured
    }

    /// What the encoder made of a batch becomes frames: a part on each lane that it touches, then the index.
    fn send_structured(&mut self, connection: u16, fields: &BatchFields, now: Instant) {
        let Some(batch) = self.connections.get(&connection).map(|sending| sending.frames) else { return };
        let tally = self.encoded.tally;
        self.count(&tally);

        let (mut keys, mut encoded) = (self.spare_keys.pop().unwrap_or_default(), 0);
        let lanes = self.encoded.parts.iter().map(|part| part.lane.0).collect();
        let mut parts = std::mem::take(&mut self.encoded.parts);
        let mut carried = Vec::new();
        for part in &mut parts {
            let content = std::mem::take(&mut part.content);
            self.references.keep((connection, batch), part.lane.0, content.referred);
            carried.extend(content.carried);
            let fields = PartFields { connection, batch };
            let mut out = self.retained.buffer(FRAME_HEADER_BYTES + PART_FIELDS_BYTES + part.payload.len());
            start_frame(&mut out);
            fields.put(&mut out);
            out.put_slice(&part.payload);
            encoded += out.len();
            keys.push(self.send_part(part.lane, (connection, batch), out));
        }
        self.encoded.parts = parts;

        let lanes = IndexFields { lanes };
        let bytes = FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES + lanes.bytes() + self.encoded.index.len();
        let mut out = self.retained.buffer(bytes);
        start_frame(&mut out);
        out.put_slice(&fields.to_bytes());
        lanes.put(&mut out);
        out.put_slice(&self.encoded.index);
        let header = self.connection_header(Kind::Index, connection, keys, encoded + out.len(), now);
        self.carries(connection, batch, carried);
        let frame = finish_frame(out, header);
        self.enqueue((header.lane, header.sequence), (connection, header.sequence), frame);
    }

    /// The header of the connection's next frame, which is under way from now on with the parts that belong to it:
    /// `encoded` bytes in all.
    fn connection_header(
        &mut self,
        kind: Kind,
        connection: u16,
        parts: Vec<FrameKey>,
        encoded: usize,
        now: Instant,
    ) -> FrameHeader {
        let sequence = match self.connections.get_mut(&connection) {
            Some(sending) => sending.next_frame(parts, encoded as u64, now),
            None => 0,
        };
        FrameHeader {
            kind,
            lane: Lane::Connection(connection),
            session: self.session,
            epoch: self.epoch,
            sequence,
        }
    }

    /// The hypervisor closed its writing side: everything that waits leaves, then the end.
    pub fn end(&mut self, connection: u16, now: Instant) {
        self.flush_carry(connection, now);
        let Some(sending) = self.connections.get_mut(&connection) else { return };
        if std::mem::replace(&mut sending.ended, true) {
            return;
        }
        let fields = sending.advance(&[], self.digest);
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES);
        start_frame(&mut out);
        out.extend_from_slice(&fields.to_bytes());
        let header = self.connection_header(Kind::ConnectionEnd, connection, Vec::new(), out.len(), now);
        self.enqueue(
            (header.lane, header.sequence),
            (connection, header.sequence),
            finish_frame(out, header),
        );
    }

    fn enqueue(&mut self, key: FrameKey, owner: Owner, frame: Bytes) {
        self.bytes.encoded += frame.len() as u64;
        self.allowance.spend(frame.len() as u64);
        self.retained.keep(key, owner, frame);
    }

    /// The next frame for `stream`; `None`: nothing waits.
    pub fn next_frame(&mut self, stream: StreamId, now: Instant) -> Option<Bytes> {
        if let Some(repair) = self.next_repair(stream) {
            return Some(repair);
        }
        let (frame, repeated) = self.retained.next(stream, now)?;
        self.bytes.wire += frame.len() as u64;
        self.bytes.repeated += if repeated { frame.len() as u64 } else { 0 };
        Some(frame)
    }

    /// The next small frame for `stream`, which is nobody's bulk.
    pub fn next_small_frame(&mut self, stream: StreamId, now: Instant) -> Option<Bytes> {
        let frame = self.retained.next_small(stream, now)?;
        self.bytes.wire += frame.len() as u64;
        Some(frame)
    }

    /// Whether a frame waits for a stream.
    pub fn has_frames(&self) -> bool {
        self.retained.has_waiting() || self.references.any_due()
    }

    /// A stream died: what it carried and the far side has not verified leaves again (DWCP-31).
    pub fn stream_lost(&mut self, stream: StreamId) {
        self.references.stream_lost(stream);
        self.crossed.set(stream, 0);
        self.advances.forget(stream);
        for (connection, sequence) in self.retained.stream_lost(stream) {
            if let Some(sending) = self.connections.get_mut(&connection) {
                sending.lost(sequence);
            }
        }
    }

    /// Since when the peer has verified nothing of what is under way; `None` while nothing is.
    pub fn unverified_since(&self) -> Option<Instant> {
        let oldest = self
            .connections
            .values()
            .filter_map(|sending| sending.under_way.front())
            .map(|first| first.sent_at);
        oldest.min().map(|oldest| oldest.max(self.verified_at))
    }

    /// Whether the connection's direction has ended and all of it has been verified by the far side.
    pub fn is_ended(&self, connection: u16) -> bool {
        self.connections.get(&connection).is_some_and(|s| s.ended && s.verified_frames == s.frames)
    }

    /// Whether any connection exists and every one has ended.
    pub fn all_ended(&self) -> bool {
        !self.connections.is_empty() && self.connections.keys().all(|connection| self.is_ended(*connection))
    }

    /// Whether any connection exists and every hypervisor here has closed its writing side.
    pub fn all_closed(&self) -> bool {
        !self.connections.is_empty() && self.connections.values().all(|sending| sending.ended)
    }

    /// The peer has finished, so it has verified everything: its last words to that effect were lost.
    pub fn peer_finished(&mut self) {
        for sending in self.connections.values_mut() {
            sending.verify_all();
        }
        self.encoding.drop_all();
        self.retained.release_all();
        self.references = References::default();
    }

    /// Whether a hypervisor waits because of what is under way.
    pub fn is_held_up(&self) -> bool {
        self.connections.values().any(|sending| sending.wait.get() == Wait::Path)
    }

    /// Bytes by how they left.
    pub fn bytes(&self) -> SentBytes {
        self.bytes
    }

    /// Whether any byte of the connections `among` all may have reached the far hypervisor.
    pub fn any_delivered(&self, among: impl Fn(u16) -> bool) -> bool {
        self.connections.iter().any(|(connection, sending)| sending.position > 0 && among(*connection))
    }

    /// What the parser found on the connection that carries the migration: the first that it understood.
    pub fn migration_progress(&self) -> Option<StreamProgress> {
        self.connections.values().filter_map(|s| s.parser.as_ref()).map(Parser::progress).next()
    }

    /// Every connection's state.
    pub fn states(&self) -> impl Iterator<Item = SendingState> + '_ {
        self.connections.iter().map(|(connection, sending)| SendingState {
            connection: *connection,
            position: sending.position,
            verified: sending.verified,
            consumed: sending.consumed,
            digest: self.digest.then(|| *sending.hasher.finalize().as_bytes()),
            ended: sending.ended && sending.verified_frames == sending.frames,
            parsed: sending.parser.as_ref().map(|parser| parser.progress()),
            window: sending.pace.window(),
            rate: sending.pace.rate(),
            round_trip: sending.pace.round_trip(),
        })
    }

    /// Bytes kept for repetition or until they are encoded, and how many of them wait for a stream.
    pub fn retained_bytes(&self) -> (usize, usize) {
        let (kept, waiting) = self.retained.bytes();
        (kept as usize + self.encoding.bytes() + self.references.bytes(), waiting)
    }
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}
