//! What one session brought another need not bring again; what the far side gave up is asked for and sent.

use super::super::pair::*;
use super::*;
use crate::limits::CONTENT_PAGE_BYTES;
use crate::page::{ContentKey, ContentMemory, ContentStore, KnownStores};
use crate::stream::CodecWorker;
use crate::wire::{PartFields, Wanted};

const PAGES: u64 = 100;
const KEY: [u8; 32] = [9; 32];

fn store(pages: u64) -> ContentMemory {
    ContentMemory::new(ContentStore::new(ContentKey::new(KEY), pages * CONTENT_PAGE_BYTES))
}

/// An open session between sides that share what they know with others.
fn pair(store: Option<&ContentMemory>, known: &KnownStores, workers: u16) -> Pair {
    let mut source = config(Role::Source);
    (source.codec, source.codec_workers) = (Mode::Zstd { level: 1 }, workers);
    source.known_stores = known.clone();
    let mut destination = config(Role::Destination);
    (destination.content_store, destination.codec_workers) = (store.cloned(), workers);
    let mut pair = Pair {
        source: Session::source(source, at(0)),
        destination: Session::destination(destination, at(0)),
        now: at(0),
    };
    pair.proven(1);
    pair.source.open_connection("migration", pair.now).unwrap();
    pair
}

/// Pages of noise, from page number `first` on.
fn guest(first: u64) -> Vec<u8> {
    let mut noise = synthetic::Noise::new(3);
    let mut stream = synthetic::MainStream::new("pc-q35-10.0");
    stream.ram_start(&[("pc.ram", (first + PAGES) * 4096)]).ram_part(true);
    for number in 0..PAGES {
        stream.page("pc.ram", (first + number) * 4096, &noise.page());
    }
    stream.end_ram();
    stream.into_bytes()
}

/// Does the codec work of both sides, where it is handed out.
fn work(pair: &mut Pair, workers: &mut [CodecWorker; 2]) {
    for (session, worker) in [&mut pair.source, &mut pair.destination].into_iter().zip(workers) {
        while let Some(job) = session.next_job() {
            let done = worker.carry_out(job, &pair.now);
            session.job_done(done, pair.now);
        }
    }
}

/// Carries a stream over stream 1; compares what arrives.
fn carries(pair: &mut Pair, stream: &[u8]) {
    let mut workers = [CodecWorker::new(), CodecWorker::new()];
    let mut arrived = Vec::new();
    for bytes in stream.chunks(128 * 1024) {
        write(&mut pair.source, 0, bytes, pair.now);
        for _ in 0..4 {
            work(pair, &mut workers);
            pair.carry(1);
        }
        while let Some(bytes) = pair.destination.next_output(0) {
            arrived.extend_from_slice(&bytes);
            pair.destination.consumed(0, bytes.len() as u64, pair.now);
        }
        pair.carry(1);
    }
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Running, &State::Running));
    assert!(arrived == stream);
}

/// DWCP-75, DWCP-76: the second guest's pages are references to the first one's, at other addresses and in other lanes.
#[test]
fn what_another_session_brought_is_referred_to() {
    for workers in [1, 3] {
        let (store, known) = (store(4 * PAGES), KnownStores::default());
        carries(&mut pair(Some(&store), &known, workers), &guest(0));
        assert!(store.bytes().0 >= PAGES * 4096 && store.bytes().0 <= store.bytes().1);
        let mut second = pair(Some(&store), &known, workers);
        let stream = guest(1000);
        carries(&mut second, &stream);
        let sent = second.source.outbound().bytes();
        assert_eq!(sent.known, PAGES * 4096, "{workers} workers");
        assert_eq!((sent.repaired_pages, second.destination.inbound().asked_pages()), (0, 0));
        assert!(sent.encoded < stream.len() as u64 / 50, "{sent:?}");
        let all = sent.raw + sent.lz4 + sent.zstd + sent.unchanged + sent.delta + sent.uniform + sent.known;
        assert_eq!(all, stream.len() as u64);
        assert_eq!(second.source.outbound().retained_bytes(), (0, 0), "nothing is kept that was verified");
    }
}

/// DWCP-77, DWCP-78: what was given up meanwhile is asked for and sent.
#[test]
fn what_the_far_side_gave_up_is_repaired() {
    for workers in [1, 3] {
        let known = KnownStores::default();
        carries(&mut pair(Some(&store(4 * PAGES)), &known, workers), &guest(0));
        // Another store under the same key: it has given up everything.
        let mut second = pair(Some(&store(4 * PAGES)), &known, workers);
        carries(&mut second, &guest(1000));
        let sent = second.source.outbound().bytes();
        assert_eq!((sent.known, sent.repaired_pages), (PAGES * 4096, PAGES), "{workers} workers");
        assert_eq!(second.destination.inbound().asked_pages(), PAGES);
        assert!(sent.repair > PAGES * 4096 && sent.wire > sent.encoded + PAGES * 4096);
        // Nobody guesses that again.
        let mut third = pair(Some(&store(4 * PAGES)), &known, workers);
        carries(&mut third, &guest(2000));
        assert_eq!(third.source.outbound().bytes().known, 0);
    }
}

/// A store that was made anew has another key: nothing is guessed of it.
#[test]
fn another_store_is_not_referred_to() {
    let known = KnownStores::default();
    carries(&mut pair(Some(&store(4 * PAGES)), &known, 1), &guest(0));
    let other = ContentStore::new(ContentKey::new([8; 32]), 4 * PAGES * CONTENT_PAGE_BYTES);
    let mut second = pair(Some(&ContentMemory::new(other)), &known, 1);
    carries(&mut second, &guest(0));
    assert_eq!(second.source.outbound().bytes().known, 0);
    let mut none = pair(None, &known, 1);
    carries(&mut none, &guest(0));
    assert_eq!(none.source.outbound().bytes().known, 0);
    assert_eq!(none.destination.inbound().content_bytes(), (0, 0));
}

