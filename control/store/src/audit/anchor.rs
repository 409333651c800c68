//! The head of the audit log in a file beside the database.
//!
//! Whoever can write both is not stopped by it. It finds what happens to a database alone: entries cut off, a copy from
//! before restored.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::entry::Head;
use crate::error::StoreError;

/// The file's name in the state folder.
pub const FILE_NAME: &str = "audit.head";

/// Reads the file; `None` where there is none yet.
///
/// # Errors
/// [`StoreError::Damaged`] where there is one that cannot be read.
pub fn read(state_dir: &Path) -> Result<Option<Head>, StoreError> {
    let path = state_dir.join(FILE_NAME);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.parse().map(Some).map_err(|_| StoreError::Damaged {
            what: format!("{} does not hold the head of an audit log", path.display()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(StoreError::Damaged { what: format!("{} cannot be read: {error}", path.display()) })
        }
    }
}

/// Replaces the file, whole or not at all.
///
/// # Errors
/// The file system's; the old file stands.
pub fn write(state_dir: &Path, head: Head) -> io::Result<()> {
    let next = state_dir.join("audit.head.next");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    writeln!(file, "{head}")?;
    file.sync_data()?;
    std::fs::rename(&next, state_dir.join(FILE_NAME))?;
    File::open(state_dir)?.sync_data()
}
