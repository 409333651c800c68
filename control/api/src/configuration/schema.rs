//! The configuration as a JSON Schema (draft 2020-12), made from the table of keys.

use serde_json::{Map, Value, json};

use super::{KEYS, SECTIONS, variable_of};

/// The schema of a configuration file.
pub fn schema() -> Value {
    let mut root = object("The configuration of a NovaCron node.");
    for (path, about) in SECTIONS {
        insert(&mut root, path, object(about.trim()));
    }
    for key in KEYS {
        let mut schema = (key.schema)();
        if let Some(members) = schema.as_object_mut() {
            members.insert("description".into(), key.about().into());
            members.insert("default".into(), default_of(key));
            members.insert("x-takes-effect".into(), key.takes_effect.words().into());
            members.insert("x-variable".into(), variable_of(key).into());
        }
        insert(&mut root, key.path, schema);
    }
    if let Some(members) = root.as_object_mut() {
        members.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        members.insert("title".into(), "NovaCron configuration".into());
    }
    root
}

fn object(about: &str) -> Value {
    json!({"type": "object", "description": about, "additionalProperties": false, "properties": {}})
}

/// A default as a file would write it.
fn default_of(key: &super::Key) -> Value {
    let quoted = || Value::from(key.default);
    if key.is_list {
        let entries = key.default.split(',').filter(|entry| !entry.is_empty());
        return entries.map(Value::from).collect();
    }
    match (key.schema)().get("type").and_then(Value::as_str) {
        Some("integer" | "boolean") => serde_json::from_str(key.default).unwrap_or_else(|_| quoted()),
        _ => quoted(),
    }
}

/// Puts a schema where its path says; sections come before what is in them.
fn insert(root: &mut Value, path: &str, schema: Value) {
    let mut at = root;
    for part in path.split('.') {
        let Some(properties) = at.get_mut("properties").and_then(Value::as_object_mut) else { return };
        at = properties.entry(part).or_insert_with(|| Value::Object(Map::new()));
    }
    *at = schema;
}
