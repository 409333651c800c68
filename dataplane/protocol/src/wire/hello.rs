//! The handshake that opens a stream: who speaks, in which version, with which bounds.

use super::cursor::put_text;
use super::{Cursor, FrameHeader, Kind, Version, WireError, finish_frame, start_frame};
use crate::limits::{FRAME_PAYLOAD_MAX, HELLO_AUTH_MAX, REASON_TEXT_MAX};
use bytes::Bytes;

const MAGIC: [u8; 4] = *b"DWCP";

/// Who a gateway is, as it says itself. What it can prove is the transport's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The gateway, for as long as it is configured so.
    pub gateway: [u8; 16],
    /// This run of its process, random: a peer that restarted has forgotten its sessions, and this tells.
    pub instance: [u8; 16],
}

/// The field `gateway` of a gateway whose transport proves this name. It stands in the place of the name, which may be longer,
/// and is compared with what the transport proved (DWCP-60).
pub fn gateway_named(name: &str) -> [u8; 16] {
    let hash = blake3::derive_key("novacron dwcp gateway name", name.as_bytes());
    let mut gateway = [0; 16];
    gateway.copy_from_slice(&hash[..16]);
    gateway
}

/// Random bytes that one end says once, for one stream (DWCP-61).
pub type Nonce = [u8; 16];

/// The bit of `features` that says that a [`ProbeOffer`] follows the fields.
const FEATURE_PROBES: u64 = 1;

/// What two gateways probe the path between them under: each says a half in a stream's handshake (DWCP-100).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProbeOffer {
    /// The UDP port at which this gateway answers probes, at the address that the stream has.
    pub port: u16,
    /// Random bytes, for this stream alone.
    pub share: [u8; 32],
}

impl std::fmt::Debug for ProbeOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProbeOffer").field("port", &self.port).finish_non_exhaustive()
    }
}

fn features(offer: Option<&ProbeOffer>) -> u64 {
    if offer.is_some() { FEATURE_PROBES } else { 0 }
}

fn put_offer(out: &mut Vec<u8>, offer: Option<&ProbeOffer>) {
    if let Some(offer) = offer {
        out.extend_from_slice(&offer.port.to_le_bytes());
        out.extend_from_slice(&offer.share);
    }
}

fn take_offer(cursor: &mut Cursor<'_>, features: u64) -> Result<Option<ProbeOffer>, WireError> {
    if features & FEATURE_PROBES == 0 {
        return Ok(None);
    }
    let offer = ProbeOffer { port: cursor.u16()?, share: cursor.array()? };
    if offer.port == 0 {
        return Err(WireError::Value("probe_port"));
    }
    Ok(Some(offer))
}

/// The dialling gateway's first frame. Its layout never changes, so that any two versions can refuse each
/// other politely (DWCP-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version that the dialler speaks.
    pub version_low: u16,
    /// Newest version that the dialler speaks.
    pub version_high: u16,
    /// Who dials.
    pub identity: Identity,
    /// Which of the dialler's groups of streams this one joins: sessions stay within a group.
    pub group: u16,
    /// Largest payload that the dialler accepts.
    pub payload_max: u32,
    /// The dialler's for this stream.
    pub nonce: Nonce,
    /// Proof of identity for transports that carry none; empty in version 1.
    pub auth: Vec<u8>,
    /// The dialler's half of what both are to probe under; only on a stream that proves who is at its ends.
    pub probe: Option<ProbeOffer>,
}

impl Hello {
    /// The first frame of this build, with random bytes that were never said before.
    pub fn new(identity: Identity, group: u16, nonce: Nonce) -> Self {
        Hello {
            version_low: Version::OLDEST as u16,
            version_high: Version::NEWEST as u16,
            identity,
            group,
            payload_max: FRAME_PAYLOAD_MAX as u32,
            nonce,
            auth: Vec::new(),
            probe: None,
        }
    }

