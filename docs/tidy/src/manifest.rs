//! Every crate keeps the workspace's lints and licence.

use crate::Finding;
use crate::purity::MAY_BE_UNSAFE;
use toml::{Table, Value};

const LICENCE: &str = "Apache-2.0";

/// Checks one `Cargo.toml` against the workspace's, which is `workspace`.
pub fn check(path: &str, text: &str, workspace: &str) -> Vec<Finding> {
    let (manifest, workspace) = match (text.parse::<Table>(), workspace.parse::<Table>()) {
        (Ok(manifest), Ok(workspace)) => (manifest, workspace),
        (Err(error), _) | (_, Err(error)) => {
            return vec![Finding::on(path, format!("cannot be read: {error}"))];
        }
    };
    let Some(package) = manifest.get("package") else { return Vec::new() };
    let mut findings = Vec::new();
    let inherited =
        |value: Option<&Value>| value.and_then(|v| v.get("workspace")) == Some(&Value::Boolean(true));

    // A workspace of its own (the fuzz targets) inherits nothing.
    let own_workspace = manifest.contains_key("workspace");
    let licence = package.get("license");
    let licensed = inherited(licence) || own_workspace && licence.and_then(Value::as_str) == Some(LICENCE);
    if !licensed {
        findings.push(Finding::on(path, "say `license.workspace = true`"));
    }
    if own_workspace {
        return findings;
    }
    let lints = manifest.get("lints");
    if inherited(lints) {
        return findings;
    }
    if !MAY_BE_UNSAFE.iter().any(|folder| path.starts_with(folder)) {
        findings.push(Finding::on(path, "say `[lints] workspace = true`"));
        return findings;
    }
    // A crate that may hold `unsafe` repeats the lints, because cargo cannot inherit all but one.
    let expected = workspace.get("workspace").and_then(|w| w.get("lints")).and_then(Value::as_table);
    for (tool, levels) in expected.into_iter().flatten() {
        for (lint, level) in
            levels.as_table().into_iter().flatten().filter(|(lint, _)| *lint != "unsafe_code")
        {
            if lints.and_then(|l| l.get(tool)).and_then(|t| t.get(lint)) != Some(level) {
                findings
                    .push(Finding::on(path, format!("lacks the workspace's lint {tool}.{lint} = {level:?}")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "[workspace.lints.rust]\nmissing_docs = \"warn\"\nunsafe_code = \"deny\"\n";
    const LICENSED: &str = "[package]\nname = \"a\"\nlicense.workspace = true\n";

    #[test]
    fn missing_lints_and_licence_are_found() {
        let good = format!("{LICENSED}[lints]\nworkspace = true\n");
        assert_eq!(check("a/Cargo.toml", &good, WORKSPACE), []);
        assert_eq!(check("a/Cargo.toml", LICENSED, WORKSPACE).len(), 1);
        assert_eq!(
            check("a/Cargo.toml", "[package]\nname = \"a\"\n[lints]\nworkspace = true\n", WORKSPACE).len(),
            1
        );
        assert_eq!(check("a/Cargo.toml", "[package", WORKSPACE).len(), 1);
    }

    #[test]
    fn unsafe_rooms_may_drop_one_lint_only() {
        let good = format!("{LICENSED}[lints.rust]\nmissing_docs = \"warn\"\nunsafe_code = \"allow\"\n");
        assert_eq!(check("dataplane/transport/Cargo.toml", &good, WORKSPACE), []);
        assert_eq!(check("dataplane/gateway/Cargo.toml", &good, WORKSPACE).len(), 1);
        let bad = format!("{LICENSED}[lints.rust]\nunsafe_code = \"allow\"\n");
        assert_eq!(check("dataplane/transport/Cargo.toml", &bad, WORKSPACE).len(), 1);
    }

    #[test]
    fn a_workspace_of_its_own_names_the_licence() {
        let own = "[package]\nname = \"f\"\nlicense = \"Apache-2.0\"\n[workspace]\n";
        assert_eq!(check("dataplane/fuzz/Cargo.toml", own, WORKSPACE), []);
        assert_eq!(check("dataplane/fuzz/Cargo.toml", &own.replace("Apache-2.0", "MIT"), WORKSPACE).len(), 1);
    }
}
