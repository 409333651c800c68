//! What two sessions do when frames are late, lost or repeated, and when peers go.

use super::pair::*;
use super::*;
use crate::hypervisor::synthetic;
use crate::limits::{
    BATCHES_UNDER_WAY_MAX, CARRY_WAIT, CARRY_WAIT_STOPPED, LAST_WORD_TIMEOUT, OUTAGE_SWITCHOVER,
    RECEIVE_WINDOW_BYTES, REPORT_WAIT, STALL_MIN,
};
use crate::page::policy::Mode;
use std::time::Duration;

mod connections;
mod content;
mod memory;
mod peers;

/// The source says again how it stands when it loses a stream, and may do so before the destination has the frame
/// that opens the connection.
#[test]
fn progress_may_overtake_the_opening_of_its_connection() {
    let mut pair = Pair::opened();
    pair.proven(2);
    pair.proven(3);
    pair.source.open_connection("migration", pair.now).unwrap();
    let opening = pair.source.next_frame(StreamId(1), Instant::START).unwrap();
    pair.cut(2);
    pair.carry(3);
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Running, &State::Running));
    deliver(&mut pair.destination, 1, opening, pair.now);
    let label = "migration".to_owned();
    assert!(events(&mut pair.destination).contains(&Event::ConnectionOpened { connection: 0, label }));
}

/// A hypervisor that connects while the session opens gets the credit that the peer's answer grants, no more.
#[test]
fn no_credit_before_the_peer_grants_some() {
    let mut pair = Pair::new(1000);
    pair.source.open_connection("migration", pair.now).unwrap();
    assert_eq!(pair.source.read_budget(0), 0);
    pair.stream(1);
    pair.carry(1);
    assert_eq!(pair.source.read_budget(0), 1000);
    write(&mut pair.source, 0, &[1; 1000], pair.now);
    assert_eq!(pair.source.read_budget(0), 0);
    pair.carry(1);
    pair.drain(0);
    pair.carry(1);
    assert_eq!(pair.source.read_budget(0), 1000);
    assert_eq!(pair.destination.state(), &State::Running);
}

/// An opening that waited while its peer restarted must not carry a proof for the process that is gone.
#[test]
fn an_opening_is_made_for_the_stream_that_takes_it() {
    let mut source = Session::source(config(Role::Source), at(0));
    source.stream_opened(StreamId(1), ends(2), at(0));
    source.stream_lost(StreamId(1), at(1));
    source.stream_opened(StreamId(2), ends(3), at(2));
    let mut destination = Session::destination(config(Role::Destination), at(0));
    destination.stream_opened(StreamId(2), ends(3), at(2));
    let open = source.next_frame(StreamId(2), Instant::START).unwrap();
    assert_eq!(source.next_frame(StreamId(2), Instant::START), None, "one stream, one opening");
    deliver(&mut destination, 2, open, at(3));
    assert_eq!(destination.state(), &State::Running);
}

/// Whoever is asked a thousand times keeps one answer, not a thousand.
#[test]
fn openings_that_are_not_answered_do_not_pile_up() {
    let mut pair = Pair::opened();
    let open = pair.source.open_frame(&ends(2));
    for _ in 0..1000 {
        deliver(&mut pair.destination, 1, open.clone(), pair.now);
    }
    assert!(pair.destination.next_frame(StreamId(1), Instant::START).is_some());
    assert_eq!(pair.destination.next_frame(StreamId(1), Instant::START), None);
    for stream in 2..1000 {
        pair.source.stream_lost(StreamId(stream - 1), pair.now);
        pair.source.stream_opened(StreamId(stream), ends(2), pair.now);
    }
    let frames = std::iter::from_fn(|| pair.source.next_frame(StreamId(999), Instant::START)).count();
    assert_eq!(frames, 1, "the opening");
}

