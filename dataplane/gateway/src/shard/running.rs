//! A session while it runs: the protocol's state machine, and what is to happen when it says so.

use super::codec::CodecWork;
use super::connection::Connection;
use super::follow;
use super::peer::Peer;
use super::share::Share;
use super::turn::Turn;
use crate::clock::{self, Monotonic};
use crate::control::Answer;
use crate::path::Current;
use crate::record;
use bytes::Bytes;
use novacron_control_api::{
    Endpoint, ErrorCode, OpenResult, PeerIdentity, RpcError, SessionOptions, SessionRecord, SessionSide,
};
use novacron_protocol::event::Event;
use novacron_protocol::session::{Ends, MIGRATION, Session, State, Witness};
use novacron_protocol::stream::{BatchBuffer, Done, Job, StreamId};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{FrameHeader, Lane, Reason, ReasonCode};
use novacron_transport::shard::Notify;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// A session that this shard runs.
pub(crate) struct Running {
    pub(crate) id: u64,
    pub(crate) peer: Rc<Peer>,
    pub(crate) side: SessionSide,
    /// In whose name it was opened.
    pub(crate) tenant: String,
    core: RefCell<Session>,
    /// Its part of what streams carry, beside other sessions'.
    pub(super) turn: Turn,
    /// To whom codec work is handed out, and under which number.
    codecs: RefCell<Option<(Rc<CodecWork>, u64)>>,
    record: RefCell<SessionRecord>,
    connections: RefCell<BTreeMap<u16, Rc<Connection>>>,
    /// Connections that the peer opened and that are to be connected here, with their labels, in their order.
    pub(super) to_connect: RefCell<VecDeque<(u16, String)>>,
    /// A task connects them, one after the other.
    pub(super) connecting: Cell<bool>,
    /// How long the session lives while nothing moves; `None`: for ever.
    pub(super) idle_timeout: Option<Duration>,
    /// Its share of the memory for what its peer has not verified.
    share: Share,
    /// The session's own task has something to look at.
    pub(super) wake: Notify,
    wake_at: Cell<Option<Instant>>,
    /// [`Running::over`] has become true.
    pub(super) ended_notice: Notify,
    /// The session is over: nothing more is read or written.
    pub(crate) over: Cell<bool>,
    released: Cell<bool>,
    answer: RefCell<Option<Answer>>,
    /// What the caller of `session.open` is to be told where the reason alone does not say it.
    open_error: Cell<Option<ErrorCode>>,
}

impl Running {
    pub(super) fn new(
        core: Session,
        record: SessionRecord,
        side: SessionSide,
        peer: Rc<Peer>,
        answer: Option<Answer>,
        options: &SessionOptions,
        share: Share,
    ) -> Rc<Running> {
        let weight = options.weight;
        // How long a session lives while nothing moves; 0: for ever.
        let idle_timeout =
            (options.idle_timeout_ms > 0).then(|| Duration::from_millis(options.idle_timeout_ms));
        Rc::new(Running {
            id: core.config().session,
            peer,
            side,
            tenant: record.tenant.clone(),
            core: RefCell::new(core),
            turn: Turn::new(weight),
            codecs: RefCell::default(),
            record: RefCell::new(record),
            connections: RefCell::default(),
            to_connect: RefCell::default(),
            connecting: Cell::new(false),
            idle_timeout,
            share,
            wake: Notify::new(),
            wake_at: Cell::new(None),
            ended_notice: Notify::new(),
            over: Cell::new(false),
            released: Cell::new(false),
            answer: RefCell::new(answer),
            open_error: Cell::new(None),
        })
    }

