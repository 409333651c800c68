//! What a session pays for switching to another mode: how long nothing arrives around a switch, against how long nothing
//! arrives now and then in any case.
//!
//! The link stays as it is, and the mode is forced to and fro, so that whatever a switch costs is the switch's own.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_testbed::Session;
use novacron_testbed::session::unix;
use serde::Serialize;
use serde_json::{Value, json};

use super::sites::{Pair, Sites};
use super::{Probes, link};
use crate::report::{Goal, Verdict};

/// Links between which a path changes.
const LINKS: [Link; 2] = [
    Link { rtt_ms: 1.0, rate_mbit: 1500.0, other: "internet", own: "datacenter" },
    Link { rtt_ms: 80.0, rate_mbit: 200.0, other: "datacenter", own: "internet" },
];
/// Switches on each to the link's own mode, from the other's: those that happen when a path has become this one.
const SWITCHES: usize = 6;
/// How long what arrives is looked at after a switch, and without one.
const LOOK: Duration = Duration::from_secs(3);
/// How long streams may take to get up to speed at first.
const WARM_UP: Duration = Duration::from_secs(4);

/// A link, and the modes that a session has on it: the one of the link that was before it, and its own.
#[derive(Clone, Copy)]
struct Link {
    rtt_ms: f64,
    rate_mbit: f64,
    other: &'static str,
    own: &'static str,
}

/// Longest times without a byte, milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Gaps {
    rtt_ms: f64,
    rate_mbit: f64,
    /// Around each switch.
    switched: Vec<f64>,
    /// In as long a time before each, with the other mode.
    steady: Vec<f64>,
}

/// When bytes came.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<Vec<Instant>>>);

impl Arrivals {
    /// The longest time without a byte between two moments, milliseconds.
    fn longest_ms(&self, from: Instant, to: Instant) -> f64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let within = all.iter().copied().filter(|at| (from..to).contains(at));
        let (mut last, mut longest) = (from, Duration::ZERO);
        for at in within.chain(std::iter::once(to)) {
            longest = longest.max(at.saturating_duration_since(last));
            last = at;
        }
        longest.as_secs_f64() * 1e3
    }
}

/// Bytes that do not compress, without end.
fn feed(mut source: UnixStream, stop: &AtomicBool) -> Result<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; 256 * 1024];
    for word in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        source.write_all(&block).context("the gateway takes no more")?;
        sent += block.len() as u64;
    }
    source.shutdown(std::net::Shutdown::Write)?;
    // The gateway closes it when all of it has arrived.
    source.read_to_end(&mut Vec::new())?;
    Ok(sent)
}

fn take(mut destination: UnixStream, arrivals: &Arrivals) -> Result<u64> {
    let mut room = vec![0; 256 * 1024];
    let mut taken = 0;
    loop {
        let count = destination.read(&mut room)?;
        if count == 0 {
            return Ok(taken);
        }
        taken += count as u64;
        arrivals.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }
}

fn record(pair: &mut Pair, session: &Session) -> Result<Value> {
    session.record(&pair.a)
}

/// The session's mode is this one now, and its streams have that congestion control, where the system has it.
fn wait_followed(pair: &mut Pair, session: &Session, mode: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let record = record(pair, session)?;
        if record["mode"] == mode {
            return Ok(());
        }
        ensure!(began.elapsed() < LOOK, "the session did not follow the mode: {record}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn on_link(sites: &Sites, at: Link, say: &dyn Fn(&str)) -> Result<Gaps> {
    let Link { rtt_ms, rate_mbit, other, own } = at;
    sites.set(&link(Some(rate_mbit), rtt_ms, 0.0))?;
    let mut pair = sites.carrying()?;
    let session = Session::new()?;
    let (from, to) = (sites.file("switch-source"), sites.file("switch-destination"));
    let _ = (std::fs::remove_file(&from), std::fs::remove_file(&to));
    let listener = UnixListener::bind(&to)?;
    session.open(&pair.a, &pair.b, (&unix(&from), &unix(&to)), &json!({}))?;
    let (stop, arrivals) = (Arc::new(AtomicBool::new(false)), Arrivals::default());
    let source = UnixStream::connect(&from)?;
    let (stopping, taking) = (Arc::clone(&stop), arrivals.clone());
    let feeding = thread::spawn(move || feed(source, &stopping));
    let (destination, _) = listener.accept()?;
    let taking = thread::spawn(move || take(destination, &taking));
    thread::sleep(WARM_UP);
    let mut gaps = Gaps { rtt_ms, rate_mbit, switched: Vec::new(), steady: Vec::new() };
    for _ in 0..SWITCHES {
        pair.force(other)?;
        wait_followed(&mut pair, &session, other)?;
        // Streams that came or went for that are no part of what is measured.
        thread::sleep(LOOK);
        let began = Instant::now();
        thread::sleep(LOOK);
        gaps.steady.push(arrivals.longest_ms(began, Instant::now()));
        let began = Instant::now();
        pair.force(own)?;
        wait_followed(&mut pair, &session, own)?;
        thread::sleep(LOOK.saturating_sub(began.elapsed()));
        gaps.switched.push(arrivals.longest_ms(began, Instant::now()));
    }
    let before_the_end = record(&mut pair, &session)?;
    stop.store(true, Ordering::Relaxed);
    let sent = feeding.join().ok().context("the sender panicked")??;
    let taken = taking.join().ok().context("the receiver panicked")??;
    ensure!(sent == taken, "{sent} bytes were sent, {taken} arrived");
    say(&format!(
        "switches at {rtt_ms} ms, {rate_mbit} Mbit/s: without a byte for {:.1?} ms, else {:.1?} ms; {} MB, streams by {}",
        gaps.switched,
        gaps.steady,
        taken / 1_000_000,
        before_the_end["streams"]["congestion"]
    ));
    Ok(gaps)
}

/// The largest.
fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(super) fn measure(sites: &Sites, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    let (mut worst, mut detail) = (0.0_f64, Vec::new());
    for at in LINKS {
        let gaps = on_link(sites, at, say)?;
        // Single gaps are the path's and the machine's; what a switch adds shows in what is usual, of a round trip and 5 ms.
        let added = (median(&gaps.switched) - median(&gaps.steady)).max(0.0);
        worst = worst.max(added / (gaps.rtt_ms + 5.0));
        detail.push(format!(
            "{} ms, {} Mbit/s: {:.1} ms with a switch, {:.1} at most; {:.1} without, {:.1} at most",
            gaps.rtt_ms,
            gaps.rate_mbit,
            median(&gaps.switched),
            most(&gaps.switched),
            median(&gaps.steady),
            most(&gaps.steady)
        ));
        found.switches.push(gaps);
    }
    let what = "longest time without a byte around a switch of mode, less that without one, of a round trip and 5 ms; medians of 6";
    found.verdicts.push(Verdict::new(what, Goal::AtMost(1.0), worst, "x").with(&detail.join("; ")));
    Ok(())
}
