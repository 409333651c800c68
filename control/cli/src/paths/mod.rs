//! `paths` and `probe`: what a gateway knows of the network to its peers.

mod plot;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use novacron_control_api::{
    Call, ForceParams, Interval, PathList, PathMode, PathRecord, PathRef, ResponderRecord,
};

use crate::args::GatewayArgs;
use crate::rpc::{self, GatewayError};
use crate::sessions::json;

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The peer, as the gateway was told with --probe-peer
    pub(crate) peer: SocketAddr,

    /// Ask again every second, and draw round trip and bandwidth; with --json an object a line
    #[arg(long)]
    pub(crate) watch: bool,

    /// Stop watching after so many times
    #[arg(long, value_name = "COUNT", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) times: Option<u64>,

    /// What the path is taken for from now on, whatever is measured; 'auto': what is measured
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) mode: Option<ForcedMode>,

    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// A mode, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ForcedMode {
    Auto,
    Datacenter,
    Internet,
    Hybrid,
}

impl ForcedMode {
    fn mode(self) -> Option<PathMode> {
        match self {
            Self::Auto => None,
            Self::Datacenter => Some(PathMode::Datacenter),
            Self::Internet => Some(PathMode::Internet),
            Self::Hybrid => Some(PathMode::Hybrid),
        }
    }
}

/// Lists the paths.
pub(crate) fn list(args: &GatewayArgs) -> Result<String, GatewayError> {
    let list: PathList = rpc::call(&args.gateway, Call::PathList)?;
    Ok(if args.json { json(&list) } else { table(&list) })
}

/// Shows one path; with `--watch` again and again, each time through `show`.
pub(crate) fn probe(args: &ProbeArgs, show: impl Fn(&str)) -> Result<String, GatewayError> {
    if let Some(forced) = args.mode {
        let params = ForceParams { peer: args.peer, mode: forced.mode() };
        let _: PathRecord = rpc::call(&args.gateway.gateway, Call::PathForce(params))?;
    }
    let mut left = args.times;
    loop {
        let record: PathRecord =
            rpc::call(&args.gateway.gateway, Call::PathProbe(PathRef { peer: args.peer }))?;
        left = left.map(|left| left - 1);
        let text = match (args.gateway.json, args.watch) {
            (true, false) => json(&record),
            (true, true) => {
                serde_json::to_string(&PathRecord { samples: Vec::new(), ..record }).unwrap_or_default()
                    + "\n"
            }
            (false, false) => describe(&record),
            // Home, and what is below the text cleared: no flicker.
            (false, true) => format!("\x1b[H{}{}\x1b[J", describe(&record), plot::of(&record.samples)),
        };
        if !args.watch || left == Some(0) {
            return Ok(text);
        }
        show(&text);
        std::thread::sleep(WATCH_INTERVAL);
    }
}

fn table(list: &PathList) -> String {
    let mut text = format!(
        "{:<24}  {:<10}  {:>10}  {:>10}  {:>14}  {:>9}  {}\n",
        "PEER", "MODE", "RTT MIN", "MEDIAN", "BANDWIDTH", "LOSS", "BY"
    );
    for path in &list.paths {
        text += &format!(
            "{:<24}  {:<10}  {:>10}  {:>10}  {:>14}  {:>9}  {}\n",
            path.peer.to_string(),
            mode(path.mode),
            value(path.rtt_min_ns, time),
            value(path.rtt_median_ns, time),
            value(path.bandwidth_bits_per_s, rate),
            value(path.loss_forward_ppm, share),
            path.measured_by.as_deref().unwrap_or("-"),
        );
    }
    match &list.responder {
        Some(responder) => text + &answers(responder),
        None => text + "nobody answers probes here: the gateway was started without --probe-listen\n",
    }
}

fn answers(responder: &ResponderRecord) -> String {
    let on = responder.interface.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
    let counts: Vec<String> = responder
        .counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let mut text = format!("probes at {} are answered by {}{on}: ", responder.listen, responder.by);
    text += if counts.is_empty() { "none came" } else { "" };
    text += &counts.join(", ");
    for limit in &responder.limits {
        text += &format!("\n  {limit}");
    }
    text + "\n"
}

