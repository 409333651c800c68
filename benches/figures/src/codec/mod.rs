//! What the page codec makes of streams: whole sessions on one core, acknowledgements delayed by 50 ms, all that crosses counted,
//! beside zstd over the whole of each stream.

mod baseline;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use novacron_protocol::limits::{LANES_DEFAULT, MEMORY_BYTES_DEFAULT};
use novacron_protocol::page::policy::Mode;
use novacron_protocol::page::{ContentKey, ContentMemory, ContentStore, KnownStores};
use novacron_protocol::session::{Role, SessionConfig};
use serde::Serialize;

use crate::choice::guest;
use crate::choice::replay::{Carried, Path, replay_between, session_config};
use crate::limits::PAGE_BYTES;
use crate::report::{Goal, Verdict};
use baseline::{Compressed, Shape};

/// Nothing waits for the link, everything for its answer.
const PATH: Path = Path { rate: f64::INFINITY, round_trip_ns: 50e6 };

/// The two settings that are published.
const FAST: Mode = Mode::Lz4;
const SMALL: Mode = Mode::Zstd { level: 3 };

/// A stream that zstd does not shorten by more than this is random.
const RANDOM: f64 = 0.97;

/// One setting on one stream.
#[derive(Clone, Debug, Serialize)]
struct Setting {
    name: &'static str,
    all_bytes: u64,
    encoding_mb_s: f64,
    decoding_mb_s: f64,
    held_bytes: [u64; 2],
    agreed_bytes: u64,
}

