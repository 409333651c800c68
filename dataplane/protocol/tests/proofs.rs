//! What proofs of a session's token are worth, and on which stream: each test names the requirements of `docs/spec/dwcp.md` that it
//! shows.

use bytes::Bytes;
use novacron_protocol::event::Event;
use novacron_protocol::session::{Ends, Role, Session, SessionConfig, State, Token, Witness};
use novacron_protocol::stream::StreamId;
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{
    FRAME_HEADER_BYTES, FrameHeader, Identity, Kind, Open, Progress, Reason, ReasonCode,
};
use proptest::prelude::*;

const SESSION: u64 = 0x1122_3344_5566_7788;
const TOKEN: [u8; 32] = [7; 32];
const A: StreamId = StreamId(1);
const B: StreamId = StreamId(2);
const NOW: Instant = Instant::START;

/// A stream between the same two processes as every other, with what they drew for it.
fn ends(stream: u8) -> Ends {
    Ends {
        dialler: Identity { gateway: [1; 16], instance: [2; 16] },
        acceptor: Identity { gateway: [3; 16], instance: [4; 16] },
        nonces: [[stream; 16], [stream ^ 0xff; 16]],
    }
}

fn config(role: Role) -> SessionConfig {
    SessionConfig::new(role, SESSION, Token::new(TOKEN))
}

fn take(session: &mut Session, stream: StreamId, frame: Bytes) {
    let header = FrameHeader::read(&frame).unwrap();
    session.receive(stream, header, frame, NOW);
}

/// An open session on stream A, and the opening that was said there.
fn open_pair() -> (Session, Session, Bytes) {
    let mut source = Session::source(config(Role::Source), NOW);
    let mut destination = Session::destination(config(Role::Destination), NOW);
    source.stream_opened(A, ends(1), NOW);
    destination.stream_opened(A, ends(1), NOW);
    let open = source.next_frame(A, NOW).unwrap();
    take(&mut destination, A, open.clone());
    take(&mut source, A, destination.next_frame(A, NOW).unwrap());
    assert_eq!((source.state(), destination.state()), (&State::Running, &State::Running));
    (source, destination, open)
}

fn distrusted(session: &mut Session) -> Vec<(StreamId, ReasonCode)> {
    std::iter::from_fn(|| session.next_event())
        .filter_map(|event| match event {
            Event::Distrusted { stream, reason } => Some((stream, reason.code)),
            _ => None,
        })
        .collect()
}

/// DWCP-61, DWCP-62, DWCP-63: an opening that was overheard on one stream opens no other, not even one between the same two
/// processes, and the session goes on.
#[test]
fn a_proof_is_good_on_its_own_stream_only() {
    let (mut source, mut destination, overheard) = open_pair();
    destination.stream_opened(B, ends(2), NOW);
    take(&mut destination, B, overheard);
    assert_eq!(distrusted(&mut destination), [(B, ReasonCode::NotAuthorised)]);
    assert_eq!((destination.next_frame(B, NOW), destination.state()), (None, &State::Running));

    // The same of an answer.
    source.stream_opened(B, ends(2), NOW);
    let open = source.next_frame(B, NOW).unwrap();
    destination.stream_opened(B, ends(2), NOW);
    take(&mut destination, B, open);
    let answer = destination.next_frame(B, NOW).unwrap();
    let c = StreamId(3);
    source.stream_opened(c, ends(3), NOW);
    take(&mut source, c, answer.clone());
    assert_eq!(distrusted(&mut source), [(c, ReasonCode::NotAuthorised)]);
    take(&mut source, B, answer);
    assert_eq!((distrusted(&mut source).len(), source.state()), (0, &State::Running));
}

/// DWCP-62: a resumption is proven as an opening is: it takes the session up once, on the stream that it was said for.
#[test]
fn a_resumption_cannot_be_said_again() {
    let (mut source, mut destination, _) = open_pair();
    let mut overheard = Vec::new();
    for stream in 2..5 {
        for session in [&mut source, &mut destination] {
            session.stream_lost(StreamId(stream - 1), NOW);
            assert!(matches!(session.state(), State::Interrupted { .. }));
            session.stream_opened(StreamId(stream), ends(stream as u8), NOW);
        }
        // Whoever was listening is first.
        let replayed = StreamId(100 + stream);
        for open in &overheard {
            destination.stream_opened(replayed, ends(100 + stream as u8), NOW);
            take(&mut destination, replayed, Bytes::clone(open));
            assert!(matches!(destination.state(), State::Interrupted { .. }));
        }
        let open = source.next_frame(StreamId(stream), NOW).unwrap();
        assert!(Open::read(&open[FRAME_HEADER_BYTES..]).unwrap().resume);
        take(&mut destination, StreamId(stream), open.clone());
        take(&mut source, StreamId(stream), destination.next_frame(StreamId(stream), NOW).unwrap());
        assert_eq!((source.state(), destination.state()), (&State::Running, &State::Running));
        overheard.push(open);
    }
    assert_eq!(distrusted(&mut destination).len(), 3);
}

