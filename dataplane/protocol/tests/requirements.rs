//! The requirements of `docs/spec/dwcp.md` that two whole sessions show: each test names those it shows.
//! Those of the page codec (DWCP-50 to DWCP-52) are shown beside it, in `src/page`.

use bytes::Bytes;
use novacron_protocol::event::Event;
use novacron_protocol::limits::{BATCHES_UNDER_WAY_MAX, PAGE_BYTES};
use novacron_protocol::session::{Ends, Role, Session, SessionConfig, State, Token};
use novacron_protocol::stream::{INGEST_HEADROOM, StreamId};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{
    Accept, BATCH_FIELDS_BYTES, BatchFields, ConnectionOpen, FRAME_HEADER_BYTES, FrameHeader, Identity, Kind,
    Lane, Open, Progress, ProgressEntry, Reason, ReasonCode, answer_hello,
};
use std::time::Duration;

const SESSION: u64 = 0x1122_3344_5566_7788;
const TOKEN: [u8; 32] = [7; 32];
const ENDS: Ends = Ends {
    dialler: Identity { gateway: [1; 16], instance: [2; 16] },
    acceptor: Identity { gateway: [3; 16], instance: [4; 16] },
    nonces: [[5; 16], [6; 16]],
};
const A: StreamId = StreamId(1);
const B: StreamId = StreamId(2);
const NOW: Instant = Instant::START;

fn config(role: Role) -> SessionConfig {
    SessionConfig::new(role, SESSION, Token::new(TOKEN))
}

fn source() -> Session {
    Session::source(config(Role::Source), NOW)
}

fn destination() -> Session {
    Session::destination(config(Role::Destination), NOW)
}

fn take(session: &mut Session, stream: StreamId, frame: Bytes) {
    let header = FrameHeader::read(&frame).unwrap();
    session.receive(stream, header, frame, NOW);
}

/// Carries every waiting frame from one side to the other; returns their kinds.
fn carry(from: &mut Session, to: &mut Session, stream: StreamId) -> Vec<Kind> {
    let mut kinds = Vec::new();
    while let Some(frame) = from.next_frame(stream, NOW) {
        kinds.push(FrameHeader::read(&frame).unwrap().kind);
        take(to, stream, frame);
    }
    kinds
}

/// A stream comes up, and both sides prove on it that they know the session.
fn prove(source: &mut Session, destination: &mut Session, stream: StreamId) {
    source.stream_opened(stream, ENDS, NOW);
    destination.stream_opened(stream, ENDS, NOW);
    take(destination, stream, source.next_frame(stream, NOW).unwrap());
    take(source, stream, destination.next_frame(stream, NOW).unwrap());
}

fn open_pair() -> (Session, Session) {
    let (mut source, mut destination) = (source(), destination());
    source.stream_opened(A, ENDS, NOW);
    destination.stream_opened(A, ENDS, NOW);
    carry(&mut source, &mut destination, A);
    carry(&mut destination, &mut source, A);
    assert_eq!((source.state(), destination.state()), (&State::Running, &State::Running));
    (source, destination)
}

/// Bytes that no codec shrinks and no parser knows.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_derive_key("test noise").finalize_xof().fill(&mut bytes);
    bytes
}

fn write(session: &mut Session, connection: u16, bytes: &[u8]) {
    let mut buffer = vec![0; INGEST_HEADROOM];
    buffer.extend_from_slice(bytes);
    session.ingest(connection, buffer, bytes.len(), &NOW);
}

fn read(session: &mut Session, connection: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(output) = session.next_output(connection) {
        session.consumed(connection, output.len() as u64, NOW);
        bytes.extend_from_slice(&output);
    }
    bytes
}

/// A frame from its fields, as a peer could send it.
fn frame(kind: Kind, lane: Lane, sequence: u64, payload: &[u8]) -> Bytes {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.extend_from_slice(payload);
    FrameHeader { kind, lane, session: SESSION, epoch: 0, sequence }.write(payload.len(), &mut frame);
    frame.into()
}

