//! The online choice of the codec against each fixed one: real sessions and codecs, links on a virtual clock.

pub(crate) mod guest;
pub(crate) mod replay;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use novacron_protocol::page::policy::Mode;
use novacron_testbed::stats::Spread;
use serde::Serialize;

use crate::limits::PAGE_BYTES;
use crate::report::{Goal, Verdict};
use replay::{Path, replay};

/// Fixed codecs, and last the adaptive one.
const CONTENDERS: [(&str, Mode); 5] = [
    ("none", Mode::None),
    ("lz4", Mode::Lz4),
    ("zstd 1", Mode::Zstd { level: 1 }),
    ("zstd 3", Mode::Zstd { level: 3 }),
    ("adaptive", Mode::Adaptive { level: 3 }),
];
const ADAPTIVE: usize = CONTENDERS.len() - 1;

/// What they are measured on, and how many times as large a synthetic guest is there: on a fast link a small one is over before
/// anything can be learned.
const LINKS: [(&str, Path, u64); 3] = [
    ("100 Mbit/s, 40 ms", Path { rate: 12.5e6, round_trip_ns: 40e6 }, 1),
    ("1 Gbit/s, 10 ms", Path { rate: 125e6, round_trip_ns: 10e6 }, 2),
    ("unlimited, 0.1 ms", Path { rate: f64::INFINITY, round_trip_ns: 0.1e6 }, 6),
];

/// One stream over one link.
#[derive(Clone, Debug, Serialize)]
struct Row {
    stream: String,
    link: &'static str,
    guest_bytes: u64,
    seconds: Vec<Spread>,
    wire_bytes: Vec<u64>,
    /// Of the adaptive codec's time against the best fixed one's.
    against_best: f64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Choice {
    contenders: Vec<&'static str>,
    rows: Vec<Row>,
    /// Geometric mean of each contender's time against the best fixed one's.
    overall: Vec<f64>,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Replays `captures`, or synthetic guests of `mib` MiB or more where there are none, `rounds` times, contenders by turns.
pub(crate) fn measure(mib: u64, captures: &[PathBuf], rounds: u32, say: &dyn Fn(&str)) -> Result<Choice> {
    let mut rows = Vec::new();
    for path in captures {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        ensure!(!bytes.is_empty(), "{} is empty", path.display());
        for (link, path, _) in LINKS {
            rows.push(compare(&name, &bytes, (link, path), rounds, say)?);
        }
    }
    if captures.is_empty() {
        for guest in guest::ALL {
            for (link, path, times) in LINKS {
                let bytes = guest.stream(((times * mib) << 20) / PAGE_BYTES as u64);
                rows.push(compare(guest.name(), &bytes, (link, path), rounds, say)?);
            }
        }
    }
    report(rows)
}

/// One stream over one link, with each codec.
fn compare(
    stream: &str,
    bytes: &[u8],
    (link, path): (&'static str, Path),
    rounds: u32,
    say: &dyn Fn(&str),
) -> Result<Row> {
    let mut seconds = vec![Vec::new(); CONTENDERS.len()];
    let mut wire_bytes = vec![0; CONTENDERS.len()];
    // The first finds memory that nobody has touched: it does not count.
    replay(bytes, Mode::None, Path { rate: f64::INFINITY, round_trip_ns: 0.0 })?;
    for _ in 0..rounds {
        for (at, (name, mode)) in CONTENDERS.into_iter().enumerate() {
            let carried = replay(bytes, mode, path)
                .with_context(|| format!("replaying {stream} over {link} with {name}"))?;
            seconds[at].push(carried.seconds);
            wire_bytes[at] = carried.wire_bytes;
        }
    }
    let seconds = seconds.into_iter().map(Spread::of).collect::<Option<Vec<_>>>();
    let seconds = seconds.context("no round was measured")?;
    let best = seconds[..ADAPTIVE].iter().map(|spread| spread.median).fold(f64::MAX, f64::min);
    let against_best = seconds[ADAPTIVE].median / best;
    say(&format!("choice, {stream}, {link}: {against_best:.2}x of the best fixed codec"));
    let (stream, guest_bytes) = (stream.to_owned(), bytes.len() as u64);
    Ok(Row { stream, link, guest_bytes, seconds, wire_bytes, against_best })
}

fn report(rows: Vec<Row>) -> Result<Choice> {
    let worst = rows.iter().max_by(|a, b| a.against_best.total_cmp(&b.against_best));
    let worst = worst.context("nothing was measured")?;
    let mean = |at: usize| {
        let logarithm =
            |row: &Row| (row.seconds[at].median * row.against_best / row.seconds[ADAPTIVE].median).ln();
        (rows.iter().map(logarithm).sum::<f64>() / rows.len() as f64).exp()
    };
    let overall: Vec<f64> = (0..CONTENDERS.len()).map(mean).collect();
    let best = overall[..ADAPTIVE].iter().copied().fold(f64::MAX, f64::min);
    let verdicts = vec![
        Verdict::new(
            "online choice against the best fixed codec, the worst of all",
            Goal::AtMost(1.1),
            worst.against_best,
            "x",
        )
        .with(&format!("{}, {}", worst.stream, worst.link)),
        Verdict::new(
            "online choice against the best single fixed codec, over all",
            Goal::AtMost(1.0),
            overall[ADAPTIVE] / best,
            "x",
        )
        .with("geometric means of time"),
    ];
    Ok(Choice { contenders: CONTENDERS.map(|(name, _)| name).to_vec(), rows, overall, verdicts })
}

impl Choice {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let mut text =
            "Online choice of the codec: seconds on a virtual clock, and MB on the wire\n".to_owned();
        text += &format!("  {:<30}", "");
        for name in &self.contenders {
            text += &format!("{name:>16}");
        }
        text += "  against best\n";
        for row in &self.rows {
            text += &format!("  {:<30}", format!("{}, {}", row.stream, row.link));
            for (seconds, wire) in row.seconds.iter().zip(&row.wire_bytes) {
                text += &format!("{:>16}", format!("{:.2} ({:.0})", seconds.median, *wire as f64 / 1e6));
            }
            text += &format!("  {:.2}x\n", row.against_best);
        }
        text += &format!("  {:<30}", "all, against the best there");
        for mean in &self.overall {
            text += &format!("{:>16}", format!("{mean:.2}x"));
        }
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stream: &str, seconds: [f64; 5], against_best: f64) -> Row {
        Row {
            stream: stream.to_owned(),
            link: "x",
            guest_bytes: 1,
            seconds: seconds.map(|seconds| Spread::of([seconds]).unwrap()).to_vec(),
            wire_bytes: vec![1; 5],
            against_best,
        }
    }

    #[test]
    fn the_worst_counts_and_so_does_the_mean() {
        let rows = vec![row("a", [1.0, 2.0, 4.0, 4.0, 1.05], 1.05), row("b", [4.0, 2.0, 1.0, 1.0, 1.2], 1.2)];
        let choice = report(rows).unwrap();
        assert!(!choice.verdicts[0].reached() && choice.verdicts[1].reached(), "{:?}", choice.verdicts);
        assert!((choice.verdicts[0].measured - 1.2).abs() < 1e-9);
        assert!(choice.table().contains("1.20x"));
        assert!(report(Vec::new()).is_err());
    }
}
