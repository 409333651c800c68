//! What the host has: CPUs, memory, network devices, hugepages, capabilities, kernel features; and where it is short of
//! what the owner's specification asks for.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use novacron_control_api::Timestamp;
use novacron_control_api::configuration::{Configuration, ForcedMode};
use novacron_control_api::control::{Environment, Finding, Requirement};

/// Least of all modes.
const CPUS_MIN: usize = 4;
const MEMORY_MIB_MIN: u64 = 8 << 10;
const DISK_GIB_MIN: u64 = 100;
/// Below this nothing works: the gateway's pools for sending and receiving are 96 MiB each.
const MEMORY_MIB_FATAL: u64 = 512;
/// Below this nothing can be remembered.
const DISK_MIB_FATAL: u64 = 16;
/// What io_uring needs to be locked for a gateway's shard (RLIMIT_MEMLOCK).
const LOCKED_KIB_MIN: u64 = 512;

/// What of a mode is asked for.
struct Minimum {
    cpus: usize,
    memory_gib: u64,
    disk_gib: u64,
    link_mbit: u64,
}

fn minimum(mode: ForcedMode) -> Minimum {
    let of = |cpus, memory_gib, disk_gib, link_mbit| Minimum { cpus, memory_gib, disk_gib, link_mbit };
    match mode {
        ForcedMode::Datacenter => of(8, 16, 500, 10_000),
        ForcedMode::Internet => of(4, 8, 100, 1_000),
        ForcedMode::Hybrid => of(6, 12, 250, 5_000),
        ForcedMode::Detected => of(CPUS_MIN, MEMORY_MIB_MIN >> 10, DISK_GIB_MIN, 0),
    }
}

/// The host in numbers; everything that cannot be read is `None`, and told as such.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) cpus: usize,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) hugepages: Option<(u64, u64)>,
    pub(crate) nics: Vec<(String, Option<u64>)>,
    pub(crate) capabilities: Option<u64>,
    pub(crate) kernel: String,
    pub(crate) features: Vec<(&'static str, bool)>,
    pub(crate) disk_free_mib: Option<u64>,
    pub(crate) locked_kib: Option<u64>,
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Reads `/proc` and `/sys`; no step of it needs a privilege or takes a lock.
pub(crate) fn look(data_dir: &Path) -> Host {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory = text("/proc/meminfo");
    let status = text("/proc/self/status");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mut nics: Vec<(String, Option<u64>)> = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .take(64)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| {
            // Virtual devices say -1, or nothing.
            let speed = fs::read_to_string(format!("/sys/class/net/{name}/speed")).ok();
            (name, speed.and_then(|speed| speed.trim().parse().ok()))
        })
        .collect();
    nics.sort();
    let bbr = text("/proc/sys/net/ipv4/tcp_available_congestion_control")
        .split_whitespace()
        .any(|one| one == "bbr");
    let exists = |path: &str| Path::new(path).exists();
    let uring = text("/proc/sys/kernel/io_uring_disabled").trim() != "2";
    let locked = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    Host {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mib: number_after(&memory, "MemTotal:").map(|kib| kib >> 10),
        hugepages: number_after(&memory, "HugePages_Total:").zip(number_after(&memory, "Hugepagesize:")),
        nics,
        capabilities: capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()),
        kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        features: vec![
            ("io_uring", uring && exists("/proc/sys/kernel/io_uring_disabled")),
            ("bbr", bbr),
            ("btf", exists("/sys/kernel/btf/vmlinux")),
            ("infiniband", exists("/sys/class/infiniband")),
            ("vfio", exists("/dev/vfio/vfio")),
            ("tun", exists("/dev/net/tun")),
        ],
        disk_free_mib: rustix::fs::statvfs(data_dir)
            .ok()
            .map(|disk| (disk.f_bavail.saturating_mul(disk.f_frsize)) >> 20),
        locked_kib: Some(locked.map_or(u64::MAX, |bytes| bytes >> 10)),
    }
}

/// Bit numbers of capabilities that matter (capabilities(7)).
const CAPABILITIES: [(&str, u32); 4] =
    [("net_admin", 12), ("net_raw", 13), ("ipc_lock", 14), ("sys_nice", 23)];

fn findings(host: &Host) -> Vec<Finding> {
    let unknown = || "cannot be told".to_owned();
    let find = |name: &str, value: String| Finding { name: name.to_owned(), value };
    let mut findings = vec![
        find("cpus", host.cpus.to_string()),
        find("memory", host.memory_mib.map_or_else(unknown, |mib| format!("{mib} MiB"))),
        find("disk", host.disk_free_mib.map_or_else(unknown, |mib| format!("{mib} MiB free for data"))),
        find(
            "hugepages",
            host.hugepages.map_or_else(unknown, |(count, kib)| format!("{count} of {kib} KiB")),
        ),
        find("kernel", host.kernel.clone()),
    ];
    for (name, speed) in &host.nics {
        let value = speed.map_or_else(|| "speed unknown".to_owned(), |mbit| format!("{mbit} Mbit/s"));
        findings.push(find(&format!("nic {name}"), value));
    }
    let held = host.capabilities.map_or_else(unknown, |mask| {
        let held: Vec<&str> =
            CAPABILITIES.iter().filter(|(_, bit)| mask & (1 << bit) != 0).map(|(name, _)| *name).collect();
        if held.is_empty() { "none that matter".to_owned() } else { held.join(" ") }
    });
    findings.push(find("capabilities", held));
    let there =
        |(name, there): &(&str, bool)| find(name, if *there { "there".into() } else { "absent".into() });
    findings.extend(host.features.iter().map(there));
    findings
}

