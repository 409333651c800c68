//! The audit log: every call that changes something, before and after, in a chain of digests.
//!
//! A line is a JSON object whose `hash` is the SHA-256 of the line before's `hash` and of its own text without it. So
//! no line can be changed, left out or put in without changing all that follow; who keeps the last hash elsewhere
//! notices a cut at the end too. The line before a call is written and synced before anything is done: where it cannot
//! be, the call is refused.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use novacron_control_api::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the first line follows.
const ORIGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Longest line, in bytes: a request of the longest kind, its answer, and names.
const LINE_BYTES_MAX: u64 = 2 << 20;

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It is about to be carried out.
    Begun,
    /// It was.
    Done,
    /// It was not, or not wholly; the answer says why.
    Failed,
    /// The caller may not.
    Refused,
}

/// What is written of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) at: Timestamp,
    pub(crate) stage: Stage,
    pub(crate) caller: String,
    pub(crate) role: String,
    pub(crate) method: String,
    /// Its parameters, secrets hidden; of an end, `null`.
    pub(crate) params: Value,
    /// The caller's idempotency key, if it gave one.
    pub(crate) key: Option<String>,
    /// What the parameters were, to tell a repeat from another call under the same key.
    pub(crate) params_hash: String,
    /// The answer, for repeats; `null` where there is no key.
    pub(crate) answer: Value,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    entry: Entry,
    hash: String,
}

/// What a call is told to the log with.
#[derive(Debug, Clone)]
pub(crate) struct Told<'a> {
    pub(crate) caller: &'a str,
    pub(crate) role: &'a str,
    pub(crate) method: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) params_hash: &'a str,
}

struct Chain {
    file: File,
    number: u64,
    hash: String,
    /// The length up to the last whole line.
    length: u64,
}

/// The log.
pub(crate) struct Audit {
    chain: Mutex<Chain>,
    path: PathBuf,
}

/// The SHA-256 of a text, in hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn chained(before: &str, entry: &Entry) -> String {
    let text = serde_json::to_string(entry).unwrap_or_default();
    sha256_hex(format!("{before}{text}").as_bytes())
}

impl Audit {
    /// Opens the log, verifies all of it and hands every entry to `visit`. A last line that is cut short, by a crash
    /// or a full disk, is removed: what it was about to say was not done.
    ///
    /// # Errors
    /// When it cannot be read or written, or somebody changed it: the number of the first wrong line.
    pub(crate) fn open(path: &Path, mut visit: impl FnMut(&Entry)) -> Result<Self, String> {
        let told = |why: String| format!("the audit log {} {why}", path.display());
        let file = OpenOptions::new().create(true).read(true).append(true).open(path);
        let file = file.map_err(|error| told(format!("cannot be opened: {error}")))?;
        let mut reader = BufReader::new(&file);
        let (mut number, mut hash, mut length) = (0u64, ORIGIN.to_owned(), 0u64);
        loop {
            let mut text = Vec::new();
            let count = std::io::Read::take(&mut reader, LINE_BYTES_MAX)
                .read_until(b'\n', &mut text)
                .map_err(|error| told(format!("cannot be read: {error}")))?;
            if count == 0 || text.last() != Some(&b'\n') {
                break;
            }
            let line: Line = serde_json::from_slice(&text)
                .map_err(|_| told(format!("holds a line {} that is no entry: it was changed", number + 1)))?;
            if line.entry.number != number + 1 || line.hash != chained(&hash, &line.entry) {
                let why = format!(
                    "does not hold together from line {}: it was changed; keep it, and move it away to begin another",
                    number + 1
                );
                return Err(told(why));
            }
            visit(&line.entry);
            (number, hash, length) = (number + 1, line.hash, length + count as u64);
        }
        drop(reader);
        let cut = |error: std::io::Error| told(format!("cannot be repaired: {error}"));
        if file.metadata().map_err(cut)?.len() > length {
            tracing::warn!("the audit log's last line was cut short; what it was about to say was not done");
            file.set_len(length).map_err(cut)?;
        }
        Ok(Self { chain: Mutex::new(Chain { file, number, hash, length }), path: path.to_owned() })
    }

