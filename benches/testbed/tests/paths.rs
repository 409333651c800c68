//! Two gateways that probe each other on loopback, where a socket answers; and what `novactl` shows of that. Answers from the
//! kernel are tested in `ebpf/tests`.

use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::EXIT_WAIT;
use novacron_testbed::session::unix;
use novacron_testbed::{
    Gateway, GatewayOptions, Process, Scratch, Security, Session, artefact, novactl, port, wait,
};
use serde_json::{Value, json};

const DECIDED: Duration = Duration::from_secs(10);

fn secret(scratch: &Scratch) -> Result<PathBuf> {
    let file = scratch.file("probe-secret");
    fs::write(&file, "5a".repeat(32))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

fn start(scratch: &Scratch, name: &str, own: u16, peer: u16, secret: &Path) -> Result<Gateway> {
    let extra = [
        "--probe-listen".to_owned(),
        format!("127.0.0.1:{own}"),
        "--probe-peer".to_owned(),
        format!("127.0.0.1:{peer}"),
        "--probe-secret".to_owned(),
        secret.display().to_string(),
    ];
    let options = GatewayOptions {
        listen: false,
        security: Security::Plaintext,
        extra: extra.to_vec(),
        ..GatewayOptions::default()
    };
    Gateway::start(scratch, name, &options)
}

fn path(gateway: &Gateway, peer: u16) -> Result<Value> {
    gateway.rpc()?.call("path.probe", json!({ "peer": format!("127.0.0.1:{peer}") }))
}

fn responder(gateway: &Gateway) -> Result<Value> {
    Ok(gateway.rpc()?.call("path.list", json!({}))?["responder"].clone())
}

#[test]
fn gateways_probe_each_other_and_say_what_they_found() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let secret = secret(scratch)?;
        let (port_a, port_b) = (port::free()?, port::free()?);
        let a = start(scratch, "a", port_a, port_b, &secret)?;
        let _b = start(scratch, "b", port_b, port_a, &secret)?;
        let record = wait::until("estimates of the path", DECIDED, || {
            let record = path(&a, port_b)?;
            Ok(Some(record).filter(|record| {
                !record["bandwidth_bits_per_s"].is_null() && !record["loss_forward_ppm"].is_null()
            }))
        })?;
        ensure!(record["measured_by"] == "userspace" && record["mode"].is_string(), "{record}");
        let rtt_ns =
            record.pointer("/rtt_median_ns/value").and_then(Value::as_u64).context("a round trip")?;
        ensure!(rtt_ns < 1_000_000_000, "{rtt_ns} ns on loopback");
        ensure!(record["samples"].as_array().is_some_and(|samples| !samples.is_empty()), "{record}");
        ensure!(record.pointer("/profile/congestion").is_some_and(Value::is_string), "{record}");

        // It says what it cannot do, and that somebody answers all the same.
        let said = responder(&a)?;
        ensure!(said["by"] == "userspace" && said.to_string().contains("loopback"), "{said}");

        // An override wins, and ends.
        let peer = format!("127.0.0.1:{port_b}");
        let control = a.control().display().to_string();
        let (status, text) =
            novactl::run(scratch, "probe", &["probe", &peer, "--gateway", &control, "--mode", "internet"])?;
        ensure!(status.success() && text.contains("internet (override)"), "{text}");
        ensure!(text.contains("95 % BETWEEN") && text.contains("round trip, least"), "{text}");
        let (status, text) = novactl::run(
            scratch,
            "watch",
            &["probe", &peer, "--gateway", &control, "--watch", "--times", "2", "--mode", "auto"],
        )?;
        // What it was before stands below, among the changes.
        let forced = text.lines().any(|line| line.starts_with("mode") && line.contains("(override)"));
        ensure!(status.success() && text.contains("round trip  ") && !forced, "{text}");
        let (status, text) = novactl::run(scratch, "paths", &["paths", "--gateway", &control])?;
        ensure!(status.success() && text.contains(&peer) && text.contains("answered"), "{text}");

        // A path that nobody probes is named.
        let wrong = format!("{:#}", path(&a, 1).unwrap_err());
        ensure!(wrong.contains("127.0.0.1:1"), "{wrong}");
        Ok(())
    })
}

