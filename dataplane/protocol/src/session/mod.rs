//! A session: one migration's connections between one pair of gateways.
//!
//! ```text
//!  source       Opening ──Accept──▶ Running ◀──▶ Interrupted ──outage──▶ Failed
//!                  └─Refuse, timeout──────────────────────────────────────▲
//!  destination  Expecting ──Open──▶ Running ◀──▶ Interrupted ──outage─────┘
//!                                     └──all ended, all verified──▶ Finished
//! ```
//!
//! Running means that a stream is *proven*: `Open` and `Accept` were exchanged on it. They are exchanged on every stream
//! before it carries anything else of the session (DWCP-19), so they also end an interruption.
//!
//! The source's side decides that a session has finished, because only it knows which connections there are: one
//! may have been opened whose first frame is still on its way while all that the destination knows have ended.
//!
//! [`crate::source`] and [`crate::destination`] hold what differs between the two sides: who opens, and who
//! connects to a hypervisor when. Everything else is the same in both directions, and is here.

mod belief;
mod config;
mod deadlines;
mod leaving;
#[cfg(test)]
mod pair;
mod said;
#[cfg(test)]
mod spread;
mod state;
mod streams;
#[cfg(test)]
mod tests;
mod witness;

pub use config::{Role, SessionConfig};
pub use state::State;
pub use witness::{Token, Witness};

use crate::event::Event;
use crate::hypervisor::{StreamKind, StreamPhase};
use crate::limits::STREAMS_MAX;
use crate::mode::Profile;
use crate::page::LaneTerms;
use crate::stream::{BatchBuffer, Done, Inbound, Job, Outbound, Receipt, Reservation, StreamId};
use crate::time::{Clock, Instant};
use crate::wire::{
    Accept, ConnectionOpen, FRAME_HEADER_BYTES, FrameHeader, Identity, Kind, Nonce, Open, Progress, Reason,
    ReasonCode, Wanted,
};
use belief::forgotten;
use bytes::Bytes;
use said::Said;
use std::collections::{BTreeMap, VecDeque};
use streams::Streams;
pub(crate) use streams::Word;

/// The two ends of a stream, as its handshake named them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who dialled.
    pub dialler: Identity,
    /// Who accepted.
    pub acceptor: Identity,
    /// What the dialler and the acceptor drew for this stream alone (DWCP-61).
    pub nonces: [Nonce; 2],
}

impl Ends {
    /// Whether another stream runs between the same two processes.
    pub fn same_processes(&self, other: &Ends) -> bool {
        (self.dialler, self.acceptor) == (other.dialler, other.acceptor)
    }
}

/// One side of a session.
#[derive(Debug)]
pub struct Session {
    pub(crate) config: SessionConfig,
    pub(crate) state: State,
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
    pub(crate) streams: Streams,
    /// The processes between which the session was opened.
    pub(crate) peers: Option<Ends>,
    streams_ever: u32,
    /// The session's last words, which are proven for the stream that takes them.
    last_words: VecDeque<(Kind, Reason)>,
    /// A progress frame that has nothing to say waits for a stream.
    greeting_due: bool,
    pub(crate) events: VecDeque<Event>,
    pub(crate) opened_at: Option<Instant>,
    first_connection_at: Option<Instant>,
    ended_here_at: Option<Instant>,
    /// When the session was opened or last resumed.
    pub(crate) running_since: Instant,
    /// When the peer last said anything.
    heard_at: Instant,
    /// The peer has finished: it needs nothing more, and nothing more will come from it.
    peer_finished: bool,
    connections: u16,
    /// What each connection's peer may send before it is told more.
    pub(crate) first_promise: u64,
    /// What each connection is for.
    labels: BTreeMap<u16, String>,
    /// The next connection that is to be opened at the destination's hypervisor.
    next_to_connect: u16,
    received_bytes: u64,
    /// What the last frame changed.
    receipt: Receipt,
    /// What the peer said last of how far it is.
    heard: Progress,
    /// What was said to it, and the memory that is said in.
    said: Said,
    held: bool,
    /// What this side may spend on remembering, while it does.
    pub(crate) memory: Option<Reservation>,
}

