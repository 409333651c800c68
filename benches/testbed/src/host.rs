//! On what machine and of what build something was measured.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Programs that take part, how they are asked for their version, and the beginning of the line that tells it.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("qemu-system-x86_64", "--version", "QEMU emulator version"),
    ("socat", "-V", "socat version"),
    ("iperf3", "--version", "iperf"),
    ("zstd", "--version", "***"),
];

/// The fingerprint of the machine and of what was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The processor's name.
    pub cpu: String,
    /// Processors that the harness could use.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Programs that took part and what they call their version: qemu-system-x86_64, socat, iperf3, zstd ...
    pub versions: BTreeMap<String, String>,
    /// The commit that was measured, and whether the tree differed from it.
    pub commit: Option<String>,
    /// The tree held changes that the commit does not have.
    pub changed: bool,
    /// Load average of the last minute when it began.
    pub load_average: f64,
}

impl Host {
    /// Asks this machine. What it does not tell is left empty.
    pub fn here() -> Self {
        let versions: BTreeMap<String, String> = PROGRAMS
            .iter()
            .filter_map(|(name, argument, begins)| {
                let line = said(name, &[argument], |line| line.trim_start().starts_with(begins))?;
                Some(((*name).to_owned(), line))
            })
            .chain([("novacron".to_owned(), env!("CARGO_PKG_VERSION").to_owned())])
            .collect();
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            memory_bytes: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.strip_suffix(" kB")?.trim().parse::<u64>().ok())
                .map_or(0, |kib| kib << 10),
            kernel: said("uname", &["-r"], |_| true).unwrap_or_default(),
            versions,
            commit: said("git", &["rev-parse", "HEAD"], |_| true),
            changed: said("git", &["status", "--porcelain", "--untracked-files=no"], |_| true).is_some(),
            load_average: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok())
                .unwrap_or_default(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        let qemu = self.versions.get("qemu-system-x86_64").map_or("", String::as_str);
        let commit: String = self.commit.iter().flat_map(|commit| commit.chars().take(12)).collect();
        let changed = if self.changed { "+" } else { "" };
        let (cpu, kernel, qemu, commit) = (or(&self.cpu), or(&self.kernel), or(qemu), or(&commit));
        let load = self.load_average;
        write!(f, "{} x {cpu}, Linux {kernel}, {qemu}, commit {commit}{changed}, load {load}", self.cpus)
    }
}

/// The first line that a program prints and that is `wanted`.
fn said(program: &str, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty() && wanted(line)).map(str::to_owned)
}

/// `name : value` of a file in /proc.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_not_made_up() {
        assert_eq!(said("novacron-not-there", &[], |_| true), None);
        assert_eq!(field("/proc/cpuinfo", "novacron"), None);
        let host = Host::here();
        assert!(!host.kernel.is_empty() && host.cpus > 0 && host.memory_bytes > 0, "{host:?}");
    }
}
