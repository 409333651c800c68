//! What is measured: workload x link x contenders x repetitions, a TOML file each.
//!
//! ```toml
//! why = "What the link costs a guest that dirties little"
//! contenders = ["novacron", "tcp", { name = "multifd-16", like = "multifd-8", channels = 16 }]
//! repetitions = 9
//! time_limit_s = 60
//! congestion_control = "cubic"          # absent: what the kernel does by default
//!
//! [guest]                               # or [stream]
//! workload = "dirty"
//! memory_mib = 512
//!
//! [link]                                # absent: loopback
//! both = { rate_mbit = 500, delay_ms = 25, loss_percent = 0.1 }
//!
//! [short]                               # absent: not a part of `make bench`
//! contenders = ["novacron", "tcp"]
//! repetitions = 2
//! ```
//!
//! A mistake is refused with the file, the line and what was expected there.

mod file;
mod link;
mod refusal;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::contender::Contender;
use crate::workload;
pub use file::{GuestPart, StreamPart};
pub use link::Link;
pub use refusal::Refusal;

/// Where scenarios are looked for, from the top of the tree.
pub const DIRECTORY: &str = "benches/scenarios";

/// One scenario, checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The name of its file.
    pub name: String,
    /// What it is there to show.
    pub why: String,
    /// What is moved.
    pub load: Load,
    /// Between the sites; `None`: loopback.
    pub link: Option<Link>,
    /// Who is measured.
    pub contenders: Vec<Contender>,
    /// How often each.
    pub repetitions: u32,
    /// When a run is given up.
    pub time_limit: Duration,
    /// Of every TCP socket at both sites; `None`: the kernel's own default.
    pub congestion_control: Option<String>,
    /// What hypervisors may send, bytes a second; `None`: no limit.
    pub max_bandwidth: Option<u64>,
    /// The pause that hypervisors aim for.
    pub downtime_limit: Duration,
    /// What `make bench` runs of it.
    pub short: Option<Short>,
}

/// What is moved.
#[derive(Clone, Debug)]
pub enum Load {
    /// A guest that runs.
    Guest(GuestPart),
    /// The bytes of a migration, one way: what tools that are no hypervisors can carry.
    Stream(StreamPart),
}

/// Less of a scenario.
#[derive(Clone, Debug)]
pub struct Short {
    /// Of the scenario's.
    pub contenders: Vec<Contender>,
    /// How often each.
    pub repetitions: u32,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or a [`Refusal`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self::parse(&text, path)?)
    }

    /// Reads the text of a file; `path` gives the scenario its name and messages their place.
    ///
    /// # Errors
    /// The first mistake: where, what it is, what was expected.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Refusal> {
        file::parse(text, path)
    }

    /// The guest's memory, bytes; 0 for a stream of a file.
    pub fn memory_bytes(&self) -> u64 {
        let guest = match &self.load {
            Load::Guest(guest) => Some(guest),
            Load::Stream(stream) => stream.of.as_ref(),
        };
        guest.map_or(0, |guest| u64::from(workload::memory_mib(guest)) << 20)
    }

    /// What is moved, for people.
    pub fn workload(&self) -> String {
        match &self.load {
            Load::Guest(guest) => workload::text(guest),
            Load::Stream(StreamPart { of: Some(guest), .. }) => {
                format!("stream of {}", workload::text(guest))
            }
            Load::Stream(StreamPart { file, .. }) => {
                let name = file.as_ref().map(|file| file.display().to_string());
                format!("stream of {}", name.unwrap_or_default())
            }
        }
    }

    /// Only what `make bench` runs of it; `None`: nothing.
    pub fn shortened(mut self) -> Option<Self> {
        let short = self.short.take()?;
        self.contenders = short.contenders;
        self.repetitions = short.repetitions;
        Some(self)
    }
}

