//! Records that wait for a database that is away: in memory and in a file, in order, within bounds.
//!
//! The file holds one record a line. A record is in it and synced before its caller hears that it is kept; where the
//! file cannot be written (a full disk often takes both), the caller hears that it is kept in memory only. After a
//! restart the file is read again; since every record is idempotent, a record that was stored just before does no harm.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::StoreError;
use crate::limits::{RECORD_BYTES_MAX, SET_ASIDE_BYTES_MAX, SPOOL_BYTES_MAX, SPOOL_ENTRIES_MAX, STATE_WAIT};
use crate::write::Write;

/// The spool's file in the state folder.
pub(crate) const FILE_NAME: &str = "spool.jsonl";
/// What could not be stored for good.
pub(crate) const SET_ASIDE_NAME: &str = "set-aside.jsonl";
/// What is locked in the state folder.
const LOCK_NAME: &str = "store.lock";
/// A record's line may be larger than what is stored of it: samples come several at once, and JSON in JSON is escaped.
const LINE_BYTES_MAX: usize = 8 * RECORD_BYTES_MAX;

/// The spool.
#[derive(Debug)]
pub(crate) struct Spool {
    queue: VecDeque<(Write, usize)>,
    queue_bytes: usize,
    path: PathBuf,
    file: Option<File>,
    file_bytes: usize,
    /// Records at the queue's end that the file lacks.
    only_in_memory: usize,
    bounds: (usize, usize),
    /// Locked: no other process writes into this folder. The lock goes with the process, however it ends.
    _folder: File,
}