    /// Runs `change` on the state machine, then does what it asks for.
    fn with<R>(&self, change: impl FnOnce(&mut Session) -> R) -> R {
        let (result, jobs, has_frames, deadline) = {
            let mut core = self.core.borrow_mut();
            let result = change(&mut core);
            while let Some(event) = core.next_event() {
                self.happened(event);
            }
            self.share.keeps(core.outbound().retained_bytes().0 as u64);
            let jobs: Vec<Job> = std::iter::from_fn(|| core.next_job()).collect();
            (result, jobs, core.has_frames(), core.deadline())
        };
        if !jobs.is_empty() {
            self.hand_out(jobs);
        }
        if has_frames {
            self.peer.wake_streams();
        }
        if deadline.is_some_and(|at| self.wake_at.get().is_none_or(|planned| at < planned)) {
            self.wake.notify();
        }
        result
    }

    /// Codec work goes to the shards that own the lanes.
    fn hand_out(&self, jobs: Vec<Job>) {
        let handed_out = match &*self.codecs.borrow() {
            Some((codecs, number)) => codecs.hand_out(*number, jobs),
            None => Ok(()),
        };
        if let Err(stopped) = handed_out {
            let text = format!(
                "shard {} of this gateway has stopped, and with it a part of the session's codec work; restart the gateway",
                stopped.shard
            );
            self.fail(Reason::new(ReasonCode::Timeout, text));
        }
    }

    /// Codec work has been done for this session.
    pub(super) fn jobs_done(&self, done: Vec<Done>) {
        self.with(|core| {
            for done in done {
                core.job_done(done, clock::now());
            }
        });
    }

    /// The session begins: its codec work is handed out here.
    pub(super) fn begin_codecs(self: &Rc<Self>, codecs: &Rc<CodecWork>) {
        *self.codecs.borrow_mut() = Some((Rc::clone(codecs), codecs.begin(self)));
    }

    /// The session is over.
    pub(super) fn end_codecs(&self) {
        if let Some((codecs, number)) = self.codecs.borrow_mut().take() {
            codecs.end(number);
        }
    }

    fn happened(&self, event: Event) {
        let session = record::name(self.id);
        match event {
            Event::Opened => {
                tracing::info!(%session, peer = %self.peer.name, "session open");
                self.answer_open(None);
                self.wake.notify();
            }
            Event::ConnectionOpened { connection, label } => {
                tracing::info!(%session, connection, %label, "connection opened by the source's side");
                self.to_connect.borrow_mut().push_back((connection, label));
                self.wake.notify();
            }
            Event::Readable { connection } => {
                if let Some(connection) = self.connections.borrow().get(&connection) {
                    connection.readable.notify();
                }
            }
            Event::Writable => {
                for connection in self.connections.borrow().values() {
                    connection.writable.notify();
                }
            }
            Event::Interrupted => {
                tracing::warn!(%session, peer = %self.peer.name, "every stream is lost; the session waits, nothing else is lost");
                self.wake.notify();
            }
            Event::Resumed => {
                tracing::info!(%session, peer = %self.peer.name, "a stream is back; the session goes on");
                self.writable_again();
            }
            Event::Distrusted { stream, reason } => {
                tracing::warn!(
                    %session, peer = %self.peer.name, stream = stream.0, %reason,
                    "a stream is closed that was never proven; the session goes on"
                );
                self.peer.distrust(stream, &reason);
            }
            Event::Violated { code } => self.peer.refusals.count(code.name()),
            Event::Finished => {
                tracing::info!(%session, "session finished: every byte carried and verified");
                self.ended();
            }
            Event::Failed(reason) => {
                tracing::error!(%session, code = reason.code.name(), %reason, "session failed");
                self.ended();
            }
        }
    }

    fn ended(&self) {
        self.over.set(true);
        self.ended_notice.notify();
        self.wake.notify();
        for connection in self.connections.borrow().values() {
            connection.over.notify();
            connection.readable.notify();
            connection.writable.notify();
        }
    }

    fn writable_again(&self) {
        for connection in self.connections.borrow().values() {
            connection.writable.notify();
        }
    }

