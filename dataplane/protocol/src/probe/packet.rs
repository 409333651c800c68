//! The header that every probe and every answer starts with, and its code of authentication.

use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// Bytes of the header, which is all that an answer is (DWCP-90).
pub const HEADER_BYTES: usize = 64;

/// Bytes that the code of authentication covers; it stands right behind them.
const COVERED_BYTES: usize = 56;

/// First bytes of a probe: `NVP1`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"NVP1");

/// A SipHash key.
pub type Key = [u64; 2];

/// Probe or answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the prober.
    Probe = 1,
    /// From the responder.
    Answer = 2,
}

/// Which responder took the time of arrival; it stands in the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MeasuredBy {
    /// Nobody yet: a probe.
    #[default]
    Nobody = 0,
    /// A program that reads a socket.
    Userspace = 1,
    /// XDP behind the driver, once the kernel has made a socket buffer of the frame.
    XdpGeneric = 2,
    /// XDP in the driver.
    XdpDriver = 3,
}

impl MeasuredBy {
    fn read(value: u8) -> Option<Self> {
        match value {
            0 => Some(MeasuredBy::Nobody),
            1 => Some(MeasuredBy::Userspace),
            2 => Some(MeasuredBy::XdpGeneric),
            3 => Some(MeasuredBy::XdpDriver),
            _ => None,
        }
    }
}

/// The fields of a probe or an answer (DWCP-90).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Who took the time; [`MeasuredBy::Nobody`] in a probe.
    pub measured_by: MeasuredBy,
    /// Bytes of the datagram that the prober sent.
    pub length: u16,
    /// Names the prober and its key to the responder.
    pub tag: u64,
    /// Which of the keys derived from the secret.
    pub epoch: u32,
    /// The train that it is a part of; 0 for a single probe.
    pub train: u32,
    /// Never twice under one tag.
    pub sequence: u64,
    /// By the prober's clock, in nanoseconds.
    pub sent_ns: u64,
    /// By the responder's clock, in nanoseconds since whenever; 0 in a probe.
    pub received_ns: u64,
    /// Single probes that the responder has taken under this tag, this one included; 0 in a probe.
    pub heard: u64,
}

impl Header {
    /// The header as it is sent, authenticated by `key`.
    pub fn write(&self, key: Key) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4] = self.kind as u8;
        out[5] = self.measured_by as u8;
        out[6..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..16].copy_from_slice(&self.tag.to_le_bytes());
        out[16..20].copy_from_slice(&self.epoch.to_le_bytes());
        out[20..24].copy_from_slice(&self.train.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.sent_ns.to_le_bytes());
        out[40..48].copy_from_slice(&self.received_ns.to_le_bytes());
        out[48..56].copy_from_slice(&self.heard.to_le_bytes());
        let code = code(key, &out);
        out[56..64].copy_from_slice(&code.to_le_bytes());
        out
    }

    /// The fields of a datagram, unauthenticated; `None` if it is neither a probe nor an answer of this protocol. Total:
    /// bytes beyond the header are not looked at.
    pub fn read(datagram: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_BYTES] = datagram.first_chunk()?;
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let half = |at: usize| bytes[at..].first_chunk().map_or(0, |half| u32::from_le_bytes(*half));
        if half(0) != MAGIC {
            return None;
        }
        let kind = match bytes[4] {
            1 => Kind::Probe,
            2 => Kind::Answer,
            _ => return None,
        };
        Some(Header {
            kind,
            measured_by: MeasuredBy::read(bytes[5])?,
            length: u16::from_le_bytes([bytes[6], bytes[7]]),
            tag: word(8),
            epoch: half(16),
            train: half(20),
            sequence: word(24),
            sent_ns: word(32),
            received_ns: word(40),
            heard: word(48),
        })
    }
}

/// Whether `key` made the code of a datagram's header (DWCP-91). The comparison's time says nothing: an attacker who could
/// measure it has 2^64 codes to try against a limited rate.
pub fn is_authentic(key: Key, datagram: &[u8]) -> bool {
    datagram
        .first_chunk::<HEADER_BYTES>()
        .is_some_and(|header| header[COVERED_BYTES..] == code(key, header).to_le_bytes())
}

fn code(key: Key, header: &[u8; HEADER_BYTES]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
    hasher.write(&header[..COVERED_BYTES]);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        (any::<[u64; 5]>(), any::<[u32; 2]>(), any::<u16>(), any::<bool>(), 0..4u8).prop_map(
            |([tag, sequence, sent_ns, received_ns, heard], [epoch, train], length, answer, by)| Header {
                kind: if answer { Kind::Answer } else { Kind::Probe },
                measured_by: MeasuredBy::read(by).unwrap(),
                length,
                tag,
                epoch,
                train,
                sequence,
                sent_ns,
                received_ns,
                heard,
            },
        )
    }

    proptest! {
        /// DWCP-90: what is written is read back, and DWCP-91: no bit of it can change unseen.
        #[test]
        fn a_header_comes_back_and_no_bit_changes_unseen(header in header(), key in any::<Key>(), bit in 0..512usize) {
            let mut bytes = header.write(key);
            prop_assert_eq!(Header::read(&bytes), Some(header));
            prop_assert!(is_authentic(key, &bytes));
            prop_assert!(!is_authentic([key[0] ^ 1, key[1]], &bytes));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_authentic(key, &bytes));
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::read(&bytes);
            prop_assert!(!is_authentic([1, 2], &bytes));
        }
    }

    #[test]
    fn the_code_is_siphash_2_4() {
        // The reference vector of 56 bytes counted up, keys counted up (Aumasson and Bernstein's test program): checked
        // against the kernel's program by the fixtures of `ebpf/`; here the published vector of 8 bytes.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
        hasher.write(&[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(hasher.finish(), 0x93f5_f579_9a93_2462);
    }
}
