//! The main connection, item by item.

use super::super::synthetic::{MainStream, Noise, Plan};
use super::super::{BlockId, Span, StreamKind, StreamPhase};
use super::{parse_whole, structure};
use crate::limits::PAGE_BYTES;

const RAM: BlockId = BlockId(0);
const BIOS: BlockId = BlockId(1);
const BLOCKS: [(&str, u64); 2] = [("pc.ram", 0x10_0000), ("pc.bios", 0x4_0000)];
const PAGE: [u8; PAGE_BYTES] = [0xa5; PAGE_BYTES];

fn started() -> MainStream {
    let mut stream = MainStream::new("pc-q35-10.0");
    stream.command(1, &[]).ram_start(&BLOCKS);
    stream
}

fn records(block: BlockId, first_word: u64, count: u32) -> Span {
    Span::PageRecords { block, first_word, count }
}

fn zeros(block: BlockId, first_word: u64, count: u32) -> Span {
    Span::ZeroRecords { block, first_word, count }
}

fn bodies(block: BlockId, offset: u64, count: u32) -> Span {
    Span::PageBodies { block, offset, count }
}

#[test]
fn runs_of_pages_and_zero_pages_are_one_span_each() {
    let mut stream = started();
    stream.ram_part(false);
    for page in 0..5 {
        stream.page("pc.ram", page * 0x1000, &PAGE);
    }
    for page in 5..8 {
        stream.zero("pc.ram", page * 0x1000);
    }
    stream.page("pc.ram", 0x9000, &PAGE).page("pc.ram", 0xb000, &PAGE);
    stream.zero("pc.bios", 0).zero("pc.bios", 0x1000).page("pc.ram", 0xc000, &PAGE).end_ram();
    let (spans, progress) = parse_whole(&stream.into_bytes());
    let expected = [
        bodies(RAM, 0, 1),
        records(RAM, 0x1028, 4),
        zeros(RAM, 0x5022, 3),
        records(RAM, 0x9028, 1),
        records(RAM, 0xb028, 1),
        zeros(BIOS, 0x1022, 1),
        bodies(RAM, 0xc000, 1),
    ];
    assert_eq!(structure(&spans), expected);
    assert_eq!((progress.pages, progress.zero_pages), (8, 5));
    assert_eq!(progress.ram_total_bytes, 0x14_0000);
    assert_eq!(progress.machine.as_deref(), Some("pc-q35-10.0"));
    assert_eq!((progress.kind, progress.phase), (StreamKind::QemuMain, StreamPhase::Precopy));
    // From pc.bios back to pc.ram: a second pass.
    assert_eq!(progress.iterations, 2);
}

#[test]
fn a_whole_migration_is_walked_to_its_tail() {
    let stream = Plan::filled(500, 5, 1).build();
    let (spans, progress) = parse_whole(&stream);
    assert_eq!((progress.pages, progress.zero_pages, progress.iterations), (400, 100, 1));
    assert_eq!(progress.phase, StreamPhase::Switchover);
    let opaque: usize =
        spans.iter().map(|span| if let Span::Opaque { len } = span { *len as usize } else { 0 }).sum();
    assert!(opaque < 80_000 + 1000, "{opaque} opaque bytes: the device state and little else");
}

#[test]
fn phases_follow_the_stream() {
    let mut stream = started();
    let phase = |stream: &MainStream| parse_whole(&stream.clone().into_bytes()).1.phase;
    assert_eq!(phase(&stream), StreamPhase::Setup);
    stream.ram_part(false).page("pc.ram", 0, &PAGE).end_ram();
    assert_eq!(phase(&stream), StreamPhase::Precopy);
    let stopped = |stream: &MainStream| parse_whole(&stream.clone().into_bytes()).1.stopped;
    assert!(!stopped(&stream));
    let mut precopy = stream.clone();
    precopy.command(11, &[]);
    assert_eq!((phase(&precopy), stopped(&precopy)), (StreamPhase::Switchover, true));
    // The last section of RAM has begun: QEMU has stopped the guest, and more pages come.
    let mut precopy = stream.clone();
    precopy.ram_part(true).page("pc.ram", 0x1000, &PAGE);
    assert_eq!((phase(&precopy), stopped(&precopy)), (StreamPhase::Precopy, true));
    stream.packaged(&[4; 1000]);
    assert_eq!(phase(&stream), StreamPhase::Postcopy);
    stream.ram_part(false).page("pc.ram", 0x3000, &PAGE).page("pc.ram", 0x1000, &PAGE).end_ram();
    stream.ram_part(true).end_ram();
    assert_eq!(phase(&stream), StreamPhase::Postcopy);
    stream.end("");
    let (spans, progress) = parse_whole(&stream.into_bytes());
    assert_eq!((progress.phase, progress.iterations), (StreamPhase::Ended, 1));
    // Behind the package pages are found again.
    assert_eq!(structure(&spans)[1..], [bodies(RAM, 0x3000, 1), records(RAM, 0x1028, 1)]);
}

