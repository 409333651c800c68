//! A gateway around a session: what it asks of the session, and what it owes it.

use crate::check::Cause;
use crate::network::{DESTINATION, Known, Nanos, SOURCE, Side};

use crate::plan::Sabotage;
use crate::random::Random;
use crate::sockets::Socket;
use crate::world::{Happening, World, role};
use bytes::Bytes;
use novacron_protocol::event::Event;
use novacron_protocol::limits::BATCH_BYTES_MAX;
use novacron_protocol::page::{ContentKey, ContentMemory, ContentStore};
use novacron_protocol::session::{MIGRATION, Session, SessionConfig, State, Token};
use novacron_protocol::stream::{CodecWorker, Done, INGEST_HEADROOM, ReceiveMemory, StreamId};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{Identity, Reason, ReasonCode};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const SESSION: u64 = 0x51;

/// A gateway's process, as far as one session is concerned.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) side: Side,
    pub(crate) identity: Identity,
    pub(crate) incarnation: u32,
    pub(crate) session: Option<Session>,
    /// It restarted, and no longer knows of the session.
    pub(crate) forgotten: bool,
    pub(crate) sockets: BTreeMap<u16, Socket>,
    /// Connections that the session said have something to hand out.
    readable: BTreeSet<u16>,
    pub(crate) dead_hypervisor: bool,
    pub(crate) connections_opened: usize,
    /// The connection that is to be opened next at this side's hypervisor (DWCP-45).
    next_to_connect: u16,
    pub(crate) tick_at: Option<Nanos>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) stream_turn: u64,
    /// What its codec workers do, each one thing after the other.
    workers: Vec<Worker>,
}

/// A codec worker, which remembers its lanes from job to job, and what it has been given: done in order, known when it is done.
#[derive(Debug, Default)]
struct Worker {
    codecs: CodecWorker,
    free_at: Nanos,
    done: VecDeque<Done>,
}

impl Gateway {
    pub(crate) fn new(side: Side, random: &mut Random) -> Self {
        let mut bytes = || u128::from(random.next_u64()).to_le_bytes();
        Gateway {
            side,
            identity: Identity { gateway: [side as u8; 16], instance: bytes() },
            incarnation: 0,
            session: None,
            forgotten: false,
            sockets: BTreeMap::new(),
            readable: BTreeSet::new(),
            dead_hypervisor: false,
            connections_opened: 0,
            next_to_connect: 0,
            tick_at: None,
            deadline: None,
            stream_turn: 0,
            workers: Vec::new(),
        }
    }
}

