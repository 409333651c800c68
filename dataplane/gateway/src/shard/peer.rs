//! A peer gateway as one shard knows it: the streams to it, and the sessions that share them.

use crate::limits::PEER_STREAMS_MAX;
use crate::shard::running::Running;
use crate::trust::{Known, Trust};
use bytes::Bytes;
use novacron_control_api::{ErrorCode, PeerIdentity};
use novacron_protocol::session::Ends;
use novacron_protocol::stream::StreamId;
use novacron_protocol::wire::{Reason, ReasonCode};
use novacron_transport::shard::Notify;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Answers to frames of no session wait here; few are needed, and a flood of questions gets few answers.
const ANSWERS_MAX: usize = 16;

/// One stream to a peer.
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) ends: Ends,
    /// Who is at the other end; `None` where nothing is encrypted.
    pub(crate) known: Option<Known>,
    /// Frames may wait, or the stream is to close.
    pub(crate) wake: Notify,
    pub(crate) closing: Cell<bool>,
    /// It has room, and found nothing to send when it last looked.
    pub(crate) idle: Cell<bool>,
    answers: RefCell<VecDeque<Bytes>>,
}

impl Stream {
    pub(crate) fn new(id: StreamId, ends: Ends, known: Option<Known>) -> Rc<Stream> {
        let (wake, closing, idle) = (Notify::new(), Cell::new(false), Cell::new(false));
        Rc::new(Stream { id, ends, known, wake, closing, idle, answers: RefCell::default() })
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

/// A peer gateway, dialled or accepted.
pub(crate) struct Peer {
    /// How people know it.
    pub(crate) name: String,
    streams: RefCell<Vec<Rc<Stream>>>,
    sessions: RefCell<Vec<Rc<Running>>>,
    /// Whose turn it is to send.
    turn: Cell<usize>,
    /// Streams that its sessions ask for; only a dialled peer's are made here.
    pub(crate) want: Cell<usize>,
    /// Sessions or streams came or went.
    pub(crate) changed: Notify,
    /// Who is to be found where it is dialled, if a caller said so.
    pub(crate) expected: Option<PeerIdentity>,
    /// Who decides what the peer may; `None` where nothing is encrypted.
    trust: Option<Arc<Trust>>,
}

impl Peer {
    pub(crate) fn new(name: String, expected: Option<PeerIdentity>, trust: Option<Arc<Trust>>) -> Rc<Peer> {
        Rc::new(Peer {
            name,
            expected,
            trust,
            streams: RefCell::default(),
            sessions: RefCell::default(),
            turn: Cell::new(0),
            want: Cell::new(0),
            changed: Notify::new(),
        })
    }

    /// A session uses this peer's streams from now on.
    pub(crate) fn join(&self, running: &Rc<Running>, streams: usize) {
        self.want.set(self.want.get().max(streams.min(PEER_STREAMS_MAX)));
        self.sessions.borrow_mut().push(Rc::clone(running));
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

    /// A stream died.
    pub(crate) fn stream_lost(&self, stream: StreamId) {
        self.streams.borrow_mut().retain(|other| other.id != stream);
        for running in self.sessions() {
            running.stream_lost(stream);
        }
        self.changed.notify();
    }

    /// Frames wait: the first stream that sleeps takes them. It wakes the next where it cannot take them all, so that
    /// one frame wakes one stream, and many frames all of them.
    pub(crate) fn wake_streams(&self) {
        self.wake_idle(|_| true);
    }

    /// `stream` cannot take what waits: full, or not yet proven for the session that it is of.
    pub(crate) fn wake_streams_after(&self, stream: &Stream) {
        if self.sessions.borrow().iter().any(|running| running.has_frames()) {
            self.wake_idle(|other| other.id.0 > stream.id.0);
        }
    }

    fn wake_idle(&self, among: impl Fn(&Stream) -> bool) {
        if let Some(stream) = self.streams.borrow().iter().find(|stream| stream.idle.get() && among(stream)) {
            stream.idle.set(false);
            stream.wake.notify();
        }
    }

    /// Closes every stream; nobody needs them.
    pub(crate) fn close_streams(&self) {
        for stream in self.streams.borrow().iter() {
            stream.closing.set(true);
            stream.wake.notify();
        }
    }

    /// The next frame for a stream: its own answers first, then one of each session in turn.
    pub(crate) fn next_frame(&self, stream: &Stream) -> Option<Bytes> {
        if let Some(answer) = stream.answers.borrow_mut().pop_front() {
            return Some(answer);
        }
        let sessions = self.sessions.borrow();
        for _ in 0..sessions.len() {
            let turn = self.turn.get() % sessions.len();
            self.turn.set(turn + 1);
            if let Some(frame) = sessions[turn].next_frame(stream.id) {
                return Some(frame);
            }
        }
        None
    }
}