#[test]
fn records_that_tell_their_length_are_stepped_over() {
    let mut stream = started();
    stream.ram_part(false).multifd_flush().xbzrle("pc.ram", 0x1000, &[3; 100]).xbzrle("pc.ram", 0x2000, &[]);
    stream.header("pc.ram", 0x3000, 0x100).raw(&50_u32.to_be_bytes()).raw(&[9; 50]);
    stream.header("pc.ram", 0x4000, 0x02).raw(&[0xff]);
    stream.page("pc.ram", 0x5000, &PAGE).end_ram();
    let (spans, progress) = parse_whole(&stream.into_bytes());
    assert_eq!(structure(&spans), [records(RAM, 0x5028, 1)]);
    assert_eq!(progress.pages, 4);
}

#[test]
fn what_is_not_understood_is_opaque_for_ever() {
    let noise = Noise::new(7).page();
    let word = |word| started().ram_part(false).page("pc.ram", 0, &PAGE).word(word).clone();
    let tails = [
        started().ram_part(false).page("pc.ram", 0, &PAGE).end_ram().raw(&[0x55]).clone(), // no section type
        word(0x80),                                                                        // RDMA's hook
        word(0x1000),                                                                      // no flags
        word(0x1001),                                                                      // an old flag
        started()
            .ram_part(false)
            .page("pc.ram", 0, &PAGE)
            .header("pc.ram", 0x1000, 0x40)
            .raw(&[1, 0x10, 1])
            .clone(), // XBZRLE longer than a page
    ];
    for mut stream in tails {
        stream.raw(&noise).ram_part(false).page("pc.ram", 0x1000, &PAGE).end_ram();
        let (spans, _) = parse_whole(&stream.into_bytes());
        assert_eq!(structure(&spans), [bodies(RAM, 0, 1)]);
    }
    // A record that continues a block which was never named.
    let mut stream = started();
    stream.ram_part(false).word(0x1028).raw(&PAGE);
    assert_eq!(structure(&parse_whole(&stream.into_bytes()).0), []);
}

#[test]
fn another_page_size_is_opaque() {
    for (bits, found) in [(12_u32, true), (14, false), (200, false)] {
        let mut stream = MainStream::new("virt-10.0");
        let name = "configuration/target-page-bits";
        stream
            .raw(&[5, name.len() as u8])
            .raw(name.as_bytes())
            .raw(&1_u32.to_be_bytes())
            .raw(&bits.to_be_bytes());
        stream.ram_start(&BLOCKS).ram_part(false).page("pc.ram", 0, &PAGE).end_ram();
        let (spans, _) = parse_whole(&stream.into_bytes());
        assert_eq!(!structure(&spans).is_empty(), found, "{bits} bits");
    }
}

#[test]
fn a_configuration_with_capabilities_and_uuid_is_walked() {
    let mut stream = MainStream::new("pc");
    let name = "configuration/capabilities";
    stream
        .raw(&[5, name.len() as u8])
        .raw(name.as_bytes())
        .raw(&1_u32.to_be_bytes())
        .raw(&2_u32.to_be_bytes());
    stream.raw(b"\x0bpostcopyram\x03any");
    let name = "configuration/uuid";
    stream.raw(&[5, name.len() as u8]).raw(name.as_bytes()).raw(&1_u32.to_be_bytes()).raw(&[0x7e; 16]);
    stream.ram_start(&BLOCKS).ram_part(false).page("pc.ram", 0, &PAGE).end_ram();
    assert_eq!(structure(&parse_whole(&stream.into_bytes()).0), [bodies(RAM, 0, 1)]);
}

