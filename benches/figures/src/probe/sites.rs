//! Two sites of the lab, and a pair of gateways that probe each other there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_lab::{Conditions, Lab, Topology, Way};
use novacron_testbed::Scratch;
use novacron_testbed::gateway::{Gateway, GatewayOptions, Security};
use serde_json::{Value, json};

/// UDP port of the responders.
const PORT: u16 = 7402;
const SECRET: &str = "3031323334353637383930313233343536373839303132333435363738393031";

/// Sites `a` and `b`.
pub(super) struct Sites {
    lab: Lab,
    scratch: Scratch,
}

/// Their gateways; they end when this is dropped.
pub(super) struct Pair {
    a: Gateway,
    pub(super) b: Gateway,
    peer: String,
}

impl Sites {
    pub(super) fn start() -> Result<Self> {
        let lab = Lab::start(&Topology::two_sites(&Conditions::default()))?;
        Ok(Self { lab, scratch: Scratch::new()? })
    }

    /// The link is like this, both ways.
    pub(super) fn set(&self, conditions: &Conditions) -> Result<()> {
        self.set_forward(conditions, conditions)
    }

    /// The link is like this, from `a` and to it.
    pub(super) fn set_forward(&self, forward: &Conditions, back: &Conditions) -> Result<()> {
        self.lab.set("wan", Way::Forward, forward)?;
        self.lab.set("wan", Way::Back, back)
    }

    /// `ping -A`'s least round trip from `a` to `b`, milliseconds.
    pub(super) fn ping_min_ms(&self) -> Result<f64> {
        let enter = self.lab.site("a")?.enter();
        let to = self.lab.site("b")?.address().to_string();
        let output = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["ping", "-A", "-n", "-q", "-c", "200", "-w", "8", &to])
            .output()
            .context("ping")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let times =
            said.lines().find_map(|line| line.split_once(" = ").filter(|(name, _)| name.starts_with("rtt")));
        let least = times.and_then(|(_, times)| times.split('/').next()?.parse().ok());
        least.with_context(|| format!("ping says no times: {said}"))
    }

    /// A new pair of gateways with more arguments each.
    pub(super) fn gateways(&self, a: &[&str], b: &[&str]) -> Result<Pair> {
        let secret = self.scratch.file("probe-secret");
        fs::write(&secret, SECRET)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let of = |site: &str| -> Result<String> { Ok(format!("{}:{PORT}", self.lab.site(site)?.address())) };
        let start = |own: &str, peer: &str, more: &[&str]| -> Result<Gateway> {
            let site = self.lab.site(own)?;
            let mut extra = ["--probe-listen", &of(own)?, "--probe-peer", &of(peer)?, "--probe-secret"]
                .map(str::to_owned)
                .to_vec();
            extra.push(secret.display().to_string());
            extra.extend(more.iter().map(|word| (*word).to_owned()));
            let options = GatewayOptions {
                listen: false,
                prefix: site.enter(),
                security: Security::Plaintext,
                extra,
                ..GatewayOptions::default()
            };
            Gateway::start(&self.scratch, own, &options)
        };
        // Whoever is to be probed is there first.
        let b = start("b", "a", b)?;
        let a = start("a", "b", a)?;
        Ok(Pair { a, b, peer: of("b")? })
    }
}

impl Pair {
    /// What `a` knows of the path.
    pub(super) fn path(&mut self) -> Result<Value> {
        self.a.process().must_run()?;
        self.a.rpc()?.call("path.probe", json!({ "peer": self.peer }))
    }

    /// Who answers at `b`, and what came of it.
    pub(super) fn responder(&mut self) -> Result<Value> {
        self.b.process().must_run()?;
        Ok(self.b.rpc()?.call("path.list", json!({}))?["responder"].clone())
    }

    /// From `a`'s start to its first decision of the mode.
    pub(super) fn first_decision(&mut self) -> Result<Duration> {
        let path = self.path()?;
        let changed = path
            .pointer("/mode_changes/0/at")
            .and_then(Value::as_str)
            .context("no mode was decided")?
            .to_owned();
        let info = self.a.rpc()?.call("gateway.info", json!({}))?;
        let started = info["started_at"].as_str().context("gateway.info has no started_at")?.to_owned();
        let ms = |text: &str| -> Result<i64> {
            // 2026-11-21T10:00:00.123Z: within a day of each other.
            let digits = |at: usize, length: usize| -> Result<i64> {
                Ok(text.get(at..at + length).context("a time that is cut")?.parse::<i64>()?)
            };
            Ok(((digits(11, 2)? * 60 + digits(14, 2)?) * 60 + digits(17, 2)?) * 1000 + digits(20, 3)?)
        };
        let waited = (ms(&changed)? - ms(&started)?).rem_euclid(86_400_000);
        ensure!(waited < 60_000, "the mode was decided at {changed}, the gateway started at {started}");
        Ok(Duration::from_millis(waited.unsigned_abs()))
    }
}
