//! What a script acts on.

use super::{
    ARRIVE, CANCEL, CHANGE, CLOSE, CONNECT, DISORDER, EXCHANGE, FIT, HOSTILE, MAKE_UP, NO_DIGEST, OPERATIONS,
    READ, SEND, SMALL_WINDOWS, STREAM_LOST, STREAM_UP, WAIT, WORKERS, WRITE, ZSTD,
};
use crate::input::Input;
use bytes::Bytes;
use novacron_protocol::event::Event;
use novacron_protocol::hypervisor::synthetic::{Contents, Noise, Plan, PlannedPage};
use novacron_protocol::limits::{BATCHES_UNDER_WAY_MAX, CONTENT_PAGE_BYTES, RECEIVE_SLACK_BYTES};
use novacron_protocol::page::policy::Mode;
use novacron_protocol::page::{ContentKey, ContentMemory, ContentStore};
use novacron_protocol::session::{Ends, Role, Session, SessionConfig, State, Token};
use novacron_protocol::stream::{CodecWorker, INGEST_HEADROOM, Job, StreamId};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{
    BATCH_FIELDS_BYTES, FRAME_HEADER_BYTES, FrameHeader, Identity, Kind, Reason, ReasonCode,
};
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::Duration;

pub(super) const SESSION: u64 = 7;
pub(super) const SOURCE: usize = 0;
pub(super) const DESTINATION: usize = 1;
/// Streams that a script numbers.
pub(super) const STREAMS: usize = 3;
/// Connections that a script numbers.
pub(super) const CONNECTIONS: usize = 3;
/// Codec workers of a side, where there are any.
const CODEC_WORKERS: u16 = 3;
/// Frames under way in one direction of a stream.
const UNDER_WAY_MAX: usize = 256;

const ENDS: Ends = Ends {
    dialler: Identity { gateway: [1; 16], instance: [2; 16] },
    acceptor: Identity { gateway: [3; 16], instance: [4; 16] },
    nonces: [[5; 16], [6; 16]],
};

/// What a hypervisor on `side` writes on `connection`, again and again: a source's first connection is a migration,
/// the others are bytes that no parser knows.
pub(super) fn content(side: usize, connection: usize) -> &'static [u8] {
    static CONTENT: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    let all = CONTENT.get_or_init(|| {
        let mut plan = Plan::filled(40, 5, 1);
        for (i, page) in plan.passes[0].iter_mut().enumerate() {
            page.contents = match i % 4 {
                0 => Contents::Noise,
                1 => Contents::Zero,
                _ => Contents::Fill(i as u8),
            };
        }
        // Some become what others were.
        let again = |page| {
            let contents =
                if page % 2 == 0 { Contents::Fill(1) } else { Contents::Copy { of: page / 8 * 4 } };
            PlannedPage { block: 0, page, contents }
        };
        plan.passes[1] = (3..20).map(again).collect();
        plan.device_bytes = 3000;
        let mut noise = Noise::new(9);
        let words = (0..4000).flat_map(|_| noise.next_u64().to_le_bytes());
        [plan.build(), words.collect(), b"what the destination answers; ".repeat(500)]
    });
    match (side, connection) {
        (SOURCE, 0 | 2) => &all[0],
        (SOURCE, _) => &all[1],
        _ => &all[2],
    }
}

/// The bytes of `content` from `position` on, which goes round.
pub(super) fn bytes_at(side: usize, connection: usize, position: u64, len: usize) -> Vec<u8> {
    let content = content(side, connection);
    let mut from = (position % content.len() as u64) as usize;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let until = content.len().min(from + len - bytes.len());
        bytes.extend_from_slice(&content[from..until]);
        from = 0;
    }
    bytes
}

/// A hypervisor's socket at one gateway.
#[derive(Default)]
struct Socket {
    open: bool,
    written: u64,
    closed: bool,
    /// Bytes handed out and not yet taken.
    offered: u64,
    read: u64,
}

