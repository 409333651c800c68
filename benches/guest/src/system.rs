//! What process 1 owes the kernel: mounts, and an end that the hypervisor sees.

use std::io::Write;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use crate::limits::{FILL_RESERVE_BYTES, FILL_RESERVE_DIVISOR, PAGE_BYTES};

pub(crate) fn mount_all() -> Result<()> {
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), None).context("mounting /dev")?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None).context("mounting /proc")
}

/// Pages that may be written without bringing the kernel into need.
pub(crate) fn free_pages() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    free_pages_of(&text).context("no MemAvailable in /proc/meminfo")
}

/// Memory that nothing is kept in, the cache of files included in what is kept.
pub(crate) fn free_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    bytes_of(&text, "MemFree:").context("no MemFree in /proc/meminfo")
}

fn bytes_of(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn free_pages_of(meminfo: &str) -> Option<u64> {
    let bytes = bytes_of(meminfo, "MemAvailable:")?;
    let reserve = FILL_RESERVE_BYTES.max(bytes / FILL_RESERVE_DIVISOR);
    Some(bytes.saturating_sub(reserve) / PAGE_BYTES as u64)
}

/// Says why on every port there is and restarts: the hypervisor runs with `-no-reboot`, so that its process ends and
/// nobody waits for a guest that has died.
pub(crate) fn give_up(why: &str) {
    for device in ["/dev/ttyS0", "/dev/console"] {
        if let Ok(mut port) = std::fs::OpenOptions::new().write(true).open(device) {
            // Nothing is left to tell about a port that cannot be written either.
            let _ = writeln!(port, "FATAL {why}");
            let _ = rustix::termios::tcdrain(&port);
        }
    }
    if let Err(error) = reboot(RebootCommand::Restart) {
        eprintln!("restarting failed: {error}");
    }
}

/// A panic in any thread ends the guest, as an error of the main one does.
pub(crate) fn give_up_on_panic() {
    std::panic::set_hook(Box::new(|panic| give_up(&panic.to_string().replace('\n', " "))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pages_leave_the_reserve() {
        let meminfo = "MemTotal: 2000000 kB\nMemAvailable:    1048576 kB\n";
        assert_eq!(free_pages_of(meminfo), Some(((1 << 30) - FILL_RESERVE_BYTES) / 4096));
        assert_eq!(free_pages_of("MemAvailable: 1 kB\n"), Some(0));
        assert_eq!(free_pages_of("MemTotal: 1 kB\n"), None);
    }
}
