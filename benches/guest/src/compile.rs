//! A compiler at work: real programs, one after the other, over and over. Each must come out as it did the first time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::drive::{Report, Work};
use crate::limits::{COMPILE_SOURCES_MAX, PROGRAM_DEBT_MAX};
use crate::pace::MILLIONTHS;
use crate::program;

/// Programs that Debian ships as sources: the examples of zlib.
const SOURCES: &str = "/usr/share/doc/zlib1g-dev/examples";
const OUTPUT: &str = "/run/out.o";

pub(crate) struct Compile {
    /// Each source and what it first came out as.
    sources: Vec<(PathBuf, Vec<u8>)>,
    next: usize,
    /// What comes out next is damaged on purpose.
    damage: bool,
}

impl Compile {
    /// Compiles every source once.
    ///
    /// # Errors
    /// When there are none, or the compiler fails.
    pub(crate) fn start() -> Result<Self> {
        let entries = fs::read_dir(SOURCES).context(SOURCES)?;
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>().context(SOURCES)?;
        paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "c"));
        // The shorter ones: a step should not take longer than people wait for.
        let length = |path: &PathBuf| fs::metadata(path).map_or(u64::MAX, |data| data.len());
        paths.sort_by_key(|path| (length(path), path.clone()));
        paths.truncate(COMPILE_SOURCES_MAX);
        ensure!(!paths.is_empty(), "no C source in {SOURCES} of the image");
        let mut sources = Vec::new();
        for path in paths {
            let object = compile(&path)?;
            sources.push((path, object));
        }
        Ok(Self { sources, next: 0, damage: false })
    }

    /// The sources that there are.
    pub(crate) fn sources(&self) -> u64 {
        self.sources.len() as u64
    }

    fn one(&mut self, at: usize, bad: &mut Report) -> Result<()> {
        let (path, first) = &self.sources[at];
        let mut object = compile(path)?;
        if std::mem::take(&mut self.damage) {
            object.reverse();
        }
        if object != *first {
            bad.bad(&format!("source={} bytes={} first_bytes={}", path.display(), object.len(), first.len()));
        }
        Ok(())
    }
}

fn compile(source: &Path) -> Result<Vec<u8>> {
    let mut compiler = program::command("gcc")?;
    // As while a program is being written: the optimiser would take seconds to a file when emulated. Warnings about
    // the examples are nobody's business here.
    let status = compiler.args(["-O0", "-w", "-c", "-o", OUTPUT]).arg(source).status();
    let status = status.context("starting gcc")?;
    ensure!(
        status.success(),
        "gcc fails at {} ({status}); its messages are on the console",
        source.display()
    );
    fs::read(OUTPUT).context(OUTPUT)
}

impl Work for Compile {
    fn unit(&self) -> &'static str {
        "files"
    }

    fn step(&self) -> u64 {
        MILLIONTHS
    }

    fn burst(&self) -> u64 {
        1
    }

    fn debt_max(&self) -> Duration {
        PROGRAM_DEBT_MAX
    }

    fn run(&mut self, steps: u64, bad: &mut Report) -> Result<()> {
        for _ in 0..steps {
            self.one(self.next, bad)?;
            self.next = (self.next + 1) % self.sources.len();
        }
        Ok(())
    }

    /// Compiles everything once more.
    fn verify(&mut self, bad: &mut Report) -> Result<u64> {
        for at in 0..self.sources.len() {
            self.one(at, bad)?;
        }
        Ok(self.sources())
    }

    fn corrupt(&mut self) -> Result<u64> {
        self.damage = true;
        Ok(self.next as u64)
    }
}
