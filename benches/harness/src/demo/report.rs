//! What the demonstration found: the contents of `target/demo/report.json`, and its tables.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::units::Unit;

/// What the demonstration found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The guest looked at all of its memory after the move and found every page as it had written it.
    pub guest_verified: bool,
    /// The bytes that left the source hypervisor and those that reached the destination have the same digest.
    pub digest_equal: bool,
    /// Both gateways say that what went between them was encrypted.
    pub encrypted: bool,
    /// How long the guest's heart stood still, milliseconds.
    pub guest_pause_ms: f64,
    /// How long `novactl migrate` says that the migration took, milliseconds.
    pub total_ms: f64,
    /// Bytes that the source hypervisor wrote.
    pub guest_bytes: u64,
    /// Bytes that went between the gateways, as they count them: frames of their own, without what TCP, IP and Ethernet add.
    pub wire_bytes: u64,
    /// What joins the two sites: "200 Mbit/s, 40 ms RTT", or loopback and why.
    pub link: String,
    /// The gateways' move and QEMU's own ways on the same link, one move of the same guest each.
    pub contenders: Vec<Contender>,
}

/// One row of the last table. What was not measured is `null`: all of it when the contender was given up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contender {
    /// As the benchmarks call it.
    pub name: String,
    /// `completed`, or what came instead.
    pub result: String,
    /// From the command to the guest running at the destination, milliseconds.
    pub total_ms: Option<f64>,
    /// How long the guest's heart stood still, milliseconds.
    pub guest_pause_ms: Option<f64>,
    /// Whole Ethernet frames on the link, both ways, as the lab counted them; `null` on loopback, where nobody counts.
    pub wire_bytes: Option<u64>,
    /// The guest found its memory as it had written it.
    pub guest_verified: Option<bool>,
}

/// Milliseconds with one digit after the point.
pub(super) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

impl Contender {
    /// One that did not finish.
    pub(super) fn without(name: &str, result: String) -> Contender {
        Contender {
            name: name.to_owned(),
            result,
            total_ms: None,
            guest_pause_ms: None,
            wire_bytes: None,
            guest_verified: None,
        }
    }
}

impl Report {
    /// Fails when what was found is not what was promised. What QEMU's own ways do is no promise of ours.
    ///
    /// # Errors
    /// Names what failed.
    pub fn check(&self) -> Result<()> {
        ensure!(self.guest_verified, "the guest found bad pages in its memory");
        ensure!(self.digest_equal, "the gateways did not report equal digests");
        ensure!(self.encrypted, "the guest's memory crossed the link in the clear");
        ensure!(self.guest_bytes > 0 && self.wire_bytes > 0, "the gateways carried nothing");
        Ok(())
    }

    /// What was found of the gateways' move, as a table.
    pub fn table(&self) -> String {
        let yes = |fact| if fact { "yes" } else { "NO" };
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let rows = [
            ("guest verified", yes(self.guest_verified).to_owned()),
            ("digest equal", yes(self.digest_equal).to_owned()),
            ("encrypted", yes(self.encrypted).to_owned()),
            ("guest-seen pause", format!("{:.1} ms", self.guest_pause_ms)),
            ("total time", format!("{:.0} ms", self.total_ms)),
            ("guest bytes", mb(self.guest_bytes)),
            ("wire bytes", mb(self.wire_bytes)),
        ];
        rows.map(|(name, value)| format!("  {name:<18}{value:>14}\n")).concat()
    }

    /// The gateways beside QEMU's own ways.
    pub fn beside(&self) -> String {
        let mut text = format!(
            "  The same guest over the same link, one move each ({})\n\n  {:<16}{:>12}{:>18}{:>16}{:>16}\n",
            self.link, "", "total time", "guest-seen pause", "on the link", "guest verified"
        );
        for row in &self.contenders {
            let text_of =
                |value: Option<f64>, unit: Unit<'_>| value.map_or("-".to_owned(), |value| unit.text(value));
            let cells = match row.total_ms {
                None => format!("  {}", row.result),
                Some(_) => format!(
                    "{:>12}{:>18}{:>16}{:>16}",
                    text_of(row.total_ms, Unit::Ms),
                    text_of(row.guest_pause_ms, Unit::Ms),
                    text_of(row.wire_bytes.map(|bytes| bytes as f64), Unit::Bytes),
                    match row.guest_verified {
                        Some(true) => "yes",
                        Some(false) => "NO",
                        None => "-",
                    }
                ),
            };
            text += &format!("  {:<16}{cells}\n", row.name);
        }
        text
    }
}

/// Writes the report as JSON.
///
/// # Errors
/// When it cannot be written.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("writing the report as JSON")?;
    fs::write(path, format!("{json}\n")).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let novacron = Contender {
            name: "novacron".to_owned(),
            result: "completed".to_owned(),
            total_ms: Some(4100.0),
            guest_pause_ms: Some(112.0),
            wire_bytes: Some(70_000_000),
            guest_verified: Some(true),
        };
        let tcp = Contender::without("tcp", "not done within 45 s, given up".to_owned());
        Report {
            guest_verified: true,
            digest_equal: true,
            encrypted: true,
            guest_pause_ms: 12.5,
            total_ms: 900.0,
            guest_bytes: 300_000_000,
            wire_bytes: 100_000_000,
            link: "200 Mbit/s, 40 ms RTT".to_owned(),
            contenders: vec![novacron, tcp],
        }
    }

    fn keys(value: &serde_json::Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_report_has_exactly_the_promised_keys() {
        let value = serde_json::to_value(good()).unwrap();
        let top = [
            "contenders",
            "digest_equal",
            "encrypted",
            "guest_bytes",
            "guest_pause_ms",
            "guest_verified",
            "link",
            "total_ms",
            "wire_bytes",
        ];
        assert_eq!(keys(&value), top);
        assert_eq!(value["guest_verified"], true);
        let row = ["guest_pause_ms", "guest_verified", "name", "result", "total_ms", "wire_bytes"];
        for contender in value["contenders"].as_array().unwrap() {
            assert_eq!(keys(contender), row);
        }
    }

    #[test]
    fn who_did_not_finish_is_a_row_that_says_so() {
        let report = good();
        let value = serde_json::to_value(&report).unwrap();
        let tcp = &value["contenders"][1];
        for key in ["total_ms", "guest_pause_ms", "wire_bytes", "guest_verified"] {
            assert!(tcp[key].is_null(), "{key}");
        }
        let table = report.beside();
        assert!(table.contains("tcp               not done within 45 s, given up"), "{table}");
        assert!(
            table.contains("4.10 s") && table.contains("70.0 MB") && table.contains("40 ms RTT"),
            "{table}"
        );
        assert!(report.check().is_ok());
    }

    #[test]
    fn each_broken_promise_fails() {
        assert!(good().check().is_ok());
        for broken in [
            Report { guest_verified: false, ..good() },
            Report { digest_equal: false, ..good() },
            Report { encrypted: false, ..good() },
            Report { wire_bytes: 0, ..good() },
        ] {
            assert!(broken.check().is_err());
        }
    }
}
