//! Lines over a unix socket, or over TLS, with a deadline for every read and write.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use novacron_control_api::LineBuffer;

use crate::remote;

/// Why a line could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// The deadline passed.
    #[error("it took too long")]
    Late,
    /// The peer closed the socket.
    #[error("it closed the connection")]
    Closed,
    /// The socket failed.
    #[error("{0}")]
    Socket(#[from] std::io::Error),
    /// TLS ended it.
    #[error("{0}")]
    Refused(String),
    /// A line longer than [`novacron_control_api::limits::LINE_BYTES_MAX`].
    #[error("it sent an endless line")]
    Endless,
}

/// What lines come over.
enum Way {
    Unix(UnixStream),
    Tls(Box<remote::Stream>),
}

impl Way {
    fn set_read_timeout(&self, wait: Duration) -> std::io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(wait)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(wait)),
        }
    }

    fn set_write_timeout(&self, wait: Duration) -> std::io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(Some(wait)),
            Self::Tls(stream) => stream.sock.set_write_timeout(Some(wait)),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes),
            // What TLS has taken it has not sent yet.
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

/// A socket read line by line.
pub(crate) struct Lines {
    stream: Way,
    buffer: LineBuffer,
}

impl Lines {
    /// Connects to a socket.
    pub(crate) fn connect(path: &Path) -> std::io::Result<Self> {
        Ok(Self { stream: Way::Unix(UnixStream::connect(path)?), buffer: LineBuffer::new() })
    }

    /// Over TLS.
    pub(crate) fn over(stream: remote::Stream) -> Self {
        Self { stream: Way::Tls(Box::new(stream)), buffer: LineBuffer::new() }
    }

    /// The next line; an error when none comes in time.
    pub(crate) fn read_line(&mut self, deadline: Instant) -> Result<Vec<u8>, LineError> {
        self.poll_line(deadline)?.ok_or(LineError::Late)
    }

    /// The next line, or `None` when none comes in time.
    pub(crate) fn poll_line(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, LineError> {
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(line) = self.buffer.next_line().map_err(|_| LineError::Endless)? {
                return Ok(Some(line));
            }
            let Some(left) = left(deadline) else { return Ok(None) };
            self.stream.set_read_timeout(left)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(LineError::Closed),
                Ok(count) => self.buffer.feed(&chunk[..count]),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Writes all of `bytes` in time.
    pub(crate) fn write(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), LineError> {
        self.stream.set_write_timeout(left(deadline).ok_or(LineError::Late)?)?;
        self.stream.write_all(bytes).map_err(|error| match is_timeout(&error) {
            true => LineError::Late,
            false => failed(error),
        })
    }
}

fn failed(error: std::io::Error) -> LineError {
    remote::told(&error).map_or(LineError::Socket(error), LineError::Refused)
}

/// Time until the deadline; `None` when it has passed. Never zero: a zero timeout means none at all to the kernel.
fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| *left >= Duration::from_micros(1))
}

fn is_timeout(error: &std::io::Error) -> bool {
    // Interrupted: a signal came; whoever waits looks at its flag at the next deadline.
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Whether a failed connect means that nothing listens there, not that somebody is busy.
pub(crate) fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}
