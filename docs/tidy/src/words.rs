//! The specification's acronyms: each has a plain name, and code uses that.

use crate::Finding;
use crate::rust::has_word;

/// Acronyms that stand in the glossary and in one `//!` line of their module, nowhere else.
pub const ACRONYMS: &[&str] = &["AMST", "HDE", "PBA", "ASS", "ACP", "ITP"];

/// The protocol's own name also stands where the protocol is defined, spoken and refused.
const PROTOCOL: &str = "DWCP";
const PROTOCOL_PLACES: &[&str] = &["docs/", "dataplane/protocol/", "dataplane/fuzz/"];

const GLOSSARY: &str = "docs/GLOSSARY.md";
const EXEMPT: &[&str] = &["docs/tidy/", "Cargo.lock"];

/// Checks one file.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    if path == GLOSSARY || EXEMPT.iter().any(|exempt| path.starts_with(exempt)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for acronym in ACRONYMS {
        let mut lines = text.lines().enumerate().filter(|(_, line)| has_word(line, acronym)).peekable();
        // The first line of a module's own description may name what the specification calls it.
        if path.ends_with(".rs") && lines.peek().is_some_and(|(_, line)| line.trim().starts_with("//!")) {
            lines.next();
        }
        for (index, _) in lines {
            let text = format!("{acronym} belongs in {GLOSSARY} and one `//!` line of its module");
            findings.push(Finding::at(path, index + 1, text));
        }
    }
    if !PROTOCOL_PLACES.iter().any(|place| path.starts_with(place)) {
        for (index, line) in text.lines().enumerate() {
            let cited = line.replace("DWCP-", "");
            if has_word(&cited, PROTOCOL) && !line.trim().starts_with("//!") {
                let text =
                    format!("{PROTOCOL} by name: say `wire` or \"the protocol\", or cite a numbered rule");
                findings.push(Finding::at(path, index + 1, text));
            }
        }
    }
    findings
}

/// Checks that no acronym is explained by more than one module.
pub fn check_owners<'a>(files: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Vec<Finding> {
    let mut findings = Vec::new();
    for acronym in ACRONYMS {
        let owners: Vec<&str> = files
            .clone()
            .filter(|(path, _)| {
                path.ends_with(".rs") && !EXEMPT.iter().any(|exempt| path.starts_with(exempt))
            })
            .filter(|(_, text)| text.lines().any(|line| has_word(line, acronym)))
            .map(|(path, _)| path)
            .collect();
        // The transport's pure half and its sockets are two rooms of one thing.
        let most = if *acronym == "AMST" { 2 } else { 1 };
        if owners.len() > most {
            findings
                .push(Finding::on(owners[0], format!("{acronym} stands in {} too", owners[1..].join(", "))));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acronyms_out_of_place_are_found() {
        assert_eq!(check("a/mod.rs", "//! HDE, hierarchical delta encoding.\nfn f() {}"), []);
        assert_eq!(check("a/mod.rs", "//! HDE once.\n//! HDE twice.").len(), 1);
        assert_eq!(check("a/mod.rs", "// HDE in passing").len(), 1);
        assert_eq!(check("docs/ARCHITECTURE.md", "The HDE is fast.").len(), 1);
        assert_eq!(check(GLOSSARY, "HDE"), []);
        assert_eq!(check("a.rs", "CLASSES"), []);
    }

    #[test]
    fn the_protocols_name_out_of_place_is_found() {
        assert_eq!(check("dataplane/gateway/src/a.rs", "let a = \"DWCP\";").len(), 1);
        assert_eq!(check("dataplane/gateway/src/a.rs", "// DWCP-3 says so"), []);
        assert_eq!(check("docs/spec/dwcp.md", "DWCP"), []);
    }

    #[test]
    fn two_owners_are_found() {
        let files = [("a.rs", "//! ITP"), ("b.rs", "//! ITP")];
        assert_eq!(check_owners(files.iter().copied()).len(), 1);
        assert_eq!(check_owners(files[..1].iter().copied()), []);
    }
}