#[test]
fn the_list_of_blocks_may_carry_page_sizes_and_addresses() {
    let mut stream = MainStream::new("pc");
    stream.section(1, 2, "ram").word(0x60_0000 | 4);
    stream.raw(b"\x03mem").word(0x40_0000).word(0x20_0000).word(0x1_0000_0000);
    stream.raw(b"\x03hot").word(0x20_0000).word(0x20_0000).end_ram();
    stream.ram_part(false).page("hot", 0, &PAGE).end_ram();
    let (spans, progress) = parse_whole(&stream.into_bytes());
    assert_eq!(structure(&spans), [bodies(BIOS, 0, 1)]);
    assert_eq!(progress.ram_total_bytes, 0x60_0000);
}

#[test]
fn parsing_resumes_behind_a_device_section_before_ram_has_ended() {
    let mut state = Noise::new(3).page().to_vec();
    // Footers that nothing known follows do not count.
    state[100..108].copy_from_slice(b"\x7e\0\0\0\x09\x02\x01\0");
    state[200..206].copy_from_slice(b"\x7e\0\0\0\x09\xff");
    let mut stream = MainStream::new("pc");
    stream.device(4, 9, "0000:00:03.0/virtio-mem-early", &state).ram_start(&BLOCKS);
    stream.device(1, 9, "0000:00:02.0/vfio", &state);
    stream.ram_part(false).page("pc.ram", 0, &PAGE).end_ram();
    stream.raw(&[2, 0, 0, 0, 9]).raw(&state).footer(9);
    stream.ram_part(true).page("pc.ram", 0x1000, &PAGE).end_ram();
    stream.raw(&[3, 0, 0, 0, 9]).raw(&state).footer(9);
    // RAM has ended: what looks like pages here is device state.
    stream.ram_part(false).page("pc.ram", 0x2000, &PAGE).end_ram();
    let (spans, progress) = parse_whole(&stream.into_bytes());
    assert_eq!(structure(&spans), [bodies(RAM, 0, 1), bodies(RAM, 0x1000, 1)]);
    assert_eq!(progress.phase, StreamPhase::Switchover);
}

#[test]
fn a_footer_is_found_inside_bytes_that_only_look_like_one() {
    let id = 0x7e7e_7e7e;
    let mut stream = started();
    stream.device(1, id, "vfio", &[0x7e; 7]).ram_part(false).page("pc.ram", 0, &PAGE).end_ram();
    assert_eq!(structure(&parse_whole(&stream.into_bytes()).0), [bodies(RAM, 0, 1)]);
}

#[test]
fn a_preempt_connection_is_records_alone() {
    let mut stream = MainStream::default();
    stream.page("pc.ram", 0x8000, &PAGE).page("pc.ram", 0x9000, &PAGE).zero("pc.ram", 0x2000);
    stream.word(0x10);
    let (spans, progress) = parse_whole(&stream.into_bytes());
    assert_eq!(structure(&spans), [bodies(RAM, 0x8000, 1), records(RAM, 0x9028, 1), zeros(RAM, 0x2022, 1)]);
    assert_eq!((progress.kind, progress.phase), (StreamKind::QemuPreempt, StreamPhase::Postcopy));
}

#[test]
fn words_at_the_end_of_the_address_space_do_not_overflow() {
    let mut stream = started();
    let top = !0xfff_u64;
    stream
        .ram_part(false)
        .page("pc.ram", 0, &PAGE)
        .page("pc.ram", top, &PAGE)
        .page("pc.ram", 0, &PAGE)
        .end_ram();
    let (spans, _) = parse_whole(&stream.into_bytes());
    assert_eq!(structure(&spans), [bodies(RAM, 0, 1), records(RAM, top | 0x28, 1), records(RAM, 0x28, 1)]);
}
