//! What stands at both ends: gateways' versions and clocks, hypervisors' versions.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use novacron_control_api::{Call, GatewayInfo, Timestamp};

use super::DoctorArgs;
use super::report::Diagnosis;
use crate::limits::{DOCTOR_ANSWER, POLL_SHORT, SKEW_MS_MAX, SKEW_MS_WARN};
use crate::qmp::Hypervisor;
use crate::rpc;

type Version = (i64, i64, i64);

/// Versions of both gateways and the difference between their clocks.
pub(super) fn gateways(own: Option<&Path>, peer: Option<&Path>, found: &mut Diagnosis) {
    let ask = |path: Option<&Path>, found: &mut Diagnosis| -> Option<(GatewayInfo, u64)> {
        let began = SystemTime::now();
        let info: Result<GatewayInfo, _> = rpc::call(path?, Call::GatewayInfo);
        match info {
            // Its clock was read between the two: half way is at most half of it wrong.
            Ok(info) => {
                Some((info, Timestamp::from(began + began.elapsed().unwrap_or_default() / 2).unix_ms()))
            }
            Err(why) => {
                found.fail(
                    "gateways",
                    why.to_string(),
                    "start it, or correct the path of its control socket",
                );
                None
            }
        }
    };
    let own_info = ask(own, found).map(|(info, _)| info);
    let peer_info = ask(peer, found);
    match (&own_info, &peer_info) {
        (Some(own), Some((peer, _))) => versions(own, peer, found),
        (Some(one), None) | (None, Some((one, _))) => {
            found.ok("gateways", format!("{} (only one of them was asked)", described(one)));
        }
        (None, None) if own.is_none() && peer.is_none() => {
            found.skip("gateways", "give --gateway and --peer-gateway to compare versions");
        }
        (None, None) => {}
    }
    match peer_info {
        Some((info, here)) => clock(here, info.started_at.unix_ms().saturating_add(info.uptime_ms), found),
        None => found.skip("clocks", "give --peer-gateway to compare them; certificates tolerate an hour"),
    }
}

fn described(info: &GatewayInfo) -> String {
    format!(
        "{} (wire {:?}{})",
        info.version,
        info.wire_versions,
        if info.draining { ", draining" } else { "" }
    )
}

fn versions(own: &GatewayInfo, peer: &GatewayInfo, found: &mut Diagnosis) {
    let text = format!("{} here, {} there", described(own), described(peer));
    let common = own.wire_versions.iter().any(|version| peer.wire_versions.contains(version));
    match (common, own.draining || peer.draining) {
        (false, _) => {
            found.fail("gateways", text, "they speak no common version of the wire: update the older one")
        }
        (true, true) => {
            found.warn("gateways", text, "one of them is about to stop and takes no new sessions")
        }
        (true, false) => found.ok("gateways", text),
    }
}

fn clock(here_ms: u64, there_ms: u64, found: &mut Diagnosis) {
    let skew = here_ms.abs_diff(there_ms);
    let side = if here_ms > there_ms { "behind" } else { "ahead" };
    let text = format!("the peer's is {skew} ms {side}");
    let next = "run a time service at both sites";
    match skew {
        0..=SKEW_MS_WARN => found.ok("clocks", text),
        skew if skew < SKEW_MS_MAX => found.warn("clocks", text, next),
        _ => found.fail("clocks", text, format!("{next}: new certificates are not valid there")),
    }
}

/// QEMU's version at both sides, where they can be asked.
pub(super) fn hypervisors(args: &DoctorArgs, found: &mut Diagnosis) {
    let qmp =
        |path: &Path| Hypervisor::connect(path).map(|qemu| qemu.version()).map_err(|why| why.to_string());
    let here = match (&args.source_qmp, &args.qemu) {
        (Some(path), _) => Some(qmp(path)),
        (None, Some(program)) => Some(program_version(program)),
        (None, None) => None,
    };
    let there = args.destination_qmp.as_deref().map(qmp);
    let text = |(major, minor, micro): Version| format!("{major}.{minor}.{micro}");
    match (here, there) {
        (None, None) => {
            found.skip("QEMU", "give --source-qmp or --qemu, and --destination-qmp, to compare versions")
        }
        (Some(Err(why)), _) | (_, Some(Err(why))) => found.fail("QEMU", why, "start it, or correct the path"),
        (Some(Ok(one)), None) | (None, Some(Ok(one))) => {
            found.ok("QEMU", format!("{} (only one side was asked)", text(one)));
        }
        (Some(Ok(here)), Some(Ok(there))) => {
            let both = format!("{} here, {} there", text(here), text(there));
            if there < here {
                let next = "guests go from older to newer: towards there, start them with a machine type that both know";
                found.warn("QEMU", both, next);
            } else {
                found.ok("QEMU", both);
            }
        }
    }
}

/// Asks a program for its version, bounded in time and output.
fn program_version(program: &Path) -> Result<Version, String> {
    let name = program.display();
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|why| format!("{name} cannot be run: {why}"))?;
    let deadline = Instant::now() + DOCTOR_ANSWER;
    while child.try_wait().map_err(|why| why.to_string())?.is_none() {
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!(
                "{name} --version did not end within {} s",
                Duration::as_secs(&DOCTOR_ANSWER)
            ));
        }
        std::thread::sleep(POLL_SHORT);
    }
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // A program that has ended leaves at most a pipe's worth behind.
        let _ = stdout.take(64 << 10).read_to_end(&mut text);
    }
    version_in(&String::from_utf8_lossy(&text)).ok_or_else(|| format!("{name} --version names no version"))
}

/// The three numbers after the word "version".
fn version_in(text: &str) -> Option<Version> {
    let rest = text.split("version ").nth(1)?;
    let mut numbers = rest
        .split(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .next()?
        .split('.')
        .map(str::parse::<i64>);
    let mut next = || numbers.next().and_then(Result::ok);
    Some((next()?, next()?, next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let said = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c) 2003";
        assert_eq!(version_in(said), Some((10, 0, 2)));
        assert_eq!(version_in("QEMU emulator version 7.2"), Some((7, 2, 0)));
        assert_eq!(version_in("version x"), None);
        assert_eq!(version_in(""), None);
    }

    #[test]
    fn clocks_may_differ_by_little() {
        for (there, standing) in [(10_000, "ok"), (10_000 + 60_000, "warn"), (10_000 + SKEW_MS_MAX, "fail")] {
            let mut found = Diagnosis::of("x".into());
            clock(10_000, there, &mut found);
            let json = serde_json::to_value(&found).expect("JSON");
            assert_eq!(json["checks"][0]["standing"], standing);
        }
    }
}
