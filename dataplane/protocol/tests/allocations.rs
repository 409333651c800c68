//! A session that carries a guest allocates nothing once it is warm: what it needs, it has had before.
//!
//! Both sides of a session run here, with one worker each, over a stream that loses nothing. After a few passes over the guest's
//! pages every call to the global allocator is counted, by the step of a page's journey in which it happened. The codecs' own
//! memory is theirs, in C: it is made with the session, and not counted here.

use bytes::{Bytes, BytesMut};
use novacron_protocol::hypervisor::synthetic::{MainStream, Noise};
use novacron_protocol::limits::{BATCH_LEN_MAX, LANES_DEFAULT, PAGE_BYTES};
use novacron_protocol::page::policy::Mode;
use novacron_protocol::session::{Ends, MIGRATION, Role, Session, SessionConfig, State, Token};
use novacron_protocol::stream::{BatchBuffer, CodecWorker, INGEST_HEADROOM, StreamId};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{FrameHeader, Identity};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::collections::VecDeque;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pages of the guest: more than are under way at once.
const PAGES: usize = 2048;

/// Passes until everything has been as large as it gets, and passes that are counted.
const WARM_PASSES: usize = 6;
const COUNTED_PASSES: usize = 4;

const STREAM: StreamId = StreamId(1);

/// How long a frame takes: acknowledgements come late enough for windows to fill.
const ONE_WAY: Duration = Duration::from_micros(500);

/// Memory that hypervisors are read into, as a gateway keeps it: lent, and taken again when nobody holds it.
struct Lent(BytesMut);

impl BatchBuffer for Lent {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn freeze(self) -> Bytes {
        self.0.freeze()
    }
}

struct Lender {
    blocks: Vec<BytesMut>,
}

impl Lender {
    fn new() -> Self {
        let block = || {
            // The second half of a split is what makes a block one that knows its users.
            let mut block = BytesMut::zeroed(INGEST_HEADROOM + BATCH_LEN_MAX);
            drop(block.split_off(INGEST_HEADROOM));
            block
        };
        Lender { blocks: std::iter::repeat_with(block).take(256).collect() }
    }

    fn lend(&mut self, bytes: usize) -> Lent {
        let wanted = INGEST_HEADROOM + bytes;
        let block = self.blocks.iter_mut().find_map(|block| {
            block.clear();
            block.try_reclaim(wanted).then_some(block)
        });
        let block = block.expect("a block that nobody holds");
        block.resize(wanted, 0);
        Lent(block.split())
    }
}

