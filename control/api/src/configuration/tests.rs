use super::*;
use proptest::prelude::*;

fn entry(path: &str, raw: Raw) -> Entry {
    Entry { path: path.into(), raw, origin: Origin::Flag("--set".into()) }
}

fn given(pairs: &[(&str, &str)]) -> Result<Resolved, Vec<Mistake>> {
    let mut layers = Layers::new();
    layers.add(pairs.iter().map(|(path, text)| entry(path, Raw::Given((*text).into()))));
    layers.resolve()
}

fn told(pairs: &[(&str, &str)]) -> String {
    given(pairs).unwrap_err().iter().map(|mistake| mistake.to_string() + "\n").collect()
}

/// The owner's keys, names and defaults; a key that vanishes or changes its default is seen here.
#[test]
fn the_owners_keys_and_defaults() {
    for (path, default) in [
        ("system.node_id", ""),
        ("system.data_dir", "/var/lib/novacron"),
        ("system.log_level", "info"),
        ("system.max_concurrency", "1000"),
        ("system.health_check_port", "8080"),
        ("system.shutdown_timeout", "30s"),
        ("dwcp.enable_auto_detection", "true"),
        ("dwcp.forced_mode", ""),
        ("dwcp.detection_interval", "30s"),
        ("dwcp.v3_rollout_percentage", "100"),
        ("dwcp.enable_v3_transport", "true"),
        ("dwcp.enable_v3_compression", "true"),
        ("dwcp.enable_v3_prediction", "false"),
        ("dwcp.enable_v3_state_sync", "false"),
        ("dwcp.enable_v3_consensus", "false"),
        ("dwcp.enable_v3_placement", "false"),
        ("dwcp.transport.min_streams", "4"),
        ("dwcp.transport.max_streams", "256"),
        ("dwcp.transport.stream_timeout", "60s"),
        ("dwcp.transport.enable_rdma", "auto"),
        ("dwcp.transport.congestion_algo", "adaptive"),
        ("dwcp.compression.algorithm", "adaptive"),
        ("dwcp.compression.level", "3"),
        ("dwcp.compression.enable_delta", "true"),
        ("dwcp.compression.enable_ml_model", "false"),
        ("dwcp.consensus.protocol", "raft"),
        ("dwcp.consensus.heartbeat_interval", "500ms"),
        ("dwcp.consensus.election_timeout", "5s"),
        ("dwcp.consensus.byzantine_tolerance", "1"),
        ("network.listen_address", "127.0.0.1"),
        ("network.bind_port", "9090"),
        ("network.max_connections", "10000"),
        ("network.enable_tls", "true"),
        ("storage.backend", "sqlite"),
        ("storage.max_connections", "100"),
        ("storage.enable_cache", "true"),
        ("monitoring.enable_metrics", "true"),
        ("monitoring.metrics_port", "9091"),
        ("monitoring.enable_tracing", "false"),
        ("security.enable_auth", "true"),
        ("security.auth_method", "mtls"),
        ("security.enable_encryption", "true"),
    ] {
        assert_eq!(Key::find(path).map(|key| key.default), Some(default), "{path}");
    }
}

#[test]
fn every_default_is_taken_and_written_as_it_is_read() {
    let resolved = given(&[]).expect("defaults");
    assert!(resolved.warnings.is_empty());
    for (path, value) in resolved.configuration.values() {
        let key = Key::find(path).expect(path);
        let shown = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Array(list) => {
                list.iter().filter_map(|one| one.as_str()).collect::<Vec<_>>().join(",")
            }
            other => other.to_string(),
        };
        assert_eq!(shown, key.default, "{path}");
        assert!(!key.about().is_empty() && !key.expected().is_empty(), "{path}");
    }
}

#[test]
fn the_last_place_wins_and_is_told() {
    let resolved = given(&[("system.node_id", "a"), ("system.node_id", "b")]).unwrap();
    assert_eq!(resolved.configuration.system.node_id.as_str(), "b");
    assert_eq!(*resolved.origin("system.node_id"), Origin::Flag("--set".into()));
    assert_eq!(*resolved.origin("system.data_dir"), Origin::Default);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    for (path, near) in [
        ("system.node_idd", "system.node_id"),
        ("dwcp.transport.min_stream", "dwcp.transport.min_streams"),
        ("transport.min_streams", "dwcp.transport.min_streams"),
        ("network.metrics_port", "monitoring.metrics_port"),
        ("dwcp.enable_v3_transprot", "dwcp.enable_v3_transport"),
    ] {
        let told = told(&[(path, "1")]);
        assert!(told.contains(&format!("did you mean {near}?")), "{path}: {told}");
    }
    assert!(told(&[("zzz", "1")]).contains("novactl config schema"));
}