    /// Tells a caller of `session.open` who still waits why there is no session. After the session has left the
    /// registry: who hears this may open it again at once, under the same name.
    pub(super) fn answer_failed(&self) {
        let failed = match self.core.borrow().state() {
            State::Failed(reason) => reason.clone(),
            _ => return,
        };
        self.answer_open(Some(&failed));
    }

    /// Tells the caller of `session.open` how it went, once.
    fn answer_open(&self, failed: Option<&Reason>) {
        let Some(answer) = self.answer.borrow_mut().take() else { return };
        let result = match failed {
            None => {
                let record = self.record.borrow();
                let (listen, labelled) = (record.listen.clone(), record.labelled.clone());
                Ok(OpenResult { session: record.session, listen, labelled })
            }
            Some(reason) => {
                let code = self.open_error.take().unwrap_or(match reason.code {
                    ReasonCode::Timeout => ErrorCode::PeerUnreachable,
                    ReasonCode::Cancelled => ErrorCode::SessionFailed,
                    _ => ErrorCode::PeerRefused,
                });
                let next =
                    "correct what the message names and open the session again; the guest was not touched";
                Err(RpcError::new(code, reason.text.clone(), "nothing", next))
            }
        };
        // A caller that hung up learns it from the session's record.
        let _ = answer.try_send(result);
    }

    /// Fails a session whose opening went wrong on this side.
    pub(super) fn fail_opening(&self, code: ErrorCode, reason: Reason) {
        self.open_error.set(Some(code));
        self.fail(reason);
    }

    /// A stream to this gateway carries the session.
    pub(crate) fn is_carried_by(&self, peer: &PeerIdentity) {
        let mut record = self.record.borrow_mut();
        record.encrypted = true;
        record.peer_identity = Some(peer.clone());
    }

    /// What proves that this gateway was told of the session, also when it is over.
    pub(super) fn witness(&self) -> Witness {
        self.core.borrow().config().witness()
    }

