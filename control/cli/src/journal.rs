//! What a migration did, on disk before it is done, so that whoever comes after a crash knows.
//!
//! One file a migration, one JSON object a line: a header, then a step each. A step is written *before* what it
//! names may happen (`cont-sent` before `cont` is sent) or after it was seen (`completed-seen`), never the other
//! way round. A torn last line is a step that was not taken. The live `novactl` holds a lock on the file, so that
//! `recover` never works beside it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use novacron_control_api::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::limits::{JOURNAL_BYTES_MAX, JOURNALS_KEPT, JOURNALS_MAX};

/// The format this version writes and reads.
const VERSION: u32 = 1;
const SUFFIX: &str = "journal";

/// How far a migration came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Both ends were checked; something may have been set at them, no guest byte has moved.
    Prepared,
    /// The source may have been told to migrate.
    Started,
    /// The source said `completed`.
    CompletedSeen,
    /// The destination may have been told to run the guest.
    ContSent,
    /// The destination was seen running the guest.
    RunningSeen,
    /// The source may have been told to quit.
    QuitSent,
    /// Settled: the guest is at the destination.
    Done,
    /// Settled: the guest is at the source.
    Failed,
}

impl Step {
    /// Every step, in order.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] = [
        Self::Prepared,
        Self::Started,
        Self::CompletedSeen,
        Self::ContSent,
        Self::RunningSeen,
        Self::QuitSent,
        Self::Done,
        Self::Failed,
    ];

    /// Whether nothing is left to settle.
    pub(crate) fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// The first line: who takes part. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) migration: SessionId,
    pub(crate) created_at: Timestamp,
    pub(crate) source_qmp: PathBuf,
    pub(crate) destination_qmp: PathBuf,
    pub(crate) source_gateway: PathBuf,
    pub(crate) destination_gateway: PathBuf,
    /// The private directory with the hypervisors' sockets, to be removed at the end.
    #[serde(default)]
    pub(crate) socket_dir: Option<PathBuf>,
}

impl Header {
    /// The header of a migration that begins now.
    pub(crate) fn new(migration: SessionId, qmp: [&Path; 2], gateways: [&Path; 2]) -> Self {
        Self {
            version: VERSION,
            migration,
            created_at: Timestamp::now(),
            source_qmp: qmp[0].to_owned(),
            destination_qmp: qmp[1].to_owned(),
            source_gateway: gateways[0].to_owned(),
            destination_gateway: gateways[1].to_owned(),
            socket_dir: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    step: Step,
    at: Timestamp,
}

/// Why a journal could not be used. Nothing was done at either hypervisor because of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("the journal {path} cannot be used: {why}; choose another place with --state-dir")]
    Io { path: String, why: io::Error },
    #[error("the journal {path} is held by a novactl that still runs; wait for it, or end it first")]
    Held { path: String },
    #[error(
        "the journal {path} is damaged in line {line}; settle it with 'novactl recover --source-qmp ... --destination-qmp ...'"
    )]
    Damaged { path: String, line: usize },
    #[error("the journal {path} has format {version}; this novactl reads {VERSION}")]
    Version { path: String, version: u32 },
    #[error("neither XDG_STATE_HOME nor HOME is set; name a directory with --state-dir")]
    NoPlace,
}

/// A migration's journal, locked.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    header: Header,
    step: Option<Step>,
    /// Bytes of whole lines in the file.
    length: u64,
}

/// Where journals are, when the caller names no place (XDG base directory specification, `XDG_STATE_HOME`).
pub(crate) fn state_dir(named: Option<&Path>) -> Result<PathBuf, JournalError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("novacron"))
        .ok_or(JournalError::NoPlace)
}

impl Journal {
    /// Creates the journal of a migration and writes its header through to the disk.
    pub(crate) fn create(dir: &Path, header: Header) -> Result<Self, JournalError> {
        let path = dir.join(format!("{}.{SUFFIX}", header.migration));
        let io = |why| JournalError::Io { path: path.display().to_string(), why };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        lock(&file, &path)?;
        let line = novacron_control_api::to_line(&header);
        let length = line.len() as u64;
        let mut journal = Self { file, path: path.clone(), header, step: None, length };
        journal.file.write_all(&line).and_then(|()| journal.file.sync_all()).map_err(io)?;
        // The name itself must survive too.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        Ok(journal)
    }

