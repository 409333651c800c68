//! The running digest of a connection, batch by batch, as both sides compute it. `cargo bench -p novacron-protocol --bench
//! digest`.

mod guest;
mod timing;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use novacron_protocol::hypervisor::synthetic::Noise;
use novacron_protocol::limits::{BATCH_BYTES_MAX, BATCH_BYTES_MIN, PAGE_BYTES};

fn digest(c: &mut Criterion) {
    let mut group = timing::group(c, "digest");
    let mut noise = Noise::new(7);
    let bytes: Vec<u8> = (0..BATCH_BYTES_MAX / PAGE_BYTES).flat_map(|_| guest::page(&mut noise)).collect();
    for (name, length) in
        [("largest batches", BATCH_BYTES_MAX), ("smallest batches", BATCH_BYTES_MIN as usize)]
    {
        group.throughput(Throughput::BytesDecimal(length as u64));
        group.bench_function(format!("running BLAKE3, {name}"), |b| {
            // It runs on from batch to batch, and each batch carries where it stands.
            let mut hasher = blake3::Hasher::new();
            b.iter(|| hasher.update(black_box(&bytes[..length])).finalize());
        });
    }
    group.finish();
}

criterion_group!(benches, digest);
criterion_main!(benches);
