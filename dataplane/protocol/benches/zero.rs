//! How fast zero pages are told from others, beside copying the same bytes. `cargo bench -p novacron-protocol --bench zero`.

mod guest;
mod timing;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use novacron_protocol::hypervisor::synthetic::Noise;
use novacron_protocol::limits::{BATCH_BYTES_MAX, PAGE_BYTES};
use novacron_protocol::page::is_zero;

fn zero(c: &mut Criterion) {
    let mut group = timing::group(c, "zero");
    // Written once: memory that was never touched is one zero page, mapped everywhere and always in cache.
    let mut zeros = vec![1u8; 64 * BATCH_BYTES_MAX];
    zeros.fill(black_box(0));
    group.throughput(Throughput::BytesDecimal(BATCH_BYTES_MAX as u64));
    group.bench_function("memcpy, in cache", |b| {
        let mut to = vec![0u8; BATCH_BYTES_MAX];
        b.iter(|| to.copy_from_slice(black_box(&zeros[..BATCH_BYTES_MAX])));
    });
    for (name, bytes) in [("in cache", BATCH_BYTES_MAX), ("16 MiB", zeros.len())] {
        group.throughput(Throughput::BytesDecimal(bytes as u64));
        group.bench_function(format!("zero pages, {name}"), |b| {
            let pages = || zeros[..bytes].chunks_exact(PAGE_BYTES);
            b.iter(|| pages().filter(|page| is_zero(black_box(page))).count());
        });
    }

    // The worst page that is not zero: only its last byte says so.
    let mut late = zeros[..BATCH_BYTES_MAX].to_vec();
    late.iter_mut().skip(PAGE_BYTES - 1).step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
    let mut noise = Noise::new(7);
    let guest: Vec<u8> = (0..BATCH_BYTES_MAX / PAGE_BYTES).flat_map(|_| guest::page(&mut noise)).collect();
    group.throughput(Throughput::BytesDecimal(BATCH_BYTES_MAX as u64));
    for (name, pages) in [("pages whose last byte is not zero", &late), ("a guest's pages", &guest)] {
        group.bench_function(name, |b| {
            b.iter(|| pages.chunks_exact(PAGE_BYTES).filter(|page| is_zero(black_box(page))).count());
        });
    }
    group.finish();
}

criterion_group!(benches, zero);
criterion_main!(benches);