    /// Opens a journal that another run left.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |why| JournalError::Io { path: path.display().to_string(), why };
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(io)?;
        lock(&file, path)?;
        let mut bytes = Vec::new();
        (&file).take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
        let (header, step, whole) = parse(&bytes, path)?;
        // What follows must start a line of its own: a torn one goes.
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(io)?;
        }
        Ok(Self { file, path: path.to_owned(), header, step, length: whole as u64 })
    }

    /// Who takes part.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The last step, if any was taken.
    pub(crate) fn step(&self) -> Option<Step> {
        self.step
    }

    /// Writes a step through to the disk. [`Self::step`] is this step even when writing fails.
    pub(crate) fn record(&mut self, step: Step) -> Result<(), JournalError> {
        self.note(step)?;
        self.file.sync_data().map_err(|why| self.io(why))
    }

    /// Writes a step without waiting for the disk: it survives this process, and the next [`Self::record`] makes
    /// it survive the machine. For `completed-seen`, while the guest stands still and every millisecond counts;
    /// nothing is decided by it that the two hypervisors do not say themselves.
    pub(crate) fn note(&mut self, step: Step) -> Result<(), JournalError> {
        let line = novacron_control_api::to_line(&Line { step, at: Timestamp::now() });
        self.step = Some(step);
        if let Err(why) = self.file.write_all(&line) {
            // Half a line in the middle would be damage: take it back. Should that fail too, the file's reader
            // still refuses to guess.
            let _ = self.file.set_len(self.length);
            return Err(self.io(why));
        }
        self.length += line.len() as u64;
        Ok(())
    }

    fn io(&self, why: io::Error) -> JournalError {
        JournalError::Io { path: self.path.display().to_string(), why }
    }
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    let path = path.display().to_string();
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(JournalError::Held { path }),
        Err(TryLockError::Error(why)) => Err(JournalError::Io { path, why }),
    }
}

/// Header, last step, and how many bytes are whole lines.
fn parse(bytes: &[u8], path: &Path) -> Result<(Header, Option<Step>, usize), JournalError> {
    let name = || path.display().to_string();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate();
    let damaged = |line: usize| JournalError::Damaged { path: name(), line: line + 1 };
    let (_, first) = lines.next().ok_or_else(|| damaged(0))?;
    let header: Header = serde_json::from_slice(first).map_err(|_| damaged(0))?;
    if header.version != VERSION {
        return Err(JournalError::Version { path: name(), version: header.version });
    }
    let mut step = None;
    for (number, line) in lines {
        let line: Line = serde_json::from_slice(line).map_err(|_| damaged(number))?;
        step = Some(line.step);
    }
    Ok((header, step, whole))
}

/// Journals of a directory: the unsettled ones, the damaged ones, and the settled ones oldest first.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Unsettled: path, header, last step.
    pub(crate) unsettled: Vec<(PathBuf, Header, Option<Step>)>,
    /// Unreadable, with the reason.
    pub(crate) damaged: Vec<String>,
    settled: Vec<(Timestamp, PathBuf)>,
}

/// Looks through a directory; an absent one holds nothing.
pub(crate) fn find(dir: &Path) -> Result<Found, JournalError> {
    let io = |why| JournalError::Io { path: dir.display().to_string(), why };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        entries => entries.map_err(io)?,
    };
    let mut found = Found::default();
    for entry in entries.take(JOURNALS_MAX) {
        let path = entry.map_err(io)?.path();
        if path.extension().is_none_or(|extension| extension != SUFFIX) {
            continue;
        }
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes));
        let parsed = match read {
            Ok(_) => parse(&bytes, &path),
            Err(why) => Err(JournalError::Io { path: path.display().to_string(), why }),
        };
        match parsed {
            Ok((header, Some(step), _)) if step.is_settled() => found.settled.push((header.created_at, path)),
            Ok((header, step, _)) => found.unsettled.push((path, header, step)),
            Err(error) => found.damaged.push(error.to_string()),
        }
    }
    found.settled.sort();
    found.unsettled.sort_by_key(|(_, header, _)| header.created_at);
    Ok(found)
}

