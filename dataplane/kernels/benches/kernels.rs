//! How fast the kernels read pages, beside copying them. `cargo bench -p novacron-kernels`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use novacron_kernels::{NO_BYTE, PAGE_BYTES, Page, differences, is_zero, repeated_word, scalar};

/// Pages that are compared one after the other: more than a processor's nearest cache holds.
const PAGES: usize = 256;

fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels");
    group.throughput(Throughput::BytesDecimal((PAGES * PAGE_BYTES) as u64));
    let zeros: Vec<Page> = vec![[0; PAGE_BYTES]; PAGES];
    let a: Vec<Page> = vec![[7; PAGE_BYTES]; PAGES];
    let mut b = a.clone();
    b.iter_mut().for_each(|page| page[2049] = 8);

    group.bench_function("memcpy", |bench| {
        let mut to = zeros.clone();
        bench.iter(|| to.copy_from_slice(black_box(&a)));
    });
    group.bench_function("is zero", |bench| {
        bench.iter(|| zeros.iter().filter(|page| is_zero(black_box(*page))).count());
    });
    group.bench_function("is zero, scalar", |bench| {
        bench.iter(|| zeros.iter().filter(|page| scalar::is_zero(black_box(*page))).count());
    });
    group.bench_function("repeated word", |bench| {
        bench.iter(|| a.iter().filter_map(|page| repeated_word(black_box(page))).count());
    });
    group.bench_function("repeated word, scalar", |bench| {
        bench.iter(|| a.iter().filter_map(|page| scalar::repeated_word(black_box(page))).count());
    });
    let mut mask = NO_BYTE;
    group.bench_function("differences", |bench| {
        bench.iter(|| a.iter().zip(&b).map(|(a, b)| differences(black_box(a), b, &mut mask)).sum::<u32>());
    });
    group.bench_function("differences, scalar", |bench| {
        bench.iter(|| {
            a.iter().zip(&b).map(|(a, b)| scalar::differences(black_box(a), b, &mut mask)).sum::<u32>()
        });
    });
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