/// A side that has nothing to send would never hear from a restarted peer that it is forgotten.
#[test]
fn a_stream_of_another_process_ends_the_session() {
    let mut pair = Pair::opened();
    pair.cut(1);
    pair.destination.stream_opened(StreamId(2), Ends { dialler: ends(7).acceptor, ..ends(2) }, pair.now);
    let State::Failed(reason) = pair.destination.state() else { panic!("still waits") };
    assert_eq!(reason.code, ReasonCode::SessionUnknown);
}

/// A last word that was lost is asked for again, even by a side without connections.
#[test]
fn a_lost_stream_makes_a_silent_side_speak() {
    let mut pair = Pair::opened();
    pair.proven(2);
    pair.cut(1);
    let frame = pair.destination.next_frame(StreamId(2), Instant::START).unwrap();
    assert_eq!(FrameHeader::read(&frame).unwrap().kind, Kind::Progress);
    assert_eq!(pair.destination.next_frame(StreamId(2), Instant::START), None);
}

/// Who waits for room is woken when there is some again, after an interruption too.
#[test]
fn opening_and_resuming_make_writable() {
    let mut pair = Pair::opened();
    assert!(events(&mut pair.source).contains(&Event::Writable));
    pair.cut(1);
    pair.proven(2);
    assert!(events(&mut pair.source).contains(&Event::Writable));
}

/// The destination knows one connection, which has ended; the frame that opens another is still on its way.
#[test]
fn the_source_decides_that_a_session_has_finished() {
    let mut pair = Pair::opened();
    pair.source.open_connection("migration", pair.now).unwrap();
    pair.carry(1);
    pair.proven(2);
    pair.source.open_connection("late", pair.now).unwrap();
    let opening = pair.source.next_frame(StreamId(2), Instant::START).unwrap();
    pair.source.ingest_end(0, pair.now);
    pair.destination.ingest_end(0, pair.now);
    pair.carry(1);
    assert_eq!(pair.destination.state(), &State::Running);
    deliver(&mut pair.destination, 2, opening, pair.now);
    pair.source.ingest_end(1, pair.now);
    pair.destination.ingest_end(1, pair.now);
    pair.carry(1);
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Finished, &State::Finished));
    assert_eq!((pair.source.digest_equal(), pair.destination.digest_equal()), (Some(true), Some(true)));
}

/// A session with one connection that has ended in both directions, except that one side has not heard of it.
fn nearly_finished() -> Pair {
    let mut pair = Pair::opened();
    pair.source.open_connection("migration", pair.now).unwrap();
    write(&mut pair.source, 0, b"guest", pair.now);
    pair.carry(1);
    pair.drain(0);
    write(&mut pair.destination, 0, b"answer", pair.now);
    pair.source.ingest_end(0, pair.now);
    pair.destination.ingest_end(0, pair.now);
    pair
}

/// The destination finished by itself, the source's hypervisor is slow to take the last bytes.
#[test]
fn a_peer_that_finished_first_is_not_a_failure() {
    let mut pair = nearly_finished();
    pair.carry(1);
    let finished = Reason::new(ReasonCode::Finished, "this session has finished");
    deliver(&mut pair.source, 1, finished.to_frame(Kind::Refuse, SESSION, 0), pair.now);
    assert_eq!(pair.source.state(), &State::Running);
    pair.source.stream_lost(StreamId(1), pair.now);
    pair.source.tick(at(1_000_000));
    let other = ends(7);
    pair.source.stream_opened(StreamId(2), other, at(1_000_000));
    let unknown = Reason::new(ReasonCode::SessionUnknown, "another process");
    deliver(&mut pair.source, 2, unknown.to_frame(Kind::Refuse, SESSION, 0), at(1_000_000));
    pair.drain(0);
    assert_eq!((pair.source.state(), pair.source.digest_equal()), (&State::Finished, Some(true)));
}

