//! Sessions whose codec work is done by others, late and in any order.

use super::pair::{Pair, SESSION, at, config, deliver, write};
use super::*;
use crate::hypervisor::synthetic::{Contents, Plan, PlannedPage};
use crate::limits::{ENCODING_BATCHES_MAX, RECEIVE_WINDOW_BYTES, STALL_MIN};
use crate::page::policy::Mode;
use crate::stream::{CodecWorker, Done, StreamId};
use crate::wire::{Lane, ProgressEntry};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Workers of a session: each does its jobs in their order, and whose turn it is somebody else says.
struct Workers {
    codecs: CodecWorker,
    waiting: Vec<VecDeque<Job>>,
}

impl Workers {
    fn new(count: u16) -> Self {
        Workers { codecs: CodecWorker::new(), waiting: (0..count).map(|_| VecDeque::new()).collect() }
    }

    fn take(&mut self, session: &mut Session) {
        while let Some(job) = session.next_job() {
            self.waiting[job.worker()].push_back(job);
        }
    }

    /// One job is done, on the worker that `turn` says, or the next that has one.
    fn one(&mut self, turn: usize) -> Option<Done> {
        let count = self.waiting.len();
        let worker = (0..count).map(|i| (turn + i) % count).find(|at| !self.waiting[*at].is_empty())?;
        let job = self.waiting[worker].pop_front()?;
        Some(self.codecs.carry_out(job, &at(0)))
    }
}

/// A migration stream with pages of every kind, and a second pass.
fn stream(pages: u64, seed: u64) -> Vec<u8> {
    let mut plan = Plan::filled(pages, 5, seed);
    for (i, page) in plan.passes[0].iter_mut().enumerate() {
        page.contents = match (i as u64 ^ seed) % 7 {
            0 => Contents::Noise,
            1 | 2 => Contents::Zero,
            n => Contents::Fill(n as u8),
        };
    }
    let again = |i: u64| PlannedPage { block: 0, page: i * 37 % pages, contents: Contents::Fill(i as u8) };
    plan.passes[1] = (0..pages / 3).map(again).collect();
    plan.device_bytes = 30_000;
    plan.build()
}

/// What no parser knows, and codecs shorten: literals.
fn opaque(bytes: u64) -> Vec<u8> {
    (0..bytes).flat_map(|i| (i * i % 251).to_string().into_bytes()).take(bytes as usize).collect()
}

fn source(workers: u16, lanes: u16) -> Session {
    let mut config = config(Role::Source);
    (config.codec, config.codec_workers, config.lanes) = (Mode::Lz4, workers, lanes);
    Session::source(config, at(0))
}

fn pair(mut source: Session, workers: u16) -> Pair {
    let mut destination = config(Role::Destination);
    destination.codec_workers = workers;
    source.config.connections_max = 4;
    let mut pair = Pair { source, destination: Session::destination(destination, at(0)), now: at(0) };
    pair.proven(1);
    pair
}

/// Every frame that the source has, by lane and sequence.
fn frames(source: &mut Session) -> BTreeMap<(Lane, u64), Bytes> {
    std::iter::from_fn(|| source.next_frame(StreamId(1), Instant::START))
        .map(|frame| (FrameHeader::read(&frame).unwrap(), frame))
        .filter(|(header, _)| header.lane != Lane::Unordered)
        .map(|(header, frame)| ((header.lane, header.sequence), frame))
        .collect()
}

/// One read of a hypervisor: its connection, and the bytes.
type Read = (u16, std::ops::Range<usize>);

/// What a source that encodes by itself takes of `streams`, by turns.
fn reads(source: &mut Session, streams: &[Vec<u8>], chunk: usize) -> Vec<Read> {
    open(source, streams.len());
    let mut reads: Vec<Read> = Vec::new();
    let mut taken = vec![0; streams.len()];
    loop {
        let before = reads.len();
        for (connection, stream) in streams.iter().enumerate() {
            let from = taken[connection];
            let count = source.read_budget(connection as u16).min(chunk).min(stream.len() - from);
            if count > 0 {
                taken[connection] += count;
                reads.push((connection as u16, from..from + count));
                write(source, connection as u16, &stream[from..from + count], at(0));
            }
        }
        assert!(source.next_job().is_none());
        if reads.len() == before {
            return reads;
        }
    }
}

