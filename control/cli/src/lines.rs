//! Lines over a unix socket, with a deadline for every read and write.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use novacron_control_api::LineBuffer;

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
    /// A line longer than [`novacron_control_api::limits::LINE_BYTES_MAX`].
    #[error("it sent an endless line")]
    Endless,
}

/// A unix socket read line by line.
pub(crate) struct Lines {
    stream: UnixStream,
    buffer: LineBuffer,
}

impl Lines {
    /// Connects to a socket.
    pub(crate) fn connect(path: &Path) -> std::io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(path)?, buffer: LineBuffer::new() })
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
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(LineError::Closed),
                Ok(count) => self.buffer.feed(&chunk[..count]),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of `bytes` in time.
    pub(crate) fn write(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), LineError> {
        self.stream.set_write_timeout(Some(left(deadline).ok_or(LineError::Late)?))?;
        self.stream.write_all(bytes).map_err(|error| match is_timeout(&error) {
            true => LineError::Late,
            false => error.into(),
        })
    }
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
