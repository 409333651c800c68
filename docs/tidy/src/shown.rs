//! Tests that a document names as its proof exist: `path/to/file.rs::test` in backticks.

use crate::Finding;

/// Checks one document. `sources` are Rust files.
pub fn check<'a>(
    path: &str,
    text: &str,
    sources: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for named in line.split('`').filter(|part| part.contains(".rs::")) {
            let Some((file, function)) = named.split_once("::") else { continue };
            let source = sources.clone().find(|(source, _)| *source == file);
            if !source.is_some_and(|(_, text)| text.contains(&format!("fn {function}("))) {
                findings.push(Finding::at(
                    path,
                    index + 1,
                    format!("names the test {named}, which is not there"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_gone_is_found() {
        let sources = [("a/b.rs", "#[test]\nfn it_holds() {}")];
        let found = |text| check("docs/X.md", text, sources.into_iter()).len();
        assert_eq!(found("| a | `a/b.rs::it_holds` |"), 0);
        assert_eq!(found("| a | `a/b.rs::it_held`, `a/c.rs::it_holds` |"), 2);
        assert_eq!(found("no tests, `a/b.rs` alone"), 0);
    }
}
