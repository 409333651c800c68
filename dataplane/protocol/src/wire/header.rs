//! The header that opens every frame.

use super::WireError;
use crate::limits::{CONNECTIONS_MAX, FRAME_PAYLOAD_MAX, LANES_MAX};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;

/// The flag of a sealed frame, whose payload ends in an authentication tag. Version 1 seals nothing: its
/// transports encrypt by themselves (DWCP-8).
const FLAG_SEALED: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// First frame of the dialling gateway on a stream.
    Hello = 0x44,
    /// The accepting gateway's answer: the stream is open.
    HelloAccept = 0x45,
    /// The accepting gateway's answer: the stream is refused, with the reason.
    HelloRefuse = 0x46,
    /// Opens a session, or takes it up again on a new stream.
    Open = 1,
    /// The session is open.
    Accept = 2,
    /// The session is not, with the reason.
    Refuse = 3,
    /// The session has failed, with the reason.
    Fail = 4,
    /// What was verified, what the hypervisor took, what may be sent.
    Progress = 5,
    /// Pages that were only referred to, and are not here.
    Want = 6,
    /// These pages.
    Repair = 7,
    /// A connection begins: the first frame of its lane.
    ConnectionOpen = 16,
    /// A batch as its own bytes.
    Batch = 17,
    /// A batch as an index: what is needed beside the pages to make its bytes.
    Index = 18,
    /// The pages of one lane that a batch needs.
    Part = 19,
    /// A connection's direction has ended: the last frame of its lane.
    ConnectionEnd = 20,
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Kind, WireError> {
        Ok(match byte {
            0x44 => Kind::Hello,
            0x45 => Kind::HelloAccept,
            0x46 => Kind::HelloRefuse,
            1 => Kind::Open,
            2 => Kind::Accept,
            3 => Kind::Refuse,
            4 => Kind::Fail,
            5 => Kind::Progress,
            6 => Kind::Want,
            7 => Kind::Repair,
            16 => Kind::ConnectionOpen,
            17 => Kind::Batch,
            18 => Kind::Index,
            19 => Kind::Part,
            20 => Kind::ConnectionEnd,
            other => return Err(WireError::Kind(other)),
        })
    }
}

/// What orders a frame among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The lane of a share of the guest's pages: parts.
    Page(u16),
    /// A connection's own lane: its opening, batches, indexes and end.
    Connection(u16),
    /// No order: each such frame stands for itself.
    Unordered,
}

impl Lane {
    const CONNECTION: u16 = 0x8000;
    const UNORDERED: u16 = 0xffff;

    fn to_wire(self) -> u16 {
        match self {
            Lane::Page(lane) => lane,
            Lane::Connection(connection) => Lane::CONNECTION | connection,
            Lane::Unordered => Lane::UNORDERED,
        }
    }

    fn from_wire(wire: u16) -> Result<Lane, WireError> {
        match wire {
            Lane::UNORDERED => Ok(Lane::Unordered),
            lane if lane < LANES_MAX => Ok(Lane::Page(lane)),
            lane if lane & Lane::CONNECTION != 0 && lane & !Lane::CONNECTION < CONNECTIONS_MAX => {
                Ok(Lane::Connection(lane & !Lane::CONNECTION))
            }
            _ => Err(WireError::Value("lane")),
        }
    }
}

/// The header of a frame, less its length and check value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: Kind,
    /// What orders it.
    pub lane: Lane,
    /// Whose it is; 0 for a stream's own frames.
    pub session: u64,
    /// Which run of sequence numbers it belongs to.
    pub epoch: u32,
    /// Its place in its lane, from 0; 0 for unordered frames.
    pub sequence: u64,
}

impl FrameHeader {
    /// A header of a frame that nothing orders.
    pub fn unordered(kind: Kind, session: u64, epoch: u32) -> Self {
        FrameHeader { kind, lane: Lane::Unordered, session, epoch, sequence: 0 }
    }

