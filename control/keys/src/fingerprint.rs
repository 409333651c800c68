//! What two people compare: the SHA-256 of a certificate's DER, as `openssl x509 -fingerprint -sha256` prints it.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A certificate's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint. Nothing was done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits, with or without colons, as 'novactl keys show' prints it")]
pub struct FingerprintError;

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Takes upper and lower case, with colons between all bytes or none.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits: Vec<u8> = match text.contains(':') {
            false => text.bytes().collect(),
            true => {
                let parts: Vec<&str> = text.split(':').collect();
                if parts.iter().any(|part| part.len() != 2) {
                    return Err(FingerprintError);
                }
                parts.concat().into_bytes()
            }
        };
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(FingerprintError);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(FingerprintError);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).map_err(|_| FingerprintError)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_nothing_is_the_known_one() {
        let text = Fingerprint::of(b"").to_string();
        assert!(text.starts_with("E3:B0:C4:42:98:FC:1C:14") && text.ends_with(":B8:55"), "{text}");
        assert_eq!(text.replace(':', "").to_lowercase().parse(), Ok(Fingerprint::of(b"")));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: [u8; 32]) {
            prop_assert_eq!(Fingerprint(bytes).to_string().parse(), Ok(Fingerprint(bytes)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9A-Fa-f:\u{e9} ]{0,100}|\\PC{0,100}") {
            if let Ok(fingerprint) = text.parse::<Fingerprint>() {
                prop_assert_eq!(fingerprint.to_string().replace(':', ""), text.replace(':', "").to_uppercase());
            }
        }
    }
}