    /// As a whole frame.
    pub fn to_frame(&self) -> Bytes {
        let mut out = Vec::new();
        start_frame(&mut out);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version_low.to_le_bytes());
        out.extend_from_slice(&self.version_high.to_le_bytes());
        put_identity(&mut out, &self.identity);
        out.extend_from_slice(&self.group.to_le_bytes());
        out.extend_from_slice(&self.payload_max.to_le_bytes());
        out.extend_from_slice(&features(self.probe.as_ref()).to_le_bytes());
        out.extend_from_slice(&self.nonce);
        let auth = &self.auth[..self.auth.len().min(HELLO_AUTH_MAX)];
        out.extend_from_slice(&(auth.len() as u16).to_le_bytes());
        out.extend_from_slice(auth);
        put_offer(&mut out, self.probe.as_ref());
        finish_frame(out, FrameHeader::unordered(Kind::Hello, 0, 0))
    }

    /// Reads the payload of a [`Kind::Hello`] frame. Bytes after the known fields belong to later versions.
    pub fn read(payload: &[u8]) -> Result<Hello, WireError> {
        let mut cursor = Cursor::new(payload);
        if cursor.array()? != MAGIC {
            return Err(WireError::Magic);
        }
        let version_low = cursor.u16()?;
        let version_high = cursor.u16()?;
        let identity = take_identity(&mut cursor)?;
        let group = cursor.u16()?;
        let payload_max = cursor.u32()?;
        let features = cursor.u64()?;
        let nonce = cursor.array()?;
        let auth_length = usize::from(cursor.u16()?);
        if auth_length > HELLO_AUTH_MAX {
            return Err(WireError::Length(auth_length as u64));
        }
        let auth = cursor.bytes(auth_length)?.to_vec();
        if version_low > version_high {
            return Err(WireError::Value("version"));
        }
        let probe = take_offer(&mut cursor, features)?;
        Ok(Hello { version_low, version_high, identity, group, payload_max, nonce, auth, probe })
    }
}

/// The accepting gateway's yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAccept {
    /// The version that both speak from here on.
    pub version: Version,
    /// Who accepts.
    pub identity: Identity,
    /// Largest payload that the acceptor accepts.
    pub payload_max: u32,
    /// The acceptor's for this stream.
    pub nonce: Nonce,
    /// The acceptor's half, if it takes what the dialler offered.
    pub probe: Option<ProbeOffer>,
}

impl HelloAccept {
    /// As a whole frame.
    pub fn to_frame(&self) -> Bytes {
        let mut out = Vec::new();
        start_frame(&mut out);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(self.version as u16).to_le_bytes());
        put_identity(&mut out, &self.identity);
        out.extend_from_slice(&self.payload_max.to_le_bytes());
        out.extend_from_slice(&features(self.probe.as_ref()).to_le_bytes());
        out.extend_from_slice(&self.nonce);
        put_offer(&mut out, self.probe.as_ref());
        finish_frame(out, FrameHeader::unordered(Kind::HelloAccept, 0, 0))
    }

    /// Reads the payload of a [`Kind::HelloAccept`] frame.
    pub fn read(payload: &[u8]) -> Result<HelloAccept, WireError> {
        let mut cursor = Cursor::new(payload);
        if cursor.array()? != MAGIC {
            return Err(WireError::Magic);
        }
        let version = cursor.u16()?;
        let version = Version::choose(version, version).ok_or(WireError::Value("version"))?;
        let identity = take_identity(&mut cursor)?;
        let (payload_max, features) = (cursor.u32()?, cursor.u64()?);
        let nonce = cursor.array()?;
        let probe = take_offer(&mut cursor, features)?;
        Ok(HelloAccept { version, identity, payload_max, nonce, probe })
    }
}

/// Why a stream is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefuseCode {
    /// No version that both speak.
    Version,
    /// The first frame was not a handshake.
    NotDwcp,
    /// The gateway takes no more streams.
    Limit,
    /// The gateway is shutting down.
    Draining,
    /// The peer may not have sessions with this gateway, or is not who it says (DWCP-60).
    NotAuthorised,
    /// A code of a later version.
    Other(u16),
}

impl RefuseCode {
    fn to_wire(self) -> u16 {
        match self {
            RefuseCode::Version => 1,
            RefuseCode::NotDwcp => 2,
            RefuseCode::Limit => 3,
            RefuseCode::Draining => 4,
            RefuseCode::NotAuthorised => 5,
            RefuseCode::Other(code) => code,
        }
    }

