//! Two sites of the lab, and pairs of gateways that probe each other there.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_lab::{Conditions, Lab, LabReport, Site, Topology, Way};
use novacron_testbed::Scratch;
use novacron_testbed::gateway::{Gateway, GatewayOptions, Security};
use serde_json::{Value, json};

/// UDP port of the responders.
pub(super) const PORT: u16 = 7402;
/// What the gateways of a pair share.
pub(super) const SECRET: [u8; 32] = *b"01234567890123456789012345678901";

/// Sites `a` and `b`.
pub(super) struct Sites {
    lab: Lab,
    scratch: Scratch,
}

/// Where the gateways of a pair probe and answer, and what their processes are called besides `a` and `b`.
#[derive(Clone, Debug)]
pub(super) struct Between {
    pub(super) name: String,
    pub(super) a: IpAddr,
    pub(super) b: IpAddr,
}

/// Their gateways; they end when this is dropped.
pub(super) struct Pair {
    pub(super) a: Gateway,
    pub(super) b: Gateway,
    peer: String,
}

impl Sites {
    pub(super) fn start() -> Result<Self> {
        Self::joined_by(1)
    }

    /// The same with so many links side by side, of which the first is `wan`.
    pub(super) fn joined_by(links: usize) -> Result<Self> {
        let mut topology = Topology::two_sites(&Conditions::default());
        for number in 1..links {
            let mut link = topology.links[0].clone();
            link.name = format!("wan-{number}");
            topology.links.push(link);
        }
        Ok(Self { lab: Lab::start(&topology)?, scratch: Scratch::new()? })
    }

    /// The link is like this, both ways.
    pub(super) fn set(&self, conditions: &Conditions) -> Result<()> {
        self.set_forward(conditions, conditions)
    }

    /// Every link is like this, from `a` and to it.
    pub(super) fn set_forward(&self, forward: &Conditions, back: &Conditions) -> Result<()> {
        for end in self.a()?.ends() {
            self.lab.set(&end.link, Way::Forward, forward)?;
            self.lab.set(&end.link, Way::Back, back)?;
        }
        Ok(())
    }

    pub(super) fn a(&self) -> Result<&Site> {
        self.lab.site("a")
    }

    pub(super) fn b(&self) -> Result<&Site> {
        self.lab.site("b")
    }

    /// What became of frames since the links were last asked to count anew.
    pub(super) fn report(&self) -> Result<LabReport> {
        self.lab.report()
    }

    /// The links count anew.
    pub(super) fn reset(&self) -> Result<()> {
        self.lab.reset()
    }

    /// The ends of the links, one link after another.
    pub(super) fn links(&self) -> Result<Vec<Between>> {
        let b = self.b()?;
        let between = |end: &novacron_lab::End| {
            let far = b.address_on(&end.link).with_context(|| format!("b has no end of {}", end.link))?;
            Ok(Between { name: format!("-{}", end.link), a: end.v4.into(), b: far })
        };
        self.a()?.ends().iter().map(between).collect()
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

    /// A file of this name, beside the gateways' own.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }

    /// A new pair of gateways with more arguments each, that carry nothing.
    pub(super) fn gateways(&self, a: &[&str], b: &[&str]) -> Result<Pair> {
        self.start_pair(&self.first()?, a, b, &Security::Plaintext)
    }

    /// A new pair of gateways at both ends of a link, that carry nothing.
    pub(super) fn gateways_between(&self, link: &Between) -> Result<Pair> {
        self.start_pair(link, &[], &[], &Security::Plaintext)
    }

    /// A new pair of gateways of which `a` dials `b`, as they are but for congestion controls that the system keeps to the
    /// privileged: what they are told to switch to is granted.
    pub(super) fn carrying(&self) -> Result<Pair> {
        self.start_pair(&self.first()?, &["--unconfined"], &["--unconfined"], &Security::Tls)
    }

    fn first(&self) -> Result<Between> {
        Ok(Between { name: String::new(), a: self.a()?.address(), b: self.b()?.address() })
    }

    fn start_pair(&self, between: &Between, a: &[&str], b: &[&str], security: &Security) -> Result<Pair> {
        let peer = |address: IpAddr| vec!["--probe-peer".to_owned(), format!("{address}:{PORT}")];
        let words = |more: &[&str]| more.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        // Whoever is to be probed is there first.
        let b_arguments = [peer(between.a), words(b)].concat();
        let b = self.gateway(self.b()?, &format!("b{}", between.name), between.b, &b_arguments, security)?;
        let a_arguments = [peer(between.b), words(a)].concat();
        let a = self.gateway(self.a()?, &format!("a{}", between.name), between.a, &a_arguments, security)?;
        Ok(Pair { a, b, peer: format!("{}:{PORT}", between.b) })
    }

    /// A gateway at a site, that answers probes at an address there; `b` listens for others where there is anything to carry.
    pub(super) fn gateway(
        &self,
        site: &Site,
        name: &str,
        address: IpAddr,
        arguments: &[String],
        security: &Security,
    ) -> Result<Gateway> {
        let secret = self.scratch.file("probe-secret");
        let digits: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(&secret, digits)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let mut extra = vec!["--probe-listen".to_owned(), format!("{address}:{PORT}")];
        extra.extend(["--probe-secret".to_owned(), secret.display().to_string()]);
        extra.extend(arguments.iter().cloned());
        let options = GatewayOptions {
            listen: site.name() == "b" && *security != Security::Plaintext,
            address,
            prefix: site.enter(),
            security: security.clone(),
            extra,
            ..GatewayOptions::default()
        };
        Gateway::start(&self.scratch, name, &options)
    }

    /// A gateway at `a` that is not told of probes, and has nothing to do.
    pub(super) fn idle(&self) -> Result<Gateway> {
        let options = GatewayOptions {
            listen: false,
            prefix: self.a()?.enter(),
            security: Security::Plaintext,
            ..GatewayOptions::default()
        };
        Gateway::start(&self.scratch, "idle", &options)
    }
}

impl Pair {
    /// What `a` knows of the path.
    pub(super) fn path(&mut self) -> Result<Value> {
        self.a.process().must_run()?;
        self.a.rpc()?.call("path.probe", json!({ "peer": self.peer }))
    }

    /// The path from `a` to `b` has this mode from now on.
    pub(super) fn force(&self, mode: &str) -> Result<()> {
        self.a.rpc()?.call("path.force", json!({ "peer": self.peer, "mode": mode })).map(drop)
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