/// The label of connections that carry the guest. All others are opaque bytes.
pub const MIGRATION: &str = "migration";

impl Session {
    /// A session that is neither opened nor expected yet, `state` says which it is to be.
    pub(crate) fn new(config: SessionConfig, state: State) -> Self {
        let pages = (config.role == Role::Source).then_some((config.codec, config.lanes));
        let mut outbound =
            Outbound::new(config.session, config.epoch, config.digest, pages, config.codec_workers)
                .with_buffers(config.buffers.clone())
                .with_rate_limit(config.rate_limit);
        // The peer has not said yet what it reserves; a hypervisor may connect before it does.
        outbound.grant(0);
        let first_promise = config.receive_memory.first(config.receive_window);
        // A destination knows what it needs when it is opened.
        let wanted = if config.role == Role::Source { config.memory_bytes } else { 0 };
        let memory = Some(config.memory_budget.reserve(wanted));
        Session {
            outbound,
            inbound: Inbound::new(
                config.digest,
                config.lanes,
                config.receive_window,
                config.connections_max,
                config.role == Role::Destination,
            )
            .with_memory(config.receive_memory.clone(), first_promise)
            .with_buffers(config.buffers.clone())
            .with_codec_workers(config.codec_workers),
            first_promise,
            config,
            state,
            streams: Streams::default(),
            peers: None,
            streams_ever: 0,
            last_words: VecDeque::new(),
            greeting_due: false,
            events: VecDeque::new(),
            opened_at: None,
            first_connection_at: None,
            ended_here_at: None,
            running_since: Instant::START,
            heard_at: Instant::START,
            peer_finished: false,
            connections: 0,
            labels: BTreeMap::new(),
            next_to_connect: 0,
            received_bytes: 0,
            receipt: Receipt::default(),
            heard: Progress::default(),
            said: Said::default(),
            held: false,
            memory,
        }
    }

    // ---- the network's side ---------------------------------------------------------------------------------

    /// A stream to the peer may carry this session's frames.
    pub fn stream_opened(&mut self, stream: StreamId, ends: Ends, now: Instant) {
        if self.state.is_over() || self.streams.len() >= STREAMS_MAX {
            return;
        }
        let restarted = self.peers.is_some_and(|peers| !peers.same_processes(&ends));
        if restarted && self.nothing_missing() {
            return self.finish();
        }
        if restarted && self.peer_finished {
            return;
        }
        self.streams.add(stream, ends);
        self.streams_ever += 1;
        if restarted {
            // Without this, a side that has nothing to say would wait for a peer that has forgotten it.
            return self.fail(forgotten());
        }
        match self.config.role {
            Role::Source => self.say_open(stream, now),
            Role::Destination => self.ask(),
        }
    }

    /// A destination that has no stream left cannot take the session up again, but its peer may have ended the session
    /// without its knowing. A source asks by its openings.
    fn ask(&mut self) {
        if self.config.role == Role::Destination && matches!(self.state, State::Interrupted { .. }) {
            self.streams.say_unproven(Word::Greeting);
        }
    }

    /// A stream died. What it carried and the peer has not verified leaves again on another.
    pub fn stream_lost(&mut self, stream: StreamId, now: Instant) {
        if !self.streams.remove(stream) {
            return;
        }
        self.outbound.stream_lost(stream);
        self.repeat_progress();
        if !self.streams.any_proven() && matches!(self.state, State::Running) {
            self.state = State::Interrupted { since: now };
            self.events.push_back(Event::Interrupted);
            self.ask();
        }
    }

    /// Says again how everything stands here. A side without connections says that: a peer that has ended the
    /// session, and whose last word was lost, hears that nobody knows here, and repeats it.
    fn repeat_progress(&mut self) {
        self.inbound.repeat_progress();
        self.greeting_due = !self.inbound.has_progress();
    }

