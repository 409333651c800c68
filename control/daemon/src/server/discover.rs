//! The OpenRPC document (OpenRPC 1.3.2), made from the types.

use std::sync::OnceLock;

use novacron_control_api as api;
use novacron_control_api::control::{self, Answer, CONTROL_VERSION, MethodInfo, methods};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

type Make = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The types that methods name.
const TYPES: &[(&str, Make)] = &[
    ("CallerInfo", of::<control::CallerInfo>),
    ("Identify", of::<control::Identify>),
    ("NodeInfo", of::<control::NodeInfo>),
    ("Health", of::<control::Health>),
    ("Environment", of::<control::Environment>),
    ("ConfigValues", of::<control::ConfigValues>),
    ("Reloaded", of::<control::Reloaded>),
    ("Features", of::<control::Features>),
    ("Subscription", of::<control::Subscription>),
    ("Subscribed", of::<control::Subscribed>),
    ("RecentEvents", of::<control::RecentEvents>),
    ("HistoryPage", of::<control::HistoryPage>),
    ("SessionHistory", of::<control::SessionHistory>),
    ("MigrationReport", of::<control::MigrationReport>),
    ("MigrationRecord", of::<control::MigrationRecord>),
    ("MigrationHistory", of::<control::MigrationHistory>),
    ("PathHistoryPage", of::<control::PathHistoryPage>),
    ("PathHistory", of::<control::PathHistory>),
    ("AuditPage", of::<control::AuditPage>),
    ("AuditList", of::<control::AuditList>),
    ("AuditCheck", of::<control::AuditCheck>),
    ("AuditVerified", of::<control::AuditVerified>),
    ("TokenList", of::<control::TokenList>),
    ("TokenRotate", of::<control::TokenRotate>),
    ("TokenRevoke", of::<control::TokenRevoke>),
    ("GatewayInfo", of::<api::GatewayInfo>),
    ("DrainParams", of::<api::DrainParams>),
    ("DrainResult", of::<api::DrainResult>),
    ("PathList", of::<api::PathList>),
    ("PathRef", of::<api::PathRef>),
    ("PathRecord", of::<api::PathRecord>),
    ("ForceParams", of::<api::ForceParams>),
    ("SessionOpen", of::<api::SessionOpen>),
    ("OpenResult", of::<api::OpenResult>),
    ("SessionList", of::<api::SessionList>),
    ("SessionRef", of::<api::SessionRef>),
    ("SessionRecord", of::<api::SessionRecord>),
    ("WatchParams", of::<api::WatchParams>),
    ("WatchResult", of::<api::WatchResult>),
    ("CancelParams", of::<api::CancelParams>),
];

fn schema(generator: &mut SchemaGenerator, name: &str) -> Value {
    let make = TYPES.iter().find(|(of, _)| *of == name).map(|(_, make)| *make);
    make.map_or(Value::Bool(true), |make| make(generator).to_value())
}

/// The parameters of a method, one by one: they are passed by name.
fn params(generator: &mut SchemaGenerator, method: &MethodInfo) -> Vec<Value> {
    let mut params = Vec::new();
    if let Some(name) = method.params {
        schema(generator, name);
        // Types are written once, below `components`; here are their members.
        let definition = generator.definitions().get(name).cloned().unwrap_or_default();
        let required: Vec<&str> = definition
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (member, schema) in definition.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let required = required.contains(&member.as_str());
            params.push(json!({"name": member, "required": required, "schema": schema}));
        }
    }
    if method.changes {
        let about = "A repeat with the same key gets the first call's answer, for a day.";
        let schema = json!({"type": "string", "description": about, "minLength": 1, "maxLength": 128});
        params.push(json!({"name": "idempotency_key", "required": false, "schema": schema}));
    }
    params
}

fn make() -> Value {
    let mut generator = SchemaSettings::draft07()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        })
        .into_generator();
    let methods: Vec<Value> = methods()
        .iter()
        .map(|method| {
            let result = match method.answer {
                Answer::Type(name) => schema(&mut generator, name),
                Answer::Document => json!({"type": "object"}),
            };
            let role = method.role.map_or_else(|| "anybody".to_owned(), |role| role.to_string());
            json!({
                "name": method.name,
                "summary": method.about,
                "paramStructure": "by-name",
                "params": params(&mut generator, method),
                "result": {"name": "result", "schema": result},
                "x-role": role,
                "x-changes": method.changes,
            })
        })
        .collect();
    let schemas: Map<String, Value> = generator.take_definitions(true);
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "NovaCron control socket",
            "version": format!("{CONTROL_VERSION}.0.0"),
            "description": "JSON-RPC 2.0, one object a line, over a unix socket or TLS.",
        },
        "methods": methods,
        "components": {"schemas": schemas},
    })
}

/// The document.
pub(crate) fn document() -> Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(make).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_method_and_every_type_that_it_names_is_there() {
        let document = document();
        let listed: Vec<&str> = document["methods"]
            .as_array()
            .unwrap()
            .iter()
            .map(|method| method["name"].as_str().unwrap())
            .collect();
        assert_eq!(listed, methods().iter().map(|method| method.name).collect::<Vec<_>>());
        for method in methods() {
            let named = method.params.into_iter().chain(match method.answer {
                Answer::Type(name) => Some(name),
                Answer::Document => None,
            });
            for name in named {
                assert!(TYPES.iter().any(|(of, _)| *of == name), "{}: {name}", method.name);
            }
        }
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn parameters_are_those_that_the_parser_takes() {
        let document = document();
        let method = |name: &str| {
            let all = document["methods"].as_array().unwrap();
            all.iter().find(|method| method["name"] == name).unwrap().clone()
        };
        let open = method("session.open");
        let names: Vec<&str> =
            open["params"].as_array().unwrap().iter().map(|param| param["name"].as_str().unwrap()).collect();
        for name in ["session", "token", "role", "peer", "listen", "connect", "options", "idempotency_key"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        assert_eq!(method("node.info")["params"], json!([]));
        assert_eq!(open["x-role"], "operator");
    }
}
