//! A stream goes through two sessions, over a link on a virtual clock. What the sessions' calls cost is the processor time that
//! they took here, copies in and out of buffers included; what the link takes is computed. So it is one run of real codecs
//! on a link that is exactly as fast as it says, whoever else wants this machine.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use novacron_protocol::page::policy::Mode;
use novacron_protocol::session::{Ends, MIGRATION, Role, Session, SessionConfig, Token};
use novacron_protocol::stream::{INGEST_HEADROOM, SentBytes, StreamId};
use novacron_protocol::time::{Clock, Instant};
use novacron_protocol::wire::{FrameHeader, Identity};
use rustix::time::{ClockId, clock_gettime};

use crate::limits::{REPLAY_STEPS_MAX, TRANSPORT_QUEUE_BYTES};

const STREAM: StreamId = StreamId(1);
const CONNECTION: u16 = 0;

/// A link, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Bytes a second; infinite: only processors count.
    pub(crate) rate: f64,
    pub(crate) round_trip_ns: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    /// Until the far hypervisor had all of it, on the virtual clock.
    pub(crate) seconds: f64,
    pub(crate) wire_bytes: u64,
    /// Both directions, acknowledgements and repairs included.
    pub(crate) all_bytes: u64,
    /// Processor time of each side's calls, digests included, without what only compares here.
    pub(crate) source_ns: f64,
    pub(crate) destination_ns: f64,
    /// What both sides remembered at the end, and what was agreed.
    pub(crate) held_bytes: [u64; 2],
    pub(crate) agreed_bytes: u64,
    /// By level.
    pub(crate) sent: SentBytes,
}

/// Processor time of this thread, nanoseconds.
fn processor_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// The virtual clock of a side while one of its calls runs: it moves by processor time.
#[derive(Clone, Copy)]
struct Turn {
    base_ns: f64,
    began_ns: f64,
}

impl Turn {
    fn begin(base_ns: f64) -> Self {
        Turn { base_ns, began_ns: processor_ns() }
    }

    fn now_ns(&self) -> f64 {
        self.base_ns + processor_ns() - self.began_ns
    }
}

impl Clock for Turn {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.now_ns() as u64)
    }
}

/// A gateway: its session, until when its thread is busy, what arrives at it and when.
struct Side {
    session: Session,
    free_at: f64,
    inbox: VecDeque<(f64, Bytes)>,
    /// Until when its direction of the link is busy.
    link_free: f64,
}

impl Side {
    fn new(session: Session) -> Self {
        Side { session, free_at: 0.0, inbox: VecDeque::new(), link_free: 0.0 }
    }

    /// Takes what has arrived; true: something had.
    fn receive(&mut self, turn: &Turn) -> Result<bool> {
        let mut any = false;
        while self.inbox.front().is_some_and(|(at, _)| *at <= turn.base_ns) {
            let Some((_, frame)) = self.inbox.pop_front() else { break };
            let header = FrameHeader::read(&frame).context("reading a frame of ours")?;
            self.session.receive(STREAM, header, frame, turn.now());
            any = true;
        }
        if self.session.deadline().is_some_and(|deadline| deadline <= turn.now()) {
            self.session.tick(turn.now());
        }
        while self.session.next_event().is_some() {}
        Ok(any)
    }

    /// Hands frames to the link while its queue has room. A copy stands for the system call.
    fn send(&mut self, to: &mut Side, path: Path, turn: &Turn) {
        while (self.link_free - turn.now_ns()) * path.rate / 1e9 < TRANSPORT_QUEUE_BYTES
            || path.rate.is_infinite()
        {
            let Some(frame) = self.session.next_frame(STREAM, turn.now()) else { break };
            let frame = Bytes::copy_from_slice(&frame);
            self.link_free = self.link_free.max(turn.now_ns()) + frame.len() as f64 / path.rate * 1e9;
            to.inbox.push_back((self.link_free + path.round_trip_ns / 2.0, frame));
        }
    }

    /// When there may be something to do again.
    fn next_at(&self, path: Path) -> Option<f64> {
        let arrival = self.inbox.front().map(|(at, _)| *at);
        let deadline = self.session.deadline().map(|at| at.as_nanos() as f64 + 1.0);
        let room = self
            .session
            .has_frames()
            .then(|| self.link_free - TRANSPORT_QUEUE_BYTES / path.rate * 1e9 + 1000.0);
        let next = [arrival, deadline, room].into_iter().flatten().fold(f64::MAX, f64::min);
        (next < f64::MAX).then_some(next.max(self.free_at))
    }
}

/// A side's session with every bound at its default, in one thread.
pub(crate) fn session_config(role: Role) -> SessionConfig {
    SessionConfig { codec_workers: 1, ..SessionConfig::new(role, 1, Token::new([7; 32])) }
}

