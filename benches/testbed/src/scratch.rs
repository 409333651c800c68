//! A directory for one test.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use crate::process::tail;

/// A directory that nobody else uses and that goes away when this is dropped. Its path is short: the sockets in it
/// have 108 bytes for theirs (unix(7)).
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a new directory in the system's place for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("novacron-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // A process of the same number may have been killed before it could clean up.
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    /// Runs a test in a directory of its own. Should it fail, with an error or by a panic, the end of every log in
    /// the directory goes to standard error before the directory goes away.
    ///
    /// # Errors
    /// What `test` failed with.
    pub fn with_logs(test: impl FnOnce(&Scratch) -> Result<()>) -> Result<()> {
        let told = Told { scratch: Self::new()?, succeeded: Cell::new(false) };
        let result = test(&told.scratch);
        told.succeeded.set(result.is_ok());
        result
    }

    /// Removes what a process, which is about to end without dropping anything, has made.
    pub fn remove_all_of(process: u32) {
        remove_directories(&std::env::temp_dir(), process);
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Removes the directories of a process within a place.
fn remove_directories(within: &Path, process: u32) {
    let prefix = format!("novacron-{process}-");
    for entry in fs::read_dir(within).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // Somebody may still write into it; what then remains is a few small files in a temporary place.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Tells what the logs say, unless the test has succeeded.
struct Told {
    scratch: Scratch,
    succeeded: Cell<bool>,
}

impl Drop for Told {
    fn drop(&mut self) {
        if self.succeeded.get() {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.scratch.path) else { return };
        let mut logs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|suffix| suffix == "log" || suffix == "console"));
        logs.sort();
        for path in logs {
            let text = tail(&path).unwrap_or_else(|error| format!("(unreadable: {error})"));
            eprintln!("---- {}\n{text}", path.display());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover directory in a temporary place harms nobody; a panic in a drop would.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_test_keeps_its_error_and_leaves_no_directory() {
        let mut path = PathBuf::new();
        let result = Scratch::with_logs(|scratch| {
            path = scratch.path().to_owned();
            fs::write(scratch.file("a.log"), "what the process said")?;
            anyhow::bail!("no luck")
        });
        assert_eq!(result.unwrap_err().to_string(), "no luck");
        assert!(!path.exists());
        assert!(Scratch::with_logs(|_| Ok(())).is_ok());
    }

    #[test]
    fn goes_away_with_what_is_in_it() {
        let scratch = Scratch::new().unwrap();
        let other = Scratch::new().unwrap();
        assert_ne!(scratch.path(), other.path());
        let path = scratch.path().to_owned();
        fs::write(scratch.file("x"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
        assert!(other.path().exists());
    }

    #[test]
    fn only_directories_of_that_process_go() {
        let scratch = Scratch::new().unwrap();
        for name in ["novacron-7-0", "novacron-77-0"] {
            fs::create_dir(scratch.file(name)).unwrap();
        }
        remove_directories(scratch.path(), 7);
        assert!(!scratch.file("novacron-7-0").exists() && scratch.file("novacron-77-0").exists());
    }
}
