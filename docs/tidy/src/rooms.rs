//! Who may know whom (`docs/ARCHITECTURE.md`, "The rooms"), over the dependency graph that cargo resolved.

use crate::Finding;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A crate of this workspace.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Its package name.
    pub package: &'static str,
    /// Packages of this workspace that it may depend on.
    pub may_know: &'static [&'static str],
    /// Packages, ours or not, that must not be anywhere in what it is built from.
    pub never: &'static [&'static str],
}

const RUNTIMES: &[&str] = &["tokio", "glommio", "async-std", "smol", "mio"];

/// The rooms. A crate that is not here fails the test: a new room needs a decision on whom it knows.
pub const ROOMS: &[Room] = &[
    Room { package: "novacron-kernels", may_know: &[], never: RUNTIMES },
    Room { package: "novacron-protocol", may_know: &["novacron-kernels"], never: RUNTIMES },
    Room { package: "novacron-transport", may_know: &[], never: &["tokio"] },
    Room { package: "novacron-ebpf", may_know: &[], never: &["tokio"] },
    Room {
        package: "novacron-gateway",
        may_know: &["novacron-protocol", "novacron-transport", "novacron-ebpf", "novacron-control-api"],
        never: &["tokio"],
    },
    Room {
        package: "novacron-sim",
        may_know: &["novacron-protocol", "novacron-transport"],
        never: &["tokio"],
    },
    Room { package: "novacron-control-api", may_know: &[], never: RUNTIMES },
    Room { package: "novacron-cluster", may_know: &[], never: RUNTIMES },
    Room { package: "novacron-configuration", may_know: &["novacron-control-api"], never: RUNTIMES },
    Room {
        package: "novacron-control",
        may_know: &[
            "novacron-cluster",
            "novacron-configuration",
            "novacron-control-api",
            "novacron-keys",
            "novacron-store",
        ],
        never: &["glommio"],
    },
    Room { package: "novacron-store", may_know: &["novacron-control-api"], never: &["glommio"] },
    Room { package: "novacron-keys", may_know: &["novacron-control-api"], never: RUNTIMES },
    Room {
        package: "novactl",
        may_know: &["novacron-configuration", "novacron-control-api", "novacron-keys"],
        never: &["tokio", "glommio"],
    },
    // Outside: they start and measure the others as processes.
    Room { package: "novacron-guest", may_know: &[], never: RUNTIMES },
    Room {
        package: "novacron-testbed",
        may_know: &["novacron-protocol", "novacron-control-api"],
        never: &["tokio", "glommio"],
    },
    Room { package: "novacron-lab", may_know: &[], never: RUNTIMES },
    Room {
        package: "novacron-bench",
        may_know: &["novacron-lab", "novacron-testbed", "novacron-control-api"],
        never: &["tokio", "glommio"],
    },
    Room {
        package: "novacron-figures",
        may_know: &["novacron-lab", "novacron-testbed", "novacron-protocol"],
        never: &["tokio", "glommio"],
    },
    Room { package: "novacron-tidy", may_know: &[], never: RUNTIMES },
];

/// Nothing depends on these, not even a test.
const NOBODY_KNOWS: &[&str] = &["novacron-gateway", "novacron-control", "novactl", "novacron-tidy"];

/// An edge of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Package depended on, by its identity in the graph.
    pub to: String,
    /// Only tests need it.
    pub dev: bool,
}

/// What cargo resolved.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Identity to name.
    pub names: BTreeMap<String, String>,
    /// Identities of this workspace's packages.
    pub members: Vec<String>,
    /// Identity to edges.
    pub edges: BTreeMap<String, Vec<Edge>>,
}