pub(super) struct Side {
    pub(super) session: Session,
    sockets: [Socket; CONNECTIONS],
    /// Frames that its session was given.
    delivered: u64,
    /// What the gateway itself answers for a session that is over.
    answer: Option<Bytes>,
    /// What each codec worker was given.
    jobs: [VecDeque<Job>; CODEC_WORKERS as usize],
}

#[derive(Default)]
pub(super) struct Stream {
    id: u32,
    pub(super) up: [bool; 2],
    /// Frames under way to each side.
    pub(super) to: [VecDeque<Bytes>; 2],
}

pub(super) struct World {
    pub(super) hostile: bool,
    pub(super) sides: [Side; 2],
    pub(super) streams: [Stream; STREAMS],
    streams_ever: u32,
    codecs: CodecWorker,
    steps: usize,
    pub(super) now: Instant,
}

impl World {
    pub(super) fn new(options: u8, window: u8) -> Self {
        let hostile = options & HOSTILE != 0;
        let config = |role| {
            let mut config = SessionConfig::new(role, SESSION, Token::new([7; 32]));
            config.digest = hostile || options & NO_DIGEST == 0;
            let unit = if options & SMALL_WINDOWS != 0 { 64 } else { 16 * 1024 };
            config.receive_window = (u64::from(window) + 1) * unit;
            config.codec = if options & ZSTD != 0 { Mode::Zstd { level: 1 } } else { Mode::Lz4 };
            config.codec_workers = if options & WORKERS != 0 { CODEC_WORKERS } else { 1 };
            config.lanes = 1 + u16::from(options >> 4 & 3);
            // A few tens of pages a lane, no window: whole ones would be most of the time of a run.
            config.memory_bytes = 400_000;
            config.connections_max = CONNECTIONS as u16;
            // Less than the guest: what it gives up has to be repaired.
            let store = ContentStore::new(ContentKey::new([9; 32]), 6 * CONTENT_PAGE_BYTES);
            config.content_store = Some(ContentMemory::new(store));
            config
        };
        let now = Instant::START;
        let side = |session| Side {
            session,
            sockets: Default::default(),
            delivered: 0,
            answer: None,
            jobs: Default::default(),
        };
        World {
            hostile,
            sides: [
                side(Session::source(config(Role::Source), now)),
                side(Session::destination(config(Role::Destination), now)),
            ],
            streams: Default::default(),
            streams_ever: 0,
            codecs: CodecWorker::new(),
            steps: 0,
            now,
        }
    }

    pub(super) fn step(&mut self, input: &mut Input<'_>) {
        let operations = if self.hostile { OPERATIONS } else { CHANGE };
        let operation = input.byte() % operations;
        // Side, stream or connection, and how much, in one byte each where they fit.
        let place = input.byte();
        let (side, stream) = (usize::from(place & 1), usize::from(place >> 1) % STREAMS);
        let connection = usize::from(place >> 1) % CONNECTIONS;
        match operation {
            STREAM_UP => self.stream_up(stream),
            STREAM_LOST => self.stream_lost(side, stream),
            SEND => drop(self.send(side, stream, 1 + input.below(32))),
            ARRIVE => drop(self.arrive(side, stream, 1 + input.below(32))),
            WRITE => self.write(side, connection, amount(input.byte())),
            READ => drop(self.read(side, connection, amount(input.byte()))),
            CLOSE => self.close(side, connection),
            CONNECT => self.connect(),
            WAIT => self.wait(input.byte()),
            CANCEL if input.byte() == 0xff => {
                let reason = Reason::new(ReasonCode::Cancelled, "a caller cancelled the session");
                self.sides[side].session.fail(reason);
            }
            EXCHANGE => drop(self.exchange(stream, 1 + usize::from(place & 1))),
            CHANGE => self.change(side, stream, input),
            DISORDER => self.disorder(side, stream, input),
            MAKE_UP => self.make_up(side, stream, input),
            FIT => self.fit(side, stream, input),
            _ => {}
        }
        // Every other step a worker comes to the end of something, now this one and now that.
        self.steps += 1;
        if self.steps % 2 == 0 {
            self.do_jobs(1);
        }
    }

