//! The page codec's speed, in guest bytes. `cargo bench -p novacron-protocol --bench page`.

mod guest;
mod timing;

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use novacron_protocol::hypervisor::synthetic::Noise;
use novacron_protocol::hypervisor::{PAGE_RECORD_BYTES, Span};
use novacron_protocol::limits::{BATCH_BYTES_MAX, PAGE_BYTES, ZSTD_LEVEL_DEFAULT, ZSTD_LEVEL_MIN};
use novacron_protocol::page::{
    Assembler, BatchEncoder, Bodies, Choice, Effort, EncodedBatch, LaneDecoder, RawReason,
};
use novacron_protocol::time::Instant;

const LANES: u16 = 4;
const FIRST_WORD: u64 = 0x4000_0028;

/// A batch of page records.
fn batch(mut page: impl FnMut(&mut Noise) -> [u8; PAGE_BYTES]) -> (Vec<u8>, Span) {
    let mut noise = Noise::new(7);
    let count = BATCH_BYTES_MAX / PAGE_RECORD_BYTES;
    let mut batch = Vec::new();
    for i in 0..count {
        batch.extend_from_slice(&(FIRST_WORD + (i * PAGE_BYTES) as u64).to_be_bytes());
        batch.extend_from_slice(&page(&mut noise));
    }
    (batch, Span::PageRecords { block: Default::default(), first_word: FIRST_WORD, count: count as u32 })
}

fn codec(c: &mut Criterion) {
    let mut group = timing::group(c, "page");
    let mut encoder = BatchEncoder::new(LANES);
    let mut out = EncodedBatch::default();
    let zstd = |level| Effort::Zstd { level };

    let (noise, span) = batch(Noise::page);
    group.throughput(Throughput::BytesDecimal(noise.len() as u64));
    for (name, effort) in [("none", Effort::Raw), ("lz4", Effort::Lz4), ("zstd 1", zstd(1))] {
        assert!(matches!(encoder.encode(&noise, &[span], effort, &Instant::START, &mut out), Choice::Raw(_)));
        group.bench_function(format!("pass by random pages, {name}"), |b| {
            b.iter(|| encoder.encode(black_box(&noise), &[span], effort, &Instant::START, &mut out));
        });
    }

    let (pages, span) = batch(guest::page);
    assert_eq!(
        encoder.encode(&pages, &[span], Effort::Raw, &Instant::START, &mut out),
        Choice::Raw(RawReason::Effort)
    );
    group.bench_function("encode a guest's pages, none", |b| {
        b.iter(|| encoder.encode(black_box(&pages), &[span], Effort::Raw, &Instant::START, &mut out));
    });
    let (zeros, _) = batch(|_| [0; PAGE_BYTES]);
    for (contents, bytes, effort, name) in [
        ("a guest's pages", &pages, Effort::Lz4, "lz4".to_owned()),
        ("a guest's pages", &pages, zstd(ZSTD_LEVEL_MIN), format!("zstd {ZSTD_LEVEL_MIN}")),
        ("a guest's pages", &pages, zstd(1), "zstd 1".to_owned()),
        ("a guest's pages", &pages, zstd(ZSTD_LEVEL_DEFAULT), format!("zstd {ZSTD_LEVEL_DEFAULT}")),
        ("a guest's pages", &pages, zstd(9), "zstd 9".to_owned()),
        ("zero pages", &zeros, Effort::Lz4, "lz4".to_owned()),
    ] {
        assert_eq!(encoder.encode(bytes, &[span], effort, &Instant::START, &mut out), Choice::Structured);
        let encoded = out.tally.encoded_bytes as f64 / bytes.len() as f64;
        println!("{contents}, {name}: {} parts, {:.1} % of the batch", out.parts.len(), encoded * 100.0);
        group.bench_function(format!("encode {contents}, {name}"), |b| {
            b.iter(|| encoder.encode(black_box(bytes), &[span], effort, &Instant::START, &mut out));
        });
        let (mut decoder, mut assembler) = (LaneDecoder::new(), Assembler::new());
        let mut bodies = vec![Vec::new(); usize::from(LANES)];
        let mut restored = BytesMut::new();
        group.bench_function(format!("decode and assemble {contents}, {name}"), |b| {
            b.iter(|| {
                for part in &out.parts {
                    let bodies = &mut bodies[usize::from(part.lane.0)];
                    decoder
                        .decode(black_box(&part.payload), 64, None, bodies)
                        .expect("what was just encoded");
                }
                let mut parts: [Bodies<'_>; LANES as usize] =
                    std::array::from_fn(|lane| Bodies::new(&bodies[lane]));
                assembler
                    .assemble(&out.index, &mut parts, bytes.len(), &mut restored)
                    .expect("what was just encoded");
            });
        });
        assert!(restored == *bytes, "{contents}, {name}");
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
