//! In which order components start: pure, from what they declare.

use std::collections::BTreeMap;

/// Which part of the bootstrap a component belongs to. What comes before components and after them are steps, not
/// components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    /// What everything else stands on.
    Core,
    /// What serves.
    Services,
}

impl Phase {
    pub(crate) const ALL: [Self; 2] = [Self::Core, Self::Services];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Services => "services",
        }
    }
}

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Its name.
    pub(crate) name: &'static str,
    /// When it starts.
    pub(crate) phase: Phase,
    /// Names of those that must have started.
    pub(crate) needs: &'static [&'static str],
    /// Whether the node cannot work without it.
    pub(crate) critical: bool,
}

/// Components that cannot be put in order. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("two components are called '{0}'")]
    Twice(String),
    #[error("component '{component}' needs '{needs}', and there is none of that name")]
    Unknown { component: String, needs: String },
    #[error("component '{component}' needs '{needs}', which starts in a later phase")]
    Later { component: String, needs: String },
    #[error("components need each other in a circle: {}", .0.join(" needs "))]
    Cycle(Vec<String>),
    #[error("component '{component}' is critical and needs '{needs}', which is not")]
    Weaker { component: String, needs: String },
}

/// The order: levels, each of which needs only what stands in earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Of each phase its levels, of each level the components' places in the list they were declared in.
    pub(crate) levels: Vec<(Phase, Vec<Vec<usize>>)>,
}

/// Orders components.
///
/// # Errors
/// What is wrong, by name.
pub(crate) fn plan(declared: &[Declared]) -> Result<Plan, PlanError> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, one) in declared.iter().enumerate() {
        if places.insert(one.name, place).is_some() {
            return Err(PlanError::Twice(one.name.to_owned()));
        }
    }
    for one in declared {
        for needs in one.needs {
            let (component, needed) = (one.name.to_owned(), (*needs).to_owned());
            match places.get(needs).map(|place| &declared[*place]) {
                None => return Err(PlanError::Unknown { component, needs: needed }),
                Some(other) if other.phase > one.phase => {
                    return Err(PlanError::Later { component, needs: needed });
                }
                Some(other) if one.critical && !other.critical => {
                    return Err(PlanError::Weaker { component, needs: needed });
                }
                Some(_) => {}
            }
        }
    }
    let mut done = vec![false; declared.len()];
    let mut levels = Vec::new();
    for phase in Phase::ALL {
        let mut of_phase = Vec::new();
        loop {
            let ready: Vec<usize> = (0..declared.len())
                .filter(|place| !done[*place] && declared[*place].phase == phase)
                .filter(|place| declared[*place].needs.iter().all(|needs| done[places[needs]]))
                .collect();
            if ready.is_empty() {
                break;
            }
            ready.iter().for_each(|place| done[*place] = true);
            of_phase.push(ready);
        }
        levels.push((phase, of_phase));
    }
    match done.iter().position(|done| !done) {
        None => Ok(Plan { levels }),
        Some(left) => Err(PlanError::Cycle(circle(declared, &places, &done, left))),
    }
}

/// A circle among those that are left: each of them needs one that is left, so walking on comes back.
fn circle(declared: &[Declared], places: &BTreeMap<&str, usize>, done: &[bool], from: usize) -> Vec<String> {
    let mut walked: Vec<usize> = Vec::new();
    let mut at = from;
    while !walked.contains(&at) {
        walked.push(at);
        let next = declared[at].needs.iter().map(|needs| places[needs]).find(|place| !done[*place]);
        let Some(next) = next else { break };
        at = next;
    }
    let start = walked.iter().position(|place| *place == at).unwrap_or(0);
    let names = walked[start..].iter().chain([&at]);
    names.map(|place| declared[*place].name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(name: &'static str, phase: Phase, needs: &'static [&'static str]) -> Declared {
        Declared { name, phase, needs, critical: false }
    }

    #[test]
    fn levels_hold_what_can_start_together() {
        let declared = [
            one("dataplane", Phase::Core, &["network", "security"]),
            one("network", Phase::Core, &["security"]),
            one("security", Phase::Core, &[]),
            one("cache", Phase::Core, &["security"]),
            one("api", Phase::Services, &["network"]),
        ];
        let plan = plan(&declared).unwrap();
        assert_eq!(
            plan.levels,
            [(Phase::Core, vec![vec![2], vec![1, 3], vec![0]]), (Phase::Services, vec![vec![4]])]
        );
    }

    #[test]
    fn what_cannot_be_ordered_is_named() {
        let core = Phase::Core;
        let told = |declared: &[Declared]| plan(declared).unwrap_err().to_string();
        assert_eq!(told(&[one("a", core, &[]), one("a", core, &[])]), "two components are called 'a'");
        assert!(told(&[one("a", core, &["b"])]).contains("'a' needs 'b', and there is none"));
        let circle = [one("a", core, &["b"]), one("b", core, &["c"]), one("c", core, &["b"])];
        assert_eq!(told(&circle), "components need each other in a circle: b needs c needs b");
        assert!(told(&[one("a", core, &["a"])]).ends_with("a needs a"));
        let later = [one("a", core, &["b"]), one("b", Phase::Services, &[])];
        assert!(told(&later).contains("later phase"));
        let mut weaker = [one("a", core, &["b"]), one("b", core, &[])];
        weaker[0].critical = true;
        assert!(told(&weaker).contains("'a' is critical and needs 'b', which is not"));
    }

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    proptest! {
        /// Any graph is ordered so that needs come first and nothing is left out, or refused for a circle that is one.
        #[test]
        fn any_graph(edges in proptest::collection::vec((0usize..8, 0usize..8), 0..20), services in 0u8..=255) {
            let declared: Vec<Declared> = (0..8).map(|place| {
                let phase = if services & (1 << place) == 0 { Phase::Core } else { Phase::Services };
                let needs: Vec<&'static str> = edges.iter().filter(|edge| edge.0 == place).map(|edge| NAMES[edge.1]).collect();
                Declared { name: NAMES[place], phase, needs: needs.leak(), critical: false }
            }).collect();
            match plan(&declared) {
                Ok(plan) => {
                    let order: Vec<usize> = plan.levels.iter().flat_map(|(_, levels)| levels.iter().flatten().copied()).collect();
                    let mut sorted = order.clone();
                    sorted.sort_unstable();
                    prop_assert_eq!(sorted, (0..8).collect::<Vec<_>>());
                    let mut before: Vec<&str> = Vec::new();
                    for (phase, levels) in &plan.levels {
                        for level in levels {
                            for place in level {
                                prop_assert_eq!(declared[*place].phase, *phase);
                                prop_assert!(declared[*place].needs.iter().all(|needs| before.contains(needs)));
                            }
                            before.extend(level.iter().map(|place| NAMES[*place]));
                        }
                    }
                }
                Err(PlanError::Cycle(names)) => {
                    prop_assert!(names.len() >= 2 && names.first() == names.last());
                    for pair in names.windows(2) {
                        let from = declared.iter().find(|one| one.name == pair[0]).unwrap();
                        prop_assert!(from.needs.contains(&pair[1].as_str()));
                    }
                }
                Err(PlanError::Later { component, needs }) => {
                    let of = |name: &str| declared.iter().find(|one| one.name == name).unwrap().phase;
                    prop_assert!(of(&needs) > of(&component));
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
