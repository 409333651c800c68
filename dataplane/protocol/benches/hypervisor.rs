//! Hypervisor streams: finding the pages, and making the stream again from what was found. Bytes are the stream's.
//! `cargo bench -p novacron-protocol --bench hypervisor`.

mod timing;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use novacron_protocol::hypervisor::synthetic::{MultifdStream, Noise, Piece, Plan, walk};
use novacron_protocol::hypervisor::{BlockId, PageSource, Parser, Span, WORD_BYTES, assemble};
use novacron_protocol::limits::{BATCH_BYTES_MAX, MULTIFD_PACKET_PAGES, PAGE_BYTES};

/// Pages of a stream: 32 MiB, beyond what caches hold.
const PAGES: u64 = 8192;

/// A multifd connection that carries every second page, as with two of them.
fn multifd() -> Vec<u8> {
    let mut noise = Noise::new(11);
    let mut stream = MultifdStream::new(0);
    let offsets: Vec<u64> = (0..PAGES).map(|page| page * PAGE_BYTES as u64).collect();
    for packet in offsets.chunks(2 * MULTIFD_PACKET_PAGES) {
        let ours = &packet[..packet.len().min(MULTIFD_PACKET_PAGES)];
        let pages: Vec<_> = ours.iter().map(|offset| (*offset, noise.page())).collect();
        stream.packet("pc.ram", &pages, &[]);
    }
    stream.sync();
    stream.into_bytes()
}

/// The pages of a stream in its order.
struct InOrder<'a> {
    pages: &'a [[u8; PAGE_BYTES]],
    next: usize,
}

impl PageSource for InOrder<'_> {
    fn page(&mut self, _: BlockId, _: u64) -> Option<&[u8; PAGE_BYTES]> {
        self.next += 1;
        self.pages.get(self.next - 1)
    }
}

/// A stream taken apart along its spans.
fn apart(stream: &[u8], spans: &[Span]) -> (Vec<u8>, Vec<[u8; PAGE_BYTES]>) {
    let (mut literals, mut pages, mut at) = (Vec::new(), Vec::new(), 0);
    for span in spans {
        let (now, word) = (&stream[at..at + span.len()], WORD_BYTES);
        match span {
            Span::Opaque { .. } => literals.extend_from_slice(now),
            Span::PageRecords { .. } => {
                let records = now.chunks_exact(word + PAGE_BYTES);
                pages.extend(
                    records.map(|record| *record[word..].first_chunk::<PAGE_BYTES>().expect("a record")),
                );
            }
            Span::PageBodies { .. } => pages.extend(now.as_chunks::<PAGE_BYTES>().0),
            Span::ZeroRecords { .. } => {}
        }
        at += span.len();
    }
    (literals, pages)
}

fn hypervisor(c: &mut Criterion) {
    let mut group = timing::group(c, "hypervisor");
    let streams = [
        ("main stream", Plan::filled(PAGES, 0, 5).build()),
        ("main stream, every second page zero", Plan::filled(PAGES, 2, 5).build()),
        ("main stream, only zero pages", Plan::filled(PAGES, 1, 5).build()),
        ("multifd", multifd()),
    ];
    // As ingress reads: batch by batch, an incomplete record in front of the next one.
    let batches = [Piece { bytes: BATCH_BYTES_MAX, more: true }];
    for (name, stream) in &streams {
        group.throughput(Throughput::BytesDecimal(stream.len() as u64));
        group.bench_function(format!("parse {name}"), |b| {
            b.iter(|| walk(&mut Parser::new(), black_box(stream), &batches).len());
        });

        let spans = walk(&mut Parser::new(), stream, &batches);
        let (literals, pages) = apart(stream, &spans);
        assert!(!pages.is_empty() || name.contains("only zero"), "{name}: the parser found no page");
        let mut out = Vec::new();
        group.bench_function(format!("write {name}"), |b| {
            b.iter(|| {
                out.clear();
                let mut source = InOrder { pages: &pages, next: 0 };
                assemble(black_box(&spans), &literals, &mut source, stream.len(), &mut out)
                    .expect("what was parsed");
            });
        });
        assert!(out == *stream, "{name}: what is written is what was parsed");
    }
    group.finish();
}

criterion_group!(benches, hypervisor);
criterion_main!(benches);