fn connection_open(connection: u16) -> Bytes {
    ConnectionOpen { label: "main".into() }.to_frame(SESSION, 0, connection)
}

/// A batch, or with no bytes an end, that fits what `before` says went before.
fn batch(sequence: u64, before: &[u8], bytes: &[u8]) -> Bytes {
    let digest = *blake3::hash(&[before, bytes].concat()).as_bytes();
    let fields = BatchFields { position: before.len() as u64, length: bytes.len() as u32, digest };
    let kind = if bytes.is_empty() { Kind::ConnectionEnd } else { Kind::Batch };
    frame(kind, Lane::Connection(0), sequence, &[&fields.to_bytes()[..], bytes].concat())
}

fn failure(session: &Session) -> Option<ReasonCode> {
    match session.state() {
        State::Failed(reason) => Some(reason.code),
        _ => None,
    }
}

/// What a destination that runs makes of these frames.
fn destination_after(frames: &[Bytes]) -> Session {
    let (_, mut destination) = open_pair();
    for frame in frames {
        take(&mut destination, A, frame.clone());
    }
    destination
}

/// DWCP-7: a stream that does not begin with a handshake is refused.
#[test]
fn the_first_frame_is_a_handshake() {
    let garbage = [0x5a; 200];
    assert!(answer_hello(&garbage, ENDS.acceptor, [6; 16]).is_err());
    assert!(answer_hello(&connection_open(0), ENDS.acceptor, [6; 16]).is_err());
    assert!(answer_hello(&[], ENDS.acceptor, [6; 16]).is_err());
}

/// DWCP-9: a stream's handshake has no place inside a session.
#[test]
fn a_handshake_inside_a_session_is_a_violation() {
    let destination = destination_after(&[frame(Kind::Hello, Lane::Unordered, 0, &[])]);
    assert_eq!(failure(&destination), Some(ReasonCode::Protocol));
}

/// DWCP-10, DWCP-11, DWCP-12: a session opens when both sides prove that they know its token.
#[test]
fn both_prove_the_token() {
    let (source, destination) = open_pair();
    assert_eq!(source.config().lanes, destination.config().lanes);

    let mut stranger = config(Role::Source);
    stranger.token = Token::new([8; 32]);
    let (mut stranger, mut destination) = (Session::source(stranger, NOW), self::destination());
    stranger.stream_opened(A, ENDS, NOW);
    destination.stream_opened(A, ENDS, NOW);
    carry(&mut stranger, &mut destination, A);
    assert_eq!(failure(&destination), Some(ReasonCode::NotAuthorised));
}

/// DWCP-12: a proof vouches for the terms beside it. One bit would turn the digests off.
#[test]
fn no_bit_of_an_opening_can_be_changed_on_the_way() {
    let changed = |frame: &Bytes, bit: usize| {
        let mut bytes = frame.to_vec();
        bytes[FRAME_HEADER_BYTES + bit / 8] ^= 1 << (bit % 8);
        Bytes::from(bytes)
    };
    let mut source = source();
    source.stream_opened(A, ENDS, NOW);
    let open = source.next_frame(A, NOW).unwrap();
    for bit in 0..8 * (open.len() - FRAME_HEADER_BYTES) {
        let mut destination = destination();
        destination.stream_opened(A, ENDS, NOW);
        take(&mut destination, A, changed(&open, bit));
        assert!(failure(&destination).is_some(), "bit {bit} of the opening");
    }
    let mut destination = destination();
    destination.stream_opened(A, ENDS, NOW);
    take(&mut destination, A, open);
    let accept = destination.next_frame(A, NOW).unwrap();
    for bit in 0..8 * (accept.len() - FRAME_HEADER_BYTES) {
        let mut source = self::source();
        source.stream_opened(A, ENDS, NOW);
        source.next_frame(A, NOW).unwrap();
        take(&mut source, A, changed(&accept, bit));
        assert!(failure(&source).is_some(), "bit {bit} of the answer");
    }
}

