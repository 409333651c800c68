//! How far a start came, on disk: what a run that was cut off leaves for the next one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use novacron_control_api::Timestamp;

use crate::limits::CHECKPOINT_BYTES_MAX;

const READY: &str = "ready";
const ENDED: &str = "ended";

/// The file `bootstrap.log` of the data directory: a line for each step of this run.
pub(crate) struct Checkpoint {
    file: Mutex<Option<File>>,
}

/// How the run before this one ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Before {
    /// There was none.
    None,
    /// It was stopped.
    Ended,
    /// It was cut off while it ran.
    CutOff,
    /// It was cut off, or gave up, while it started; after this step.
    CutOffStarting(String),
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("bootstrap.log")
}

fn read(path: &Path) -> Before {
    let Ok(file) = File::open(path) else { return Before::None };
    let mut text = String::new();
    if file.take(CHECKPOINT_BYTES_MAX).read_to_string(&mut text).is_err() {
        return Before::CutOff;
    }
    let steps: Vec<&str> =
        text.lines().filter_map(|line| line.split_once(' ').map(|(_, step)| step)).collect();
    match steps.last() {
        None => Before::None,
        Some(&ENDED) => Before::Ended,
        Some(_) if steps.contains(&READY) => Before::CutOff,
        Some(last) => Before::CutOffStarting((*last).to_owned()),
    }
}

impl Checkpoint {
    /// Begins this run's, and tells how the last one ended.
    ///
    /// # Errors
    /// When the directory cannot be written: then nothing else in it can be either.
    pub(crate) fn begin(data_dir: &Path) -> Result<(Self, Before), String> {
        let path = path(data_dir);
        let before = read(&path);
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
        let file = file.map_err(|error| {
            format!(
                "{} cannot be written: {error}; make the directory writable for this user",
                path.display()
            )
        })?;
        let checkpoint = Self { file: Mutex::new(Some(file)) };
        checkpoint.note("begun");
        Ok((checkpoint, before))
    }

    /// Appends a step. A full disk costs these lines, never a start.
    pub(crate) fn note(&self, step: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.as_mut().map(|file| writeln!(file, "{} {step}", Timestamp::now()));
        if let Some(Err(error)) = written {
            tracing::warn!(%error, "a checkpoint cannot be written: the next start will not know how far this one came");
            *file = None;
        }
    }

    pub(crate) fn ready(&self) {
        self.note(READY);
    }

    pub(crate) fn ended(&self) {
        self.note(ENDED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_tells_how_the_last_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        let begin = || Checkpoint::begin(folder.path()).unwrap();
        let (run, before) = begin();
        assert_eq!(before, Before::None);
        run.note("started security");
        let (run, before) = begin();
        assert_eq!(before, Before::CutOffStarting("started security".into()));
        run.ready();
        let (run, before) = begin();
        assert_eq!(before, Before::CutOff);
        run.ready();
        run.note("stopped security");
        run.ended();
        assert_eq!(begin().1, Before::Ended);
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        assert!(Checkpoint::begin(Path::new("/proc/none")).err().unwrap().contains("cannot be written"));
    }
}
