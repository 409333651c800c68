//! Hypervisors that read one connection only once another has made progress, as QEMU's multifd receiver does with its
//! channels and the main connection's flush: whoever shares credit between connections stops here for ever.

use crate::hypervisor::Content;
use crate::network::{DESTINATION, MILLISECOND, Nanos, SECOND, SOURCE, Side};
use crate::plan::{Close, Plan};
use crate::random::Random;
use crate::world::World;
use novacron_protocol::limits::PROMISE_BYTES_MIN;

/// How often a hypervisor that waits for another connection looks at it.
pub(crate) const LOOK: Nanos = 100 * MILLISECOND;

/// Not before the reader of a connection has taken so much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    pub(crate) connection: usize,
    pub(crate) bytes: u64,
}

impl Plan {
    /// Small windows, much to carry, and a chain of connections each of which is read only after the one before it.
    pub(crate) fn draw_gates(&mut self, random: &mut Random) {
        self.structured = false;
        self.windows = [random.spread(20_000, 200_000), random.spread(20_000, 200_000)];
        let window = self.windows[DESTINATION];
        // Sometimes memory is so short that all connections together are promised no more than the least.
        self.memory = if random.percent(70) { Some(random.spread(1, 8 * PROMISE_BYTES_MIN)) } else { None };
        while self.connections.len() < 3 {
            let mut another = self.connections[0].clone();
            another.opened_at += random.spread(0, SECOND);
            self.connections.push(another);
        }
        for connection in &mut self.connections {
            let [forward, back] = &mut connection.ends;
            forward.content = Content::Words(random.next_u64());
            forward.bytes = random.range(window / 2, (6 * window).min(600_000));
            forward.chunk = (1, random.spread(forward.bytes / 500 + 1, 1 << 20));
            forward.reads = (1, random.spread(forward.bytes / 500 + 1, 1 << 20));
            forward.socket = random.spread(4096, 64 << 10);
            forward.pause.1 = forward.pause.1.min(5 * MILLISECOND);
            (forward.leaves, back.leaves) = (false, false);
            if let Content::Stream(_) = back.content {
                back.content = Content::Words(random.next_u64());
            }
            back.bytes = back.bytes.min(100_000);
            (back.chunk, back.writes_after) =
                ((1, back.bytes / 500 + 1), back.writes_after.min(forward.bytes));
            back.reads = (1, back.bytes / 50 + 1);
            (back.pause, back.read_pause.1) =
                ((MILLISECOND, 5 * MILLISECOND), back.read_pause.1.min(20 * MILLISECOND));
            forward.close = Close::Written;
        }
        let mut order: Vec<usize> = (0..self.connections.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.range(0, at as u64) as usize);
        }
        for pair in order.windows(2) {
            let bytes = random.range(1, self.connections[pair[0]].ends[SOURCE].bytes);
            self.connections[pair[1]].ends[SOURCE].reads_after = Some(Gate { connection: pair[0], bytes });
        }
    }
}

impl World {
    /// Whether a connection's reader may read, as far as another connection goes.
    pub(crate) fn gate_is_open(&self, side: Side, gate: Option<Gate>) -> bool {
        let Some(gate) = gate else { return true };
        let sockets = self.gateways[side].sockets.values();
        sockets
            .filter(|socket| socket.index == gate.connection)
            .any(|socket| socket.reader.taken >= gate.bytes)
    }

    /// What a gateway could read that had one credit for all of its connections.
    pub(crate) fn shared_credit(&self, side: Side) -> usize {
        let between = self.gateways[side].sockets.iter().map(|(connection, here)| {
            let there = self.gateways[1 - side].sockets.get(connection).map_or(0, |socket| socket.delivered);
            here.writer.read.saturating_sub(there)
        });
        self.plan.windows[1 - side].saturating_sub(between.sum()) as usize
    }
}