/// Removes the oldest settled journals beyond the number that is kept.
pub(crate) fn prune(dir: &Path) {
    let Ok(found) = find(dir) else { return };
    for (_, path) in found.settled.iter().rev().skip(JOURNALS_KEPT) {
        // One that cannot be removed is only clutter, and the next run tries again.
        let _ = fs::remove_file(path);
    }
}

/// The path of a migration's journal.
pub(crate) fn path(dir: &Path, migration: SessionId) -> PathBuf {
    dir.join(format!("{migration}.{SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn header() -> Header {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        Header::new(SessionId(7), [a, b], [a, b])
    }

    #[test]
    fn steps_are_read_back_and_files_are_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("deep/state");
        let mut journal = Journal::create(&state, header()).expect("created");
        let file = path(&state, SessionId(7));
        assert_eq!(fs::metadata(&file).expect("file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).expect("dir").permissions().mode() & 0o777, 0o700);
        assert!(matches!(Journal::open(&file), Err(JournalError::Held { .. })), "the live one holds it");
        for step in Step::ALL {
            journal.record(step).expect("recorded");
        }
        let written = journal.header().clone();
        drop(journal);
        let journal = Journal::open(&file).expect("opened");
        assert_eq!((journal.header(), journal.step()), (&written, Some(Step::Failed)));
        assert!(
            matches!(Journal::create(&state, header()), Err(JournalError::Io { .. })),
            "never overwritten"
        );
    }

    #[test]
    fn a_torn_last_line_is_a_step_not_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::create(dir.path(), header()).expect("created");
        journal.record(Step::Prepared).expect("recorded");
        let file = path(dir.path(), SessionId(7));
        let before = fs::metadata(&file).expect("file").len() as usize;
        journal.record(Step::Started).expect("recorded");
        drop(journal);
        let whole = fs::read(&file).expect("bytes");
        for cut in before..whole.len() {
            fs::write(&file, &whole[..cut]).expect("torn");
            let mut journal = Journal::open(&file).expect("opened");
            assert_eq!(journal.step(), Some(Step::Prepared), "cut at {cut}");
            journal.record(Step::Failed).expect("recorded");
            drop(journal);
            assert_eq!(Journal::open(&file).expect("again").step(), Some(Step::Failed), "cut at {cut}");
        }
    }

    #[test]
    fn damage_in_the_middle_and_other_formats_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.journal");
        let good = String::from_utf8(novacron_control_api::to_line(&header())).expect("text");
        for (text, line) in [("", 1), ("{}\n", 1), (&*format!("{good}nonsense\n"), 2)] {
            fs::write(&file, text).expect("written");
            match Journal::open(&file) {
                Err(JournalError::Damaged { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        fs::write(&file, good.replace("\"version\":1", "\"version\":9")).expect("written");
        assert!(matches!(Journal::open(&file), Err(JournalError::Version { version: 9, .. })));
        assert_eq!(find(dir.path()).expect("found").damaged.len(), 1);
    }

    #[test]
    fn only_settled_journals_are_pruned() {
        let dir = tempfile::tempdir().expect("a directory");
        for number in 0..(JOURNALS_KEPT as u64 + 5) {
            let header = Header { migration: SessionId(number), ..header() };
            let mut journal = Journal::create(dir.path(), header).expect("created");
            journal.record(if number % 2 == 0 { Step::Done } else { Step::Failed }).expect("recorded");
        }
        let header = Header { migration: SessionId(1 << 40), ..header() };
        Journal::create(dir.path(), header).expect("created").record(Step::ContSent).expect("recorded");
        prune(dir.path());
        let found = find(dir.path()).expect("found");
        assert_eq!(found.settled.len(), JOURNALS_KEPT);
        assert_eq!(found.unsettled.len(), 1);
    }
}
