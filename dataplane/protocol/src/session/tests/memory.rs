//! What two sides agree to remember, and that it ends with the session.

use super::super::pair::*;
use super::*;
use crate::limits::RECEIVE_WINDOW_BYTES;
use crate::page::policy::Mode;
use crate::stream::MemoryBudget;

fn pair(source_bytes: u64, destination_bytes: u64, budget: &MemoryBudget) -> Pair {
    let mut source = config(Role::Source);
    (source.memory_bytes, source.memory_budget, source.codec) = (source_bytes, budget.clone(), Mode::Lz4);
    let mut destination = config(Role::Destination);
    (destination.memory_bytes, destination.receive_window) = (destination_bytes, RECEIVE_WINDOW_BYTES);
    let mut pair = Pair {
        source: Session::source(source, at(0)),
        destination: Session::destination(destination, at(0)),
        now: at(0),
    };
    pair.proven(1);
    pair
}

/// A pass over 200 pages of text that differ, sent `passes` times.
fn stream(passes: u64) -> Vec<u8> {
    let mut stream = synthetic::MainStream::new("pc-q35-10.0");
    stream.ram_start(&[("pc.ram", 200 * 4096)]);
    for _ in 0..passes {
        stream.ram_part(false);
        for number in 0..200u64 {
            let mut page = [0; 4096];
            for (at, byte) in page.iter_mut().enumerate() {
                *byte = b"what a guest keeps in its memory"[(at * (2 * number as usize + 1)) % 32];
            }
            stream.page("pc.ram", number * 4096, &page);
        }
        stream.end_ram();
    }
    stream.into_bytes()
}

/// Carries a stream; how many of the bytes that the source wrote arrived.
fn carries(pair: &mut Pair, stream: &[u8]) -> usize {
    pair.source.open_connection("migration", pair.now).unwrap();
    let mut arrived = 0;
    for bytes in stream.chunks(128 * 1024) {
        write(&mut pair.source, 0, bytes, pair.now);
        pair.carry(1);
        while let Some(bytes) = pair.destination.next_output(0) {
            arrived += bytes.len();
            pair.destination.consumed(0, bytes.len() as u64, pair.now);
        }
        pair.carry(1);
    }
    arrived
}

/// DWCP-70: both sides take the lesser, and what the source had reserved beyond that is free again.
#[test]
fn both_sides_take_the_lesser() {
    let budget = MemoryBudget::new(1 << 30);
    for (ours, theirs, agreed) in
        [(8 << 20, 1 << 20, 1 << 20), (1 << 20, 8 << 20, 1 << 20), (0, 1 << 20, 0), (1 << 20, 0, 0)]
    {
        let pair = pair(ours, theirs, &budget);
        assert_eq!(
            (pair.source.remembered_bytes().1, pair.destination.remembered_bytes().1),
            (agreed, agreed)
        );
        assert_eq!(budget.reserved(), agreed);
        assert_eq!(pair.source.agreed_terms(), pair.destination.agreed_terms());
        drop(pair);
        assert_eq!(budget.reserved(), 0);
    }
}

/// What is sent again costs next to nothing where it is remembered; both sides say what they hold, within what was agreed.
#[test]
fn what_was_sent_is_remembered_until_the_session_ends() {
    let budget = MemoryBudget::unshared();
    let stream = stream(3);
    let mut encoded = Vec::new();
    for bytes in [0, 4 << 20] {
        let mut pair = pair(bytes, bytes, &budget);
        assert_eq!(carries(&mut pair, &stream), stream.len());
        assert_eq!((pair.source.state(), pair.destination.state()), (&State::Running, &State::Running));
        let (ours, theirs) = (pair.source.remembered_bytes(), pair.destination.remembered_bytes());
        assert_eq!((ours.1, theirs.1), (bytes, bytes));
        assert_eq!(ours.0, theirs.0, "both sides hold the same");
        assert!(ours.0 <= bytes && (ours.0 > 0) == (bytes > 0));
        let sent = pair.source.outbound().bytes();
        let all = sent.raw + sent.lz4 + sent.zstd + sent.unchanged + sent.delta + sent.uniform;
        assert_eq!((all, sent.guest), (stream.len() as u64, stream.len() as u64));
        assert_eq!(sent.unchanged, if bytes > 0 { 2 * 200 * 4096 } else { 0 });
        encoded.push(sent.encoded);
        pair.source.fail(Reason::new(ReasonCode::Cancelled, "enough"));
        pair.carry(1);
        assert_eq!((pair.source.remembered_bytes(), pair.destination.remembered_bytes()), ((0, 0), (0, 0)));
    }
    assert!(encoded[1] < encoded[0] / 2, "{encoded:?}");
    assert_eq!(budget.reserved(), 0);
}

/// A destination that would remember more than was proposed has not understood the opening.
#[test]
fn an_answer_that_wants_more_is_refused() {
    let mut pair = Pair::new(RECEIVE_WINDOW_BYTES);
    pair.source.config.memory_bytes = 1 << 20;
    pair.source.memory = Some(pair.source.config.memory_budget.reserve(1 << 20));
    pair.stream(1);
    pair.source.next_frame(StreamId(1), at(0)).unwrap();
    let accept = Accept {
        receive_window: 1 << 20,
        memory_bytes: (1 << 20) + 1,
        content_key: [0; 32],
        content_bytes: 0,
        proof: [0; 32],
    };
    let accept = pair.destination.config.witness().prove_accept(accept, &ends(2)).to_frame(SESSION, 0);
    deliver(&mut pair.source, 1, accept, pair.now);
    let State::Failed(reason) = pair.source.state() else { panic!("remembers more than it has") };
    assert_eq!(reason.code, ReasonCode::Protocol);
}