/// DWCP-12: a proof is worth nothing on a stream between other processes.
#[test]
fn a_proof_cannot_be_replayed_elsewhere() {
    let (mut source, mut destination) = (source(), destination());
    source.stream_opened(A, ENDS, NOW);
    let elsewhere = Ends { acceptor: Identity { instance: [9; 16], ..ENDS.acceptor }, ..ENDS };
    destination.stream_opened(A, elsewhere, NOW);
    carry(&mut source, &mut destination, A);
    assert_eq!(failure(&destination), Some(ReasonCode::NotAuthorised));
}

/// DWCP-10, DWCP-18: the destination follows the source's proposal; saying it twice changes nothing.
#[test]
fn an_opening_said_twice_opens_once() {
    let mut proposal = config(Role::Source);
    proposal.lanes = 9;
    let (mut source, mut destination) = (Session::source(proposal, NOW), destination());
    source.stream_opened(A, ENDS, NOW);
    destination.stream_opened(A, ENDS, NOW);
    let open = source.next_frame(A, NOW).unwrap();
    for _ in 0..2 {
        take(&mut destination, A, open.clone());
        assert_eq!(destination.config().lanes, 9);
        assert_eq!(carry(&mut destination, &mut source, A), [Kind::Accept]);
    }
    let mut opened = 0;
    while let Some(event) = source.next_event() {
        opened += usize::from(event == Event::Opened);
    }
    assert_eq!((opened, source.state()), (1, &State::Running));
}

/// DWCP-13: frames of another epoch belong to another run of the session.
#[test]
fn another_epoch_is_refused() {
    let (_, mut destination) = open_pair();
    take(&mut destination, A, ConnectionOpen::default().to_frame(SESSION, 1, 0));
    assert_eq!(failure(&destination), Some(ReasonCode::SessionUnknown));
}

/// DWCP-14: no hypervisor byte crosses before the session is open.
#[test]
fn bytes_before_the_opening_are_refused() {
    let mut destination = destination();
    destination.stream_opened(A, ENDS, NOW);
    take(&mut destination, A, connection_open(0));
    assert_eq!(failure(&destination), Some(ReasonCode::Protocol));

    let mut source = source();
    source.stream_opened(A, ENDS, NOW);
    let connection = source.open_connection("migration", NOW).unwrap();
    assert_eq!(source.read_budget(connection), 0);
}

/// DWCP-19: on each stream the session is opened before anything else of it leaves or is taken.
#[test]
fn each_stream_is_proven_before_it_carries_the_session() {
    let (mut source, mut destination) = open_pair();
    let connection = source.open_connection("migration", NOW).unwrap();
    write(&mut source, connection, b"guest");
    source.stream_opened(B, ENDS, NOW);
    destination.stream_opened(B, ENDS, NOW);
    assert_eq!(carry(&mut source, &mut destination, B), [Kind::Open]);
    assert_eq!(carry(&mut destination, &mut source, B), [Kind::Accept]);
    assert_eq!(carry(&mut source, &mut destination, B), [Kind::ConnectionOpen, Kind::Batch]);
    assert_eq!(read(&mut destination, connection), b"guest");

    // Whoever has proven nothing on its stream is not listened to, whatever else it knows.
    let early = [
        connection_open(0),
        Progress {
            entries: vec![ProgressEntry { connection: 0, verified_frames: 1, consumed: 0, limit: 9 }],
        }
        .to_frame(SESSION, 0),
    ];
    for frame in early {
        let (mut source, mut destination) = open_pair();
        source.open_connection("migration", NOW).unwrap();
        source.stream_opened(B, ENDS, NOW);
        destination.stream_opened(B, ENDS, NOW);
        for side in [&mut source, &mut destination] {
            take(side, B, frame.clone());
            assert_eq!((side.next_frame(B, Instant::START), side.state()), (None, &State::Running));
        }
    }

    // A proof under another token proves nothing.
    let (mut source, _) = open_pair();
    source.stream_opened(B, ENDS, NOW);
    let forged =
        Accept { receive_window: 1, memory_bytes: 0, content_key: [0; 32], content_bytes: 0, proof: [0; 32] }
            .to_frame(SESSION, 0);
    take(&mut source, B, forged);
    assert_eq!((source.next_frame(B, Instant::START), source.state()), (None, &State::Running));
}

