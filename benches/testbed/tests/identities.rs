//! From nothing to two gateways that know each other, by the commands of the README, and what `novactl doctor` says of the two.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::ANSWER_WAIT;
use novacron_testbed::opaque::must_carry;
use novacron_testbed::{Gateway, GatewayOptions, Process, Scratch, Security, artefact, novactl, wait};
use serde_json::Value;

/// Rows that fit on a terminal's screen.
const SCREEN_ROWS: usize = 24;

/// A command of novactl that must do what it should; returns what it said.
fn done(scratch: &Scratch, name: &str, arguments: &[&str]) -> Result<String> {
    let (status, said) = novactl::run(scratch, name, arguments)?;
    ensure!(status.success(), "novactl {}: {said}", arguments.join(" "));
    Ok(said)
}

/// `pair offer` at one folder and `pair accept` at the other.
fn pair(scratch: &Scratch, offers: &Path, accepts: &Path) -> Result<()> {
    let [offers, accepts] = [offers, accepts].map(|path| path.display().to_string());
    let code = scratch.file("code").display().to_string();
    let words = ["pair", "offer", "--json", "--yes", "--listen", "tcp:127.0.0.1:0", "--code-file", &code];
    let words: Vec<String> = words.into_iter().chain(["--identity", &offers]).map(str::to_owned).collect();
    let mut offer = Process::start(scratch, "offer", &artefact::binary("novactl")?, &words)?;
    let listens = wait::until("where the offer waits", ANSWER_WAIT, || {
        offer.must_run()?;
        let said = std::fs::read_to_string(offer.log()).context("reading what the offer says")?;
        let line = said.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(line.and_then(|line| line["listen"].as_str().map(str::to_owned)))
    })?;
    let accept = ["pair", "accept", "--json", "--yes", "--connect", &listens, "--code-file", &code];
    let accept: Vec<&str> = accept.into_iter().chain(["--identity", &accepts]).collect();
    done(scratch, "accept", &accept)?;
    let status = offer.wait(ANSWER_WAIT)?;
    ensure!(status.success(), "the offer: {}", offer.log_tail());
    Ok(())
}

#[test]
fn the_commands_of_the_readme_make_two_gateways_that_doctor_finds_well() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let folders = ["a", "b"].map(|site| scratch.file(&format!("gw-{site}")));
        for (site, folder) in ["a", "b"].into_iter().zip(&folders) {
            let keys = scratch.file(&format!("keys-{site}")).display().to_string();
            done(scratch, "init", &["keys", "init", &format!("site-{site}"), "--keys", &keys])?;
            let (holder, folder) = (format!("gateway/gw-{site}"), folder.display().to_string());
            done(scratch, "issue", &["keys", "issue", &holder, "--keys", &keys, "--identity", &folder])?;
        }
        let start = |name: &str, folder: &Path| {
            let security = Security::Identity(folder.to_owned());
            Gateway::start(scratch, name, &GatewayOptions { security, ..GatewayOptions::default() })
        };
        let (a, b) = (start("gateway-a", &folders[0])?, start("gateway-b", &folders[1])?);
        let [own, control, peer_control] =
            [folders[0].as_path(), a.control(), b.control()].map(|path| path.display().to_string());
        let doctor = ["doctor", b.peer()?, "--identity", &own, "--gateway", &control];
        let doctor: Vec<&str> = doctor.into_iter().chain(["--peer-gateway", &peer_control]).collect();
        let (status, said) = novactl::run(scratch, "doctor-before", &doctor)?;
        ensure!(!status.success(), "two sites that are not paired can talk: {said}");
        ensure!(said.contains("pair"), "it does not say what to do: {said}");

        // The gateways run all the while, and read what pairing wrote.
        pair(scratch, &folders[1], &folders[0])?;
        wait::until("the gateways to read their folders", ANSWER_WAIT, || {
            Ok(must_carry(scratch, [&a, &b]).ok())
        })?;
        let (status, said) = novactl::run(scratch, "doctor", &doctor)?;
        ensure!(status.success(), "{said}");
        for told in ["X25519MLKEM768", "novacron://site-a/gateway/gw-a", "novacron://site-b/gateway/gw-b"] {
            ensure!(said.contains(told), "it does not say {told}: {said}");
        }
        ensure!(said.lines().count() <= SCREEN_ROWS, "more than a screen: {said}");
        must_carry(scratch, [&b, &a])
    })
}
