//! The repository's files.

use std::io;
use std::path::{Path, PathBuf};

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct File {
    /// From the repository's root, with forward slashes.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// What holds what was built, fetched or found, not what was written.
const NOT_OURS: &[&str] = &[".git", "target", "corpus", "artifacts", "coverage"];

/// Most files that a walk takes: far above what this repository holds, so that a link that goes in a circle ends.
const FILES_MAX: usize = 20_000;

/// The repository's root.
pub fn root() -> PathBuf {
    // docs/tidy is two folders below it.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Every UTF-8 file below `root`, in order of its path.
pub fn files(root: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            seen += 1;
            if seen > FILES_MAX {
                return Err(io::Error::other(format!(
                    "more than {FILES_MAX} files below {}",
                    root.display()
                )));
            }
            let kind = entry.file_type()?;
            // `.git` is a file in a worktree.
            if NOT_OURS.iter().any(|name| entry.file_name() == **name) {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = std::fs::read_to_string(entry.path())
                && let Ok(path) = entry.path().strip_prefix(root)
            {
                files.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_itself_and_nothing_that_was_built() {
        let files = files(&root()).unwrap();
        assert!(files.iter().any(|file| file.path == "docs/tidy/src/tree.rs"));
        assert!(files.iter().any(|file| file.path == "Cargo.toml"));
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    }
}