impl Spool {
    /// Takes up what a process before this one left. Lines that are no records are set aside.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE_NAME);
        let unusable = |error: io::Error| StoreError::Options {
            what: format!(
                "the spool {} cannot be used: {error}. See that its folder exists and belongs to this user",
                path.display()
            ),
        };
        let folder = lock(state_dir)?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        let mut spool = Self {
            queue: VecDeque::new(),
            queue_bytes: 0,
            path: path.clone(),
            file: None,
            file_bytes: 0,
            only_in_memory: 0,
            bounds: (SPOOL_ENTRIES_MAX, SPOOL_BYTES_MAX),
            _folder: folder,
        };
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            let read = io::Read::take(&mut reader, limit).read_until(b'\n', &mut line).map_err(unusable)?;
            if read == 0 {
                break;
            }
            spool.file_bytes += read;
            match serde_json::from_slice::<Write>(&line) {
                Ok(write) if line.ends_with(b"\n") => {
                    spool.queue_bytes += read;
                    spool.queue.push_back((write, read));
                }
                // The last line of a process that was killed while it wrote: nobody was told that it is kept.
                _ if !line.ends_with(b"\n") && line.len() <= LINE_BYTES_MAX => {}
                _ => {
                    tracing::error!("a line of the spool is no record: set aside");
                    set_aside(state_dir, &line);
                }
            }
        }
        spool.file = Some(file);
        // What was cut short or set aside must not stand in front of what comes.
        if spool.file_bytes != spool.queue_bytes {
            spool.rewrite().map_err(unusable)?;
        }
        Ok(spool)
    }

    /// Records that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.queue_bytes
    }

    /// Whether all of them are in the file.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.only_in_memory == 0
    }

    /// Takes a record, and says whether it is on disk as well.
    pub(crate) fn push(&mut self, write: Write, reason: &StoreError) -> Result<bool, StoreError> {
        let mut line = serde_json::to_vec(&write).map_err(|error| StoreError::Unfit {
            what: format!("a record cannot be written as JSON: {error}"),
        })?;
        line.push(b'\n');
        if line.len() > LINE_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: "a record",
                bytes: line.len(),
                bytes_max: LINE_BYTES_MAX,
            });
        }
        if self.queue.len() >= self.bounds.0 || self.queue_bytes + line.len() > self.bounds.1 {
            return Err(StoreError::SpoolFull {
                entries: self.queue.len(),
                bytes: self.queue_bytes,
                reason: reason.to_string(),
            });
        }
        self.queue_bytes += line.len();
        let written = self.append(&line);
        self.queue.push_back((write, line.len()));
        if let Err(error) = &written {
            self.only_in_memory += 1;
            tracing::warn!(%error, path = %self.path.display(), "the spool's file cannot be written: records wait in memory only");
        }
        Ok(written.is_ok())
    }

    /// Appends, or brings the whole file up to date where it lags behind or has grown too long.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.only_in_memory > 0 || self.file_bytes + line.len() > self.bounds.1 {
            self.rewrite()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotConnected.into()) };
        let before = self.file_bytes;
        let result = file.write_all(line).and_then(|()| file.sync_data());
        match result {
            Ok(()) => {
                self.file_bytes += line.len();
                Ok(())
            }
            Err(error) => {
                // Half a line would swallow the next one.
                file.set_len(before as u64)?;
                Err(error)
            }
        }
    }

    /// Writes what waits into a new file, which then takes the old one's place.
    fn rewrite(&mut self) -> io::Result<()> {
        let next = self.path.with_extension("next");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        let mut text = Vec::with_capacity(self.queue_bytes);
        for (write, _) in &self.queue {
            serde_json::to_writer(&mut text, write)?;
            text.push(b'\n');
        }
        file.write_all(&text)?;
        file.sync_data()?;
        std::fs::rename(&next, &self.path)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.file_bytes = text.len();
        self.only_in_memory = 0;
        Ok(())
    }

    /// The record that has waited longest.
    pub(crate) fn first(&self) -> Option<&Write> {
        self.queue.front().map(|(write, _)| write)
    }

    /// The first record is stored, or set aside. The file is emptied with the last one.
    pub(crate) fn pop(&mut self) {
        let Some((_, bytes)) = self.queue.pop_front() else { return };
        self.queue_bytes -= bytes;
        self.only_in_memory = self.only_in_memory.min(self.queue.len());
        if self.queue.is_empty()
            && self.file_bytes > 0
            && let Some(file) = &self.file
        {
            // If that fails, they are stored once more after a restart, which changes nothing.
            match file.set_len(0).and_then(|()| file.sync_data()) {
                Ok(()) => self.file_bytes = 0,
                Err(error) => tracing::warn!(%error, "the spool's file could not be emptied"),
            }
        }
    }

    /// Puts the first record aside, because the database will never take it.
    pub(crate) fn set_first_aside(&mut self) {
        let Some((write, _)) = self.queue.front() else { return };
        if let (Some(folder), Ok(mut line)) = (self.path.parent(), serde_json::to_vec(write)) {
            line.push(b'\n');
            set_aside(folder, &line);
        }
        self.pop();
    }
}

/// Takes the state folder for this process.
fn lock(state_dir: &Path) -> Result<File, StoreError> {
    let path = state_dir.join(LOCK_NAME);
    let wrong = |why: &dyn std::fmt::Display| StoreError::Options {
        what: format!(
            "the state folder {} cannot be taken: {why}. See that it exists, belongs to this user, and that no other \
             control process uses it",
            state_dir.display()
        ),
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| wrong(&error))?;
    let deadline = Instant::now() + STATE_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(Duration::from_millis(50)),
            Err(TryLockError::WouldBlock) => return Err(wrong(&"another process has locked it")),
            Err(TryLockError::Error(error)) => return Err(wrong(&error)),
        }
    }
}

