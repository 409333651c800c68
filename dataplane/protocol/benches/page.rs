//! The page codec's speed, in guest bytes. `cargo bench -p novacron-protocol --bench page`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use novacron_protocol::hypervisor::{BlockId, Span};
use novacron_protocol::limits::{BATCH_BYTES_MAX, PAGE_BYTES};
use novacron_protocol::page::{
    Assembler, BatchEncoder, Bodies, Choice, Effort, EncodedBatch, LaneDecoder, is_zero,
};

const LANES: u16 = 4;
const FIRST_WORD: u64 = 0x4000_0028;

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A batch of page records: half of each page is records of small integers and pointers, a quarter is words of
/// text, a quarter is noise; it compresses about as well as what a busy guest sends.
fn guest_batch(incompressible: bool) -> (Vec<u8>, Span) {
    const WORDS: [&[u8]; 6] = [b"connection ", b"the ", b"lane ", b"value: ", b"\"key\": ", b"\n  "];
    let mut next = random(7);
    let count = BATCH_BYTES_MAX / (PAGE_BYTES + 8);
    let mut batch = Vec::new();
    for i in 0..count {
        batch.extend_from_slice(&(FIRST_WORD + (i * PAGE_BYTES) as u64).to_be_bytes());
        let mut page = Vec::new();
        while page.len() < PAGE_BYTES {
            match if incompressible { 3 } else { page.len() / (PAGE_BYTES / 4) } {
                0 | 1 => {
                    page.extend_from_slice(&(next() % 512).to_le_bytes());
                    page.extend_from_slice(&(0x7f3a_0000_0000 | (next() & 0xfff8)).to_le_bytes());
                }
                2 => page.extend_from_slice(WORDS[(next() >> 32) as usize % WORDS.len()]),
                _ => page.extend_from_slice(&next().to_le_bytes()),
            }
        }
        page.truncate(PAGE_BYTES);
        batch.extend_from_slice(&page);
    }
    let span = Span::PageRecords { block: BlockId(0), first_word: FIRST_WORD, count: count as u32 };
    (batch, span)
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("page");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(20);

    // Written once: memory that was never touched is one zero page, mapped everywhere and always in cache.
    let mut zeros = vec![1u8; 64 * BATCH_BYTES_MAX];
    zeros.fill(black_box(0));
    group.throughput(Throughput::Bytes(BATCH_BYTES_MAX as u64));
    group.bench_function("memcpy", |b| {
        let mut to = vec![0u8; BATCH_BYTES_MAX];
        b.iter(|| to.copy_from_slice(black_box(&zeros[..BATCH_BYTES_MAX])));
    });
    for (name, bytes) in [("in cache", BATCH_BYTES_MAX), ("16 MiB", zeros.len())] {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("is_zero, zero pages, {name}"), |b| {
            let pages = || zeros[..bytes].chunks_exact(PAGE_BYTES);
            b.iter(|| pages().filter(|page| is_zero(black_box(page))).count());
        });
    }

    let (noise, span) = guest_batch(true);
    let mut encoder = BatchEncoder::new(LANES);
    let mut out = EncodedBatch::default();
    group.throughput(Throughput::Bytes(noise.len() as u64));
    for (name, effort) in [("lz4", Effort::Lz4), ("zstd", Effort::Zstd { level: 1 })] {
        assert!(matches!(encoder.encode(&noise, &[span], effort, &mut out), Choice::Raw(_)));
        group.bench_function(format!("decide raw, random pages, {name}"), |b| {
            b.iter(|| encoder.encode(black_box(&noise), &[span], effort, &mut out));
        });
    }

    let (batch, span) = guest_batch(false);
    group.throughput(Throughput::Bytes(batch.len() as u64));
    for (name, effort) in
        [("lz4", Effort::Lz4), ("zstd 1", Effort::Zstd { level: 1 }), ("zstd 3", Effort::Zstd { level: 3 })]
    {
        assert_eq!(encoder.encode(&batch, &[span], effort, &mut out), Choice::Structured);
        let encoded = out.tally.encoded_bytes as f64 / batch.len() as f64;
        println!("{name}: {} parts, {:.1} % of the batch", out.parts.len(), encoded * 100.0);
        group.bench_function(format!("encode {name}"), |b| {
            b.iter(|| encoder.encode(black_box(&batch), &[span], effort, &mut out));
        });
        let (mut decoder, mut assembler) = (LaneDecoder::new(), Assembler::new());
        let mut bodies = vec![Vec::new(); usize::from(LANES)];
        let mut restored = Vec::new();
        group.bench_function(format!("decode and assemble {name}"), |b| {
            b.iter(|| {
                for part in &out.parts {
                    let bodies = &mut bodies[usize::from(part.lane.0)];
                    decoder.decode(black_box(&part.payload), 64, bodies).expect("what was just encoded");
                }
                let mut parts: [Bodies<'_>; LANES as usize] =
                    std::array::from_fn(|lane| Bodies::new(&bodies[lane]));
                assembler
                    .assemble(&out.index, &mut parts, batch.len(), &mut restored)
                    .expect("what was just encoded");
            });
        });
        assert!(restored == batch);
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
