//! Hypervisors at their sockets: when they write, read and close.

use crate::gated::LOOK;
use crate::gateway::Gateway;
use crate::hypervisor::{Reader, Writer};
use crate::network::{SECOND, SOURCE, Side};
use crate::plan::{Close, When};
use crate::world::{Happening, World};
use bytes::Bytes;

/// One connection's socket between a gateway and a hypervisor.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Which of the plan's connections this is.
    pub(crate) index: usize,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    /// The session had no budget: it has to say when there is some.
    pub(crate) waits_for_budget: bool,
    pub(crate) end_said: bool,
    /// A batch that the socket has taken only a part of.
    pub(crate) partial: Option<Bytes>,
    /// Bytes handed out by the session and found right.
    pub(crate) delivered: u64,
    pub(crate) eof_delivered: bool,
    reading: bool,
    closing: bool,
}

impl World {
    pub(crate) fn add_socket(&mut self, side: Side, connection: u16, index: usize) {
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
    pub(crate) fn maybe_close(&mut self, side: Side, connection: u16) {
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
        if !self.gate_is_open(side, end.reads_after) {
            if let Some(socket) = self.socket(side, connection, incarnation) {
                socket.reading = true;
            }
            self.after(LOOK, Happening::Read { side, connection, incarnation });
            return Ok(());
        }
        let bytes = self.random.range(end.reads.0, end.reads.1);
        if let Some(socket) = self.socket(side, connection, incarnation) {
            socket.reader.read(bytes);
        }
        self.work(side)?;
        self.maybe_close(side, connection);
        self.schedule_read(side, connection);
        Ok(())
    }

    pub(crate) fn schedule_read(&mut self, side: Side, connection: u16) {
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
}
