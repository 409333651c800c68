//! A guest's migration stream in a file.

use std::path::Path;

use anyhow::{Result, bail};
use novacron_testbed::Scratch;

use crate::scenario::GuestPart;

/// Boots a guest and migrates it into `file`, which nobody else may read: it is the guest's memory.
///
/// # Errors
/// When the guest does not boot or cannot be migrated.
pub fn to_file(_scratch: &Scratch, _guest: &GuestPart, _file: &Path) -> Result<()> {
    bail!("capture is not available")
}
