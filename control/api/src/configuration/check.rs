//! What no single value can tell: values that contradict each other, and values without effect.

use std::net::IpAddr;

use super::{AuthMethod, Backend, KEYS, Mistake, Origin, Resolved, TakesEffect};

/// All contradictions.
pub(super) fn check(resolved: &Resolved) -> Vec<Mistake> {
    let all = &resolved.configuration;
    let mut mistakes = Vec::new();
    let mut refuse = |key: &str, what: String| {
        mistakes.push(Mistake { origin: resolved.origin(key).clone(), key: key.to_owned(), what });
    };
    let (min, max) = (all.transport.min_streams.get(), all.transport.max_streams.get());
    if min > max {
        let key = later(resolved, "dwcp.transport.min_streams", "dwcp.transport.max_streams");
        refuse(
            key,
            format!("min_streams is {min} and max_streams {max}; expected min_streams to be no more"),
        );
    }
    let (heartbeat, election) = (all.consensus.heartbeat_interval.ms(), all.consensus.election_timeout.ms());
    if heartbeat.saturating_mul(2) > election {
        let key = later(resolved, "dwcp.consensus.heartbeat_interval", "dwcp.consensus.election_timeout");
        refuse(
            key,
            format!(
                "heartbeat_interval is {heartbeat} ms and election_timeout {election} ms; expected at most half of it"
            ),
        );
    }
    if all.network.enable_tls != all.security.enable_encryption {
        let key = later(resolved, "network.enable_tls", "security.enable_encryption");
        refuse(
            key,
            "network.enable_tls and security.enable_encryption contradict each other; expected both or neither"
                .into(),
        );
    }
    let ports = [
        ("system.health_check_port", all.system.health_check_port.get()),
        ("network.bind_port", all.network.bind_port.get()),
        ("monitoring.metrics_port", all.monitoring.metrics_port.get()),
    ];
    for (at, (key, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..at].iter().find(|(_, taken)| port == taken && *port != 0) {
            refuse(
                later(resolved, other, key),
                format!("{key} and {other} are both {port}; expected different ports"),
            );
        }
    }
    if all.system.control_socket == all.dwcp.gateway_socket {
        refuse(
            later(resolved, "system.control_socket", "dwcp.gateway_socket"),
            "the control socket and the gateway's are the same; expected two paths".into(),
        );
    }
    probes(resolved, &mut refuse);
    storage(resolved, &mut refuse);
    collector(resolved, &mut refuse);
    if all.network.control_listen.is_some() {
        remote(resolved, &mut refuse);
    }
    mistakes
}

/// Peers know a gateway by one address, and each other by their keys.
fn probes(resolved: &Resolved, refuse: &mut impl FnMut(&str, String)) {
    let all = &resolved.configuration;
    if all.dwcp.probe_port.get() == 0 {
        return;
    }
    if all.network.listen_address.is_unspecified() {
        let key = later(resolved, "dwcp.probe_port", "network.listen_address");
        let address = all.network.listen_address;
        refuse(
            key,
            format!(
                "probes are answered at one address, and network.listen_address is {address}; expected the one that peers know"
            ),
        );
    }
    if !all.security.enable_encryption {
        let key = later(resolved, "dwcp.probe_port", "security.enable_encryption");
        refuse(key, "who is to be probed is known by streams that are encrypted; expected security.enable_encryption, or probe_port 0".into());
    }
}

