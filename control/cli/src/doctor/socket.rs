//! A TCP connection, and what the kernel knows of its path.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt as rustix_sockopt};

/// Connects within `wait`; with `segment`, announcing and sending no larger segments than that.
pub(super) fn connect(address: SocketAddr, segment: Option<u32>, wait: Duration) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    if let Some(segment) = segment {
        setsockopt(&socket, sockopt::TcpMaxSeg, &segment)?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => {
            let limit = Timespec::try_from(wait).map_err(io::Error::other)?;
            if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&limit))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            rustix_sockopt::socket_error(&socket)??;
        }
        Err(why) => return Err(why.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Path MTU that the kernel knows of, in bytes; IPv4 only.
pub(super) fn mtu(stream: &TcpStream) -> Option<u32> {
    let local = stream.local_addr().ok()?;
    local
        .is_ipv4()
        .then(|| getsockopt(stream, sockopt::IpMtu).ok())
        .flatten()
        .and_then(|mtu| mtu.try_into().ok())
}

/// Largest segment that leaves, in bytes.
pub(super) fn segment(stream: &TcpStream) -> Option<u32> {
    getsockopt(stream, sockopt::TcpMaxSeg).ok()
}

/// Waits until the peer's kernel has acknowledged everything that was written; `None` where this kernel does not say,
/// else whether it has.
pub(super) fn acknowledged(stream: &TcpStream, wait: Duration) -> Option<bool> {
    let inode = rustix::fs::fstat(stream).ok()?.st_ino;
    let deadline = Instant::now() + wait;
    loop {
        let waiting = unacknowledged(inode)?;
        if waiting == 0 {
            return Some(true);
        }
        if Instant::now() >= deadline {
            return Some(false);
        }
        std::thread::sleep(crate::limits::POLL_SHORT);
    }
}

/// Bytes of a socket that are sent and not acknowledged (`proc_net_tcp(5)`: the queues are the fifth column, the inode the
/// tenth).
fn unacknowledged(inode: u64) -> Option<u64> {
    ["tcp", "tcp6"].iter().find_map(|table| {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok()?;
        text.lines().find_map(|line| in_row(line, inode))
    })
}

fn in_row(line: &str, inode: u64) -> Option<u64> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    if columns.get(9)?.parse() != Ok(inode) {
        return None;
    }
    u64::from_str_radix(columns.get(4)?.split(':').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn the_kernel_says_what_left_and_what_arrived() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut stream = connect(address, Some(1160), Duration::from_secs(10)).expect("connected");
        let (mut peer, _) = listener.accept().expect("accepted");
        assert!(segment(&stream).expect("a size") <= 1160);
        assert!(mtu(&stream).expect("loopback has one") >= 1500);
        stream.write_all(&[7; 5000]).expect("written");
        assert_eq!(acknowledged(&stream, Duration::from_secs(10)), Some(true));
        let mut bytes = [0; 5000];
        peer.read_exact(&mut bytes).expect("arrived");
    }

    #[test]
    fn a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let why = connect(address, None, Duration::from_secs(10)).expect_err("nobody listens");
        assert_eq!(why.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn rows_are_read_by_their_columns() {
        let row = "   1: 0100007F:1F90 0100007F:C350 01 00000A00:00000000 01:00000014 00000000  0        0 4242 2 0";
        assert_eq!(in_row(row, 4242), Some(0xa00));
        assert_eq!(in_row(row, 1), None);
        assert_eq!(in_row("sl local_address", 1), None);
    }
}
