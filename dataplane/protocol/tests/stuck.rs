//! A frame that is stuck on one stream of a session: what others carried is not held up by it for long.

use bytes::Bytes;
use novacron_protocol::limits::{PAGE_BYTES, STUCK_MIN};
use novacron_protocol::session::{Ends, Role, Session, SessionConfig, Token};
use novacron_protocol::stream::{INGEST_HEADROOM, StreamId};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{FrameHeader, Identity, Lane};
use std::time::Duration;

const ENDS: Ends = Ends {
    dialler: Identity { gateway: [1; 16], instance: [2; 16] },
    acceptor: Identity { gateway: [3; 16], instance: [4; 16] },
    nonces: [[5; 16], [6; 16]],
};
const A: StreamId = StreamId(1);
const B: StreamId = StreamId(2);
const MS: Duration = Duration::from_millis(1);

fn at(ms: u32) -> Instant {
    Instant::START.after(MS * ms)
}

fn take(session: &mut Session, stream: StreamId, frame: Bytes, now: Instant) {
    session.receive(stream, FrameHeader::read(&frame).unwrap(), frame, now);
}

/// A session of two proven streams.
fn pair() -> (Session, Session) {
    let config = |role| SessionConfig::new(role, 5, Token::new([7; 32]));
    let mut source = Session::source(config(Role::Source), at(0));
    let mut destination = Session::destination(config(Role::Destination), at(0));
    for stream in [A, B] {
        source.stream_opened(stream, ENDS, at(0));
        destination.stream_opened(stream, ENDS, at(0));
        while let Some(frame) = source.next_frame(stream, at(0)) {
            take(&mut destination, stream, frame, at(0));
        }
        while let Some(frame) = destination.next_frame(stream, at(0)) {
            take(&mut source, stream, frame, at(0));
        }
    }
    (source, destination)
}

fn write(session: &mut Session, byte: u8, now: Instant) {
    let mut buffer = vec![0; INGEST_HEADROOM];
    buffer.extend_from_slice(&[byte; 2 * PAGE_BYTES]);
    session.ingest(0, buffer, 2 * PAGE_BYTES, &now);
}

fn key(frame: &Bytes) -> (Lane, u64) {
    let header = FrameHeader::read(frame).unwrap();
    (header.lane, header.sequence)
}

fn read(session: &mut Session, now: Instant) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = session.next_output(0) {
        session.consumed(0, bytes.len() as u64, now);
        all.extend_from_slice(&bytes);
    }
    all
}

/// DWCP-80: a frame that is stuck leaves again on another stream, and whichever copy comes second is dropped.
#[test]
fn a_stuck_frame_leaves_again_elsewhere_and_is_delivered_once() {
    let (mut source, mut destination) = pair();
    source.open_connection("migration", at(0)).unwrap();
    let opening = source.next_frame(B, at(0)).unwrap();
    take(&mut destination, B, opening.clone(), at(5));
    source.arrived(B, &[key(&opening)], at(10));

    write(&mut source, 1, at(10));
    let stuck = source.next_frame(A, at(10)).unwrap();
    for byte in 2..6 {
        write(&mut source, byte, at(10));
        let frame = source.next_frame(B, at(10)).unwrap();
        take(&mut destination, B, frame.clone(), at(15));
        source.arrived(B, &[key(&frame)], at(20));
    }
    assert!(read(&mut destination, at(20)).is_empty(), "all of it waits for the first");
    assert!(!source.has_frames());

    // Not yet: it may only be late.
    source.tick(at(25));
    assert!(!source.has_frames());
    let due = source.deadline().unwrap();
    assert!(due >= at(10).after(STUCK_MIN), "{due:?}");
    source.tick(due);
    assert!(source.deadline().is_none_or(|next| next > due), "a gateway would spin");
    assert!(source.next_frame(A, due).is_none(), "it is on that stream already");
    let again = source.next_frame(B, due).unwrap();
    assert_eq!(key(&again), key(&stuck));
    assert_eq!(source.outbound().bytes().repeated, again.len() as u64);
    take(&mut destination, B, again, due);
    let delivered = read(&mut destination, due);
    let expected: Vec<u8> = (1..6).flat_map(|byte| [byte; 2 * PAGE_BYTES]).collect();
    assert!(delivered == expected);

    // The first copy comes after all.
    take(&mut destination, A, stuck, due.after(MS));
    assert!(read(&mut destination, due.after(MS)).is_empty(), "nothing is delivered twice");
    assert!(!destination.state().is_over() && !source.state().is_over());
}