    /// Takes a frame of this session that a stream delivered. Where it breaks the protocol or the digest, the
    /// session has failed afterwards, and the peer is told.
    pub fn receive(&mut self, stream: StreamId, header: FrameHeader, frame: Bytes, now: Instant) {
        // A peer that has finished has nothing to add; another process in its place knows nothing of this session.
        if self.state.is_over() || self.peer_finished {
            return;
        }
        self.received_bytes += frame.len() as u64;
        self.heard_at = now;
        if let Err(reason) = self.take(stream, header, frame, now) {
            // A session that runs is nobody's to end who has not shown that it was told of it (DWCP-63).
            if self.peers.is_some() && !self.streams.is_proven(stream) {
                self.distrust(stream, reason, now);
            } else {
                self.events.push_back(Event::Violated { code: reason.code });
                self.fail(reason);
            }
        }
        self.settle(now);
    }

    fn take(
        &mut self,
        stream: StreamId,
        header: FrameHeader,
        frame: Bytes,
        now: Instant,
    ) -> Result<(), Reason> {
        if header.epoch != self.config.epoch {
            return Err(Reason::new(
                ReasonCode::SessionUnknown,
                format!(
                    "the peer speaks of epoch {} of this session, here it is {}",
                    header.epoch, self.config.epoch
                ),
            ));
        }
        let payload = &frame[FRAME_HEADER_BYTES..];
        match header.kind {
            Kind::Open => self.take_open(&Open::read(payload)?, stream, now),
            Kind::Accept => self.take_accept(&Accept::read(payload)?, stream, now),
            Kind::Refuse => {
                let reason = Reason::read(payload)?;
                self.check_last_word(stream, &header, payload)?;
                // What is missing here is only the last acknowledgement, and perhaps that the hypervisor here has
                // not taken everything.
                if reason.code == ReasonCode::Finished
                    && self.inbound.all_received()
                    && self.outbound.all_closed()
                {
                    self.outbound.peer_finished();
                    self.peer_finished = true;
                    return Ok(());
                }
                let text = format!("the peer gateway refused the session: {}", reason.text);
                self.fail(Reason::new(reason.code, text));
                Ok(())
            }
            Kind::Fail => {
                let reason = Reason::read(payload)?;
                self.check_last_word(stream, &header, payload)?;
                let text = format!("the peer gateway ended the session: {}", reason.text);
                self.fail(Reason::new(reason.code, text));
                Ok(())
            }
            Kind::Progress => {
                self.heard.replace(payload)?;
                if !self.heard.entries.is_empty() {
                    self.check_proven(stream)?;
                }
                for entry in &self.heard.entries {
                    self.outbound.progress(entry, now)?;
                }
                self.events.push_back(Event::Writable);
                Ok(())
            }
            Kind::Want => {
                self.check_proven(stream)?;
                self.outbound.wanted(&Wanted::read(payload)?)?;
                self.events.push_back(Event::Writable);
                Ok(())
            }
            Kind::Repair => {
                self.check_proven(stream)?;
                let (wanted, pages) = Wanted::read_repair(payload)?;
                self.inbound.repaired(&wanted, pages, &mut self.receipt)?;
                self.take_receipt(now)
            }
            Kind::ConnectionOpen | Kind::Batch | Kind::Index | Kind::Part | Kind::ConnectionEnd => {
                self.check_proven(stream)?;
                self.inbound.receive(header, frame, &mut self.receipt)?;
                self.take_receipt(now)
            }
            Kind::Hello | Kind::HelloAccept | Kind::HelloRefuse => {
                Err(Reason::new(ReasonCode::Protocol, "a stream's handshake came in the middle of a session"))
            }
        }
    }

    /// The path's mode has this profile from now on.
    pub fn follow(&mut self, profile: &Profile) {
        self.outbound.follow(profile);
        // The window may be a wider one.
        self.events.push_back(Event::Writable);
    }

    // ---- the hypervisor's side ------------------------------------------------------------------------------

    /// The source's hypervisor opened a connection. An error: the session takes no more.
    pub fn open_connection(&mut self, label: &str, now: Instant) -> Result<u16, Reason> {
        if self.connections >= self.config.connections_max {
            let text = format!("the session takes {} connections at most", self.config.connections_max);
            return Err(Reason::new(ReasonCode::Limit, text));
        }
        // Nobody is there any more who would take it: the session would wait for ever.
        if self.state.is_over() || self.peer_finished {
            return Err(Reason::new(ReasonCode::Finished, "the session is over"));
        }
        let connection = self.connections;
        self.count_connection(connection, label.to_owned(), now);
        self.outbound.open(connection, Some(&ConnectionOpen { label: label.to_owned() }), now);
        self.inbound.open(connection);
        Ok(connection)
    }

