//! A peer gateway as one shard knows it: the streams to it, and the sessions that share them.

use super::load::Load;
use super::serving::Served;
use super::under_way::UnderWay;
use crate::clock;
use crate::limits::{FRUITLESS_WAIT, NOT_BELIEVED_WAIT, PEER_STREAMS_MAX, SOONER_MIN};
use crate::path::Current;
use crate::shard::running::Running;
use crate::trust::{Known, Refusals, Trust, WRONG_TOKEN};
use bytes::Bytes;
use novacron_control_api::{ErrorCode, PeerIdentity};
use novacron_protocol::session::Ends;
use novacron_protocol::stream::{Seen, StreamId};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{Reason, ReasonCode};
use novacron_transport::shard::{Notify, sleep, spawn};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Answers to frames of no session wait here; few are needed, and a flood of questions gets few answers.
const ANSWERS_MAX: usize = 16;

/// One stream to a peer.
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) ends: Ends,
    /// Who is at the other end; `None` where nothing is encrypted.
    pub(crate) known: Option<Known>,
    /// The shard that serves it, and whether its packets arrive there.
    pub(crate) served_by: usize,
    pub(crate) steered: bool,
    /// Frames may wait, or the stream is to close.
    pub(crate) wake: Notify,
    pub(crate) closing: Cell<bool>,
    /// It takes nothing more, and closes when what it carries has arrived.
    pub(crate) retiring: Cell<bool>,
    /// Where its other end is.
    pub(crate) address: Option<IpAddr>,
    /// The congestion control that its socket has; nothing: not known yet.
    pub(crate) congestion: RefCell<String>,
    /// The one that it is to ask for.
    pub(crate) congestion_wanted: Cell<Option<&'static str>>,
    /// The one that it asked for, until it is known what came of it.
    pub(crate) congestion_asked: Cell<Option<&'static str>>,
    /// It has room, and found nothing to send when it last looked, or left it to another.
    pub(crate) idle: Cell<bool>,
    /// It was chosen to take the next frame.
    pub(crate) chosen: Cell<bool>,
    /// Since when nothing of what waited was for it: it is not proven for that session yet, or carries the frame already.
    pub(crate) fruitless: Cell<Option<Instant>>,
    pub(crate) load: Cell<Load>,
    /// When it was last looked at, other streams would have delivered sooner what it carries.
    crawls: Cell<bool>,
    /// When it was last looked at.
    pub(crate) looked_at: Cell<Instant>,
    pub(crate) under_way: RefCell<UnderWay>,
    answers: RefCell<VecDeque<Bytes>>,
}

impl Stream {
    pub(super) fn new(id: StreamId, ends: Ends, known: Option<Known>, served: &Served) -> Rc<Stream> {
        Rc::new(Stream {
            id,
            ends,
            known,
            served_by: served.place.shard,
            steered: served.place.where_packets_arrive,
            wake: Notify::new(),
            closing: Cell::default(),
            retiring: Cell::default(),
            address: served.address,
            congestion: RefCell::default(),
            congestion_wanted: Cell::default(),
            congestion_asked: Cell::default(),
            idle: Cell::default(),
            chosen: Cell::default(),
            fruitless: Cell::default(),
            load: Cell::default(),
            crawls: Cell::default(),
            looked_at: Cell::default(),
            under_way: RefCell::default(),
            answers: RefCell::default(),
        })
    }

    /// It is to have this congestion control from now on; `None`: whatever it has.
    pub(crate) fn prefer(&self, congestion: Option<&'static str>) {
        if congestion.is_some_and(|wanted| *self.congestion.borrow() != wanted) {
            self.congestion_wanted.set(congestion);
            self.wake.notify();
        }
    }

    /// Answers a frame that belongs to no session.
    pub(crate) fn answer(&self, frame: Bytes) {
        let mut answers = self.answers.borrow_mut();
        if answers.len() < ANSWERS_MAX {
            answers.push_back(frame);
            self.wake.notify();
        }
    }
}

/// Bytes of a frame whose delivery streams are compared by: a compressed batch, about.
const USUAL_FRAME_BYTES: usize = 64 * 1024;