impl World {
    /// A caller tells a gateway of the session.
    pub(crate) fn announce(&mut self, side: Side) -> Result<(), String> {
        if self.gateways[side].session.is_some() {
            return Ok(());
        }
        let mut config = SessionConfig::new(role(side), SESSION, Token::new([7; 32]));
        config.digest = self.plan.digest;
        (config.lanes, config.codec) = (self.plan.lanes, self.plan.codec);
        config.codec_workers = self.plan.codec_workers[side];
        config.memory_bytes = self.plan.memory_bytes(side);
        let content = self.plan.content_bytes();
        if side == DESTINATION && content > 0 {
            let store = ContentStore::new(ContentKey::new([11; 32]), content);
            config.content_store = Some(ContentMemory::new(store));
        }
        config.receive_window = self.plan.windows[side];
        config.receive_memory = self.plan.memory.map_or_else(ReceiveMemory::unshared, ReceiveMemory::new);
        config.outage = Duration::from_nanos(self.plan.outage);
        config.open_timeout = Duration::from_nanos(self.plan.open_timeout);
        config.expect_timeout = Duration::from_nanos(self.plan.expect_timeout);
        let now = self.instant();
        let session =
            if side == SOURCE { Session::source(config, now) } else { Session::destination(config, now) };
        self.say(|| format!("side {side} is told of the session"));
        let gateway = &mut self.gateways[side];
        gateway.session = Some(session);
        gateway.forgotten = false;
        let incarnation = gateway.incarnation;
        if side == SOURCE {
            for index in 0..self.plan.connections.len() {
                let wait = self.plan.connections[index].opened_at;
                self.after(wait, Happening::OpenConnection { index, incarnation });
            }
        }
        let up: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.known[side] == Known::Up)
            .map(|(id, stream)| (*id, stream.ends))
            .collect();
        for (id, ends) in up {
            self.with_session(side, Cause::StreamOpened, |s| s.stream_opened(StreamId(id), ends, now))?;
        }
        self.work(side)
    }

    /// The source's hypervisor connects.
    pub(crate) fn open_connection(&mut self, index: usize, incarnation: u32) -> Result<(), String> {
        let now = self.instant();
        if self.gateways[SOURCE].incarnation != incarnation || self.gateways[SOURCE].dead_hypervisor {
            return Ok(());
        }
        self.gateways[SOURCE].connections_opened += 1;
        let Some(session) = &mut self.gateways[SOURCE].session else { return Ok(()) };
        if session.state().is_over() {
            return Ok(());
        }
        // Some carry pages, others a disk's bytes, which nobody parses.
        let label = if index % 3 == 2 { "disk" } else { MIGRATION };
        let connection = session.open_connection(label, now).map_err(|r| r.to_string())?;
        self.say(|| format!("source opens connection {connection}"));
        self.add_socket(SOURCE, connection, index);
        self.work(SOURCE)?;
        // Those that only waited for the others may close now.
        let connections: Vec<u16> = self.gateways[SOURCE].sockets.keys().copied().collect();
        for connection in connections {
            self.maybe_close(SOURCE, connection);
        }
        Ok(())
    }

    /// The destination's gateway has connected to its hypervisor.
    pub(crate) fn connected(&mut self, connection: u16, incarnation: u32) -> Result<(), String> {
        let gateway = &self.gateways[DESTINATION];
        let Some(session) = &gateway.session else { return Ok(()) };
        if gateway.incarnation != incarnation || session.state().is_over() {
            return Ok(());
        }
        let index = self.label(connection)?;
        if gateway.dead_hypervisor {
            let reason = Reason::new(ReasonCode::DestinationLost, "nobody listens at the destination");
            self.with_session(DESTINATION, Cause::Fail, |session| session.fail(reason))?;
            return self.work(DESTINATION);
        }
        self.say(|| format!("destination connects connection {connection}"));
        self.add_socket(DESTINATION, connection, index);
        self.work(DESTINATION)
    }

    /// The plan's number of a connection, which both sides number alike as long as nobody restarts.
    fn label(&self, connection: u16) -> Result<usize, String> {
        match self.gateways[SOURCE].sockets.get(&connection) {
            Some(socket) => Ok(socket.index),
            None => Ok(usize::from(connection).min(self.plan.connections.len() - 1)),
        }
    }

    /// Everything that a gateway can do without waiting.
    pub(crate) fn work(&mut self, side: Side) -> Result<(), String> {
        loop {
            self.take_events(side)?;
            let connections: Vec<u16> = self.gateways[side].sockets.keys().copied().collect();
            let mut moved = false;
            for connection in connections {
                moved |= self.egress(side, connection)?;
                moved |= self.ingress(side, connection)?;
            }
            self.hand_out(side);
            moved |= self.send(side)?;
            if !moved {
                break;
            }
        }
        self.set_tick(side);
        Ok(())
    }

    /// Codec work goes to the session's workers, which take their time, each its own.
    fn hand_out(&mut self, side: Side) {
        while let Some(job) = self.gateways[side].session.as_mut().and_then(Session::next_job) {
            let forgets = self.plan.sabotage == Some(Sabotage::ForgetLanes);
            let takes = self.random.spread(0, self.plan.job_time.max(1));
            let gateway = &mut self.gateways[side];
            let at = job.worker();
            if gateway.workers.len() <= at {
                gateway.workers.resize_with(at + 1, Worker::default);
            }
            let worker = &mut gateway.workers[at];
            worker.free_at = worker.free_at.max(self.now).saturating_add(takes);
            if forgets {
                worker.codecs = CodecWorker::new();
            }
            worker.done.push_back(worker.codecs.carry_out(job, &Instant::from_nanos(self.now)));
            let (when, incarnation) = (worker.free_at, gateway.incarnation);
            self.at(when, Happening::JobDone { side, worker: at, incarnation });
        }
    }

    /// A codec worker is done with its oldest job.
    pub(crate) fn job_done(&mut self, side: Side, worker: usize, incarnation: u32) -> Result<(), String> {
        let gateway = &mut self.gateways[side];
        if gateway.incarnation != incarnation {
            return Ok(());
        }
        let Some(done) = gateway.workers.get_mut(worker).and_then(|worker| worker.done.pop_front()) else {
            return Err(format!("side {side}: worker {worker} is done with nothing"));
        };
        let now = self.instant();
        self.report.jobs += 1;
        self.with_session(side, Cause::JobDone, |session| session.job_done(done, now))?;
        self.work(side)
    }

    fn take_events(&mut self, side: Side) -> Result<(), String> {
        while let Some(event) = self.gateways[side].session.as_mut().and_then(Session::next_event) {
            match event {
                Event::Opened | Event::Resumed | Event::Writable => {
                    for socket in self.gateways[side].sockets.values_mut() {
                        socket.waits_for_budget = false;
                    }
                }
                Event::Readable { connection } => {
                    self.gateways[side].readable.insert(connection);
                }
                Event::ConnectionOpened { connection, .. } => {
                    let gateway = &mut self.gateways[side];
                    if std::mem::replace(&mut gateway.next_to_connect, connection + 1) != connection {
                        return Err(format!(
                            "side {side}: connection {connection} is opened out of its turn"
                        ));
                    }
                    let index = self.label(connection)?;
                    let wait = self.plan.connections[index].connect;
                    let incarnation = self.gateways[side].incarnation;
                    self.after(wait, Happening::Connected { connection, incarnation });
                }
                Event::Failed(_) => {
                    // The hypervisors see their sockets close; what they would do next does not matter here.
                    self.gateways[side].dead_hypervisor = true;
                }
                Event::Distrusted { stream, .. } => self.cut(stream.0, Some(side)),
                Event::Violated { .. } | Event::Interrupted | Event::Finished => {}
            }
        }
        Ok(())
    }

    /// Verified bytes to the hypervisor, as long as its socket takes some.
    fn egress(&mut self, side: Side, connection: u16) -> Result<bool, String> {
        let mut moved = false;
        if self.failed(side) {
            return Ok(false);
        }
        loop {
            let gateway = &mut self.gateways[side];
            let Some(socket) = gateway.sockets.get_mut(&connection) else { break };
            if socket.reader.room() == 0 {
                break;
            }
            if socket.partial.is_none() && gateway.readable.contains(&connection) {
                let Some(session) = &mut gateway.session else { break };
                match session.next_output(connection) {
                    Some(bytes) => {
                        let bytes = self.check_output(side, connection, bytes)?;
                        if let Some(socket) = self.gateways[side].sockets.get_mut(&connection) {
                            socket.partial = Some(bytes);
                        }
                    }
                    None => {
                        gateway.readable.remove(&connection);
                        if session.output_ended(connection) && !socket.eof_delivered {
                            socket.eof_delivered = true;
                            socket.reader.eof = true;
                            self.say(|| format!("side {side} connection {connection}: all handed out"));
                            self.maybe_close(side, connection);
                        }
                    }
                }
                moved = true;
                continue;
            }
            let Some(bytes) = &mut socket.partial else { break };
            let count = socket.reader.room().min(bytes.len() as u64) as usize;
            let _ = bytes.split_to(count);
            if bytes.is_empty() {
                socket.partial = None;
            }
            socket.delivered += count as u64;
            socket.reader.delivered += count as u64;
            let now = self.instant();
            self.with_session(side, Cause::Consumed, |s| s.consumed(connection, count as u64, now))?;
            self.schedule_read(side, connection);
            moved = true;
        }
        Ok(moved)
    }

    /// Promise 1: what is handed out is what was written, in order, without a gap.
    fn check_output(&mut self, side: Side, connection: u16, bytes: Bytes) -> Result<Bytes, String> {
        let mut bytes = bytes;
        if self.sabotage(Sabotage::FlipOutput) {
            let mut copy = bytes.to_vec();
            let at = copy.len() / 2;
            copy[at] ^= 0x10;
            bytes = copy.into();
        }
        let Some(socket) = self.gateways[side].sockets.get(&connection) else { return Ok(bytes) };
        let position = socket.delivered;
        let content = self.plan.connections[socket.index].ends[1 - side].content.clone();
        if let Some(at) = content.difference(position, &bytes) {
            return Err(format!("side {side} connection {connection}: byte {at} is not what was written"));
        }
        if self.gateways[0].incarnation + self.gateways[1].incarnation == 0
            && let Some(other) = self.gateways[1 - side].sockets.get(&connection)
            && position + bytes.len() as u64 > other.writer.read
        {
            return Err(format!("side {side} connection {connection}: bytes came that nobody wrote"));
        }
        if position > 0 && self.sabotage(Sabotage::RepeatOutput) {
            let twice = [bytes.clone(), bytes].concat();
            if let Some(at) = content.difference(position, &twice) {
                return Err(format!(
                    "side {side} connection {connection}: byte {at} is not what was written"
                ));
            }
            return Ok(twice.into());
        }
        Ok(bytes)
    }

    /// The hypervisor's bytes to the session, as far as it says that it takes some.
    fn ingress(&mut self, side: Side, connection: u16) -> Result<bool, String> {
        let mut moved = false;
        loop {
            if self.failed(side) {
                break;
            }
            let now = self.instant();
            let gateway = &mut self.gateways[side];
            let (Some(socket), Some(session)) = (gateway.sockets.get_mut(&connection), &mut gateway.session)
            else {
                break;
            };
            if socket.writer.at_eof() && !socket.end_said {
                socket.end_said = true;
                self.say(|| format!("side {side} connection {connection}: hypervisor closed"));
                self.with_session(side, Cause::IngestEnd, |s| s.ingest_end(connection, now))?;
                moved = true;
                continue;
            }
            if socket.writer.available() == 0 || socket.waits_for_budget {
                break;
            }
            let mut budget = session.read_budget(connection);
            if budget > BATCH_BYTES_MAX {
                return Err(format!("side {side} connection {connection}: a budget of {budget} bytes"));
            }
            if self.plan.sabotage == Some(Sabotage::ShareCredit) && side == SOURCE {
                budget = budget.min(self.shared_credit(side));
            }
            let Some(socket) = self.gateways[side].sockets.get_mut(&connection) else { break };
            if budget == 0 {
                socket.waits_for_budget = true;
                if self.plan.sabotage != Some(Sabotage::IgnoreBudget) {
                    break;
                }
                budget = 65_536;
            }
            let filled = socket.writer.available().min(budget as u64) as usize;
            let position = socket.writer.read;
            socket.writer.read += filled as u64;
            let spare = if self.random.percent(50) { 0 } else { budget - filled };
            let mut buffer = vec![0; INGEST_HEADROOM + filled + spare];
            socket.writer.content.fill(position, &mut buffer[INGEST_HEADROOM..INGEST_HEADROOM + filled]);
            self.with_session(side, Cause::Consumed, |s| s.ingest(connection, buffer, filled, &now))?;
            self.check_window(side, connection)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Promise 3: what one hypervisor wrote and the other has not taken fits into what the receiver reserves.
    fn check_window(&self, side: Side, connection: u16) -> Result<(), String> {
        let Some(here) = self.gateways[side].sockets.get(&connection) else { return Ok(()) };
        let there = self.gateways[1 - side].sockets.get(&connection).map_or(0, |socket| socket.delivered);
        let between = here.writer.read.saturating_sub(there);
        let window = self.plan.windows[1 - side];
        let restarted = self.gateways[1 - side].incarnation > 0;
        if between > window && !restarted {
            return Err(format!(
                "side {side} connection {connection}: {between} bytes between the hypervisors, {window} reserved"
            ));
        }
        Ok(())
    }

    fn failed(&self, side: Side) -> bool {
        self.gateways[side].session.as_ref().is_none_or(|s| matches!(s.state(), State::Failed(_)))
    }
}
