//! Which network interfaces spread the packets that they receive over processors, and over which.
//!
//! All packets of one TCP connection arrive on one processor: an interface with several receive queues chooses the queue by a
//! hash of addresses and ports (receive side scaling), and where there is one queue the kernel can do the same (receive packet
//! steering, `rps_cpus`; both in Linux `Documentation/networking/scaling.rst`). A stream that is read there needs nothing from
//! another processor's cache, and the kernel says which one it is: `SO_INCOMING_CPU` (socket(7)).

use novacron_transport::shard::CpuList;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where the system describes itself.
struct System {
    /// `/sys/class/net`
    interfaces: PathBuf,
    /// `/proc/irq`
    interrupts: PathBuf,
}

/// The processors on which packets of an interface arrive.
#[derive(Debug, PartialEq, Eq)]
struct Arrivals {
    cpus: CpuList,
    /// How that comes, for people.
    by: String,
}

/// Addresses of this machine whose packets are spread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    addresses: Vec<IpAddr>,
    said: Vec<String>,
}

impl Spread {
    /// What is known now, of every interface that holds an address. `shards` are the processors of shards, none where the kernel
    /// moves them about.
    pub(crate) fn here(shards: &[usize]) -> Spread {
        if shards.len() < 2 {
            let said = "packets are not steered: there is one shard, which serves every stream".to_owned();
            return Spread { addresses: Vec::new(), said: vec![said] };
        }
        let system = System { interfaces: "/sys/class/net".into(), interrupts: "/proc/irq".into() };
        match novacron_ebpf::addresses() {
            Ok(held) => Spread::of(&system, &held, &shards.iter().copied().collect()),
            Err(why) => {
                Spread { addresses: Vec::new(), said: vec![format!("packets are not steered: {why}")] }
            }
        }
    }

    fn of(system: &System, held: &[(IpAddr, String)], shards: &CpuList) -> Spread {
        let mut spread = Spread::default();
        let mut names: Vec<&String> = held.iter().map(|(_, name)| name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let said = match system.arrivals(name) {
                Ok(Arrivals { cpus, by }) if !cpus.is_empty() && cpus.missing_in(shards) == cpus => format!(
                    "packets of {name} arrive on processors {cpus} ({by}), where no shard runs: streams take turns among \
                     shards; name these processors with --cpus"
                ),
                Ok(Arrivals { cpus, by }) => {
                    let held = held.iter().filter(|(_, holder)| holder == name);
                    spread.addresses.extend(held.map(|(address, _)| *address));
                    let on = if cpus.is_empty() { "several processors".to_owned() } else { cpus.to_string() };
                    format!("packets of {name} arrive on {on} ({by}): streams are served by the shards there")
                }
                Err(why) => {
                    format!("packets of {name} are not steered: {why}; streams take turns among shards")
                }
            };
            spread.said.push(said);
        }
        spread
    }

    /// Whether packets to this address are.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// A line for each interface: what is done there, or why nothing.
    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }
}

impl System {
    /// Where packets of an interface arrive; an error says why that is one place.
    fn arrivals(&self, interface: &str) -> Result<Arrivals, String> {
        let folder = self.interfaces.join(interface);
        let queues = fs::read_dir(folder.join("queues"))
            .map_err(|error| format!("its queues cannot be listed: {error}"))?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-"))
            .map(|entry| entry.path())
            .collect::<Vec<_>>();
        let steered: CpuList = queues.iter().flat_map(|queue| mask(&read(&queue.join("rps_cpus")))).collect();
        if steered.len() > 1 {
            return Ok(Arrivals { cpus: steered, by: "receive packet steering".to_owned() });
        }
        let count = queues.len();
        if !folder.join("device").exists() {
            return Err(format!("it is no hardware, and rps_cpus of its {count} queues names no processors"));
        }
        if count < 2 {
            return Err(format!("it has {count} receive queue, and rps_cpus names no processors"));
        }
        Ok(Arrivals { cpus: self.interrupted(&folder.join("device")), by: format!("{count} receive queues") })
    }

    /// Processors that take a device's interrupts; none where the system does not say.
    fn interrupted(&self, device: &Path) -> CpuList {
        // A virtio device has its interrupts one level up.
        let lists = [device.join("msi_irqs"), device.join("../msi_irqs")];
        let interrupts =
            lists.iter().find_map(|list| fs::read_dir(list).ok()).into_iter().flatten().flatten();
        let cpus = interrupts.filter_map(|entry| {
            let folder = self.interrupts.join(entry.file_name());
            read(&folder.join("effective_affinity_list")).trim().parse::<CpuList>().ok()
        });
        cpus.flat_map(|cpus| cpus.iter().collect::<Vec<_>>()).collect()
    }
}

