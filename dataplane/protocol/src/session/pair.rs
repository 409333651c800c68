//! Two sessions, and streams that a test holds in its hands.

use super::*;
use crate::limits::RECEIVE_WINDOW_BYTES;
use crate::page::policy::Mode;
use crate::stream::INGEST_HEADROOM;
use std::time::Duration;

pub(super) const SESSION: u64 = 9;

pub(super) fn ends(acceptor: u8) -> Ends {
    Ends {
        dialler: Identity { gateway: [1; 16], instance: [1; 16] },
        acceptor: Identity { gateway: [2; 16], instance: [acceptor; 16] },
        nonces: [[3; 16], [4; 16]],
    }
}

/// What says, on a stream between these ends and as who knows the session does, how it has ended.
pub(super) fn last_word(kind: Kind, reason: &Reason, ends: &Ends) -> Bytes {
    config(Role::Source).witness().last_word(kind, reason, ends)
}

pub(super) fn at(ms: u64) -> Instant {
    Instant::START.after(Duration::from_millis(ms))
}

pub(super) fn config(role: Role) -> SessionConfig {
    SessionConfig::new(role, SESSION, Token::new([5; 32]))
}

/// A source and a destination; `windows` is what each reserves.
pub(super) struct Pair {
    pub(super) source: Session,
    pub(super) destination: Session,
    pub(super) now: Instant,
}

impl Pair {
    pub(super) fn new(window: u64) -> Self {
        let mut destination = config(Role::Destination);
        destination.receive_window = window;
        let mut source = config(Role::Source);
        source.codec = Mode::Lz4;
        Pair {
            source: Session::source(source, at(0)),
            destination: Session::destination(destination, at(0)),
            now: at(0),
        }
    }

    /// Both sides know a stream.
    pub(super) fn stream(&mut self, stream: u32) {
        self.source.stream_opened(StreamId(stream), ends(2), self.now);
        self.destination.stream_opened(StreamId(stream), ends(2), self.now);
    }

    /// Both sides know a stream, and have proven to each other on it that they know the session.
    pub(super) fn proven(&mut self, stream: u32) {
        self.stream(stream);
        let open = self.source.next_frame(StreamId(stream), Instant::START).unwrap();
        deliver(&mut self.destination, stream, open, self.now);
        let accept = self.destination.next_frame(StreamId(stream), Instant::START).unwrap();
        deliver(&mut self.source, stream, accept, self.now);
    }

    pub(super) fn cut(&mut self, stream: u32) {
        self.source.stream_lost(StreamId(stream), self.now);
        self.destination.stream_lost(StreamId(stream), self.now);
    }

    /// An open session with one stream.
    pub(super) fn opened() -> Self {
        let mut pair = Pair::new(RECEIVE_WINDOW_BYTES);
        pair.stream(1);
        pair.carry(1);
        assert_eq!((pair.source.state(), pair.destination.state()), (&State::Running, &State::Running));
        pair
    }

    /// Carries everything that waits over a stream, both ways, until nothing does.
    pub(super) fn carry(&mut self, stream: u32) {
        for _ in 0..1000 {
            let there = self.source.next_frame(StreamId(stream), Instant::START);
            let back = self.destination.next_frame(StreamId(stream), Instant::START);
            if there.is_none() && back.is_none() {
                return;
            }
            if let Some(frame) = there {
                deliver(&mut self.destination, stream, frame, self.now);
            }
            if let Some(frame) = back {
                deliver(&mut self.source, stream, frame, self.now);
            }
        }
        panic!("the two never stop talking");
    }

    /// Hypervisors take everything that is there for them.
    pub(super) fn drain(&mut self, connection: u16) {
        for session in [&mut self.source, &mut self.destination] {
            while let Some(bytes) = session.next_output(connection) {
                session.consumed(connection, bytes.len() as u64, self.now);
            }
        }
    }
}

pub(super) fn deliver(session: &mut Session, stream: u32, frame: Bytes, now: Instant) {
    let header = FrameHeader::read(&frame).unwrap();
    session.receive(StreamId(stream), header, frame, now);
}

pub(super) fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.next_event()).collect()
}

pub(super) fn write(session: &mut Session, connection: u16, bytes: &[u8], now: Instant) {
    let mut buffer = vec![0; INGEST_HEADROOM];
    buffer.extend_from_slice(bytes);
    session.ingest(connection, buffer, bytes.len(), &now);
}
