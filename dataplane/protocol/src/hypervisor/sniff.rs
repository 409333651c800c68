//! What a connection carries, told from its first bytes.

use super::bytes::{be64, counted_string};
use super::progress::StreamKind;
use super::ram;

/// `QEMU_VM_FILE_MAGIC` ("QEVM") and `QEMU_VM_FILE_VERSION` (3), `migration/savevm.c`.
pub(super) const MAIN_MAGIC: [u8; 8] = [0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3];
/// `MULTIFD_MAGIC` and `MULTIFD_VERSION`, `migration/multifd.c`.
pub(super) const MULTIFD_MAGIC: [u8; 8] = [0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1];

/// The kind of the connection that starts with `buf`; none if these bytes could still become several kinds.
/// Decides on the first byte that settles it, so that a foreign protocol is never held back.
pub(super) fn sniff(buf: &[u8]) -> Option<StreamKind> {
    for (magic, kind) in [(MAIN_MAGIC, StreamKind::QemuMain), (MULTIFD_MAGIC, StreamKind::QemuMultifd)] {
        let seen = buf.len().min(magic.len());
        if seen > 0 && buf[..seen] == magic[..seen] {
            return (seen == magic.len()).then_some(kind);
        }
    }
    sniff_preempt(buf)
}

/// A preempt connection has no handshake: it begins with a RAM record that names its block.
fn sniff_preempt(buf: &[u8]) -> Option<StreamKind> {
    // No guest reaches 2^48 bytes of one block, so two zero bytes come first.
    if buf.iter().take(2).any(|byte| *byte != 0) {
        return Some(StreamKind::Opaque);
    }
    let word = be64(buf, 0)?;
    let flags = word & ram::FLAGS_MASK;
    if (flags != ram::FLAG_PAGE && flags != ram::FLAG_ZERO) || buf.get(8) == Some(&0) {
        return Some(StreamKind::Opaque);
    }
    let name = counted_string(buf, 8)?;
    let printable = name.iter().all(|byte| byte.is_ascii_graphic());
    Some(if printable { StreamKind::QemuPreempt } else { StreamKind::Opaque })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_a_magic_waits_and_the_whole_decides() {
        for (magic, kind) in [(MAIN_MAGIC, StreamKind::QemuMain), (MULTIFD_MAGIC, StreamKind::QemuMultifd)] {
            for cut in 0..8 {
                assert_eq!(sniff(&magic[..cut]), None, "{cut} bytes of {kind:?}");
            }
            assert_eq!(sniff(&magic), Some(kind));
            let mut other = magic;
            other[7] ^= 4;
            assert_eq!(sniff(&other), Some(StreamKind::Opaque));
        }
    }

    #[test]
    fn a_foreign_protocol_is_opaque_at_its_first_telling_byte() {
        assert_eq!(sniff(&[0x16]), Some(StreamKind::Opaque)); // a TLS handshake record
        assert_eq!(sniff(b"N"), Some(StreamKind::Opaque)); // NBDMAGIC
        assert_eq!(sniff(b"QA"), Some(StreamKind::Opaque));
        assert_eq!(sniff(&[0, 2, 0, 4]), Some(StreamKind::Opaque)); // a return path
        assert_eq!(sniff(&[0; 8]), Some(StreamKind::Opaque));
    }

    #[test]
    fn a_preempt_connection_begins_with_a_record_that_names_its_block() {
        let mut bytes = 0x7008_u64.to_be_bytes().to_vec();
        bytes.extend_from_slice(b"\x06pc.ram");
        for cut in 0..bytes.len() {
            assert_eq!(sniff(&bytes[..cut]), None);
        }
        assert_eq!(sniff(&bytes), Some(StreamKind::QemuPreempt));
        bytes[10] = 0;
        assert_eq!(sniff(&bytes), Some(StreamKind::Opaque));
    }
}