#[test]
fn what_a_key_does_not_take_is_told_with_what_it_does() {
    for (path, text, says) in [
        ("dwcp.compression.level", "23", "a whole number from 0 to 22"),
        ("dwcp.compression.level", "+3", "a whole number"),
        ("dwcp.compression.level", "", "a whole number"),
        ("dwcp.v3_rollout_percentage", "101", "from 0 to 100"),
        ("system.shutdown_timeout", "30", "30s"),
        ("system.shutdown_timeout", "99999999999999999999s", "a time"),
        ("system.log_level", "loud", "error, warn, info, debug, trace"),
        ("system.data_dir", "relative", "an absolute path"),
        ("network.enable_tls", "yes", "true or false"),
        ("network.listen_address", "localhost", "an IPv4 or IPv6 address"),
        ("network.peers", "unix:/a", "tcp:192.0.2.1:9090"),
        ("security.admins", "root", "uid:N"),
        ("security.admins", "novacron://a/gateway/b", "novacron://SITE/caller/NAME"),
    ] {
        let told = told(&[(path, text)]);
        assert!(told.contains(path) && told.contains("expected") && told.contains(says), "{told}");
    }
}

#[test]
fn quotes_make_texts() {
    for (path, text) in [("dwcp.compression.level", "3"), ("network.enable_tls", "true")] {
        let mut layers = Layers::new();
        layers.add([entry(path, Raw::Quoted(text.into()))]);
        assert!(layers.resolve().is_err(), "{path}");
    }
    let mut layers = Layers::new();
    layers.add([entry("network.peers", Raw::Plain("tcp:a:1".into()))]);
    assert!(layers.resolve().is_err(), "one value is no list");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mistakes = given(&[("a.b", "1"), ("system.log_level", "x"), ("network.bind_port", "y")]).unwrap_err();
    assert_eq!(mistakes.len(), 3);
}

#[test]
fn contradictions_name_the_key_that_somebody_wrote() {
    for (pairs, key) in [
        (&[("dwcp.transport.max_streams", "2")][..], "dwcp.transport.max_streams"),
        (&[("dwcp.transport.min_streams", "300")][..], "dwcp.transport.min_streams"),
        (&[("dwcp.consensus.election_timeout", "900ms")][..], "dwcp.consensus.election_timeout"),
        (&[("security.enable_encryption", "false")][..], "security.enable_encryption"),
        (&[("monitoring.metrics_port", "9090")][..], "monitoring.metrics_port"),
        (&[("storage.backend", "redis")][..], "storage.backend"),
        (&[("network.control_listen", "tcp:127.0.0.1:1")][..], "security.caller_authorities"),
        (&[("dwcp.gateway_socket", "/run/novacron/control.sock")][..], "dwcp.gateway_socket"),
    ] {
        let mistakes = given(pairs).unwrap_err();
        assert_eq!(mistakes.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), [key], "{mistakes:?}");
    }
    let both = [("network.enable_tls", "false"), ("security.enable_encryption", "false")];
    assert!(given(&both).is_ok());
    assert!(given(&[("monitoring.metrics_port", "0"), ("network.bind_port", "0")]).is_ok());
}

#[test]
fn probes_are_answered_at_one_address_to_peers_that_are_known() {
    let port = ("dwcp.probe_port", "7402");
    assert!(given(&[port]).is_ok());
    assert!(given(&[("network.listen_address", "0.0.0.0")]).is_ok());
    let said = told(&[port, ("network.listen_address", "0.0.0.0")]);
    assert!(said.contains("expected the one that peers know"), "{said}");
    let said = told(&[port, ("network.enable_tls", "false"), ("security.enable_encryption", "false")]);
    assert!(said.contains("known by streams that are encrypted"), "{said}");
}

#[test]
fn a_database_is_named_once_and_without_its_password() {
    let server = ("storage.backend", "postgres");
    for (pairs, key, said) in [
        (&[("storage.backend", "redis")][..], "storage.backend", "storage.cache_url"),
        (&[server], "storage.url", "postgres://USER@HOST/DATABASE"),
        (&[("storage.url", "postgres://u@h/d")], "storage.url", "storage.backend is sqlite"),
        (&[server, ("storage.url", "postgres://u:s3cret@h/d")], "storage.url", "holds a password"),
        (&[server, ("storage.url", "postgres://u@h/d?password=s3cret")], "storage.url", "holds a password"),
        (&[server, ("storage.url", "host=h user=u")], "storage.url", "is no URL"),
        (&[("storage.cache_url", "rediss://:s3cret@h")], "storage.cache_url", "holds a password"),
        (&[("storage.certificate", "/a")], "storage.certificate", "both or neither"),
    ] {
        let mistakes = given(pairs).unwrap_err();
        let told = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert_eq!(mistakes.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), [key], "{told}");
        assert!(told.contains(said) && !told.contains("s3cret"), "{told}");
    }
    let url = ("storage.url", "postgres://u@[2001:db8::1]:5432/d?host=/run/postgresql");
    let of = given(&[server, url, ("storage.cache_url", "rediss://h")]).unwrap().configuration;
    assert_eq!(of.storage.url.unwrap().as_str(), url.1);
    assert!(given(&[("storage.max_connections", "101")]).is_err());
}

