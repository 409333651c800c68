//! The one-use code: 128 random bits as 28 letters and digits, the last of which catch a slip of the pen.
//!
//! ```text
//! 7f3k-9x2m-q0vd-1r8c-z5tj-4hnw-ye6b     128 bits, then 12 bits of their SHA-256
//! ```
//!
//! Letters and digits are Crockford's: no I, L, O or U; reading takes I and L for 1, O for 0, either case.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LETTERS: usize = 28;
const GROUP: usize = 4;
const CHECK_BITS: u32 = 12;

/// A text that is no code. It is not repeated: a mistyped code is still mostly the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no pairing code: it has 28 letters and digits, and a mistyped one is noticed; nothing was sent"
)]
pub struct CodeError;

/// The secret that both sides of one pairing know. Hidden from `Debug`; overwritten when dropped.
pub struct Code(Zeroizing<[u8; 16]>);

impl Code {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn make() -> Result<Self, CodeError> {
        let mut bytes = Zeroizing::new([0; 16]);
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| CodeError)?;
        Ok(Self(bytes))
    }

    pub(super) fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    fn check(&self) -> u16 {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &*self.0);
        let bytes = digest.as_ref();
        u16::from_be_bytes([bytes[0], bytes[1]]) >> (16 - CHECK_BITS)
    }

    /// The code as people type it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let value = u128::from_be_bytes(*self.0);
        let mut text = Zeroizing::new(String::with_capacity(LETTERS + LETTERS / GROUP));
        for index in 0..LETTERS {
            if index > 0 && index % GROUP == 0 {
                text.push('-');
            }
            // Five bits a letter of the 128 and the 12 that follow them.
            let digit = (0..5).fold(0, |digit, bit| {
                let at = u32::try_from(index * 5 + bit).unwrap_or(0);
                let set = match at.checked_sub(128) {
                    None => value >> (127 - at) & 1,
                    Some(at) => u128::from(self.check() >> (CHECK_BITS - 1 - at) & 1),
                };
                digit << 1 | usize::from(set == 1)
            });
            text.push(char::from(ALPHABET[digit]));
        }
        text
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(hidden)")
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let (mut value, mut check, mut letters) = (0_u128, 0_u16, 0);
        for letter in text.trim().bytes().filter(|letter| !matches!(letter, b'-' | b' ')) {
            let letter = match letter.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            };
            let digit = ALPHABET.iter().position(|known| *known == letter).ok_or(CodeError)?;
            if letters == LETTERS {
                return Err(CodeError);
            }
            for bit in (0..5).rev() {
                let set = digit >> bit & 1 == 1;
                if letters * 5 + (4 - bit) < 128 {
                    value = value << 1 | u128::from(set);
                } else {
                    check = check << 1 | u16::from(set);
                }
            }
            letters += 1;
        }
        let code = Self(Zeroizing::new(value.to_be_bytes()));
        if letters == LETTERS && code.check() == check { Ok(code) } else { Err(CodeError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: [u8; 16], upper: bool) {
            let text = Code(Zeroizing::new(bytes)).to_text();
            prop_assert_eq!(text.len(), LETTERS + LETTERS / GROUP - 1);
            let typed = if upper { text.to_uppercase().replace('0', "O").replace('1', "l") } else { text.replace('-', " ") };
            let read: Code = typed.parse().unwrap();
            prop_assert_eq!(read.expose(), &bytes);
        }

        #[test]
        fn one_wrong_letter_is_noticed_nearly_always(bytes: [u8; 16], at in 0..LETTERS, by in 1..32_usize) {
            let text = Code(Zeroizing::new(bytes)).to_text().replace('-', "");
            let mut letters = text.into_bytes();
            let digit = ALPHABET.iter().position(|known| *known == letters[at]).unwrap();
            letters[at] = ALPHABET[(digit + by) % 32];
            // Where the check does not notice, it is another code: then the exchange fails.
            if let Ok(code) = String::from_utf8(letters).unwrap().parse::<Code>() {
                prop_assert_ne!(code.expose(), &bytes);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-zA-Z \\-]{0,60}|\\PC{0,60}") {
            let _ = text.parse::<Code>();
        }
    }

    #[test]
    fn a_code_is_hidden_and_new_each_time() {
        let (one, two) = (Code::make().unwrap(), Code::make().unwrap());
        assert_ne!(*one.to_text(), *two.to_text());
        assert_eq!(format!("{one:?}"), "Code(hidden)");
        assert!(!"not a code".parse::<Code>().unwrap_err().to_string().contains("not a code"));
    }
}