    fn from_wire(wire: u16) -> RefuseCode {
        match wire {
            1 => RefuseCode::Version,
            2 => RefuseCode::NotDwcp,
            3 => RefuseCode::Limit,
            4 => RefuseCode::Draining,
            5 => RefuseCode::NotAuthorised,
            other => RefuseCode::Other(other),
        }
    }
}

/// The accepting gateway's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloRefuse {
    /// Why, for programs.
    pub code: RefuseCode,
    /// Oldest version that the acceptor speaks.
    pub version_low: u16,
    /// Newest version that the acceptor speaks.
    pub version_high: u16,
    /// Why, for people.
    pub text: String,
}

impl HelloRefuse {
    /// A refusal by this build.
    pub fn new(code: RefuseCode, text: impl Into<String>) -> Self {
        let (version_low, version_high) = (Version::OLDEST as u16, Version::NEWEST as u16);
        HelloRefuse { code, version_low, version_high, text: text.into() }
    }

    /// As a whole frame.
    pub fn to_frame(&self) -> Bytes {
        let mut out = Vec::new();
        start_frame(&mut out);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.code.to_wire().to_le_bytes());
        out.extend_from_slice(&self.version_low.to_le_bytes());
        out.extend_from_slice(&self.version_high.to_le_bytes());
        put_text(&mut out, &self.text, REASON_TEXT_MAX);
        finish_frame(out, FrameHeader::unordered(Kind::HelloRefuse, 0, 0))
    }

    /// Reads the payload of a [`Kind::HelloRefuse`] frame.
    pub fn read(payload: &[u8]) -> Result<HelloRefuse, WireError> {
        let mut cursor = Cursor::new(payload);
        if cursor.array()? != MAGIC {
            return Err(WireError::Magic);
        }
        let code = RefuseCode::from_wire(cursor.u16()?);
        let (version_low, version_high) = (cursor.u16()?, cursor.u16()?);
        Ok(HelloRefuse { code, version_low, version_high, text: cursor.text(REASON_TEXT_MAX)? })
    }
}

/// The accepting gateway's answer to a stream's first frame (DWCP-4 to DWCP-6), with random bytes that were never said before.
pub fn answer_hello(
    frame: &[u8],
    local: Identity,
    nonce: Nonce,
) -> Result<(Hello, HelloAccept), HelloRefuse> {
    let not_dwcp = |error: WireError| HelloRefuse::new(RefuseCode::NotDwcp, error.to_string());
    let header = FrameHeader::read(frame).map_err(not_dwcp)?;
    if header.kind != Kind::Hello {
        return Err(HelloRefuse::new(RefuseCode::NotDwcp, "the first frame of a stream must be a handshake"));
    }
    let hello = Hello::read(&frame[super::FRAME_HEADER_BYTES..]).map_err(not_dwcp)?;
    let Some(version) = Version::choose(hello.version_low, hello.version_high) else {
        let text = format!(
            "the dialling gateway speaks DWCP {} to {}, this one {} to {}: upgrade the older one",
            hello.version_low,
            hello.version_high,
            Version::OLDEST as u16,
            Version::NEWEST as u16
        );
        return Err(HelloRefuse::new(RefuseCode::Version, text));
    };
    let payload_max = FRAME_PAYLOAD_MAX as u32;
    let accept = HelloAccept { version, identity: local, payload_max, nonce, probe: None };
    Ok((hello, accept))
}

fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.extend_from_slice(&identity.gateway);
    out.extend_from_slice(&identity.instance);
}

