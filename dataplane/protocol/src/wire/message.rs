//! Payloads of a session's frames.

use super::cursor::put_text;
use super::{
    Cursor, FRAME_HEADER_BYTES, FrameHeader, Kind, Lane, LaneSet, WireError, finish_frame, start_frame,
};
use crate::limits::{
    BATCH_LEN_MAX, CONNECTIONS_MAX, LABEL_MAX, LANES_MAX, MEMORY_BYTES_MAX, PROGRESS_ENTRIES_MAX,
    REASON_TEXT_MAX,
};
use bytes::{BufMut, Bytes};

/// What the source's gateway proposes for a session (DWCP-10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Page lanes in each direction.
    pub lanes: u16,
    /// Whether batches carry the running BLAKE3. Only a laboratory turns it off.
    pub digest: bool,
    /// Most connections.
    pub connections_max: u16,
    /// Guest bytes that the sender of this frame reserves for each connection it receives on.
    pub receive_window: u64,
    /// Most bytes that each side is to spend on remembering what page lanes carried (DWCP-70); 0: nothing is remembered.
    pub memory_bytes: u64,
    /// How long the session outlives the loss of every stream, in milliseconds.
    pub outage_ms: u32,
    /// Whether this takes up a session that both sides know, after every stream was lost.
    pub resume: bool,
    /// Proof that the sender was told of this session: a keyed BLAKE3 under the session's token.
    pub proof: [u8; 32],
}

impl Open {
    /// What the proof vouches for: the payload before it.
    pub(crate) fn terms(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(26);
        out.extend_from_slice(&self.lanes.to_le_bytes());
        out.push(u8::from(self.digest) | u8::from(self.resume) << 1);
        out.push(0);
        out.extend_from_slice(&self.connections_max.to_le_bytes());
        out.extend_from_slice(&self.receive_window.to_le_bytes());
        out.extend_from_slice(&self.outage_ms.to_le_bytes());
        out.extend_from_slice(&self.memory_bytes.to_le_bytes());
        out
    }

    /// Writes the payload.
    pub fn to_frame(&self, session: u64, epoch: u32) -> Bytes {
        let mut out = Vec::with_capacity(128);
        start_frame(&mut out);
        out.extend_from_slice(&self.terms());
        out.extend_from_slice(&self.proof);
        finish_frame(out, FrameHeader::unordered(Kind::Open, session, epoch))
    }

    /// Reads the payload.
    pub fn read(payload: &[u8]) -> Result<Open, WireError> {
        let mut cursor = Cursor::new(payload);
        let lanes = cursor.u16()?;
        let flags = cursor.u8()?;
        let reserved = cursor.u8()?;
        let connections_max = cursor.u16()?;
        let receive_window = cursor.u64()?;
        let outage_ms = cursor.u32()?;
        let memory_bytes = cursor.u64()?;
        let proof = cursor.array()?;
        cursor.end()?;
        if lanes == 0 || lanes > LANES_MAX {
            return Err(WireError::Value("lanes"));
        }
        if connections_max == 0 || connections_max > CONNECTIONS_MAX {
            return Err(WireError::Value("connections_max"));
        }
        // Nothing would ever cross.
        if receive_window == 0 {
            return Err(WireError::Value("receive_window"));
        }
        if memory_bytes > MEMORY_BYTES_MAX {
            return Err(WireError::Value("memory_bytes"));
        }
        if flags & !3 != 0 || reserved != 0 {
            return Err(WireError::Value("flags"));
        }
        let (digest, resume) = (flags & 1 != 0, flags & 2 != 0);
        Ok(Open { lanes, digest, connections_max, receive_window, memory_bytes, outage_ms, resume, proof })
    }
}

/// The destination's gateway agrees (DWCP-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Guest bytes that the sender of this frame reserves for each connection it receives on.
    pub receive_window: u64,
    /// What each side spends on remembering what page lanes carried: at most what was proposed.
    pub memory_bytes: u64,
    /// The key of the content store to which parts may refer; zeros: there is none (DWCP-75).
    pub content_key: [u8; 32],
    /// What that store spends on pages, in bytes.
    pub content_bytes: u64,
    /// Proof that the sender was told of this session as well.
    pub proof: [u8; 32],
}

