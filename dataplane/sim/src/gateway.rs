//! A gateway around a session: what it asks of the session, and what it owes it.

use crate::check::Cause;
use crate::hypervisor::{Reader, Writer};
use crate::network::{DESTINATION, Known, Nanos, SECOND, SOURCE, Side};
use crate::plan::{Close, Sabotage, When};
use crate::random::Random;
use crate::world::{Happening, World, role};
use bytes::Bytes;
use novacron_protocol::event::Event;
use novacron_protocol::limits::BATCH_BYTES_MAX;
use novacron_protocol::session::{Session, SessionConfig, State, Token};
use novacron_protocol::stream::{INGEST_HEADROOM, StreamId};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{FRAME_HEADER_BYTES, FrameHeader, Identity, Kind, Lane, Reason, ReasonCode};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SESSION: u64 = 0x51;

/// One connection's socket between a gateway and a hypervisor.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Which of the plan's connections this is.
    pub(crate) index: usize,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    /// The session had no budget: it has to say when there is some.
    waits_for_budget: bool,
    end_said: bool,
    /// A batch that the socket has taken only a part of.
    partial: Option<Bytes>,
    /// Bytes handed out by the session and found right.
    pub(crate) delivered: u64,
    pub(crate) eof_delivered: bool,
    reading: bool,
    closing: bool,
}

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
    connections_opened: usize,
    pub(crate) tick_at: Option<Nanos>,
    pub(crate) deadline: Option<Instant>,
    stream_turn: u64,
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
            tick_at: None,
            deadline: None,
            stream_turn: 0,
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
        config.receive_window = self.plan.windows[side];
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
        let connection = session.open_connection(&index.to_string(), now).map_err(|r| r.to_string())?;
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

    fn add_socket(&mut self, side: Side, connection: u16, index: usize) {
        let end = &self.plan.connections[index].ends[side];
        let other = &self.plan.connections[index].ends[1 - side];
        let socket = Socket {
            index,
            writer: Writer::new(end.content.clone(), end.bytes, end.socket),
            reader: Reader::new(other.socket),
            waits_for_budget: false,
            end_said: false,
            partial: None,
            delivered: 0,
            eof_delivered: false,
            reading: false,
            closing: false,
        };
        let incarnation = self.gateways[side].incarnation;
        self.gateways[side].sockets.insert(connection, socket);
        self.after(0, Happening::Write { side, connection, incarnation });
    }

    fn socket(&mut self, side: Side, connection: u16, incarnation: u32) -> Option<&mut Socket> {
        let gateway = &mut self.gateways[side];
        if gateway.incarnation != incarnation || gateway.dead_hypervisor {
            return None;
        }
        gateway.sockets.get_mut(&connection)
    }

    pub(crate) fn hypervisor_writes(
        &mut self,
        side: Side,
        connection: u16,
        incarnation: u32,
    ) -> Result<(), String> {
        let Some(socket) = self.socket(side, connection, incarnation) else { return Ok(()) };
        if socket.writer.closed {
            return Ok(());
        }
        let index = socket.index;
        let end = self.plan.connections[index].ends[side].clone();
        let chunk = self.random.range(end.chunk.0, end.chunk.1);
        let pause = self.random.range(end.pause.0, end.pause.1);
        let Some(socket) = self.socket(side, connection, incarnation) else { return Ok(()) };
        if socket.reader.taken >= end.writes_after || socket.reader.eof {
            socket.writer.write(chunk);
        }
        if socket.writer.written < socket.writer.total {
            // A hypervisor whose socket is full sleeps in the kernel; a slow look stands for its waking.
            let wait = if socket.writer.available() > 0 { pause.max(50_000) } else { pause };
            let idle = socket.writer.written == 0 && end.writes_after > socket.reader.taken;
            let wait = if idle { wait.max(10_000_000) } else { wait };
            self.after(wait, Happening::Write { side, connection, incarnation });
        } else {
            self.maybe_close(side, connection);
        }
        self.work(side)
    }

    /// Closes the writing side once everything is written and, where the plan says so, read.
    fn maybe_close(&mut self, side: Side, connection: u16) {
        let all_open = self.gateways[SOURCE].connections_opened >= self.plan.connections.len();
        let incarnation = self.gateways[side].incarnation;
        let Some(socket) = self.gateways[side].sockets.get_mut(&connection) else { return };
        let close = self.plan.connections[socket.index].ends[side].close;
        let done = socket.writer.written == socket.writer.total;
        if socket.closing || socket.writer.closed || !done || (side == SOURCE && !all_open) {
            return;
        }
        let thinks = match close {
            Close::Written => 0,
            Close::ReadAll { thinks }
                if socket.reader.eof && socket.reader.taken == socket.reader.delivered =>
            {
                thinks
            }
            Close::ReadAll { .. } => return,
        };
        socket.closing = true;
        self.after(thinks, Happening::Close { side, connection, incarnation });
    }

    pub(crate) fn hypervisor_closes(
        &mut self,
        side: Side,
        connection: u16,
        incarnation: u32,
    ) -> Result<(), String> {
        let Some(socket) = self.socket(side, connection, incarnation) else { return Ok(()) };
        let index = socket.index;
        let leaves = self.plan.connections[index].ends[side].leaves;
        if let Some(socket) = self.socket(side, connection, incarnation) {
            socket.writer.closed = true;
            socket.reader.gone |= leaves;
        }
        let all = self.plan.connections.len();
        let closed = |gateway: &Gateway| gateway.sockets.values().filter(|s| s.writer.closed).count() == all;
        if !self.all_closed && self.gateways.iter().all(closed) {
            self.all_closed = true;
            self.say(|| "every hypervisor has closed".to_owned());
            let faults: Vec<_> = (self.plan.faults.iter())
                .filter(|(when, _)| matches!(when, When::Closed))
                .map(|(_, fault)| *fault)
                .collect();
            for fault in faults {
                let wait = self.random.spread(0, SECOND);
                self.after(wait, Happening::Strike { fault, on: None });
            }
        }
        self.work(side)
    }

    pub(crate) fn hypervisor_reads(
        &mut self,
        side: Side,
        connection: u16,
        incarnation: u32,
    ) -> Result<(), String> {
        let Some(socket) = self.socket(side, connection, incarnation) else { return Ok(()) };
        socket.reading = false;
        let index = socket.index;
        // What the other end writes is read the way the other end's plan says.
        let end = self.plan.connections[index].ends[1 - side].clone();
        let bytes = self.random.range(end.reads.0, end.reads.1);
        if let Some(socket) = self.socket(side, connection, incarnation) {
            socket.reader.read(bytes);
        }
        self.work(side)?;
        self.maybe_close(side, connection);
        self.schedule_read(side, connection);
        Ok(())
    }

    fn schedule_read(&mut self, side: Side, connection: u16) {
        let incarnation = self.gateways[side].incarnation;
        let Some(socket) = self.gateways[side].sockets.get_mut(&connection) else { return };
        if socket.reading || socket.reader.gone || socket.reader.delivered == socket.reader.taken {
            return;
        }
        socket.reading = true;
        let end = self.plan.connections[socket.index].ends[1 - side].clone();
        let mut wait = self.random.range(end.read_pause.0, end.read_pause.1);
        if self.random.per_million(end.stalls_per_million) {
            wait += self.random.range(0, end.stall);
        }
        self.after(wait, Happening::Read { side, connection, incarnation });
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
            moved |= self.send(side)?;
            if !moved {
                break;
            }
        }
        self.set_tick(side);
        Ok(())
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
                    let index = self.label(connection)?;
                    let wait = self.plan.connections[index].connect;
                    let incarnation = self.gateways[side].incarnation;
                    self.after(wait, Happening::Connected { connection, incarnation });
                }
                Event::Failed(_) => {
                    // The hypervisors see their sockets close; what they would do next does not matter here.
                    self.gateways[side].dead_hypervisor = true;
                }
                Event::Interrupted | Event::Finished => {}
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

    /// Streams pull: each that has room takes a frame, in turns.
    fn send(&mut self, side: Side) -> Result<bool, String> {
        let mut moved = false;
        let up: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.known[side] == Known::Up)
            .map(|(id, _)| *id)
            .collect();
        if up.is_empty() {
            return Ok(false);
        }
        loop {
            let mut any = false;
            self.gateways[side].stream_turn += 1;
            let turn = self.gateways[side].stream_turn as usize;
            for offset in 0..up.len() {
                let id = up[(turn + offset) % up.len()];
                let Some(stream) = self.streams.get_mut(&id) else { continue };
                if !stream.has_room(side, &self.plan.path) {
                    continue;
                }
                let frame = match stream.answers[side].pop_front() {
                    Some(frame) => frame,
                    None => {
                        let Some(session) = &mut self.gateways[side].session else { continue };
                        let waits = session.has_frames();
                        let Some(frame) = session.next_frame(StreamId(id)) else { continue };
                        if !waits {
                            return Err(format!("side {side}: a frame came that did not wait"));
                        }
                        frame
                    }
                };
                self.transmit(side, id, frame)?;
                any = true;
            }
            moved |= any;
            if !any {
                return Ok(moved);
            }
        }
    }

    fn transmit(&mut self, side: Side, id: u32, frame: Bytes) -> Result<(), String> {
        let header = FrameHeader::read(&frame).map_err(|error| format!("side {side} wrote: {error}"))?;
        self.say(|| {
            let FrameHeader { kind, lane, sequence, .. } = header;
            format!("side {side} -> stream {id}: {kind:?} {lane:?} {sequence}, {} bytes", frame.len())
        });
        for fault in self.triggered(side, header.kind) {
            // Strikes just behind this frame, which may still arrive.
            self.at(self.now, Happening::Strike { fault, on: Some(id) });
        }
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let Some(passage) = stream.send(side, frame.len(), now, &self.plan.path, &mut self.random) else {
            return Ok(());
        };
        self.at(passage.departs, Happening::Departed { stream: id, from: side });
        let sequenced = header.lane != Lane::Unordered;
        if side == SOURCE && sequenced {
            let nth = self.sequenced[side];
            if self.plan.sabotage.is_some_and(|s| s == Sabotage::DropFrame(nth))
                && self.sabotage(Sabotage::DropFrame(nth))
            {
                self.sequenced[side] += 1;
                return Ok(());
            }
        }
        let nth = self.sequenced[side];
        if sequenced {
            self.sequenced[side] += 1;
        }
        let mut arriving = frame.clone();
        if let Some(damage) = self.plan.damage
            && (damage.side, damage.nth) == (side, nth)
            && sequenced
        {
            arriving = self.flip(&frame, damage.header);
        }
        self.at(passage.arrives, Happening::Arrived { stream: id, from: side, frame: arriving });
        if self.random.per_million(self.plan.path.duplicates_per_million) {
            let again = passage.arrives + self.random.spread(0, SECOND);
            self.at(again, Happening::Arrived { stream: id, from: side, frame });
        }
        Ok(())
    }

    fn flip(&mut self, frame: &Bytes, header: bool) -> Bytes {
        let mut bytes = frame.to_vec();
        let header = header || bytes.len() == FRAME_HEADER_BYTES;
        let (from, to) = if header { (0, FRAME_HEADER_BYTES) } else { (FRAME_HEADER_BYTES, bytes.len()) };
        let at = self.random.range(from as u64, to as u64 - 1) as usize;
        let bit = self.random.range(0, 7);
        bytes[at] ^= 1 << bit;
        self.say(|| format!("bit {bit} of byte {at} flips"));
        bytes.into()
    }

    pub(crate) fn arrived(&mut self, id: u32, from: Side, frame: Bytes) -> Result<(), String> {
        let to = 1 - from;
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if !stream.arrives(from, self.now) {
            return Ok(());
        }
        match stream.known[to] {
            Known::NotYet => stream.early[to].push(frame),
            Known::Lost => {}
            Known::Up => {
                self.deliver(id, to, frame)?;
                self.work(to)?;
            }
        }
        Ok(())
    }

    /// A stream hands a frame to a gateway, which finds the session that it is for.
    pub(crate) fn deliver(&mut self, id: u32, side: Side, frame: Bytes) -> Result<(), String> {
        let header = match FrameHeader::read(&frame) {
            Ok(header) => header,
            Err(error) => {
                self.say(|| format!("side {side}: {error}; stream {id} is closed"));
                self.cut(id, Some(side));
                return Ok(());
            }
        };
        let answer = match &self.gateways[side].session {
            None => Some(Reason::new(ReasonCode::SessionUnknown, "this gateway does not know the session")),
            Some(session) => match session.state() {
                State::Finished => Some(Reason::new(ReasonCode::Finished, "the session has ended, and well")),
                State::Failed(reason) => Some(reason.clone()),
                _ => None,
            },
        };
        let now = self.instant();
        if let Some(reason) = answer {
            let last_word = matches!(header.kind, Kind::Refuse | Kind::Fail);
            if let Some(stream) = self.streams.get_mut(&id)
                && !last_word
                && stream.answers[side].is_empty()
            {
                stream.answers[side].push_back(reason.to_frame(Kind::Refuse, header.session, header.epoch));
            }
            return Ok(());
        }
        self.with_session(side, Cause::Receive, |s| s.receive(StreamId(id), header, frame, now))?;
        Ok(())
    }
}
