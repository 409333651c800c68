//! Peers that have proven nothing yet, and peers that have and mean no good.

use super::super::pair::*;
use super::*;
use crate::wire::{BatchFields, Lane, PartFields};

/// A new stream may lead to anyone until the peer has proven on it that it knows the session: nothing of the
/// session leaves on it but the opening, and nothing but the answer is taken from it.
#[test]
fn an_unproven_stream_carries_nothing() {
    let mut pair = Pair::opened();
    pair.source.open_connection("migration", pair.now).unwrap();
    pair.carry(1);
    write(&mut pair.source, 0, b"guest", pair.now);
    write(&mut pair.destination, 0, b"answer", pair.now);
    pair.stream(2);
    let open = pair.source.next_frame(StreamId(2), Instant::START).unwrap();
    assert!(Open::read(&open[FRAME_HEADER_BYTES..]).unwrap().resume);
    assert_eq!(
        (
            pair.source.next_frame(StreamId(2), Instant::START),
            pair.destination.next_frame(StreamId(2), Instant::START)
        ),
        (None, None)
    );
    deliver(&mut pair.destination, 2, open, pair.now);
    let accept = pair.destination.next_frame(StreamId(2), Instant::START).unwrap();
    assert_eq!(FrameHeader::read(&accept).unwrap().kind, Kind::Accept);
    let answer = pair.destination.next_frame(StreamId(2), Instant::START).unwrap();
    assert_eq!(pair.source.next_frame(StreamId(2), Instant::START), None, "the answer is still on its way");
    deliver(&mut pair.source, 2, accept, pair.now);
    deliver(&mut pair.source, 2, answer, pair.now);
    let guest = pair.source.next_frame(StreamId(2), Instant::START).unwrap();
    deliver(&mut pair.destination, 2, guest.clone(), pair.now);
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Running, &State::Running));

    pair.stream(3);
    events(&mut pair.destination);
    deliver(&mut pair.destination, 3, guest, pair.now);
    // It costs whoever sent it its stream, and nobody the session (DWCP-63).
    let told = events(&mut pair.destination);
    let [Event::Distrusted { stream, reason }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*stream, reason.code), (StreamId(3), ReasonCode::Protocol));
    assert_eq!((pair.destination.state(), pair.destination.streams().0), (&State::Running, 2));
}

/// A stream on which nobody answers does not end an interruption.
#[test]
fn only_a_proven_stream_ends_an_interruption() {
    let mut pair = Pair::opened();
    pair.cut(1);
    pair.now = at(59_000);
    pair.stream(2);
    assert!(matches!(pair.source.state(), State::Interrupted { .. }));
    assert!(matches!(pair.destination.state(), State::Interrupted { .. }));
    pair.carry(2);
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Running, &State::Running));
    pair.cut(2);
    pair.stream(3);
    pair.source.tick(at(59_000 + 60_000));
    let State::Failed(reason) = pair.source.state() else { panic!("waits for ever") };
    assert_eq!(reason.code, ReasonCode::Outage);
}