/// Of the streams that sleep, the one that would deliver a frame first.
fn best(streams: &[Rc<Stream>], now: Instant) -> Option<&Rc<Stream>> {
    let asleep = streams.iter().filter(|stream| {
        let fruitless = stream.fruitless.get().is_some_and(|since| now.since(since) < FRUITLESS_WAIT);
        stream.idle.get() && !stream.retiring.get() && !fruitless
    });
    asleep.min_by_key(|stream| stream.load.get().delivers_in(USUAL_FRAME_BYTES, now))
}

/// A peer gateway, dialled or accepted.
pub(crate) struct Peer {
    /// How people know it.
    pub(crate) name: String,
    /// Where it is, once that is known.
    pub(crate) address: Cell<Option<IpAddr>>,
    /// The mode of the path to it, as its streams and sessions have it.
    pub(crate) mode: RefCell<Option<Current>>,
    streams: RefCell<Vec<Rc<Stream>>>,
    sessions: RefCell<Vec<Rc<Running>>>,
    /// Where the clock of the session that was served last began.
    turn: Cell<u64>,
    /// Streams that its sessions ask for; only a dialled peer's are made here.
    pub(crate) want: Cell<usize>,
    /// Sessions or streams came or went.
    pub(crate) changed: Notify,
    /// Bytes that arrived at the peer, and from it.
    arrived_bytes: Cell<u64>,
    /// Segments sent again on streams that are gone.
    retransmits_before: Cell<u64>,
    /// Who is to be found where it is dialled, if a caller said so.
    pub(crate) expected: Option<PeerIdentity>,
    /// Who decides what the peer may; `None` where nothing is encrypted.
    trust: Option<Arc<Trust>>,
    /// Who was refused, and why.
    pub(crate) refusals: Arc<Refusals>,
}

impl Peer {
    pub(crate) fn new(
        name: String,
        expected: Option<PeerIdentity>,
        trust: Option<Arc<Trust>>,
        refusals: Arc<Refusals>,
    ) -> Rc<Peer> {
        Rc::new(Peer {
            name,
            address: Cell::default(),
            mode: RefCell::default(),
            expected,
            trust,
            refusals,
            streams: RefCell::default(),
            sessions: RefCell::default(),
            turn: Cell::new(0),
            want: Cell::new(0),
            changed: Notify::new(),
            arrived_bytes: Cell::default(),
            retransmits_before: Cell::default(),
        })
    }

    /// A session uses this peer's streams from now on.
    pub(crate) fn join(&self, running: &Rc<Running>, streams: usize) {
        self.want.set(self.want.get().max(streams.min(PEER_STREAMS_MAX)));
        self.sessions.borrow_mut().push(Rc::clone(running));
        if let Some(current) = &*self.mode.borrow() {
            running.follow(current);
        }
        let streams: Vec<Rc<Stream>> = self.streams.borrow().clone();
        for stream in streams {
            self.offer(&stream, running);
        }
        self.changed.notify();
    }

    /// A stream may carry a session, if its peer may have that.
    fn offer(&self, stream: &Stream, running: &Running) {
        if let (Some(trust), Some(known)) = (&self.trust, &stream.known) {
            if let Err(refused) = trust.admits(known, &running.tenant) {
                trust.refusals.count(refused.what);
                running.fail_opening(
                    ErrorCode::PeerRefused,
                    Reason::new(
                        ReasonCode::NotAuthorised,
                        format!("{}: change peers.toml if it should", refused.why),
                    ),
                );
                return;
            }
            running.is_carried_by(&known.identity);
        }
        running.stream_opened(stream.id, stream.ends);
    }

    /// The streams to it that are open.
    pub(crate) fn streams(&self) -> Vec<Rc<Stream>> {
        self.streams.borrow().clone()
    }

    /// A session is over.
    pub(crate) fn leave(&self, session: u64) {
        self.sessions.borrow_mut().retain(|running| running.id != session);
        if self.sessions.borrow().is_empty() {
            self.want.set(0);
        }
        self.changed.notify();
    }

    pub(crate) fn sessions(&self) -> Vec<Rc<Running>> {
        self.sessions.borrow().clone()
    }

    pub(crate) fn stream_count(&self) -> usize {
        self.streams.borrow().len()
    }

