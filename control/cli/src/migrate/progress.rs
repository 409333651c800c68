//! Progress on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use novacron_control_api::{Phase, SessionRecord};

use crate::limits::PROGRESS_LINE;
use crate::qmp::MigrationInfo;

/// Where progress goes.
pub(crate) enum Progress {
    /// A terminal.
    Bar(ProgressBar),
    /// A file or a pipe; when the last line was written.
    Lines(Option<Instant>),
    /// Nowhere.
    Quiet,
}

impl Progress {
    /// What stderr allows.
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(None);
        }
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template("{bar:24.cyan/blue} {percent:>3}% {msg}") {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// Shows how far a migration is.
    pub(crate) fn update(&mut self, info: &MigrationInfo, record: Option<&SessionRecord>) {
        match self {
            Self::Quiet => {}
            Self::Bar(bar) => {
                if let Some(ram) = &info.ram {
                    bar.set_length(ram.total.max(1));
                    bar.set_position(ram.total.saturating_sub(ram.remaining));
                }
                bar.set_message(describe(info, record));
            }
            Self::Lines(last) => {
                if last.is_none_or(|last| last.elapsed() >= PROGRESS_LINE) {
                    *last = Some(Instant::now());
                    crate::tell(&format!("{}\n", describe(info, record)));
                }
            }
        }
    }

    /// Says something that stays.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Bar(bar) => bar.suspend(|| crate::tell(&format!("{text}\n"))),
            Self::Lines(_) => crate::tell(&format!("{text}\n")),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// One line: phase, iteration, guest bytes, wire bytes, ratio, rate, ETA.
fn describe(info: &MigrationInfo, record: Option<&SessionRecord>) -> String {
    let ram = info.ram.clone().unwrap_or_default();
    let phase = match (info.status_or_none(), record.map(|record| record.phase)) {
        ("setup", _) => "setup",
        ("device", _) | (_, Some(Phase::Switchover)) => "switchover",
        ("active", _) => "precopy",
        (other, _) => other,
    };
    let (guest, wire) = record.map_or((ram.transferred, 0), |record| {
        (record.guest_bytes, record.wire_bytes_sent.saturating_add(record.wire_bytes_received))
    });
    // Approximate from here on: figures for eyes.
    let ratio = if wire > 0 { format!("{:.2}x", guest as f64 / wire as f64) } else { "-".into() };
    let rate = record.map_or((ram.mbps * 125_000.0) as u64, |record| record.rate_bytes_per_s);
    let eta = match ram.remaining.checked_div(rate) {
        Some(seconds) if phase == "precopy" => {
            HumanDuration(std::time::Duration::from_secs(seconds)).to_string()
        }
        _ => "-".into(),
    };
    format!(
        "{phase}, iteration {}, guest {}, wire {}, ratio {ratio}, {}/s, ETA {eta}",
        ram.dirty_sync_count,
        HumanBytes(guest),
        HumanBytes(wire),
        HumanBytes(rate),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmp::MigrationInfo;

    #[test]
    fn a_line_is_whole_before_anything_is_known() {
        let line = describe(&MigrationInfo::default(), None);
        assert_eq!(line, "none, iteration 0, guest 0 B, wire 0 B, ratio -, 0 B/s, ETA -");
    }

    #[test]
    fn a_line_shows_what_qemu_says() {
        let info: MigrationInfo = serde_json::from_str(
            r#"{"status":"active","ram":{"transferred":1048576,"remaining":125000000,"total":250000000,
                "dirty-sync-count":3,"mbps":100.0},"later-qemu":"says more"}"#,
        )
        .expect("lenient");
        let line = describe(&info, None);
        assert_eq!(
            line,
            "precopy, iteration 3, guest 1.00 MiB, wire 0 B, ratio -, 11.92 MiB/s, ETA 10 seconds"
        );
    }
}
