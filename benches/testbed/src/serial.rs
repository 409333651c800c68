//! A guest's serial port: its lines, and heartbeats with the host's time.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::limits::{BEATS_MAX, LINES_MAX, SERIAL_LINE_BYTES_MAX, SOCKET_WAIT};
use crate::wait;

/// A heartbeat: its number, given by the guest, and when its last byte was read, on the host's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Grows by one with every beat of the guest.
    pub number: u64,
    /// When it was seen.
    pub at: Instant,
}

/// The serial port of one hypervisor process. A thread of its own reads it, so that the times are those of arrival.
pub struct Serial {
    socket: UnixStream,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    news: Condvar,
}

#[derive(Default)]
struct Seen {
    beats: VecDeque<Beat>,
    /// Lines that are no heartbeats, each with its place in their order.
    lines: VecDeque<(u64, String)>,
    line_count: u64,
    closed: bool,
}

/// A place in the order of lines: what came before it is not looked at.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Mark {
    /// Before the first line.
    pub const START: Self = Self(0);
}

impl Serial {
    /// Connects to the socket of a serial port, waiting for it to appear.
    ///
    /// # Errors
    /// When it does not appear in time.
    pub fn connect(path: &Path) -> Result<Self> {
        let what = format!("a serial port at {}", path.display());
        let socket = wait::until(&what, SOCKET_WAIT, || Ok(UnixStream::connect(path).ok()))?;
        let shared = Arc::new(Shared::default());
        let (reader, for_reader) =
            (socket.try_clone().context("sharing the serial port")?, Arc::clone(&shared));
        thread::Builder::new()
            .name("serial".into())
            .spawn(move || read(reader, &for_reader))
            .context("starting the reader of the serial port")?;
        Ok(Self { socket, shared })
    }

    /// Sends a line to the guest.
    ///
    /// # Errors
    /// When the hypervisor has closed the port.
    pub fn send(&self, line: &str) -> Result<()> {
        (&self.socket).write_all(format!("{line}\n").as_bytes()).context("writing to the serial port")
    }

    /// Where the next line will stand.
    pub fn mark(&self) -> Mark {
        Mark(self.shared.lock().line_count)
    }

    /// Waits for a line after `mark` that begins with one of `prefixes`, and returns it.
    ///
    /// # Errors
    /// When none comes within `limit`, or the hypervisor has closed the port. Names the last line seen.
    pub fn wait_line(&self, mark: Mark, prefixes: &[&str], limit: Duration) -> Result<String> {
        self.shared.wait(limit, &format!("a line {}", prefixes.join(" or ")), |seen| {
            let after = seen.lines.iter().filter(|(place, _)| *place >= mark.0);
            after
                .map(|(_, line)| line)
                .find(|line| prefixes.iter().any(|prefix| line.starts_with(prefix)))
                .cloned()
        })
    }

    /// Waits for a heartbeat with a number above `number` (or, with `None`, for any) and returns the first one.
    ///
    /// # Errors
    /// When none comes within `limit`, or the hypervisor has closed the port.
    pub fn wait_beat(&self, number: Option<u64>, limit: Duration) -> Result<Beat> {
        self.shared.wait(limit, "a heartbeat", |seen| {
            seen.beats.iter().find(|beat| number.is_none_or(|number| beat.number > number)).copied()
        })
    }

    /// The first heartbeat kept, if there was one.
    pub fn first_beat(&self) -> Option<Beat> {
        self.shared.lock().beats.front().copied()
    }

    /// The last heartbeat, if there was one.
    pub fn last_beat(&self) -> Option<Beat> {
        self.shared.lock().beats.back().copied()
    }

    /// All heartbeats kept, in order.
    pub fn beats(&self) -> Vec<Beat> {
        self.shared.lock().beats.iter().copied().collect()
    }

    /// Lines kept that begin with `prefix`.
    pub fn lines(&self, prefix: &str) -> Vec<String> {
        let seen = self.shared.lock();
        seen.lines.iter().map(|(_, line)| line).filter(|line| line.starts_with(prefix)).cloned().collect()
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        // Ends the reader's thread, which holds the same socket.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, limit: Duration, what: &str, look: impl Fn(&Seen) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut seen = self.lock();
        loop {
            if let Some(found) = look(&seen) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.closed || left.is_zero() {
                let last = seen.lines.back().map_or("nothing", |(_, line)| line);
                let why = if seen.closed {
                    "the hypervisor closed the serial port"
                } else {
                    "it did not come in time"
                };
                bail!(
                    "waited {} s for {what} of the guest: {why}; the last line was {last:?}",
                    limit.as_secs_f32()
                );
            }
            seen = self.news.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn line(&self, line: &[u8], at: Instant) {
        let line = String::from_utf8_lossy(line);
        let mut seen = self.lock();
        match line.strip_prefix("H ").and_then(|number| number.parse().ok()) {
            Some(number) => {
                if seen.beats.len() == BEATS_MAX {
                    seen.beats.pop_front();
                }
                seen.beats.push_back(Beat { number, at });
            }
            None => {
                if seen.lines.len() == LINES_MAX {
                    seen.lines.pop_front();
                }
                let place = seen.line_count;
                seen.lines.push_back((place, line.into_owned()));
                seen.line_count += 1;
            }
        }
        self.news.notify_all();
    }
}

fn read(mut socket: UnixStream, shared: &Shared) {
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    loop {
        let count = match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let at = Instant::now();
        for &byte in &buffer[..count] {
            if byte == b'\n' {
                shared.line(&line, at);
                line.clear();
            } else if line.len() < SERIAL_LINE_BYTES_MAX {
                line.push(byte);
            }
        }
    }
    shared.lock().closed = true;
    shared.news.notify_all();
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::Scratch;

    #[test]
    fn lines_and_beats_are_told_apart_and_waited_for() {
        let scratch = Scratch::new().unwrap();
        let listener = UnixListener::bind(scratch.file("s")).unwrap();
        let serial = Serial::connect(&scratch.file("s")).unwrap();
        let mut guest = listener.accept().unwrap().0;
        // A first piece without its head is what a destination sees of a beat cut by the migration.
        guest.write_all(b"7\nH 8\nREADY x\nH 9\nH").unwrap();
        let limit = Duration::from_secs(5);
        assert_eq!(serial.wait_line(Mark::START, &["NO", "READY"], limit).unwrap(), "READY x");
        assert_eq!(serial.wait_beat(None, limit).unwrap().number, 8);
        assert_eq!(serial.wait_beat(Some(8), limit).unwrap().number, 9);
        let mark = serial.mark();
        guest.write_all(b" 10\nREADY y\n").unwrap();
        assert_eq!(serial.wait_line(mark, &["READY"], limit).unwrap(), "READY y");
        assert_eq!(serial.last_beat().unwrap().number, 10);
        assert_eq!(serial.lines("READY").len(), 2);
        drop(guest);
        let error = serial.wait_beat(Some(10), limit).unwrap_err().to_string();
        assert!(error.contains("closed"), "{error}");
    }
}
