//! Multifd connections, packet by packet.

use super::super::synthetic::MultifdStream;
use super::super::{BlockId, Span, StreamKind};
use super::{parse_whole, structure};
use crate::limits::PAGE_BYTES;

const RAM: BlockId = BlockId(0);

fn pages(offsets: &[u64]) -> Vec<(u64, [u8; PAGE_BYTES])> {
    offsets.iter().map(|offset| (*offset, [(offset >> 12) as u8; PAGE_BYTES])).collect()
}

fn bodies(offset: u64, count: u32) -> Span {
    Span::PageBodies { block: RAM, offset, count }
}

#[test]
fn uncompressed_packets_are_runs_of_pages() {
    let mut stream = MultifdStream::new(3);
    stream.sync();
    stream.packet("pc.ram", &pages(&[0, 0x1000, 0x2000, 0x8000, 0x4000, 0x5000]), &[0x9000, 0xa000]);
    stream.packet("pc.ram", &[], &[0xb000]);
    stream.sync();
    stream.packet("pc.ram", &pages(&[0x6000]), &[]);
    let (spans, progress) = parse_whole(&stream.into_bytes());
    assert_eq!(structure(&spans), [bodies(0, 3), bodies(0x8000, 1), bodies(0x4000, 2), bodies(0x6000, 1)]);
    assert_eq!((progress.pages, progress.zero_pages), (7, 3));
    assert_eq!(progress.kind, StreamKind::QemuMultifd);
}

#[test]
fn compressed_packets_and_device_state_are_stepped_over() {
    let mut stream = MultifdStream::new(0);
    stream.header(2 << 1, "pc.ram", 2, &[0, 0x1000], 777).raw(&[0xaa; 777]);
    // Uncompressed by its flags, but not of that size.
    stream.header(0, "pc.ram", 2, &[0, 0x1000], 100).raw(&[0xbb; 100]);
    // An offset that is no page's.
    stream.header(0, "pc.ram", 1, &[0x1234], 4096).raw(&[0xcc; 4096]);
    // Device state: magic, version, flags, name[256], instance, size, contents.
    stream.raw(&[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, 0, 0, 0, 0x40]).raw(&[b'd'; 256]).raw(&[0; 4]);
    stream.raw(&500_u32.to_be_bytes()).raw(&[0xdd; 500]);
    stream.packet("pc.ram", &pages(&[0x7000]), &[]);
    let (spans, progress) = parse_whole(&stream.into_bytes());
    assert_eq!(structure(&spans), [bodies(0x7000, 1)]);
    assert_eq!(progress.pages, 6);
}

#[test]
fn another_page_size_or_an_unknown_flag_is_opaque() {
    let mut good = MultifdStream::new(0);
    good.packet("pc.ram", &pages(&[0]), &[]);
    let good = good.into_bytes();
    assert_eq!(structure(&parse_whole(&good).0), [bodies(0, 1)]);
    // Bytes of the packet header: magic, version, flags, allocated, normal pages, zero pages.
    for at in [0, 7, 10, 15, 18, 34] {
        let mut bad = good.clone();
        bad[64 + at] ^= 0x81;
        assert_eq!(structure(&parse_whole(&bad).0), [], "header byte {at}");
    }
}