/// Where the host is short of what a mode asks for, what that costs, and whether the node can work so.
pub(crate) fn short(host: &Host, mode: ForcedMode) -> Vec<Requirement> {
    let asked = minimum(mode);
    let mut short = Vec::new();
    let mut tell = |name: &str, missing: String, costs: &str, fatal: bool| {
        short.push(Requirement { name: name.into(), missing, costs: costs.into(), fatal });
    };
    if host.cpus < asked.cpus {
        let missing = format!("{} CPUs; {} should be there", host.cpus, asked.cpus);
        tell(
            "cpus",
            missing,
            "compression takes turns with everything else: less is compressed, moves take longer",
            false,
        );
    }
    if let Some(mib) = host.memory_mib.filter(|mib| *mib < (asked.memory_gib << 10) - 512) {
        let missing = format!("{mib} MiB of memory; {} GiB should be there", asked.memory_gib);
        let fatal = mib < MEMORY_MIB_FATAL;
        let costs = if fatal {
            "the gateway's buffers do not fit: nothing can be moved"
        } else {
            "fewer sessions at once before their sockets are read more slowly"
        };
        tell("memory", missing, costs, fatal);
    }
    if let Some(mib) = host.disk_free_mib.filter(|mib| *mib < asked.disk_gib << 10) {
        let missing = format!("{mib} MiB of free disk for data; {} GiB should be there", asked.disk_gib);
        let fatal = mib < DISK_MIB_FATAL;
        let costs = if fatal {
            "nothing can be written down: no record, no audit log"
        } else {
            "records and samples are kept for a shorter time"
        };
        tell("disk", missing, costs, fatal);
    }
    let fastest = host.nics.iter().filter_map(|(_, speed)| *speed).max();
    if let Some(mbit) = fastest.filter(|mbit| *mbit < asked.link_mbit) {
        let missing =
            format!("the fastest network device has {mbit} Mbit/s; {} should be there", asked.link_mbit);
        tell("network", missing, "moves take longer, and guests that write fast may not converge", false);
    }
    if host.features.contains(&("io_uring", false)) {
        tell(
            "io_uring",
            "the kernel has no io_uring, or forbids it".into(),
            "the gateway cannot start",
            true,
        );
    }
    if let Some(kib) = host.locked_kib.filter(|kib| *kib < LOCKED_KIB_MIN) {
        let missing = format!("{kib} KiB may be locked in memory; {LOCKED_KIB_MIN} should be (LimitMEMLOCK)");
        tell(
            "locked memory",
            missing,
            "the gateway cannot start where its kernel counts io_uring's rings",
            false,
        );
    }
    if host.features.contains(&("bbr", false)) {
        tell("bbr", "the kernel has no BBR".into(), "long paths with loss are used badly", false);
    }
    short
}

/// All of it, for `node.environment`.
pub(crate) fn environment(host: &Host, configuration: &Configuration) -> Environment {
    let forced = configuration.dwcp.forced_mode;
    let (mode, mode_reason) = match forced {
        ForcedMode::Detected => {
            // A path's kind is its round trip and bandwidth: neither is known before something was sent.
            ("unknown", "no path to a peer has been measured; dwcp.forced_mode sets it".to_owned())
        }
        forced => (forced.word(), "forced by dwcp.forced_mode".to_owned()),
    };
    Environment {
        findings: findings(host),
        short: short(host, forced),
        mode: mode.to_owned(),
        mode_reason,
        detected_at: Timestamp::now(),
    }
}

/// Whether an address can be listened at now.
pub(crate) fn bindable(address: SocketAddr) -> Result<(), String> {
    std::net::TcpListener::bind(address)
        .map(drop)
        .map_err(|error| format!("{address} cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            cpus: 8,
            memory_mib: Some(16 << 10),
            disk_free_mib: Some(600 << 10),
            nics: vec![("eth0".into(), Some(10_000)), ("lo".into(), None)],
            features: vec![("io_uring", true), ("bbr", true)],
            locked_kib: Some(u64::MAX),
            ..Host::default()
        }
    }

    #[test]
    fn a_host_that_has_enough_is_short_of_nothing() {
        for mode in ForcedMode::ALL {
            assert_eq!(short(&host(), *mode), [], "{mode:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told_with_what_it_costs() {
        let small = Host { cpus: 2, memory_mib: Some(4 << 10), disk_free_mib: Some(2048), ..host() };
        let told = short(&small, ForcedMode::Detected);
        assert_eq!(told.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["cpus", "memory", "disk"]);
        assert!(
            told.iter().all(|one| !one.fatal && !one.costs.is_empty() && one.missing.contains("should be"))
        );
        let slow = Host { nics: vec![("eth0".into(), Some(1000))], ..host() };
        assert_eq!(short(&slow, ForcedMode::Datacenter)[0].name, "network");
        assert_eq!(short(&slow, ForcedMode::Internet), []);
    }

    #[test]
    fn only_what_cannot_work_is_fatal() {
        for (host, name) in [
            (Host { memory_mib: Some(256), ..host() }, "memory"),
            (Host { disk_free_mib: Some(1), ..host() }, "disk"),
            (Host { features: vec![("io_uring", false)], ..host() }, "io_uring"),
        ] {
            let told = short(&host, ForcedMode::Detected);
            assert_eq!(
                told.iter().map(|one| (one.name.as_str(), one.fatal)).collect::<Vec<_>>(),
                [(name, true)]
            );
        }
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let host = look(Path::new("/tmp"));
        assert!(host.cpus > 0 && host.memory_mib.is_some() && !host.kernel.is_empty());
        assert!(host.nics.iter().any(|(name, _)| name == "lo"));
    }
}
