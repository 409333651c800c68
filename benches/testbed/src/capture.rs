//! Keeps the migration stream of a guest in a file, to be replayed to parsers, codecs and compressors.
//!
//! ```text
//! source QEMU --unix--> tee --unix--> destination QEMU
//!                        |
//!                      FILE, FILE.json
//! ```
//!
//! The stream goes through to a real destination, where the guest runs and verifies itself: what was kept is known to
//! load. **It is the guest's memory**: the file is made for its owner alone, and never in the place of another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use qapi::qmp;
use serde::{Deserialize, Serialize};

use crate::limits::{CAPTURE_BUFFER_BYTES, CAPTURE_PROGRESS, EXIT_WAIT, POLL};
use crate::{Guest, GuestOptions, Migration, Qemu, QemuOptions, Scratch};

/// What to capture.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// What the guest does.
    pub guest: GuestOptions,
    /// Its memory; `None`: what the workload asks for.
    pub memory_mib: Option<u32>,
    /// How long it works before it is moved.
    pub warm_up: Duration,
    /// Bytes a second that QEMU may send: the slower, the more passes over the memory. `None`: as fast as it can.
    pub max_bandwidth: Option<u64>,
    /// The pause that QEMU aims for: the shorter, the more passes.
    pub downtime_limit: Duration,
    /// When to give it up.
    pub time_limit: Duration,
    /// xbzrle's cache, bytes, a power of two; `None`: no xbzrle.
    pub xbzrle_cache_bytes: Option<u64>,
}

impl CaptureOptions {
    /// A guest of this kind that has worked for five seconds, sent at 40 MB/s at most.
    pub fn of(guest: GuestOptions) -> Self {
        Self {
            guest,
            memory_mib: None,
            warm_up: Duration::from_secs(5),
            max_bandwidth: Some(40_000_000),
            downtime_limit: Duration::from_millis(300),
            time_limit: crate::limits::MIGRATION_WAIT,
            xbzrle_cache_bytes: None,
        }
    }
}

/// What stands beside a capture, in `FILE.json`. A capture without it is not whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// Bytes of the file.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// When it was made, seconds since 1970.
    pub captured_at_s: u64,
    /// The hypervisor that wrote it, as it calls its version.
    pub qemu: String,
    /// What the guest did.
    pub workload: String,
    /// At which rate, units a second, and of what.
    pub set: f64,
    /// What it reached before and while it was moved.
    pub achieved: f64,
    /// What is counted.
    pub unit: String,
    /// The guest's memory, MiB.
    pub memory_mib: u32,
    /// What the hypervisor was allowed, bytes a second; `None`: no limit.
    pub max_bandwidth: Option<u64>,
    /// The pause that it aimed for.
    pub downtime_limit_ms: u64,
    /// xbzrle's cache; `None`: no xbzrle.
    pub xbzrle_cache_bytes: Option<u64>,
    /// How long it took, as the source counts it.
    pub total_ms: u64,
    /// Passes over the memory.
    pub passes: u64,
    /// What the guest looked at after the move and found intact.
    pub verified: u64,
}

/// How far a capture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The guest boots, and gets its work ready.
    Boots,
    /// It works.
    Works,
    /// It is on its way: so many bytes so far, in so long.
    Moves(u64, Duration),
    /// It looks at everything that it keeps.
    Verifies,
}

/// Boots a guest, captures its way to another hypervisor into a new file, and lets it verify itself there. Tells each
/// step through `step`, and how far the move is several times a second. Both hypervisors have ended afterwards.
///
/// # Errors
/// When the file or the one beside it exists: neither is touched. When the guest does not come up, the migration
/// fails or is not done in time, the file cannot be written, or the guest finds damage; nothing is kept then.
pub fn capture(options: &CaptureOptions, path: &Path, step: impl FnMut(Step) + Send) -> Result<Captured> {
    let notes = notes_path(path);
    ensure!(!notes.exists(), "{} exists: nothing was captured. Choose another name", notes.display());
    let file = create(path)?;
    let captured = capture_into(options, file, step).and_then(|captured| {
        write_notes(&captured, &notes)?;
        Ok(captured)
    });
    if captured.is_err() {
        // Ours, made above: a part of a stream is of no use to anybody, and it is somebody's memory.
        let _ = fs::remove_file(path);
    }
    captured
}