fn take_identity(cursor: &mut Cursor<'_>) -> Result<Identity, WireError> {
    Ok(Identity { gateway: cursor.array()?, instance: cursor.array()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FRAME_HEADER_BYTES;
    use proptest::prelude::*;

    const DIALLER: Identity = Identity { gateway: [1; 16], instance: [2; 16] };
    const ACCEPTOR: Identity = Identity { gateway: [3; 16], instance: [4; 16] };
    const NONCE: Nonce = [5; 16];
    const ANSWER: Nonce = [6; 16];

    /// DWCP-5: the highest version that both speak is chosen.
    #[test]
    fn both_speak_version_1() {
        let hello = Hello::new(DIALLER, 7, NONCE);
        let (read, accept) = answer_hello(&hello.to_frame(), ACCEPTOR, ANSWER).unwrap();
        assert_eq!(read, hello);
        let frame = accept.to_frame();
        assert_eq!(HelloAccept::read(&frame[FRAME_HEADER_BYTES..]), Ok(accept));
    }

    /// DWCP-61: both ends say random bytes for the stream; a handshake without them is refused in words.
    #[test]
    fn both_ends_say_a_nonce() {
        let hello = Hello::new(DIALLER, 7, NONCE).to_frame();
        let (read, accept) = answer_hello(&hello, ACCEPTOR, ANSWER).unwrap();
        assert_eq!((read.nonce, accept.nonce), (NONCE, ANSWER));
        // As a build from before would say it.
        let mut old = hello[..FRAME_HEADER_BYTES + 54].to_vec();
        old.extend_from_slice(&[0; 2]);
        FrameHeader::unordered(Kind::Hello, 0, 0).write(56, &mut old);
        let refuse = answer_hello(&old, ACCEPTOR, ANSWER).unwrap_err();
        assert_eq!(refuse.code, RefuseCode::NotDwcp);
        assert!(!refuse.text.is_empty());
    }

    /// DWCP-60: the number follows from the name alone, and differs between names.
    #[test]
    fn a_name_is_a_gateways_number() {
        let number = gateway_named("novacron://site-a/gateway/edge-1");
        assert_eq!(number, gateway_named("novacron://site-a/gateway/edge-1"));
        assert_ne!(number, gateway_named("novacron://site-a/gateway/edge-2"));
        assert_ne!(number, gateway_named(""));
    }

    /// DWCP-6: no common version is refused, naming both ranges.
    #[test]
    fn wrong_version() {
        for (version_low, version_high) in [(0, 0), (2, 9)] {
            let hello = Hello { version_low, version_high, ..Hello::new(DIALLER, 0, NONCE) };
            let refuse = answer_hello(&hello.to_frame(), ACCEPTOR, ANSWER).unwrap_err();
            assert_eq!(refuse.code, RefuseCode::Version);
            assert!(refuse.text.contains(&format!("{version_low} to {version_high}")), "{}", refuse.text);
            assert_eq!(HelloRefuse::read(&refuse.to_frame()[FRAME_HEADER_BYTES..]), Ok(refuse));
        }
    }

    /// DWCP-100: a half stands behind the fields that every version knows, and is not printed.
    #[test]
    fn halves_of_a_probe_secret_come_back() {
        let offer = ProbeOffer { port: 7402, share: [0x41; 32] };
        let hello = Hello { probe: Some(offer), ..Hello::new(DIALLER, 7, NONCE) };
        let (read, accept) = answer_hello(&hello.to_frame(), ACCEPTOR, ANSWER).unwrap();
        assert_eq!((read.probe, accept.probe), (Some(offer), None));
        let accept = HelloAccept { probe: Some(offer), ..accept };
        assert_eq!(HelloAccept::read(&accept.to_frame()[FRAME_HEADER_BYTES..]), Ok(accept));
        assert!(!format!("{hello:?}").contains("65"), "{hello:?}");
        // A reader that does not know the bit ignores what follows.
        let frame = hello.to_frame();
        let known = &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + 72];
        let mut older = known.to_vec();
        older[46] = 0;
        older.extend_from_slice(&frame[FRAME_HEADER_BYTES + 72..]);
        assert_eq!(Hello::read(&older), Ok(Hello::new(DIALLER, 7, NONCE)));
        // One that promises a half and has none is refused.
        assert!(Hello::read(known).is_err());
    }

    #[test]
    fn a_later_version_may_append_fields() {
        let mut frame = Hello { version_high: 9, ..Hello::new(DIALLER, 0, NONCE) }.to_frame().to_vec();
        frame.extend_from_slice(b"from the future");
        let length = frame.len() - FRAME_HEADER_BYTES;
        FrameHeader::unordered(Kind::Hello, 0, 0).write(length, &mut frame);
        assert_eq!(answer_hello(&frame, ACCEPTOR, ANSWER).unwrap().1.version, Version::V1);
    }

    proptest! {
        #[test]
        fn total(payload in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = (Hello::read(&payload), HelloAccept::read(&payload), HelloRefuse::read(&payload));
            let _ = answer_hello(&payload, ACCEPTOR, ANSWER);
        }
    }
}
