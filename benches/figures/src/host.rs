//! On what machine and of what build a figure was measured.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// A figure says nothing without this. What a machine does not tell is `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Host {
    pub(crate) processor: Option<String>,
    pub(crate) processors: usize,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) kernel: Option<String>,
    pub(crate) qemu: Option<String>,
    pub(crate) socat: Option<String>,
    /// The commit of the tree that was measured, with `+` where files differ from it.
    pub(crate) commit: Option<String>,
    pub(crate) version: &'static str,
    /// When, UTC.
    pub(crate) date: Option<String>,
}

impl Host {
    /// Asks this machine.
    pub(crate) fn here() -> Self {
        let changed = said("git", &["status", "--porcelain", "--untracked-files=no"], |_| true);
        let mark = if changed.is_some() { "+" } else { "" };
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.strip_suffix(" kB")?.trim().parse::<u64>().ok())
                .map(|kib| kib << 10),
            kernel: said("uname", &["-sr"], |_| true),
            qemu: said("qemu-system-x86_64", &["--version"], |_| true),
            socat: said("socat", &["-V"], |line| line.starts_with("socat version")),
            commit: said("git", &["rev-parse", "--short=12", "HEAD"], |_| true)
                .map(|commit| format!("{commit}{mark}")),
            version: env!("CARGO_PKG_VERSION"),
            date: said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"], |_| true),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        write!(
            f,
            "{} x {}, {}, {}, commit {}, {}",
            self.processors,
            or(&self.processor),
            or(&self.kernel),
            or(&self.qemu),
            or(&self.commit),
            or(&self.date)
        )
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
        assert_eq!(said("uname", &["--novacron"], |_| true), None);
        assert_eq!(field("/proc/cpuinfo", "novacron"), None);
        assert!(Host::here().kernel.is_some_and(|kernel| kernel.starts_with("Linux")));
    }
}
