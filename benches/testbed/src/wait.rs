//! Waiting with an end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::limits::POLL;

/// Looks again and again until `look` finds something; an error of `look` or the end of `limit` ends it.
///
/// # Errors
/// What `look` failed with, or that `what` did not happen in time.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s", limit.as_secs_f32());
        }
        std::thread::sleep(POLL);
    }
}
