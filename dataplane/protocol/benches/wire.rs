//! Frames: writing what opens them and reading it back. Bytes are those of the whole frame; a batch's own bytes are in place
//! already, so what opens a batch must cost next to nothing beside moving it. `cargo bench -p novacron-protocol --bench wire`.

mod timing;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use novacron_protocol::limits::{BATCH_BYTES_MAX, PROGRESS_ENTRIES_MAX};
use novacron_protocol::wire::{
    BATCH_FIELDS_BYTES, BatchFields, Cursor, FRAME_HEADER_BYTES, FrameHeader, Kind, Lane, Progress,
    ProgressEntry,
};

const SESSION: u64 = 0x5eed;

fn wire(c: &mut Criterion) {
    let mut group = timing::group(c, "wire");
    let header = |sequence| FrameHeader {
        kind: Kind::Batch,
        lane: Lane::Connection(3),
        session: SESSION,
        epoch: 1,
        sequence,
    };
    let mut bytes = [0; FRAME_HEADER_BYTES];
    group.throughput(Throughput::BytesDecimal(FRAME_HEADER_BYTES as u64));
    group.bench_function("write a header", |b| {
        b.iter(|| black_box(header(7)).write(0, black_box(&mut bytes)));
    });
    header(7).write(0, &mut bytes);
    assert_eq!(FrameHeader::read(&bytes), Ok(header(7)));
    group.bench_function("read a header", |b| b.iter(|| FrameHeader::read(black_box(&bytes))));

    let fields = BatchFields { position: 1 << 40, length: BATCH_BYTES_MAX as u32, digest: [0x5a; 32] };
    let mut frame = vec![0x33; FRAME_HEADER_BYTES + BATCH_FIELDS_BYTES + BATCH_BYTES_MAX];
    group.throughput(Throughput::BytesDecimal(frame.len() as u64));
    let payload = frame.len() - FRAME_HEADER_BYTES;
    group.bench_function("open a batch that is in place", |b| {
        b.iter(|| {
            let (front, rest) = black_box(&mut frame).split_at_mut(FRAME_HEADER_BYTES);
            black_box(header(7)).write(payload, front);
            rest[..BATCH_FIELDS_BYTES].copy_from_slice(&black_box(fields).to_bytes());
        });
    });
    let read = |frame: &[u8]| {
        let header = FrameHeader::read(frame).expect("what was just written");
        let mut cursor = Cursor::new(&frame[FRAME_HEADER_BYTES..]);
        (header, BatchFields::take(&mut cursor).expect("what was just written"))
    };
    assert_eq!(read(&frame), (header(7), fields));
    group.bench_function("read what opens a batch", |b| b.iter(|| read(black_box(&frame))));

    for count in [1, PROGRESS_ENTRIES_MAX] {
        let entry =
            |connection| ProgressEntry { connection, verified_frames: 9, consumed: 1 << 33, limit: 1 << 34 };
        let progress = Progress { entries: (0..count as u16).map(entry).collect() };
        let frame = progress.to_frame(SESSION, 1);
        let read = |frame: &[u8]| {
            FrameHeader::read(frame).expect("what was just written");
            Progress::read(&frame[FRAME_HEADER_BYTES..]).expect("what was just written")
        };
        assert_eq!(read(&frame), progress);
        group.throughput(Throughput::BytesDecimal(frame.len() as u64));
        group.bench_function(format!("write progress of {count}"), |b| {
            b.iter(|| black_box(&progress).to_frame(SESSION, 1));
        });
        group.bench_function(format!("read progress of {count}"), |b| b.iter(|| read(black_box(&frame))));
    }
    group.finish();
}

criterion_group!(benches, wire);
criterion_main!(benches);
