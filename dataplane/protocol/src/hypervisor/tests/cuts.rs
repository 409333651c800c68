//! However a stream is cut, and whatever is done to it.

use proptest::prelude::*;

use super::super::synthetic::{
    Contents, MainStream, MultifdStream, Piece, Plan, PlannedPage, join_all, rebuild, walk,
};
use super::super::{PAGE_RECORD_BYTES, Parser, Span};
use super::parse_whole;
use crate::limits::PAGE_BYTES;

/// A stream with one of everything, small enough to be cut at every byte.
fn everything() -> Vec<u8> {
    let page = [0x5a; PAGE_BYTES];
    let mut stream = MainStream::new("pc");
    stream.command(2, &[0, 0, 0, 1]).device(4, 9, "early", &[0x7e; 40]);
    stream.ram_start(&[("pc.ram", 0x8000), ("bios", 0x1000)]).ram_part(false).multifd_flush();
    stream.page("pc.ram", 0, &page).page("pc.ram", 0x1000, &page).page("pc.ram", 0x2000, &page);
    stream.zero("pc.ram", 0x3000).zero("pc.ram", 0x4000).xbzrle("pc.ram", 0x5000, &[1, 2, 3]).zero("bios", 0);
    stream.end_ram().packaged(&[8; 30]).ram_part(true).page("bios", 0, &page).end_ram();
    stream.device(4, 9, "cpu", &[3; 100]).end("{}");
    stream.into_bytes()
}

fn everything_multifd() -> Vec<u8> {
    let page = |offset: u64| (offset, [offset as u8; PAGE_BYTES]);
    let mut stream = MultifdStream::new(1);
    stream.sync().packet("pc.ram", &[page(0), page(0x1000), page(0x5000)], &[0x2000]);
    stream.header(1 << 1, "pc.ram", 1, &[0], 9).raw(&[1; 9]).packet("pc.ram", &[page(0x6000)], &[]);
    stream.into_bytes()
}

#[test]
fn a_cut_at_any_byte_changes_no_span() {
    for stream in [everything(), everything_multifd()] {
        let (whole, progress) = parse_whole(&stream);
        for cut in 1..stream.len() {
            let mut parser = Parser::new();
            let pieces = [Piece { bytes: cut, more: true }, Piece { bytes: stream.len(), more: true }];
            let spans = walk(&mut parser, &stream, &pieces);
            assert_eq!(join_all(&spans), whole, "cut at {cut}");
            assert_eq!(parser.progress(), progress, "cut at {cut}");
        }
    }
}

#[test]
fn a_forced_cut_at_any_byte_costs_at_most_one_record() {
    for stream in [everything(), everything_multifd()] {
        let (whole, progress) = parse_whole(&stream);
        let opaque = |spans: &[Span]| -> usize {
            spans.iter().filter(|span| matches!(span, Span::Opaque { .. })).map(Span::len).sum()
        };
        for cut in 1..stream.len() {
            let mut parser = Parser::new();
            let pieces = [Piece { bytes: cut, more: false }, Piece { bytes: stream.len(), more: true }];
            let spans = walk(&mut parser, &stream, &pieces);
            assert_eq!(rebuild(&spans, &stream).unwrap(), stream, "cut at {cut}");
            assert!(opaque(&spans) <= opaque(&whole) + PAGE_RECORD_BYTES, "cut at {cut}");
            assert_eq!(parser.progress(), progress, "cut at {cut}");
        }
    }
}

#[test]
fn byte_by_byte_both_ways() {
    for stream in [everything(), everything_multifd()] {
        let (whole, progress) = parse_whole(&stream);
        let mut parser = Parser::new();
        let spans = walk(&mut parser, &stream, &[Piece { bytes: 1, more: true }]);
        assert_eq!((join_all(&spans), parser.progress()), (whole, progress.clone()));
        let mut parser = Parser::new();
        let spans = walk(&mut parser, &stream, &[Piece { bytes: 1, more: false }]);
        // Forced after every byte nothing is left to find, and yet the parser keeps its place.
        assert_eq!(join_all(&spans), [Span::Opaque { len: stream.len() as u32 }]);
        assert_eq!(parser.progress(), progress);
    }
}

fn planned_page() -> impl Strategy<Value = PlannedPage> {
    let contents =
        prop_oneof![Just(Contents::Zero), Just(Contents::Noise), any::<u8>().prop_map(Contents::Fill)];
    (0..3_usize, 0..6_u64, contents).prop_map(|(block, page, contents)| PlannedPage { block, page, contents })
}

prop_compose! {
    fn plan()(
        passes in prop::collection::vec(prop::collection::vec(planned_page(), 0..8), 1..4),
        section_pages in 1..5_usize,
        device_bytes in 0..600_usize,
        seed in any::<u64>(),
    ) -> Plan {
        let blocks = ["pc.ram", "pc.bios", "0000:00:02.0/vga.vram"].map(|name| (name.to_owned(), 0x1_0000));
        Plan { machine: "pc".to_owned(), blocks: blocks.to_vec(), passes, section_pages, device_bytes, seed }
    }
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let bytes = prop_oneof![1..40_usize, 1..10_000_usize];
    prop::collection::vec((bytes, any::<bool>()).prop_map(|(bytes, more)| Piece { bytes, more }), 1..12)
}

fn held(pieces: &[Piece]) -> Vec<Piece> {
    pieces.iter().map(|piece| Piece { more: true, ..*piece }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_plan_cut_anyhow_is_rebuilt(plan in plan(), pieces in pieces()) {
        let stream = plan.build();
        let (whole, progress) = parse_whole(&stream);
        let (mut zero, mut full) = (0, 0);
        for page in plan.passes.iter().flatten() {
            if page.contents == Contents::Zero { zero += 1 } else { full += 1 }
        }
        prop_assert_eq!((progress.pages, progress.zero_pages), (full, zero));

        let mut parser = Parser::new();
        let spans = walk(&mut parser, &stream, &pieces);
        prop_assert_eq!(&rebuild(&spans, &stream).unwrap(), &stream);
        prop_assert_eq!(parser.progress(), progress);

        let spans = walk(&mut Parser::new(), &stream, &held(&pieces));
        prop_assert_eq!(join_all(&spans), whole);
    }

    #[test]
    fn mutations_never_panic_and_are_always_covered(
        multifd in any::<bool>(),
        plan in plan(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        pieces in pieces(),
    ) {
        let mut stream = if multifd { everything_multifd() } else { plan.build() };
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream.drain(..cut.index(stream.len() * 8).min(stream.len() - 1) % 700);
        let (whole, progress) = parse_whole(&stream);
        let mut parser = Parser::new();
        let spans = walk(&mut parser, &stream, &held(&pieces));
        prop_assert_eq!(join_all(&spans), whole);
        prop_assert_eq!(parser.progress(), progress);
        let spans = walk(&mut Parser::new(), &stream, &pieces);
        prop_assert_eq!(rebuild(&spans, &stream).unwrap(), stream);
    }

    #[test]
    fn any_bytes_are_covered(stream in prop::collection::vec(any::<u8>(), 1..3000), pieces in pieces()) {
        let spans = walk(&mut Parser::new(), &stream, &pieces);
        prop_assert_eq!(rebuild(&spans, &stream).unwrap(), stream);
    }
}