/// The scenarios asked for: names of files in `directory`, or paths; all of the directory when none is named.
///
/// # Errors
/// A name that is not there (lists those that are), a mistake in a file.
pub fn find(directory: &Path, wanted: &[String]) -> Result<Vec<Scenario>> {
    let known = names(directory)?;
    let path = |name: &String| -> Result<PathBuf> {
        if name.ends_with(".toml") {
            return Ok(PathBuf::from(name));
        }
        ensure!(
            known.contains(name),
            "there is no scenario {name:?} in {}; there are: {}",
            directory.display(),
            known.join(", ")
        );
        Ok(directory.join(format!("{name}.toml")))
    };
    let wanted = if wanted.is_empty() { &known } else { wanted };
    wanted.iter().map(|name| Scenario::read(&path(name)?)).collect()
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| {
        format!("looking for scenarios in {} (--scenarios names another place)", directory.display())
    })?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut names: Vec<String> = paths
        .with_context(|| format!("listing {}", directory.display()))?
        .iter()
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "toml"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"why = "To see."
contenders = ["tcp", { name = "wide", like = "multifd-8", channels = 16 }]
repetitions = 3
time_limit_s = 60
congestion_control = "cubic"
max_bandwidth_mb = 100
[guest]
workload = "dirty"
memory_mib = 512
rate = 20
[link]
both = { rate_mbit = 200, delay_ms = 20 }
back = { rate_mbit = 20 }
[short]
contenders = ["tcp"]
repetitions = 1
"#;

    fn parse(text: &str) -> Result<Scenario, Refusal> {
        Scenario::parse(text, Path::new("far/there.toml"))
    }

    #[test]
    fn a_sound_file_is_taken() {
        let scenario = parse(SOUND).unwrap();
        assert_eq!(scenario.name, "there");
        assert_eq!(scenario.workload(), "dirty, 20 MB/s");
        assert_eq!((scenario.memory_bytes(), scenario.max_bandwidth), (512 << 20, Some(100_000_000)));
        let link = scenario.link.as_ref().unwrap();
        assert_eq!(link.text(), "200 Mbit/s, 40 ms RTT, back 20 Mbit/s");
        let short = scenario.shortened().unwrap();
        assert_eq!((short.contenders.len(), short.repetitions), (1, 1));
        assert!(parse(&SOUND.replace("[short]", "[short] #").replace("repetitions = 1\n", "")).is_err());
    }

    /// Replaces a part of the sound file and looks at the refusal.
    fn refused(from: &str, to: &str, line: usize, said: &[&str]) {
        let text = SOUND.replacen(from, to, 1);
        assert_ne!(text, SOUND, "{from:?} is not there");
        let refusal = parse(&text).unwrap_err();
        let message = refusal.to_string();
        assert!(message.starts_with(&format!("far/there.toml:{line}: ")), "{message}");
        for word in said {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
    }

    #[test]
    fn each_mistake_names_its_line_and_what_was_expected() {
        refused("\"tcp\", {", "\"tpc\", {", 2, &["tpc", "known", "multifd-4-zstd", "novacron"]);
        refused("channels = 16", "chanels = 16", 2, &["chanels", "channels"]);
        refused("channels = 16", "streams = 16", 2, &["streams", "channels"]);
        refused("name = \"wide\", ", "name = \"tcp\", ", 2, &["twice"]);
        refused("repetitions = 3", "repetitions = 0", 3, &["1 to"]);
        refused("repetitions = 3", "repetitions = \"3\"", 3, &["string", "u32"]);
        refused("time_limit_s = 60", "time_limit_s = 0", 4, &["time_limit_s", "1 to"]);
        refused("time_limit_s", "time_limit", 4, &["time_limit", "time_limit_s"]);
        refused("\"cubic\"", "\"cubic;\"", 5, &["congestion", "cubic"]);
        refused("max_bandwidth_mb = 100", "max_bandwidth_mb = 0", 6, &["1 to"]);
        refused("workload = \"dirty\"", "workload = \"dirt\"", 7, &["dirt", "idle, dirty"]);
        refused("memory_mib = 512", "memory_mib = 5", 7, &["64"]);
        refused("rate = 20", "rate = -1", 7, &["rate"]);
        refused("rate = 20", "speed = 20", 10, &["speed", "rate"]);
        refused("delay_ms = 20", "delay_ms = \"20\"", 12, &["string"]);
        refused("delay_ms = 20", "latency = 20", 12, &["latency", "delay_ms"]);
        refused("rate_mbit = 200", "loss_percent = 101", 12, &["100"]);
        refused("contenders = [\"tcp\"]\nr", "contenders = [\"xbzrle\"]\nr", 15, &["xbzrle", "tcp, wide"]);
        refused("why = \"To see.\"", "why = \" \"", 1, &["sentence"]);
        refused("why = \"To see.\"", "", 1, &["why"]);
        refused("[guest]", "[guset]", 7, &["guset", "guest"]);
        refused("[guest]", "[guest", 7, &[]);
    }

    #[test]
    fn contenders_fit_what_is_moved() {
        refused("\"tcp\", {", "\"zstd-long\", {", 2, &["[stream]"]);
        let stream = SOUND
            .replace("[guest]\nworkload = \"dirty\"\nmemory_mib = 512\nrate = 20", "[stream]\nfile = \"x\"");
        let refusal = parse(&stream).unwrap_err().to_string();
        assert!(refusal.contains("tcp moves guests") && refusal.contains(":2:"), "{refusal}");
        let loopback =
            SOUND.replace("[link]\nboth = { rate_mbit = 200, delay_ms = 20 }\nback = { rate_mbit = 20 }", "");
        let refusal = parse(&loopback).unwrap_err().to_string();
        assert!(refusal.contains("congestion_control") && refusal.contains("[link]"), "{refusal}");
    }

    #[test]
    fn every_scenario_that_comes_along_is_sound() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let scenarios = find(&directory, &[]).unwrap();
        assert!(scenarios.iter().any(|scenario| scenario.name == "known-ranking"));
        assert!(scenarios.iter().any(|scenario| scenario.short.is_some()));
        let error = find(&directory, &["no-such".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("no-such") && error.contains("known-ranking"), "{error}");
    }
}
