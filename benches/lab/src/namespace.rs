//! Network namespaces, their devices and addresses, by `ip` of iproute2.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::addresses::{self, End, Route, V4_BITS, V6_BITS};
use crate::limits::DEVICE_QUEUE_FRAMES;
use crate::topology::SiteSpec;

/// Where `ip netns` keeps them.
const FOLDER: &str = "/run/netns";
/// How those of all labs begin.
const PREFIX: &str = "nclab-";

/// What every site is told before it has a device. A network that talks by itself would be counted as load.
const QUIET: &[(&str, &str)] = &[
    // A site that stands between two others passes their packets on.
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    // Or the second run of a measurement starts with what the first has learnt of the link.
    ("net.ipv4.tcp_no_metrics_save", "1"),
    // No address of its own making, no search for routers or for doubles.
    ("net.ipv6.conf.default.addr_gen_mode", "1"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
];

/// The namespace's name of a site in a lab.
pub(crate) fn name(lab: &str, site: &str) -> String {
    format!("{PREFIX}{lab}-{site}")
}

/// The lab that a namespace belongs to; `None`: it is none of ours.
pub(crate) fn lab_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)?.split_once('-').map(|(lab, _)| lab)
}

/// The file by which a namespace is entered.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Namespaces of all labs, living or not.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn all() -> Result<Vec<String>> {
    let folder = match fs::read_dir(FOLDER) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {FOLDER}")),
    };
    let mut names = Vec::new();
    for entry in folder {
        let name = entry.with_context(|| format!("reading {FOLDER}"))?.file_name();
        names.extend(name.into_string().ok().filter(|name| lab_of(name).is_some()));
    }
    names.sort();
    Ok(names)
}

/// Makes a namespace with its loopback up.
///
/// # Errors
/// What `ip` says, or the setting that the kernel refused.
pub(crate) fn add(name: &str, site: &SiteSpec) -> Result<()> {
    ip(&["netns", "add", name], "")?;
    let mut settings: Vec<(String, String)> = Vec::new();
    for (setting, value) in QUIET {
        settings.push(((*setting).to_owned(), (*value).to_owned()));
    }
    let own = site.sysctl.clone();
    let optional = settings.len();
    settings.extend(own);
    within(name, move || {
        for (number, (setting, value)) in settings.iter().enumerate() {
            let file = Path::new("/proc/sys").join(setting.replace('.', "/"));
            let written = fs::write(&file, value);
            // A kernel without IPv6 has not all of ours; what the topology names must be there.
            if number >= optional {
                written.with_context(|| format!("setting {setting} = {value} in site {name}"))?;
            }
        }
        Ok(())
    })?;
    ip(&["-n", name, "link", "set", "lo", "up"], "")
}

/// Removes a namespace. The kernel keeps it for as long as a process is in it.
///
/// # Errors
/// What `ip` says.
pub(crate) fn remove(name: &str) -> Result<()> {
    ip(&["netns", "del", name], "")
}

/// Makes an end's TAP device in a namespace: its frames are whole, without offloads, and reads do not block.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn tap(namespace: &str, end: &End, mtu: u16) -> Result<SyncDevice> {
    // Made inside, so that its name meets no other lab's and nothing outside learns of it.
    within(namespace, || {
        let device = DeviceBuilder::new()
            .name(&end.link)
            .layer(Layer::L2)
            .mac_addr(end.mac)
            .mtu(mtu)
            .tx_queue_len(DEVICE_QUEUE_FRAMES)
            .build_sync()
            .with_context(|| format!("making the device {} in {namespace}", end.link))?;
        device.set_nonblocking(true).context("making reads of the device return at once")?;
        Ok(device)
    })
}

