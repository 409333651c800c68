//! Names that say nothing: a reader cannot tell what belongs in such a file and what does not.

use crate::Finding;

const EMPTY: &[&str] =
    &["util", "utils", "manager", "handler", "handlers", "helper", "helpers", "common", "misc", "stuff"];

/// Checks the path of one file and, in Rust, the modules that it declares.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let words = |name: &str| -> Vec<String> {
        name.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase).collect()
    };
    if let Some(word) = words(path).iter().find(|word| EMPTY.contains(&word.as_str())) {
        findings.push(Finding::on(path, format!("`{word}` names nothing: name the subject")));
    }
    if path.ends_with(".rs") {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let Some(name) = line.strip_prefix("mod ") else { continue };
            let name = name.trim_end_matches([';', '{', ' ']);
            if let Some(word) = words(name).iter().find(|word| EMPTY.contains(&word.as_str())) {
                findings.push(Finding::at(path, index + 1, format!("module `{word}` names nothing")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_names_are_found() {
        assert_eq!(check("dataplane/gateway/src/util.rs", "").len(), 1);
        assert_eq!(check("dataplane/gateway/src/session_manager.rs", "").len(), 1);
        assert_eq!(check("benches/common/mod.rs", "").len(), 1);
        assert_eq!(check("src/lib.rs", "pub(crate) mod helpers;\nmod tests {").len(), 1);
        assert_eq!(check("dataplane/gateway/src/ingress.rs", "mod utility_of_bytes;"), []);
    }
}
