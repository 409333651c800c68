//! Streams that QEMU 10.0 wrote; see `tests/fixtures/README.md`.

use super::super::synthetic::{Piece, join_all, rebuild, walk};
use super::super::{Parser, Span, StreamKind, StreamPhase, StreamProgress};
use crate::limits::BATCH_BYTES_MAX;

struct Found {
    bytes: usize,
    opaque: usize,
    page_records: u64,
    zero_records: u64,
    page_bodies: u64,
    spans: Vec<Span>,
    progress: StreamProgress,
}

/// Walks a capture in batches, as a gateway does, and rebuilds it.
fn walk_capture(compressed: &[u8]) -> Found {
    let mut stream = Vec::with_capacity(8 << 20);
    zstd_safe::decompress(&mut stream, compressed).unwrap();
    let mut parser = Parser::new();
    let spans = walk(&mut parser, &stream, &[Piece { bytes: BATCH_BYTES_MAX, more: true }]);
    assert!(rebuild(&spans, &stream).unwrap() == stream);
    let odd = [Piece { bytes: 5003, more: true }, Piece { bytes: 70_001, more: true }];
    assert_eq!(join_all(&walk(&mut Parser::new(), &stream, &odd)), join_all(&spans));
    let (mut opaque, mut page_records, mut zero_records, mut page_bodies) = (0, 0, 0, 0);
    for span in &spans {
        match *span {
            Span::Opaque { len } => opaque += len as usize,
            Span::PageRecords { count, .. } => page_records += u64::from(count),
            Span::ZeroRecords { count, .. } => zero_records += u64::from(count),
            Span::PageBodies { count, .. } => page_bodies += u64::from(count),
        }
    }
    let progress = parser.progress();
    Found {
        bytes: stream.len(),
        opaque,
        page_records,
        zero_records,
        page_bodies,
        spans: join_all(&spans),
        progress,
    }
}

macro_rules! capture {
    ($name:literal) => {
        walk_capture(include_bytes!(concat!("../../../tests/fixtures/", $name, ".zst")))
    };
}

/// 16 MiB and the firmware and table blocks beside it, all of which are sent at least once.
fn assert_whole_guest(main: &StreamProgress, pages: u64) {
    assert!((16 << 20..18 << 20).contains(&main.ram_total_bytes), "{}", main.ram_total_bytes);
    assert!(pages >= main.ram_total_bytes / 4096, "{pages} pages of {} bytes", main.ram_total_bytes);
}

impl Found {
    fn assert_main(&self, phase: StreamPhase) {
        assert_eq!((self.progress.kind, self.progress.phase), (StreamKind::QemuMain, phase));
        assert!(self.progress.machine.as_deref().is_some_and(|name| name.starts_with("pc-q35-")));
    }

    fn bytes_of_last(&self) -> usize {
        self.spans.last().map_or(0, Span::len)
    }
}

#[test]
fn precopy() {
    let found = capture!("main-0");
    found.assert_main(StreamPhase::Switchover);
    assert_whole_guest(&found.progress, found.progress.pages + found.progress.zero_pages);
    assert_eq!(found.progress.pages, found.page_records + found.page_bodies);
    // Each block's first record names it and is no run's.
    assert!(found.page_bodies < 10 && found.progress.zero_pages - found.zero_records < 10);
    assert!(found.progress.iterations > 2, "the guest dirties its pages while it is moved");
    assert!(found.bytes_of_last() < 90_000, "the tail is the device state");
    assert!(found.opaque - found.bytes_of_last() < 1000, "outside of the tail next to nothing is opaque");
    assert!(found.bytes > 10 * found.opaque);
}

#[test]
fn precopy_with_xbzrle() {
    let found = capture!("xbzrle-0");
    found.assert_main(StreamPhase::Switchover);
    assert_whole_guest(&found.progress, found.progress.pages + found.progress.zero_pages);
    assert!(found.progress.pages > found.page_records + found.page_bodies, "some records are XBZRLE");
    assert!(found.opaque < 100_000);
}

#[test]
fn postcopy_is_walked_to_its_end_marker() {
    let found = capture!("postcopy-0");
    found.assert_main(StreamPhase::Ended);
    assert_whole_guest(&found.progress, found.progress.pages + found.progress.zero_pages);
    assert!(found.bytes_of_last() < 100, "pages follow the packaged device state");
    assert!(found.opaque < 40_000);
}

#[test]
fn postcopy_with_a_preempt_connection() {
    let found = capture!("preempt-0");
    found.assert_main(StreamPhase::Ended);
    let preempt = capture!("preempt-1");
    assert_eq!(preempt.progress.kind, StreamKind::QemuPreempt);
    assert_eq!(preempt.progress.pages, preempt.page_records + preempt.page_bodies);
    // The guest asks for the pages that it loops over; only the first record's header is opaque.
    assert!(preempt.progress.pages > 50 && preempt.opaque < 30, "{} opaque", preempt.opaque);
}

#[test]
fn multifd() {
    let main = capture!("multifd-0");
    main.assert_main(StreamPhase::Switchover);
    let mut pages = 0;
    for found in [capture!("multifd-1"), capture!("multifd-2")] {
        assert_eq!(found.progress.kind, StreamKind::QemuMultifd);
        assert_eq!(found.progress.pages, found.page_bodies);
        assert_eq!((found.opaque - 64) % 1344, 0, "a handshake and whole packet headers");
        pages += found.progress.pages + found.progress.zero_pages;
    }
    assert_whole_guest(&main.progress, pages);
}

#[test]
fn multifd_with_compression_is_stepped_over_packet_by_packet() {
    let main = capture!("multifd-zstd-0");
    main.assert_main(StreamPhase::Switchover);
    let mut pages = 0;
    for found in [capture!("multifd-zstd-1"), capture!("multifd-zstd-2")] {
        assert_eq!(found.progress.kind, StreamKind::QemuMultifd);
        assert_eq!(found.opaque, found.bytes);
        pages += found.progress.pages + found.progress.zero_pages;
    }
    assert_whole_guest(&main.progress, pages);
}
