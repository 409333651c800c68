//! Who answers a gateway's probes, by what it may do: the kernel's program goes with the gateway, however that ends, and a socket
//! answers where the program cannot be loaded.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_bench::ability::Ability;
use novacron_lab::{Conditions, Lab, Site, Topology};
use novacron_testbed::{Gateway, GatewayOptions, Scratch, Security, artefact, wait};
use serde_json::{Value, json};

/// UDP port of the responders.
const PORT: u16 = 7402;
/// The link, and its device at both sites.
const DEVICE: &str = "wan";
/// Somebody who owns nothing, and whose programs may do nothing that needs a privilege.
const NOBODY: u32 = 65_534;
/// For answers and their estimates, and for the kernel to bury a process.
const SEEN: Duration = Duration::from_secs(20);

fn lab() -> Result<Option<Lab>> {
    let ability = Ability::here();
    for needed in [&ability.lab, &ability.gateways] {
        if let Err(missing) = needed {
            eprintln!("skipped: {missing}");
            return Ok(None);
        }
    }
    Ok(Some(Lab::start(&Topology::two_sites(&Conditions { delay_ms: 1.0, ..Conditions::default() }))?))
}

/// Words that take every privilege from the command behind them.
fn unprivileged() -> Vec<String> {
    let id = NOBODY.to_string();
    [
        "setpriv",
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "--bounding-set",
        "-all",
        "--no-new-privs",
        "--",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A gateway at a site that probes the other one and answers it, behind the words of `prefix`.
fn gateway(
    (scratch, lab): (&Scratch, &Lab),
    (own, peer): (&str, &str),
    prefix: &[String],
    more: &[&str],
) -> Result<Gateway> {
    let secret = scratch.file(&format!("probe-secret-{own}"));
    fs::write(&secret, "5a".repeat(32))?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    if !prefix.is_empty() {
        chown(&secret, Some(NOBODY), Some(NOBODY))?;
    }
    let site = lab.site(own)?;
    let at = |site: &Site| format!("{}:{PORT}", site.address());
    let mut extra = ["--probe-listen", &at(site), "--probe-peer", &at(lab.site(peer)?), "--probe-secret"]
        .map(str::to_owned)
        .to_vec();
    extra.push(secret.display().to_string());
    extra.extend(more.iter().map(|word| (*word).to_owned()));
    let options = GatewayOptions {
        listen: false,
        prefix: [site.enter(), prefix.to_vec()].concat(),
        security: Security::Plaintext,
        extra,
        ..GatewayOptions::default()
    };
    Gateway::start(scratch, &format!("gateway-{own}"), &options)
}

/// Whether a program is attached to the link's device at a site.
fn has_program(site: &Site) -> Result<bool> {
    let enter = site.enter();
    let output = Command::new(&enter[0])
        .args(&enter[1..])
        .args(["ip", "-d", "link", "show", "dev", DEVICE])
        .output()
        .context("asking ip for the device")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains(DEVICE), "ip says {output:?}");
    Ok(said.contains("prog/xdp"))
}

fn responder(gateway: &Gateway) -> Result<Value> {
    Ok(gateway.rpc()?.call("path.list", json!({}))?["responder"].clone())
}

/// Waits until answers come from who is expected.
fn wait_measured_by(gateway: &Gateway, by: &str) -> Result<Value> {
    wait::until(&format!("a path measured by {by}"), SEEN, || {
        let list = gateway.rpc()?.call("path.list", json!({}))?;
        let path = list.pointer("/paths/0").cloned().context("a path is probed")?;
        let answered = path["answers"].as_u64() > Some(10) && !path["rtt_min_ns"].is_null();
        Ok((answered && path["measured_by"] == by).then_some(path))
    })
}

fn wait_detached(site: &Site) -> Result<()> {
    wait::until("the program to be gone", SEEN, || Ok((!has_program(site)?).then_some(())))
}

#[test]
fn without_privileges_a_gateway_says_what_it_lacks_and_a_socket_answers() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let program = artefact::binary("novacron-gateway")?;
    let prefix = unprivileged();
    let may_run = Command::new(&prefix[0]).args(&prefix[1..]).arg("test").arg("-x").arg(&program).status()?;
    if !may_run.success() {
        eprintln!("skipped: user {NOBODY} cannot reach {}", program.display());
        return Ok(());
    }
    Scratch::with_logs(|scratch| {
        // Its control socket stands there.
        chown(scratch.path(), Some(NOBODY), Some(NOBODY))?;
        let a = gateway((scratch, &lab), ("a", "b"), &[], &[])?;
        let mut b = gateway((scratch, &lab), ("b", "a"), &prefix, &[])?;
        let status = fs::read_to_string(format!("/proc/{}/status", b.process().pid()))?;
        let none = |name: &str| {
            let said = status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            said.is_some_and(|bits| bits.bytes().all(|digit| digit == b'0'))
        };
        ensure!(none("CapEff:") && none("CapPrm:") && none("CapBnd:"), "it has privileges: {status}");

        // It says so, in the log and to callers: what is missing, and who answers instead.
        let log = fs::read_to_string(b.process().log())?;
        let said = responder(&b)?;
        for text in [&log, &said.to_string()] {
            for part in ["a socket answers probes", DEVICE, "CAP_BPF", "CAP_NET_ADMIN"] {
                ensure!(text.contains(part), "{part:?} is not said: {text}");
            }
        }
        ensure!(said["by"] == "userspace" && said["interface"].is_null(), "{said}");
        ensure!(!has_program(lab.site("b")?)?, "somebody else's program");

        // Probes go both ways all the same, and each side knows who answered it.
        let path = wait_measured_by(&a, "userspace")?;
        ensure!(path["mode"].is_string(), "{path}");
        let by = responder(&a)?["by"].as_str().context("who answers")?.to_owned();
        wait_measured_by(&b, &by)?;
        b.process().must_run()
    })
}

#[test]
fn a_gateway_that_was_killed_leaves_nothing_attached_and_the_next_one_attaches_again() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    Scratch::with_logs(|scratch| {
        let site = lab.site("b")?;
        let a = gateway((scratch, &lab), ("a", "b"), &[], &["--xdp", "off"])?;
        let mut b = gateway((scratch, &lab), ("b", "a"), &[], &[])?;
        let said = responder(&b)?;
        if said["by"] != "xdp_driver" {
            eprintln!("skipped: the kernel does not answer here: {said}");
            return Ok(());
        }
        for _ in 0..3 {
            ensure!(has_program(site)?, "nothing is attached: {said}");
            wait_measured_by(&a, "xdp_driver")?;
            // SIGKILL: it has no chance to take anything away.
            b.process().kill();
            wait_detached(site)?;
            // Asked for by name: it would not start if something stood in its way.
            b = gateway((scratch, &lab), ("b", "a"), &[], &["--xdp", "driver"])?;
        }
        let before = responder(&b)?.pointer("/counts/answered").and_then(Value::as_u64);
        wait::until("answers of the last one", SEEN, || {
            let now = responder(&b)?.pointer("/counts/answered").and_then(Value::as_u64);
            Ok((now > before.map(|count| count + 10)).then_some(()))
        })?;
        ensure!(has_program(site)?, "it answers, and nothing is attached");
        let status = b.process().terminate()?;
        ensure!(status.success(), "{status}: {}", b.process().log_tail());
        wait_detached(site)
    })
}
