//! The wire format of DWCP: what two gateways say to each other, byte by byte.
//!
//! `docs/spec/dwcp.md` is the specification; `DWCP-n` in comments and tests names its numbered requirements.
//! Integers are little-endian. Parsers here are total: any input gives a value or a [`WireError`].
//!
//! ```text
//!   0        4    5     6      8         16      20      24        32
//!   | length |kind|flags| lane | session | epoch | check | sequence | payload ...
//! ```

use bytes::{BufMut, Bytes};

mod content;
mod cursor;
mod header;
mod hello;
mod lane_set;
mod message;

pub use content::Wanted;
pub use cursor::{Cursor, WireError};
pub use header::{FRAME_HEADER_BYTES, FrameHeader, Kind, Lane};
pub use hello::{
    Hello, HelloAccept, HelloRefuse, Identity, Nonce, ProbeOffer, RefuseCode, answer_hello, gateway_named,
};
pub use lane_set::LaneSet;
pub use message::{
    Accept, BATCH_FIELDS_BYTES, BatchFields, ConnectionOpen, IndexFields, Open, PART_FIELDS_BYTES,
    PartFields, Progress, ProgressEntry, Reason, ReasonCode,
};

/// A version of the wire format. Two gateways speak the highest that both know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Version {
    /// The first: lanes, batches, positions with running BLAKE3 digests, credit by connection.
    V1 = 1,
}

impl Version {
    /// The oldest version that this build speaks.
    pub const OLDEST: Version = Version::V1;
    /// The newest version that this build speaks.
    pub const NEWEST: Version = Version::V1;

    /// The highest version in both `low..=high` and what this build speaks.
    pub fn choose(low: u16, high: u16) -> Option<Version> {
        (low <= Version::V1 as u16 && high >= Version::V1 as u16).then_some(Version::V1)
    }
}

/// Starts a frame in `out`, which is empty: room for the header that [`finish_frame`] fills in.
pub(crate) fn start_frame(out: &mut impl BufMut) {
    out.put_bytes(0, FRAME_HEADER_BYTES);
}

/// Ends a frame that [`start_frame`] began: the header, now that the payload's length is known.
pub(crate) fn finish_frame(mut frame: impl AsMut<[u8]> + Into<Bytes>, header: FrameHeader) -> Bytes {
    let bytes = frame.as_mut();
    header.write(bytes.len() - FRAME_HEADER_BYTES, &mut bytes[..FRAME_HEADER_BYTES]);
    frame.into()
}
