//! `doctor` against a TLS server that is a peer's gateway in all that it looks at: its certificates are `novactl keys`'s own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use serde_json::Value;

use crate::keys::KeysWorld;
use crate::world::{Ended, Faults, World, ended, novactl};

/// What a test peer does with who dials.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// What a gateway does.
    Gateway,
    /// The same, with the key exchange of before.
    OldKeyExchange,
    /// Answers in plain text.
    Plain,
    /// Accepts connections and says nothing.
    Silent,
    /// A gateway behind a path that loses full segments: it hears of nothing but small ones.
    SmallSegments,
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).expect("a file").map(|one| one.expect("a certificate")).collect()
}

fn config(peer: Peer, identity: &Path) -> Arc<ServerConfig> {
    let mut provider = default_provider();
    provider.kx_groups =
        vec![if peer == Peer::OldKeyExchange { kx_group::X25519 } else { kx_group::X25519MLKEM768 }];
    let provider = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    for root in certificates(&identity.join("authorities.pem")) {
        roots.add(root).expect("an authority");
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().expect("one");
    let key = PrivateKeyDer::from_pem_file(identity.join("gateway.key")).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&identity.join("gateway.crt")), key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"dwcp/1".to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// Serves until the test's process ends; returns where.
fn serve(peer: Peer, identity: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = format!("tcp:{}", listener.local_addr().expect("an address"));
    let config = config(peer, identity);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || connection(peer, stream, config));
        }
    });
    at
}

fn connection(peer: Peer, mut stream: TcpStream, config: Arc<ServerConfig>) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let segment = getsockopt(&stream, sockopt::TcpMaxSeg).expect("a size");
    match peer {
        Peer::SmallSegments if segment <= 1200 => connection(Peer::Gateway, stream, config),
        Peer::Silent | Peer::SmallSegments => {
            // Until the other side has enough of it.
            while matches!(stream.read(&mut [0; 4096]), Ok(count) if count > 0) {}
        }
        Peer::Plain => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
            let _ = stream.read(&mut [0; 4096]);
        }
        Peer::Gateway | Peer::OldKeyExchange => {
            let mut tls = ServerConnection::new(config).expect("a connection");
            while tls.wants_write() || tls.wants_read() {
                if tls.wants_write() {
                    if tls.write_tls(&mut stream).is_err() {
                        return;
                    }
                    continue;
                }
                let read = tls.read_tls(&mut stream);
                let refused = tls.process_new_packets().is_err();
                if refused {
                    let _ = tls.write_tls(&mut stream);
                }
                if refused || !matches!(read, Ok(count) if count > 0) {
                    return;
                }
            }
        }
    }
}

fn doctor(at: &str, identity: &Path, more: &[&str]) -> Ended {
    ended(novactl().args(["doctor", at, "--json", "--identity"]).arg(identity).args(more))
}

fn standing<'a>(found: &'a Ended, check: &str) -> (&'a str, &'a str) {
    let checks = found.json["checks"].as_array().unwrap_or_else(|| panic!("no checks: {}", found.stderr));
    let line = checks
        .iter()
        .find(|line| line["check"] == check)
        .unwrap_or_else(|| panic!("no {check}: {}", found.json));
    (line["standing"].as_str().expect("a standing"), line["found"].as_str().expect("words"))
}

/// Two sites that trust each other, by files.
fn paired() -> (KeysWorld, KeysWorld) {
    let (a, b) = (KeysWorld::site("site-a"), KeysWorld::site("site-b"));
    for (one, other) in [(&a, &b), (&b, &a)] {
        for site in [one, other] {
            if !site.path("gw-1").exists() {
                site.issue("gw-1");
            }
        }
        trust(one, other);
    }
    (a, b)
}

fn trust(one: &KeysWorld, other: &KeysWorld) {
    let file = other.path("export.pem");
    let pair = |command: &str, site: &KeysWorld| {
        let mut novactl = novactl();
        novactl.args(["pair", command, "--json", "--identity"]).arg(site.path("gw-1"));
        novactl
    };
    let exported = ended(pair("export", other).arg("--out").arg(&file));
    let print = exported.json["fingerprints"][0].as_str().expect("a fingerprint");
    let imported = ended(pair("import", one).arg(&file).args(["--fingerprint", print]));
    assert_eq!(imported.code, 0, "{}", imported.stderr);
}

#[test]
fn two_paired_sites_can_talk_and_the_screen_says_how() {
    let (a, b) = paired();
    let at = serve(Peer::Gateway, &b.path("gw-1"));
    let found = doctor(&at, &a.path("gw-1"), &[]);
    assert_eq!((found.code, &found.json["can_talk"]), (0, &Value::Bool(true)), "{}", found.json);
    for check in [
        "own identity",
        "revocation lists",
        "name",
        "port",
        "TLS",
        "peer certificate",
        "peers.toml",
        "accepted there",
        "path MTU",
    ] {
        assert_eq!(standing(&found, check).0, "ok", "{check}: {}", found.json);
    }
    assert!(standing(&found, "TLS").1.contains("X25519MLKEM768"));
    assert!(standing(&found, "peer certificate").1.contains("novacron://site-b/gateway/gw-1"));
    assert!(standing(&found, "path MTU").1.contains("acknowledged"), "{}", found.json);
    for check in ["gateways", "clocks", "QEMU"] {
        assert_eq!(standing(&found, check).0, "skip");
    }
    let screen = novactl().args(["doctor", &at, "--identity"]).arg(a.path("gw-1")).output().expect("novactl");
    let screen = String::from_utf8(screen.stdout).expect("text");
    assert!(screen.lines().count() <= 24 && screen.contains("can talk"), "{screen}");
}

