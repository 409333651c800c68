//! Results on disk: written after every run, so that an interruption loses the run that it interrupts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::record::Results;

/// Where results are kept, from the top of the tree.
pub const DIRECTORY: &str = "target/bench";
/// The newest results, beside those named by their time.
pub const LATEST: &str = "latest.json";

/// The files of one invocation.
#[derive(Clone, Debug)]
pub struct Store {
    file: PathBuf,
    latest: PathBuf,
}

impl Store {
    /// Makes the directory. `started_at` names the file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(directory: &Path, started_at: &str) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let name: String = started_at.chars().map(|c| if c == ':' { '-' } else { c }).collect();
        Ok(Self { file: directory.join(format!("{name}.json")), latest: directory.join(LATEST) })
    }

    /// The file named by its time.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The same with another ending.
    pub fn beside(&self, ending: &str) -> PathBuf {
        self.file.with_extension(ending)
    }

    /// Writes what is known so far. A reader sees the old contents or the new, never half of them.
    ///
    /// # Errors
    /// When it cannot be written; what was written before is still there.
    pub fn write(&self, results: &Results) -> Result<()> {
        let json = serde_json::to_string_pretty(results).context("writing the results as JSON")?;
        for path in [&self.file, &self.latest] {
            let new = path.with_extension("json.new");
            fs::write(&new, format!("{json}\n"))
                .and_then(|()| fs::rename(&new, path))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_testbed::Scratch;

    #[test]
    fn both_files_hold_what_was_written_last() {
        let scratch = Scratch::new().unwrap();
        let store = Store::new(&scratch.file("bench"), "2026-01-02T03:04:05Z").unwrap();
        let mut results = Results {
            format: crate::record::FORMAT,
            started_at: "2026-01-02T03:04:05Z".into(),
            ended_at: None,
            host: novacron_testbed::Host::here(),
            scenarios: Vec::new(),
        };
        store.write(&results).unwrap();
        results.ended_at = Some("2026-01-02T03:05:00Z".into());
        store.write(&results).unwrap();
        for path in [store.file().to_owned(), scratch.file("bench").join(LATEST)] {
            let read: Results = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
            assert_eq!(read, results);
        }
        assert!(!store.file().display().to_string().contains(':'));
        assert_eq!(fs::read_dir(scratch.file("bench")).unwrap().count(), 2, "nothing half-written stays");
    }
}