fn describe(record: &PathRecord) -> String {
    let why = record.mode_why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let mut text = format!("path to    {}\nmode       {}{why}\n", record.peer, mode(record.mode));
    if let Some(profile) = &record.profile {
        text += &format!(
            "profile    {}, {} to {} streams, {}, zstd {} to {}{}, {}\n",
            profile.transports.join(" or "),
            profile.streams_min,
            profile.streams_max,
            profile.congestion,
            profile.zstd_level_min,
            profile.zstd_level_max,
            if profile.lz4 { ", lz4" } else { "" },
            profile.consensus,
        );
    }
    text += &format!("\n{:<18}  {:>14}  {}\n", "", "VALUE", "95 % BETWEEN");
    let rows: [(&str, Option<Interval>, Say); 8] = [
        ("round trip, least", record.rtt_min_ns, time),
        ("median", record.rtt_median_ns, time),
        ("99 % below", record.rtt_p99_ns, time),
        ("jitter", record.jitter_ns, time),
        ("loss there", record.loss_forward_ppm, share),
        ("loss back", record.loss_return_ppm, share),
        ("reordering", record.reordering_ppm, share),
        ("bandwidth", record.bandwidth_bits_per_s, rate),
    ];
    for (name, interval, say) in rows {
        let between =
            interval.map(|said| format!("{} and {}", say(said.low), say(said.high))).unwrap_or_default();
        text += &format!("{name:<18}  {:>14}  {between}\n", value(interval, say));
    }
    if record.bandwidth_is_floor {
        text += "                    the path may have more: this side could not ask for it\n";
    }
    text += &format!(
        "\n{} probes within a minute, {} answered, stamped by {}; {} MB sent in all\n",
        record.probes,
        record.answers,
        record.measured_by.as_deref().unwrap_or("nobody yet"),
        record.wire_bytes / 1_000_000,
    );
    for change in record.mode_changes.iter().rev().take(5) {
        text +=
            &format!("{}  {} to {} ({})\n", change.at, mode(change.from), mode(Some(change.to)), change.why);
    }
    text
}

fn mode(mode: Option<PathMode>) -> &'static str {
    match mode {
        None => "-",
        Some(PathMode::Datacenter) => "datacenter",
        Some(PathMode::Internet) => "internet",
        Some(PathMode::Hybrid) => "hybrid",
    }
}

/// Words for a number.
type Say = fn(u64) -> String;

fn value(interval: Option<Interval>, say: Say) -> String {
    interval.map_or_else(|| "-".to_owned(), |said| say(said.value))
}

pub(crate) fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

fn share(ppm: u64) -> String {
    format!("{:.3} %", ppm as f64 / 1e4)
}

pub(crate) fn rate(bits_per_s: u64) -> String {
    match bits_per_s {
        0..1_000_000_000 => format!("{:.1} Mbit/s", bits_per_s as f64 / 1e6),
        _ => format!("{:.2} Gbit/s", bits_per_s as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> PathRecord {
        let text = r#"{"peer":"192.0.2.2:7402","mode":"internet","mode_why":"measured","mode_changes":[],"profile":null,
            "measured_by":"xdp_driver","probes":3000,"answers":2990,"rtt_min_ns":{"value":20100000,"low":20000000,"high":20100000},
            "rtt_median_ns":null,"rtt_p99_ns":null,"jitter_ns":null,"loss_forward_ppm":{"value":1000,"low":300,"high":2900},
            "loss_return_ppm":null,"reordering_ppm":null,"bandwidth_bits_per_s":{"value":49500000,"low":48000000,"high":1200000000},
            "bandwidth_is_floor":false,"wire_bytes":5000000}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_estimate_is_shown_with_its_interval() {
        let text = describe(&record());
        for part in [
            "internet (measured)",
            "20.10 ms  20.00 ms and 20.10 ms",
            "0.100 %  0.030 % and 0.290 %",
            "49.5 Mbit/s  48.0 Mbit/s and 1.20 Gbit/s",
            "stamped by xdp_driver",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_gateway_that_answers_nobody_says_so() {
        let text = table(&PathList { paths: vec![record()], responder: None });
        assert!(text.contains("--probe-listen") && text.contains("192.0.2.2:7402"), "{text}");
    }
}
