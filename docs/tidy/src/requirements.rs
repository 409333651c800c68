//! The numbered requirements of the specification and the places that keep and show them.
//!
//! A requirement is a paragraph that starts with its number in bold: `**DWCP-7** A receiver MUST ...`. Tables
//! after it name the tests that show it: `| DWCP-7 | path/to/file.rs::test |`.

use crate::Finding;
use std::collections::{BTreeMap, BTreeSet};

const PREFIX: &str = "DWCP-";

/// Numbers that a line names; `DWCP-4 to DWCP-6` names all three.
pub fn numbers(line: &str) -> Vec<u32> {
    let mut found: Vec<(usize, usize, u32)> = Vec::new();
    for (at, _) in line.match_indices(PREFIX) {
        let digits: String = line[at + PREFIX.len()..].chars().take_while(char::is_ascii_digit).collect();
        if let Ok(number) = digits.parse() {
            found.push((at, at + PREFIX.len() + digits.len(), number));
        }
    }
    let mut numbers = Vec::new();
    for (index, (at, _, number)) in found.iter().enumerate() {
        let previous = index.checked_sub(1).map(|before| found[before]);
        match previous {
            Some((_, end, first)) if &line[end..*at] == " to " => numbers.extend(first + 1..=*number),
            _ => numbers.push(*number),
        }
    }
    numbers
}

/// What a specification says: its requirements, and the tests that it names for each.
#[derive(Clone, Debug, Default)]
pub struct Specification {
    /// Number to file and line.
    pub requirements: BTreeMap<u32, (String, usize)>,
    /// Number to the tests named, as `path::function`, with the line.
    pub shown: BTreeMap<u32, Vec<(String, usize)>>,
    /// What is wrong with the documents themselves.
    pub findings: Vec<Finding>,
}

impl Specification {
    /// Adds one document.
    pub fn add(&mut self, path: &str, text: &str) {
        let mut fenced = false;
        // Whether the paragraph at hand has a number.
        let mut numbered = false;
        for (index, line) in text.lines().enumerate() {
            let (line_number, line) = (index + 1, line.trim());
            if line.starts_with("```") {
                fenced = !fenced;
            }
            if fenced || line.is_empty() || line.starts_with('#') {
                numbered = false;
                continue;
            }
            if let Some((number, _)) = line.strip_prefix("**DWCP-").and_then(|rest| rest.split_once("**")) {
                numbered = true;
                let Ok(number) = number.parse::<u32>() else {
                    self.findings.push(Finding::at(path, line_number, "a requirement without a number"));
                    continue;
                };
                let place = (path.to_owned(), line_number);
                if let Some((file, first)) = self.requirements.insert(number, place) {
                    let text = format!("DWCP-{number} already stands at {file}:{first}");
                    self.findings.push(Finding::at(path, line_number, text));
                }
            } else if line.starts_with('|') {
                self.add_row(line, line_number);
                numbered = true;
            }
            if !numbered && line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "MUST") {
                self.findings.push(Finding::at(path, line_number, "a MUST without a number"));
            }
        }
    }

    fn add_row(&mut self, line: &str, line_number: usize) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [first, rest @ ..] = cells.as_slice() else { return };
        let Some(number) = first.strip_prefix(PREFIX).and_then(|number| number.parse::<u32>().ok()) else {
            return;
        };
        let tests = rest.iter().flat_map(|cell| cell.split('`')).filter(|text| text.contains(".rs::"));
        let entry = self.shown.entry(number).or_default();
        entry.extend(tests.map(|test| (test.to_owned(), line_number)));
    }
}

/// Checks that citations, requirements and tests fit together. `sources` are Rust files.
pub fn check<'a>(
    specification: &Specification,
    sources: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Vec<Finding> {
    let mut findings = specification.findings.clone();
    let mut cited = BTreeSet::new();
    for (path, text) in sources.clone() {
        for (index, line) in text.lines().enumerate() {
            for number in numbers(line) {
                cited.insert(number);
                if !specification.requirements.contains_key(&number) {
                    let text = format!("cites DWCP-{number}, which the specification does not have");
                    findings.push(Finding::at(path, index + 1, text));
                }
            }
        }
    }
    for (number, (file, line)) in &specification.requirements {
        if !cited.contains(number) {
            findings.push(Finding::at(file, *line, format!("DWCP-{number} is cited by no code and no test")));
        }
        if specification.shown.get(number).is_none_or(Vec::is_empty) {
            findings.push(Finding::at(file, *line, format!("DWCP-{number} names no test that shows it")));
        }
    }
    for (number, tests) in &specification.shown {
        for (test, _) in tests {
            let Some((file, function)) = test.split_once("::") else { continue };
            let source = sources.clone().find(|(path, _)| *path == file);
            if !source.is_some_and(|(_, text)| text.contains(&format!("fn {function}("))) {
                let text = format!("DWCP-{number} is said to be shown by `{test}`, which does not exist");
                findings.push(Finding::on(file, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "**DWCP-1** A frame MUST have a header.\n\n| DWCP-1 | `a.rs::headed` |\n";
    const SOURCE: &str = "/// DWCP-1\n#[test]\nfn headed() {}\n";

    fn found(spec: &str, source: &str) -> Vec<String> {
        let mut specification = Specification::default();
        specification.add("docs/spec/dwcp.md", spec);
        check(&specification, [("a.rs", source)].into_iter()).iter().map(|f| f.text.clone()).collect()
    }

    #[test]
    fn a_kept_requirement_passes() {
        assert_eq!(found(SPEC, SOURCE), Vec::<String>::new());
    }

    #[test]
    fn a_citation_of_nothing_is_found() {
        assert_eq!(
            found(SPEC, &format!("{SOURCE}// DWCP-9")),
            ["cites DWCP-9, which the specification does not have"]
        );
    }

    #[test]
    fn a_requirement_that_nobody_keeps_or_shows_is_found() {
        assert_eq!(found(SPEC, "fn headed() {}"), ["DWCP-1 is cited by no code and no test"]);
        assert_eq!(found("**DWCP-1** MUST.\n", SOURCE), ["DWCP-1 names no test that shows it"]);
        assert_eq!(
            found(SPEC, "// DWCP-1"),
            ["DWCP-1 is said to be shown by `a.rs::headed`, which does not exist"]
        );
    }

    #[test]
    fn a_must_without_a_number_and_a_number_twice_are_found() {
        assert_eq!(found(&format!("{SPEC}\nIt MUST also shine.\n"), SOURCE), ["a MUST without a number"]);
        assert_eq!(found(&format!("{SPEC}\n**DWCP-1** MUST.\n"), SOURCE).len(), 1);
    }

    #[test]
    fn ranges_name_what_lies_between() {
        assert_eq!(numbers("(DWCP-4 to DWCP-6), DWCP-30"), [4, 5, 6, 30]);
    }
}