/// DWCP-15: a gateway that restarted does not take up a session that it has not begun.
#[test]
fn a_session_is_not_resumed_by_who_forgot_it() {
    let (mut source, _) = open_pair();
    source.stream_lost(A, NOW);
    let mut restarted = destination();
    source.stream_opened(B, ENDS, NOW);
    restarted.stream_opened(B, ENDS, NOW);
    let open = source.next_frame(B, NOW).unwrap();
    assert!(Open::read(&open[FRAME_HEADER_BYTES..]).unwrap().resume);
    take(&mut restarted, B, open);
    assert_eq!(failure(&restarted), Some(ReasonCode::SessionUnknown));
}

/// DWCP-16: a side that fails tells the other, which fails too; a code of a later version is a failure like any.
#[test]
fn a_failure_reaches_the_other_side() {
    let (mut source, mut destination) = open_pair();
    source.fail(Reason::new(ReasonCode::Cancelled, "cancelled by its caller"));
    assert_eq!(carry(&mut source, &mut destination, A), [Kind::Fail]);
    assert_eq!(failure(&destination), Some(ReasonCode::Cancelled));
    let (_, mut destination) = open_pair();
    let later = Reason::new(ReasonCode::Other(999), "of a later version");
    take(&mut destination, A, later.to_frame(Kind::Fail, SESSION, 0));
    assert_eq!(failure(&destination), Some(ReasonCode::Other(999)));
}

/// DWCP-17: a session has finished when both directions of every connection have ended and were verified, on
/// both sides.
#[test]
fn a_session_finishes_when_all_is_verified() {
    let (mut source, mut destination) = open_pair();
    let connection = source.open_connection("migration", NOW).unwrap();
    write(&mut source, connection, b"guest");
    source.ingest_end(connection, NOW);
    carry(&mut source, &mut destination, A);
    destination.ingest_end(connection, NOW);
    assert_eq!(destination.state(), &State::Running, "the source's bytes have not been taken yet");
    assert_eq!(read(&mut destination, connection), b"guest");
    for _ in 0..3 {
        carry(&mut destination, &mut source, A);
        read(&mut source, connection);
        carry(&mut source, &mut destination, A);
    }
    assert_eq!((source.state(), destination.state()), (&State::Finished, &State::Finished));
    assert_eq!((source.digest_equal(), destination.digest_equal()), (Some(true), Some(true)));
}

/// DWCP-17: who has finished and forgotten says so, and the other side has finished too.
#[test]
fn a_peer_that_has_finished_ends_the_session_well() {
    let finished = Reason::new(ReasonCode::Finished, "this session has finished");
    let mut destination = destination_after(&[connection_open(0), batch(1, b"", b"")]);
    destination.ingest_end(0, NOW);
    assert_eq!(destination.state(), &State::Running);
    take(&mut destination, A, finished.to_frame(Kind::Refuse, SESSION, 0));
    assert_eq!(destination.state(), &State::Finished);
    // While bytes are missing here, the same word is a failure.
    let mut destination = destination_after(&[connection_open(0)]);
    take(&mut destination, A, finished.to_frame(Kind::Refuse, SESSION, 0));
    assert_eq!(failure(&destination), Some(ReasonCode::Finished));
}

