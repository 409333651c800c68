//! The one thing that a transport knows about a frame: where it ends.

use crate::limits::FRAME_HEADER_BYTES;
use std::fmt;

/// A header announced more than the configured maximum. Nothing was allocated for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversize {
    /// Payload bytes that the header announces.
    pub payload_bytes: usize,
    /// Payload bytes that this transport accepts.
    pub payload_bytes_max: usize,
}

impl fmt::Display for Oversize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a frame of {} payload bytes was announced, at most {} are accepted",
            self.payload_bytes, self.payload_bytes_max
        )
    }
}

impl std::error::Error for Oversize {}

/// Length of the whole frame, header included, that `header` begins; `None` while fewer than
/// [`FRAME_HEADER_BYTES`] are there. The length is checked before anybody allocates for it.
pub fn frame_len(header: &[u8], payload_bytes_max: usize) -> Result<Option<usize>, Oversize> {
    if header.len() < FRAME_HEADER_BYTES {
        return Ok(None);
    }
    let payload_bytes = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if payload_bytes > payload_bytes_max {
        return Err(Oversize { payload_bytes, payload_bytes_max });
    }
    Ok(Some(FRAME_HEADER_BYTES + payload_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_little_endian_and_checked() {
        let mut header = [0u8; FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&0x0001_0203u32.to_le_bytes());
        assert_eq!(frame_len(&header, 0x0001_0203), Ok(Some(0x0001_0203 + FRAME_HEADER_BYTES)));
        assert_eq!(
            frame_len(&header, 0x0001_0202),
            Err(Oversize { payload_bytes: 0x0001_0203, payload_bytes_max: 0x0001_0202 })
        );
        assert_eq!(frame_len(&header[..FRAME_HEADER_BYTES - 1], usize::MAX), Ok(None));
        assert_eq!(frame_len(&[], 0), Ok(None));
    }
}
