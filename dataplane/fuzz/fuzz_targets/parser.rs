//! The hypervisor parser on any bytes, cut anyhow: it covers every byte, the spans are the same for every cut
//! that lets it hold bytes back, and the writer makes the same bytes of them again.
//!
//! Input: a byte for the number of pieces, a big-endian u16 for each (the top bit: nothing may be held back),
//! then the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use novacron_protocol::hypervisor::Parser;
use novacron_protocol::hypervisor::synthetic::{Piece, join_all, rebuild, walk};

fuzz_target!(|input: &[u8]| {
    let Some((&pieces, rest)) = input.split_first() else { return };
    let Some((cuts, stream)) = rest.split_at_checked(2 * usize::from(pieces % 8)) else { return };
    let pieces: Vec<Piece> = cuts
        .chunks_exact(2)
        .map(|cut| {
            let cut = u16::from_be_bytes([cut[0], cut[1]]);
            Piece { bytes: usize::from(cut & 0x7fff), more: cut & 0x8000 == 0 }
        })
        .collect();

    let spans = walk(&mut Parser::new(), stream, &pieces);
    assert!(rebuild(&spans, stream).expect("the spans fit the stream") == stream);

    let mut whole = Parser::new();
    let expected = join_all(&walk(&mut whole, stream, &[]));
    let held: Vec<Piece> = pieces.iter().map(|piece| Piece { more: true, ..*piece }).collect();
    let mut cut = Parser::new();
    assert_eq!(join_all(&walk(&mut cut, stream, &held)), expected);
    assert_eq!(cut.progress(), whole.progress());
});