/// The source's last word is lost, and it has forgotten the session: the destination misses nothing.
#[test]
fn a_lost_last_word_is_not_a_failure() {
    let mut pair = nearly_finished();
    pair.carry(1);
    pair.drain(0);
    while let Some(frame) = pair.source.next_frame(StreamId(1), Instant::START) {
        if FrameHeader::read(&frame).unwrap().kind != Kind::Refuse {
            deliver(&mut pair.destination, 1, frame, pair.now);
        }
    }
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Finished, &State::Running));
    let deadline = pair.destination.deadline().unwrap();
    assert_eq!(deadline.since(pair.now), LAST_WORD_TIMEOUT);
    pair.destination.tick(deadline);
    assert_eq!(pair.destination.state(), &State::Finished);
}

/// The source's process was replaced after it had finished: nothing is missing, and the new process hears nothing
/// of a session that it never had.
#[test]
fn a_restart_behind_the_end_is_not_a_failure() {
    let mut pair = nearly_finished();
    pair.carry(1);
    pair.drain(0);
    while let Some(frame) = pair.source.next_frame(StreamId(1), Instant::START) {
        if FrameHeader::read(&frame).unwrap().kind != Kind::Refuse {
            deliver(&mut pair.destination, 1, frame, pair.now);
        }
    }
    pair.destination.stream_lost(StreamId(1), pair.now);
    pair.destination.stream_opened(StreamId(2), Ends { dialler: ends(7).acceptor, ..ends(2) }, pair.now);
    assert_eq!(pair.destination.state(), &State::Finished);
    assert_eq!(pair.destination.next_frame(StreamId(2), Instant::START), None);
}

/// A destination's hypervisor that thinks for a minute before it closes, after it has read everything, is no
/// silent peer; nor is a stream that swallows the last frames and is given up later.
#[test]
fn a_thoughtful_hypervisor_is_waited_for() {
    let mut pair = Pair::opened();
    pair.source.open_connection("migration", pair.now).unwrap();
    pair.source.ingest_end(0, pair.now);
    pair.carry(1);
    assert_eq!((pair.source.deadline(), pair.destination.deadline()), (None, None));
    pair.destination.ingest_end(0, pair.now);
    let swallowed = pair.destination.next_frame(StreamId(1), Instant::START);
    assert!(swallowed.is_some());
    pair.now = at(20_000);
    pair.destination.tick(pair.now);
    pair.stream(2);
    pair.cut(1);
    pair.carry(2);
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Finished, &State::Finished));
}

/// An outage shorter than the session may wait is not the hypervisor's silence.
#[test]
fn the_first_byte_is_not_awaited_while_nobody_reads() {
    let mut pair = Pair::opened();
    pair.source.open_connection("migration", pair.now).unwrap();
    pair.carry(1);
    pair.cut(1);
    pair.now = at(45_000);
    pair.source.tick(pair.now);
    assert!(!pair.source.state().is_over());
    pair.stream(2);
    pair.carry(2);
    pair.source.tick(at(45_000 + 29_999));
    assert_eq!(pair.source.state(), &State::Running);
    pair.source.tick(at(45_000 + 30_000));
    let State::Failed(reason) = pair.source.state() else { panic!("waits for ever") };
    assert_eq!(reason.code, ReasonCode::Timeout);
}

/// However small its batches, a sender leaves room for what one more read may cause: the receiver counts strictly.
#[test]
fn slivers_stay_below_the_bound_of_frames_under_way() {
    let mut pair = Pair::opened();
    pair.source.open_connection("migration", pair.now).unwrap();
    // A QEMU stream: a read that ends inside a page leaves an incomplete record, which travels later by itself.
    let stream = synthetic::Plan::filled(4, 0, 1).build();
    let mut read = 0;
    while pair.source.read_budget(0) > 0 && read < 30_000 {
        let bytes = if read < BATCHES_UNDER_WAY_MAX - 4 { 1 } else { 6000 };
        write(&mut pair.source, 0, &stream[read..read + bytes], pair.now);
        read += bytes;
        pair.now = at(read as u64 * 10);
        pair.source.tick(pair.now);
    }
    pair.source.ingest_end(0, pair.now);
    let mut frames =
        Vec::from_iter(std::iter::from_fn(|| pair.source.next_frame(StreamId(1), Instant::START)));
    assert!(
        (BATCHES_UNDER_WAY_MAX - 8..=BATCHES_UNDER_WAY_MAX + 1).contains(&frames.len()),
        "{}",
        frames.len()
    );
    // All of them before the opening of the connection: the furthest ahead that they can be.
    frames.rotate_left(1);
    for frame in frames {
        deliver(&mut pair.destination, 1, frame, pair.now);
    }
    assert_eq!(pair.destination.state(), &State::Running);
    pair.drain(0);
    assert!(pair.destination.output_ended(0));
}

