//! Every reader of the wire format: total, and what it takes is written back as the same bytes.
//!
//! Input: which reader, then what it reads.

use crate::input::Input;
use novacron_protocol::limits::REASON_TEXT_MAX;
use novacron_protocol::wire::{
    Accept, BatchFields, ConnectionOpen, Cursor, FRAME_HEADER_BYTES, FrameHeader, Hello, HelloAccept,
    HelloRefuse, Identity, IndexFields, Kind, Open, PartFields, Progress, Reason, Wanted, answer_hello,
};

/// How many readers there are.
pub const READERS: u8 = 17;

/// The payload of a frame that this side wrote.
fn payload(frame: &[u8]) -> &[u8] {
    FrameHeader::read(frame).expect("what this side writes, it reads");
    &frame[FRAME_HEADER_BYTES..]
}

/// Gives the header of `frame` the right length and check value, so that readers look further.
pub fn repair(frame: &mut [u8]) {
    if frame.len() < FRAME_HEADER_BYTES {
        return;
    }
    let length = (frame.len() - FRAME_HEADER_BYTES) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    let check = crc32c::crc32c_append(crc32c::crc32c(&frame[..20]), &frame[24..32]);
    frame[20..24].copy_from_slice(&check.to_le_bytes());
}

/// A header that was read, written again.
fn header(frame: &[u8]) {
    if let Ok(header) = FrameHeader::read(frame) {
        let mut out = [0; FRAME_HEADER_BYTES];
        header.write(frame.len() - FRAME_HEADER_BYTES, &mut out);
        assert_eq!(out, frame[..FRAME_HEADER_BYTES]);
    }
}

/// Texts are for people: what is not UTF-8 is replaced, so only UTF-8 comes back as it was.
fn same_text(text: &str, written: &[u8], bytes: &[u8]) {
    if !text.contains(char::REPLACEMENT_CHARACTER) {
        assert_eq!(written, &bytes[..written.len()]);
    }
    assert!(written.len() <= bytes.len().max(REASON_TEXT_MAX + 16));
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let reader = input.byte() % READERS;
    let bytes = input.rest();
    match reader {
        0 => header(bytes),
        1 => {
            let mut frame = bytes.to_vec();
            repair(&mut frame);
            header(&frame);
        }
        // Later versions may append to a handshake and set bits that mean nothing here: what was understood is written back.
        2 => {
            if let Ok(hello) = Hello::read(bytes) {
                let frame = hello.to_frame();
                assert!(payload(&frame).len() <= bytes.len());
                assert_eq!(Hello::read(payload(&frame)), Ok(hello));
            }
        }
        3 => {
            if let Ok(accept) = HelloAccept::read(bytes) {
                let frame = accept.to_frame();
                assert!(payload(&frame).len() <= bytes.len());
                assert_eq!(HelloAccept::read(payload(&frame)), Ok(accept));
            }
        }
        4 => {
            if let Ok(refuse) = HelloRefuse::read(bytes) {
                same_text(&refuse.text, payload(&refuse.to_frame()), bytes);
            }
        }
        5 => {
            if let Ok(open) = Open::read(bytes) {
                assert_eq!(payload(&open.to_frame(1, 0)), bytes);
            }
        }
        6 => {
            if let Ok(accept) = Accept::read(bytes) {
                assert_eq!(payload(&accept.to_frame(1, 0)), bytes);
            }
        }
        7 => {
            if let Ok(reason) = Reason::read(bytes) {
                // A reader leaves the proof to who knows the session.
                let frame = reason.to_frame(Kind::Fail, 1, 0);
                let terms = &payload(&frame)[..payload(&frame).len() - 32];
                same_text(&reason.text, terms, bytes);
            }
        }
        8 => {
            if let Ok(progress) = Progress::read(bytes) {
                assert_eq!(payload(&progress.to_frame(1, 0)), bytes);
            }
        }
        9 => {
            if let Ok(open) = ConnectionOpen::read(bytes) {
                same_text(&open.label, payload(&open.to_frame(1, 0, 0)), bytes);
            }
        }
        10 => {
            if let Ok(fields) = BatchFields::take(&mut Cursor::new(bytes)) {
                assert!(bytes.starts_with(&fields.to_bytes()));
                let _ = fields.end();
            }
        }
        11 => {
            let lanes = u16::from(bytes.first().copied().unwrap_or(0));
            let bytes = bytes.get(1..).unwrap_or(&[]);
            if let Ok(fields) = IndexFields::take(&mut Cursor::new(bytes), lanes) {
                let mut out = Vec::new();
                fields.put(&mut out);
                assert!(bytes.starts_with(&out));
            }
        }
        12 => {
            if let Ok(fields) = PartFields::take(&mut Cursor::new(bytes)) {
                let mut out = Vec::new();
                fields.put(&mut out);
                assert!(bytes.starts_with(&out));
            }
        }
        13 => answer(bytes),
        15 => {
            if let Ok(wanted) = Wanted::read(bytes) {
                assert_eq!(payload(&wanted.to_want(1, 0)), bytes);
            }
        }
        16 => {
            if let Ok((wanted, pages)) = Wanted::read_repair(bytes) {
                assert_eq!(payload(&wanted.to_repair(pages.as_flattened(), 1, 0)), bytes);
            }
        }
        _ => {
            let mut frame = bytes.to_vec();
            repair(&mut frame);
            answer(&frame);
        }
    }
}

/// A stream's first frame: whatever it is, the answer is a frame that its dialler can read.
fn answer(frame: &[u8]) {
    let local = Identity { gateway: [3; 16], instance: [4; 16] };
    match answer_hello(frame, local, [5; 16]) {
        Ok((_, accept)) => {
            assert_eq!(HelloAccept::read(payload(&accept.to_frame())), Ok(accept));
        }
        Err(refuse) => {
            assert_eq!(HelloRefuse::read(payload(&refuse.to_frame())), Ok(refuse));
        }
    }
}
