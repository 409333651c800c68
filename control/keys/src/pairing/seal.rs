//! Keys from the code and both nonces, and seals over everything that was said.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use super::{Code, PairingError};

/// One way of a connection: its key and how many seals it has borne.
struct Way {
    key: LessSafeKey,
    count: u64,
}

/// Both ways, and the digest of all that was said.
pub(super) struct Keys {
    accepting: Way,
    offering: Way,
    transcript: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(hidden)")
    }
}

impl Keys {
    /// Both keys, fresh with either nonce: a message of another connection opens in none but its own.
    pub(super) fn derive(
        code: &Code,
        accepting: &[u8; 32],
        offering: &[u8; 32],
    ) -> Result<Self, PairingError> {
        let salt = [&accepting[..], &offering[..]].concat();
        let secret = Salt::new(HKDF_SHA256, &salt).extract(code.expose());
        let way = |info: &'static [u8]| -> Result<Way, PairingError> {
            let info = [info];
            let key = secret.expand(&info, &AES_256_GCM).map_err(|_| PairingError::Code)?;
            Ok(Way { key: LessSafeKey::new(UnboundKey::from(key)), count: 0 })
        };
        Ok(Self {
            accepting: way(b"novacron pairing 1: accept to offer")?,
            offering: way(b"novacron pairing 1: offer to accept")?,
            transcript: [0; 32],
        })
    }

    /// Adds a message to what the next seals cover.
    pub(super) fn said(&mut self, message: &[u8]) {
        // Two digests of fixed length: no message can be taken for part of another.
        let both = [&self.transcript[..], digest(&SHA256, message).as_ref()].concat();
        self.transcript.copy_from_slice(digest(&SHA256, &both).as_ref());
    }

    pub(super) fn seal_accepting(&mut self, text: &[u8]) -> Result<Vec<u8>, PairingError> {
        let sealed = self.accepting.seal(text, &self.transcript)?;
        self.said(&sealed);
        Ok(sealed)
    }

    pub(super) fn seal_offering(&mut self, text: &[u8]) -> Result<Vec<u8>, PairingError> {
        let sealed = self.offering.seal(text, &self.transcript)?;
        self.said(&sealed);
        Ok(sealed)
    }

    pub(super) fn open_accepting(&mut self, message: &[u8]) -> Result<Vec<u8>, PairingError> {
        let text = self.accepting.open(message, &self.transcript)?;
        self.said(message);
        Ok(text)
    }

    pub(super) fn open_offering(&mut self, message: &[u8]) -> Result<Vec<u8>, PairingError> {
        let text = self.offering.open(message, &self.transcript)?;
        self.said(message);
        Ok(text)
    }
}

impl Way {
    /// A key bears each number once; two seals a way are all there are.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, text: &[u8], transcript: &[u8; 32]) -> Result<Vec<u8>, PairingError> {
        let mut bytes = text.to_vec();
        let nonce = self.nonce();
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(transcript), &mut bytes)
            .map_err(|_| PairingError::Code)?;
        Ok(bytes)
    }

    fn open(&mut self, message: &[u8], transcript: &[u8; 32]) -> Result<Vec<u8>, PairingError> {
        let mut bytes = message.to_vec();
        let nonce = self.nonce();
        let text = self.key.open_in_place(nonce, Aad::from(transcript), &mut bytes);
        Ok(text.map_err(|_| PairingError::Code)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_opens_after_the_same_words_only() {
        let code = Code::make().expect("random");
        let after = |words: &[&[u8]]| {
            let mut keys = Keys::derive(&code, &[1; 32], &[2; 32]).expect("keys");
            words.iter().for_each(|word| keys.said(word));
            keys
        };
        let sealed = after(&[b"one", b"two"]).seal_accepting(b"yes").expect("sealed");
        assert_eq!(after(&[b"one", b"two"]).open_accepting(&sealed).expect("opened"), b"yes");
        for other in [&[&b"one"[..]][..], &[b"two", b"one"], &[b"onetwo"], &[b"one", b"two", b"two"]] {
            assert_eq!(after(other).open_accepting(&sealed), Err(PairingError::Code));
        }
        assert_eq!(after(&[b"one", b"two"]).open_offering(&sealed), Err(PairingError::Code));
    }
}