/// DWCP-64: who has proven nothing on a stream ends no session that has begun, unless its word is proven itself.
#[test]
fn a_last_word_is_believed_from_who_was_told_of_the_session() {
    let reason = Reason::new(ReasonCode::Cancelled, "says a stranger");
    let stranger = Witness::new(SESSION, 0, Token::new([8; 32]));
    for kind in [Kind::Refuse, Kind::Fail] {
        let forged = [
            reason.to_frame(kind, SESSION, 0),
            stranger.last_word(kind, &reason, &ends(2)),
            // Of one who knows, but said on another stream, or as another word.
            config(Role::Source).witness().last_word(kind, &reason, &ends(1)),
            {
                let other = if kind == Kind::Fail { Kind::Refuse } else { Kind::Fail };
                let word = config(Role::Source).witness().last_word(other, &reason, &ends(2));
                let mut bytes = word.to_vec();
                FrameHeader::unordered(kind, SESSION, 0).write(bytes.len() - FRAME_HEADER_BYTES, &mut bytes);
                bytes.into()
            },
        ];
        for word in forged {
            let (mut source, mut destination, _) = open_pair();
            for side in [&mut source, &mut destination] {
                side.stream_opened(B, ends(2), NOW);
                take(side, B, word.clone());
                assert_eq!(distrusted(side), [(B, ReasonCode::NotAuthorised)]);
                assert_eq!(side.state(), &State::Running);
            }
        }
        let (mut source, _, _) = open_pair();
        source.stream_opened(B, ends(2), NOW);
        take(&mut source, B, config(Role::Destination).witness().last_word(kind, &reason, &ends(2)));
        assert!(matches!(source.state(), State::Failed(why) if why.code == ReasonCode::Cancelled));
        // On a stream that is proven, a word needs no proof of its own.
        let (mut source, _, _) = open_pair();
        take(&mut source, A, reason.to_frame(kind, SESSION, 0));
        assert!(matches!(source.state(), State::Failed(why) if why.code == ReasonCode::Cancelled));
    }
    // Who has not been told of a session can prove nothing, and is heard as long as there is nothing to lose.
    let mut source = Session::source(config(Role::Source), NOW);
    source.stream_opened(A, ends(1), NOW);
    let unknown = Reason::new(ReasonCode::SessionUnknown, "never heard of it");
    take(&mut source, A, unknown.to_frame(Kind::Refuse, SESSION, 0));
    assert!(matches!(source.state(), State::Failed(why) if why.code == ReasonCode::SessionUnknown));
}

/// DWCP-64: what a session itself says at its end is believed on any stream between the two.
#[test]
fn a_failure_is_believed_on_a_stream_that_was_never_proven() {
    let (mut source, mut destination, _) = open_pair();
    for side in [&mut source, &mut destination] {
        side.stream_lost(A, NOW);
        side.stream_opened(B, ends(2), NOW);
    }
    source.fail(Reason::new(ReasonCode::Cancelled, "cancelled by its caller"));
    while let Some(frame) = source.next_frame(B, NOW) {
        take(&mut destination, B, frame);
    }
    assert!(matches!(destination.state(), State::Failed(why) if why.code == ReasonCode::Cancelled));
}

proptest! {
    /// DWCP-63: whatever comes on a stream that has proven nothing, a session that runs goes on.
    #[test]
    fn nothing_that_a_stranger_says_ends_a_session(
        kind in prop::sample::select(vec![
            Kind::Open, Kind::Accept, Kind::Refuse, Kind::Fail, Kind::Progress, Kind::ConnectionOpen, Kind::Batch, Kind::Index,
            Kind::Want, Kind::Repair, Kind::Part, Kind::ConnectionEnd, Kind::Hello, Kind::HelloAccept, Kind::HelloRefuse,
        ]),
        epoch in 0..2u32, payload in prop::collection::vec(any::<u8>(), 0..120)
    ) {
        let (mut source, mut destination, _) = open_pair();
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        bytes.extend_from_slice(&payload);
        FrameHeader::unordered(kind, SESSION, epoch).write(payload.len(), &mut bytes);
        for side in [&mut source, &mut destination] {
            side.stream_opened(B, ends(2), NOW);
            let header = FrameHeader { kind, ..FrameHeader::unordered(kind, SESSION, epoch) };
            side.receive(B, header, Bytes::copy_from_slice(&bytes), NOW);
            prop_assert_eq!(side.state(), &State::Running);
        }
        // They still hear each other.
        take(&mut destination, A, Progress::default().to_frame(SESSION, 0));
        prop_assert_eq!(destination.state(), &State::Running);
    }
}