    /// Writes the header of a frame with `length` payload bytes into the first 32 bytes of `out` (DWCP-1).
    pub fn write(&self, length: usize, out: &mut [u8]) {
        let mut bytes = [0u8; FRAME_HEADER_BYTES];
        // Payloads are bounded by FRAME_PAYLOAD_MAX, far below 2^32.
        bytes[0..4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.lane.to_wire().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.session.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        let check = check_value(&bytes);
        bytes[20..24].copy_from_slice(&check.to_le_bytes());
        out[..FRAME_HEADER_BYTES].copy_from_slice(&bytes);
    }

    /// Whether a header is what its sender wrote (DWCP-2): nothing in it is to be believed before that.
    pub fn is_intact(bytes: &[u8; FRAME_HEADER_BYTES]) -> bool {
        bytes[20..24] == check_value(bytes).to_le_bytes()
    }

    /// Reads a whole frame's header and checks it against the frame's length (DWCP-1 to DWCP-3).
    pub fn read(frame: &[u8]) -> Result<FrameHeader, WireError> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = frame.first_chunk().ok_or(WireError::Short)?;
        let mut cursor = super::Cursor::new(bytes);
        let length = cursor.u32()?;
        let kind = cursor.u8()?;
        let flags = cursor.u8()?;
        let lane = cursor.u16()?;
        let session = cursor.u64()?;
        let epoch = cursor.u32()?;
        let _check = cursor.u32()?;
        let sequence = cursor.u64()?;
        if !FrameHeader::is_intact(bytes) {
            return Err(WireError::Check);
        }
        if length as usize > FRAME_PAYLOAD_MAX || length as usize != frame.len() - FRAME_HEADER_BYTES {
            return Err(WireError::Length(u64::from(length)));
        }
        if flags != 0 {
            debug_assert_eq!(FLAG_SEALED, 1);
            return Err(WireError::Flags(flags));
        }
        Ok(FrameHeader {
            kind: Kind::from_byte(kind)?,
            lane: Lane::from_wire(lane)?,
            session,
            epoch,
            sequence,
        })
    }
}

/// CRC-32C over everything but the check value itself: a damaged length must not frame what follows it.
fn check_value(bytes: &[u8; FRAME_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = FrameHeader> {
        let kind =
            prop::sample::select(vec![Kind::Hello, Kind::Open, Kind::Progress, Kind::Batch, Kind::Part]);
        let lane = prop_oneof![
            (0..LANES_MAX).prop_map(Lane::Page),
            (0..CONNECTIONS_MAX).prop_map(Lane::Connection),
            Just(Lane::Unordered)
        ];
        (kind, lane, any::<u64>(), any::<u32>(), any::<u64>()).prop_map(
            |(kind, lane, session, epoch, sequence)| FrameHeader { kind, lane, session, epoch, sequence },
        )
    }

    proptest! {
        /// DWCP-1: what is written is read.
        #[test]
        fn round_trip(header in any_header(), payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            frame.extend(&payload);
            header.write(payload.len(), &mut frame);
            prop_assert_eq!(FrameHeader::read(&frame), Ok(header));
        }

        /// DWCP-2: one flipped bit anywhere in the header is found.
        #[test]
        fn flipped_bit(header in any_header(), bit in 0usize..FRAME_HEADER_BYTES * 8) {
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            header.write(0, &mut frame);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!FrameHeader::is_intact(frame.first_chunk().unwrap()));
            prop_assert!(FrameHeader::read(&frame).is_err());
        }

        /// DWCP-3: any bytes give a header or an error.
        #[test]
        fn total(frame in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = FrameHeader::read(&frame);
        }
    }

    #[test]
    fn sealed_frames_are_refused_in_version_1() {
        let mut frame = [0; FRAME_HEADER_BYTES];
        FrameHeader::unordered(Kind::Open, 1, 0).write(0, &mut frame);
        frame[5] = FLAG_SEALED;
        let check = check_value(&frame);
        frame[20..24].copy_from_slice(&check.to_le_bytes());
        assert_eq!(FrameHeader::read(&frame), Err(WireError::Flags(FLAG_SEALED)));
    }
}