    /// Codec work is handed out, and at most so many jobs of each side are done. Whether any was.
    fn do_jobs(&mut self, most: usize) -> bool {
        let mut any = false;
        for Side { session, jobs, .. } in &mut self.sides {
            for turn in 0..=most {
                while let Some(job) = session.next_job() {
                    jobs[job.worker()].push_back(job);
                }
                let worker = (self.steps / 2 + turn) % jobs.len();
                let worker = if jobs[worker].is_empty() {
                    jobs.iter().position(|jobs| !jobs.is_empty())
                } else {
                    Some(worker)
                };
                let Some(job) = worker.filter(|_| turn < most).and_then(|worker| jobs[worker].pop_front())
                else {
                    break;
                };
                session.job_done(self.codecs.carry_out(job, &self.now), self.now);
                any = true;
            }
        }
        any
    }

    fn stream_up(&mut self, stream: usize) {
        let up = self.streams[stream].up;
        if up == [true; 2] {
            return;
        }
        for side in [SOURCE, DESTINATION] {
            self.stream_lost(side, stream);
        }
        self.streams_ever += 1;
        let (id, now) = (self.streams_ever, self.now);
        self.streams[stream] = Stream { id, up: [true; 2], ..Stream::default() };
        for side in &mut self.sides {
            side.session.stream_opened(StreamId(id), ENDS, now);
        }
    }

    fn stream_lost(&mut self, side: usize, stream: usize) {
        let lost = &mut self.streams[stream];
        if std::mem::take(&mut lost.up[side]) {
            lost.to[side].clear();
            self.sides[side].session.stream_lost(StreamId(lost.id), self.now);
        }
    }

    fn send(&mut self, side: usize, stream: usize, most: usize) -> usize {
        let over = &mut self.streams[stream];
        let mut sent = 0;
        while sent < most && over.up[side] && over.to[1 - side].len() < UNDER_WAY_MAX {
            let waits = self.sides[side].session.has_frames();
            let frame = self.sides[side].answer.take();
            let Some(frame) =
                frame.or_else(|| self.sides[side].session.next_frame(StreamId(over.id), self.now))
            else {
                break;
            };
            assert!(waits || frame[4] == Kind::Refuse as u8, "a frame came that did not wait");
            FrameHeader::read(&frame).expect("a session writes frames");
            // An end that has lost the stream hears nothing.
            if over.up[1 - side] {
                over.to[1 - side].push_back(frame);
            }
            sent += 1;
        }
        sent
    }

    fn arrive(&mut self, side: usize, stream: usize, most: usize) -> usize {
        for arrived in 0..most {
            let Some(frame) = self.streams[stream].to[side].pop_front() else { return arrived };
            self.deliver(side, stream, frame);
        }
        most
    }

    /// A stream hands a frame to a gateway, which answers by itself for a session that is over.
    pub(super) fn deliver(&mut self, side: usize, stream: usize, frame: Bytes) {
        // What cannot be read costs the stream.
        let Ok(header) = FrameHeader::read(&frame) else {
            self.stream_lost(side, stream);
            return self.stream_lost(1 - side, stream);
        };
        let over = match self.sides[side].session.state() {
            State::Finished => Some(Reason::new(ReasonCode::Finished, "the session has ended, and well")),
            State::Failed(reason) => Some(reason.clone()),
            _ => None,
        };
        match over {
            None => {
                let (id, now) = (self.streams[stream].id, self.now);
                self.sides[side].delivered += 1;
                self.sides[side].session.receive(StreamId(id), header, frame, now);
            }
            Some(_) if matches!(header.kind, Kind::Refuse | Kind::Fail | Kind::Accept) => {}
            Some(reason) => {
                let witness = self.sides[side].session.config().witness();
                self.sides[side].answer = Some(witness.last_word(Kind::Refuse, &reason, &ENDS));
            }
        }
        self.events(side);
    }

