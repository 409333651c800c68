//! Names of keys in the environment: `NOVACRON_` and the key in capitals, dots as `_`, without its section `system`.

use super::Key;

/// The variable that gives a key's value.
pub fn variable_of(key: &Key) -> String {
    // The one key whose variable has a name of its own.
    if key.path == "dwcp.forced_mode" {
        return "NOVACRON_DWCP_MODE".to_owned();
    }
    let path = key.path.strip_prefix("system.").unwrap_or(key.path);
    format!("NOVACRON_{}", path.replace('.', "_").to_ascii_uppercase())
}
