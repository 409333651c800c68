//! A run that carries the bytes of a migration one way: what tools that are no hypervisors can be measured with.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use novacron_testbed::session::unix;
use novacron_testbed::{Process, Session, TimedOut, port, wait};
use serde_json::{Map, Value, json};

use super::gateways::Gateways;
use super::socat::{Relays, listening};
use super::{Stage, take};
use crate::capture;
use crate::contender::{Contender, Kind, Tuning};
use crate::limits::{LISTEN_WAIT, SOCAT_BUFFER_BYTES, STREAM_BUFFER_BYTES};
use crate::meter::{Meter, Watched};
use crate::record::Run;
use crate::scenario::StreamPart;

/// Carries one file again and again.
pub(super) struct StreamBench<'a> {
    pub(super) stage: &'a Stage<'a>,
    file: PathBuf,
    runs: u32,
}

/// What carries the stream, ready.
struct Carrier<'a> {
    processes: Vec<Watched>,
    /// Where the stream goes in; `None`: it reads the file itself.
    entry: Option<PathBuf>,
    /// Where it comes out.
    exit: Exit,
    /// What has to live until the end.
    _parts: Parts<'a>,
}

enum Exit {
    Listener(UnixListener),
    Socket(UnixStream),
}

enum Parts<'a> {
    Gateways { _both: Box<Gateways<'a>> },
    Relays { _both: Relays },
    Pipeline { _all: Vec<Process> },
}

impl<'a> StreamBench<'a> {
    /// Captures the stream, unless it is a file already.
    pub(super) fn new(stage: &'a Stage<'a>, stream: &StreamPart) -> Result<Self> {
        let file = match (&stream.of, &stream.file) {
            (Some(guest), _) => {
                stage.progress.run(&stage.scenario.name);
                let file = stage.scratch.file("stream");
                capture::to_file(guest, &file, stage.progress)?;
                file
            }
            (None, Some(file)) => file.clone(),
            (None, None) => bail!("the scenario names no stream"),
        };
        Ok(Self { stage, file, runs: 0 })
    }

    /// Carries the stream once and compares every byte.
    pub(super) fn run(&mut self, contender: &Contender, run: &mut Run) -> Result<()> {
        self.runs += 1;
        let stage = self.stage;
        stage.progress.phase("preparing");
        let carrier = match contender.kind {
            Kind::Novacron => self.gateways(contender)?,
            Kind::Socat => self.socat()?,
            Kind::ZstdLong => self.zstd(contender)?,
            Kind::Qemu | Kind::Iperf3 => bail!("{} carries no streams", contender.name),
        };
        stage.progress.phase("carrying the stream");
        let meter = Meter::start(carrier.processes, stage.network.wire(), stage.progress)?;
        let began = Instant::now();
        let deadline = began + stage.scenario.time_limit;
        let writer = carrier.entry.map(|entry| write(entry, self.file.clone(), deadline));
        let read = read(carrier.exit, &self.file, deadline);
        let ended = Instant::now();
        take(run, meter.stop()?);
        if Instant::now() >= deadline && read.is_err() {
            return Err(TimedOut { limit: stage.scenario.time_limit, in_postcopy: false }.into());
        }
        let bytes = read?;
        if let Some(writer) = writer {
            writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        }
        run.total_ms = Some(ended.duration_since(began).as_secs_f64() * 1e3);
        run.guest_bytes = Some(bytes);
        run.guest_verified = Some(true);
        Ok(())
    }

    fn exit(&self) -> Result<(PathBuf, UnixListener)> {
        let path = self.stage.scratch.file(&format!("stream-out-{}", self.runs));
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listening at {}", path.display()))?;
        Ok((path, listener))
    }