/// DWCP-42: while the guest is stopped, and its last pages are still on their way, a session waits briefly.
#[test]
fn a_stopped_guest_waits_briefly_for_streams() {
    for (last, limit) in [(false, Duration::MAX), (true, OUTAGE_SWITCHOVER)] {
        let mut pair = Pair::opened();
        pair.source.open_connection("migration", pair.now).unwrap();
        let mut stream = synthetic::MainStream::new("pc");
        stream.ram_start(&[("pc.ram", 1 << 20)]).ram_part(last).page("pc.ram", 0, &[7; 4096]);
        write(&mut pair.source, 0, &stream.into_bytes(), pair.now);
        let limit = limit.min(pair.source.config.outage);
        pair.source.stream_lost(StreamId(1), pair.now);
        pair.source.tick(pair.now.after(limit - Duration::from_millis(1)));
        assert!(!pair.source.state().is_over());
        pair.source.tick(pair.now.after(limit));
        let State::Failed(reason) = pair.source.state() else { panic!("it waits for longer than {limit:?}") };
        assert_eq!(reason.code, ReasonCode::Outage);
    }
}

/// Nothing waits for company while the guest is stopped: no read for a batch that would be worth it, and an incomplete record
/// for its rest only as long as a hypervisor takes to write it.
#[test]
fn what_a_stopped_guest_waits_for_is_not_held_back() {
    let waits = |last: bool| {
        let mut pair = Pair::opened();
        pair.source.open_connection("migration", pair.now).unwrap();
        let mut stream = synthetic::MainStream::new("pc");
        stream.ram_start(&[("pc.ram", 1 << 20)]).ram_part(last).page("pc.ram", 0, &[7; 4096]);
        let mut stream = stream.page("pc.ram", 0x1000, &[8; 4096]).clone().into_bytes();
        stream.truncate(stream.len() - 3000);
        write(&mut pair.source, 0, &stream, pair.now);
        let wait = pair.source.outbound.deadline(false).expect("the incomplete page waits").since(pair.now);
        // Nobody acknowledges anything: each read leaves a little of the window, until that is all there is.
        let mut least = usize::MAX;
        for _ in 0..500 {
            let budget = pair.source.read_budget(0);
            if budget == 0 {
                break;
            }
            least = least.min(budget);
            write(&mut pair.source, 0, &vec![9; budget.saturating_sub(100).max(1)], pair.now);
        }
        (wait, least)
    };
    let (wait, least) = waits(false);
    assert_eq!(wait, CARRY_WAIT);
    let (wait_stopped, least_stopped) = waits(true);
    assert_eq!(wait_stopped, CARRY_WAIT_STOPPED);
    assert!(least_stopped <= 100 && least > 1000, "{least_stopped} against {least}");
}