/// A session whose destination waits for pages that were referred to: question and answer are in the test's hands.
fn asking() -> Pair {
    let known = KnownStores::default();
    carries(&mut pair(Some(&store(4 * PAGES)), &known, 1), &guest(0));
    let mut pair = pair(Some(&store(4 * PAGES)), &known, 1);
    let stream = guest(1000);
    write(&mut pair.source, 0, &stream[..100_000], pair.now);
    while let Some(frame) = pair.source.next_frame(StreamId(1), pair.now) {
        deliver(&mut pair.destination, 1, frame, pair.now);
    }
    assert!(pair.destination.next_output(0).is_none());
    pair
}

fn kind(frame: &Bytes) -> Kind {
    FrameHeader::read(frame).unwrap().kind
}

/// The next frame of a kind.
fn next(session: &mut Session, stream: u32, wanted: Kind) -> Bytes {
    let mut frames = std::iter::from_fn(|| session.next_frame(StreamId(stream), Instant::START));
    frames.find(|frame| kind(frame) == wanted).expect("no such frame")
}

/// DWCP-77: questions and answers are said again when the stream that took them dies, on either side.
#[test]
fn a_lost_stream_takes_no_question_and_no_answer() {
    let mut pair = asking();
    pair.proven(2);
    // A question is lost.
    next(&mut pair.destination, 1, Kind::Want);
    pair.cut(1);
    let want = next(&mut pair.destination, 2, Kind::Want);
    deliver(&mut pair.source, 2, want, pair.now);
    // An answer is lost; the destination asks again, which alone would be no news.
    pair.proven(3);
    next(&mut pair.source, 2, Kind::Repair);
    pair.destination.stream_lost(StreamId(2), pair.now);
    let want = next(&mut pair.destination, 3, Kind::Want);
    deliver(&mut pair.source, 3, want, pair.now);
    pair.source.stream_lost(StreamId(2), pair.now);
    pair.carry(3);
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Running, &State::Running));
    assert!(pair.destination.next_output(0).is_some());
}

/// What comes twice, or when nobody waits for it any more, changes nothing.
#[test]
fn an_answer_said_twice_is_one_answer() {
    let mut pair = asking();
    let want = next(&mut pair.destination, 1, Kind::Want);
    deliver(&mut pair.source, 1, want.clone(), pair.now);
    let repair = next(&mut pair.source, 1, Kind::Repair);
    for _ in 0..3 {
        deliver(&mut pair.destination, 1, repair.clone(), pair.now);
        pair.carry(1);
    }
    deliver(&mut pair.source, 1, want, pair.now);
    pair.carry(1);
    assert_eq!((pair.source.state(), pair.destination.state()), (&State::Running, &State::Running));
    assert_eq!(pair.source.outbound().bytes().repaired_pages, pair.destination.inbound().asked_pages());
}

fn failed(session: &Session) -> &Reason {
    let State::Failed(reason) = session.state() else { panic!("still runs") };
    reason
}

/// DWCP-78: a page whose hash does not fit fails the session, and names the part.
#[test]
fn an_answer_that_is_not_what_was_referred_to_is_refused() {
    let mut pair = asking();
    let want = next(&mut pair.destination, 1, Kind::Want);
    let wanted = Wanted::read(&want[FRAME_HEADER_BYTES..]).unwrap();
    let forged = wanted.to_repair(&vec![1; wanted.places.len() * 4096], SESSION, 0);
    deliver(&mut pair.destination, 1, forged, pair.now);
    let reason = failed(&pair.destination);
    assert_eq!(reason.code, ReasonCode::Decode);
    assert!(
        reason.text.contains("hash does not fit") && reason.text.contains("page lane"),
        "{}",
        reason.text
    );
    assert!(pair.destination.next_output(0).is_none(), "nothing of it reaches the hypervisor");
}

/// DWCP-78: an answer that nobody asked for is a violation.
#[test]
fn an_answer_without_a_question_is_refused() {
    let wanted = |batch| Wanted { part: PartFields { connection: 0, batch }, lane: 0, places: vec![0] };
    for (store, batch) in [(Some(store(PAGES)), 900), (None, 1)] {
        let mut pair = pair(store.as_ref(), &KnownStores::default(), 1);
        pair.carry(1);
        deliver(&mut pair.destination, 1, wanted(batch).to_repair(&[0; 4096], SESSION, 0), pair.now);
        assert_eq!(failed(&pair.destination).code, ReasonCode::Protocol);
    }
}

/// DWCP-77: a question about what was never referred to is a violation; one about what is verified is late.
#[test]
fn a_question_about_what_was_not_referred_to_is_refused() {
    let known = KnownStores::default();
    let ask = |batch| Wanted { part: PartFields { connection: 0, batch }, lane: 0, places: vec![0] };
    let mut late = pair(Some(&store(4 * PAGES)), &known, 1);
    carries(&mut late, &guest(0));
    deliver(&mut late.source, 1, ask(1).to_want(SESSION, 0), late.now);
    assert_eq!(late.source.state(), &State::Running);
    assert_eq!(late.source.outbound().bytes().repaired_pages, 0);
    deliver(&mut late.source, 1, ask(900).to_want(SESSION, 0), late.now);
    let reason = failed(&late.source);
    assert_eq!(reason.code, ReasonCode::Protocol);
    assert!(reason.text.contains("not referred to"), "{}", reason.text);
}