/// A stream that is slow is not stuck: what arrives on it goes on to arrive.
#[test]
fn what_still_arrives_is_not_sent_again() {
    let (mut source, _) = pair();
    source.open_connection("migration", at(0)).unwrap();
    let opening = source.next_frame(B, at(0)).unwrap();
    source.arrived(B, &[key(&opening)], at(10));
    write(&mut source, 1, at(10));
    source.next_frame(A, at(10)).unwrap();
    write(&mut source, 2, at(10));
    let other = source.next_frame(B, at(10)).unwrap();
    source.arrived(B, &[key(&other)], at(20));
    for ms in 20..500 {
        source.advanced(A, at(ms));
        source.tick(at(ms));
        assert!(!source.has_frames(), "after {ms} ms");
    }
    let due = source.deadline().unwrap();
    assert!(due >= at(499).after(STUCK_MIN), "{due:?}");
    source.tick(due);
    assert!(source.next_frame(B, due).is_some(), "nothing has arrived there for too long");
}

/// A stream that crawls is not waited for, although what it carries goes on to arrive.
#[test]
fn what_crawls_is_sent_again() {
    let (mut source, _) = pair();
    source.open_connection("migration", at(0)).unwrap();
    let opening = source.next_frame(B, at(0)).unwrap();
    source.arrived(B, &[key(&opening)], at(10));
    write(&mut source, 1, at(10));
    let crawling = source.next_frame(A, at(10)).unwrap();
    write(&mut source, 2, at(10));
    let other = source.next_frame(B, at(10)).unwrap();
    source.arrived(B, &[key(&other)], at(20));
    source.advanced(A, at(40));
    source.crawls(A);
    let due = source.deadline().unwrap();
    assert_eq!(due, at(10).after(STUCK_MIN), "how long it has been on its way is all that counts");
    source.tick(at(40));
    assert_eq!(key(&source.next_frame(B, at(40)).unwrap()), key(&crawling));
    // It gets on again: what it is given now is waited for.
    source.advanced(A, at(41));
    write(&mut source, 3, at(41));
    source.next_frame(A, at(41)).unwrap();
    source.tick(at(42).after(STUCK_MIN / 2));
    assert!(!source.has_frames());
}

/// What crossed the path and waits behind a hole takes nothing of the window: other streams go on.
#[test]
fn a_hole_does_not_use_up_the_window() {
    let (mut source, mut destination) = pair();
    source.open_connection("migration", at(0)).unwrap();
    let opening = source.next_frame(B, at(0)).unwrap();
    take(&mut destination, B, opening, at(0));
    write(&mut source, 0, at(1));
    let _stuck = source.next_frame(A, at(1)).unwrap();
    let mut rounds = 0;
    while source.read_budget(0) > 0 && rounds < 1000 {
        write(&mut source, 1, at(1));
        rounds += 1;
    }
    let full = source.outbound().states().next().unwrap().position;
    assert_eq!(source.read_budget(0), 0, "the window is full");
    let mut arrived = Vec::new();
    while let Some(frame) = source.next_frame(B, at(1)) {
        arrived.push(key(&frame));
    }
    source.arrived(B, &arrived, at(2));
    assert!(source.read_budget(0) > 0, "{full} bytes wait for one frame");
    // A stream that dies takes back what it had carried: it may not have been read.
    source.stream_lost(B, at(3));
    assert_eq!(source.read_budget(0), 0);
}
