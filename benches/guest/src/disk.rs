//! A guest that has read most of its disk: files stand in its page cache, and what they held when they came from the
//! disk is known.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::io::{ReadWriteFlags, preadv2};
use xxhash_rust::xxh64::xxh64;

use crate::drive::{Report, Work};
use crate::limits::{DISK_BLOCK_BYTES, DISK_FREE_BYTES_MIN, DISK_READ_BURST, PROGRAM_DEBT_MAX};
use crate::pace::MILLIONTHS;
use crate::random::Random;
use crate::system;

/// Directories of the image that hold files.
const PLACES: [&str; 3] = ["/usr", "/etc", "/var"];

pub(crate) struct Disk {
    files: Vec<PathBuf>,
    blocks: Vec<Block>,
    random: Random,
    buffer: Vec<u8>,
    /// What is read next is damaged on purpose.
    damage: bool,
}

/// A piece of a file and the hash of what it holds.
#[derive(Clone, Copy)]
struct Block {
    file: usize,
    offset: u64,
    length: usize,
    hash: u64,
}

impl Disk {
    /// Reads files until all are read or memory is nearly full of them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn read(seed: u64) -> Result<Self> {
        let mut files = Vec::new();
        for place in PLACES {
            list(Path::new(place), &mut files)?;
        }
        let mut disk = Self {
            files: Vec::new(),
            blocks: Vec::new(),
            random: Random::new(seed),
            buffer: vec![0; DISK_BLOCK_BYTES],
            damage: false,
        };
        // Asking what is free costs more than reading a small file does: once for as much as may be read meanwhile.
        let mut unasked = 0;
        for path in files {
            if unasked == 0 && system::free_bytes()? < DISK_FREE_BYTES_MIN {
                break;
            }
            let read = disk.read_file(path)?;
            unasked = if unasked + read < DISK_FREE_BYTES_MIN / 4 { unasked + read } else { 0 };
        }
        ensure!(!disk.blocks.is_empty(), "there is nothing to read on the disk");
        Ok(disk)
    }

    /// Returns the bytes of the file.
    fn read_file(&mut self, path: PathBuf) -> Result<u64> {
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        let number = self.files.len();
        let mut offset = 0;
        loop {
            let mut length = 0;
            // Whole blocks, whatever a single read gives.
            while length < DISK_BLOCK_BYTES {
                match file.read(&mut self.buffer[length..]).with_context(|| path.display().to_string())? {
                    0 => break,
                    count => length += count,
                }
            }
            if length == 0 {
                break;
            }
            self.blocks.push(Block { file: number, offset, length, hash: xxh64(&self.buffer[..length], 0) });
            offset += length as u64;
        }
        self.files.push(path);
        Ok(offset)
    }

    /// Blocks of which the contents are known.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Reads a block anew and compares. Says whether all of it stood in the page cache.
    fn check(&mut self, at: usize, bad: &mut Report) -> Result<bool> {
        let Block { file: number, offset, length, hash } = self.blocks[at];
        let path = &self.files[number];
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let buffer = &mut self.buffer[..length];
        // NOWAIT reads what is in the cache and nothing else (preadv2(2)).
        let cached = matches!(preadv2(&file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT), Ok(count) if count == length);
        if !cached {
            file.read_exact_at(buffer, offset).with_context(|| path.display().to_string())?;
        }
        if std::mem::take(&mut self.damage) {
            buffer[length / 2] ^= 1;
        }
        if xxh64(buffer, 0) != hash {
            bad.bad(&format!("file={} offset={offset} cached={cached}", path.display()));
        }
        Ok(cached)
    }
}

/// The regular files below a directory, in an order that is always the same.
fn list(place: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(place)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| place.display().to_string())?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().with_context(|| entry.path().display().to_string())?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

impl Work for Disk {
    fn unit(&self) -> &'static str {
        "reads"
    }

    fn step(&self) -> u64 {
        MILLIONTHS
    }

    fn burst(&self) -> u64 {
        DISK_READ_BURST
    }

    fn debt_max(&self) -> Duration {
        PROGRAM_DEBT_MAX
    }

    fn run(&mut self, steps: u64, bad: &mut Report) -> Result<()> {
        for _ in 0..steps {
            let at = (self.random.next() % self.blocks()) as usize;
            self.check(at, bad)?;
        }
        Ok(())
    }

    /// Reads everything back, and says how much of it was still in memory: only that has moved.
    fn verify(&mut self, bad: &mut Report) -> Result<u64> {
        let mut cached = 0;
        for at in 0..self.blocks.len() {
            cached += u64::from(self.check(at, bad)?);
        }
        bad.note(&format!("CACHED blocks={cached} of={}", self.blocks()));
        Ok(self.blocks())
    }

    fn corrupt(&mut self) -> Result<u64> {
        self.damage = true;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_in_order_and_links_are_not_followed() {
        let place = std::env::temp_dir().join(format!("novacron-guest-{}", std::process::id()));
        fs::create_dir_all(place.join("b")).unwrap();
        for name in ["c", "b/a", "a"] {
            fs::write(place.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("a", place.join("d")).unwrap();
        let mut files = Vec::new();
        list(&place, &mut files).unwrap();
        fs::remove_dir_all(&place).unwrap();
        let names: Vec<_> =
            files.iter().map(|path| path.strip_prefix(&place).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a", "b/a", "c"]);
    }
}
