//! Writes the kept seeds of the targets whose inputs are made by code: `cargo run --bin seeds` in this directory.
//!
//! They are few and small on purpose: each leads the fuzzer to a place that it would not find soon by itself. What
//! it finds from there stays in `target/fuzz` and is not kept; what once failed is kept in `corpus` by hand.

use bytes::Bytes;
use novacron_fuzz::page::{BATCH, DAMAGED, INDEX, MEMORY_PART, PART, REMEMBERED};
use novacron_fuzz::session as script;
use novacron_protocol::hypervisor::{BlockId, Span};
use novacron_protocol::page::{BatchEncoder, Effort, EncodedBatch};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{
    Accept, BatchFields, ConnectionOpen, FRAME_HEADER_BYTES, FrameHeader, Hello, HelloRefuse, Identity,
    IndexFields, Kind, Lane, Open, PartFields, Progress, ProgressEntry, Reason, ReasonCode, RefuseCode,
    Wanted, answer_hello,
};
use std::path::Path;

fn keep(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

fn wire() -> std::io::Result<()> {
    let identity = Identity { gateway: [1; 16], instance: [2; 16] };
    let hello = Hello { auth: vec![9; 20], ..Hello::new(identity, 3, [3; 16]) };
    let refuse = HelloRefuse::new(RefuseCode::Version, "neither speaks what the other does");
    let accept = answer_hello(&hello.to_frame(), identity, [4; 16]).map(|(_, accept)| accept.to_frame());
    let open = Open {
        lanes: 4,
        digest: true,
        connections_max: 16,
        receive_window: 1 << 25,
        memory_bytes: 1 << 28,
        outage_ms: 60_000,
        resume: false,
        proof: [7; 32],
    };
    let entry = |connection| ProgressEntry { connection, verified_frames: 3, consumed: 4000, limit: 1 << 25 };
    let progress = Progress { entries: vec![entry(0), entry(1), entry(256)] };
    let header = FrameHeader { kind: Kind::Part, lane: Lane::Page(3), session: 7, epoch: 0, sequence: 9 };
    let mut part = vec![0; FRAME_HEADER_BYTES];
    header.write(0, &mut part);
    let fields = BatchFields { position: 1 << 40, length: 270_336, digest: [5; 32] };
    let mut index = vec![64];
    IndexFields { lanes: [0, 3, 63].into_iter().collect() }.put(&mut index);
    let mut of_batch = Vec::new();
    PartFields { connection: 256, batch: 77 }.put(&mut of_batch);
    let reason = Reason::new(ReasonCode::DigestMismatch, "bytes are not what the source wrote: \u{fffd}");

    let wanted = Wanted { part: PartFields { connection: 256, batch: 77 }, lane: 63, places: vec![0, 65] };

    let payload = |frame: &Bytes| frame[FRAME_HEADER_BYTES..].to_vec();
    let mut seeds = vec![
        (0, "header", part.clone()),
        (1, "header-repaired", part),
        (2, "hello", payload(&hello.to_frame())),
        (4, "hello-refuse", payload(&refuse.to_frame())),
        (5, "open", payload(&open.to_frame(7, 0))),
        (
            6,
            "accept",
            payload(
                &Accept {
                    receive_window: 1,
                    memory_bytes: 1 << 28,
                    content_key: [6; 32],
                    content_bytes: 1 << 27,
                    proof: [8; 32],
                }
                .to_frame(7, 0),
            ),
        ),
        (7, "reason", payload(&reason.to_frame(Kind::Fail, 7, 0))),
        (8, "progress", payload(&progress.to_frame(7, 0))),
        (9, "connection-open", payload(&ConnectionOpen { label: "main".into() }.to_frame(7, 0, 0))),
        (10, "batch-fields", fields.to_bytes().to_vec()),
        (11, "index-fields", index),
        (12, "part-fields", of_batch),
        (13, "first-frame", hello.to_frame().to_vec()),
        (14, "first-frame-repaired", hello.to_frame().to_vec()),
        (15, "want", payload(&wanted.to_want(7, 0))),
        (16, "repair", payload(&wanted.to_repair(&[3; 2 * 4096], 7, 0))),
    ];
    if let Ok(accept) = &accept {
        seeds.push((3, "hello-accept", payload(accept)));
    }
    for (reader, name, bytes) in seeds {
        keep("wire", name, &[&[reader][..], &bytes].concat())?;
    }
    Ok(())
}

fn page() -> std::io::Result<()> {
    // Pages with words, zero pages among them, and bytes that no parser knew.
    let mut batch = Vec::new();
    for page in 0..12u64 {
        batch.extend_from_slice(&(page << 12 | 0x28).to_be_bytes());
        batch.extend_from_slice(&[if page % 3 == 0 { 0 } else { page as u8 }; 4096]);
    }
    batch.extend_from_slice(&[b'x'; 700]);
    let spans =
        [Span::PageRecords { block: BlockId(0), first_word: 0x28, count: 12 }, Span::Opaque { len: 700 }];
    for (name, effort) in [("lz4", Effort::Lz4), ("zstd", Effort::Zstd { level: 1 })] {
        let mut encoded = EncodedBatch::default();
        BatchEncoder::new(1).encode(&batch, &spans, effort, &Instant::START, &mut encoded);
        for part in &encoded.parts {
            keep("page", &format!("part-{name}"), &[&[PART, 66][..], &part.payload].concat())?;
        }
        let (pages, bytes) = ((batch.len() / 4096) as u16, (batch.len() % 4096) as u16);
        let head = [&[INDEX, 1][..], &pages.to_le_bytes(), &bytes.to_le_bytes(), &[0]].concat();
        keep("page", &format!("index-{name}"), &[&head[..], &encoded.index].concat())?;
    }
    // A part whose pages are as they are.
    keep("page", "part-raw", &[&[PART, 2, 0, 0, 2, 0, 0b10][..], &[3; 4096]].concat())?;
    // Two batches of the same pages, the second changed: effort, damage, length, then pieces as below.
    let (one, two) = ([1, 6, 0x13, 5, 3, 3, 0x11, 1], [1, 6, 0x13, 5, 3, 3, 0x11, 2]);
    for (name, effort, damage) in [("lz4", 0, 0), ("zstd", 1, 0), ("damaged", 1, 0xf0)] {
        let batch = |pieces: &[u8; 8], damage| [&[effort, damage, 30, 4, 8][..], pieces].concat();
        let batches = [batch(&one, 0), batch(&one, 0), batch(&two, damage)].concat();
        keep("page", &format!("remembered-{name}"), &[&[REMEMBERED, 1, 0x41][..], &batches].concat())?;
    }
    // A page that is what it was, and one that was never sent.
    let same = |number| {
        [&[MEMORY_PART, 0, 1, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0][..], &[number, 1, 1 << 3 | 3]].concat()
    };
    keep("page", "memory-part-same", &same(4))?;
    keep("page", "memory-part-unknown", &same(40))?;
    // A page of which there is a fingerprint and a hash, for a lane with a content store and for one without.
    let known = [&[1, 0, 1, 0, 40, 0, 0, 0, 3, 0, 0, 0][..], &[7; 40], &[10, 1, 1 << 3 | 5]].concat();
    keep("page", "memory-part-known", &[&[MEMORY_PART, 2][..], &known].concat())?;
    // A part of four zero pages that stands by itself, after one that left content behind.
    keep("page", "memory-part-alone", &[MEMORY_PART, 3, 0, 0, 4, 0, 0])?;
    keep("page", "memory-part-no-store", &[&[MEMORY_PART, 0][..], &known].concat())?;
    // Pieces: kind and word, count, content, salt.
    let pieces: &[u8] =
        &[1, 6, 0x12, 5, 2, 15, 0, 0, 3, 3, 0x11, 1, 0, 9, 2, 1, 9, 2, 3, 3, 0xf1, 2, 1, 0, 0x28, 0, 8, 0];
    for effort in [0, 2] {
        keep("page", &format!("batch-{effort}"), &[&[BATCH, 3, effort][..], pieces].concat())?;
        let damages = [1, 5, 0, 0x81, 9, 1, 0x40];
        keep(
            "page",
            &format!("damaged-{effort}"),
            &[&[DAMAGED, 1, 3, effort][..], &damages, pieces].concat(),
        )?;
    }
    Ok(())
}

/// A place: side, and stream or connection.
fn at(side: u8, which: u8) -> u8 {
    which << 1 | side
}

fn session() -> std::io::Result<()> {
    use script::*;
    let opened = [STREAM_UP, at(0, 0), EXCHANGE, at(1, 0), CONNECT, 0, EXCHANGE, at(0, 0)];
    let written = [WRITE, at(0, 0), 7, WRITE, at(0, 0), 5, WRITE, at(1, 0), 3, EXCHANGE, at(1, 0)];
    let read = [READ, at(1, 0), 7, READ, at(0, 0), 7];
    let closed = [CLOSE, at(0, 0), CLOSE, at(1, 0), EXCHANGE, at(1, 0)];
    let whole = [&opened[..], &written, &read, &written, &closed].concat();
    // Frames ahead of one that never comes: what they may take is bounded.
    let part = |sequence| {
        [&[MAKE_UP, at(1, 0), 8, 0, sequence, 0, 16][..], &[0; 8], &[9, 0, 0, 0, 0, 0, 0, 0, 4]].concat()
    };
    let parts: Vec<u8> = (2..9).flat_map(part).collect();
    let batch = |sequence| {
        [&[MAKE_UP, at(1, 0), 6, 64, sequence, 0, 48][..], &[0; 8], &[0, 2], &[0; 38], &[4]].concat()
    };
    let batches: Vec<u8> = (2..9).flat_map(batch).collect();
    let progress = [&[1, 0, 0, 2][..], &[0; 7], &[5], &[0; 7], &[0, 0, 16], &[0; 5], &[0]].concat();
    let kept: &[(&str, u8, u8, &[&[u8]])] = &[
        ("whole", 0x30, 63, &[&whole]),
        ("whole-zstd", ZSTD | 0x10, 63, &[&whole]),
        ("whole-workers", WORKERS | 0x30, 63, &[&whole]),
        ("small-windows", SMALL_WINDOWS, 40, &[&opened, &written, &read, &written, &read, &written]),
        ("no-digest", NO_DIGEST, 63, &[&whole]),
        // Two streams, of which one dies with frames on it, and one side notices first.
        (
            "stream-lost",
            0x30,
            63,
            &[
                &opened,
                &[STREAM_UP, at(0, 1), EXCHANGE, at(1, 1), WRITE, at(0, 0), 7, SEND, at(0, 0), 1],
                &[SEND, at(0, 1), 3, STREAM_LOST, at(0, 0), EXCHANGE, at(1, 1), STREAM_LOST, at(1, 0)],
                &read,
            ],
        ),
        // The same with codec work that is done late.
        (
            "stream-lost-workers",
            WORKERS | 0x30,
            63,
            &[
                &opened,
                &[
                    WRITE,
                    at(0, 0),
                    7,
                    WRITE,
                    at(0, 0),
                    7,
                    STREAM_UP,
                    at(0, 1),
                    EXCHANGE,
                    at(1, 1),
                    SEND,
                    at(0, 0),
                    1,
                ],
                &[SEND, at(0, 1), 3, STREAM_LOST, at(0, 0), EXCHANGE, at(1, 1), STREAM_LOST, at(1, 0)],
                &read,
            ],
        ),
        // No stream at all for a while.
        (
            "interrupted",
            0x10,
            63,
            &[
                &opened,
                &[WRITE, at(0, 0), 6, STREAM_LOST, at(0, 0), STREAM_LOST, at(1, 0), WAIT, 0, 5],
                &[STREAM_UP, at(0, 2), EXCHANGE, at(1, 2), READ, at(1, 0), 7],
            ],
        ),
        // A record in pieces, and what waits for its rest.
        (
            "carried",
            0,
            63,
            &[&opened, &[WRITE, at(0, 0), 3, WAIT, 0, 1, WRITE, at(0, 0), 1, WAIT, 0, 2, EXCHANGE, at(1, 0)]],
        ),
        ("outage", 0, 63, &[&opened, &[STREAM_LOST, at(0, 0), WAIT, 0, 7, WAIT, 0, 7]]),
        ("cancelled", 0, 63, &[&opened, &[CANCEL, at(1, 0), 255, EXCHANGE, at(0, 0)]]),
        ("three-connections", 0x20, 63, &[&opened, &[CONNECT, 0, CONNECT, 0, CONNECT, 0], &written, &whole]),
        // Frames that are changed, repeated and late.
        (
            "changed",
            HOSTILE | 0x30,
            63,
            &[
                &opened,
                &[WRITE, at(0, 0), 7, SEND, at(0, 0), 31, CHANGE, at(1, 0), 90, 0, 1, ARRIVE, at(1, 0), 9],
            ],
        ),
        (
            "disordered",
            HOSTILE | 0x30,
            63,
            &[
                &opened,
                &[WRITE, at(0, 0), 7, SEND, at(0, 0), 31, DISORDER, at(1, 0), 1, DISORDER, at(1, 0), 2],
                &[ARRIVE, at(1, 0), 31, READ, at(1, 0), 7],
            ],
        ),
        ("made-up-parts", HOSTILE | SMALL_WINDOWS, 15, &[&opened, &parts]),
        ("made-up-batches", HOSTILE | SMALL_WINDOWS, 15, &[&opened, &batches]),
        (
            "made-up-progress",
            HOSTILE,
            63,
            &[&opened, &written, &[MAKE_UP, at(0, 0), 4, 255, 0, 0, 27], &progress],
        ),
        (
            "fitting",
            HOSTILE,
            63,
            &[
                &opened,
                &[FIT, at(1, 0), 0, 1, 100, 0, FIT, at(1, 0), 0, 2, 0, 1, FIT, at(1, 0), 0, 9, 100, 0],
            ],
        ),
    ];
    for (name, options, window, operations) in kept {
        keep("session", name, &[&[*options, *window][..], &operations.concat()].concat())?;
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    wire()?;
    page()?;
    session()
}