/// Page lanes are shared by connections, and the receiver bounds how far ahead of a missing frame each may run.
#[test]
fn connections_together_stay_below_the_bound_of_a_page_lane() {
    let mut pair = Pair::new(RECEIVE_WINDOW_BYTES);
    pair.source.config.lanes = 1;
    pair.source.outbound = Outbound::new(SESSION, 0, true, Some((Mode::Lz4, 1)), 1);
    pair.stream(1);
    pair.carry(1);
    let mut plan = synthetic::Plan::filled(1200, 0, 1);
    for page in &mut plan.passes[0] {
        page.contents = synthetic::Contents::Fill(7);
    }
    let stream = plan.build();
    for connection in 0..12 {
        pair.source.open_connection("migration", pair.now).unwrap();
        // A batch for every record, so that each batch is a part on some lane.
        for bytes in stream.chunks(4104) {
            if pair.source.read_budget(connection) == 0 {
                break;
            }
            write(&mut pair.source, connection, bytes, pair.now);
        }
    }
    let frames = Vec::from_iter(std::iter::from_fn(|| pair.source.next_frame(StreamId(1), Instant::START)));
    // The network delivers everything but the first part of each lane, and that last.
    let first = |frame: &Bytes| {
        let header = FrameHeader::read(frame).unwrap();
        header.kind == Kind::Part && header.sequence == 0
    };
    let (late, early): (Vec<_>, Vec<_>) = frames.into_iter().partition(first);
    assert!(!late.is_empty(), "nothing was worth an index");
    for frame in early.into_iter().chain(late) {
        deliver(&mut pair.destination, 1, frame, pair.now);
    }
    assert_eq!(pair.destination.state(), &State::Running);
}

/// DWCP-43: the stream stays open to a peer that hangs, or that lost the place of a part: nothing would ever end the session.
#[test]
fn a_peer_that_verifies_nothing_fails_the_session() {
    let mut pair = Pair::opened();
    pair.source.config.outage = STALL_MIN / 2;
    pair.source.open_connection("migration", pair.now).unwrap();
    write(&mut pair.source, 0, b"heard", pair.now);
    pair.carry(1);
    pair.drain(0);
    pair.carry(1);
    pair.now = at(60_000);
    write(&mut pair.source, 0, b"not heard", pair.now);
    while pair.source.next_frame(StreamId(1), Instant::START).is_some() {}
    let due = pair.now.after(STALL_MIN);
    assert!(pair.source.deadline().is_some_and(|at| at <= due));
    pair.source.tick(at(60_000 + 9_999));
    assert_eq!(pair.source.state(), &State::Running);
    pair.source.tick(due);
    assert!(matches!(pair.source.state(), State::Failed(reason) if reason.code == ReasonCode::Timeout));
}

/// DWCP-43: a hypervisor that takes nothing is not a peer that hangs.
#[test]
fn a_hypervisor_that_takes_nothing_fails_no_session() {
    let mut pair = Pair::opened();
    pair.source.open_connection("migration", pair.now).unwrap();
    write(&mut pair.source, 0, b"verified, and not taken", pair.now);
    pair.carry(1);
    pair.now = pair.destination.deadline().expect("its peer is to hear what was verified");
    assert_eq!(pair.now, at(0).after(REPORT_WAIT));
    pair.destination.tick(pair.now);
    pair.carry(1);
    for side in [&mut pair.source, &mut pair.destination] {
        side.tick(at(3_600_000));
        assert_eq!(side.state(), &State::Running);
    }
}

/// A failure ends what the hypervisors get at once, on every connection, verified or not.
#[test]
fn nothing_is_handed_out_after_a_failure() {
    let mut pair = Pair::opened();
    pair.source.open_connection("migration", pair.now).unwrap();
    write(&mut pair.source, 0, b"guest", pair.now);
    pair.carry(1);
    pair.destination.fail(Reason::new(ReasonCode::Cancelled, "cancelled by its caller"));
    assert_eq!(pair.destination.next_output(0), None);
}

/// The peer has finished, and a hypervisor here still takes its last bytes: a connection that opens now would keep the
/// session waiting for a peer that is gone.
#[test]
fn no_connection_opens_after_the_peer_has_finished() {
    let mut pair = nearly_finished();
    pair.carry(1);
    let finished = Reason::new(ReasonCode::Finished, "this session has finished");
    deliver(&mut pair.source, 1, finished.to_frame(Kind::Refuse, SESSION, 0), pair.now);
    assert_eq!(pair.source.state(), &State::Running);
    let refused = pair.source.open_connection("late", pair.now).unwrap_err();
    assert_eq!(refused.code, ReasonCode::Finished);
    pair.drain(0);
    assert_eq!(pair.source.state(), &State::Finished);
}
