//! A hypervisor's machine protocol: commands, and waiting for events.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qapi::qmp::{Event, QmpMessageAny};
use qapi::{Command, ExecuteError, Stream};

use crate::limits::{ANSWER_WAIT, SOCKET_WAIT};
use crate::wait;

/// A connection to a QMP socket. A socket serves one connection at a time; others wait in line.
pub struct Qmp {
    inner: qapi::Qmp<Stream<BufReader<UnixStream>, UnixStream>>,
}

impl Qmp {
    /// Connects and negotiates, waiting for the socket to appear.
    ///
    /// # Errors
    /// When it does not appear in time or does not speak QMP.
    pub fn connect(path: &Path) -> Result<Self> {
        let what = format!("a QMP socket at {}", path.display());
        let socket = wait::until(&what, SOCKET_WAIT, || Ok(UnixStream::connect(path).ok()))?;
        socket.set_read_timeout(Some(ANSWER_WAIT)).context("setting a time limit on the QMP socket")?;
        let reader = BufReader::new(socket.try_clone().context("sharing the QMP socket")?);
        let mut inner = qapi::Qmp::new(Stream::new(reader, socket));
        inner.handshake().with_context(|| format!("negotiating with {}", path.display()))?;
        Ok(Self { inner })
    }

    /// Runs a command and returns its answer.
    ///
    /// # Errors
    /// The hypervisor's own message, or that it did not answer within [`ANSWER_WAIT`].
    pub fn execute<C: Command>(&mut self, command: C) -> Result<C::Ok> {
        self.inner.execute(&command).map_err(|error| match error {
            ExecuteError::Qapi(error) => anyhow::Error::msg(format!("{}: refused: {}", C::NAME, error.desc)),
            ExecuteError::Io(error) => anyhow::Error::new(error).context(format!("{}: no answer", C::NAME)),
        })
    }

    /// Waits until `wanted` finds what it looks for in an event. Events seen are gone. `None`: not within `limit`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn wait_event<T>(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> Result<Option<T>> {
        // Those that came in while an answer was waited for.
        let queued: Vec<Event> = self.inner.events().collect();
        let deadline = Instant::now() + limit;
        let mut found = queued.iter().find_map(&mut wanted);
        while found.is_none() && self.readable(deadline)? {
            let mut line = Vec::new();
            self.inner.inner_mut().read_until(b'\n', &mut line).context("reading a QMP event")?;
            if let QmpMessageAny::Event(event) =
                serde_json::from_slice(&line).context("reading a QMP event")?
            {
                found = wanted(&event);
            }
        }
        Ok(found)
    }

    /// Whether something has come in before the deadline. Messages come whole, so that the rest need not be timed.
    fn readable(&mut self, deadline: Instant) -> Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.set_read_timeout(left)?;
        let filled = match self.inner.inner_mut().fill_buf() {
            Ok(bytes) => {
                ensure!(!bytes.is_empty(), "the hypervisor has closed its QMP socket");
                true
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                false
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) => bail!("the QMP socket broke: {error}"),
        };
        self.set_read_timeout(ANSWER_WAIT)?;
        Ok(filled)
    }

    fn set_read_timeout(&mut self, limit: Duration) -> Result<()> {
        let socket = self.inner.inner().get_ref_write();
        socket.set_read_timeout(Some(limit)).context("setting a time limit on the QMP socket")
    }
}