/// Calls to the allocator by the step in which they happened.
#[derive(Default)]
struct Counts {
    steps: [(&'static str, usize); 8],
}

impl Counts {
    fn new() -> Self {
        let names = [
            "source: ingest",
            "source: next frame",
            "destination: receive",
            "destination: hand out, consumed",
            "destination: next frame",
            "source: receive",
            "both: tick",
            "both: jobs",
        ];
        Counts { steps: names.map(|name| (name, 0)) }
    }

    fn of<T>(&mut self, step: usize, run: impl FnOnce() -> T) -> T {
        let region = Region::new(ALLOCATOR);
        let out = run();
        let change = region.change();
        self.steps[step].1 += change.allocations + change.reallocations;
        out
    }

    fn total(&self) -> usize {
        self.steps.iter().map(|step| step.1).sum()
    }
}

/// Frames on their way, as a network would have them.
type Way = VecDeque<(Instant, Bytes)>;

fn arrived(way: &mut Way, now: Instant) -> Option<Bytes> {
    way.front().is_some_and(|(at, _)| *at <= now).then(|| way.pop_front()).flatten().map(|(_, frame)| frame)
}

/// Both sides of a session.
struct Carried {
    source: Session,
    destination: Session,
    there: Way,
    back: Way,
    lender: Lender,
    now: Instant,
    counts: Counts,
    frames: usize,
    /// Those of either side, where work is handed out.
    workers: [Vec<CodecWorker>; 2],
    jobs: usize,
}

/// Does what a session hands out. Returns how many jobs that were.
fn work(session: &mut Session, workers: &mut [CodecWorker], now: Instant, counts: &mut Counts) -> usize {
    let mut done = 0;
    while let Some(job) = counts.of(7, || session.next_job()) {
        let worker = &mut workers[job.worker()];
        counts.of(7, || session.job_done(worker.carry_out(job, &now), now));
        done += 1;
    }
    done
}

fn ends() -> Ends {
    Ends {
        dialler: Identity { gateway: [1; 16], instance: [1; 16] },
        acceptor: Identity { gateway: [2; 16], instance: [2; 16] },
        nonces: [[3; 16], [4; 16]],
    }
}

impl Carried {
    fn new(codec: Mode, memory_bytes: u64, codec_workers: u16) -> Self {
        let workers = || std::iter::repeat_with(CodecWorker::new).take(codec_workers.into()).collect();
        let config = |role| SessionConfig {
            codec,
            codec_workers,
            memory_bytes,
            lanes: LANES_DEFAULT,
            ..SessionConfig::new(role, 9, Token::new([5; 32]))
        };
        let now = Instant::START;
        let mut carried = Carried {
            source: Session::source(config(Role::Source), now),
            destination: Session::destination(config(Role::Destination), now),
            there: Way::new(),
            back: Way::new(),
            lender: Lender::new(),
            now,
            counts: Counts::new(),
            frames: 0,
            workers: [workers(), workers()],
            jobs: 0,
        };
        carried.source.stream_opened(STREAM, ends(), now);
        carried.destination.stream_opened(STREAM, ends(), now);
        carried.source.open_connection(MIGRATION, now).expect("the session takes connections");
        while *carried.source.state() != State::Running {
            carried.step(&[], &mut 0);
        }
        carried
    }

    /// Takes what the source may read of `bytes`, and lets everything that is due happen.
    fn step(&mut self, bytes: &[u8], received: &mut usize) -> usize {
        let Self { source, destination, there, back, lender, now, counts, frames, workers, jobs } = self;
        let taken = source.read_budget(0).min(bytes.len());
        if taken > 0 {
            let mut buffer = lender.lend(taken);
            buffer.as_mut()[INGEST_HEADROOM..].copy_from_slice(&bytes[..taken]);
            counts.of(0, || source.ingest(0, buffer, taken, now));
        }
        *jobs += work(source, &mut workers[0], *now, counts);
        while let Some(frame) = counts.of(1, || source.next_frame(STREAM, *now)) {
            *frames += 1;
            there.push_back((now.after(ONE_WAY), frame));
        }
        while let Some(frame) = arrived(there, *now) {
            let header = FrameHeader::read(&frame).expect("a header that was just written");
            counts.of(2, || destination.receive(STREAM, header, frame, *now));
        }
        *jobs += work(destination, &mut workers[1], *now, counts);
        while let Some(output) = counts.of(3, || destination.next_output(0)) {
            *received += output.len();
            let length = output.len() as u64;
            drop(output);
            counts.of(3, || destination.consumed(0, length, *now));
        }
        while let Some(frame) = counts.of(4, || destination.next_frame(STREAM, *now)) {
            back.push_back((now.after(ONE_WAY), frame));
        }
        while let Some(frame) = arrived(back, *now) {
            let header = FrameHeader::read(&frame).expect("a header that was just written");
            counts.of(5, || source.receive(STREAM, header, frame, *now));
        }
        for session in [source, destination] {
            assert!(!session.state().is_over(), "{:?}", session.state());
            while session.next_event().is_some() {}
            if session.deadline().is_some_and(|deadline| deadline <= *now) {
                counts.of(6, || session.tick(*now));
            }
        }
        *now = now.after(Duration::from_micros(50));
        taken
    }

    /// Carries `bytes`, all the way.
    fn carry(&mut self, bytes: &[u8]) {
        let (mut sent, mut received) = (0, 0);
        while received < bytes.len() {
            sent += self.step(&bytes[sent..], &mut received);
        }
    }
}

/// What the guest's pages hold, in each pass.
#[derive(Clone, Copy)]
enum Pages {
    Zero,
    Uniform,
    Noise,
    /// About as compressible as a busy guest's.
    Guest,
    /// The same, of which every pass changes a few bytes of every third.
    Changing,
}

fn fill(pages: Pages, number: usize, pass: usize, noise: &mut Noise) -> Option<[u8; PAGE_BYTES]> {
    let mut seeded = Noise::new(number as u64);
    match pages {
        Pages::Zero => None,
        Pages::Uniform => Some([1 + (number % 200) as u8; PAGE_BYTES]),
        Pages::Noise => Some(noise.page()),
        Pages::Guest => Some(page(noise)),
        Pages::Changing => {
            let mut page = page(&mut seeded);
            if number % 3 == pass % 3 {
                page[number % 4000..][..8].copy_from_slice(&(pass as u64 + 1).to_le_bytes());
            }
            Some(page)
        }
    }
}

/// Half records of small integers, a quarter text, a quarter noise.
fn page(noise: &mut Noise) -> [u8; PAGE_BYTES] {
    let mut page = [b'.'; PAGE_BYTES];
    for (at, word) in page.chunks_exact_mut(8).enumerate() {
        let next = noise.next_u64();
        match at / 128 {
            0 | 1 => word.copy_from_slice(&(next % 512).to_le_bytes()),
            2 => {}
            _ => word.copy_from_slice(&next.to_le_bytes()),
        }
    }
    page
}

/// One pass over the guest: a section of RAM.
fn section(pages: Pages, pass: usize) -> Vec<u8> {
    let (mut stream, mut noise) = (MainStream::default(), Noise::new(pass as u64));
    stream.ram_part(false);
    for number in 0..PAGES {
        let offset = (number * PAGE_BYTES) as u64;
        match fill(pages, number, pass, &mut noise) {
            Some(page) => stream.page("pc.ram", offset, &page),
            None => stream.zero("pc.ram", offset),
        };
    }
    stream.end_ram();
    stream.into_bytes()
}

/// Calls to the allocator while a warm session carries this, and the jobs that it handed out.
fn allocations(
    what: &str,
    codec: Mode,
    memory_bytes: u64,
    pages: Pages,
    codec_workers: u16,
) -> (usize, usize) {
    let mut start = MainStream::new("pc-q35-10.0");
    start.ram_start(&[("pc.ram", (PAGES * PAGE_BYTES) as u64)]);
    let mut carried = Carried::new(codec, memory_bytes, codec_workers);
    carried.carry(&start.into_bytes());
    for pass in 0..WARM_PASSES {
        carried.carry(&section(pages, pass));
    }
    let sections: Vec<_> = (WARM_PASSES..).take(COUNTED_PASSES).map(|pass| section(pages, pass)).collect();
    (carried.counts, carried.frames, carried.jobs) = (Counts::new(), 0, 0);
    let before = carried.source.outbound().bytes();
    sections.iter().for_each(|section| carried.carry(section));
    let after = carried.source.outbound().bytes();

    let mib = sections.iter().map(Vec::len).sum::<usize>() as f64 / f64::from(1 << 20);
    let total = carried.counts.total();
    println!(
        "{what}: {:.1} MiB in {} frames and {} jobs, {} bytes raw: {:.2} allocations a MiB",
        mib,
        carried.frames,
        carried.jobs,
        after.raw - before.raw,
        total as f64 / mib
    );
    for (step, count) in carried.counts.steps.iter().filter(|step| step.1 > 0) {
        println!("    {step}: {count}, {:.2} a MiB", *count as f64 / mib);
    }
    (total, carried.jobs)
}

#[test]
fn a_warm_session_allocates_nothing() {
    let zstd = Mode::Zstd { level: 1 };
    let memory = 64 << 20;
    // One after the other: the count is the whole process's.
    let counted = [
        ("raw", Mode::None, 0, Pages::Noise),
        ("zero pages", Mode::Lz4, 0, Pages::Zero),
        ("uniform pages", Mode::Lz4, 0, Pages::Uniform),
        ("lz4", Mode::Lz4, 0, Pages::Guest),
        ("zstd", zstd, 0, Pages::Guest),
        ("uniform pages, remembered", Mode::Lz4, memory, Pages::Uniform),
        ("changed pages, remembered", Mode::Lz4, memory, Pages::Changing),
        ("new pages, remembered, zstd in its window", Mode::Zstd { level: 3 }, memory, Pages::Guest),
    ]
    .map(|(what, codec, memory, pages)| (what, allocations(what, codec, memory, pages, 1).0));
    let allocating: Vec<_> = counted.iter().filter(|(_, count)| *count > 0).collect();
    assert!(allocating.is_empty(), "allocated in the steady state: {allocating:?}");

    for (what, codec, memory, pages) in [
        ("jobs: lz4", Mode::Lz4, 0, Pages::Guest),
        ("jobs: changed pages, remembered", Mode::Lz4, memory, Pages::Changing),
        ("jobs: new pages, remembered, zstd in its window", Mode::Zstd { level: 3 }, memory, Pages::Guest),
    ] {
        let (count, jobs) = allocations(what, codec, memory, pages, 2);
        assert_eq!(count, 0, "{what}: for {jobs} jobs");
    }
}