impl Accept {
    /// What the proof vouches for: the payload before it.
    pub(crate) fn terms(&self) -> [u8; 56] {
        let mut out = [0; 56];
        out[..8].copy_from_slice(&self.receive_window.to_le_bytes());
        out[8..16].copy_from_slice(&self.memory_bytes.to_le_bytes());
        out[16..48].copy_from_slice(&self.content_key);
        out[48..].copy_from_slice(&self.content_bytes.to_le_bytes());
        out
    }

    /// As a whole frame.
    pub fn to_frame(&self, session: u64, epoch: u32) -> Bytes {
        let mut out = Vec::with_capacity(128);
        start_frame(&mut out);
        out.extend_from_slice(&self.terms());
        out.extend_from_slice(&self.proof);
        finish_frame(out, FrameHeader::unordered(Kind::Accept, session, epoch))
    }

    /// Reads the payload.
    pub fn read(payload: &[u8]) -> Result<Accept, WireError> {
        let mut cursor = Cursor::new(payload);
        let (receive_window, memory_bytes) = (cursor.u64()?, cursor.u64()?);
        let (content_key, content_bytes) = (cursor.array()?, cursor.u64()?);
        let accept =
            Accept { receive_window, memory_bytes, content_key, content_bytes, proof: cursor.array()? };
        cursor.end()?;
        if accept.receive_window == 0 {
            return Err(WireError::Value("receive_window"));
        }
        if accept.memory_bytes > MEMORY_BYTES_MAX {
            return Err(WireError::Value("memory_bytes"));
        }
        if accept.content_bytes > MEMORY_BYTES_MAX {
            return Err(WireError::Value("content_bytes"));
        }
        Ok(accept)
    }
}

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $variant:ident = $wire:literal, $name:literal;)*) => {
        /// Why a session was refused or failed, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ReasonCode {
            $($(#[$doc])* $variant,)*
            /// A code of a later version.
            Other(u16),
        }

        impl ReasonCode {
            fn to_wire(self) -> u16 {
                match self {
                    $(ReasonCode::$variant => $wire,)*
                    ReasonCode::Other(code) => code,
                }
            }

            fn from_wire(wire: u16) -> ReasonCode {
                match wire {
                    $($wire => ReasonCode::$variant,)*
                    other => ReasonCode::Other(other),
                }
            }

            /// The code as records and scripts know it.
            pub fn name(self) -> &'static str {
                match self {
                    $(ReasonCode::$variant => $name,)*
                    ReasonCode::Other(_) => "other",
                }
            }

            /// The code that records and scripts know by this name.
            pub fn from_name(name: &str) -> Option<ReasonCode> {
                match name {
                    $($name => Some(ReasonCode::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

reason_codes! {
    /// The peer was not told of this session, or has forgotten it (a restart).
    SessionUnknown = 1, "session_unknown";
    /// The token does not fit.
    NotAuthorised = 2, "not_authorised";
    /// The peer has no room for another session or connection.
    Limit = 3, "limit_reached";
    /// The peer is shutting down.
    Draining = 4, "draining";
    /// A caller cancelled the session.
    Cancelled = 5, "cancelled";
    /// Bytes arrived that are not what the source wrote.
    DigestMismatch = 6, "digest_mismatch";
    /// The peer broke the protocol.
    Protocol = 7, "protocol_violation";
    /// The destination's hypervisor could not be reached or closed its socket.
    DestinationLost = 8, "destination_lost";
    /// The source's hypervisor closed its socket or could not be read.
    SourceLost = 9, "source_lost";
    /// Every stream was lost for longer than the session may wait.
    Outage = 10, "outage";
    /// Something that had to come in time did not.
    Timeout = 11, "timeout";
    /// The session has ended, and well.
    Finished = 12, "finished";
    /// A batch could not be decoded.
    Decode = 13, "decode_error";
}

/// In the place of a proof.
const UNPROVEN: [u8; 32] = [0; 32];

/// Why a session was refused or failed. Carried by [`Kind::Refuse`] and [`Kind::Fail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people: what happened.
    pub text: String,
}

impl Reason {
    /// A reason with its text.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Reason { code, text: text.into() }
    }

    /// What a proof of it vouches for: the payload before the proof.
    pub(crate) fn terms(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.text.len());
        out.extend_from_slice(&self.code.to_wire().to_le_bytes());
        put_text(&mut out, &self.text, REASON_TEXT_MAX);
        out
    }

    /// As a whole frame of kind [`Kind::Refuse`] or [`Kind::Fail`], from somebody who cannot prove that it knows the session.
    pub fn to_frame(&self, kind: Kind, session: u64, epoch: u32) -> Bytes {
        self.to_frame_with(kind, session, epoch, &UNPROVEN)
    }

    pub(crate) fn to_frame_with(&self, kind: Kind, session: u64, epoch: u32, proof: &[u8; 32]) -> Bytes {
        let mut out = Vec::with_capacity(128 + self.text.len());
        start_frame(&mut out);
        out.extend_from_slice(&self.terms());
        out.extend_from_slice(proof);
        finish_frame(out, FrameHeader::unordered(kind, session, epoch))
    }

    /// The payload's parts: what its proof vouches for, and the proof (DWCP-64). Not from a text that was read: its bytes may have
    /// been replaced.
    pub(crate) fn split(payload: &[u8]) -> Option<(&[u8], &[u8; 32])> {
        payload.split_last_chunk()
    }

    /// Reads the payload. Whether it is to be believed is asked elsewhere.
    pub fn read(payload: &[u8]) -> Result<Reason, WireError> {
        let mut cursor = Cursor::new(payload);
        let code = ReasonCode::from_wire(cursor.u16()?);
        let text = cursor.text(REASON_TEXT_MAX)?;
        let _proof: [u8; 32] = cursor.array()?;
        cursor.end()?;
        Ok(Reason { code, text })
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where one connection stands at its receiver. Every field only grows, so the newest entry replaces all older
/// ones, and a lost one loses nothing (DWCP-30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressEntry {
    /// The connection.
    pub connection: u16,
    /// Frames of the connection's lane whose bytes have been verified: all below this sequence.
    pub verified_frames: u64,
    /// Guest bytes that the hypervisor has taken.
    pub consumed: u64,
    /// The position up to which the sender may send.
    pub limit: u64,
}

/// What was verified, what the hypervisor took, what may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// One entry a connection that moved.
    pub entries: Vec<ProgressEntry>,
}

impl Progress {
    /// As a whole frame; entries beyond the bound are the caller's to send in another.
    pub fn to_frame(&self, session: u64, epoch: u32) -> Bytes {
        self.to_frame_in(Vec::with_capacity(self.frame_bytes()), session, epoch)
    }

    /// The same, in an empty buffer.
    pub(crate) fn to_frame_in<B: BufMut + AsMut<[u8]> + Into<Bytes>>(
        &self,
        mut out: B,
        session: u64,
        epoch: u32,
    ) -> Bytes {
        start_frame(&mut out);
        let entries = &self.entries[..self.entries.len().min(PROGRESS_ENTRIES_MAX)];
        out.put_u8(entries.len() as u8);
        for entry in entries {
            out.put_u16_le(entry.connection);
            out.put_u64_le(entry.verified_frames);
            out.put_u64_le(entry.consumed);
            out.put_u64_le(entry.limit);
        }
        finish_frame(out, FrameHeader::unordered(Kind::Progress, session, epoch))
    }

    /// Bytes of the frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + 1 + 26 * self.entries.len()
    }

    /// Reads the payload.
    pub fn read(payload: &[u8]) -> Result<Progress, WireError> {
        let mut progress = Progress::default();
        progress.replace(payload)?;
        Ok(progress)
    }

    /// Reads the payload in the place of what was here. After an error nothing of either is to be used.
    pub(crate) fn replace(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let mut cursor = Cursor::new(payload);
        let count = usize::from(cursor.u8()?);
        if count > PROGRESS_ENTRIES_MAX {
            return Err(WireError::Length(count as u64));
        }
        self.entries.clear();
        for _ in 0..count {
            let connection = cursor.u16()?;
            if connection >= CONNECTIONS_MAX {
                return Err(WireError::Value("connection"));
            }
            let (verified_frames, consumed, limit) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
            self.entries.push(ProgressEntry { connection, verified_frames, consumed, limit });
        }
        cursor.end()
    }
}

/// The first frame of a connection's lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOpen {
    /// What its caller named it.
    pub label: String,
}

impl ConnectionOpen {
    /// As a whole frame: sequence 0 of the connection's lane.
    pub fn to_frame(&self, session: u64, epoch: u32, connection: u16) -> Bytes {
        let mut out = Vec::with_capacity(64);
        start_frame(&mut out);
        put_text(&mut out, &self.label, LABEL_MAX);
        let lane = Lane::Connection(connection);
        finish_frame(out, FrameHeader { kind: Kind::ConnectionOpen, lane, session, epoch, sequence: 0 })
    }

    /// Reads the payload.
    pub fn read(payload: &[u8]) -> Result<ConnectionOpen, WireError> {
        let mut cursor = Cursor::new(payload);
        let label = cursor.text(LABEL_MAX)?;
        cursor.end()?;
        Ok(ConnectionOpen { label })
    }
}

/// Bytes of [`BatchFields`].
pub const BATCH_FIELDS_BYTES: usize = 48;

/// What opens the payload of a batch, an index and a connection's end: where its bytes stand and what the
/// connection's digest is after them (DWCP-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFields {
    /// Connection bytes before this batch.
    pub position: u64,
    /// Connection bytes in this batch; 0 for an end.
    pub length: u32,
    /// BLAKE3 of all connection bytes up to the end of this batch; zeros where the session carries no digest.
    pub digest: [u8; 32],
}