/// DWCP-20: a batch whose digest, position or length does not fit is handed to nobody.
#[test]
fn a_batch_that_does_not_fit_reaches_no_hypervisor() {
    let good = [connection_open(0), batch(1, b"", b"first")];
    let mut destination = destination_after(&good);
    assert_eq!(read(&mut destination, 0), b"first");

    let mut flipped = good[1].to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut destination = destination_after(&[good[0].clone(), flipped.into()]);
    assert_eq!(failure(&destination), Some(ReasonCode::DigestMismatch));
    assert_eq!((read(&mut destination, 0), destination.digest_equal()), (Vec::new(), Some(false)));

    let mut destination = destination_after(&[good[0].clone(), batch(1, b"gap", b"first")]);
    assert_eq!(failure(&destination), Some(ReasonCode::Protocol));
    assert_eq!(read(&mut destination, 0), b"");

    let mut short = BatchFields { position: 0, length: 6, digest: [0; 32] }.to_bytes().to_vec();
    short.extend_from_slice(b"first");
    let short = frame(Kind::Batch, Lane::Connection(0), 1, &short);
    assert_eq!(failure(&destination_after(&[good[0].clone(), short])), Some(ReasonCode::Protocol));
}

/// DWCP-23: a connection's lane begins with its opening at sequence 0, and only the source's side opens one.
#[test]
fn a_connection_begins_with_its_opening() {
    assert_eq!(failure(&destination_after(&[batch(0, b"", b"first")])), Some(ReasonCode::Protocol));
    let late = frame(Kind::ConnectionOpen, Lane::Connection(0), 1, &[0, 0]);
    assert_eq!(failure(&destination_after(&[connection_open(0), late])), Some(ReasonCode::Protocol));

    let (mut source, _) = open_pair();
    take(&mut source, A, connection_open(0));
    assert_eq!(failure(&source), Some(ReasonCode::Protocol));
}

/// DWCP-24: whatever order frames arrive in, bytes leave in theirs.
#[test]
fn every_order_of_arrival_gives_the_same_bytes() {
    let frames = [
        connection_open(0),
        batch(1, b"", b"one "),
        batch(2, b"one ", b"two "),
        batch(3, b"one two ", b"three"),
        batch(4, b"one two three", b""),
    ];
    let mut orders = vec![vec![]];
    for next in 0..frames.len() {
        let insert = |order: Vec<usize>| {
            (0..=order.len()).map(move |at| [&order[..at], &[next], &order[at..]].concat())
        };
        orders = orders.into_iter().flat_map(insert).collect();
    }
    assert_eq!(orders.len(), 120);
    for order in orders {
        let arrived: Vec<Bytes> = order.iter().map(|index| frames[*index].clone()).collect();
        let mut destination = destination_after(&arrived);
        assert_eq!(read(&mut destination, 0), b"one two three", "{order:?}");
        assert!(destination.output_ended(0), "{order:?}");
    }
}

/// DWCP-25: an end carries the whole direction's digest, and nothing follows it.
#[test]
fn nothing_follows_an_end() {
    let through = [connection_open(0), batch(1, b"", b"all"), batch(2, b"all", b"")];
    let destination = destination_after(&through);
    assert!(destination.inbound().states().all(|state| state.verified == 3));

    let more = batch(3, b"all", b"more");
    let destination = destination_after(&[&through[..], &[more]].concat());
    assert_eq!(failure(&destination), Some(ReasonCode::Protocol));

    let wrong = batch(2, b"ALL", b"");
    let destination = destination_after(&[through[0].clone(), through[1].clone(), wrong]);
    assert_eq!(failure(&destination), Some(ReasonCode::DigestMismatch));
}