#[test]
fn who_is_not_paired_is_told_on_which_side() {
    // The peer knows this site, this one does not know the peer.
    let (a, b) = (KeysWorld::site("site-a"), KeysWorld::site("site-b"));
    let (gw_a, gw_b) = (a.issue("gw-1"), b.issue("gw-1"));
    trust(&b, &a);
    let found = doctor(&serve(Peer::Gateway, &gw_b), &gw_a, &[]);
    assert_eq!(found.code, 1);
    assert_eq!(standing(&found, "peer certificate").0, "fail");
    assert!(standing(&found, "peer certificate").1.contains("no authority of the site site-b"));
    assert_eq!((standing(&found, "peers.toml").0, standing(&found, "accepted there").0), ("fail", "ok"));

    // And the other way round.
    let stranger = KeysWorld::site("site-c");
    let gw_c = stranger.issue("gw-1");
    trust(&stranger, &b);
    let found = doctor(&serve(Peer::Gateway, &gw_b), &gw_c, &[]);
    assert_eq!((found.code, standing(&found, "peer certificate").0), (1, "ok"), "{}", found.json);
    assert_eq!(standing(&found, "accepted there").0, "fail", "{}", found.json);
}

#[test]
fn a_revoked_peer_and_an_old_key_exchange_are_seen() {
    let (a, b) = paired();
    let at = serve(Peer::OldKeyExchange, &b.path("gw-1"));
    let found = doctor(&at, &a.path("gw-1"), &[]);
    assert_eq!((found.code, standing(&found, "TLS").0), (1, "fail"), "{}", found.json);
    assert_eq!(standing(&found, "peer certificate").0, "ok");

    let at = serve(Peer::Gateway, &b.path("gw-1"));
    let revoked = ended(b.keys("revoke").arg("gateway/gw-1"));
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    let list = b.path("keys/gateway/revoked.pem");
    let taken = ended(novactl().args(["pair", "revocations", "--identity"]).arg(a.path("gw-1")).arg(list));
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    let found = doctor(&at, &a.path("gw-1"), &[]);
    let (standing, words) = standing(&found, "peer certificate");
    assert!(found.code == 1 && standing == "fail" && words.contains("revoked"), "{}", found.json);
}

#[test]
fn what_is_no_gateway_is_told_apart() {
    let (a, b) = paired();
    let gw_a = a.path("gw-1");
    let plain = doctor(&serve(Peer::Plain, &b.path("gw-1")), &gw_a, &[]);
    assert_eq!((plain.code, standing(&plain, "port").0, standing(&plain, "TLS").0), (1, "ok", "fail"));
    let silent = doctor(&serve(Peer::Silent, &b.path("gw-1")), &gw_a, &[]);
    assert_eq!((silent.code, standing(&silent, "TLS").0), (1, "fail"));
    assert_eq!(standing(&silent, "path MTU").0, "skip", "small segments help nothing: {}", silent.json);
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let closed = doctor(&format!("tcp:127.0.0.1:{port}"), &gw_a, &[]);
    assert_eq!((closed.code, standing(&closed, "port").0), (1, "fail"));
    let nameless = doctor("tcp:no-such-host.invalid:7400", &gw_a, &[]);
    assert_eq!((nameless.code, standing(&nameless, "name").0), (1, "fail"));
    let nobody = doctor(&format!("tcp:127.0.0.1:{port}"), &a.path("nowhere"), &[]);
    assert_eq!((nobody.code, standing(&nobody, "own identity").0), (1, "fail"));
}

#[test]
fn a_path_that_loses_full_segments_is_told_from_a_peer_that_is_silent() {
    let (a, b) = paired();
    let found = doctor(&serve(Peer::SmallSegments, &b.path("gw-1")), &a.path("gw-1"), &[]);
    let (standing_, words) = standing(&found, "path MTU");
    assert!(
        found.code == 1 && standing_ == "fail" && words.contains("full segments get lost"),
        "{}",
        found.json
    );
    assert_eq!(standing(&found, "TLS").0, "warn");
}

#[test]
fn both_ends_are_asked_where_they_can_be_reached() {
    let (a, b) = paired();
    let world = World::new(Faults::default());
    let path = |name: &str| world.path(name).display().to_string();
    let at = serve(Peer::Gateway, &b.path("gw-1"));
    let ends = [
        "--gateway",
        &path("source.gateway"),
        "--peer-gateway",
        &path("destination.gateway"),
        "--source-qmp",
        &path("source.qmp"),
        "--destination-qmp",
        &path("destination.qmp"),
    ];
    let found = doctor(&at, &a.path("gw-1"), &ends);
    assert_eq!(standing(&found, "gateways").0, "ok", "{}", found.json);
    assert_eq!(standing(&found, "QEMU"), ("ok", "10.0.2 here, 10.0.2 there"));
    assert_ne!(standing(&found, "clocks").0, "skip");
    world.state().destination.version = [7, 2, 0];
    let found = doctor(&at, &a.path("gw-1"), &ends);
    assert_eq!(standing(&found, "QEMU").0, "warn", "{}", found.json);
}