    /// A stream's handshake is complete.
    pub(crate) fn stream_opened(&self, stream: &Rc<Stream>) {
        self.streams.borrow_mut().push(Rc::clone(stream));
        for running in self.sessions() {
            self.offer(stream, &running);
        }
        self.changed.notify();
    }

    /// Streams that take frames.
    pub(crate) fn serving_count(&self) -> usize {
        self.streams.borrow().iter().filter(|stream| !stream.retiring.get()).count()
    }

    /// There are to be no more than `want` streams: the slowest of those beyond carry what they have, and close.
    pub(crate) fn retire_beyond(&self, want: usize) {
        let mut serving: Vec<Rc<Stream>> =
            self.streams.borrow().iter().filter(|stream| !stream.retiring.get()).cloned().collect();
        serving.sort_by_key(|stream| std::cmp::Reverse(stream.load.get().rate));
        for stream in serving.iter().skip(want.max(1)) {
            stream.retiring.set(true);
            stream.wake.notify();
        }
    }

    /// What is seen of the path to it.
    pub(crate) fn seen(&self) -> Seen {
        let streams = self.streams.borrow();
        let serving = || streams.iter().filter(|stream| !stream.retiring.get());
        let retransmits: u64 = streams.iter().map(|stream| u64::from(stream.load.get().retransmits)).sum();
        Seen {
            open: serving().count(),
            arrived_bytes: self.arrived_bytes.get(),
            retransmits: self.retransmits_before.get() + retransmits,
            busy: self.sessions.borrow().iter().any(|running| running.waits_for_the_path()),
            round_trip: serving().map(|stream| stream.load.get().round_trip_min).min().unwrap_or_default(),
        }
    }

    /// Bytes came from the peer, or arrived there.
    pub(crate) fn count_arrived(&self, bytes: u64) {
        self.arrived_bytes.set(self.arrived_bytes.get() + bytes);
    }

    /// The congestion controls of its streams, each once.
    pub(crate) fn congestion(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.streams.borrow().iter().map(|stream| stream.congestion.borrow().clone()).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        names
    }

    /// How many shards serve its streams.
    pub(crate) fn serving_shards(&self) -> u32 {
        let mut shards: Vec<usize> = self.streams.borrow().iter().map(|stream| stream.served_by).collect();
        shards.sort_unstable();
        shards.dedup();
        u32::try_from(shards.len()).unwrap_or(u32::MAX)
    }

    /// How many of its streams are served where their packets arrive.
    pub(crate) fn steered_streams(&self) -> u32 {
        let steered = self.streams.borrow().iter().filter(|stream| stream.steered).count();
        u32::try_from(steered).unwrap_or(u32::MAX)
    }

    /// A stream died.
    pub(crate) fn stream_lost(&self, stream: StreamId) {
        let lost = self.streams.borrow().iter().find(|other| other.id == stream).cloned();
        let retransmits = lost.map_or(0, |lost| u64::from(lost.load.get().retransmits));
        self.retransmits_before.set(self.retransmits_before.get() + retransmits);
        self.streams.borrow_mut().retain(|other| other.id != stream);
        for running in self.sessions() {
            running.stream_lost(stream);
        }
        self.changed.notify();
    }

    /// The peer's system has frames that `stream` carried.
    pub(crate) fn arrived(&self, stream: &Stream, load: &Load) {
        let (bytes, news) = stream.under_way.borrow_mut().arrived(load.outstanding_bytes, load.beyond_bytes);
        self.count_arrived(bytes);
        self.advances(stream, bytes > 0, load);
        for part in news {
            let running = self.sessions.borrow().iter().find(|running| running.id == part.session).cloned();
            if let Some(running) = running {
                running.arrived(stream.id, &part.arrived, part.beyond);
            }
        }
    }

    /// Whether what `stream` carries comes along, or would come sooner by another.
    fn advances(&self, stream: &Stream, arrives: bool, load: &Load) {
        let now = clock::now();
        let crawls = load.crawls(|| self.soonest_beside(stream, now));
        if crawls && !stream.crawls.get() {
            self.sessions().iter().for_each(|running| running.crawls(stream.id));
        }
        stream.crawls.set(crawls);
        if arrives && !crawls {
            self.sessions.borrow().iter().for_each(|running| running.advanced(stream.id, now));
        }
    }

