//! Every bound says what it bounds.

use crate::Finding;

/// Checks one file; only those named `limits.rs` hold bounds.
pub fn check(path: &str, source: &str) -> Vec<Finding> {
    if path.rsplit('/').next() != Some("limits.rs") {
        return Vec::new();
    }
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let undocumented = |index: &usize| {
        let before = lines[..*index].iter().rev().find(|line| !line.starts_with("#["));
        !before.is_some_and(|line| line.starts_with("///"))
    };
    (0..lines.len())
        .filter(|index| {
            lines[*index].starts_with("pub const") || lines[*index].starts_with("pub(crate) const")
        })
        .filter(undocumented)
        .map(|index| {
            Finding::at(path, index + 1, "a bound without a comment: say what it bounds and why so much")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_without_its_reason_is_found() {
        let good = "/// Most streams: why.\n#[rustfmt::skip]\npub const STREAMS_MAX: usize = 4;\n";
        assert_eq!(check("x/limits.rs", good), []);
        assert_eq!(check("x/limits.rs", "// Most streams.\n\npub const STREAMS_MAX: usize = 4;\n").len(), 1);
        assert_eq!(check("x/limits.rs", &format!("{good}pub const LANES_MAX: u16 = 1;")).len(), 1);
        assert_eq!(check("x/other.rs", "pub const A: u8 = 1;"), []);
    }
}