fn open(source: &mut Session, connections: usize) {
    for connection in 0..connections {
        assert_eq!(source.open_connection(MIGRATION, at(0)).unwrap(), connection as u16);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whoever encodes, and in whatever order the results come: the same frames leave.
    #[test]
    fn any_order_of_results_makes_the_same_frames(
        pages in 20u64..150, seed in 0u64..1000, chunk in 3000usize..200_000,
        workers in 2u16..5, lanes in 1u16..9,
        turns in proptest::collection::vec(0usize..8, 1..40), eager in 0usize..4,
    ) {
        let streams = [stream(pages, seed), opaque(pages * 3000)];
        let mut alone = pair(source(1, lanes), 1).source;
        let reads = reads(&mut alone, &streams, chunk);
        let expected = frames(&mut alone);

        let mut spread = pair(source(workers, lanes), 1).source;
        let mut helpers = Workers::new(workers);
        let mut turn = turns.iter().cycle();
        open(&mut spread, streams.len());
        for (connection, bytes) in reads {
            // Some are done while others are still read, more where nothing else would be read any more.
            let mut most = eager;
            while most > 0 || spread.read_budget(connection) == 0 {
                let Some(done) = helpers.one(*turn.next().unwrap()) else { break };
                spread.job_done(done, at(0));
                helpers.take(&mut spread);
                most = most.saturating_sub(1);
            }
            write(&mut spread, connection, &streams[usize::from(connection)][bytes], at(0));
            helpers.take(&mut spread);
        }
        while let Some(done) = helpers.one(*turn.next().unwrap()) {
            spread.job_done(done, at(0));
            helpers.take(&mut spread);
        }
        let made = frames(&mut spread);
        prop_assert!(made.keys().eq(expected.keys()), "other frames");
        for (key, frame) in made {
            prop_assert!(frame == expected[&key], "frame {key:?} differs");
        }
    }

    /// Whoever decodes, and in whatever order the results come: the bytes that were written come out.
    #[test]
    fn any_order_of_decoding_gives_the_bytes_back(
        pages in 20u64..150, seed in 0u64..1000, chunk in 3000usize..200_000,
        workers in 2u16..5, lanes in 1u16..9,
        turns in proptest::collection::vec(0usize..8, 1..40),
    ) {
        let streams = [stream(pages, seed), opaque(pages * 3000)];
        let mut pair = pair(source(1, lanes), workers);
        let mut helpers = Workers::new(workers);
        let mut turn = turns.iter().cycle();
        let mut out = [Vec::new(), Vec::new()];
        let Pair { source, destination, .. } = &mut pair;
        open(source, streams.len());
        let mut taken = [0, 0];
        loop {
            let before = taken;
            for (connection, stream) in streams.iter().enumerate() {
                let from = taken[connection];
                let count = source.read_budget(connection as u16).min(chunk).min(stream.len() - from);
                if count > 0 {
                    write(source, connection as u16, &stream[from..from + count], at(0));
                    taken[connection] += count;
                }
            }
            let mut waiting: Vec<Bytes> = std::iter::from_fn(|| source.next_frame(StreamId(1), Instant::START)).collect();
            if waiting.is_empty() {
                // A read shorter than a record makes no frame: it waits for its rest.
                if taken == before {
                    break;
                }
                continue;
            }
            // Lanes overtake each other on their way.
            let count = waiting.len();
            waiting.rotate_left(*turn.next().unwrap() % count);
            for frame in waiting {
                deliver(destination, 1, frame, at(0));
                helpers.take(destination);
            }
            while let Some(done) = helpers.one(*turn.next().unwrap()) {
                destination.job_done(done, at(0));
                helpers.take(destination);
            }
            for (connection, out) in out.iter_mut().enumerate() {
                while let Some(bytes) = destination.next_output(connection as u16) {
                    out.extend_from_slice(&bytes);
                    destination.consumed(connection as u16, bytes.len() as u64, at(0));
                }
            }
            while let Some(frame) = destination.next_frame(StreamId(1), Instant::START) {
                deliver(source, 1, frame, at(0));
            }
        }
        prop_assert_eq!(destination.state(), &State::Running);
        for (out, stream) in out.iter().zip(&streams) {
            // An incomplete record may still wait for its rest; the streams here end with whole ones.
            prop_assert!(out == stream, "{} of {} bytes", out.len(), stream.len());
        }
    }
}

/// A peer cannot have verified what is still being encoded.
#[test]
fn acknowledging_what_was_never_sent_is_a_violation() {
    let mut pair = pair(source(2, 4), 1);
    pair.source.open_connection(MIGRATION, pair.now).unwrap();
    write(&mut pair.source, 0, &stream(100, 1)[..200_000], pair.now);
    assert!(pair.source.next_job().is_some(), "nothing was handed out");
    let entry = ProgressEntry { connection: 0, verified_frames: 2, consumed: 0, limit: 1 };
    deliver(&mut pair.source, 1, Progress { entries: vec![entry] }.to_frame(SESSION, 0), pair.now);
    assert!(matches!(pair.source.state(), State::Failed(reason) if reason.code == ReasonCode::Protocol));
    assert!(pair.source.next_job().is_none(), "a failed session needs no work");
}

/// A worker that never answers ends the session, and nothing grows meanwhile.
#[test]
fn a_worker_that_hangs_fails_the_session_in_words() {
    let mut pair = pair(source(2, 4), 1);
    pair.source.config.outage = STALL_MIN;
    pair.source.open_connection(MIGRATION, pair.now).unwrap();
    let stream = stream(4000, 3);
    let (mut taken, mut batches) = (0, 0);
    while pair.source.read_budget(0) > 0 {
        let count = pair.source.read_budget(0).min(4104);
        write(&mut pair.source, 0, &stream[taken..taken + count], pair.now);
        (taken, batches) = (taken + count, batches + 1);
    }
    assert!(
        taken as u64 <= RECEIVE_WINDOW_BYTES && batches <= 2 * ENCODING_BATCHES_MAX,
        "{taken} bytes, {batches} batches"
    );
    // The far side says that it has what came before.
    pair.carry(1);
    pair.drain(0);
    pair.destination.tick(at(5000));
    pair.carry(1);
    let now = at(0).after(STALL_MIN * 2);
    pair.source.tick(now);
    match pair.source.state() {
        State::Failed(reason) => assert!(reason.text.contains("one of its shards hangs"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// What comes back after the end, or for a session that was never asked, changes nothing.
#[test]
fn a_late_result_is_dropped() {
    let mut pair = pair(source(2, 4), 1);
    pair.source.open_connection(MIGRATION, pair.now).unwrap();
    write(&mut pair.source, 0, &stream(100, 1)[..200_000], pair.now);
    let mut helpers = Workers::new(2);
    helpers.take(&mut pair.source);
    pair.source.fail(Reason::new(ReasonCode::Cancelled, "enough"));
    while let Some(done) = helpers.one(0) {
        pair.source.job_done(done, pair.now);
    }
    assert!(matches!(pair.source.state(), State::Failed(_)));
}

/// Two workers take a good half of the time that one alone would take, on a path that is far faster than they are.
#[test]
fn workers_keep_each_other_busy() {
    const NS_PER_BYTE: u64 = 60;
    const PATH: u64 = 200_000;
    let mut plan = Plan::filled(2500, 1, 9);
    for (i, page) in plan.passes[0].iter_mut().enumerate() {
        page.contents = Contents::Fill(1 + (i % 200) as u8);
    }
    let stream = plan.build();
    let mut pair = pair(source(2, 4), 1);
    pair.source.open_connection(MIGRATION, pair.now).unwrap();
    let mut codecs = CodecWorker::new();
    let mut waiting = [VecDeque::new(), VecDeque::new()];
    let mut doing: [Option<(u64, Done)>; 2] = [None, None];
    let (mut there, mut back) = (VecDeque::new(), VecDeque::new());
    let (mut now, mut taken, mut received, mut worked) = (0u64, 0, 0, 0u64);
    while received < stream.len() {
        let clock = Instant::from_nanos(now);
        let budget = pair.source.read_budget(0).min(stream.len() - taken);
        if budget > 0 {
            write(&mut pair.source, 0, &stream[taken..taken + budget], clock);
            taken += budget;
        }
        while let Some(job) = pair.source.next_job() {
            waiting[job.worker()].push_back(job);
        }
        for (doing, waiting) in doing.iter_mut().zip(&mut waiting) {
            if let Some((_, done)) = doing.take_if(|(until, _)| *until <= now) {
                pair.source.job_done(done, clock);
            }
            if doing.is_none()
                && let Some(job) = waiting.pop_front()
            {
                let cost = job.guest_bytes() as u64 * NS_PER_BYTE;
                worked += cost;
                *doing = Some((now + cost, codecs.carry_out(job, &clock)));
            }
        }
        there.extend(
            std::iter::from_fn(|| pair.source.next_frame(StreamId(1), Instant::START))
                .map(|frame| (now + PATH, frame)),
        );
        while there.front().is_some_and(|(at, _)| *at <= now) {
            deliver(&mut pair.destination, 1, there.pop_front().unwrap().1, clock);
        }
        while let Some(bytes) = pair.destination.next_output(0) {
            received += bytes.len();
            pair.destination.consumed(0, bytes.len() as u64, clock);
        }
        back.extend(
            std::iter::from_fn(|| pair.destination.next_frame(StreamId(1), Instant::START))
                .map(|frame| (now + PATH, frame)),
        );
        while back.front().is_some_and(|(at, _)| *at <= now) {
            deliver(&mut pair.source, 1, back.pop_front().unwrap().1, clock);
        }
        for session in [&mut pair.source, &mut pair.destination] {
            if session.deadline().is_some_and(|deadline| deadline <= clock) {
                session.tick(clock);
            }
        }
        now += 50_000;
        assert!(now < 60_000_000_000, "no end in sight: {received} of {}", stream.len());
    }
    let busy = worked as f64 / (2.0 * now as f64);
    assert!(busy > 0.95, "the workers were busy for {:.0} % of the time", busy * 100.0);
}
