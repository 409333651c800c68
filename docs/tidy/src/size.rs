//! A file holds one subject: past 600 lines it is asked for its second.

use crate::Finding;

/// Most lines of a source file.
pub const LINES_MAX: usize = 600;

/// Longer files, each with the reason why it is one subject.
pub const LONGER: &[(&str, &str)] = &[];

const SOURCES: &[&str] = &[".rs", ".c", ".h", ".sh", ".py"];

/// Checks one file.
pub fn check(path: &str, text: &str, longer: &[(&str, &str)]) -> Vec<Finding> {
    if !SOURCES.iter().any(|suffix| path.ends_with(suffix)) {
        return Vec::new();
    }
    let lines = text.lines().count();
    let listed = longer.iter().find(|(listed, _)| *listed == path);
    let finding = match listed {
        None if lines > LINES_MAX => {
            format!("{lines} lines: split it, or list it in docs/tidy/src/size.rs with the reason")
        }
        Some((_, reason)) if reason.len() < 20 => "is listed as longer without a reason".to_owned(),
        Some(_) if lines <= LINES_MAX => "is no longer too long: take it off the list".to_owned(),
        _ => return Vec::new(),
    };
    vec![Finding::on(path, finding)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_unless_it_has_a_reason() {
        let long = "x\n".repeat(LINES_MAX + 1);
        let reason = [("a.rs", "one table, printed in one piece")];
        assert_eq!(check("a.rs", &long, &[]).len(), 1);
        assert_eq!(check("a.rs", &long, &reason).len(), 0);
        assert_eq!(check("a.rs", &long, &[("a.rs", "because")]).len(), 1);
        assert_eq!(check("a.rs", "x\n", &reason).len(), 1);
        assert_eq!(check("a.rs", &"x\n".repeat(LINES_MAX), &[]).len(), 0);
        assert_eq!(check("Cargo.lock", &long, &[]).len(), 0);
    }
}
