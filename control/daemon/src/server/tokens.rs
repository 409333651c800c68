//! The file of callers' tokens: a name and a SHA-256 a line, and until when it is taken where it is an old one.
//!
//! ```text
//! # comments stay
//! fleet 9f86d0...                                  the one to use
//! fleet 60303a... until 2026-12-01T00:00:00.000Z   its predecessor: both are taken until then
//! ```
//!
//! Only digests come here. Whoever rotates makes the token, keeps it, and sends its digest.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use novacron_control_api::control::{KeptToken, TokenRotate};
use novacron_control_api::{Digest, Timestamp};
use novacron_keys::store::{self, Mode};

use crate::limits::{TOKEN_BYTES_MIN, TOKEN_FILE_BYTES_MAX, TOKENS_OF_NAME_MAX};

/// Whoever showed a token. The token's digest is kept beside its name: with its line in the file ends what it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(super) digest: Digest,
}

#[cfg(test)]
impl Holder {
    /// For tests of lists, which go by name.
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), digest: Digest([0; 32]) }
    }
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Token(KeptToken),
    /// A comment, or what is not understood: it stays as it is, and lets nobody in.
    Other(String),
}

impl Line {
    fn read(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let token = (|| {
            let name = words.next().filter(|name| !name.starts_with('#'))?;
            let sha256 = Digest::from_str(words.next()?).ok()?;
            let until = match (words.next(), words.next(), words.next()) {
                (None, _, _) => None,
                (Some("until"), Some(at), None) => Some(at.parse().ok()?),
                _ => return None,
            };
            Some(KeptToken { name: name.to_owned(), sha256, until })
        })();
        token.map_or_else(|| Self::Other(text.to_owned()), Self::Token)
    }

    fn write(&self) -> String {
        match self {
            Self::Other(text) => text.clone(),
            Self::Token(KeptToken { name, sha256, until: None }) => format!("{name} {sha256}"),
            Self::Token(KeptToken { name, sha256, until: Some(until) }) => {
                format!("{name} {sha256} until {until}")
            }
        }
    }
}

/// The lines of a file.
struct Tokens(Vec<Line>);

impl Tokens {
    fn parse(text: &str) -> Self {
        Self(text.lines().map(Line::read).collect())
    }

    fn taken(&self, now: Timestamp) -> impl Iterator<Item = &KeptToken> {
        self.0.iter().filter_map(move |line| match line {
            Line::Token(token) if token.until.is_none_or(|until| now < until) => Some(token),
            _ => None,
        })
    }

    /// Whose token it is. Every line is compared, so that the time tells nothing of where a token stands.
    fn find(&self, token: &str, now: Timestamp) -> Option<Holder> {
        if token.len() < TOKEN_BYTES_MIN {
            return None;
        }
        let shown = digest(&SHA256, token.as_bytes());
        let mut found = None;
        for kept in self.taken(now) {
            if verify_slices_are_equal(&kept.sha256.0, shown.as_ref()).is_ok() {
                found = Some(Holder { name: kept.name.clone(), digest: kept.sha256 });
            }
        }
        found
    }

    /// Adds the new one; those that were there are taken for the overlap, and no longer than they were to be.
    fn rotate(&mut self, asked: &TokenRotate, now: Timestamp) -> Result<(), String> {
        self.0.retain(|line| match line {
            Line::Token(token) => token.until.is_none_or(|until| now < until),
            Line::Other(_) => true,
        });
        let same = |line: &&Line| matches!(line, Line::Token(token) if token.sha256 == asked.sha256);
        if let Some(Line::Token(token)) = self.0.iter().find(same) {
            return Err(format!("this very token is in the file, as {}'s", token.name));
        }
        let own = |line: &Line| matches!(line, Line::Token(token) if token.name == asked.name);
        let old = self.0.iter().filter(|line| own(line)).count();
        if old >= TOKENS_OF_NAME_MAX && asked.overlap_ms > 0 {
            return Err(format!(
                "{old} tokens of {} are still taken; wait until one has ended, or revoke the old ones",
                asked.name
            ));
        }
        if asked.overlap_ms == 0 {
            self.0.retain(|line| !own(line));
        }
        let end = Timestamp::from_unix_ms(now.unix_ms().saturating_add(asked.overlap_ms));
        for line in &mut self.0 {
            if let Line::Token(token) = line
                && token.name == asked.name
            {
                token.until = Some(token.until.map_or(end, |until| until.min(end)));
            }
        }
        let (name, sha256) = (asked.name.clone(), asked.sha256);
        self.0.push(Line::Token(KeptToken { name, sha256, until: None }));
        Ok(())
    }

