//! Listening for hypervisors and for other gateways.

use super::{Address, NetError, OpenSocket, wait_readable};
use crate::limits::LISTEN_BACKLOG;
use crate::shard::{blocking, sleep};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, getsockname, listen,
    socket_with, sockopt,
};
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A listening socket, unix or TCP. A unix socket's path is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: Address,
    unlink: Option<OwnPath>,
}

#[derive(Debug)]
struct OwnPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        // Somebody may have replaced the path since; theirs is not ours to remove.
        if let Ok(found) = fs::symlink_metadata(&self.path)
            && (found.dev(), found.ino()) == (self.device, self.inode)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A short rest after the process ran out of descriptors, so that a full process does not spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

impl Listener {
    /// Listens on `address`. Port 0 is replaced by the one that the system chose ([`Listener::address`]). A unix socket is
    /// made with mode 0600; what stands at its path is replaced only if it is a socket on which nobody listens.
    /// Must run on a shard (a host name is resolved beside it).
    pub async fn bind(address: &Address) -> Result<Self, NetError> {
        match address {
            Address::Unix(path) => Self::bind_unix(path),
            Address::Tcp { host, port } => {
                let (name, port) = (host.clone(), *port);
                let found = blocking(move || (name.as_str(), port).to_socket_addrs().map(|mut a| a.next()))
                    .await
                    .and_then(|a| a.ok_or_else(|| io::ErrorKind::NotFound.into()))
                    .map_err(|source| NetError::Resolve { address: address.clone(), source })?;
                Self::bind_tcp(address, found)
            }
        }
    }

    fn bind_tcp(address: &Address, at: SocketAddr) -> Result<Self, NetError> {
        let failed = |e: Errno| NetError::Bind { address: address.clone(), source: e.into() };
        let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let fd = socket_with(family, SocketType::STREAM, FLAGS, None).map_err(failed)?;
        // Restart at once after a crash; but never SO_REUSEPORT, which would let two gateways share a port unnoticed.
        sockopt::set_socket_reuseaddr(&fd, true).map_err(failed)?;
        bind(&fd, &at).map_err(failed)?;
        listen(&fd, LISTEN_BACKLOG).map_err(failed)?;
        let bound = getsockname(&fd).map_err(failed)?;
        let bound = SocketAddr::try_from(bound).map_err(failed)?;
        let address = Address::Tcp { host: bound.ip().to_string(), port: bound.port() };
        Ok(Self { fd, address, unlink: None })
    }

    fn bind_unix(path: &Path) -> Result<Self, NetError> {
        let address = Address::Unix(path.to_owned());
        let failed = |source: io::Error| NetError::Bind { address: address.clone(), source };
        let name = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
        remove_stale(path, &name).map_err(|e| match e {
            Stale::Known(e) => e,
            Stale::Io(source) => failed(source),
        })?;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)
            .map_err(|e| failed(e.into()))?;
        bind(&fd, &name).map_err(|e| failed(e.into()))?;
        let made = fs::symlink_metadata(path).map_err(failed)?;
        let unlink = OwnPath { path: path.to_owned(), device: made.dev(), inode: made.ino() };
        // Nobody can connect before `listen`, so there is no moment with a wider mode.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listen(&fd, LISTEN_BACKLOG).map_err(|e| failed(e.into()))?;
        Ok(Self { fd, address, unlink: Some(unlink) })
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for a connection. Cancelling loses none. A connection that ended before it was accepted is skipped; a
    /// process out of descriptors waits for some to return. Must run on a shard, any.
    pub async fn accept(&self) -> Result<OpenSocket, NetError> {
        let failed = |source: io::Error| NetError::Accept { address: self.address.clone(), source };
        loop {
            match accept_with(&self.fd, SocketFlags::CLOEXEC) {
                Ok(fd) => return OpenSocket::adopt(fd).map_err(failed),
                Err(Errno::AGAIN) => wait_readable(self.fd.as_fd()).await.map_err(failed)?,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    sleep(EXHAUSTED_PAUSE).await
                }
                // accept(2): errors already pending on the new connection; try the next one.
                Err(
                    Errno::INTR
                    | Errno::CONNABORTED
                    | Errno::NETDOWN
                    | Errno::PROTO
                    | Errno::HOSTDOWN
                    | Errno::HOSTUNREACH
                    | Errno::NETUNREACH
                    | Errno::PERM,
                ) => sleep(Duration::from_millis(1)).await,
                Err(e) => return Err(failed(e.into())),
            }
        }
    }

    /// Stops listening and removes a unix socket's path now.
    pub fn close(self) {
        drop(self.unlink);
    }
}

enum Stale {
    Known(NetError),
    Io(io::Error),
}

fn remove_stale(path: &Path, name: &SocketAddrUnix) -> Result<(), Stale> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Stale::Io(e)),
    };
    if !found.file_type().is_socket() {
        return Err(Stale::Known(NetError::NotASocket { path: path.to_owned() }));
    }
    let probe =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None).map_err(|e| Stale::Io(e.into()))?;
    match connect(&probe, name) {
        // Only a refusal proves that nobody listens; a full backlog (EAGAIN) proves that somebody does.
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(Stale::Io),
        Err(Errno::NOENT) => Ok(()),
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => {
            Err(Stale::Known(NetError::InUse { path: path.to_owned() }))
        }
        Err(e) => Err(Stale::Io(e.into())),
    }
}