/// DWCP-26: more connections than agreed are refused.
#[test]
fn no_more_connections_than_agreed() {
    let mut few = config(Role::Destination);
    few.connections_max = 2;
    let (mut source, mut destination) = (source(), Session::destination(few, NOW));
    source.stream_opened(A, ENDS, NOW);
    destination.stream_opened(A, ENDS, NOW);
    carry(&mut source, &mut destination, A);
    for connection in 0..2 {
        take(&mut destination, A, connection_open(connection));
        assert_eq!(failure(&destination), None);
    }
    take(&mut destination, A, connection_open(2));
    assert_eq!(failure(&destination), Some(ReasonCode::Limit));
}

/// DWCP-27: a frame on a lane where its kind has no place is a violation.
#[test]
fn kinds_keep_to_their_lanes() {
    for (kind, lane) in [
        (Kind::Batch, Lane::Page(0)),
        (Kind::ConnectionEnd, Lane::Page(0)),
        (Kind::Batch, Lane::Unordered),
        (Kind::Part, Lane::Connection(0)),
    ] {
        let wrong = frame(kind, lane, 1, &[0; BATCH_FIELDS_BYTES]);
        assert!(failure(&destination_after(&[connection_open(0), wrong])).is_some(), "{kind:?} on {lane:?}");
    }
}

/// DWCP-28: the way back is the same connection, and its first batch has sequence 1.
#[test]
fn the_way_back_starts_at_sequence_1() {
    let (mut source, mut destination) = open_pair();
    let connection = source.open_connection("migration", NOW).unwrap();
    carry(&mut source, &mut destination, A);
    write(&mut destination, connection, b"pong");
    let mut sequences = Vec::new();
    while let Some(frame) = destination.next_frame(A, NOW) {
        let header = FrameHeader::read(&frame).unwrap();
        if header.lane == Lane::Connection(connection) {
            sequences.push(header.sequence);
        }
        take(&mut source, A, frame);
    }
    assert_eq!((sequences, read(&mut source, connection)), (vec![1], b"pong".to_vec()));
}

/// DWCP-30: progress is cumulative: repeated, late and lost words change nothing.
#[test]
fn progress_may_be_late_repeated_or_lost() {
    let (mut source, mut destination) = open_pair();
    let connection = source.open_connection("migration", NOW).unwrap();
    let mut said = Vec::new();
    for _ in 0..3 {
        write(&mut source, connection, &noise(1000));
        carry(&mut source, &mut destination, A);
        read(&mut destination, connection);
        while let Some(frame) = destination.next_frame(A, NOW) {
            said.push(frame);
        }
    }
    for word in [said.last().unwrap(), &said[0], said.last().unwrap()] {
        take(&mut source, A, word.clone());
        let state = source.outbound().states().next().unwrap();
        assert_eq!((state.verified, state.consumed), (3000, 3000));
    }
    assert_eq!(source.outbound().retained_bytes(), (0, 0));
}

/// DWCP-31: what a lost stream carried leaves again, what arrived twice is dropped, and nothing is lost.
#[test]
fn a_lost_stream_loses_nothing() {
    let (mut source, mut destination) = open_pair();
    prove(&mut source, &mut destination, B);
    let connection = source.open_connection("migration", NOW).unwrap();
    let sent = noise(10 * PAGE_BYTES);
    for piece in sent.chunks(PAGE_BYTES) {
        write(&mut source, connection, piece);
    }
    // Every other frame of stream A arrives before it is cut; no word comes back on it.
    let mut lost = 0;
    while let Some(frame) = source.next_frame(A, NOW) {
        lost += 1;
        if lost % 2 == 0 {
            take(&mut destination, A, frame);
        }
    }
    assert!(lost > 2);
    source.stream_lost(A, NOW);
    destination.stream_lost(A, NOW);
    carry(&mut source, &mut destination, B);
    assert!(read(&mut destination, connection) == sent, "the bytes are not those that were sent");
    carry(&mut destination, &mut source, B);
    assert_eq!((failure(&source), failure(&destination)), (None, None));
    assert_eq!(source.outbound().retained_bytes().0, 0);
}

