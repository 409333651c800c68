//! On which processors shards run: those that the process may use, together on one memory node where they fit, a core
//! each before any core serves two.

use crate::limits::SHARDS_MAX;
use rustix::thread::{CpuSet, sched_getaffinity};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Processors as Linux writes them: `0-3,8`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList(BTreeSet<usize>);

impl CpuList {
    /// The processors, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that the other list lacks.
    pub fn missing_in(&self, other: &CpuList) -> CpuList {
        CpuList(self.0.difference(&other.0).copied().collect())
    }
}

impl FromIterator<usize> for CpuList {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        CpuList(cpus.into_iter().collect())
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = BTreeSet::new();
        for range in text.trim().split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| {
                let cpu = text.parse::<usize>().ok().filter(|cpu| *cpu < CpuSet::MAX_CPU);
                cpu.ok_or_else(|| {
                    format!(
                        "'{text}' is no CPU: write a list as 0-3,8, with numbers below {}",
                        CpuSet::MAX_CPU
                    )
                })
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("'{range}' ends before it begins"));
            }
            cpus.extend(first..=last);
        }
        Ok(CpuList(cpus))
    }
}

/// What matters of a machine's processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Those that this process may use.
    pub allowed: CpuList,
    /// The processors of each memory node.
    pub nodes: BTreeMap<usize, CpuList>,
    /// For a processor, those that share its core, itself included; one that is not named has a core of its own.
    pub cores: BTreeMap<usize, CpuList>,
}