fn set_aside(state_dir: &Path, line: &[u8]) {
    let path = state_dir.join(SET_ASIDE_NAME);
    let result = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).and_then(|mut file| {
        if file.metadata()?.len() + line.len() as u64 > SET_ASIDE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "it has reached its bound"));
        }
        file.write_all(line)?;
        file.sync_data()
    });
    if let Err(error) = result {
        tracing::error!(%error, path = %path.display(), "a record that cannot be stored could not be set aside: it is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: usize) -> Write {
        Write::Answer { caller: "me".to_owned(), key: number.to_string(), answer: "x".repeat(100) }
    }

    fn away() -> StoreError {
        StoreError::Unreachable { what: "gone".to_owned() }
    }

    fn drain(spool: &mut Spool) -> Vec<Write> {
        let mut all = Vec::new();
        while let Some(write) = spool.first().cloned() {
            all.push(write);
            spool.pop();
        }
        all
    }

    #[test]
    fn what_waits_outlives_the_process_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        for number in 0..5 {
            assert!(spool.push(answer(number), &away()).unwrap());
        }
        spool.pop();
        drop(spool);
        let mut spool = Spool::open(dir.path()).unwrap();
        // The one that was stored is still in the file: it is stored again, which changes nothing.
        assert_eq!(drain(&mut spool), (0..5).map(answer).collect::<Vec<_>>());
        drop(spool);
        assert_eq!(Spool::open(dir.path()).unwrap().len(), 0);
    }

    #[test]
    fn a_folder_is_one_process_own() {
        let dir = tempfile::tempdir().unwrap();
        let _spool = Spool::open(dir.path()).unwrap();
        let error = Spool::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("another process has locked it"), "{error}");
    }

    #[test]
    fn half_a_line_is_dropped_and_a_strange_one_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.push(answer(1), &away()).unwrap();
        drop(spool);
        let mut text = std::fs::read(dir.path().join(FILE_NAME)).unwrap();
        let line = text.clone();
        text.extend_from_slice(b"{\"strange\":1}\n");
        text.extend_from_slice(&line);
        text.extend_from_slice(&line[..line.len() / 2]);
        std::fs::write(dir.path().join(FILE_NAME), &text).unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        assert_eq!(spool.len(), 2);
        spool.push(answer(2), &away()).unwrap();
        drop(spool);
        let mut spool = Spool::open(dir.path()).unwrap();
        assert_eq!(drain(&mut spool), [answer(1), answer(1), answer(2)]);
        let aside = std::fs::read_to_string(dir.path().join(SET_ASIDE_NAME)).unwrap();
        assert_eq!(aside, "{\"strange\":1}\n");
    }

    #[test]
    fn both_bounds_are_kept_and_the_refused_record_is_named_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.bounds = (3, 100_000);
        for number in 0..3 {
            spool.push(answer(number), &away()).unwrap();
        }
        let error = spool.push(answer(3), &away()).unwrap_err();
        assert!(matches!(error, StoreError::SpoolFull { entries: 3, .. }), "{error}");
        spool.bounds = (100, spool.bytes() + 10);
        assert!(matches!(spool.push(answer(3), &away()), Err(StoreError::SpoolFull { .. })));
    }

    /// Records come and go while never all of them are stored: the file must not grow with what has left.
    #[test]
    fn the_file_stays_within_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.bounds = (100, 2000);
        spool.push(answer(0), &away()).unwrap();
        for number in 1..200 {
            assert!(spool.push(answer(number), &away()).unwrap());
            spool.pop();
            assert!(std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().len() <= 2000);
        }
        drop(spool);
        let left = drain(&mut Spool::open(dir.path()).unwrap());
        assert_eq!(left.last(), Some(&answer(199)));
    }

    #[test]
    fn where_the_file_cannot_be_written_memory_keeps_it_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        // A file that is open for reading only fails every write, as a full disk does.
        spool.file = Some(File::open(dir.path().join(FILE_NAME)).unwrap());
        assert!(!spool.push(answer(0), &away()).unwrap());
        assert!(!spool.is_on_disk());
        // The next push finds room again, and brings the file up to date with both.
        assert!(spool.push(answer(1), &away()).unwrap());
        assert!(spool.is_on_disk());
        drop(spool);
        assert_eq!(Spool::open(dir.path()).unwrap().len(), 2);
    }
}