/// The source has finished, its last word and its acknowledgement were lost with the last stream, and it opens
/// nothing any more. The destination asks, saying nothing of the session, and hears the last word again.
#[test]
fn a_destination_asks_on_an_unproven_stream_whether_the_session_has_ended() {
    let mut pair = nearly_finished();
    while let Some(frame) = pair.destination.next_frame(StreamId(1), Instant::START) {
        deliver(&mut pair.source, 1, frame, pair.now);
    }
    while let Some(frame) = pair.source.next_frame(StreamId(1), Instant::START) {
        if FrameHeader::read(&frame).unwrap().kind == Kind::ConnectionEnd {
            deliver(&mut pair.destination, 1, frame, pair.now);
        }
    }
    pair.drain(0);
    while let Some(frame) = pair.destination.next_frame(StreamId(1), Instant::START) {
        deliver(&mut pair.source, 1, frame, pair.now);
    }
    assert_eq!(pair.source.state(), &State::Finished);
    pair.cut(1);
    assert!(matches!(pair.destination.state(), State::Interrupted { .. }));
    pair.stream(2);
    let question = pair.destination.next_frame(StreamId(2), Instant::START).unwrap();
    assert_eq!(Progress::read(&question[FRAME_HEADER_BYTES..]), Ok(Progress::default()));
    assert_eq!(pair.destination.next_frame(StreamId(2), Instant::START), None);
    let finished = Reason::new(ReasonCode::Finished, "this session has finished");
    deliver(&mut pair.destination, 2, last_word(Kind::Refuse, &finished, &ends(2)), pair.now);
    assert_eq!(pair.destination.state(), &State::Finished);

    // A source that still runs takes the question for what it is.
    let mut pair = Pair::opened();
    pair.stream(2);
    deliver(&mut pair.source, 2, question, pair.now);
    assert_eq!(pair.source.state(), &State::Running);
}

/// Frames out of their turn wait on credit, however they are called: neither those of a connection whose positions
/// overlap, nor parts of a page lane, may pile up beyond what was reserved.
#[test]
fn what_waits_for_its_turn_is_bounded_by_credit() {
    const WINDOW: u64 = 100_000;
    let frame = |kind, lane, sequence, payload: &[u8]| {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(payload);
        FrameHeader { kind, lane, session: SESSION, epoch: 0, sequence }.write(payload.len(), &mut frame);
        Bytes::from(frame)
    };
    let fields = BatchFields { position: 0, length: 50_000, digest: [0; 32] }.to_bytes();
    let batch = [&fields[..], &[0; 50_000]].concat();
    let mut of_batch = Vec::new();
    PartFields { connection: 0, batch: 1 }.put(&mut of_batch);
    let part = [&of_batch[..], &[0; 50_000]].concat();
    for (kind, lane, payload) in
        [(Kind::Batch, Lane::Connection(0), &batch), (Kind::Part, Lane::Page(3), &part)]
    {
        let mut pair = Pair::new(WINDOW);
        pair.stream(1);
        pair.carry(1);
        // The first of the lane never comes.
        for sequence in 2..100 {
            deliver(&mut pair.destination, 1, frame(kind, lane, sequence, payload), pair.now);
            let held = pair.destination.inbound().held_bytes();
            assert!(held <= WINDOW + WINDOW / 10, "{held} bytes held for {kind:?} frames");
        }
        let State::Failed(reason) = pair.destination.state() else { panic!("{kind:?} frames pile up") };
        assert_eq!(reason.code, ReasonCode::Protocol);
    }
    // A batch that waited as an index is larger than what waits behind it has left room for.
    let mut pair = Pair::new(WINDOW);
    pair.stream(1);
    pair.carry(1);
    pair.source.open_connection("migration", pair.now).unwrap();
    write(&mut pair.source, 0, &[b'x'; 80_000], pair.now);
    deliver(&mut pair.destination, 1, frame(Kind::Batch, Lane::Connection(0), 9, &batch), pair.now);
    pair.carry(1);
    assert!(
        matches!(pair.destination.state(), State::Failed(_)),
        "an index makes more than there is room for"
    );
}

/// The source's side opens connections, so none can begin at its peer's word.
#[test]
fn the_way_back_needs_an_open_connection() {
    let mut pair = Pair::opened();
    let header =
        FrameHeader { kind: Kind::Batch, lane: Lane::Connection(5), session: SESSION, epoch: 0, sequence: 1 };
    let fields = BatchFields { position: 0, length: 0, digest: [0; 32] }.to_bytes();
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.extend_from_slice(&fields);
    header.write(fields.len(), &mut frame);
    deliver(&mut pair.source, 1, frame.into(), pair.now);
    let State::Failed(reason) = pair.source.state() else { panic!("a connection from nowhere") };
    assert_eq!(reason.code, ReasonCode::Protocol);
}