impl Topology {
    /// This machine's, for this process. What the kernel does not tell counts as one node and a core for each processor.
    pub fn here() -> Topology {
        let allowed = match sched_getaffinity(None) {
            Ok(set) => (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
            Err(_) => CpuList::default(),
        };
        Topology::read(Path::new("/sys/devices/system"), allowed)
    }

    /// What stands under a directory laid out as `/sys/devices/system`.
    pub fn read(system: &Path, allowed: CpuList) -> Topology {
        let list = |path: &Path| std::fs::read_to_string(path).ok()?.parse::<CpuList>().ok();
        let mut nodes = BTreeMap::new();
        for entry in std::fs::read_dir(system.join("node")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
            if let (Some(number), Some(cpus)) = (number, list(&entry.path().join("cpulist"))) {
                nodes.insert(number, cpus);
            }
        }
        let core = |cpu: usize| {
            Some((cpu, list(&system.join(format!("cpu/cpu{cpu}/topology/thread_siblings_list")))?))
        };
        let cores = allowed.iter().filter_map(core).collect();
        Topology { allowed, nodes, cores }
    }

    /// The memory node of a processor.
    pub fn node_of(&self, cpu: usize) -> Option<usize> {
        self.nodes.iter().find(|(_, cpus)| cpus.0.contains(&cpu)).map(|(node, _)| *node)
    }

    /// A processor for each of `shards` shards, of `among` (or of all that are allowed, where `among` is empty). Shards that
    /// fit on one memory node are together, on the smallest with room; others fill the largest nodes first. On each node
    /// every core serves one shard before any serves two. Empty: there are fewer processors than shards, so that pinning
    /// would put two on one.
    pub fn choose(&self, shards: usize, among: &CpuList) -> Vec<usize> {
        let usable: CpuList = if among.is_empty() {
            self.allowed.clone()
        } else {
            among.iter().filter(|cpu| self.allowed.0.contains(cpu)).collect()
        };
        if shards > usable.len() || shards > SHARDS_MAX {
            return Vec::new();
        }
        let mut nodes: Vec<Vec<usize>> = Vec::new();
        let mut rest = usable.0.clone();
        for cpus in self.nodes.values() {
            let here: Vec<usize> = cpus.iter().filter(|cpu| rest.remove(cpu)).collect();
            nodes.push(here);
        }
        nodes.push(rest.into_iter().collect());
        // Stable: of nodes alike the first.
        nodes.sort_by_key(|cpus| std::cmp::Reverse(cpus.len()));
        // The smallest node on which all fit leaves the others whole; else the largest first.
        if let Some(fits) = nodes.iter().rposition(|cpus| cpus.len() >= shards) {
            let node = nodes[fits].len();
            let first = nodes.iter().position(|cpus| cpus.len() == node).unwrap_or(fits);
            nodes.swap(0, first);
        }
        nodes.iter().flat_map(|cpus| self.cores_first(cpus)).take(shards).collect()
    }

    /// These processors, one of each core first, then the second of each, and so on.
    fn cores_first(&self, cpus: &[usize]) -> Vec<usize> {
        let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
        let mut ranked: Vec<(usize, usize)> = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let core = self.cores.get(cpu).and_then(|siblings| siblings.iter().next()).unwrap_or(*cpu);
            let rank = taken.entry(core).or_default();
            ranked.push((*rank, *cpu));
            *rank += 1;
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, cpu)| cpu).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().unwrap()
    }

    /// Two sockets of eight cores with two threads each, numbered as Linux does on such servers.
    fn two_sockets() -> Topology {
        let siblings = |cpu: usize| (cpu, [cpu % 16, cpu % 16 + 16].into_iter().collect());
        Topology {
            allowed: list("0-31"),
            nodes: [(0, list("0-7,16-23")), (1, list("8-15,24-31"))].into(),
            cores: (0..32).map(siblings).collect(),
        }
    }

    #[test]
    fn lists_are_read_and_written_as_linux_writes_them() {
        for text in ["", "0", "0-3,8", "1,3,5-6", "0-1023"] {
            assert_eq!(list(text).to_string(), text);
        }
        assert_eq!(list("3,1,2\n").to_string(), "1-3");
        for wrong in ["a", "3-1", "1-", "-1", "1024", "0-4294967296", "1;2"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shards_stand_together_a_core_each() {
        let machine = two_sockets();
        let all = CpuList::default();
        assert_eq!(machine.choose(1, &all), [0]);
        assert_eq!(machine.choose(8, &all), (0..8).collect::<Vec<_>>());
        let ten: Vec<usize> = (0..8).chain([16, 17]).collect();
        assert_eq!(machine.choose(10, &all), ten, "threads of the same node before the other node");
        let twenty = machine.choose(20, &all);
        assert_eq!(twenty[16..], [8, 9, 10, 11], "what is left over goes to the other node");
        assert_eq!(machine.choose(33, &all), [0; 0]);
    }

    #[test]
    fn what_the_process_may_not_use_is_left_alone() {
        let mut machine = two_sockets();
        machine.allowed = list("2-3,8-13");
        assert_eq!(machine.choose(4, &CpuList::default()), [8, 9, 10, 11], "the node with room for all");
        assert_eq!(machine.choose(2, &CpuList::default()), [2, 3], "the smallest node with room");
        assert_eq!(machine.choose(2, &list("9,2,11")), [9, 11], "together among those that were named");
        assert_eq!(machine.choose(3, &list("2,3,30")), [0; 0], "30 is not allowed");
        assert_eq!(list("2,3,30").missing_in(&machine.allowed).to_string(), "30");
        assert_eq!((machine.node_of(9), machine.node_of(99)), (Some(1), None));
    }

    #[test]
    fn a_machine_that_tells_nothing_is_one_node() {
        let machine = Topology { allowed: list("0-3"), ..Topology::default() };
        assert_eq!(machine.choose(3, &CpuList::default()), [0, 1, 2]);
        let nowhere = Topology::read(Path::new("/nonexistent"), list("0-3"));
        assert_eq!(nowhere, machine);
    }

    #[test]
    fn what_linux_says_of_this_machine_is_understood() {
        let here = Topology::here();
        assert!(!here.allowed.is_empty());
        let chosen = here.choose(here.allowed.len(), &CpuList::default());
        assert_eq!(chosen.iter().copied().collect::<CpuList>(), here.allowed, "each processor once");
    }

    #[test]
    fn a_tree_as_in_sys_is_read() {
        let root = std::env::temp_dir().join(format!("novacron-topology-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("node/node0/cpulist", "0-1\n");
        write("node/node1/cpulist", "2-3\n");
        write("node/possible", "0-1\n");
        write("cpu/cpu0/topology/thread_siblings_list", "0-1\n");
        write("cpu/cpu1/topology/thread_siblings_list", "0-1\n");
        let machine = Topology::read(&root, list("0-3"));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(machine.nodes, [(0, list("0-1")), (1, list("2-3"))].into());
        assert_eq!(machine.cores.len(), 2);
        assert_eq!(machine.choose(2, &CpuList::default()), [0, 1]);
        assert_eq!(machine.choose(3, &CpuList::default()), [0, 1, 2]);
    }
}
