//! Streams come and go; gateways, hypervisors and callers do what hurts.

use crate::check::Cause;
use crate::gateway::Gateway;
use crate::network::{DESTINATION, Known, MILLISECOND, Nanos, SECOND, SOURCE, Side, Stream};
use crate::plan::{Fault, Sabotage, When};
use crate::world::{Happening, World};
use novacron_protocol::session::Ends;
use novacron_protocol::stream::StreamId;
use novacron_protocol::wire::{Kind, Reason, ReasonCode};

impl World {
    /// The source's gateway dials; the acceptor knows of the stream first, the dialler an answer later.
    pub(crate) fn dial(&mut self) {
        if self.now < self.dark_until {
            let wait = self.dark_until - self.now + self.random.spread(0, 500 * MILLISECOND);
            self.after(wait, Happening::Dial);
            return;
        }
        let id = self.next_stream;
        self.next_stream += 1;
        let drawn = |side: u8| {
            let mut nonce = [side; 16];
            nonce[..4].copy_from_slice(&id.to_le_bytes());
            nonce
        };
        let ends = Ends {
            dialler: self.gateways[SOURCE].identity,
            acceptor: self.gateways[DESTINATION].identity,
            nonces: [drawn(1), drawn(2)],
        };
        let stream = Stream::new(&self.plan.path, ends, &mut self.random);
        let accepted = stream.delay * 2 + self.random.spread(0, 50 * MILLISECOND);
        let answered = accepted + stream.delay + self.random.spread(0, 50 * MILLISECOND);
        self.streams.insert(id, stream);
        self.after(accepted, Happening::StreamUp { stream: id, side: DESTINATION });
        self.after(answered, Happening::StreamUp { stream: id, side: SOURCE });
    }