    /// Takes a name's tokens out: the predecessors, or all. How many.
    fn revoke(&mut self, name: &str, old_only: bool) -> usize {
        let before = self.0.len();
        self.0.retain(|line| match line {
            Line::Token(token) => token.name != name || (old_only && token.until.is_none()),
            Line::Other(_) => true,
        });
        before - self.0.len()
    }

    fn text(&self) -> String {
        self.0.iter().map(|line| line.write() + "\n").collect()
    }
}

fn told(file: &Path, why: &str) -> String {
    format!("{} cannot be used: {why}", file.display())
}

fn read(file: &Path) -> Result<Tokens, String> {
    let opened = File::open(file).map_err(|error| told(file, &error.to_string()))?;
    let metadata = opened.metadata().map_err(|error| told(file, &error.to_string()))?;
    if metadata.mode() & 0o022 != 0 {
        return Err(told(file, "others may write it: set its mode to 0640 or less"));
    }
    let mut text = String::new();
    opened
        .take(TOKEN_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| told(file, &error.to_string()))?;
    Ok(Tokens::parse(&text))
}

/// Whose token it is; `None`: nobody's, now.
///
/// # Errors
/// When the file cannot be read, or others may write it.
pub(super) fn holder(file: &Path, token: &str) -> Result<Option<Holder>, String> {
    Ok(read(file)?.find(token, Timestamp::now()))
}

/// Whether the token that somebody showed is still taken.
pub(super) fn holds(file: &Path, holder: &Holder) -> bool {
    let now = Timestamp::now();
    let same = |token: &KeptToken| token.name == holder.name && token.sha256 == holder.digest;
    read(file).is_ok_and(|tokens| tokens.taken(now).any(same))
}

/// All that are taken now.
pub(super) fn list(file: &Path) -> Result<Vec<KeptToken>, String> {
    Ok(read(file)?.taken(Timestamp::now()).cloned().collect())
}

/// Changes the file, whole or not at all, and says what is taken afterwards.
fn change<T>(file: &Path, how: impl FnOnce(&mut Tokens) -> Result<T, String>) -> Result<T, String> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let _lock = store::Lock::take(folder).map_err(|error| error.to_string())?;
    let mut tokens = read(file)?;
    let done = how(&mut tokens)?;
    let text = tokens.text();
    if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
        return Err(told(file, "it would be longer than is read of it"));
    }
    store::write(file, text.as_bytes(), Mode::Secret).map_err(|error| error.to_string())?;
    Ok(done)
}

/// Adds a new token of a name.
pub(super) fn rotate(file: &Path, asked: &TokenRotate) -> Result<(), String> {
    change(file, |tokens| tokens.rotate(asked, Timestamp::now()))
}