    /// When the best of the streams beside `stream` would deliver a frame more.
    fn soonest_beside(&self, stream: &Stream, now: Instant) -> Option<Duration> {
        let streams = self.streams.borrow();
        let others = streams.iter().filter(|other| other.id != stream.id && !other.retiring.get());
        let loads = others.map(|other| other.load.get()).filter(|load| load.rate > 0);
        loads.map(|load| load.delivers_in(USUAL_FRAME_BYTES, now)).min()
    }

    /// Whether any session has a frame for some stream.
    pub(crate) fn has_frames(&self) -> bool {
        self.sessions.borrow().iter().any(|running| running.has_frames())
    }

    /// Frames wait: of the streams that sleep, the one that would deliver one first takes them. It wakes the next where it
    /// cannot take them all, so that one frame wakes one stream, and many frames all of them.
    pub(crate) fn wake_streams(&self) {
        let streams = self.streams.borrow();
        if let Some(stream) = best(&streams, clock::now()) {
            stream.idle.set(false);
            stream.chosen.set(true);
            stream.wake.notify();
        }
    }

    /// `stream` has what it may take: what still waits is for others.
    pub(crate) fn wake_streams_after(&self, stream: &Stream) {
        if self.has_frames() {
            if stream.idle.get() {
                stream.fruitless.set(Some(clock::now()));
            }
            self.wake_streams();
        }
    }

    /// Whether another stream that sleeps would deliver a frame so much sooner than `stream` that it should.
    pub(crate) fn sooner_than(&self, stream: &Stream) -> bool {
        let now = clock::now();
        let streams = self.streams.borrow();
        let own = stream.load.get().delivers_in(USUAL_FRAME_BYTES, now);
        best(&streams, now)
            .is_some_and(|other| other.load.get().delivers_in(USUAL_FRAME_BYTES, now) + SOONER_MIN < own)
    }

    /// Closes every stream; nobody needs them.
    pub(crate) fn close_streams(&self) {
        for stream in self.streams.borrow().iter() {
            stream.closing.set(true);
            stream.wake.notify();
        }
    }

    /// Something came on a stream that nobody who was told of a session would say. It closes a moment later, so that a peer that
    /// dials again and again does so slowly.
    pub(crate) fn distrust(&self, stream: StreamId, reason: &Reason) {
        let wrong = if reason.code == ReasonCode::NotAuthorised { WRONG_TOKEN } else { reason.code.name() };
        self.refusals.count(wrong);
        let Some(stream) = self.streams.borrow().iter().find(|other| other.id == stream).cloned() else {
            return;
        };
        spawn(async move {
            sleep(NOT_BELIEVED_WAIT).await;
            stream.closing.set(true);
            stream.wake.notify();
        })
        .detach();
    }

    /// The next frame for a stream: its own answers first, then small ones of any session, then bulk by weight.
    pub(crate) fn next_frame(&self, stream: &Stream) -> Option<Bytes> {
        if let Some(answer) = stream.answers.borrow_mut().pop_front() {
            return Some(answer);
        }
        let sessions = self.sessions.borrow();
        if let [alone] = &sessions[..] {
            return alone.next_frame(stream.id);
        }
        for running in sessions.iter() {
            if let Some(frame) = running.next_small_frame(stream.id) {
                running.turn.sent(frame.len(), &self.turn);
                return Some(frame);
            }
        }
        let take = |running: &Rc<Running>| {
            let frame = running.next_frame(stream.id)?;
            running.turn.sent(frame.len(), &self.turn);
            Some(frame)
        };
        let waiting = || sessions.iter().filter(|running| running.has_frames());
        let first = waiting().min_by_key(|running| running.turn.at())?;
        // It may not be proven on this stream: then it is the turn of whoever else waits.
        take(first).or_else(|| {
            let mut others: Vec<_> = waiting().filter(|running| running.id != first.id).collect();
            others.sort_by_key(|running| running.turn.at());
            others.into_iter().find_map(take)
        })
    }
}