    fn events(&mut self, side: usize) {
        while let Some(event) = self.sides[side].session.next_event() {
            if let Event::ConnectionOpened { connection, .. } = event
                && let Some(socket) = self.sides[side].sockets.get_mut(usize::from(connection))
            {
                socket.open = true;
            }
        }
    }

    fn connect(&mut self) {
        if let Ok(connection) = self.sides[SOURCE].session.open_connection("migration", self.now) {
            self.sides[SOURCE].sockets[usize::from(connection)].open = true;
        }
    }

    fn write(&mut self, side: usize, connection: usize, most: usize) {
        let Side { session, sockets, .. } = &mut self.sides[side];
        let socket = &mut sockets[connection];
        let budget = session.read_budget(connection as u16);
        let filled = budget.min(most);
        if !socket.open || socket.closed || filled == 0 {
            return;
        }
        let mut buffer = vec![0; INGEST_HEADROOM];
        buffer.extend_from_slice(&bytes_at(side, connection, socket.written, filled));
        session.ingest(connection as u16, buffer, filled, &self.now);
        socket.written += filled as u64;
    }

    fn close(&mut self, side: usize, connection: usize) {
        let Side { session, sockets, .. } = &mut self.sides[side];
        if sockets[connection].open && !std::mem::replace(&mut sockets[connection].closed, true) {
            session.ingest_end(connection as u16, self.now);
        }
    }

    /// A hypervisor takes what there is for it, up to `most` bytes.
    fn read(&mut self, side: usize, connection: usize, most: usize) -> usize {
        let mut taken = 0;
        let written = self.sides[1 - side].sockets[connection].written;
        let Side { session, sockets, .. } = &mut self.sides[side];
        let socket = &mut sockets[connection];
        while taken < most {
            if socket.offered == 0 {
                let Some(bytes) = session.next_output(connection as u16) else { break };
                assert!(!bytes.is_empty());
                let expected = bytes_at(1 - side, connection, socket.read, bytes.len());
                assert!(bytes == expected, "bytes come out that nobody wrote");
                assert!(self.hostile || socket.read + bytes.len() as u64 <= written);
                socket.offered = bytes.len() as u64;
            }
            let take = socket.offered.min((most - taken) as u64);
            socket.offered -= take;
            socket.read += take;
            taken += take as usize;
            session.consumed(connection as u16, take, self.now);
        }
        taken
    }

    fn wait(&mut self, how_long: u8) {
        const MS: [u64; 8] = [1, 2, 10, 500, 1000, 2500, 10_000, 61_000];
        self.now = self.now.after(Duration::from_millis(MS[usize::from(how_long) % MS.len()]));
        for side in &mut self.sides {
            if side.session.deadline().is_some_and(|deadline| deadline <= self.now) {
                side.session.tick(self.now);
                let deadline = side.session.deadline();
                assert!(deadline.is_none_or(|deadline| deadline > self.now), "a gateway would spin");
            }
        }
    }

    /// Moves everything that both sides have for a stream. Whether anything moved.
    fn exchange(&mut self, stream: usize, rounds: usize) -> bool {
        let mut moved = 0;
        for _ in 0..rounds {
            for side in [SOURCE, DESTINATION] {
                moved += self.send(side, stream, UNDER_WAY_MAX);
                moved += self.arrive(1 - side, stream, UNDER_WAY_MAX);
            }
        }
        moved > 0
    }