/// Takes tokens of a name out; how many.
pub(super) fn revoke(file: &Path, name: &str, old_only: bool) -> Result<usize, String> {
    change(file, |tokens| Ok(tokens.revoke(name, old_only)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0123456789abcdef0123456789abcdef";
    const SECOND: &str = "fedcba9876543210fedcba9876543210";

    fn sha256(token: &str) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Digest(bytes)
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn asked(token: &str, overlap_ms: u64) -> TokenRotate {
        TokenRotate { name: "fleet".to_owned(), sha256: sha256(token), overlap_ms }
    }

    fn name_of(tokens: &Tokens, token: &str, now: u64) -> Option<String> {
        tokens.find(token, at(now)).map(|holder| holder.name)
    }

    #[test]
    fn tokens_are_found_by_their_digest() {
        let text = format!("# callers\nfleet {}\nscraper {}\n", sha256(FIRST), sha256("short"));
        let tokens = Tokens::parse(&text);
        assert_eq!(name_of(&tokens, FIRST, 0).as_deref(), Some("fleet"));
        assert_eq!(name_of(&tokens, SECOND, 0), None);
        assert_eq!(name_of(&tokens, "short", 0), None, "too short to be a secret");
        assert_eq!(name_of(&tokens, &sha256(FIRST).to_string(), 0), None, "the digest is no token");
        assert_eq!(tokens.text(), text, "what nobody changed stays as it is");
    }

    #[test]
    fn both_are_taken_for_the_overlap_and_then_the_new_one_alone() {
        let mut tokens = Tokens::parse(&format!("# kept\nfleet {}\nother {}\n", sha256(FIRST), sha256("x")));
        tokens.rotate(&asked(SECOND, 1000), at(5000)).unwrap();
        // As it is read again.
        let mut tokens = Tokens::parse(&tokens.text());
        for (now, first) in [(5000, true), (5999, true), (6000, false)] {
            assert_eq!(name_of(&tokens, FIRST, now).is_some(), first, "{now}");
            assert_eq!(name_of(&tokens, SECOND, now).as_deref(), Some("fleet"));
        }
        assert!(tokens.text().starts_with("# kept\n") && tokens.text().contains("\nother "));
        // A later overlap lengthens nothing that was to end; what has ended goes.
        tokens.rotate(&asked("third-third-third-third-third-third", 9000), at(5500)).unwrap();
        assert_eq!(name_of(&tokens, FIRST, 6000), None);
        assert!(name_of(&tokens, SECOND, 14_499).is_some() && name_of(&tokens, SECOND, 14_500).is_none());
        tokens.rotate(&asked("fourth-fourth-fourth-fourth-fourth", 0), at(7000)).unwrap();
        assert_eq!(tokens.taken(at(7000)).filter(|token| token.name == "fleet").count(), 1);
        assert!(!tokens.text().contains(&sha256(FIRST).to_string()));
    }

    #[test]
    fn a_token_is_added_once_and_a_name_has_few() {
        let mut tokens = Tokens::parse("");
        tokens.rotate(&asked(FIRST, 1000), at(0)).unwrap();
        assert!(tokens.rotate(&asked(FIRST, 1000), at(0)).unwrap_err().contains("this very token"));
        for number in 1..TOKENS_OF_NAME_MAX {
            tokens.rotate(&asked(&format!("{SECOND}{number}"), 1000), at(0)).unwrap();
        }
        assert!(tokens.rotate(&asked(SECOND, 1000), at(0)).unwrap_err().contains("still taken"));
        assert_eq!(tokens.revoke("fleet", true), TOKENS_OF_NAME_MAX - 1);
        assert_eq!(tokens.revoke("fleet", false), 1);
        assert_eq!(tokens.revoke("fleet", false), 0);
    }

    #[test]
    fn lines_that_are_none_let_nobody_in_and_stay() {
        for line in ["fleet", "fleet xyz", "fleet  until", "#fleet", ""] {
            let text = format!("{line}\n");
            let tokens = Tokens::parse(&text);
            assert_eq!((tokens.taken(at(0)).count(), tokens.text()), (0, text));
        }
        let late = format!("fleet {} until tomorrow", sha256(FIRST));
        assert_eq!(Tokens::parse(&late).taken(at(0)).count(), 0, "an end that cannot be read is no end");
    }
}
