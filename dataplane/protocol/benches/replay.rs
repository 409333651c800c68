//! Captured streams through encoder and decoder on one core, beside zstd over the whole stream: the page codec's figures.
//!
//! `cargo bench -p novacron-protocol --bench replay -- FILE...`, where the files are what `novacron-bench capture` made; without
//! any, a guest that is made up here.
//!
//! What is counted is what would cross the wire: frames with their headers and fields, and an acknowledgement for each batch.
//! Nothing here waits for acknowledgements, because no reference is a guess: that they come late changes neither size nor speed.

mod guest;

use std::collections::HashSet;
use std::hint::black_box;
use std::time::{Duration, Instant as Wall};

use bytes::BytesMut;
use novacron_protocol::hypervisor::synthetic::{MainStream, Noise};
use novacron_protocol::hypervisor::{Parser, Span};
use novacron_protocol::limits::{BATCH_BYTES_MAX, PAGE_BYTES};
use novacron_protocol::page::{
    Assembler, BatchEncoder, Bodies, Choice, DecoderMemory, Effort, EncodedBatch, EncoderMemory, LaneDecoder,
    LaneTerms,
};
use novacron_protocol::time::{Clock, Instant};
use novacron_protocol::wire::{BATCH_FIELDS_BYTES, FRAME_HEADER_BYTES};
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, zstd_sys::ZSTD_EndDirective};

/// Of each file, so much is read: it and what becomes of it stay in memory.
const STREAM_BYTES_MAX: u64 = 1 << 30;

/// Fields of a part, and of an index beside the batch's.
const PART_FIELDS_BYTES: usize = 16;
/// A progress frame with one entry.
const ACKNOWLEDGEMENT_BYTES: usize = FRAME_HEADER_BYTES + 1 + 26;

struct Monotonic(Wall);

impl Clock for Monotonic {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A setting of the codec.
#[derive(Clone, Copy)]
struct Setting {
    effort: Effort,
    lanes: u16,
    terms: Option<LaneTerms>,
}

/// What a setting made of a stream.
struct Outcome {
    wire_bytes: usize,
    encoding: Duration,
    decoding: Duration,
    held_bytes: (u64, u64),
    tally: novacron_protocol::page::Tally,
}

/// What a batch became where it does not travel as it is: an index, and parts with their lanes.
type Structured = (Vec<u8>, Vec<(usize, Vec<u8>)>);

/// A stream in batches, as a gateway would read it.
struct Stream {
    bytes: Vec<u8>,
    batches: Vec<(usize, usize, Vec<Span>)>,
    /// Page bodies, and of them those of pages that were sent before.
    pages: (usize, usize),
    distinct_pages: usize,
}

fn cut(bytes: Vec<u8>) -> Stream {
    let (mut parser, mut batches, mut at) = (Parser::new(), Vec::new(), 0);
    let (mut seen, mut pages, mut again) = (HashSet::new(), 0, 0);
    while at < bytes.len() {
        let end = (at + BATCH_BYTES_MAX).min(bytes.len());
        let mut spans = Vec::new();
        let last = end == bytes.len();
        let taken = match parser.parse(&bytes[at..end], !last, &mut spans) {
            0 => {
                spans = vec![Span::Opaque { len: (end - at) as u32 }];
                end - at
            }
            taken => taken,
        };
        for span in &spans {
            let (block, first, count) = match *span {
                Span::PageRecords { block, first_word, count } => (block, first_word, count),
                Span::PageBodies { block, offset, count } => (block, offset, count),
                Span::ZeroRecords { .. } | Span::Opaque { .. } => continue,
            };
            for page in 0..u64::from(count) {
                pages += 1;
                again += usize::from(!seen.insert((block, first / PAGE_BYTES as u64 + page)));
            }
        }
        batches.push((at, at + taken, spans));
        at += taken;
    }
    Stream { bytes, batches, pages: (pages, again), distinct_pages: seen.len() }
}

/// Through encoder and decoder; every byte is compared, and digested as a session does it.
fn replay(stream: &Stream, setting: Setting) -> Outcome {
    let clock = Monotonic(Wall::now());
    let Setting { effort, lanes, terms } = setting;
    let mut encoder = match terms {
        Some(terms) => BatchEncoder::remembering(lanes, terms),
        None => BatchEncoder::new(lanes),
    };
    let mut memories: Vec<Option<DecoderMemory>> =
        (0..lanes).map(|_| terms.map(DecoderMemory::new)).collect();
    let (mut assembler, mut decoder) = (Assembler::new(), LaneDecoder::new());
    let (mut ours, mut theirs) = (blake3::Hasher::new(), blake3::Hasher::new());
    let mut outcome = Outcome {
        wire_bytes: 0,
        encoding: Duration::ZERO,
        decoding: Duration::ZERO,
        held_bytes: (0, 0),
        tally: Default::default(),
    };
    let mut encoded = EncodedBatch::default();
    let mut sent: Vec<Option<Structured>> = Vec::new();
    let began = processor_time();
    for (begin, end, spans) in &stream.batches {
        let batch = &stream.bytes[*begin..*end];
        ours.update(batch);
        let choice = encoder.encode(batch, spans, effort, &clock, &mut encoded);
        outcome.tally.join(&encoded.tally);
        outcome.wire_bytes += FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES + ACKNOWLEDGEMENT_BYTES;
        if choice != Choice::Structured {
            outcome.wire_bytes += batch.len();
            sent.push(None);
            continue;
        }
        let parts: Vec<_> =
            encoded.parts.iter().map(|part| (usize::from(part.lane.0), part.payload.clone())).collect();
        outcome.wire_bytes += encoded.index.len() + 2;
        outcome.wire_bytes +=
            parts.iter().map(|part| part.1.len() + FRAME_HEADER_BYTES + PART_FIELDS_BYTES + 2).sum::<usize>();
        sent.push(Some((encoded.index.clone(), parts)));
    }
    outcome.encoding = processor_time() - began;

    let mut decoded = vec![Vec::new(); usize::from(lanes)];
    let mut restored = BytesMut::new();
    let began = processor_time();
    for ((begin, end, _), sent) in stream.batches.iter().zip(&sent) {
        let batch = &stream.bytes[*begin..*end];
        let Some((index, parts)) = sent else {
            theirs.update(batch);
            continue;
        };
        decoded.iter_mut().for_each(Vec::clear);
        for (lane, part) in parts {
            decoder
                .decode(part, 66, memories[*lane].as_mut(), &mut decoded[*lane])
                .expect("what was just encoded");
        }
        let mut bodies: Vec<Bodies<'_>> = decoded.iter().map(|bytes| Bodies::new(bytes)).collect();
        assembler.assemble(index, &mut bodies, batch.len(), &mut restored).expect("what was just encoded");
        theirs.update(&restored);
    }
    outcome.decoding = processor_time() - began;
    assert_eq!(ours.finalize(), theirs.finalize(), "the stream did not come back");
    outcome.held_bytes = (
        encoder.memories().iter().map(EncoderMemory::held_bytes).sum(),
        memories.iter().flatten().map(DecoderMemory::held_bytes).sum(),
    );
    outcome
}

/// Time that this thread has had a processor: others on the machine do not count.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = statistics.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the kernel counts a thread's time"))
}

