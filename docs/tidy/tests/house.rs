//! The house rules, applied to this repository.

use novacron_tidy::tree::{File, files, root};
use novacron_tidy::{
    Finding, bounds, links, manifest, names, purity, requirements, rooms, rust, shown, size, text, words,
};
use std::process::Command;

fn repository() -> Vec<File> {
    files(&root()).expect("the repository's files can be read")
}

fn pairs(files: &[File]) -> impl Iterator<Item = (&str, &str)> + Clone {
    files.iter().map(|file| (file.path.as_str(), file.text.as_str()))
}

fn rust_sources(files: &[File]) -> impl Iterator<Item = (&str, &str)> + Clone {
    pairs(files).filter(|(path, _)| path.ends_with(".rs"))
}

fn expect_none(findings: &[Finding]) {
    let list: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(list.is_empty(), "{} findings:\n{}", list.len(), list.join("\n"));
}

/// The dependency graph for this host, as the lock file fixes it.
fn graph() -> rooms::Graph {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
        .arg("-vV")
        .output()
        .expect("rustc runs");
    let version = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    rooms::Graph::read(&metadata).expect("cargo metadata has packages, members and a graph")
}

#[test]
fn rooms_know_only_whom_they_may() {
    let graph = graph();
    assert!(graph.members.len() > 1, "the graph is empty");
    expect_none(&rooms::check(&graph, rooms::ROOMS));
}

#[test]
fn pure_rooms_are_pure_and_unsafe_keeps_its_place() {
    let files = repository();
    let findings: Vec<_> = rust_sources(&files).flat_map(|(path, text)| purity::check(path, text)).collect();
    expect_none(&findings);
}

#[test]
fn files_hold_one_subject() {
    let files = repository();
    let findings: Vec<_> =
        pairs(&files).flat_map(|(path, text)| size::check(path, text, size::LONGER)).collect();
    expect_none(&findings);
}

#[test]
fn links_lead_somewhere() {
    let files = repository();
    let places = links::Places::new(pairs(&files));
    // The rules' own samples name documents that must not exist.
    let ours = pairs(&files).filter(|(path, _)| !path.starts_with("docs/tidy/src/"));
    let findings: Vec<_> = ours.flat_map(|(path, text)| links::check(path, text, &places)).collect();
    expect_none(&findings);
}

#[test]
fn requirements_are_kept_and_shown() {
    let files = repository();
    let mut specification = requirements::Specification::default();
    for (path, text) in pairs(&files).filter(|(path, _)| path.starts_with("docs/spec/")) {
        specification.add(path, text);
    }
    assert!(!specification.requirements.is_empty(), "the specification has no requirements");
    let sources = rust_sources(&files).filter(|(path, _)| !path.starts_with("docs/tidy/"));
    expect_none(&requirements::check(&specification, sources));
}

#[test]
fn what_a_document_shows_by_tests_is_there() {
    let files = repository();
    let documents = pairs(&files).filter(|(path, _)| *path == "docs/THREAT_MODEL.md");
    let findings: Vec<_> =
        documents.clone().flat_map(|(path, text)| shown::check(path, text, rust_sources(&files))).collect();
    assert!(documents.count() == 1, "the threat model is gone");
    expect_none(&findings);
}

#[test]
fn acronyms_keep_their_place() {
    let files = repository();
    let mut findings: Vec<_> = pairs(&files).flat_map(|(path, text)| words::check(path, text)).collect();
    findings.extend(words::check_owners(pairs(&files)));
    expect_none(&findings);
}

#[test]
fn no_machine_paths_and_nothing_left_for_later() {
    let files = repository();
    let findings: Vec<_> = pairs(&files).flat_map(|(path, contents)| text::check(path, contents)).collect();
    expect_none(&findings);
}

#[test]
fn every_bound_says_why() {
    let files = repository();
    let findings: Vec<_> = pairs(&files).flat_map(|(path, text)| bounds::check(path, text)).collect();
    expect_none(&findings);
}

#[test]
fn every_crate_keeps_the_lints_and_the_licence() {
    let files = repository();
    let workspace = files.iter().find(|file| file.path == "Cargo.toml").expect("a workspace");
    let manifests = pairs(&files).filter(|(path, _)| path.ends_with("Cargo.toml"));
    let findings: Vec<_> =
        manifests.flat_map(|(path, text)| manifest::check(path, text, &workspace.text)).collect();
    expect_none(&findings);
}

#[test]
fn names_say_something() {
    let files = repository();
    let findings: Vec<_> = pairs(&files).flat_map(|(path, text)| names::check(path, text)).collect();
    expect_none(&findings);
}

/// The source reader keeps its lines in step with every file here, so that findings name the right line.
#[test]
fn sources_are_read_line_by_line() {
    let files = repository();
    for (path, text) in rust_sources(&files) {
        assert_eq!(rust::parts(text).code.len(), text.split('\n').count(), "{path}");
    }
}