    pub(crate) fn stream_up(&mut self, id: u32, side: Side) -> Result<(), String> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if !stream.alive {
            // It died before its handshake was through: this end never had it.
            stream.known[side] = Known::Lost;
            if side == SOURCE {
                let wait = self.random.spread(0, SECOND);
                self.after(wait, Happening::Dial);
            }
            return Ok(());
        }
        stream.known[side] = Known::Up;
        let ends = stream.ends;
        let early = std::mem::take(&mut stream.early[side]);
        self.say(|| format!("stream {id} is up for side {side}"));
        let now = self.instant();
        self.with_session(side, Cause::StreamOpened, |s| s.stream_opened(StreamId(id), ends, now))?;
        for frame in early {
            self.deliver(id, side, frame)?;
        }
        self.work(side)
    }

    pub(crate) fn stream_lost(&mut self, id: u32, side: Side) -> Result<(), String> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.known[side] != Known::Up {
            return Ok(());
        }
        stream.known[side] = Known::Lost;
        self.say(|| format!("stream {id} is lost for side {side}"));
        if side == SOURCE {
            let wait = self.random.spread(0, SECOND);
            self.after(wait, Happening::Dial);
        }
        if side == SOURCE && self.sabotage(Sabotage::HideLoss) {
            return Ok(());
        }
        let now = self.instant();
        self.with_session(side, Cause::StreamLost, |session| session.stream_lost(StreamId(id), now))?;
        self.work(side)
    }

    /// A stream dies; each end notices in its own time, `at_once` a side without delay.
    pub(crate) fn cut(&mut self, id: u32, at_once: Option<Side>) {
        // Its gateway gives up what it holds as well: what is referred to now has to be repaired, over other streams.
        let destination = self.gateways[DESTINATION].session.as_ref();
        if let Some(store) = destination.and_then(|session| session.config().content_store.as_ref()) {
            store.give_up();
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.alive {
            return;
        }
        let quiet = stream.cut(self.now, &mut self.random);
        self.say(|| format!("stream {id} is cut"));
        for side in [SOURCE, DESTINATION] {
            let notice = quiet + self.random.spread(0, self.plan.path.notice);
            let at = if at_once == Some(side) { self.now } else { notice };
            self.at(at, Happening::StreamLost { stream: id, side });
        }
    }

    pub(crate) fn alive(&self) -> Vec<u32> {
        self.streams.iter().filter(|(_, stream)| stream.alive).map(|(id, _)| *id).collect()
    }

    /// A side hands a frame of `kind` to a stream: is this the moment of a fault?
    pub(crate) fn triggered(&mut self, side: Side, kind: Kind) -> Vec<Fault> {
        let count = self.sent.entry((side, kind)).or_default();
        *count += 1;
        let count = *count - 1;
        let hits = |when: &When| matches!(*when, When::Frame { side: s, kind: k, nth } if (s, k, nth) == (side, kind, count));
        self.plan.faults.iter().filter(|(when, _)| hits(when)).map(|(_, fault)| *fault).collect()
    }

    pub(crate) fn strike(&mut self, fault: Fault, on: Option<u32>) -> Result<(), String> {
        self.say(|| format!("strikes: {fault:?}"));
        match fault {
            Fault::CutOne => {
                let alive = self.alive();
                if let Some(id) = on.or_else(|| (!alive.is_empty()).then(|| *self.random.pick(&alive))) {
                    self.cut(id, None);
                }
            }
            Fault::CutSome => {
                for id in self.alive() {
                    if self.random.percent(50) {
                        self.cut(id, None);
                    }
                }
            }
            Fault::CutAll { dark } => {
                self.dark_until = self.dark_until.max(self.now + dark);
                for id in self.alive() {
                    self.cut(id, None);
                }
            }
            Fault::StallOne { time } => {
                let alive = self.alive();
                let id = on.or_else(|| (!alive.is_empty()).then(|| *self.random.pick(&alive)));
                if let Some(stream) = id.and_then(|id| self.streams.get_mut(&id)) {
                    stream.stall(self.now + time);
                }
            }
            Fault::Pause { side, time } => {
                self.paused[side] += 1;
                self.after(time, Happening::Resume { side });
            }
            Fault::Restart { side, again } => self.restart(side, again),
            Fault::Cancel { side } => {
                let reason = Reason::new(ReasonCode::Cancelled, "a caller cancelled the session");
                self.with_session(side, Cause::Fail, |session| session.fail(reason))?;
                self.work(side)?;
            }
            Fault::Death { side, reset } => self.hypervisor_dies(side, reset)?,
        }
        Ok(())
    }

    fn restart(&mut self, side: Side, again: bool) {
        self.dark_until = self.dark_until.max(self.now + self.random.spread(MILLISECOND, 2 * SECOND));
        for id in self.alive() {
            self.cut(id, Some(side));
        }
        for stream in self.streams.values_mut() {
            stream.known[side] = Known::Lost;
            stream.answers[side].clear();
            stream.early[side].clear();
        }
        if side == SOURCE {
            // The gateway dials anew when it is back, as many as before.
            for _ in 0..self.plan.streams {
                let wait = self.random.spread(0, SECOND);
                self.after(wait, Happening::Dial);
            }
        }
        let mut fresh = Gateway::new(side, &mut self.random);
        fresh.incarnation = self.gateways[side].incarnation + 1;
        fresh.forgotten = true;
        self.gateways[side] = fresh;
        if again {
            let at: Nanos = self.dark_until;
            self.at(at, Happening::Announce { side });
        }
    }

    /// The hypervisor's process is gone: its sockets end, or break.
    fn hypervisor_dies(&mut self, side: Side, reset: bool) -> Result<(), String> {
        if self.gateways[side].sockets.is_empty() {
            return Ok(());
        }
        for socket in self.gateways[side].sockets.values_mut() {
            socket.writer.total = socket.writer.written;
            socket.writer.closed = true;
            socket.reader.gone = true;
        }
        self.gateways[side].dead_hypervisor = true;
        let over = self.gateways[side].session.as_ref().is_none_or(|session| session.state().is_over());
        if (reset || side == DESTINATION) && !over {
            let code = if side == SOURCE { ReasonCode::SourceLost } else { ReasonCode::DestinationLost };
            let reason = Reason::new(code, "the hypervisor closed its socket in the middle");
            self.with_session(side, Cause::Fail, |session| session.fail(reason))?;
        }
        self.work(side)
    }
}