impl BatchFields {
    /// As bytes.
    pub fn to_bytes(&self) -> [u8; BATCH_FIELDS_BYTES] {
        let mut out = [0; BATCH_FIELDS_BYTES];
        out[0..8].copy_from_slice(&self.position.to_le_bytes());
        out[8..12].copy_from_slice(&self.length.to_le_bytes());
        out[16..48].copy_from_slice(&self.digest);
        out
    }

    /// Reads them from the front of a payload.
    pub fn take(cursor: &mut Cursor<'_>) -> Result<BatchFields, WireError> {
        let position = cursor.u64()?;
        let length = cursor.u32()?;
        if cursor.u32()? != 0 {
            return Err(WireError::Value("reserved"));
        }
        if length as usize > BATCH_LEN_MAX {
            return Err(WireError::Length(u64::from(length)));
        }
        Ok(BatchFields { position, length, digest: cursor.array()? })
    }

    /// The position after this batch; an error where it would wrap.
    pub fn end(&self) -> Result<u64, WireError> {
        self.position.checked_add(u64::from(self.length)).ok_or(WireError::Value("position"))
    }
}

/// What follows [`BatchFields`] in an index: the page lanes that hold a part of this batch (DWCP-21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexFields {
    /// Written ascending.
    pub lanes: LaneSet,
}

