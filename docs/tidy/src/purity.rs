//! The pure room owns no clock, socket, thread or file, and `unsafe` stays where it is allowed.

use crate::Finding;
use crate::rust::{has_word, parts};

/// Folders whose code asks the outside for nothing: time and bytes are given to it.
pub const PURE: &[&str] = &["dataplane/protocol/", "control/cluster/"];

/// Folders that may hold `unsafe`.
pub const MAY_BE_UNSAFE: &[&str] = &["dataplane/transport/", "dataplane/kernels/", "ebpf/"];

/// What pure code may not name, and what it uses instead.
const IMPURE: &[(&str, &str)] = &[
    ("std::time::Instant", "take `crate::time::Instant` as an argument"),
    ("std::time::SystemTime", "take the time as an argument"),
    ("SystemTime", "take the time as an argument"),
    ("Instant::now", "take the time as an argument"),
    ("std::net", "sockets belong to the transport"),
    ("std::os", "the operating system belongs to the transport"),
    ("std::thread", "threads belong to the transport's shards"),
    ("std::fs", "files belong to the gateway"),
    ("std::process", "processes belong to the testbed"),
    ("std::env", "take the setting as an argument"),
    ("std::sync::Mutex", "pure state has one owner"),
];

/// Checks one source file.
pub fn check(path: &str, source: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let parts = parts(source);
    let pure = PURE.iter().any(|folder| path.starts_with(folder) && path[folder.len()..].starts_with("src/"));
    let may_be_unsafe = MAY_BE_UNSAFE.iter().any(|folder| path.starts_with(folder));
    for (index, line) in parts.code.iter().enumerate() {
        if !may_be_unsafe && has_word(line, "unsafe") {
            let text = format!("`unsafe` outside {}", MAY_BE_UNSAFE.join(", "));
            findings.push(Finding::at(path, index + 1, text));
        }
        if pure {
            let first = IMPURE.iter().find(|(name, _)| has_word(line, name) || imports(line, name));
            if let Some((name, instead)) = first {
                findings.push(Finding::at(path, index + 1, format!("pure code names `{name}`: {instead}")));
            }
        }
    }
    let crate_root = PURE.iter().any(|folder| path == format!("{folder}src/lib.rs"));
    if crate_root && !parts.code.iter().any(|line| line.trim() == "#![forbid(unsafe_code)]") {
        findings.push(Finding::on(path, "a pure crate says `#![forbid(unsafe_code)]` at its root"));
    }
    findings
}

/// Whether a `use std::time::{Duration, Instant}` brings `std::time::Instant` in.
fn imports(line: &str, name: &str) -> bool {
    let Some((module, item)) = name.rsplit_once("::") else { return false };
    line.split_once(&format!("{module}::{{")).is_some_and(|(_, list)| has_word(list, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, source: &str) -> usize {
        check(path, source).len()
    }

    #[test]
    fn pure_code_that_asks_for_the_time_is_found() {
        let path = "dataplane/protocol/src/stream/send.rs";
        assert_eq!(found(path, "use std::time::Instant;"), 1);
        assert_eq!(found(path, "use std::time::{Duration, Instant};"), 1);
        assert_eq!(found(path, "use std::{fs, io};"), 1);
        assert_eq!(found(path, "let now = Instant::now();"), 1);
        assert_eq!(found(path, "std::net::TcpStream::connect(a);\nstd::thread::spawn(f);"), 2);
        assert_eq!(found(path, "use std::time::Duration;\nuse crate::time::Instant;"), 0);
        assert_eq!(found(path, "// std::net is for others\nlet a = \"std::net\";"), 0);
    }

    #[test]
    fn other_rooms_may_ask() {
        assert_eq!(found("dataplane/gateway/src/main.rs", "use std::net::TcpStream;"), 0);
        assert_eq!(found("dataplane/protocol/tests/clock.rs", "use std::time::Instant;"), 0);
    }

    #[test]
    fn unsafe_in_the_wrong_room_is_found() {
        let source = "fn f() { unsafe { g() } }";
        assert_eq!(found("dataplane/gateway/src/main.rs", source), 1);
        assert_eq!(found("dataplane/transport/src/pool.rs", source), 0);
    }

    #[test]
    fn a_pure_crate_without_its_forbid_is_found() {
        assert_eq!(found("dataplane/protocol/src/lib.rs", "//! Core.\npub mod wire;"), 1);
        assert_eq!(
            found("dataplane/protocol/src/lib.rs", "//! Core.\n#![forbid(unsafe_code)]\npub mod wire;"),
            0
        );
    }
}
