//! Values from `NOVACRON_*` variables.

use std::collections::BTreeMap;

use novacron_control_api::configuration::{Entry, KEYS, Key, Mistake, Origin, Raw, nearest, variable_of};

/// What the environment gives.
#[derive(Debug, Default)]
pub struct Variables {
    /// Values of keys.
    pub entries: Vec<Entry>,
    /// Variables that look like a key's and are none. They are no mistakes: other programs have variables too.
    pub warnings: Vec<Mistake>,
}

/// Letters that differ in a slip of the finger; what differs by more is another program's variable.
const SLIPS_MAX: usize = 2;

/// Letters by which two names of nearly the same length differ, at their fewest.
fn slips(a: &str, b: &str) -> usize {
    let same = |pairs: &mut dyn Iterator<Item = (u8, u8)>| pairs.take_while(|(a, b)| a == b).count();
    let front = same(&mut a.bytes().zip(b.bytes()));
    let shorter = a.len().min(b.len());
    let back = same(&mut a.bytes().rev().zip(b.bytes().rev())).min(shorter - front);
    a.len().max(b.len()) - front - back
}

/// Collects the values of keys from an environment.
pub fn variables(environment: impl IntoIterator<Item = (String, String)>) -> Variables {
    let keys: BTreeMap<String, &Key> = KEYS.iter().map(|key| (variable_of(key), key)).collect();
    let mut found = Variables::default();
    let ours = environment.into_iter().filter(|(name, _)| name.starts_with("NOVACRON_"));
    // In the order of names, so that messages do not change places from run to run.
    for (name, value) in ours.collect::<BTreeMap<_, _>>() {
        let origin = Origin::Variable(name.clone());
        if let Some(key) = keys.get(&name) {
            found.entries.push(Entry { path: key.path.to_owned(), raw: Raw::Given(value), origin });
        } else if let Some(near) =
            nearest(&name, keys.keys().map(String::as_str)).filter(|near| slips(&name, near) <= SLIPS_MAX)
        {
            let what = format!("no key has this variable; did you mean {near}?");
            found.warnings.push(Mistake { origin, key: String::new(), what });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[(&str, &str)]) -> Variables {
        variables(names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_owners_names_and_the_rule() {
        let found = of(&[
            ("NOVACRON_NODE_ID", "n"),
            ("NOVACRON_DATA_DIR", "/d"),
            ("NOVACRON_LOG_LEVEL", "warn"),
            ("NOVACRON_DWCP_MODE", "internet"),
            ("NOVACRON_DWCP_TRANSPORT_MIN_STREAMS", "8"),
            ("NOVACRON_BIN_DIR", "/b"),
            ("PATH", "/usr/bin"),
        ]);
        let paths: Vec<&str> = found.entries.iter().map(|entry| entry.path.as_str()).collect();
        let expected = [
            "system.data_dir",
            "dwcp.forced_mode",
            "dwcp.transport.min_streams",
            "system.log_level",
            "system.node_id",
        ];
        assert_eq!(paths, expected);
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }

    #[test]
    fn a_slip_is_told() {
        let found = of(&[("NOVACRON_DATADIR", "/d")]);
        assert!(found.entries.is_empty());
        assert!(found.warnings[0].to_string().contains("NOVACRON_DATA_DIR"), "{:?}", found.warnings);
    }

    #[test]
    fn every_variable_has_one_key() {
        let names: std::collections::BTreeSet<String> = KEYS.iter().map(variable_of).collect();
        assert_eq!(names.len(), KEYS.len());
    }
}