fn write_notes(captured: &Captured, path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(captured).context("writing the notes as JSON")?;
    let written = create(path)?.write_all(format!("{json}\n").as_bytes());
    if written.is_err() {
        // Ours as well, and half a note.
        let _ = fs::remove_file(path);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

/// Where the notes on a capture stand: `FILE.json`.
pub fn notes_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Sends a capture to the unix socket of a destination, or of a gateway, and drops what comes back. Returns the bytes
/// that were sent.
///
/// # Errors
/// When nobody listens, or it does not take all of it.
pub fn replay(path: &Path, socket: &Path) -> Result<u64> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    let mut back = stream.try_clone().context("sharing the socket")?;
    let drain = thread::spawn(move || io::copy(&mut back, &mut io::sink()));
    let sent = io::copy(&mut file, &mut stream).context("sending the capture")?;
    stream.shutdown(Shutdown::Write).context("ending the capture")?;
    // What came back, and how that ended, says nothing about what was sent.
    let _ = drain.join();
    Ok(sent)
}

fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("making {}: nothing was captured", path.display()))
}

fn capture_into(options: &CaptureOptions, file: File, mut step: impl FnMut(Step) + Send) -> Result<Captured> {
    let scratch = Scratch::new()?;
    let mut machine = QemuOptions::for_workload(&options.guest)?;
    machine.memory_mib = options.memory_mib.unwrap_or(machine.memory_mib);
    step(Step::Boots);
    let mut source = Qemu::source(&scratch, "source", &machine)?;
    let mut destination = Qemu::destination(&scratch, "destination", &machine)?;
    source.guest().wait_ready()?;
    step(Step::Works);
    source.guest().work()?;
    thread::sleep(options.warm_up);

    let (incoming, outgoing) = (scratch.file("incoming"), scratch.file("outgoing"));
    let mut migration = Migration::direct_unix(&scratch);
    migration.incoming = format!("unix:{}", incoming.display());
    migration.outgoing = format!("unix:{}", outgoing.display());
    migration.max_bandwidth = options.max_bandwidth.unwrap_or(migration.max_bandwidth);
    migration.downtime_limit = options.downtime_limit;
    migration.time_limit = options.time_limit;
    migration.xbzrle_cache_bytes = options.xbzrle_cache_bytes;
    let tee = Tee::start(file, &outgoing, incoming)?;
    let report = told(&tee, &mut step, || migration.run(&mut source, &mut destination));
    let kept = tee.finish();
    // That the file could not be written is why the migration failed, not the other way round.
    let (report, kept) = match (report, kept) {
        (Ok(report), Ok(kept)) => (report, kept),
        (_, Err(error)) | (Err(error), _) => return Err(error),
    };

    let work = Guest::work(destination.guest())?;
    step(Step::Verifies);
    let verified = destination.guest().must_be_intact().context("the guest was damaged on its way")?;
    let version = source.qmp().execute(qmp::query_version {})?;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(Captured {
        bytes: kept.bytes,
        blake3: kept.blake3,
        captured_at_s: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()),
        qemu: format!("{}.{}.{}", version.qemu.major, version.qemu.minor, version.qemu.micro),
        workload: options.guest.workload.to_string(),
        set: work.set,
        achieved: work.achieved,
        unit: work.unit,
        memory_mib: machine.memory_mib,
        max_bandwidth: options.max_bandwidth,
        downtime_limit_ms: milliseconds(options.downtime_limit),
        xbzrle_cache_bytes: options.xbzrle_cache_bytes,
        total_ms: milliseconds(report.total),
        passes: report.iterations,
        verified: verified.pages,
    })
}

/// Runs `act` while another thread tells how far the tee is.
fn told<T>(tee: &Tee, step: &mut (impl FnMut(Step) + Send), act: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            let mut next = began;
            while !done.load(Ordering::Relaxed) {
                if Instant::now() >= next {
                    step(Step::Moves(tee.progress.bytes.load(Ordering::Relaxed), began.elapsed()));
                    next = Instant::now() + CAPTURE_PROGRESS;
                }
                thread::sleep(POLL);
            }
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Copies one connection through, and what the source writes into a file as well.
struct Tee {
    progress: Arc<Progress>,
    thread: JoinHandle<Result<Kept>>,
}

#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    /// Nobody will connect any more.
    over: AtomicBool,
}

struct Kept {
    bytes: u64,
    blake3: String,
}

impl Tee {
    /// Listens at `outgoing`; connects to `incoming` once the source has connected.
    fn start(mut file: File, outgoing: &Path, incoming: PathBuf) -> Result<Self> {
        let listener = UnixListener::bind(outgoing).context("listening for the source")?;
        listener.set_nonblocking(true).context("listening for the source")?;
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        let thread = thread::Builder::new().name("tee".into()).spawn(move || {
            let mut source = accept(&listener, &shared)?;
            let mut destination = UnixStream::connect(incoming).context("connecting to the destination")?;
            let kept = tee(&mut source, &mut destination, &mut file, &shared.bytes);
            if kept.is_err() {
                // Both hypervisors see their connection end: the source's guest goes on there.
                let _ = source.shutdown(Shutdown::Both);
                let _ = destination.shutdown(Shutdown::Both);
            }
            let kept = kept?;
            file.sync_all().context("writing the capture")?;
            Ok(kept)
        })?;
        Ok(Self { progress, thread })
    }

