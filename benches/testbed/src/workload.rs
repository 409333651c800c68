//! What a guest does while it is moved.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// What a guest does. Each runs as an open loop at a set rate and can verify everything that it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Memory that stands still.
    Idle,
    /// Rewrites pages of a working set, of a mix of zero pages, text and random bytes.
    #[default]
    Dirty,
    /// The same with pages that do not compress.
    Random,
    /// A redis server: random values are written and read back.
    Redis,
    /// SQLite: transactions write rows.
    Database,
    /// gcc compiles programs, one after the other.
    Compile,
    /// Has read most of its disk into its page cache, and reads there.
    Disk,
}

impl Workload {
    /// All of them, in the order in which people are told.
    pub const ALL: [Self; 7] =
        [Self::Idle, Self::Dirty, Self::Redis, Self::Database, Self::Compile, Self::Disk, Self::Random];

    /// Reads a name, as `redis`.
    ///
    /// # Errors
    /// When no workload is called so: names those that there are.
    pub fn parse(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|workload| workload.name() == name) {
            Some(workload) => Ok(workload),
            None => {
                let names = Self::ALL.map(Self::name).join(", ");
                bail!("no workload is called {name:?}; there are: {names}")
            }
        }
    }

    /// Its name in scenarios, on command lines and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Dirty => "dirty",
            Self::Random => "random",
            Self::Redis => "redis",
            Self::Database => "database",
            Self::Compile => "compile",
            Self::Disk => "disk",
        }
    }

    /// What it does, in half a sentence.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Idle => "memory that stands still",
            Self::Dirty => "rewrites pages of its memory: zero, text and random ones",
            Self::Random => "rewrites pages that do not compress",
            Self::Redis => "a redis server whose random values are written and read",
            Self::Database => "SQLite under transactions that write rows",
            Self::Compile => "gcc compiles programs, one after the other",
            Self::Disk => "has read most of its disk, and reads in its page cache",
        }
    }

    /// What its rate counts, each second.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Idle | Self::Dirty | Self::Random => "MB",
            Self::Redis => "requests",
            Self::Database => "transactions",
            Self::Compile => "files",
            Self::Disk => "reads",
        }
    }

    /// The rate that it is given unless told otherwise, in its own unit a second: what an emulated processor holds
    /// with room to spare on a small machine that does other things as well.
    pub const fn default_rate(self) -> f64 {
        match self {
            Self::Idle => 0.0,
            Self::Dirty | Self::Random => 20.0,
            Self::Redis => 1000.0,
            Self::Database => 20.0,
            Self::Compile => 0.5,
            Self::Disk => 200.0,
        }
    }

    /// Memory that its guest is given unless told otherwise, MiB.
    pub const fn default_memory_mib(self) -> u32 {
        match self {
            Self::Idle | Self::Dirty | Self::Random => 256,
            Self::Redis | Self::Database | Self::Compile => 384,
            Self::Disk => 1024,
        }
    }

    /// What it dirties over and over, or begins with, unless told otherwise, MiB.
    pub const fn default_work_mib(self) -> u32 {
        match self {
            Self::Database => 32,
            _ => 64,
        }
    }

    /// Whether it needs programs from the guest's disk image, which `make guest-image` makes.
    pub const fn needs_image(self) -> bool {
        matches!(self, Self::Redis | Self::Database | Self::Compile | Self::Disk)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Workload {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::parse(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for workload in Workload::ALL {
            assert_eq!(Workload::parse(workload.name()).unwrap(), workload);
            assert_eq!(workload.to_string().parse::<Workload>().unwrap(), workload);
        }
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let error = Workload::parse("Redis").unwrap_err().to_string();
        assert!(error.contains("\"Redis\"") && Workload::ALL.iter().all(|one| error.contains(one.name())));
    }
}
