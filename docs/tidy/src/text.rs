//! What no file may contain: paths of one machine, tests that never run, work left for later.

use crate::Finding;
use crate::rust::{has_word, is_word, parts};

/// Files that must show the forbidden to forbid it.
const EXEMPT: &[&str] = &["docs/tidy/"];

/// Homes and work folders of one machine or another.
const MACHINE_PATHS: &[&str] = &["/work/", "/root/", "/home/"];

const LATER: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// The only place that packages are locked to.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks one file.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    if EXEMPT.iter().any(|exempt| path.starts_with(exempt)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut find = |text: String| findings.push(Finding::at(path, index + 1, text));
        if let Some(machine) = MACHINE_PATHS.iter().find(|machine| names_path(line, machine)) {
            find(format!("`{machine}` is a path of one machine: take it from an argument or a variable"));
        }
        if let Some(later) = LATER.iter().find(|later| has_word(line, later)) {
            find(format!("`{later}`: do it, or say in a sentence what is not built"));
        }
        if path.ends_with("Cargo.lock")
            && let Some(source) = line.trim().strip_prefix("source = ")
            && source.trim_matches('"') != REGISTRY
        {
            find(format!("a package from {source}: only crates.io is expected of a fresh machine"));
        }
    }
    if path.ends_with(".rs") {
        for (index, line) in parts(text).code.iter().enumerate() {
            let dense: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            for (forbidden, text) in [
                ("#[ignore", "a test that never runs shows nothing: make it run or delete it"),
                ("todo!(", "an unfinished path: finish it or do not offer it"),
                ("unimplemented!(", "an unfinished path: finish it or do not offer it"),
            ] {
                if dense.contains(forbidden) {
                    findings.push(Finding::at(path, index + 1, text));
                }
            }
        }
    }
    findings
}

/// Whether the line names an absolute path that starts with `machine`.
fn names_path(line: &str, machine: &str) -> bool {
    line.match_indices(machine).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| is_word(c) || ".-}~$)]*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        check("dataplane/gateway/src/main.rs", text).len()
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_eq!(found("let a = \"/home/me/disk.img\";"), 1);
        assert_eq!(found("# cd /work/main\n// in /root/.cargo"), 2);
        assert_eq!(found("// target/demo/work/serial.log, https://example.org/a/home/b"), 0);
    }

    #[test]
    fn tests_that_never_run_and_work_left_over_are_found() {
        assert_eq!(found("#[test]\n#[ignore = \"slow\"]\nfn a() {}"), 1);
        assert_eq!(found("fn a() { todo!() }\nfn b() { unimplemented!(\"later\") }"), 2);
        assert_eq!(found("// TODO: more\n// FIXME"), 2);
        assert_eq!(found("// `#[ignore]` is not used here"), 0);
    }

    #[test]
    fn packages_from_elsewhere_are_found() {
        let good = format!("source = \"{REGISTRY}\"");
        assert_eq!(check("Cargo.lock", &good), []);
        assert_eq!(check("Cargo.lock", "source = \"git+https://example.org/x\"").len(), 1);
    }
}