/// Where records are.
fn storage(resolved: &Resolved, refuse: &mut impl FnMut(&str, String)) {
    let storage = &resolved.configuration.storage;
    match (storage.backend, &storage.url) {
        (Backend::Redis, _) => refuse(
            "storage.backend",
            "redis is a cache and keeps nothing; expected sqlite or postgres, and storage.cache_url for Redis"
                .into(),
        ),
        (Backend::Postgres, None) => {
            refuse(
                "storage.url",
                "nothing is given; expected postgres://USER@HOST/DATABASE, because storage.backend is postgres"
                    .into(),
            );
        }
        (Backend::Sqlite, Some(_)) => {
            let key = later(resolved, "storage.url", "storage.backend");
            refuse(
                key,
                "storage.url names a server and storage.backend is sqlite; expected postgres, or no URL"
                    .into(),
            );
        }
        _ => {}
    }
    for (key, url) in [("storage.url", &storage.url), ("storage.cache_url", &storage.cache_url)] {
        let Some(url) = url else { continue };
        let wrong = if url.holds_password() {
            "it holds a password, which would be seen wherever it is printed; expected none, and a file of it beside it"
        } else if !url.as_str().contains("://") || url.as_str().contains(char::is_whitespace) {
            "it is no URL; expected one as in postgres://USER@HOST/DATABASE or rediss://HOST"
        } else {
            continue;
        };
        refuse(key, wrong.into());
    }
    if storage.certificate.is_some() != storage.certificate_key.is_some() {
        let what = "a certificate and its key belong together; expected both or neither";
        refuse(later(resolved, "storage.certificate", "storage.certificate_key"), what.into());
    }
}

/// Traces name callers, sessions and peers: they leave this host encrypted or not at all.
fn collector(resolved: &Resolved, refuse: &mut impl FnMut(&str, String)) {
    let endpoint = &resolved.configuration.monitoring.otlp_endpoint;
    let expected = "expected http://127.0.0.1:4318 or another port of this host, or https://HOST:PORT";
    let wrong = if endpoint.holds_password() || endpoint.as_str().contains('@') {
        "it holds a name or password, which would be seen wherever it is printed"
    } else if endpoint.as_str().contains(char::is_whitespace) {
        "it is no URL"
    } else if let Some(rest) = endpoint.as_str().strip_prefix("http://") {
        let authority = rest.split('/').next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if here {
            return;
        }
        "plain http would leave this host"
    } else if endpoint
        .as_str()
        .strip_prefix("https://")
        .is_some_and(|rest| !rest.starts_with('/') && !rest.is_empty())
    {
        return;
    } else {
        "it is neither http nor https"
    };
    refuse("monitoring.otlp_endpoint", format!("{wrong}; {expected}"));
}

/// What a remote control socket needs.
fn remote(resolved: &Resolved, refuse: &mut impl FnMut(&str, String)) {
    let security = &resolved.configuration.security;
    if !security.enable_auth {
        let what =
            "remote callers are answered only with roles; expected true while network.control_listen is set";
        refuse("security.enable_auth", what.into());
    }
    let (needed, given) = match security.auth_method {
        AuthMethod::Mtls => ("security.caller_authorities", security.caller_authorities.is_some()),
        AuthMethod::Token => ("security.token_file", security.token_file.is_some()),
        AuthMethod::None => {
            let what = "remote callers must show who they are; expected mtls or token while network.control_listen is set";
            refuse("security.auth_method", what.into());
            return;
        }
    };
    if !given {
        let method = security.auth_method.word();
        refuse(
            needed,
            format!("nothing is given; expected a file, because security.auth_method is {method}"),
        );
    }
}

/// Of two keys that contradict each other the one that somebody wrote.
fn later<'a>(resolved: &Resolved, first: &'a str, second: &'a str) -> &'a str {
    if *resolved.origin(second) == Origin::Default { first } else { second }
}

/// Keys that somebody set although nothing reads them yet.
pub(super) fn without_effect(resolved: &Resolved) -> Vec<Mistake> {
    KEYS.iter()
        .filter(|key| key.takes_effect == TakesEffect::NotBuilt)
        .filter_map(|key| {
            let origin = resolved.origins.get(key.path)?.clone();
            let what = "what it sets is not built: it has no effect yet".to_owned();
            Some(Mistake { origin, key: key.path.to_owned(), what })
        })
        .collect()
}