/// Gives devices their addresses and neighbours, and the site its routes. Each end comes with the one opposite.
///
/// # Errors
/// What `ip` says.
pub(crate) fn address(
    namespace: &str,
    ends: &[(End, End)],
    routes: &[Route],
    congestion_control: Option<&str>,
) -> Result<()> {
    let with_v6 = Path::new("/proc/sys/net/ipv6").exists();
    let mut commands = String::new();
    let mut command = |line: String| commands.extend([line.as_str(), "\n"]);
    let control = congestion_control.map_or_else(String::new, |control| format!(" congctl {control}"));
    for (end, far) in ends {
        let device = &end.link;
        command(format!("address add {}/{V4_BITS} dev {device}", end.v4));
        // Neighbours are known, or a lost ARP frame would cost a run a second.
        let mac = far.mac_text();
        command(format!("neighbour replace {} lladdr {mac} dev {device} nud permanent", far.v4));
        if with_v6 {
            command(format!("address add {}/{V6_BITS} dev {device} nodad", end.v6));
            command(format!("neighbour replace {} lladdr {mac} dev {device} nud permanent", far.v6));
        }
    }
    if congestion_control.is_some() {
        // The routes that came with the addresses, once more.
        for (end, _) in ends {
            let (v4, v6) = addresses::networks(end);
            let device = &end.link;
            command(format!(
                "route replace {v4}/{V4_BITS} dev {device} proto kernel scope link src {}{control}",
                end.v4
            ));
            if with_v6 {
                command(format!(
                    "route replace {v6}/{V6_BITS} dev {device} proto kernel metric 256{control}"
                ));
            }
        }
    }
    for route in routes.iter().filter(|route| with_v6 || route.via.is_ipv4()) {
        command(format!("route add {}/{} via {}{control}", route.network.0, route.network.1, route.via));
    }
    ip(&["-n", namespace, "-batch", "-"], &commands)
}

/// Frames that the kernel dropped because the lab did not read a device in time.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn overrun(namespace: &str, device: &str) -> Result<u64> {
    // /sys shows the namespace that it was mounted in, /proc/net that of the thread that reads.
    let table =
        within(namespace, || fs::read_to_string("/proc/thread-self/net/dev").context("reading net/dev"))?;
    dropped(&table, device).with_context(|| format!("net/dev of {namespace} lacks {device}"))
}

fn dropped(table: &str, device: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    // Eight columns of what was received; of what was sent bytes, packets, errors, drops.
    line.split_whitespace().nth(11)?.parse().ok()
}

/// Does something in a namespace: on a thread of its own, as threads do not come back.
///
/// # Errors
/// When the namespace cannot be entered, and those of `work`.
pub(crate) fn within<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(path(namespace)).with_context(|| format!("opening the namespace {namespace}"))?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering the namespace {namespace}"))?;
            work()
        });
        thread.join().map_err(|_| anyhow!("the work in namespace {namespace} panicked"))?
    })
}

fn ip(arguments: &[&str], input: &str) -> Result<()> {
    let shown = format!("ip {}", arguments.join(" "));
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has failed already reads nothing; its message says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Says what a lab needs and this machine or user lacks.
///
/// # Errors
/// What is missing, a sentence.
pub(crate) fn available() -> Result<(), String> {
    check_available().map_err(|error| format!("{error:#}"))
}

fn check_available() -> Result<()> {
    let mut missing = Vec::new();
    let status = fs::read_to_string("/proc/self/status").context("reading what this process may do")?;
    if !may_administer(&status) {
        missing.push("root (CAP_NET_ADMIN and CAP_SYS_ADMIN)");
    }
    if File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        missing.push("/dev/net/tun");
    }
    for (program, package) in
        [("ip", "the program ip (package iproute2)"), ("nsenter", "the program nsenter (package util-linux)")]
    {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
        if !found {
            missing.push(package);
        }
    }
    ensure!(missing.is_empty(), "a lab needs what is missing here: {}", missing.join(", "));
    Ok(())
}

fn may_administer(status: &str) -> bool {
    const NET_ADMIN: u32 = 12;
    const SYS_ADMIN: u32 = 21;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    [NET_ADMIN, SYS_ADMIN].iter().all(|capability| bits & (1 << capability) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_lab() {
        assert_eq!(lab_of(&name("3fa9c1", "slow-site")), Some("3fa9c1"));
        assert_eq!(lab_of("nclab"), None);
        assert_eq!(lab_of("customer-net"), None);
    }

    #[test]
    fn drops_are_read_from_their_column() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes ...\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  wan-2:1 2 3 4 5 6 7 8 9 10 11 99 13 14 15 16\n";
        assert_eq!(dropped(table, "wan-2"), Some(99));
        assert_eq!(dropped(table, "wan"), None);
    }

    #[test]
    fn who_lacks_a_capability_may_not() {
        assert!(may_administer("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_administer("CapEff:\t0000000000000000\n"));
        assert!(!may_administer("CapEff:\t0000000000001000\n"), "CAP_NET_ADMIN alone");
        assert!(!may_administer(""));
    }
}
