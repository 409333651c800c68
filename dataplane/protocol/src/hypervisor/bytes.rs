//! Big-endian fields of a buffer that may be too short for them.

/// `N` bytes at `at`, if the buffer holds them.
fn array<const N: usize>(buf: &[u8], at: usize) -> Option<[u8; N]> {
    buf.get(at..)?.first_chunk::<N>().copied()
}

pub(super) fn be16(buf: &[u8], at: usize) -> Option<u16> {
    array(buf, at).map(u16::from_be_bytes)
}

pub(super) fn be32(buf: &[u8], at: usize) -> Option<u32> {
    array(buf, at).map(u32::from_be_bytes)
}

pub(super) fn be64(buf: &[u8], at: usize) -> Option<u64> {
    array(buf, at).map(u64::from_be_bytes)
}

/// A string with its length in one byte before it, as QEMU's `qemu_put_counted_string` writes it.
pub(super) fn counted_string(buf: &[u8], at: usize) -> Option<&[u8]> {
    let len = usize::from(*buf.get(at)?);
    buf.get(at + 1..at + 1 + len)
}