    /// Bytes that may be read from a connection's hypervisor now; 0: wait for [`Event::Writable`].
    pub fn read_budget(&self, connection: u16) -> usize {
        match self.state {
            State::Running => self.outbound.read_budget(connection),
            _ => 0,
        }
    }

    /// Takes `filled` bytes that were read into `buffer` behind [`crate::stream::INGEST_HEADROOM`].
    pub fn ingest<B: BatchBuffer>(&mut self, connection: u16, buffer: B, filled: usize, clock: &impl Clock) {
        self.outbound.ingest(connection, buffer, filled, clock);
    }

    /// A connection's hypervisor closed its writing side.
    pub fn ingest_end(&mut self, connection: u16, now: Instant) {
        self.outbound.end(connection, now);
        self.settle(now);
    }

    /// The next verified bytes for a connection's hypervisor. A session that has failed hands out nothing: what one
    /// connection broke is no reason to let another's hypervisor go on.
    pub fn next_output(&mut self, connection: u16) -> Option<Bytes> {
        if matches!(self.state, State::Failed(_)) {
            return None;
        }
        self.inbound.next_output(connection)
    }

    /// Whether a connection's hypervisor has been handed everything, and its socket's writing side is to close.
    pub fn output_ended(&self, connection: u16) -> bool {
        self.inbound.at_end(connection)
    }

    /// A connection's hypervisor has taken `bytes` bytes.
    pub fn consumed(&mut self, connection: u16, bytes: u64, now: Instant) {
        self.inbound.consumed(connection, bytes);
        self.settle(now);
    }

    // ---- codec work -----------------------------------------------------------------------------------------

    /// The next piece of codec work, for the worker that it names; jobs for one worker are done in the order in which
    /// they come from here, by one [`crate::stream::CodecWorker`] that lives as long as the session: what its lanes remember is
    /// in there. Only where the session has more than one ([`SessionConfig::codec_workers`]).
    pub fn next_job(&mut self) -> Option<Job> {
        if self.state.is_over() {
            return None;
        }
        self.outbound.next_job().or_else(|| self.inbound.next_job())
    }

    /// A worker has done a job of this session.
    pub fn job_done(&mut self, done: Done, now: Instant) {
        if self.state.is_over() {
            return;
        }
        if done.is_encoding() {
            if self.outbound.job_done(done, now) {
                self.events.push_back(Event::Writable);
            }
            return;
        }
        let taken = self.inbound.job_done(done, &mut self.receipt);
        if let Err(reason) = taken.and_then(|()| self.take_receipt(now)) {
            self.events.push_back(Event::Violated { code: reason.code });
            self.fail(reason);
        }
        self.settle(now);
    }

    /// What was received has changed something.
    fn take_receipt(&mut self, now: Instant) -> Result<(), Reason> {
        for (connection, label) in std::mem::take(&mut self.receipt.opened) {
            self.take_connection(connection, label, now)?;
        }
        let readable = self.receipt.readable.drain(..);
        self.events.extend(readable.map(|connection| Event::Readable { connection }));
        Ok(())
    }

    // ---- ends -----------------------------------------------------------------------------------------------

    /// Fails the session for a reason found on this side, and tells the peer.
    pub fn fail(&mut self, reason: Reason) {
        if self.state.is_over() {
            return;
        }
        self.held = self.must_hold();
        self.forget();
        self.streams.nothing_due();
        self.last_words.clear();
        self.last_words.push_back((Kind::Fail, reason.clone()));
        self.state = State::Failed(reason.clone());
        self.events.push_back(Event::Failed(reason));
    }

    fn finish(&mut self) {
        if self.state.is_over() {
            return;
        }
        self.state = State::Finished;
        self.forget();
        self.events.push_back(Event::Finished);
        if self.config.role == Role::Source && !self.peer_finished {
            let reason = Reason::new(ReasonCode::Finished, "the session has ended, and well");
            self.last_words.push_back((Kind::Refuse, reason));
        }
    }