/// zstd over the whole stream: bytes, and how long it took.
fn zstd(bytes: &[u8], level: i32, long: Option<u32>) -> (usize, Duration) {
    let mut context = CCtx::create();
    let mut set = |parameter| {
        context.set_parameter(parameter).expect("a parameter that zstd has");
    };
    set(CParameter::CompressionLevel(level));
    if let Some(log) = long {
        set(CParameter::EnableLongDistanceMatching(true));
        set(CParameter::WindowLog(log));
    }
    let (began, mut total) = (processor_time(), 0);
    let mut out = vec![0; 1 << 20];
    for chunk in bytes.chunks(1 << 20) {
        let mut input = InBuffer::around(chunk);
        while input.pos() < chunk.len() {
            let mut output = OutBuffer::around(&mut out[..]);
            context
                .compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_continue)
                .expect("zstd compresses");
            total += output.pos();
        }
    }
    loop {
        let mut output = OutBuffer::around(&mut out[..]);
        let left = context
            .compress_stream2(&mut output, &mut InBuffer::around(&[]), ZSTD_EndDirective::ZSTD_e_end)
            .expect("zstd ends");
        total += output.pos();
        if left == 0 {
            return (total, processor_time() - began);
        }
    }
}

/// Copying from memory to memory, the best of three.
fn memcpy(bytes: &[u8]) -> Duration {
    let mut to = vec![1u8; 64 * BATCH_BYTES_MAX];
    let once = || {
        let began = processor_time();
        for chunk in bytes.chunks(to.len()) {
            to[..chunk.len()].copy_from_slice(black_box(chunk));
        }
        black_box(&mut to);
        processor_time() - began
    };
    std::iter::repeat_with(once).take(3).min().unwrap_or_default()
}

/// A guest of 40 MB that is sent in passes, of which the later change few bytes of some pages.
fn made_up() -> Vec<u8> {
    let mut noise = Noise::new(7);
    let mut pages: Vec<[u8; PAGE_BYTES]> = (0..10_000).map(|_| guest::page(&mut noise)).collect();
    let mut stream = MainStream::new("pc-q35-10.0");
    stream.ram_start(&[("pc.ram", (pages.len() * PAGE_BYTES) as u64)]);
    for pass in 0..8usize {
        stream.ram_part(pass == 7);
        for (number, page) in pages.iter_mut().enumerate() {
            if pass > 0 && number % 3 != pass % 3 {
                continue;
            }
            page[number % 4000..][..8].copy_from_slice(&(pass as u64).to_le_bytes());
            stream.page("pc.ram", (number * PAGE_BYTES) as u64, page);
        }
        stream.end_ram();
    }
    stream.into_bytes()
}