    /// Writes an entry and waits until it is on disk.
    ///
    /// # Errors
    /// When it is not; then nothing of it is left in the log.
    pub(crate) fn write(
        &self,
        stage: Stage,
        of: &Told<'_>,
        params: Value,
        answer: Value,
    ) -> Result<(), String> {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            number: chain.number + 1,
            at: Timestamp::now(),
            stage,
            caller: of.caller.to_owned(),
            role: of.role.to_owned(),
            method: of.method.to_owned(),
            params,
            key: of.key.map(str::to_owned),
            params_hash: of.params_hash.to_owned(),
            answer,
        };
        let hash = chained(&chain.hash, &entry);
        let line = novacron_control_api::to_line(&Line { entry, hash: hash.clone() });
        let written = chain.file.write_all(&line).and_then(|()| chain.file.sync_data());
        if let Err(error) = written {
            // Half a line would make the next one unreadable.
            let length = chain.length;
            let _ = chain.file.set_len(length).and_then(|()| chain.file.seek(SeekFrom::End(0)));
            return Err(format!("the audit log {} cannot be written: {error}", self.path.display()));
        }
        chain.number += 1;
        chain.hash = hash;
        chain.length += line.len() as u64;
        Ok(())
    }

    /// How many entries there are, and the last one's hash.
    pub(crate) fn head(&self) -> (u64, String) {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        (chain.number, chain.hash.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TOLD: Told<'_> =
        Told { caller: "uid:0", role: "admin", method: "config.reload", key: None, params_hash: "" };

    fn log(entries: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::open(&path, |_| {}).unwrap();
        for at in 0..entries {
            audit.write(Stage::Begun, &TOLD, json!({"at": at}), Value::Null).unwrap();
        }
        (folder, path)
    }

    fn count(path: &Path) -> Result<usize, String> {
        let mut count = 0;
        Audit::open(path, |_| count += 1)?;
        Ok(count)
    }

    #[test]
    fn it_goes_on_where_it_stopped() {
        let (_folder, path) = log(3);
        let audit = Audit::open(&path, |_| {}).unwrap();
        audit.write(Stage::Done, &TOLD, Value::Null, Value::Null).unwrap();
        assert_eq!(audit.head().0, 4);
        drop(audit);
        assert_eq!(count(&path), Ok(4));
    }

    #[test]
    fn any_changed_byte_is_found() {
        let (_folder, path) = log(3);
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7).filter(|at| good[*at] != b'\n') {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            // Some changes are of spelling only and JSON takes them for the same; what is read is as it was then.
            let mut read = Vec::new();
            let opened = Audit::open(&path, |entry| read.push(entry.clone()));
            std::fs::write(&path, &good).unwrap();
            let mut meant = Vec::new();
            Audit::open(&path, |entry| meant.push(entry.clone())).unwrap();
            assert!(opened.is_err() || read == meant, "byte {at}");
        }
    }

    #[test]
    fn lines_cannot_be_left_out_or_moved() {
        let (_folder, path) = log(3);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for order in [[1, 2].as_slice(), &[0, 2], &[1, 0, 2], &[0, 0, 1, 2]] {
            let moved: String = order.iter().map(|at| format!("{}\n", lines[*at])).collect();
            std::fs::write(&path, moved).unwrap();
            assert!(count(&path).unwrap_err().contains("was changed"), "{order:?}");
        }
    }

    #[test]
    fn a_line_that_was_cut_short_is_removed() {
        let (_folder, path) = log(2);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        assert_eq!(count(&path), Ok(1));
        assert_eq!(count(&path), Ok(1));
    }

    #[test]
    fn a_full_disk_refuses_and_leaves_no_half_line() {
        // The device takes every open and no byte (full(4)).
        let audit = Audit::open(Path::new("/dev/full"), |_| {});
        if let Ok(audit) = audit {
            let why = audit.write(Stage::Begun, &TOLD, Value::Null, Value::Null).unwrap_err();
            assert!(why.contains("cannot be written"), "{why}");
            assert_eq!(audit.head().0, 0);
        }
    }
}
