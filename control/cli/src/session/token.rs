//! A session's secret: from a file, standard input or the environment, never from the command line.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use novacron_control_api::Token;
use novacron_keys::Fingerprint;

use crate::limits::TOKEN_FILE_BYTES_MAX;
use crate::migrate::random;

/// Where the secret is looked for when no file is named.
pub(crate) const VARIABLE: &str = "NOVACRON_SESSION_TOKEN";

/// A new secret.
pub(crate) fn new() -> Result<Token, String> {
    let mut bytes = [0; 32];
    random(&mut bytes).map_err(|trouble| trouble.message().to_owned())?;
    Ok(Token::from_bytes(bytes))
}

/// The caller's secret; `None` when there is none anywhere. Errors never repeat what was read.
pub(crate) fn given(file: Option<&Path>) -> Result<Option<Token>, String> {
    let (text, place) = match file {
        Some(path) if path == Path::new("-") => (read(std::io::stdin())?, "standard input".to_owned()),
        Some(path) => {
            let file =
                File::open(path).map_err(|error| format!("the token file {}: {error}", path.display()))?;
            (read(file)?, path.display().to_string())
        }
        None => match std::env::var(VARIABLE) {
            Ok(text) => (text, VARIABLE.to_owned()),
            Err(_) => return Ok(None),
        },
    };
    text.trim().parse().map(Some).map_err(|error| format!("{place}: {error}"))
}

fn read(from: impl Read) -> Result<String, String> {
    let mut text = String::new();
    from.take(TOKEN_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| format!("the token cannot be read: {error}"))?;
    Ok(text)
}

/// The same for a caller of a node; returns its SHA-256, in hex.
pub(crate) fn write_new_caller(path: &Path) -> Result<String, String> {
    let digits = written(path)?;
    Ok(Fingerprint::of(digits.as_bytes()).to_string().replace(':', "").to_ascii_lowercase())
}

/// Writes a new secret into a file of its owner alone, which must not exist.
pub(crate) fn write_new(path: &Path) -> Result<(), String> {
    written(path).map(drop)
}

fn written(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the token file {} cannot be made: {error}", path.display());
    let token = new()?;
    let digits: String = token.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(format!("{digits}\n").as_bytes()).map_err(failed)?;
    Ok(digits)
}
