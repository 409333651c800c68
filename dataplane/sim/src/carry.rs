//! Frames between the gateways and the streams: who takes the next one, what happens to it on the way, and which
//! session it is for.

use crate::check::Cause;
use crate::network::{Known, SECOND, SOURCE, Side};
use crate::plan::Sabotage;
use crate::world::{Happening, World};
use bytes::Bytes;
use novacron_protocol::session::State;
use novacron_protocol::stream::StreamId;
use novacron_protocol::wire::{FRAME_HEADER_BYTES, FrameHeader, Kind, Lane, Reason, ReasonCode};

impl World {
    /// Streams pull: each that has room takes a frame, in turns.
    pub(crate) fn send(&mut self, side: Side) -> Result<bool, String> {
        let (mut moved, now) = (false, self.instant());
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
                        let Some(frame) = session.next_frame(StreamId(id), now) else { continue };
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
        // The system acknowledges what has come, whether its gateway reads it or not.
        if let Ok(header) = FrameHeader::read(&frame)
            && header.lane != Lane::Unordered
        {
            let (wait, frame) = (stream.delay, (header.lane, header.sequence));
            self.after(wait, Happening::Acknowledged { stream: id, from, frame });
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
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

    /// A gateway's system hears that the other's has a frame.
    pub(crate) fn acknowledged(&mut self, id: u32, from: Side, frame: (Lane, u64)) -> Result<(), String> {
        let up = self.streams.get(&id).is_some_and(|stream| stream.alive && stream.known[from] == Known::Up);
        if up && self.gateways[from].session.is_some() {
            let now = self.instant();
            // Here and there it says that more has crossed, true or not: windows may follow that, and nothing else.
            let crossed = if self.random.per_million(250_000) { self.random.spread(1, 1 << 20) } else { 0 };
            // And that a stream crawls, which costs a repetition; or it does not say how the stream gets on.
            let (crawls, advances) = (self.random.per_million(100_000), self.random.per_million(500_000));
            self.with_session(from, Cause::Arrived, |session| {
                session.crossed(StreamId(id), crossed, now);
                session.arrived(StreamId(id), &[frame], now);
                if crawls {
                    session.crawls(StreamId(id));
                } else if advances {
                    session.advanced(StreamId(id), now);
                }
            })?;
            return self.work(from);
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
            None => Some((
                Reason::new(ReasonCode::SessionUnknown, "this gateway does not know the session"),
                None,
            )),
            Some(session) => match session.state() {
                State::Finished => Some(Reason::new(ReasonCode::Finished, "the session has ended, and well")),
                State::Failed(reason) => Some(reason.clone()),
                _ => None,
            }
            .map(|reason| (reason, Some(session.config().witness()))),
        };
        let now = self.instant();
        if let Some((reason, witness)) = answer {
            let last_word = matches!(header.kind, Kind::Refuse | Kind::Fail);
            if let Some(stream) = self.streams.get_mut(&id)
                && !last_word
                && stream.answers[side].is_empty()
            {
                let answer = match witness {
                    Some(witness) => witness.last_word(Kind::Refuse, &reason, &stream.ends),
                    None => reason.to_frame(Kind::Refuse, header.session, header.epoch),
                };
                stream.answers[side].push_back(answer);
            }
            return Ok(());
        }
        self.with_session(side, Cause::Receive, |s| s.receive(StreamId(id), header, frame, now))?;
        Ok(())
    }
}