/// A file's text; nothing where it cannot be read.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Processors of a mask as the kernel writes it: groups of 32 bits in hexadecimal digits, the highest first, commas between.
fn mask(text: &str) -> Vec<usize> {
    let groups = text.trim().rsplit(',').enumerate();
    let bits = groups.flat_map(|(group, digits)| {
        let bits = u32::from_str_radix(digits, 16).unwrap_or(0);
        (0..32).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| group * 32 + bit)
    });
    bits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const ADDRESS: [u8; 4] = [192, 0, 2, 1];

    /// A system with one interface of so many receive queues, each with this mask; interrupts of a device, one a processor.
    fn system(queues: usize, rps: &str, interrupts: Option<&[usize]>) -> (tempfile::TempDir, System) {
        let root = tempfile::tempdir().expect("a scratch directory");
        let at = |path: &str| root.path().join(path);
        for queue in 0..queues {
            let folder = at(&format!("net/eth0/queues/rx-{queue}"));
            fs::create_dir_all(&folder).expect("a queue");
            fs::write(folder.join("rps_cpus"), rps).expect("its mask");
        }
        if let Some(cpus) = interrupts {
            fs::create_dir_all(at("pci/virtio0")).expect("a device");
            fs::create_dir_all(at("pci/msi_irqs")).expect("its interrupts");
            symlink(at("pci/virtio0"), at("net/eth0/device")).expect("whose device it is");
            for (number, cpu) in cpus.iter().enumerate() {
                fs::write(at(&format!("pci/msi_irqs/{}", 40 + number)), "msix").expect("an interrupt");
                let folder = at(&format!("irq/{}", 40 + number));
                fs::create_dir_all(&folder).expect("an interrupt");
                fs::write(folder.join("effective_affinity_list"), format!("{cpu}\n")).expect("where it goes");
            }
        }
        let system = System { interfaces: at("net"), interrupts: at("irq") };
        (root, system)
    }

    fn spread(system: &System, shards: &[usize]) -> Spread {
        let held = [(IpAddr::from(ADDRESS), "eth0".to_owned())];
        Spread::of(system, &held, &shards.iter().copied().collect())
    }

    #[test]
    fn queues_whose_interrupts_go_to_shards_are_followed() {
        let (_root, system) = system(2, "0\n", Some(&[1, 3]));
        let spread = spread(&system, &[3, 4]);
        assert!(spread.covers(ADDRESS.into()) && !spread.covers([192, 0, 2, 2].into()));
        let said = "packets of eth0 arrive on 1,3 (2 receive queues): streams are served by the shards there";
        assert_eq!(spread.said(), [said]);
    }

    #[test]
    fn queues_of_other_processors_are_named() {
        let (_root, system) = system(2, "0\n", Some(&[0, 1]));
        let spread = spread(&system, &[4, 5]);
        assert!(!spread.covers(ADDRESS.into()));
        assert!(spread.said()[0].contains("0-1") && spread.said()[0].contains("--cpus"), "{spread:?}");
    }

    #[test]
    fn what_the_kernel_steers_needs_no_hardware() {
        let (_root, system) = system(1, "00000000,00000003\n", None);
        let spread = spread(&system, &[0, 1]);
        assert!(spread.covers(ADDRESS.into()), "{spread:?}");
        assert!(spread.said()[0].contains("receive packet steering"), "{spread:?}");
    }

    #[test]
    fn one_queue_software_and_what_is_not_there_say_why_nothing_is_steered() {
        for (queues, interrupts, why) in
            [(1, Some(&[0][..]), "1 receive queue,"), (4, None, "no hardware"), (0, None, "cannot be listed")]
        {
            let (_root, system) = system(queues, "00\n", interrupts);
            let spread = spread(&system, &[0, 1]);
            assert!(!spread.covers(ADDRESS.into()) && spread.said()[0].contains(why), "{spread:?}");
        }
    }

    #[test]
    fn masks_are_read_as_the_kernel_writes_them() {
        assert_eq!(mask("3\n"), [0, 1]);
        assert_eq!(mask("00000001,80000000\n"), [31, 32]);
        assert_eq!(mask(""), [0_usize; 0]);
        assert_eq!(mask("nonsense"), [0_usize; 0]);
    }
}