fn speed(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e6
}

fn figures(name: &str, stream: &Stream, budget: u64) {
    let raw = stream.bytes.len();
    let (pages, again) = stream.pages;
    println!(
        "\n{name}: {:.1} MB in {} batches, {pages} pages with content, {:.0} % of them sent before, {:.1} MB distinct",
        raw as f64 / 1e6,
        stream.batches.len(),
        again as f64 * 100.0 / pages.max(1) as f64,
        (stream.distinct_pages * PAGE_BYTES) as f64 / 1e6,
    );
    let copy = memcpy(&stream.bytes);
    println!("  {:<34}{:>10}  {:>8.0} MB/s", "memcpy", "", speed(raw, copy));
    let (one, one_time) = zstd(&stream.bytes, 1, None);
    println!("  {:<34}{:>10.2} MB{:>6.0} MB/s", "zstd -1", one as f64 / 1e6, speed(raw, one_time));
    let (long, long_time) = zstd(&stream.bytes, 3, Some(30));
    println!(
        "  {:<34}{:>10.2} MB{:>6.0} MB/s",
        "zstd -3 --long=30",
        long as f64 / 1e6,
        speed(raw, long_time)
    );
    let level = |level| Effort::Zstd { level };
    let of = |bytes: u64, lanes| LaneTerms::of(bytes, lanes);
    let plenty = 2 * (stream.distinct_pages as u64 * 4192) + (64 << 20);
    let quarter = stream.distinct_pages as u64 * PAGE_BYTES as u64 / 4;
    for (what, setting) in [
        ("no memory, zstd 1", Setting { effort: level(1), lanes: 1, terms: None }),
        ("default, lz4", Setting { effort: Effort::Lz4, lanes: 1, terms: of(budget, 1) }),
        ("default, zstd -5", Setting { effort: level(-5), lanes: 1, terms: of(budget, 1) }),
        ("default, zstd 1", Setting { effort: level(1), lanes: 1, terms: of(budget, 1) }),
        ("default, zstd 3", Setting { effort: level(3), lanes: 1, terms: of(budget, 1) }),
        ("default, zstd 9", Setting { effort: level(9), lanes: 1, terms: of(budget, 1) }),
        ("plenty, 1 lane, zstd 3", Setting { effort: level(3), lanes: 1, terms: of(plenty, 1) }),
        ("default, 4 lanes, zstd 3", Setting { effort: level(3), lanes: 4, terms: of(budget, 4) }),
        ("plenty, 8 lanes, zstd 3", Setting { effort: level(3), lanes: 8, terms: of(plenty, 8) }),
        ("a quarter of the pages, zstd 3", Setting { effort: level(3), lanes: 1, terms: of(quarter, 1) }),
        (
            "default without window, zstd 3",
            Setting {
                effort: level(3),
                lanes: 1,
                terms: of(budget, 1).map(|terms| LaneTerms { window_log: None, ..terms }),
            },
        ),
    ] {
        let out = replay(stream, setting);
        let tally = out.tally;
        println!(
            "  {what:<34}{:>10.2} MB{:>6.0} MB/s, {:>5.2}x zstd -1; {:>5.2}x size of zstd -3 --long=30; decoding {:>5.0} MB/s, \
             {:.2}x memcpy; holds {} and {} MB; same {} delta {} whole {} uniform {}; comparing {} ms, zstd {} ms",
            out.wire_bytes as f64 / 1e6,
            speed(raw, out.encoding),
            one_time.as_secs_f64() / out.encoding.as_secs_f64(),
            out.wire_bytes as f64 / long as f64,
            speed(raw, out.decoding),
            copy.as_secs_f64() / out.decoding.as_secs_f64(),
            out.held_bytes.0 >> 20,
            out.held_bytes.1 >> 20,
            tally.unchanged_pages,
            tally.delta_pages,
            tally.whole_pages,
            tally.uniform_pages,
            tally.memory_ns / 1_000_000,
            tally.zstd_ns / 1_000_000,
        );
    }
}

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    // As `cargo bench -- --test` and `cargo test --benches` call it: that it runs is enough.
    let trial = std::env::args().any(|argument| argument == "--test");
    let budget = novacron_protocol::limits::MEMORY_BYTES_DEFAULT;
    if trial || named.is_empty() {
        let bytes = made_up();
        println!("no capture was named: a guest that is made up");
        figures("made up", &cut(bytes), budget);
        return;
    }
    for name in named {
        use std::io::Read;
        let mut bytes = Vec::new();
        let read =
            std::fs::File::open(&name).and_then(|file| file.take(STREAM_BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => figures(&name, &cut(bytes), budget),
            Err(error) => eprintln!("{name} cannot be read: {error}"),
        }
    }
}