    /// What holds after every operation.
    pub(super) fn check(&mut self) {
        for side in [SOURCE, DESTINATION] {
            self.events(side);
            self.check_bounds(side);
            let session = &self.sides[side].session;
            if let State::Failed(reason) = session.state() {
                assert!(!reason.text.is_empty());
                let own_fault = matches!(
                    reason.code,
                    ReasonCode::Protocol
                        | ReasonCode::Decode
                        | ReasonCode::DigestMismatch
                        | ReasonCode::NotAuthorised
                        | ReasonCode::SessionUnknown
                        | ReasonCode::Limit
                );
                assert!(self.hostile || !own_fault, "an honest peer is blamed: {reason:?}");
                for connection in 0..CONNECTIONS as u16 {
                    let output = self.sides[side].session.next_output(connection);
                    assert!(output.is_none(), "bytes come out after the failure");
                }
            }
        }
    }

    /// Memory stays within what was promised, whatever the peer does.
    fn check_bounds(&self, side: usize) {
        let Side { session, delivered, .. } = &self.sides[side];
        let sending: Vec<_> = session.outbound().states().collect();
        let (retained, _) = session.outbound().retained_bytes();
        let explained: u64 = sending
            .iter()
            .map(|s| s.position - s.verified + (BATCHES_UNDER_WAY_MAX as u64 + 2).min(s.position + 2) * 256)
            .sum();
        assert!(retained as u64 <= explained, "{retained} bytes retained, {explained} are explained");
        let window = session.config().receive_window;
        let connections = session.inbound().states().count() as u64;
        assert!(connections <= 2 * CONNECTIONS as u64, "{connections} connections");
        // The same fields stand in every frame, and are not counted.
        let fields = delivered * (FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES) as u64;
        let reserved = connections * (window + window / 32 + RECEIVE_SLACK_BYTES) + fields;
        let held = session.inbound().held_bytes();
        assert!(held <= reserved, "{held} bytes held, {reserved} are explained by what was reserved");
    }

    /// Lets an honest run come to its end: on a good stream, with hypervisors that read and close.
    pub(super) fn end(&mut self) {
        for stream in 0..STREAMS {
            for side in [SOURCE, DESTINATION] {
                self.stream_lost(side, stream);
            }
        }
        self.stream_up(0);
        // Each round moves at least a window, so few are needed for what a script wrote.
        for _ in 0..400 {
            let mut moved = self.do_jobs(usize::MAX - 1) | self.exchange(0, 1);
            if self.sides.iter().all(|side| side.session.state().is_over()) {
                break;
            }
            if !self.sides[SOURCE].sockets[0].open {
                self.connect();
                moved = true;
            }
            for (side, connection) in (0..CONNECTIONS).flat_map(|c| [(SOURCE, c), (DESTINATION, c)]) {
                moved |= self.read(side, connection, usize::MAX) > 0;
                let socket = &self.sides[side].sockets[connection];
                moved |= socket.open && !socket.closed;
                self.close(side, connection);
            }
            self.check();
            if !moved {
                break;
            }
        }
        self.check();
        let states = [SOURCE, DESTINATION].map(|side| self.sides[side].session.state());
        if self.hostile || states.iter().any(|state| matches!(state, State::Failed(_))) {
            return;
        }
        assert!(states.iter().all(|state| matches!(state, State::Finished)), "no end in sight: {states:?}");
        for (side, connection) in (0..CONNECTIONS).flat_map(|c| [(SOURCE, c), (DESTINATION, c)]) {
            let there = &self.sides[1 - side].sockets[connection];
            assert_eq!(self.sides[side].sockets[connection].read, there.written, "bytes are missing");
        }
    }
}

/// How many bytes a hypervisor writes or reads at a time.
fn amount(choice: u8) -> usize {
    const BYTES: [usize; 8] = [1, 9, 100, 600, 4104, 12_312, 40_000, 200_000];
    BYTES[usize::from(choice) % BYTES.len()]
}

/// Puts a payload under a header.
pub(super) fn frame(header: FrameHeader, payload: &[u8]) -> Bytes {
    let mut out = vec![0; FRAME_HEADER_BYTES];
    out.extend_from_slice(payload);
    header.write(payload.len(), &mut out);
    out.into()
}
