//! Bytes through a unix socket and out of another: cheap ends, so that what lies between is what is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use novacron_testbed::wait;

use crate::limits::{BUFFER_BYTES, COMPARED_BYTES, PROGRESS_WAIT, RANDOM_BYTES, SLOW_BYTES_PER_S};

/// What is written, over and over.
#[derive(Clone)]
pub(crate) struct Source(Arc<Vec<u8>>);

impl Source {
    /// [`RANDOM_BYTES`] from the system.
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = vec![0; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random bytes: {error}"))?;
        Ok(Self(Arc::new(bytes)))
    }

    /// Other bytes.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }

    /// How many there are before they repeat.
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// What stands at a position, at most [`BUFFER_BYTES`] and not beyond the end of the ring.
    fn at(&self, position: u64, most: u64) -> &[u8] {
        let from = usize::try_from(position % self.len()).unwrap_or(0);
        let length = usize::try_from(most).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES).min(self.0.len() - from);
        &self.0[from..from + length]
    }

    /// Whether bytes received are what stands at their position, as far as a look at their beginning tells.
    fn agrees(&self, position: u64, received: &[u8]) -> bool {
        let expected = self.at(position, received.len().min(COMPARED_BYTES) as u64);
        received.starts_with(expected)
    }

    /// Connects to `path` and writes `bytes`, or, with `None`, until nobody takes any more. The clock starts before
    /// the connection is made; returns when that was.
    pub(crate) fn write(&self, path: &Path, bytes: Option<u64>) -> JoinHandle<Result<Instant>> {
        let (source, path) = (self.clone(), path.to_owned());
        thread::spawn(move || {
            let began = Instant::now();
            let mut socket =
                UnixStream::connect(&path).with_context(|| format!("connecting to {}", path.display()))?;
            socket.set_write_timeout(Some(PROGRESS_WAIT)).context("limiting the writer's patience")?;
            let mut position = 0;
            while bytes.is_none_or(|bytes| position < bytes) {
                let left = bytes.map_or(u64::MAX, |bytes| bytes - position);
                match socket.write(source.at(position, left)) {
                    Ok(count) => position += count as u64,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Endless writers are stopped by closing what they write to.
                    Err(_) if bytes.is_none() => return Ok(began),
                    Err(error) => return Err(error).context(format!("writing at {position}")),
                }
            }
            socket.shutdown(Shutdown::Write).context("ending the written stream")?;
            // The way back stays open until the other side has taken everything.
            let mut rest = Vec::new();
            socket.set_read_timeout(Some(PROGRESS_WAIT)).context("limiting the writer's patience")?;
            let _ = socket.take(1).read_to_end(&mut rest);
            Ok(began)
        })
    }
}

/// The far end of a transfer.
pub(crate) struct Sink(UnixListener);

impl Sink {
    /// Listens at `path`.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
        listener.set_nonblocking(true).context("listening without blocking")?;
        Ok(Self(listener))
    }

    fn accept(&self) -> Result<UnixStream> {
        let accepted =
            wait::until("a connection of what is measured", PROGRESS_WAIT, || match self.0.accept() {
                Ok((socket, _)) => Ok(Some(socket)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error).context("accepting"),
            })?;
        accepted.set_nonblocking(false).context("reading with blocking")?;
        accepted.set_read_timeout(Some(PROGRESS_WAIT)).context("limiting the reader's patience")?;
        Ok(accepted)
    }

    /// Takes one connection and reads exactly `bytes`; calls `last` when the last byte is there, and returns when that
    /// was. Then waits for the end of the stream.
    pub(crate) fn read(&self, source: &Source, bytes: u64, last: impl FnOnce()) -> Result<Instant> {
        let mut socket = self.accept()?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut position = 0;
        while position < bytes {
            let count = match socket.read(&mut buffer) {
                Ok(0) => bail!("the stream ended after {position} of {bytes} bytes"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context(format!("reading at {position}")),
            };
            ensure!(source.agrees(position, &buffer[..count]), "other bytes than written at {position}");
            position += count as u64;
        }
        let ended = Instant::now();
        ensure!(position == bytes, "{position} bytes came instead of {bytes}");
        last();
        ensure!(socket.read(&mut buffer).context("waiting for the end")? == 0, "more came than was written");
        Ok(ended)
    }

    /// Takes one connection and reads [`SLOW_BYTES_PER_S`] of it for `time`. Returns how many bytes that were.
    pub(crate) fn read_slowly(&self, source: &Source, time: Duration) -> Result<u64> {
        const READS_PER_S: u32 = 20;
        let mut socket = self.accept()?;
        let began = Instant::now();
        let mut buffer = vec![0; SLOW_BYTES_PER_S as usize / READS_PER_S as usize];
        let mut position = 0;
        let mut turn = 0;
        while began.elapsed() < time {
            socket.read_exact(&mut buffer).with_context(|| format!("reading at {position}"))?;
            ensure!(source.agrees(position, &buffer), "other bytes than written at {position}");
            position += buffer.len() as u64;
            turn += 1;
            thread::sleep((Duration::from_secs(1) / READS_PER_S * turn).saturating_sub(began.elapsed()));
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_testbed::Scratch;

    #[test]
    fn what_is_written_arrives_and_other_bytes_are_noticed() {
        let scratch = Scratch::new().unwrap();
        let source = Source::new().unwrap();
        let bytes = RANDOM_BYTES as u64 + 12_345;
        let sink = Sink::new(&scratch.file("s")).unwrap();
        let writer = source.write(&scratch.file("s"), Some(bytes));
        let mut called = false;
        let ended = sink.read(&source, bytes, || called = true).unwrap();
        assert!(called && ended > writer.join().unwrap().unwrap());

        let writer = Source::new().unwrap().write(&scratch.file("s"), Some(1000));
        let error = sink.read(&source, 1000, || ()).unwrap_err().to_string();
        assert!(error.contains("other bytes"), "{error}");
        drop(writer.join());
    }

    #[test]
    fn a_stream_that_ends_early_is_noticed() {
        let scratch = Scratch::new().unwrap();
        let source = Source::new().unwrap();
        let sink = Sink::new(&scratch.file("s")).unwrap();
        let writer = source.write(&scratch.file("s"), Some(999));
        assert!(sink.read(&source, 1000, || ()).is_err());
        drop(writer.join());
    }
}
