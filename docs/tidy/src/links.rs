//! Links in documents lead somewhere.

use crate::Finding;
use std::collections::BTreeMap;

/// What a link may lead to: files with their headings' anchors, and folders.
#[derive(Clone, Debug, Default)]
pub struct Places {
    files: BTreeMap<String, Vec<String>>,
}

impl Places {
    /// All of a repository's files.
    pub fn new<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let anchors = |path: &str, text: &str| {
            if path.ends_with(".md") {
                prose(text).iter().filter_map(|(_, line)| anchor(line)).collect()
            } else {
                Vec::new()
            }
        };
        Places { files: files.map(|(path, text)| (path.to_owned(), anchors(path, text))).collect() }
    }

    fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }
}

/// Lines outside fenced blocks, numbered from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((index + 1, line));
        }
    }
    lines
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#');
    if heading.len() == line.len() || !heading.starts_with(' ') {
        return None;
    }
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

/// Checks the links of one document.
pub fn check(path: &str, text: &str, places: &Places) -> Vec<Finding> {
    let mut findings = Vec::new();
    if path.ends_with(".md") {
        for (line, content) in prose(text) {
            for target in targets(content) {
                if let Some(why) = broken(path, &target, places) {
                    findings.push(Finding::at(path, line, format!("link to `{target}`: {why}")));
                }
            }
        }
    } else {
        // Code and scripts name documents from the repository's root.
        for (index, line) in text.lines().enumerate() {
            for document in documents(line) {
                if !places.has(&document) {
                    findings.push(Finding::at(
                        path,
                        index + 1,
                        format!("names `{document}`, which does not exist"),
                    ));
                }
            }
        }
    }
    findings
}

fn broken(from: &str, target: &str, places: &Places) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let resolved = if file.is_empty() { from.to_owned() } else { resolve(from, file)? };
    if !places.has(&resolved) {
        return Some("no such file");
    }
    let anchors = places.files.get(&resolved);
    match (anchor, anchors) {
        (Some(anchor), Some(anchors)) if !anchors.iter().any(|known| known == anchor) => {
            Some("no such heading")
        }
        _ => None,
    }
}

/// A path relative to the folder of `from`, from the root. One that leaves the repository resolves to nothing
/// that exists.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Targets of `[text](target)` in a line; what stands in backquotes is no link.
fn targets(line: &str) -> Vec<String> {
    let spoken: String = line.split('`').enumerate().filter(|(i, _)| i % 2 == 0).map(|(_, s)| s).collect();
    let mut targets = Vec::new();
    let mut rest = spoken.as_str();
    while let Some((_, after)) = rest.split_once("](") {
        let Some((target, tail)) = after.split_once(')') else { break };
        targets.push(target.split_whitespace().next().unwrap_or("").to_owned());
        rest = tail;
    }
    targets
}

/// Documents that a line of code names.
fn documents(line: &str) -> Vec<String> {
    let named = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    line.match_indices("docs/")
        .filter(|(at, _)| !line[..*at].chars().next_back().is_some_and(|c| named(c) || c == ':'))
        .filter_map(|(at, _)| {
            let path: String = line[at..].chars().take_while(|c| named(*c)).collect();
            let path = path.trim_end_matches('.').to_owned();
            path.ends_with(".md").then_some(path)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let files =
            [("README.md", "# Nova\n## Two commands\n"), ("docs/spec/dwcp.md", "# The wire\n"), (path, text)];
        check(path, text, &Places::new(files.into_iter())).iter().map(|f| f.text.clone()).collect()
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "[a](../README.md) [b](../README.md#two-commands) [c](spec/) [d](#here) [e](https://x.org/y)\n# Here\n";
        assert_eq!(found("docs/A.md", text), Vec::<String>::new());
    }

    #[test]
    fn broken_links_are_found() {
        assert_eq!(found("docs/A.md", "see [a](README.md)").len(), 1);
        assert_eq!(found("docs/A.md", "see [a](../README.md#three) and [b](#none)").len(), 2);
        assert_eq!(found("docs/A.md", "see [a](../../etc/passwd)").len(), 1);
        assert_eq!(found("docs/A.md", "```\n[a](b.md)\n```\n`[c](d.md)`"), Vec::<String>::new());
    }

    #[test]
    fn code_that_names_a_missing_document_is_found() {
        assert_eq!(
            found("src/a.rs", "// docs/spec/dwcp.md, docs/spec/none.md."),
            ["names `docs/spec/none.md`, which does not exist"]
        );
    }
}
