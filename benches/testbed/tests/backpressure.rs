//! Destinations that read slowly: the source is held back by its own socket, and neither gateway's memory pays.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::EXIT_WAIT;
use novacron_testbed::session::{Session, unix, wait_ended};
use novacron_testbed::{Gateway, GatewayOptions, Scratch, wait};
use serde_json::json;

const SESSIONS: usize = 4;
/// What each destination reads in a second.
const RATE_BYTES: u64 = 1_000_000;
/// Between two reads of a destination.
const TURN: Duration = Duration::from_millis(20);
/// How long the sessions run before and while they are looked at.
const SETTLE: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_secs(5);
/// Resident memory that a gateway may have at most.
const RSS_BYTES_MAX: u64 = 300 << 20;
/// What may be under way between a source and its destination, sockets' own buffers included.
const INSIDE_BYTES_MAX: u64 = 24 << 20;

/// A source and a destination that are no hypervisors.
struct Flow {
    written: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flow {
    /// The destination reads at [`RATE_BYTES`]; the source writes as fast as it may.
    fn start(destination: UnixListener, mut source: UnixStream, content: Vec<u8>) -> Result<Self> {
        let [written, read] = [(), ()].map(|()| Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        // Blocked for that long at most, so that the end is seen.
        source.set_write_timeout(Some(Duration::from_millis(100)))?;
        let writing = {
            let (written, stop) = (Arc::clone(&written), Arc::clone(&stop));
            move || {
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) {
                    match source.write(&content[at..]) {
                        Ok(count) => {
                            written.fetch_add(count as u64, Ordering::Relaxed);
                            at = (at + count) % content.len();
                        }
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        }
                        Err(_) => break,
                    }
                }
            }
        };
        let reading = {
            let (read, stop) = (Arc::clone(&read), Arc::clone(&stop));
            move || {
                let Ok((mut socket, _)) = destination.accept() else { return };
                // It is behind and stays behind: the test looks at what waits for it.
                let _ = socket.set_read_timeout(Some(Duration::from_millis(100)));
                let began = Instant::now();
                let mut buffer = vec![0; (RATE_BYTES as usize / 1000) * TURN.as_millis() as usize];
                while !stop.load(Ordering::Relaxed) {
                    let allowed = began.elapsed().as_millis() as u64 * RATE_BYTES / 1000;
                    if read.load(Ordering::Relaxed) >= allowed {
                        thread::sleep(TURN);
                        continue;
                    }
                    match socket.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(count) => {
                            read.fetch_add(count as u64, Ordering::Relaxed);
                        }
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        }
                        Err(_) => break,
                    }
                }
            }
        };
        Ok(Self { written, read, stop, threads: vec![thread::spawn(writing), thread::spawn(reading)] })
    }

    fn so_far(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed))
    }
}

/// Bytes of no pattern, or lines of text: a codec that shrinks must not let more in for it.
fn content(random: bool) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..1 << 20)
        .map(|index| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if random { (state >> 32) as u8 } else { b"the same line over and over "[index % 28] }
        })
        .collect()
}

#[test]
fn slow_destinations_hold_their_sources_back_and_cost_no_memory() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut a = Gateway::start(scratch, "gateway-a", &GatewayOptions::default())?;
        let mut b = Gateway::start(scratch, "gateway-b", &GatewayOptions::default())?;
        let mut flows = Vec::new();
        let mut sessions = Vec::new();
        for index in 0..SESSIONS {
            let [listen, connect] = ["in", "out"].map(|name| scratch.file(&format!("{name}-{index}.sock")));
            let destination = UnixListener::bind(&connect).context("listening as a destination")?;
            let session = Session::new()?;
            // With a destination that may start, an opaque stream's source would be held instead of cut at the end.
            let choices = json!({"destination_may_start": false});
            session.open(&a, &b, (&unix(&listen), &unix(&connect)), &choices)?;
            let source = UnixStream::connect(&listen).context("connecting as a source")?;
            flows.push(Flow::start(destination, source, content(index % 2 == 0))?);
            sessions.push(session);
        }

        thread::sleep(SETTLE);
        let before: Vec<_> = flows.iter().map(Flow::so_far).collect();
        let mut rss_bytes_max = [0, 0];
        let until = Instant::now() + WATCH;
        while Instant::now() < until {
            for (most, gateway) in rss_bytes_max.iter_mut().zip([&mut a, &mut b]) {
                *most = gateway.process().usage()?.rss_bytes_max.max(*most);
            }
            thread::sleep(Duration::from_millis(100));
        }
        let after: Vec<_> = flows.iter().map(Flow::so_far).collect();
        eprintln!("resident at most {rss_bytes_max:?} bytes; (written, read) {before:?} -> {after:?}");
        for most in rss_bytes_max {
            ensure!(most < RSS_BYTES_MAX, "a gateway had {most} bytes resident");
        }
        for ((written_before, read_before), (written, read)) in before.into_iter().zip(after) {
            let inside = written - read;
            ensure!(inside < INSIDE_BYTES_MAX, "{inside} bytes are between a source and its destination");
            // The destination is served at its rate, none starved by another; the source goes at that rate too.
            let (write, read) = (written - written_before, read - read_before);
            ensure!(read > RATE_BYTES * WATCH.as_secs() / 2, "only {read} bytes arrived");
            ensure!(write < read + (4 << 20), "{write} bytes were written while {read} were read");
        }

        for session in &sessions {
            a.rpc()?.call("session.cancel", json!({"session": session.id, "reason": "enough"}))?;
        }
        for session in &sessions {
            for gateway in [&a, &b] {
                let record = wait_ended(gateway, &session.id, EXIT_WAIT)?;
                ensure!(record["reason"]["code"] == "cancelled", "{record}");
            }
        }
        // The hypervisors' sockets are closed: both threads of each see it by themselves.
        for flow in flows {
            let ended = || Ok(flow.threads.iter().all(JoinHandle::is_finished).then_some(()));
            wait::until("the end of a source and a destination", EXIT_WAIT, ended)?;
            flow.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    })
}
