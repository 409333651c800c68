//! A configuration as text: as a file would say it, or with the place of each value.

use std::fmt::Write;

use novacron_control_api::configuration::{Key, Resolved};
use serde_json::Value;

/// A file that says the same, defaults included. Reading it gives the same configuration.
pub fn as_yaml(resolved: &Resolved) -> String {
    let mut text = String::new();
    let mut open: Vec<&str> = Vec::new();
    for (path, value) in resolved.configuration.values() {
        let mut parts: Vec<&str> = path.split('.').collect();
        let Some(name) = parts.pop() else { continue };
        let same = open.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        for (depth, section) in parts.iter().enumerate().skip(same) {
            let _ = writeln!(text, "{:indent$}{section}:", "", indent = depth * 2);
        }
        let indent = parts.len() * 2;
        open = parts;
        if let Some(key) = Key::find(path) {
            let _ =
                writeln!(text, "{:indent$}# {} Takes effect: {}.", "", key.about(), key.takes_effect.words());
        }
        // JSON's scalars and lists are YAML's.
        let _ = writeln!(text, "{:indent$}{name}: {value}", "");
    }
    text
}

/// A line for each key: its value, where it came from and when a change takes effect.
pub fn with_origin(resolved: &Resolved) -> String {
    let rows: Vec<[String; 4]> = resolved
        .configuration
        .values()
        .into_iter()
        .map(|(path, value)| {
            let effect = Key::find(path).map_or("", |key| key.takes_effect.words());
            [path.to_owned(), shown(&value), resolved.origin(path).to_string(), effect.to_owned()]
        })
        .collect();
    let head = ["KEY", "VALUE", "FROM", "CHANGES TAKE EFFECT"].map(str::to_owned);
    let widths: Vec<usize> = (0..3)
        .map(|column| rows.iter().chain([&head]).map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let _ = writeln!(
            text,
            "{:<a$}  {:<b$}  {:<c$}  {}",
            row[0],
            row[1],
            row[2],
            row[3],
            a = widths[0],
            b = widths[1],
            c = widths[2]
        );
    }
    text
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sources;

    #[test]
    fn what_is_printed_is_read_back() {
        let flags = ["network.peers=tcp:a:1,tcp:b:2", "dwcp.forced_mode=internet", "system.node_id=n"];
        let flags = flags.map(|text| crate::setting(text, "--set").unwrap()).to_vec();
        let resolved = Sources { file: None, flags }.load([]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        std::fs::write(&file, as_yaml(&resolved)).unwrap();
        let again = Sources { file: Some(file), flags: vec![] }.load([]).unwrap();
        assert_eq!(again.configuration, resolved.configuration);
    }

    #[test]
    fn every_key_has_a_line() {
        let resolved = Sources::default().load([]).unwrap();
        let text = with_origin(&resolved);
        let keys = novacron_control_api::configuration::KEYS;
        assert_eq!(text.lines().count(), keys.len() + 1);
        assert!(text.lines().any(|line| line.starts_with("network.bind_port ") && line.contains("9090")));
    }
}