    /// Waits for the end of the stream, once the migration has ended.
    fn finish(self) -> Result<Kept> {
        let deadline = Instant::now() + EXIT_WAIT;
        self.progress.over.store(true, Ordering::Relaxed);
        while !self.thread.is_finished() {
            ensure!(Instant::now() < deadline, "the source's connection stays open after its migration");
            thread::sleep(POLL);
        }
        self.thread.join().map_err(|_| anyhow!("the thread that keeps the stream has failed"))?
    }
}

fn accept(listener: &UnixListener, progress: &Progress) -> Result<UnixStream> {
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false).context("accepting the source")?;
                return Ok(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ensure!(!progress.over.load(Ordering::Relaxed), "the source has never connected");
                thread::sleep(POLL);
            }
            Err(error) => return Err(error).context("accepting the source"),
        }
    }
}

fn tee(
    source: &mut UnixStream,
    destination: &mut UnixStream,
    file: &mut impl Write,
    so_far: &AtomicU64,
) -> Result<Kept> {
    let (mut back_from, mut back_to) = (
        destination.try_clone().context("sharing the destination's socket")?,
        source.try_clone().context("sharing the source's socket")?,
    );
    thread::spawn(move || {
        // It ends with the sockets; a source that has gone has no use for what is left.
        let _ = io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Write);
    });
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CAPTURE_BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("reading from the source"),
        };
        file.write_all(&buffer[..count]).context("writing the capture")?;
        hasher.update(&buffer[..count]);
        bytes += count as u64;
        so_far.store(bytes, Ordering::Relaxed);
        destination.write_all(&buffer[..count]).context("writing to the destination")?;
    }
    // The destination has all of it; that it has closed already is no matter.
    let _ = destination.shutdown(Shutdown::Write);
    Ok(Kept { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_passes_is_kept_and_what_comes_back_is_not() {
        let scratch = Scratch::new().unwrap();
        let (path, outgoing, incoming) = (scratch.file("kept"), scratch.file("out"), scratch.file("in"));
        let listener = UnixListener::bind(&incoming).unwrap();
        let tee = Tee::start(create(&path).unwrap(), &outgoing, incoming).unwrap();
        let mut source = UnixStream::connect(&outgoing).unwrap();
        let (mut destination, _) = listener.accept().unwrap();
        let there = vec![7; 3 * CAPTURE_BUFFER_BYTES + 1];
        let sent = there.clone();
        let writer = thread::spawn(move || {
            source.write_all(&sent).unwrap();
            let mut back = [0; 4];
            source.read_exact(&mut back).unwrap();
            back
        });
        let mut arrived = vec![0; there.len()];
        destination.read_exact(&mut arrived).unwrap();
        destination.write_all(b"pong").unwrap();
        assert_eq!(&writer.join().unwrap(), b"pong");
        let kept = tee.finish().unwrap();
        assert!(arrived == there && fs::read(&path).unwrap() == there);
        assert_eq!(kept.bytes, there.len() as u64);
        assert_eq!(kept.blake3, blake3::hash(&there).to_hex().to_string());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_disk_ends_both_connections() {
        let scratch = Scratch::new().unwrap();
        let (outgoing, incoming) = (scratch.file("out"), scratch.file("in"));
        let listener = UnixListener::bind(&incoming).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let tee = Tee::start(full, &outgoing, incoming).unwrap();
        let mut source = UnixStream::connect(&outgoing).unwrap();
        source.write_all(b"a byte or two").unwrap();
        let (mut destination, _) = listener.accept().unwrap();
        assert_eq!(destination.read(&mut [0; 64]).unwrap(), 0);
        assert_eq!(source.read(&mut [0; 64]).unwrap_or(0), 0);
        assert!(format!("{:#}", tee.finish().err().unwrap()).contains("writing the capture"));
    }

    #[test]
    fn a_source_that_never_connects_is_told_of() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.file("kept");
        let tee = Tee::start(create(&path).unwrap(), &scratch.file("out"), scratch.file("in")).unwrap();
        assert!(tee.finish().err().unwrap().to_string().contains("never connected"));
    }

    #[test]
    fn what_exists_is_left_alone() {
        let scratch = Scratch::new().unwrap();
        let options = CaptureOptions::of(GuestOptions::default());
        for taken in [scratch.file("a"), notes_path(&scratch.file("b"))] {
            fs::write(&taken, "mine").unwrap();
            let path = if taken.extension().is_some() { scratch.file("b") } else { taken.clone() };
            let error = capture(&options, &path, |_| ()).unwrap_err();
            assert!(format!("{error:#}").contains("nothing was captured"), "{error:#}");
            assert_eq!(fs::read(&taken).unwrap(), b"mine");
        }
        assert!(!scratch.file("b").exists());
    }
}