/// Carries `stream` with a codec over a link.
pub(crate) fn replay(stream: &[u8], codec: Mode, path: Path) -> Result<Carried> {
    let near = SessionConfig { codec, ..session_config(Role::Source) };
    replay_between(stream, near, session_config(Role::Destination), path)
}

/// Carries `stream` between sides that are configured so.
pub(crate) fn replay_between(
    stream: &[u8],
    near: SessionConfig,
    far: SessionConfig,
    path: Path,
) -> Result<Carried> {
    let mut source = Side::new(Session::source(near, Instant::START));
    let mut destination = Side::new(Session::destination(far, Instant::START));
    let (mut source_ns, mut destination_ns) = (0.0, 0.0);
    let identity = |of: u8| Identity { gateway: [of; 16], instance: [of; 16] };
    let ends = Ends { dialler: identity(1), acceptor: identity(2), nonces: [[3; 16], [4; 16]] };
    for side in [&mut source, &mut destination] {
        side.session.stream_opened(STREAM, ends, Instant::START);
    }
    source
        .session
        .open_connection(MIGRATION, Instant::START)
        .map_err(|reason| anyhow::anyhow!("{reason}"))?;

    let (mut position, mut taken, mut ended, mut written) = (0, 0, false, vec![0; 1 << 20]);
    for _ in 0..REPLAY_STEPS_MAX {
        // Whoever is earlier; the source has something to do whenever it may read.
        let may_read = source.session.read_budget(CONNECTION) > 0 && position < stream.len();
        let near = if may_read { Some(source.free_at) } else { source.next_at(path) };
        let far = destination.next_at(path);
        let Some(now) = [near, far].into_iter().flatten().reduce(f64::min) else {
            bail!("nothing happens any more after {taken} of {} bytes", stream.len());
        };
        let turn = Turn::begin(now);
        if near == Some(now) {
            source.receive(&turn)?;
            source.send(&mut destination, path, &turn);
            let budget = source.session.read_budget(CONNECTION).min(stream.len() - position);
            if budget > 0 {
                let mut buffer = Vec::with_capacity(INGEST_HEADROOM + budget);
                buffer.resize(INGEST_HEADROOM, 0);
                buffer.extend_from_slice(&stream[position..position + budget]);
                position += budget;
                source.session.ingest(CONNECTION, buffer, budget, &turn);
            } else if position == stream.len() && !ended {
                ended = true;
                source.session.ingest_end(CONNECTION, turn.now());
            }
            source.send(&mut destination, path, &turn);
            source.free_at = turn.now_ns();
            source_ns += source.free_at - now;
        } else {
            destination.receive(&turn)?;
            while let Some(bytes) = destination.session.next_output(CONNECTION) {
                let count = bytes.len();
                let began = processor_ns();
                ensure!(
                    bytes == stream[taken..taken + count],
                    "byte {taken} or one after it is not as written"
                );
                destination_ns -= processor_ns() - began;
                written[..count].copy_from_slice(&bytes);
                taken += count;
                destination.session.consumed(CONNECTION, count as u64, turn.now());
            }
            destination.send(&mut source, path, &turn);
            destination.free_at = turn.now_ns();
            destination_ns += destination.free_at - now;
            if taken == stream.len() {
                let sent = source.session.outbound().bytes();
                let (near, far) = (source.session.remembered_bytes(), destination.session.remembered_bytes());
                return Ok(Carried {
                    seconds: destination.free_at / 1e9,
                    wire_bytes: sent.wire,
                    all_bytes: sent.wire + source.session.received_bytes(),
                    source_ns,
                    destination_ns,
                    held_bytes: [near.0, far.0],
                    agreed_bytes: near.1,
                    sent,
                });
            }
        }
        for side in [&source, &destination] {
            if side.session.state().is_over() && taken < stream.len() {
                bail!("a session is over: {:?}", side.session.state());
            }
        }
    }
    bail!("no end after {REPLAY_STEPS_MAX} steps, {taken} of {} bytes", stream.len())
}

#[cfg(test)]
mod tests {
    use super::super::guest::Pages;
    use super::*;

    #[test]
    fn a_link_takes_as_long_as_it_should() {
        let stream = Pages::Random.stream(2048);
        let path = Path { rate: 25e6, round_trip_ns: 40e6 };
        let carried = replay(&stream, Mode::None, path).unwrap();
        let least = stream.len() as f64 / path.rate;
        assert!((least..least * 1.6).contains(&carried.seconds), "{} of {least}", carried.seconds);
        assert!(carried.wire_bytes >= stream.len() as u64);
    }

    #[test]
    fn what_shrinks_takes_fewer_bytes() {
        let stream = Pages::Text.stream(1024);
        let path = Path { rate: 12.5e6, round_trip_ns: 1e6 };
        let carried = replay(&stream, Mode::Zstd { level: 1 }, path).unwrap();
        assert!(carried.wire_bytes < stream.len() as u64 / 2, "{}", carried.wire_bytes);
    }
}
