//! Making connections, with a deadline.

use super::{Address, NetError, OpenSocket};
use crate::limits::RESOLVED_ADDRESSES_MAX;
use crate::shard::{blocking, sleep, timeout};
use glommio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long to wait before asking a unix listener with a full queue again.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// Connects to `address`; `limit` covers resolving and every address tried. Must run on a shard.
pub async fn connect(address: &Address, limit: Duration) -> Result<OpenSocket, NetError> {
    match timeout(limit, connect_unlimited(address)).await {
        Some(result) => result,
        None => Err(NetError::ConnectTimeout { address: address.clone(), timeout: limit }),
    }
}

async fn connect_unlimited(address: &Address) -> Result<OpenSocket, NetError> {
    let failed = |source: io::Error| NetError::Connect { address: address.clone(), source };
    let fd = match address {
        Address::Unix(path) => connect_unix(path).await.map_err(failed)?,
        Address::Tcp { host, port } => {
            let candidates = resolve(host, *port)
                .await
                .map_err(|source| NetError::Resolve { address: address.clone(), source })?;
            connect_tcp(&candidates).await.map_err(failed)?
        }
    };
    OpenSocket::adopt(fd).map_err(failed)
}

async fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let name = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&fd, &name) {
            Ok(()) => return Ok(fd),
            // The listener's queue is full. Nothing tells when it no longer is (unix(7)); the caller's deadline ends this.
            Err(Errno::AGAIN) => sleep(BACKLOG_PAUSE).await,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

async fn connect_tcp(candidates: &[SocketAddr]) -> io::Result<OwnedFd> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in candidates {
        match TcpStream::connect(*candidate).await {
            // Bringing a socket to another shard needs it free of this shard's reactor: the duplicate is, and the original
            // takes its pending readiness request with it when it is dropped.
            // SAFETY: the stream is borrowed and owns the descriptor, so it stays open during the call.
            Ok(stream) => return unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }.try_clone_to_owned(),
            Err(e) => last = e.into(),
        }
    }
    Err(last)
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_owned();
    // The system's resolver blocks, so it runs beside the shard.
    blocking(move || {
        (host.as_str(), port).to_socket_addrs().map(|a| a.take(RESOLVED_ADDRESSES_MAX).collect())
    })
    .await
}
