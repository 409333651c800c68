//! Clients of the control socket: a thread each, bounded in number, lines and watches.

use super::Calls;
use super::caller::Caller;
use crate::limits::{CONTROL_CLIENTS_MAX, CONTROL_WRITE_TIMEOUT, WATCHES_MAX};
use novacron_control_api::method::{SESSION_ENDED, SESSION_PROGRESS};
use novacron_control_api::{
    Call, ErrorCode, Id, LineBuffer, Notification, Response, RpcError, SessionId, WatchParams, WatchResult,
    parse_request,
};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The control socket could not be opened. Nothing was started.
#[derive(Debug)]
pub(crate) struct ServerError(String);

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerError {}

/// The control socket.
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Opens the socket with this mode. A stale socket at the path is replaced; a live one, or anything
    /// else that stands there, is not.
    pub(crate) fn bind(path: &Path, mode: u32) -> Result<Server, ServerError> {
        let refused = |why: String| {
            ServerError(format!("the control socket {} cannot be opened: {why}", path.display()))
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(refused(
                    "something that is no socket stands there; remove it or choose another path".into(),
                ));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(refused("another gateway listens there; choose another path or stop it".into()));
            }
            Ok(_) => std::fs::remove_file(path).map_err(|e| refused(e.to_string()))?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(|e| refused(e.to_string()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|e| refused(e.to_string()))?;
        Ok(Server { listener, path: path.to_owned() })
    }

    /// Serves clients until the process ends.
    pub(crate) fn run(&self, calls: &Arc<Calls>) {
        let clients = Arc::new(AtomicUsize::new(0));
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a client of the control socket could not be accepted");
                    // Out of file descriptors, say: waiting is all that helps.
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if clients.fetch_add(1, Ordering::Relaxed) >= CONTROL_CLIENTS_MAX {
                clients.fetch_sub(1, Ordering::Relaxed);
                let message = format!("the control socket serves {CONTROL_CLIENTS_MAX} clients at once");
                let next = "close idle connections, then try again";
                refuse(stream, RpcError::new(ErrorCode::LimitReached, message, "nothing", next));
                continue;
            }
            let caller = match Caller::of(&stream, calls.callers.as_ref()) {
                Ok(caller) => caller,
                Err(error) => {
                    clients.fetch_sub(1, Ordering::Relaxed);
                    tracing::warn!(why = %error.message, "a client of the control socket was refused");
                    calls.protection.refusals().count("unknown_caller");
                    refuse(stream, error);
                    continue;
                }
            };
            let (calls, count) = (Arc::clone(calls), Arc::clone(&clients));
            let started = std::thread::Builder::new().name("control-client".to_owned()).spawn(move || {
                Client::new(stream, caller, &calls).run();
                count.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(error) = started {
                clients.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%error, "no thread for a client of the control socket");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody else's cleanup may have been faster.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn refuse(mut stream: UnixStream, error: RpcError) {
    // Who cannot take the refusal gets a closed socket, which says the same.
    let _ = stream.set_write_timeout(Some(CONTROL_WRITE_TIMEOUT));
    let _ = stream.write_all(&Response::error(Id::Null, error).to_line());
}

struct Watch {
    session: SessionId,
    interval: Duration,
    due: Instant,
}

struct Client<'a> {
    stream: UnixStream,
    caller: Caller,
    calls: &'a Calls,
    watches: Vec<Watch>,
}

/// The client is gone, or takes no more.
struct Gone;

impl<'a> Client<'a> {
    fn new(stream: UnixStream, caller: Caller, calls: &'a Calls) -> Self {
        Client { stream, caller, calls, watches: Vec::new() }
    }

    fn run(mut self) {
        let mut lines = LineBuffer::new();
        let mut chunk = [0; 16 * 1024];
        if self.stream.set_write_timeout(Some(CONTROL_WRITE_TIMEOUT)).is_err() {
            return;
        }
        loop {
            loop {
                match lines.next_line() {
                    Ok(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
                    Ok(Some(line)) => {
                        if self.answer(&line).is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let next = "send one JSON object a line; this connection is closed";
                        let error = RpcError::new(ErrorCode::ParseError, error.to_string(), "nothing", next);
                        let _ = self.write(&Response::error(Id::Null, error).to_line());
                        return;
                    }
                }
            }
            if self.tell_watchers().is_err() {
                return;
            }
            let wait = self
                .watches
                .iter()
                .map(|watch| watch.due)
                .min()
                .map(|due| due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
            if self.stream.set_read_timeout(wait).is_err() {
                return;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => lines.feed(&chunk[..count]),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> Result<(), Gone> {
        self.stream.write_all(line).map_err(|_| Gone)
    }

    fn answer(&mut self, line: &[u8]) -> Result<(), Gone> {
        let request = match parse_request(line) {
            Ok(request) => request,
            Err(fault) => {
                return fault.into_response().map_or(Ok(()), |response| self.write(&response.to_line()));
            }
        };
        let result = match request.call {
            Call::SessionWatch(params) => self.watch(&params).map(|watching| serde_json::json!(watching)),
            call => self.calls.carry_out(&self.caller, call),
        };
        let Some(id) = request.id else { return Ok(()) };
        let response = match result {
            Ok(value) => Response::result(id, &value),
            Err(error) => Response::error(id, error),
        };
        self.write(&response.to_line())
    }

    fn watch(&mut self, params: &WatchParams) -> Result<WatchResult, RpcError> {
        self.calls.get(&self.caller, params.session)?;
        self.watches.retain(|watch| watch.session != params.session);
        if self.watches.len() >= WATCHES_MAX {
            let message = format!("one client watches {WATCHES_MAX} sessions at most");
            return Err(RpcError::new(
                ErrorCode::LimitReached,
                message,
                "nothing",
                "watch from a second connection",
            ));
        }
        let interval = Duration::from_millis(params.interval_ms);
        self.watches.push(Watch { session: params.session, interval, due: Instant::now() });
        Ok(WatchResult { watching: true })
    }

    /// Tells what is due; a session that has ended is told once more and forgotten.
    fn tell_watchers(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        let mut kept = Vec::with_capacity(self.watches.len());
        for mut watch in std::mem::take(&mut self.watches) {
            if now < watch.due {
                kept.push(watch);
                continue;
            }
            // A session that aged out of the list of ended ones has nothing more to tell.
            let Ok(record) = self.calls.get(&self.caller, watch.session) else { continue };
            let ended = record.state.is_ended();
            let method = if ended { SESSION_ENDED } else { SESSION_PROGRESS };
            self.write(&Notification::new(method, &record).to_line())?;
            if !ended {
                watch.due = now + watch.interval;
                kept.push(watch);
            }
        }
        self.watches = kept;
        Ok(())
    }
}