#[test]
fn traces_leave_the_host_encrypted_or_not_at_all() {
    let key = "monitoring.otlp_endpoint";
    for good in [
        "http://127.0.0.1:4318",
        "http://127.8.8.8",
        "http://[::1]:4318/v1/traces",
        "http://localhost:9/x",
        "https://collector.example",
        "https://192.0.2.1:4318/v1/traces",
    ] {
        assert!(given(&[(key, good)]).is_ok(), "{good}");
    }
    for (wrong, why) in [
        ("http://192.0.2.1:4318", "plain http would leave this host"),
        ("http://127.0.0.1.example:4318", "plain http would leave this host"),
        ("http://localhost.example", "plain http would leave this host"),
        ("http://[::2]:4318", "plain http would leave this host"),
        ("https://user:secret@collector", "name or password"),
        ("http://127.0.0.1@evil.example", "name or password"),
        ("https://", "neither http nor https"),
        ("grpc://127.0.0.1:4317", "neither http nor https"),
        ("127.0.0.1:4318", "neither http nor https"),
        ("https://a b", "no URL"),
    ] {
        let told = told(&[(key, wrong)]);
        assert!(told.contains(why) && told.contains("expected http://127.0.0.1:4318"), "{wrong}: {told}");
        assert!(!told.contains("secret"), "{told}");
    }
}

#[test]
fn keys_without_effect_are_warned_about_when_they_are_set() {
    let resolved = given(&[("dwcp.transport.enable_rdma", "true")]).unwrap();
    assert_eq!(resolved.warnings.len(), 1);
    assert!(resolved.warnings[0].to_string().contains("not built"));
}

#[test]
fn changes_say_when_they_take_effect() {
    let from = given(&[]).unwrap().configuration;
    let to = given(&[("system.log_level", "debug"), ("network.bind_port", "1")]).unwrap().configuration;
    let changes = changes(&from, &to);
    let told: Vec<_> = changes.iter().map(|change| (change.key, change.takes_effect)).collect();
    let expected = [("system.log_level", TakesEffect::AtOnce), ("network.bind_port", TakesEffect::Restart)];
    assert_eq!(told, expected);
}

#[test]
fn the_schema_knows_every_key_and_nothing_else() {
    let schema = schema();
    for key in KEYS {
        let mut at = &schema;
        for part in key.path.split('.') {
            assert_eq!(at["additionalProperties"], false, "{}", key.path);
            at = &at["properties"][part];
        }
        assert_eq!(at["description"], key.about(), "{}", key.path);
        assert!(at.get("type").or(at.get("anyOf")).is_some(), "{}", key.path);
    }
    assert_eq!(
        schema["properties"]["dwcp"]["properties"]["compression"]["properties"]["level"]["default"],
        3
    );
}

proptest! {
    /// Any text under any key gives a configuration or mistakes that name that key; nothing panics.
    #[test]
    fn any_text_under_any_key(at in 0..KEYS.len(), text in "\\PC{0,40}|[0-9]{0,25}(ms|s|m|h)?|true|false", form in 0..4u8) {
        let raw = match form {
            0 => Raw::Plain(text.clone()),
            1 => Raw::Quoted(text.clone()),
            2 => Raw::Given(text.clone()),
            _ => Raw::List(vec![text.clone(), text.clone()]),
        };
        let mut layers = Layers::new();
        layers.add([entry(KEYS[at].path, raw.clone())]);
        match layers.resolve() {
            // What was taken is written in a form that is taken again, and means the same.
            Ok(resolved) => {
                let value = resolved.configuration.values()[at].1.clone();
                let again = match value {
                    serde_json::Value::String(text) => Raw::Quoted(text),
                    serde_json::Value::Array(list) => Raw::List(list.iter().filter_map(|one| one.as_str()).map(str::to_owned).collect()),
                    other => Raw::Plain(other.to_string()),
                };
                let mut layers = Layers::new();
                layers.add([entry(KEYS[at].path, again)]);
                prop_assert_eq!(layers.resolve().unwrap().configuration, resolved.configuration);
            }
            Err(mistakes) => prop_assert!(!mistakes.is_empty()),
        }
    }
}
