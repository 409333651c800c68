//! The requirements of `docs/spec/dwcp.md` on where bytes stand in a frame: each test names those it shows.

use bytes::Bytes;
use novacron_protocol::limits::LANES_MAX;
use novacron_protocol::wire::{
    Cursor, FRAME_HEADER_BYTES, FrameHeader, Hello, Identity, IndexFields, Kind, Lane, PartFields, WireError,
};

const SESSION: u64 = 0x1122_3344_5566_7788;
const DIALLER: Identity = Identity { gateway: [1; 16], instance: [2; 16] };

/// A frame from its fields, as a peer could send it.
fn frame(kind: Kind, lane: Lane, sequence: u64, payload: &[u8]) -> Bytes {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.extend_from_slice(payload);
    FrameHeader { kind, lane, session: SESSION, epoch: 0, sequence }.write(payload.len(), &mut frame);
    frame.into()
}

/// DWCP-3: a frame whose length field says anything but its own length is refused.
#[test]
fn a_length_that_lies_is_refused() {
    let mut lying = frame(Kind::Batch, Lane::Connection(0), 1, &[1, 2, 3]).to_vec();
    for length in [2, 4, u32::MAX as usize] {
        FrameHeader::unordered(Kind::Batch, SESSION, 0).write(length, &mut lying);
        assert_eq!(FrameHeader::read(&lying), Err(WireError::Length(length as u64)));
    }
    assert_eq!(FrameHeader::read(&lying[..31]), Err(WireError::Short));
}

/// DWCP-40: lanes beyond the bounds are refused by the header's reader.
#[test]
fn lanes_that_cannot_be_are_refused() {
    for lane in [LANES_MAX, 0x7fff, 0x8000 + 257, 0xfffe] {
        let mut bytes = frame(Kind::Batch, Lane::Page(0), 1, &[]).to_vec();
        bytes[6..8].copy_from_slice(&lane.to_le_bytes());
        let check = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..32]);
        bytes[20..24].copy_from_slice(&check.to_le_bytes());
        assert_eq!(FrameHeader::read(&bytes), Err(WireError::Value("lane")), "{lane:#x}");
    }
}

/// DWCP-1: the header's bytes stand where the specification says.
#[test]
fn the_header_is_laid_out_as_specified() {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let (lane, session, sequence) = (Lane::Connection(3), 0x1817_1615_1413_1211, 0x2827_2625_2423_2221);
    FrameHeader { kind: Kind::Index, lane, session, epoch: 0x3433_3231, sequence }.write(0x0201, &mut bytes);
    assert_eq!(bytes[..8], [0x01, 0x02, 0, 0, 18, 0, 0x03, 0x80]);
    assert_eq!(bytes[8..20], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x31, 0x32, 0x33, 0x34]);
    assert_eq!(bytes[24..], [0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28]);
    let check = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..]);
    assert_eq!(bytes[20..24], check.to_le_bytes());
}

/// DWCP-4: the handshake's known fields stand where every version expects them.
#[test]
fn the_handshake_is_laid_out_as_specified() {
    let hello = Hello::new(DIALLER, 0x0605, [7; 16]).to_frame();
    let payload = &hello[FRAME_HEADER_BYTES..];
    assert_eq!((hello[4], &payload[..8]), (0x44, &b"DWCP\x01\x00\x01\x00"[..]));
    assert_eq!((&payload[8..24], &payload[24..40]), (&[1; 16][..], &[2; 16][..]));
    assert_eq!(payload[40..42], [0x05, 0x06]);
    assert_eq!((&payload[46..54], &payload[54..70]), (&[0; 8][..], &[7; 16][..]));
    assert_eq!((&payload[70..], payload.len()), (&[0; 2][..], 72));
}

/// DWCP-21: an index names its lanes ascending, each once, each within the session's.
#[test]
fn an_index_names_lanes_in_order() {
    let lanes = |lanes: &[u16]| {
        let mut out = (lanes.len() as u16).to_le_bytes().to_vec();
        lanes.iter().for_each(|lane| out.extend_from_slice(&lane.to_le_bytes()));
        IndexFields::take(&mut Cursor::new(&out), 4).is_ok()
    };
    assert!(lanes(&[]) && lanes(&[0]) && lanes(&[0, 2, 3]));
    assert!(!lanes(&[1, 1]) && !lanes(&[2, 1]) && !lanes(&[4]) && !lanes(&[0, 1, 2, 3, 3]));
}

/// DWCP-22: a part names its connection and its index's sequence; reserved bytes are zero.
#[test]
fn a_part_names_its_batch() {
    let mut out = Vec::new();
    let fields = PartFields { connection: 5, batch: 0x0807_0605_0403_0201 };
    fields.put(&mut out);
    assert_eq!(out, [5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(PartFields::take(&mut Cursor::new(&out)), Ok(fields));
    out[4] = 1;
    assert!(PartFields::take(&mut Cursor::new(&out)).is_err());
}