/// One stream.
#[derive(Clone, Debug, Serialize)]
struct Row {
    stream: String,
    bytes: u64,
    pages: u64,
    again: u64,
    distinct: u64,
    memcpy_mb_s: f64,
    zstd_1: (u64, f64),
    zstd_3_long: (u64, f64),
    /// The part from the first page on that was sent before: zstd -1 of it, and what it costs here.
    again_zstd_1: u64,
    again_here: u64,
    settings: Vec<Setting>,
    /// The stream after the one before it in the list, through gateways that share a content store.
    after_another: u64,
    repaired_pages: u64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CodecFigures {
    rows: Vec<Row>,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Replays `captures`, or synthetic guests of `mib` MiB where there are none.
pub(crate) fn measure(mib: u64, captures: &[PathBuf], say: &dyn Fn(&str)) -> Result<CodecFigures> {
    let mut streams = Vec::new();
    for path in captures {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        ensure!(!bytes.is_empty(), "{} is empty", path.display());
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        streams.push((name, bytes));
    }
    if captures.is_empty() {
        for guest in guest::ALL {
            streams.push((guest.name().to_owned(), guest.stream((mib << 20) / PAGE_BYTES as u64)));
        }
    }
    // The first finds memory that nobody has touched: it does not count.
    if let Some((_, bytes)) = streams.first() {
        for codec in [FAST, SMALL] {
            run(bytes, codec, |_| {})?;
        }
    }
    let mut rows = Vec::new();
    for (at, (name, bytes)) in streams.iter().enumerate() {
        let before = (streams.len() > 1).then(|| &streams[(at + streams.len() - 1) % streams.len()].1);
        rows.push(row(name, bytes, before.map(Vec::as_slice)).with_context(|| format!("replaying {name}"))?);
        say(&format!("codec, {name}"));
    }
    let verdicts = verdicts(&rows);
    Ok(CodecFigures { rows, verdicts })
}

/// A stream through two sessions, changed alike.
fn run(bytes: &[u8], codec: Mode, change: impl Fn(&mut SessionConfig)) -> Result<Carried> {
    let [mut near, mut far] = [Role::Source, Role::Destination].map(session_config);
    near.codec = codec;
    change(&mut near);
    change(&mut far);
    replay_between(bytes, near, far, PATH)
}

fn setting(name: &'static str, bytes: &[u8], codec: Mode, lanes: u16, memory_bytes: u64) -> Result<Setting> {
    let carried = run(bytes, codec, |config| (config.lanes, config.memory_bytes) = (lanes, memory_bytes))?;
    let mb_s = |ns: f64| bytes.len() as f64 / ns * 1e3;
    Ok(Setting {
        name,
        all_bytes: carried.all_bytes,
        encoding_mb_s: mb_s(carried.source_ns),
        decoding_mb_s: mb_s(carried.destination_ns),
        held_bytes: carried.held_bytes,
        agreed_bytes: carried.agreed_bytes,
    })
}

/// What a stream costs after another guest of its tenant, and how many pages had to be repaired.
fn after(before: &[u8], bytes: &[u8]) -> Result<(u64, u64)> {
    let key = ContentKey::new([9; 32]);
    let store = ContentMemory::new(ContentStore::new(key, MEMORY_BYTES_DEFAULT / 2));
    let known = KnownStores::default();
    let mut last = None;
    for stream in [before, bytes] {
        last = Some(run(stream, SMALL, |config| {
            config.content_store = (config.role == Role::Destination).then(|| store.clone());
            config.known_stores = known.clone();
        })?);
    }
    let carried = last.context("nothing was carried")?;
    Ok((carried.all_bytes, carried.sent.repaired_pages))
}

fn row(name: &str, bytes: &[u8], before: Option<&[u8]>) -> Result<Row> {
    let Shape { pages, again, distinct, first_again } = baseline::shape(bytes);
    let mb_s = |ns: f64| bytes.len() as f64 / ns * 1e3;
    let of = |compressed: Compressed| (compressed.bytes, mb_s(compressed.ns));
    let (usual, plenty) = (MEMORY_BYTES_DEFAULT, 2 * distinct * 4192 + (256 << 20));
    let quarter = distinct * PAGE_BYTES as u64 / 4;
    let settings = vec![
        setting("lz4", bytes, FAST, LANES_DEFAULT, usual)?,
        setting("zstd 1", bytes, Mode::Zstd { level: 1 }, LANES_DEFAULT, usual)?,
        setting("zstd 3", bytes, SMALL, LANES_DEFAULT, usual)?,
        setting("zstd 3, plenty", bytes, SMALL, 1, plenty)?,
        setting("zstd 3, 8 lanes, plenty", bytes, SMALL, 8, plenty)?,
        setting("zstd 3, a quarter", bytes, SMALL, LANES_DEFAULT, quarter)?,
    ];
    let first = run(&bytes[..first_again], SMALL, |_| {})?.all_bytes;
    let (after_another, repaired_pages) = match before {
        Some(before) => after(before, bytes)?,
        None => (0, 0),
    };
    Ok(Row {
        stream: name.to_owned(),
        bytes: bytes.len() as u64,
        pages,
        again,
        distinct,
        memcpy_mb_s: mb_s(baseline::memcpy(bytes)),
        zstd_1: of(baseline::zstd(bytes, 1, None)?),
        zstd_3_long: of(baseline::zstd(bytes, 3, Some(30))?),
        again_zstd_1: baseline::zstd(&bytes[first_again..], 1, None)?.bytes,
        again_here: settings[2].all_bytes.saturating_sub(first),
        settings,
        after_another,
        repaired_pages,
    })
}

impl Row {
    fn is_random(&self) -> bool {
        self.zstd_1.0 as f64 > self.bytes as f64 * RANDOM
    }

    fn share_again(&self) -> f64 {
        self.again as f64 / self.pages.max(1) as f64
    }

    fn of(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    fn ratio(&self, name: &str, by: impl Fn(&Row, &Setting) -> f64) -> f64 {
        self.of(name).map_or(f64::NAN, |setting| by(self, setting))
    }
}

/// The worst of some rows, by a figure of which more is worse; `None`: there is no such row.
fn worst(
    rows: &[Row],
    which: impl Fn(&Row) -> bool,
    figure: impl Fn(&Row) -> f64,
    more_is_worse: bool,
) -> Option<(f64, String)> {
    let of = rows.iter().filter(|row| which(row)).map(|row| (figure(row), row.stream.clone()));
    let worse = |a: &(f64, String), b: &(f64, String)| a.0.total_cmp(&b.0);
    if more_is_worse { of.max_by(worse) } else { of.min_by(worse) }
}

fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut judge = |what: &str, goal: Goal, which: &dyn Fn(&Row) -> bool, figure: &dyn Fn(&Row) -> f64| {
        let more_is_worse = matches!(goal, Goal::AtMost(_));
        if let Some((measured, stream)) = worst(rows, which, figure, more_is_worse) {
            verdicts.push(Verdict::new(what, goal, measured, "x").with(&stream));
        }
    };
    let small =
        |row: &Row| row.ratio("zstd 3", |row, setting| setting.all_bytes as f64 / row.zstd_3_long.0 as f64);
    let redis = |row: &Row| row.stream.contains("redis");
    judge(
        "codec: size against zstd -3 --long=30, half re-sends",
        Goal::AtMost(0.9),
        &|row| row.share_again() >= 0.5,
        &small,
    );
    judge(
        "the same, fewer re-sends",
        Goal::AtMost(1.0),
        &|row| row.share_again() < 0.5 && !row.is_random(),
        &small,
    );
    judge("size against raw, random pages", Goal::AtMost(1.01), &Row::is_random, &|row| {
        let most = row.settings.iter().take(3).map(|setting| setting.all_bytes).max();
        most.unwrap_or(0) as f64 / row.bytes as f64
    });
    let speed = |name: &'static str| {
        move |row: &Row| row.ratio(name, |row, setting| setting.encoding_mb_s / row.zstd_1.1)
    };
    judge("speed of lz4 against zstd -1, redis", Goal::AtLeast(3.0), &redis, &speed("lz4"));
    judge("the same, other streams", Goal::AtLeast(1.2), &|row| !redis(row), &speed("lz4"));
    judge("speed of zstd 3 against zstd -3 --long=30", Goal::AtLeast(1.0), &|_| true, &|row| {
        row.ratio("zstd 3", |row, setting| setting.encoding_mb_s / row.zstd_3_long.1)
    });
    judge("speed against memcpy, random pages", Goal::AtLeast(0.15), &Row::is_random, &|row| {
        row.ratio("lz4", |row, setting| setting.encoding_mb_s / row.memcpy_mb_s)
    });
    judge("decoding against memcpy, redis", Goal::AtLeast(0.2), &redis, &|row| {
        row.ratio("lz4", |row, setting| setting.decoding_mb_s / row.memcpy_mb_s)
    });
    judge(
        "bytes from the first re-sent page on against zstd -1 of them",
        Goal::AtMost(1.0 / 3.0),
        &|row| row.again > 0,
        &|row| row.again_here as f64 / row.again_zstd_1.max(1) as f64,
    );
    judge("size with 8 lanes against 1", Goal::AtMost(1.05), &|_| true, &|row| {
        row.ratio("zstd 3, 8 lanes, plenty", |row, eight| {
            row.ratio("zstd 3, plenty", |_, one| eight.all_bytes as f64 / one.all_bytes as f64)
        })
    });
    judge("size with a quarter of the pages remembered", Goal::AtMost(1.5), &|_| true, &|row| {
        row.ratio("zstd 3, a quarter", |row, quarter| {
            row.ratio("zstd 3", |_, usual| quarter.all_bytes as f64 / usual.all_bytes as f64)
        })
    });
    judge("memory held against what was agreed, any setting", Goal::AtMost(1.0), &|_| true, &|row| {
        let held = |setting: &Setting| {
            setting.held_bytes.into_iter().max().unwrap_or(0) as f64 / setting.agreed_bytes.max(1) as f64
        };
        row.settings.iter().map(held).fold(0.0, f64::max)
    });
    let mut left: Vec<f64> = rows
        .iter()
        .map(|row| row.ratio("zstd 3", |row, setting| setting.all_bytes as f64 / row.bytes as f64))
        .collect();
    left.sort_by(f64::total_cmp);
    if let Some(median) = left.get(left.len() / 2) {
        let saved = Verdict::new(
            "bytes saved of raw without zero pages, median stream",
            Goal::AtLeast(0.6),
            1.0 - median,
            "of 1",
        );
        verdicts.push(saved.with("zstd 3"));
    }
    verdicts
}

impl CodecFigures {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let mut text =
            "Page codec: one core, acknowledgements after 50 ms, MB that cross both ways, MB/s of guest bytes\n".to_owned();
        for row in &self.rows {
            text += &format!(
                "  {}: {:.1} MB, {} pages, {:.0} % sent before; memcpy {:.0} MB/s; zstd -1 {:.2} MB at {:.0} MB/s; zstd -3 --long=30 \
                 {:.2} MB at {:.0} MB/s; from the first re-sent page on {:.2} MB here, {:.2} MB by zstd -1",
                row.stream,
                mb(row.bytes),
                row.pages,
                100.0 * row.share_again(),
                row.memcpy_mb_s,
                mb(row.zstd_1.0),
                row.zstd_1.1,
                mb(row.zstd_3_long.0),
                row.zstd_3_long.1,
                mb(row.again_here),
                mb(row.again_zstd_1),
            );
            if row.after_another > 0 {
                text += &format!(
                    "; after another guest of its tenant {:.2} MB, {} pages repaired",
                    mb(row.after_another),
                    row.repaired_pages
                );
            }
            text += "\n";
            for setting in &row.settings {
                text += &format!(
                    "    {:<24}{:>9.2} MB, encoding {:>5.0} MB/s, decoding {:>5.0} MB/s, holds {} and {} of {} MB\n",
                    setting.name,
                    mb(setting.all_bytes),
                    setting.encoding_mb_s,
                    setting.decoding_mb_s,
                    setting.held_bytes[0] >> 20,
                    setting.held_bytes[1] >> 20,
                    setting.agreed_bytes >> 20,
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::guest::Pages;

    #[test]
    fn a_second_guest_of_the_same_content_costs_little() {
        let stream = Pages::Random.stream(600);
        let (after_another, repaired) = after(&stream, &stream).unwrap();
        let alone = run(&stream, SMALL, |_| {}).unwrap().all_bytes;
        assert!(
            after_another * 4 < alone && repaired == 0,
            "{after_another} of {alone}, {repaired} repaired"
        );
    }

    #[test]
    fn each_stream_is_judged_by_its_kind() {
        let rows = [row("random", &Pages::Random.stream(600), None).unwrap()];
        assert!(rows[0].is_random() && rows[0].again == 0);
        let verdicts = verdicts(&rows);
        let said = |what: &str| verdicts.iter().any(|verdict| verdict.what.contains(what));
        assert!(said("random pages") && said("8 lanes") && said("memory held"), "{verdicts:?}");
        assert!(!said("half re-sends") && !said("redis"));
    }
}