impl IndexFields {
    /// Appends them.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u16_le(self.lanes.len() as u16);
        self.lanes.iter().for_each(|lane| out.put_u16_le(lane));
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        2 + 2 * self.lanes.len()
    }

    /// Reads them; `lanes` is the session's number of lanes.
    pub fn take(cursor: &mut Cursor<'_>, lanes: u16) -> Result<IndexFields, WireError> {
        let count = cursor.u16()?;
        if count > lanes {
            return Err(WireError::Length(u64::from(count)));
        }
        let (mut named, mut last) = (LaneSet::default(), None);
        for _ in 0..count {
            let lane = cursor.u16()?;
            if lane >= lanes.min(LANES_MAX) || last.is_some_and(|last| last >= lane) {
                return Err(WireError::Value("lane"));
            }
            named.insert(lane);
            last = Some(lane);
        }
        Ok(IndexFields { lanes: named })
    }
}

/// Bytes of [`PartFields`].
pub const PART_FIELDS_BYTES: usize = 16;

/// What opens a part's payload: the batch that its pages belong to (DWCP-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartFields {
    /// The connection.
    pub connection: u16,
    /// The sequence of the batch's index in the connection's lane.
    pub batch: u64,
}

impl PartFields {
    /// Appends them.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u16_le(self.connection);
        out.put_bytes(0, 6);
        out.put_u64_le(self.batch);
    }

    /// Reads them from the front of a payload.
    pub fn take(cursor: &mut Cursor<'_>) -> Result<PartFields, WireError> {
        let connection = cursor.u16()?;
        if connection >= CONNECTIONS_MAX {
            return Err(WireError::Value("connection"));
        }
        if cursor.array::<6>()? != [0; 6] {
            return Err(WireError::Value("reserved"));
        }
        Ok(PartFields { connection, batch: cursor.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(frame: &Bytes) -> &[u8] {
        &frame[FRAME_HEADER_BYTES..]
    }

    proptest! {
        #[test]
        fn open_round_trip(
            lanes in 1..=LANES_MAX, digest: bool, resume: bool, connections_max in 1..=CONNECTIONS_MAX,
            receive_window in 1..=u64::MAX, memory_bytes in 0..=MEMORY_BYTES_MAX, outage_ms: u32, proof: [u8; 32]
        ) {
            let open =
                Open { lanes, digest, connections_max, receive_window, memory_bytes, outage_ms, resume, proof };
            prop_assert_eq!(Open::read(payload(&open.to_frame(1, 2))), Ok(open));
        }

        #[test]
        fn progress_round_trip(entries in prop::collection::vec(
            (0..CONNECTIONS_MAX, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
                |(connection, verified_frames, consumed, limit)| ProgressEntry { connection, verified_frames, consumed, limit }),
            0..=PROGRESS_ENTRIES_MAX
        )) {
            let progress = Progress { entries };
            prop_assert_eq!(Progress::read(payload(&progress.to_frame(1, 2))), Ok(progress));
        }

        #[test]
        fn batch_fields_round_trip(position: u64, length in 0..=BATCH_LEN_MAX as u32, digest: [u8; 32]) {
            let fields = BatchFields { position, length, digest };
            prop_assert_eq!(BatchFields::take(&mut Cursor::new(&fields.to_bytes())), Ok(fields));
        }

        #[test]
        fn reason_round_trip(code: u16, text in ".{0,80}") {
            let reason = Reason::new(ReasonCode::from_wire(code), text);
            prop_assert_eq!(Reason::read(payload(&reason.to_frame(Kind::Fail, 1, 2))), Ok(reason));
        }

        /// DWCP-3: every payload parser is total.
        #[test]
        fn total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Open::read(&bytes), Accept::read(&bytes), Reason::read(&bytes), Progress::read(&bytes));
            let _ = (ConnectionOpen::read(&bytes), BatchFields::take(&mut Cursor::new(&bytes)));
            let _ = (IndexFields::take(&mut Cursor::new(&bytes), 64), PartFields::take(&mut Cursor::new(&bytes)));
        }
    }

    #[test]
    fn a_length_of_2_to_the_60_is_refused() {
        let mut bytes = BatchFields { position: 1 << 60, length: 0, digest: [0; 32] }.to_bytes();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(BatchFields::take(&mut Cursor::new(&bytes)), Err(WireError::Length(u64::from(u32::MAX))));
    }

    #[test]
    fn a_peer_that_reserves_nothing_is_refused() {
        let accept = |receive_window| Accept {
            receive_window,
            memory_bytes: 0,
            content_key: [2; 32],
            content_bytes: 3,
            proof: [1; 32],
        };
        assert_eq!(Accept::read(payload(&accept(1).to_frame(1, 0))), Ok(accept(1)));
        assert_eq!(Accept::read(payload(&accept(0).to_frame(1, 0))), Err(WireError::Value("receive_window")));
        let open = Open {
            lanes: 1,
            digest: true,
            connections_max: 1,
            receive_window: 0,
            memory_bytes: 0,
            outage_ms: 0,
            resume: false,
            proof: [1; 32],
        };
        assert_eq!(Open::read(payload(&open.to_frame(1, 0))), Err(WireError::Value("receive_window")));
        let endless = Accept { memory_bytes: MEMORY_BYTES_MAX + 1, ..accept(1) };
        assert_eq!(Accept::read(payload(&endless.to_frame(1, 0))), Err(WireError::Value("memory_bytes")));
        let endless = Accept { content_bytes: MEMORY_BYTES_MAX + 1, ..accept(1) };
        assert_eq!(Accept::read(payload(&endless.to_frame(1, 0))), Err(WireError::Value("content_bytes")));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = Reason::new(ReasonCode::Cancelled, "ü".repeat(REASON_TEXT_MAX));
        let read = Reason::read(payload(&reason.to_frame(Kind::Fail, 1, 2))).unwrap();
        assert_eq!(read.text, "ü".repeat(REASON_TEXT_MAX / 2));
    }
}