    fn gateways(&self, contender: &Contender) -> Result<Carrier<'a>> {
        let mut gateways = Gateways::start(self.stage, contender)?;
        let (exit, listener) = self.exit()?;
        let entry = self.stage.scratch.file(&format!("stream-in-{}", self.runs));
        let session = Session::new()?;
        let options = session_options(&contender.tuning);
        let ends = (unix(&entry), unix(&exit));
        session.open(&gateways.source, &gateways.destination, (&ends.0, &ends.1), &options)?;
        Ok(Carrier {
            processes: gateways.watched(),
            entry: Some(entry),
            exit: Exit::Listener(listener),
            _parts: Parts::Gateways { _both: Box::new(gateways) },
        })
    }

    fn socat(&self) -> Result<Carrier<'a>> {
        let between = SocketAddr::new(self.stage.network.destination.address, port::free()?);
        let relays = Relays::start(self.stage, between)?;
        let listener = UnixListener::bind(relays.exit()).context("listening behind socat")?;
        Ok(Carrier {
            processes: relays.processes(),
            entry: Some(relays.entry().to_owned()),
            exit: Exit::Listener(listener),
            _parts: Parts::Relays { _both: relays },
        })
    }

    /// `zstd -c --long FILE | socat - TCP` here, `socat TCP-LISTEN - | zstd -d --long` there.
    fn zstd(&self, contender: &Contender) -> Result<Carrier<'a>> {
        let stage = self.stage;
        let (from, to) = (&stage.network.source, &stage.network.destination);
        let at = SocketAddr::new(to.address, port::free()?);
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let pipe = || std::io::pipe().context("making a pipe");
        let (out, inside) = UnixStream::pair().context("making the pipeline's end")?;
        let (socat, zstd) = (Path::new("socat"), Path::new("zstd"));
        let buffer = format!("-b{SOCAT_BUFFER_BYTES}");

        let (unpacked_from, packed_to) = pipe()?;
        let unpack = words(&["-d", "--long", "-c", "-q"]);
        let unpack = Process::start_piped(
            &to.prefix,
            stage.scratch,
            "destination-zstd",
            (zstd, &unpack),
            unpacked_from.into(),
            Stdio::from(OwnedFd::from(inside)),
        )?;
        let listen = format!("TCP-LISTEN:{},bind={},reuseaddr", at.port(), at.ip());
        let listen = words(&["-d", "-d", "-u", &buffer, &listen, "-"]);
        let receive = Process::start_piped(
            &to.prefix,
            stage.scratch,
            "destination-socat",
            (socat, &listen),
            Stdio::null(),
            packed_to.into(),
        )?;
        let receive = listening(receive)?;
        let (sent_from, packed_to) = pipe()?;
        let connect = words(&["-u", &buffer, "-", &format!("TCP:{at}")]);
        let send = Process::start_piped(
            &from.prefix,
            stage.scratch,
            "source-socat",
            (socat, &connect),
            sent_from.into(),
            Stdio::null(),
        )?;
        let level = format!("-{}", contender.tuning.level.unwrap_or(1));
        let pack = words(&[&level, "--long", "-c", "-q"]);
        let file = File::open(&self.file).with_context(|| format!("opening {}", self.file.display()))?;
        // The last to be started, as it begins at once.
        let pack = Process::start_piped(
            &from.prefix,
            stage.scratch,
            "source-zstd",
            (zstd, &pack),
            file.into(),
            packed_to.into(),
        )?;
        let processes = vec![
            Watched::new("source", "zstd", pack.pid()),
            Watched::new("source", "socat", send.pid()),
            Watched::new("destination", "socat", receive.pid()),
            Watched::new("destination", "zstd", unpack.pid()),
        ];
        Ok(Carrier {
            processes,
            entry: None,
            exit: Exit::Socket(out),
            _parts: Parts::Pipeline { _all: vec![unpack, receive, send, pack] },
        })
    }
}

/// A contender's settings as `session.open` takes them.
fn session_options(tuning: &Tuning) -> Value {
    let mut options = Map::new();
    options.insert("destination_may_start".into(), json!(false));
    let Ok(Value::Object(settings)) = serde_json::to_value(tuning) else { return Value::Object(options) };
    for name in ["streams", "lanes", "codec", "level", "digest"] {
        if let Some(value) = settings.get(name).filter(|value| !value.is_null()) {
            options.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(options)
}

/// Writes the file into `entry` on a thread of its own, which ends by `deadline`.
fn write(entry: PathBuf, file: PathBuf, deadline: Instant) -> JoinHandle<Result<()>> {
    thread::spawn(move || {
        let mut socket =
            UnixStream::connect(&entry).with_context(|| format!("connecting to {}", entry.display()))?;
        let mut file = File::open(&file).with_context(|| format!("opening {}", file.display()))?;
        let mut buffer = vec![0; STREAM_BUFFER_BYTES];
        loop {
            let count = file.read(&mut buffer).context("reading the stream's file")?;
            if count == 0 {
                break;
            }
            socket.set_write_timeout(Some(left(deadline)?)).context("limiting the writer's patience")?;
            socket.write_all(&buffer[..count]).context("writing the stream")?;
        }
        socket.shutdown(Shutdown::Write).context("ending the stream")?;
        // The way back stays open until the other side has taken everything.
        socket.set_read_timeout(Some(left(deadline)?)).context("limiting the writer's patience")?;
        let _ = socket.read(&mut buffer);
        Ok(())
    })
}

/// Takes the stream and compares it with the file. Returns its length.
fn read(exit: Exit, file: &Path, deadline: Instant) -> Result<u64> {
    let mut socket = match exit {
        Exit::Socket(socket) => socket,
        Exit::Listener(listener) => accept(&listener)?,
    };
    let mut file = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let length = file.metadata().context("asking for the stream's length")?.len();
    let (mut got, mut wanted) = (vec![0; STREAM_BUFFER_BYTES], vec![0; STREAM_BUFFER_BYTES]);
    let mut position = 0;
    loop {
        socket.set_read_timeout(Some(left(deadline)?)).context("limiting the reader's patience")?;
        let count = match socket.read(&mut got) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context(format!("reading the stream at {position}")),
        };
        ensure!(position + count as u64 <= length, "more came than was written");
        file.read_exact(&mut wanted[..count]).context("reading the stream's file")?;
        ensure!(
            got[..count] == wanted[..count],
            "other bytes than written between {position} and {count} more"
        );
        position += count as u64;
    }
    ensure!(position == length, "the stream ended after {position} of {length} bytes");
    Ok(length)
}

fn accept(listener: &UnixListener) -> Result<UnixStream> {
    listener.set_nonblocking(true).context("listening without blocking")?;
    let socket = wait::until("a connection of what is measured", LISTEN_WAIT, || match listener.accept() {
        Ok((socket, _)) => Ok(Some(socket)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("accepting"),
    })?;
    socket.set_nonblocking(false).context("reading with blocking")?;
    Ok(socket)
}

/// Time until a deadline, never nothing: a socket takes nothing for no limit.
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    ensure!(!left.is_zero(), "the stream was not through in time");
    Ok(left)
}
