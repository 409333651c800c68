//! Our gateways, one at each site, and `novactl migrate`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use novacron_testbed::migration::pause_between;
use novacron_testbed::{Between, Gateway, GatewayOptions, Novactl, Qemu, Security, TimedOut};

use super::Stage;
use super::migration::{Moved, Mover};
use crate::contender::{Contender, Tuning};
use crate::limits::REPORT_WAIT;
use crate::meter::Watched;

/// Two fresh gateways.
pub(super) struct Gateways<'a> {
    stage: &'a Stage<'a>,
    pub(super) source: Gateway,
    pub(super) destination: Gateway,
    arguments: Vec<String>,
}

impl<'a> Gateways<'a> {
    pub(super) fn start(stage: &'a Stage<'a>, contender: &Contender) -> Result<Self> {
        let network = stage.network;
        // The congestion control is the scenario's, as it is for all others.
        let extra = ["--congestion", "system"].map(str::to_owned).to_vec();
        // Keys of the scratch folder: an operator's gateways have theirs, and what they cost belongs to the figure.
        let security = match contender.tuning.plaintext {
            Some(true) => Security::Plaintext,
            _ => Security::Tls,
        };
        let options = GatewayOptions {
            address: network.destination.address,
            prefix: network.destination.prefix.clone(),
            security: security.clone(),
            extra: extra.clone(),
            ..GatewayOptions::default()
        };
        let destination = Gateway::start(stage.scratch, "destination-gateway", &options)?;
        let options = GatewayOptions {
            listen: false,
            prefix: network.source.prefix.clone(),
            security,
            extra,
            ..GatewayOptions::default()
        };
        let source = Gateway::start(stage.scratch, "source-gateway", &options)?;
        let mut arguments = novactl_arguments(&contender.tuning);
        let scenario = stage.scenario;
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        add("--timeout", scenario.time_limit.as_secs().to_string());
        add("--downtime-limit", scenario.downtime_limit.as_millis().to_string());
        add("--max-bandwidth", scenario.max_bandwidth.unwrap_or(0).to_string());
        Ok(Self { stage, source, destination, arguments })
    }

    pub(super) fn watched(&mut self) -> Vec<Watched> {
        vec![
            Watched::new("source", "gateway", self.source.process().pid()),
            Watched::new("destination", "gateway", self.destination.process().pid()),
        ]
    }
}

/// A contender's settings as novactl takes them.
fn novactl_arguments(tuning: &Tuning) -> Vec<String> {
    let mut arguments = Vec::new();
    let settings = tuning.said();
    for name in ["streams", "lanes", "codec", "level"] {
        if let Some(value) = settings.get(name) {
            arguments.extend([format!("--{name}"), value.clone()]);
        }
    }
    if tuning.digest == Some(false) {
        arguments.push("--no-digest".to_owned());
    }
    arguments
}

impl Mover for Gateways<'_> {
    fn processes(&mut self) -> Vec<Watched> {
        self.watched()
    }

    fn go(&mut self, source: &mut Qemu, destination: &mut Qemu, interval: Duration) -> Result<Moved> {
        let between = Between {
            source,
            destination,
            source_gateway: &self.source,
            destination_gateway: &self.destination,
        };
        let extra: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut novactl = Novactl::migrate(self.stage.scratch, "novactl", &between, &extra)?;
        let ended = novactl.finish(self.stage.scenario.time_limit + REPORT_WAIT)?;
        let report = &ended.report;
        if report["outcome"] != "completed" {
            if report["reason"]["code"] == "timeout" {
                return Err(TimedOut { limit: self.stage.scenario.time_limit, in_postcopy: false }.into());
            }
            bail!("novactl: {}: {}", report["outcome"], report["reason"]["message"]);
        }
        // Where digests were not asked for there are none to be unequal.
        if report["digest_equal"] == false {
            bail!("the gateways report unequal digests");
        }
        let ms = |name: &str| report[name].as_u64().map(Duration::from_millis);
        Ok(Moved {
            total: ms("total_ms").context("novactl reports no total time")?,
            downtime: ms("downtime_ms"),
            pause: pause_between(source.guest().serial(), destination.guest().serial(), interval)?,
            guest_bytes: report["guest_bytes"].as_u64(),
            iterations: report["iterations"].as_u64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Codec;

    #[test]
    fn settings_reach_novactl() {
        let tuning = Tuning {
            streams: Some(8),
            codec: Some(Codec::Zstd),
            level: Some(1),
            digest: Some(false),
            ..Tuning::default()
        };
        let words = ["--streams", "8", "--codec", "zstd", "--level", "1", "--no-digest"];
        assert_eq!(novactl_arguments(&tuning), words);
        assert_eq!(novactl_arguments(&Tuning::default()), Vec::<String>::new());
    }
}