#[test]
fn strangers_get_no_answer() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (own, peer) = (port::free()?, port::free()?);
        let gateway = start(scratch, "a", own, peer, &secret(scratch)?)?;
        let stranger = UdpSocket::bind(("127.0.0.1", 0))?;
        stranger.set_read_timeout(Some(Duration::from_millis(300)))?;
        for length in [0, 10, 64, 1472, 1473, 9000] {
            stranger.send_to(&vec![0x4e; length], ("127.0.0.1", own))?;
        }
        ensure!(stranger.recv(&mut [0; 2048]).is_err(), "a stranger was answered");
        wait::until("strangers to be counted", DECIDED, || {
            let counts = responder(&gateway)?["counts"].clone();
            let fits = counts["truncated"] == 2 && counts["malformed"] == 2 && counts["oversize"] == 2;
            Ok((fits && counts["answered"] == 0).then_some(()))
        })
    })
}

#[test]
fn a_secret_that_others_can_read_is_refused() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let secret = secret(scratch)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644))?;
        let control = scratch.file("c.sock").display().to_string();
        let arguments = [
            "--control",
            &control,
            "--insecure-plaintext",
            "--probe-listen",
            "127.0.0.1:7402",
            "--probe-secret",
            &secret.display().to_string(),
        ]
        .map(str::to_owned);
        let program = artefact::binary("novacron-gateway")?;
        let mut process = Process::start(scratch, "refused", &program, &arguments)?;
        let status = process.wait(EXIT_WAIT)?;
        let log = process.log_tail();
        ensure!(!status.success() && log.contains("chmod 600") && !log.contains("5a5a"), "{log}");
        Ok(())
    })
}

fn known_by_streams(scratch: &Scratch, name: &str, own: u16) -> Result<Gateway> {
    let extra = ["--probe-listen".to_owned(), format!("127.0.0.1:{own}")];
    Gateway::start(scratch, name, &GatewayOptions { extra: extra.to_vec(), ..GatewayOptions::default() })
}

/// A session from `a` to `b`, carried by streams of theirs until the sockets are dropped.
fn session(scratch: &Scratch, name: &str, a: &Gateway, b: &Gateway) -> Result<[UnixStream; 2]> {
    let (from, to) = (scratch.file(&format!("s{name}")), scratch.file(&format!("d{name}")));
    let listener = UnixListener::bind(&to)?;
    Session::new()?.open(a, b, (&unix(&from), &unix(&to)), &json!({}))?;
    let mut source = UnixStream::connect(&from)?;
    source.write_all(b"begun")?;
    let (mut destination, _) = listener.accept()?;
    destination.set_read_timeout(Some(DECIDED))?;
    destination.read_exact(&mut [0; 5])?;
    Ok([source, destination])
}

fn probed(gateway: &Gateway, peer: u16, by_answers: u64) -> Result<Value> {
    wait::until("a peer's answers", DECIDED, || {
        let list = gateway.rpc()?.call("path.list", json!({}))?;
        let mut paths = list["paths"].as_array().into_iter().flatten();
        let path = paths.find(|path| path["peer"] == format!("127.0.0.1:{peer}")).cloned();
        Ok(path.filter(|path| path["answers"].as_u64() > Some(by_answers) && path["mode"].is_string()))
    })
}

/// DWCP-100: nobody names peers or shares a secret; who has streams is probed both ways, also after a gateway was started anew.
#[test]
fn peers_that_have_streams_are_probed_by_keys_of_their_own() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (port_a, port_b) = (port::free()?, port::free()?);
        let a = known_by_streams(scratch, "a", port_a)?;
        let b = known_by_streams(scratch, "b", port_b)?;
        ensure!(a.rpc()?.call("path.list", json!({}))?["paths"] == json!([]), "it knows somebody");
        let carried = session(scratch, "1", &a, &b)?;
        let (of_b, of_a) = (probed(&a, port_b, 20)?, probed(&b, port_a, 20)?);
        for path in [&of_b, &of_a] {
            ensure!(path["identity"].as_str().is_some_and(|name| name.contains("/gateway/")), "{path}");
        }
        let counts = responder(&a)?["counts"].clone();
        ensure!(counts["answered"].as_u64() > Some(20) && counts["bad_cookie"] == 0, "{counts}");
        drop((carried, b));

        // Another run of it knows nobody, and is known again by the first stream.
        let b = known_by_streams(scratch, "b-again", port_b)?;
        let _carried = session(scratch, "2", &a, &b)?;
        probed(&b, port_a, 20)?;
        let before = responder(&b)?["counts"]["answered"].as_u64();
        wait::until("answers to the other run", DECIDED, || {
            Ok((responder(&b)?["counts"]["answered"].as_u64() > before.map(|count| count + 20)).then_some(()))
        })?;
        Ok(())
    })
}
