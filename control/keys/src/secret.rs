//! Bytes that no log, error or terminal shows, and where a passphrase comes from.
//!
//! A passphrase is never an argument: other users of a host read the arguments of every process.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::limits::{PASSPHRASE_BYTES_MAX, PASSPHRASE_BYTES_MIN};
use crate::store::{self, StoreError};

/// The variable that holds the passphrase itself.
pub const PASSPHRASE_VARIABLE: &str = "NOVACRON_KEYS_PASSPHRASE";
/// The file in `$CREDENTIALS_DIRECTORY` that holds it (systemd `LoadCredentialEncrypted=`).
pub const PASSPHRASE_CREDENTIAL: &str = "novacron-keys-passphrase";

/// Secret bytes: overwritten when dropped, hidden from `Debug`.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for whoever must use them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Why there is no passphrase that can be used. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] StoreError),
    /// Too short or too long.
    #[error(
        "the passphrase from {from} is {bytes} bytes long; {PASSPHRASE_BYTES_MIN} to {PASSPHRASE_BYTES_MAX} are taken"
    )]
    Length {
        /// Where it was found.
        from: String,
        /// Its length.
        bytes: usize,
    },
}

/// The passphrase of an authority's key, and where it was found.
#[derive(Debug)]
pub struct Passphrase {
    secret: Secret,
    /// Where it was found, in words.
    pub from: String,
}

impl Passphrase {
    /// Looks for it: the file that was named, then [`PASSPHRASE_VARIABLE`], then [`PASSPHRASE_CREDENTIAL`]. `None`
    /// when there is none at all.
    ///
    /// # Errors
    /// When one is there and cannot be used: then no other is tried.
    pub fn find(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, PassphraseError> {
        if let Some(path) = file {
            return Self::read(path.display().to_string(), &store::read_secret(path)?).map(Some);
        }
        if let Some(value) = variable(PASSPHRASE_VARIABLE) {
            let value = Secret::new(value.into_encoded_bytes());
            return Self::read(format!("${PASSPHRASE_VARIABLE}"), &value).map(Some);
        }
        let Some(folder) = variable("CREDENTIALS_DIRECTORY") else { return Ok(None) };
        let path = PathBuf::from(folder).join(PASSPHRASE_CREDENTIAL);
        if !path.exists() {
            return Ok(None);
        }
        Self::read(format!("the systemd credential {PASSPHRASE_CREDENTIAL}"), &store::read_credential(&path)?)
            .map(Some)
    }

    /// The first line: files end with a newline that is no part of what they hold.
    fn read(from: String, bytes: &Secret) -> Result<Self, PassphraseError> {
        let line = bytes.expose().split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
        if !(PASSPHRASE_BYTES_MIN..=PASSPHRASE_BYTES_MAX).contains(&line.len()) {
            return Err(PassphraseError::Length { from, bytes: line.len() });
        }
        Ok(Self { secret: Secret::new(line.to_vec()), from })
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.secret.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn found(file: Option<&Path>, variables: &[(&str, &str)]) -> Result<Option<Passphrase>, PassphraseError> {
        Passphrase::find(file, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn a_passphrase_is_found_in_order_and_shown_nowhere() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(PASSPHRASE_CREDENTIAL);
        std::fs::write(&file, "out of a file it came\n").expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let credentials = dir.path().display().to_string();
        let variables =
            [(PASSPHRASE_VARIABLE, "out of the environment"), ("CREDENTIALS_DIRECTORY", &credentials)];

        let first = found(Some(&file), &variables).expect("one").expect("one");
        assert_eq!(first.expose(), b"out of a file it came");
        let second = found(None, &variables).expect("one").expect("one");
        assert_eq!(second.expose(), b"out of the environment");
        let third = found(None, &variables[1..]).expect("one").expect("one");
        assert_eq!(third.expose(), b"out of a file it came");
        assert!(found(None, &[]).expect("none").is_none());
        let shown = format!("{first:?} {second:?} {third:?}");
        assert!(!shown.contains("out of") && shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn what_is_too_short_or_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("passphrase");
        std::fs::write(&file, "long enough, and read by all\n").expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        let why = found(Some(&file), &[]).expect_err("refused").to_string();
        assert!(why.contains("chmod 600"), "{why}");
        let why = found(None, &[(PASSPHRASE_VARIABLE, "short")]).expect_err("refused").to_string();
        assert!(why.contains("5 bytes") && !why.contains("short"), "{why}");
        assert!(found(Some(&dir.path().join("absent")), &[]).is_err());
    }
}