    /// What page lanes are to remember, as both sides have agreed (DWCP-70).
    pub(crate) fn agreed_terms(&self) -> Option<LaneTerms> {
        let bytes = self.memory.as_ref().map_or(0, Reservation::bytes);
        LaneTerms::of(bytes, self.config.lanes)
    }

    /// Nothing refers to earlier parts any more.
    fn forget(&mut self) {
        self.outbound.remember(None, None);
        self.inbound.remember(None, None);
        self.config.content_store = None;
        self.memory = None;
    }

    /// Bytes that this side spends on remembering what page lanes carried, and the most that it may.
    pub fn remembered_bytes(&self) -> (u64, u64) {
        let held = self.outbound.remembered_bytes() + self.inbound.remembered_bytes();
        (held, self.memory.as_ref().map_or(0, Reservation::bytes))
    }

    /// Whether every known connection has ended in both directions, and both sides have said so.
    fn nothing_missing(&self) -> bool {
        self.inbound.all_ended() && self.outbound.all_ended()
    }

    /// Looks whether the session has come to its good end.
    fn settle(&mut self, now: Instant) {
        if !matches!(self.state, State::Running | State::Interrupted { .. }) || !self.inbound.all_ended() {
            return;
        }
        if self.outbound.all_ended() && (self.config.role == Role::Source || self.peer_finished) {
            self.finish();
        } else if self.outbound.all_closed() {
            self.ended_here_at.get_or_insert(now);
        }
    }

    /// Promise 2: where the destination may start by itself, the source's socket must not be closed by a failure
    /// once the last byte may have been delivered, lest two guests run. A stream that cannot be understood might
    /// be at its last byte at any time.
    fn must_hold(&self) -> bool {
        if self.config.role != Role::Source
            || !self.config.destination_may_start
            || !self.outbound.any_delivered(|connection| self.label(connection) == MIGRATION)
        {
            return false;
        }
        match self.outbound.migration_progress() {
            Some(progress) => match progress.phase {
                StreamPhase::Switchover | StreamPhase::Postcopy | StreamPhase::Ended => true,
                StreamPhase::Setup | StreamPhase::Precopy => !matches!(progress.kind, StreamKind::QemuMain),
            },
            None => true,
        }
    }

    /// Whether the source's hypervisor sockets stay open although the session failed, until a caller decides.
    pub fn holds_source_sockets(&self) -> bool {
        self.held
    }

    // ---- what can be seen -----------------------------------------------------------------------------------

    /// The next thing that happened.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What this session was asked to be.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The sending half, for records.
    pub fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// The receiving half, for records.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// Streams that carry this session now, and that ever did.
    pub fn streams(&self) -> (usize, u32) {
        (self.streams.len(), self.streams_ever)
    }

    /// Frame bytes received for this session, repetitions included.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Whether both ends hold the same bytes: `Some(true)` once every connection's end has been verified by the
    /// other side, `Some(false)` when a digest did not fit, `None` while it cannot be known.
    pub fn digest_equal(&self) -> Option<bool> {
        match &self.state {
            State::Failed(reason) if reason.code == ReasonCode::DigestMismatch => Some(false),
            _ if !self.config.digest => None,
            _ if self.outbound.all_ended() && self.inbound.all_ended() => Some(true),
            _ => None,
        }
    }

    pub(crate) fn count_connection(&mut self, connection: u16, label: String, now: Instant) {
        self.connections += 1;
        self.first_connection_at.get_or_insert(now);
        self.labels.insert(connection, label);
    }

    /// The connections whose turn it is to be opened at the destination's hypervisor: in the order in which the source's
    /// hypervisor opened them, whatever order their openings arrived in (DWCP-45).
    pub(crate) fn connect_in_order(&mut self) {
        while let Some(label) = self.labels.get(&self.next_to_connect) {
            let (connection, label) = (self.next_to_connect, label.clone());
            self.next_to_connect += 1;
            self.events.push_back(Event::ConnectionOpened { connection, label });
        }
    }

    /// What a connection is for, as the source's side named it.
    pub fn label(&self, connection: u16) -> &str {
        self.labels.get(&connection).map_or(MIGRATION, String::as_str)
    }
}
