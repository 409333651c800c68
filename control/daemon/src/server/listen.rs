//! Where callers connect: a unix socket, and TLS over TCP for a remote fleet.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use novacron_control_api::{Endpoint, ErrorCode, RpcError};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::component::Fault;
use crate::limits::{HANDSHAKE, HANDSHAKES_MAX};
use crate::node::{Node, Task};
use crate::server::access::Who;
use crate::server::books::Books;
use crate::server::calls::{Calls, Status};
use crate::server::client::{refuse, serve};
use crate::server::tls;

/// Pause after an accept that failed: out of file descriptors, say; waiting is all that helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All control sockets.
pub(crate) struct Server {
    calls: Arc<Calls>,
    callers: Arc<Callers>,
    path: PathBuf,
    accepting: Task,
}

/// Places for callers, and how many are taken.
struct Callers {
    places: Semaphore,
    most: usize,
    connected: AtomicUsize,
    node: Arc<Node>,
}

/// One caller's place, until it is dropped.
struct Place<'a> {
    callers: &'a Callers,
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl Callers {
    fn place(&self) -> Result<Place<'_>, RpcError> {
        match self.places.try_acquire() {
            Ok(permit) => {
                self.node.metrics.callers(self.connected.fetch_add(1, Ordering::Relaxed) + 1);
                Ok(Place { callers: self, _permit: permit })
            }
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                self.node.metrics.refused();
                let message =
                    format!("{} callers are connected, as many as network.max_connections allows", self.most);
                Err(RpcError::new(
                    ErrorCode::LimitReached,
                    message,
                    "nothing",
                    "close idle connections, then try again",
                ))
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let connected = self.callers.connected.fetch_sub(1, Ordering::Relaxed) - 1;
        self.callers.node.metrics.callers(connected);
    }
}

impl Server {
    pub(crate) fn new(node: Arc<Node>, books: Arc<Books>, status: Arc<Status>) -> Self {
        let most = usize::try_from(node.at_start().network.max_connections.get()).unwrap_or(1);
        let path = node.at_start().system.control_socket.clone();
        let calls = Arc::new(Calls::new(Arc::clone(&node), books, status));
        let (places, connected) = (Semaphore::new(most), AtomicUsize::new(0));
        let callers = Arc::new(Callers { places, most, connected, node });
        Self { calls, callers, path, accepting: Task::default() }
    }

    /// Opens every socket and serves until [`Server::end`].
    pub(crate) async fn begin(&self) -> Result<(), Fault> {
        self.accepting.end();
        let node = &self.calls.node;
        let local = bind(&self.path, node.at_start().security.enable_auth).await?;
        let remote = match &node.at_start().network.control_listen {
            Some(endpoint) => {
                Some((tcp(endpoint.get()).await?, tls::acceptor(node.at_start()).map_err(Fault::lasting)?))
            }
            None => None,
        };
        let (calls, callers) = (Arc::clone(&self.calls), Arc::clone(&self.callers));
        self.accepting.run(async move { accept_local(&local, &calls, &callers).await });
        if let Some((listener, security)) = remote {
            tracing::info!(address = ?listener.local_addr().ok(), "remote callers are answered");
            let (calls, callers) = (Arc::clone(&self.calls), Arc::clone(&self.callers));
            self.accepting.run(async move { accept_remote(&listener, &security, &calls, &callers).await });
        }
        Ok(())
    }

    pub(crate) fn end(&self) {
        self.accepting.end();
        // Somebody else's cleanup may have been faster.
        let _ = std::fs::remove_file(&self.path);
    }

    /// How many callers are connected; an error: nobody is served any more.
    pub(crate) fn connected(&self) -> Result<usize, &'static str> {
        if self.accepting.has_ended() {
            return Err("a control socket is served no longer");
        }
        Ok(self.callers.connected.load(Ordering::Relaxed))
    }
}

/// Opens the socket. A stale one at the path is replaced; a live one, or anything else that stands there, is not.
async fn bind(path: &Path, has_roles: bool) -> Result<UnixListener, Fault> {
    let told = |why: String| format!("the control socket {} cannot be opened: {why}", path.display());
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let why = "something that is no socket stands there; remove it or change system.control_socket";
            return Err(Fault::lasting(told(why.to_owned())));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            let why = "another process listens there; stop it, or change system.control_socket";
            return Err(Fault::passing(told(why.to_owned())));
        }
        Ok(_) => std::fs::remove_file(path).map_err(|error| Fault::lasting(told(error.to_string())))?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|error| Fault::lasting(told(error.to_string())))?;
    // With roles the kernel says who connects, and the lists what they may; without them the file's owner may all.
    let mode = if has_roles { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|error| Fault::lasting(told(error.to_string())))?;
    Ok(listener)
}

async fn tcp(endpoint: &Endpoint) -> Result<TcpListener, Fault> {
    let told = |why: String| format!("remote callers cannot be answered at {endpoint}: {why}");
    let Endpoint::Tcp { host, port } = endpoint else {
        return Err(Fault::lasting(told("it is no TCP address".to_owned())));
    };
    TcpListener::bind((host.as_str(), *port)).await.map_err(|error| Fault::passing(told(error.to_string())))
}

async fn accept_local(listener: &UnixListener, calls: &Arc<Calls>, callers: &Arc<Callers>) {
    // Connections end with their listener.
    let mut serving = JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a caller cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (calls, callers) = (Arc::clone(calls), Arc::clone(callers));
        serving.spawn(async move {
            let _place = match callers.place() {
                Ok(place) => place,
                Err(error) => return refuse(stream, error).await,
            };
            // A socket that does not tell is nobody's.
            let who =
                stream.peer_cred().map_or(Who::Unknown, |of| Who::Local { uid: of.uid(), gid: of.gid() });
            serve(stream, who, calls).await;
        });
    }
}

async fn accept_remote(
    listener: &TcpListener,
    security: &Arc<tls::Acceptor>,
    calls: &Arc<Calls>,
    callers: &Arc<Callers>,
) {
    let mut serving = JoinSet::new();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        while serving.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a remote caller cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without a place nothing is said: a stranger has shown nothing that deserves an answer.
        let Ok(turn) = Arc::clone(&handshakes).try_acquire_owned() else {
            callers.node.metrics.refused();
            continue;
        };
        let (calls, callers, security) = (Arc::clone(calls), Arc::clone(callers), Arc::clone(security));
        serving.spawn(async move {
            let shaken = timeout(HANDSHAKE, security.accept(stream)).await;
            drop(turn);
            let (stream, who) = match shaken {
                Ok(Ok(accepted)) => accepted,
                Ok(Err(why)) => {
                    callers.node.metrics.refused();
                    tracing::warn!(%from, "a remote caller is turned away: {why}");
                    return;
                }
                Err(_) => return,
            };
            match callers.place() {
                Ok(_place) => serve(stream, who, calls).await,
                Err(error) => refuse(stream, error).await,
            }
        });
    }
}