/// DWCP-32: a sender keeps within its credit, and a receiver refuses what exceeds it.
#[test]
fn credit_is_kept_and_enforced() {
    let mut small = config(Role::Destination);
    small.receive_window = 100_000;
    let (mut source, mut destination) = (source(), Session::destination(small, NOW));
    source.stream_opened(A, ENDS, NOW);
    destination.stream_opened(A, ENDS, NOW);
    carry(&mut source, &mut destination, A);
    carry(&mut destination, &mut source, A);
    let connection = source.open_connection("migration", NOW).unwrap();
    let mut written = 0;
    for _ in 0..100 {
        let budget = source.read_budget(connection);
        write(&mut source, connection, &noise(budget));
        written += budget;
        carry(&mut source, &mut destination, A);
        carry(&mut destination, &mut source, A);
    }
    assert!((1..=100_000).contains(&written), "{written}");
    assert_eq!(failure(&destination), None);

    let fields = BatchFields { position: 100_000 - 2, length: 3, digest: [0; 32] }.to_bytes();
    let beyond = frame(Kind::Batch, Lane::Connection(0), 500, &[&fields[..], b"abc"].concat());
    take(&mut destination, A, beyond);
    assert_eq!(failure(&destination), Some(ReasonCode::Protocol));
}

/// DWCP-33: nobody acknowledges what was not sent.
#[test]
fn progress_beyond_what_was_sent_is_a_violation() {
    for (connection, verified_frames, consumed) in [(0, 9, 0), (0, 0, 1), (5, 2, 0), (5, 0, 1)] {
        let (mut source, _) = open_pair();
        source.open_connection("migration", NOW).unwrap();
        let entry = ProgressEntry { connection, verified_frames, consumed, limit: 1 << 20 };
        take(&mut source, A, Progress { entries: vec![entry] }.to_frame(SESSION, 0));
        assert_eq!(failure(&source), Some(ReasonCode::Protocol), "{entry:?}");
    }
}

/// DWCP-34: a sequence far ahead is refused, not waited for.
#[test]
fn frames_far_ahead_are_refused() {
    let ahead = |sequence| destination_after(&[connection_open(0), batch(sequence, b"", b"x")]);
    assert_eq!(failure(&ahead(BATCHES_UNDER_WAY_MAX as u64)), None);
    assert_eq!(failure(&ahead(BATCHES_UNDER_WAY_MAX as u64 + 2)), Some(ReasonCode::Protocol));
    assert_eq!(failure(&ahead(u64::MAX)), Some(ReasonCode::Protocol));
}

/// DWCP-42: a session outlives the loss of every stream for its outage time, and goes on where it stood.
#[test]
fn every_stream_may_be_lost_for_a_while() {
    let (mut source, mut destination) = open_pair();
    let connection = source.open_connection("migration", NOW).unwrap();
    write(&mut source, connection, b"before");
    source.stream_lost(A, NOW);
    destination.stream_lost(A, NOW);
    let almost = NOW.after(source.config().outage - Duration::from_millis(1));
    source.tick(almost);
    destination.tick(almost);
    assert_eq!((failure(&source), failure(&destination)), (None, None));
    source.stream_opened(B, ENDS, almost);
    destination.stream_opened(B, ENDS, almost);
    assert_eq!(carry(&mut source, &mut destination, B), [Kind::Open]);
    carry(&mut destination, &mut source, B);
    carry(&mut source, &mut destination, B);
    assert_eq!(read(&mut destination, connection), b"before");
    assert_eq!((source.state(), destination.state()), (&State::Running, &State::Running));

    let (mut source, _) = open_pair();
    source.stream_lost(A, NOW);
    source.tick(NOW.after(source.config().outage));
    assert_eq!(failure(&source), Some(ReasonCode::Outage));
}
