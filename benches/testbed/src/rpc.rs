//! A gateway's control socket: JSON-RPC 2.0, one object a line.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::limits::{ANSWER_WAIT, RPC_LINE_BYTES_MAX, SOCKET_WAIT};
use crate::wait;

/// A connection to a control socket.
#[derive(Debug)]
pub struct Rpc {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    next_id: u64,
    notifications: Vec<Value>,
}

/// What the other side refused with. An [`anyhow::Error`] of [`Rpc::call`] may be downcast to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// JSON-RPC's number.
    pub code: i64,
    /// What happened.
    pub message: String,
    /// More of it: our gateways put `code`, `lost` and `next` here.
    pub data: Value,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.message, self.code, self.data)
    }
}

impl std::error::Error for Refused {}

impl Rpc {
    /// Connects, waiting for the socket to appear.
    ///
    /// # Errors
    /// When it does not appear in time.
    pub fn connect(path: &Path) -> Result<Self> {
        let what = format!("a control socket at {}", path.display());
        let writer = wait::until(&what, SOCKET_WAIT, || Ok(UnixStream::connect(path).ok()))?;
        let reader = BufReader::new(writer.try_clone().context("sharing the control socket")?);
        Ok(Self { reader, writer, next_id: 1, notifications: Vec::new() })
    }

    /// Calls a method and returns its result. Notifications that come in meanwhile are kept for
    /// [`Rpc::notification`].
    ///
    /// # Errors
    /// [`Refused`], or that no answer came within [`ANSWER_WAIT`].
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.writer
            .write_all(format!("{request}\n").as_bytes())
            .with_context(|| format!("calling {method}"))?;
        let deadline = Instant::now() + ANSWER_WAIT;
        loop {
            let message =
                self.read(deadline).with_context(|| format!("waiting for the answer to {method}"))?;
            let Some(mut message) = message else {
                bail!("{method}: no answer within {} s", ANSWER_WAIT.as_secs())
            };
            if message.get("id").is_none() {
                self.notifications.push(message);
                continue;
            }
            ensure!(message["id"] == json!(id), "{method}: the answer is another call's: {message}");
            if let Some(error) = message.get_mut("error") {
                return Err(Refused {
                    code: error["code"].as_i64().unwrap_or_default(),
                    message: error["message"].as_str().unwrap_or_default().to_owned(),
                    data: error["data"].take(),
                })
                .with_context(|| format!("{method} was refused"));
            }
            return Ok(message["result"].take());
        }
    }

    /// The next notification, in the order in which they came; `None` when there is none within `limit`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn notification(&mut self, limit: Duration) -> Result<Option<Value>> {
        if !self.notifications.is_empty() {
            return Ok(Some(self.notifications.remove(0)));
        }
        self.read(Instant::now() + limit)
    }

    fn read(&mut self, deadline: Instant) -> Result<Option<Value>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                ensure!(line.is_empty(), "the control socket stopped in the middle of a line");
                return Ok(None);
            }
            self.writer.set_read_timeout(Some(left)).context("setting a time limit on the control socket")?;
            let room = RPC_LINE_BYTES_MAX.saturating_sub(line.len() as u64);
            ensure!(room > 0, "a line on the control socket is longer than {RPC_LINE_BYTES_MAX} bytes");
            match (&mut self.reader).take(room).read_until(b'\n', &mut line) {
                Ok(0) => bail!("the gateway has closed its control socket"),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => bail!("the control socket broke: {error}"),
            }
        }
        serde_json::from_slice(&line).context("a line on the control socket is not JSON").map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::Scratch;

    #[test]
    fn results_errors_and_notifications_are_told_apart() {
        let scratch = Scratch::new().unwrap();
        let listener = UnixListener::bind(scratch.file("c")).unwrap();
        let server = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
            let request: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(request["method"], "a");
            (&socket).write_all(b"{\"method\":\"n\"}\n{\"id\":1,\"result\":{\"x\":1}}\n").unwrap();
            lines.next().unwrap().unwrap();
            let error = b"{\"id\":2,\"error\":{\"code\":-32002,\"message\":\"m\",\"data\":{\"code\":\"session_unknown\"}}}\n";
            (&socket).write_all(error).unwrap();
        });
        let mut rpc = Rpc::connect(&scratch.file("c")).unwrap();
        assert_eq!(rpc.call("a", json!({})).unwrap(), json!({"x": 1}));
        assert_eq!(rpc.notification(Duration::ZERO).unwrap().unwrap()["method"], "n");
        let error = rpc.call("b", json!({})).unwrap_err();
        let refused = error.downcast_ref::<Refused>().unwrap();
        assert_eq!((refused.code, &refused.data["code"]), (-32002, &json!("session_unknown")));
        server.join().unwrap();
        assert!(rpc.call("c", json!({})).is_err());
    }
}