impl Graph {
    /// Reads `cargo metadata --format-version 1`; `None` where it is not that.
    pub fn read(metadata: &Value) -> Option<Graph> {
        let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let mut graph = Graph::default();
        for package in metadata.get("packages")?.as_array()? {
            graph.names.insert(text(package, "id")?, text(package, "name")?);
        }
        for member in metadata.get("workspace_members")?.as_array()? {
            graph.members.push(member.as_str()?.to_owned());
        }
        for node in metadata.get("resolve")?.get("nodes")?.as_array()? {
            let mut edges = Vec::new();
            for dependency in node.get("deps")?.as_array()? {
                let kinds = dependency.get("dep_kinds")?.as_array()?;
                let dev = kinds.iter().all(|kind| kind.get("kind").and_then(Value::as_str) == Some("dev"));
                edges.push(Edge { to: text(dependency, "pkg")?, dev });
            }
            graph.edges.insert(text(node, "id")?, edges);
        }
        Some(graph)
    }

    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }

    /// Everything that `from` is built from, each with the package that brought it in. What only tests need is
    /// left out.
    fn built_from(&self, from: &str) -> BTreeMap<String, String> {
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut next = vec![from.to_owned()];
        while let Some(id) = next.pop() {
            for edge in self.edges.get(&id).into_iter().flatten().filter(|edge| !edge.dev) {
                if !seen.contains_key(&edge.to) {
                    seen.insert(edge.to.clone(), self.name(&id).to_owned());
                    next.push(edge.to.clone());
                }
            }
        }
        seen
    }
}

/// Checks every member of the workspace against its room.
pub fn check(graph: &Graph, rooms: &[Room]) -> Vec<Finding> {
    let ours: BTreeSet<&str> = graph.members.iter().map(|id| graph.name(id)).collect();
    let mut findings = Vec::new();
    for id in &graph.members {
        let name = graph.name(id);
        let Some(room) = rooms.iter().find(|room| room.package == name) else {
            let text = "is in no room: decide whom it may know and add it to docs/tidy/src/rooms.rs";
            findings.push(Finding::on(name, text));
            continue;
        };
        for edge in graph.edges.get(id).into_iter().flatten() {
            let to = graph.name(&edge.to);
            if NOBODY_KNOWS.contains(&to) {
                findings.push(Finding::on(name, format!("depends on {to}, which nothing may depend on")));
            } else if ours.contains(to) && !edge.dev && !room.may_know.contains(&to) {
                findings
                    .push(Finding::on(name, format!("may not know {to} (docs/ARCHITECTURE.md, The rooms)")));
            }
        }
        for (built_from, by) in graph.built_from(id) {
            let built_from = graph.name(&built_from);
            if room.never.contains(&built_from) {
                findings.push(Finding::on(name, format!("is built from {built_from}, brought in by {by}")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of `from -> to` edges; names are identities; members start with `nova`.
    fn graph(edges: &[(&str, &str, bool)]) -> Graph {
        let mut graph = Graph::default();
        for (from, to, dev) in edges {
            for id in [from, to] {
                if graph.names.insert((*id).to_owned(), (*id).to_owned()).is_none() && id.starts_with("nova")
                {
                    graph.members.push((*id).to_owned());
                }
            }
            graph.edges.entry((*from).to_owned()).or_default().push(Edge { to: (*to).to_owned(), dev: *dev });
        }
        graph
    }

    fn found(edges: &[(&str, &str, bool)]) -> Vec<String> {
        check(&graph(edges), ROOMS).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn the_arrows_of_the_design_hold() {
        assert_eq!(
            found(&[
                ("novacron-gateway", "novacron-protocol", false),
                ("novacron-gateway", "novacron-transport", false),
                ("novacron-transport", "glommio", false),
                ("novactl", "novacron-control-api", false),
            ]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_forbidden_arrow_is_found() {
        let found = found(&[("novacron-protocol", "novacron-transport", false)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("may not know novacron-transport"), "{found:?}");
    }

    #[test]
    fn tokio_is_found_behind_two_others() {
        let edges = [
            ("novacron-gateway", "a", false),
            ("a", "b", false),
            ("b", "tokio", false),
            ("a", "tokio", true),
        ];
        assert_eq!(found(&edges), ["novacron-gateway: is built from tokio, brought in by b"]);
    }

    #[test]
    fn glommio_stays_out_of_the_callers_and_the_core() {
        for package in ["novactl", "novacron-protocol", "novacron-control", "novacron-control-api"] {
            assert_eq!(found(&[(package, "glommio", false)]).len(), 1, "{package}");
        }
    }

    #[test]
    fn nobody_depends_on_a_program_not_even_a_test() {
        let found = found(&[("novacron-testbed", "novacron-gateway", true)]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_crate_without_a_room_is_found() {
        assert!(found(&[("novacron-new", "libc", false)])[0].contains("is in no room"));
    }

    #[test]
    fn what_only_tests_need_may_be_anything_else() {
        let edges = [("novacron-protocol", "tokio", true), ("novacron-protocol", "novacron-sim", true)];
        assert_eq!(found(&edges), Vec::<String>::new());
    }
}