    /// The path to the peer has this mode from now on.
    pub(super) fn follow(&self, current: &Current) {
        follow::followed(&mut self.record.borrow_mut(), current);
        self.with(|core| core.follow(&current.mode.profile()));
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.core.borrow().state(), State::Opening { .. })
    }

    pub(crate) fn fail(&self, reason: Reason) {
        self.with(|core| core.fail(reason));
    }

    pub(crate) fn stream_opened(&self, stream: StreamId, ends: Ends) {
        self.with(|core| core.stream_opened(stream, ends, clock::now()));
    }

    pub(crate) fn stream_lost(&self, stream: StreamId) {
        self.with(|core| core.stream_lost(stream, clock::now()));
    }

    pub(crate) fn receive(&self, stream: StreamId, header: FrameHeader, frame: Bytes) {
        self.with(|core| core.receive(stream, header, frame, clock::now()));
    }

    /// Called by streams in search of work: wakes nobody.
    pub(crate) fn next_frame(&self, stream: StreamId) -> Option<Bytes> {
        self.core.borrow_mut().next_frame(stream, clock::now())
    }

    /// The same of few bytes.
    pub(crate) fn next_small_frame(&self, stream: StreamId) -> Option<Bytes> {
        self.core.borrow_mut().next_small_frame(stream, clock::now())
    }

    /// What `stream` carries arrives.
    pub(crate) fn advanced(&self, stream: StreamId, now: Instant) {
        self.core.borrow_mut().advanced(stream, now);
    }

    /// Other streams would deliver sooner what `stream` carries.
    pub(crate) fn crawls(&self, stream: StreamId) {
        self.with(|core| core.crawls(stream));
    }

    /// The peer's system has these frames, which `stream` carried, and behind something lost so many bytes of others.
    pub(crate) fn arrived(&self, stream: StreamId, frames: &[(Lane, u64)], beyond_bytes: u64) {
        self.with(|core| {
            let now = clock::now();
            core.crossed(stream, beyond_bytes, now);
            core.arrived(stream, frames, now);
        });
    }

    pub(crate) fn has_frames(&self) -> bool {
        self.core.borrow().has_frames()
    }

    /// Whether the path is what this session waits for.
    pub(crate) fn waits_for_the_path(&self) -> bool {
        let core = self.core.borrow();
        core.outbound().is_held_up() || core.has_frames()
    }

    pub(super) fn open_connection(&self, label: &str) -> Result<u16, Reason> {
        self.with(|core| core.open_connection(label, clock::now()))
    }

    pub(super) fn add_connection(&self, connection: Rc<Connection>) {
        self.connections.borrow_mut().insert(connection.id, connection);
    }

    /// Where connections of a label are to be connected here, as the caller said; `None`: it named no such label.
    pub(super) fn connect_to(&self, label: &str) -> Option<Endpoint> {
        match &self.side {
            SessionSide::Destination { connect } if label == MIGRATION => Some(connect.clone()),
            SessionSide::Destination { .. } => {
                let record = self.record.borrow();
                let named = record.labelled.iter().find(|named| named.label.as_str() == label);
                named.map(|named| named.endpoint.clone())
            }
            SessionSide::Source { .. } => None,
        }
    }

    /// A hypervisor's connection was turned away. Returns how many were.
    pub(super) fn count_refused(&self) -> u64 {
        let mut record = self.record.borrow_mut();
        record.refused_connections += 1;
        record.refused_connections
    }

    pub(super) fn connection_count(&self) -> usize {
        self.connections.borrow().len()
    }

    pub(super) fn read_budget(&self, connection: u16) -> usize {
        self.core.borrow().read_budget(connection)
    }

    /// Whether the peer leaves so much unverified that other sessions need the memory; then nothing is read for a moment.
    pub(super) fn share_is_spent(&self) -> bool {
        self.share.is_spent()
    }

    pub(super) fn ingest<B: BatchBuffer>(&self, connection: u16, buffer: B, filled: usize) {
        self.with(|core| core.ingest(connection, buffer, filled, &Monotonic));
    }

    pub(super) fn ingest_end(&self, connection: u16) {
        self.with(|core| core.ingest_end(connection, clock::now()));
    }

    pub(super) fn next_output(&self, connection: u16) -> Option<Bytes> {
        self.core.borrow_mut().next_output(connection)
    }

    pub(super) fn output_ended(&self, connection: u16) -> bool {
        self.core.borrow().output_ended(connection)
    }

    pub(super) fn consumed(&self, connection: u16, bytes: u64) {
        self.with(|core| core.consumed(connection, bytes, clock::now()));
    }

    pub(super) fn tick(&self) {
        self.with(|core| core.tick(clock::now()));
    }

    /// When the session's task must look again at the latest; remembered, so that an earlier need wakes it.
    pub(super) fn plan(&self) -> Option<Instant> {
        let deadline = self.core.borrow().deadline();
        self.wake_at.set(deadline);
        deadline
    }

    /// Whether the source's sockets must stay open although the session failed.
    pub(crate) fn is_held(&self) -> bool {
        !self.released.get() && self.core.borrow().holds_source_sockets()
    }

    /// A caller, or the source itself, settled what a held session left open.
    pub(crate) fn release(&self) {
        self.released.set(true);
        self.ended();
    }

    /// The record as of now.
    pub(super) fn record(&self) -> SessionRecord {
        let mut record = self.record.borrow_mut();
        record::update(&mut record, &self.core.borrow());
        record.streams.congestion = self.peer.congestion();
        record.streams.shards = self.peer.serving_shards();
        record.streams.steered = self.peer.steered_streams();
        if self.released.get() {
            record.state = novacron_control_api::SessionState::Failed;
            record.ended_at.get_or_insert_with(novacron_control_api::Timestamp::now);
        }
        record.clone()
    }
}
