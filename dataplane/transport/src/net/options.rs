//! Socket options, set and read back, and what TCP says about its path.

use super::NetError;
use rustix::io::Errno;
use rustix::net::sockopt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What to ask of a socket. `None` leaves the system's default. The TCP ones are ignored on unix sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// `SO_SNDBUF`, bytes. On unix sockets larger is faster; on TCP it switches the kernel's own tuning off.
    pub send_buffer_bytes: Option<usize>,
    /// `SO_RCVBUF`, bytes. The same holds.
    pub receive_buffer_bytes: Option<usize>,
    /// `TCP_NODELAY`: frames leave at once. Default off, as in the system; [`SocketOptions::for_streams`] sets it.
    pub no_delay: bool,
    /// `TCP_NOTSENT_LOWAT`, bytes: how much may wait unsent in the kernel before the socket stops being writable.
    pub unsent_low_water_bytes: Option<u32>,
    /// `TCP_CONGESTION`, such as `bbr` or `cubic`. The system may not allow each to each user.
    pub congestion: Option<String>,
    /// The same as a wish: where it is not there or not allowed, the system's default stays.
    /// [`AppliedOptions::congestion`] says which it became.
    pub congestion_preferred: Option<String>,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged before the connection is dead. Linux counts the time
    /// during which the peer is alive and does not read (a zero window) too, so this must exceed any back-pressure.
    pub user_timeout: Option<Duration>,
    /// `SO_KEEPALIVE` with this idle time and interval (whole seconds, at least 1), three probes.
    pub keepalive: Option<Duration>,
}

impl SocketOptions {
    /// For streams between gateways: no delay, and an idle stream's dead peer is noticed in 20 s. A dead peer of a busy
    /// stream is for the protocol to notice: TCP itself cannot tell it soon without mistaking back-pressure for death.
    pub fn for_streams() -> Self {
        Self { no_delay: true, keepalive: Some(Duration::from_secs(5)), ..Self::default() }
    }

    /// For a hypervisor's socket on this machine: buffers of 1 MiB, so that one call moves a whole batch.
    pub fn for_hypervisors() -> Self {
        Self {
            send_buffer_bytes: Some(1 << 20),
            receive_buffer_bytes: Some(1 << 20),
            no_delay: true,
            ..Self::default()
        }
    }

    pub(crate) fn apply(&self, fd: BorrowedFd<'_>, is_tcp: bool) -> Result<(), NetError> {
        let named = |option| move |e: Errno| NetError::Option { option, source: e.into() };
        if let Some(bytes) = self.send_buffer_bytes {
            // The forced form exceeds net.core.wmem_max, which only the privileged may; others get what the system allows.
            sockopt::set_socket_send_buffer_size_force(fd, bytes)
                .or_else(|_| sockopt::set_socket_send_buffer_size(fd, bytes))
                .map_err(named("SO_SNDBUF"))?;
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            sockopt::set_socket_recv_buffer_size_force(fd, bytes)
                .or_else(|_| sockopt::set_socket_recv_buffer_size(fd, bytes))
                .map_err(named("SO_RCVBUF"))?;
        }
        if !is_tcp {
            return Ok(());
        }
        if self.no_delay {
            sockopt::set_tcp_nodelay(fd, true).map_err(named("TCP_NODELAY"))?;
        }
        if let Some(bytes) = self.unsent_low_water_bytes {
            set_u32(fd, libc::TCP_NOTSENT_LOWAT, bytes)
                .map_err(|source| NetError::Option { option: "TCP_NOTSENT_LOWAT", source })?;
        }
        if let Some(name) = &self.congestion {
            sockopt::set_tcp_congestion(fd, name).map_err(named("TCP_CONGESTION"))?;
        }
        if let Some(name) = &self.congestion_preferred {
            prefer_congestion(fd, name).map_err(named("TCP_CONGESTION"))?;
        }
        if let Some(timeout) = self.user_timeout {
            let ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            sockopt::set_tcp_user_timeout(fd, ms).map_err(named("TCP_USER_TIMEOUT"))?;
        }
        if let Some(idle) = self.keepalive {
            let idle = Duration::from_secs(idle.as_secs().max(1));
            sockopt::set_socket_keepalive(fd, true).map_err(named("SO_KEEPALIVE"))?;
            sockopt::set_tcp_keepidle(fd, idle).map_err(named("TCP_KEEPIDLE"))?;
            sockopt::set_tcp_keepintvl(fd, idle).map_err(named("TCP_KEEPINTVL"))?;
            sockopt::set_tcp_keepcnt(fd, 3).map_err(named("TCP_KEEPCNT"))?;
        }
        Ok(())
    }
}

/// Asks for a congestion control, also on a connection that is in use. One that the system does not have, or does not grant to this
/// process, is no error, and changes nothing.
pub(super) fn prefer_congestion(fd: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match sockopt::set_tcp_congestion(fd, name) {
        Ok(()) | Err(Errno::PERM | Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the socket says it has, which may differ from what was asked. Linux reports buffers twice as large as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedOptions {
    /// `SO_SNDBUF`, bytes.
    pub send_buffer_bytes: usize,
    /// `SO_RCVBUF`, bytes.
    pub receive_buffer_bytes: usize,
    /// `TCP_CONGESTION`; `None` on unix sockets.
    pub congestion: Option<String>,
    /// `TCP_NODELAY`; false on unix sockets.
    pub no_delay: bool,
}

impl AppliedOptions {
    pub(crate) fn read(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            send_buffer_bytes: sockopt::socket_send_buffer_size(fd)?,
            receive_buffer_bytes: sockopt::socket_recv_buffer_size(fd)?,
            congestion: sockopt::tcp_congestion(fd).ok(),
            no_delay: sockopt::tcp_nodelay(fd).unwrap_or(false),
        })
    }
}

/// What TCP measured on a stream's path (Linux `struct tcp_info`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Its mean deviation, microseconds.
    pub rtt_variation_us: u32,
    /// Smallest round-trip time seen lately, microseconds.
    pub rtt_min_us: u32,
    /// Congestion window, bytes.
    pub window_bytes: u64,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Bytes in the kernel that have not been sent yet.
    pub unsent_bytes: u32,
    /// Bytes that the peer has acknowledged behind something missing (SACK, RFC 2018), in whole segments.
    pub beyond_bytes: u64,
    /// What the path delivered lately, bytes per second.
    pub delivery_rate_bytes_per_s: u64,
}

impl PathStats {
    pub(crate) fn read(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // Offsets of Linux uapi/linux/tcp.h, struct tcp_info: append-only, so older kernels return less.
        const BYTES: usize = 240;
        let mut info = [0u8; BYTES];
        let mut len = BYTES as libc::socklen_t;
        // SAFETY: `info` is writable for `len` bytes, `len` is initialised to that size, and the kernel writes at most `len`
        // bytes; `fd` is open for the duration of the borrow.
        let rc = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&info[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        Ok(Self {
            rtt_us: word(68),
            rtt_variation_us: word(72),
            window_bytes: u64::from(word(80)) * u64::from(word(16)),
            retransmits: word(100),
            unsent_bytes: word(144),
            beyond_bytes: u64::from(word(28)) * u64::from(word(16)),
            rtt_min_us: word(148),
            delivery_rate_bytes_per_s: long(160),
        })
    }
}

pub(super) fn set_u32(fd: BorrowedFd<'_>, option: libc::c_int, value: u32) -> io::Result<()> {
    // SAFETY: `value` is readable for the four bytes that are announced, and `fd` is open for the duration of the borrow.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes given to the kernel that the peer has not acknowledged (TCP) or not read (unix): `SIOCOUTQ`.
pub(crate) fn unacknowledged_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (= TIOCOUTQ) writes one int to the pointer, which is valid and exclusive; `fd` is open.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if rc == 0 { Ok(usize::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn tcp_options_are_applied_and_read_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let options = SocketOptions {
            send_buffer_bytes: Some(300_000),
            receive_buffer_bytes: Some(200_000),
            unsent_low_water_bytes: Some(65_536),
            congestion: Some("reno".into()),
            user_timeout: Some(Duration::from_secs(20)),
            ..SocketOptions::for_streams()
        };
        options.apply(client.as_fd(), true).unwrap();
        let applied = AppliedOptions::read(client.as_fd()).unwrap();
        assert_eq!(applied.congestion.as_deref(), Some("reno"));
        assert!(applied.no_delay);
        assert_eq!((applied.send_buffer_bytes, applied.receive_buffer_bytes), (600_000, 400_000));
        assert_eq!(sockopt::tcp_user_timeout(client.as_fd()).unwrap(), 20_000);
        assert_eq!(sockopt::tcp_keepidle(client.as_fd()).unwrap(), Duration::from_secs(5));

        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[1; 10]).unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        let path = PathStats::read(client.as_fd()).unwrap();
        assert!(path.rtt_us > 0 && path.rtt_us < 1_000_000, "{path:?}");
        assert!(path.rtt_min_us > 0 && path.rtt_min_us <= 1_000_000, "{path:?}");
        assert!(path.window_bytes >= 1000, "{path:?}");
        assert!(path.delivery_rate_bytes_per_s > 0, "{path:?}");
    }

    #[test]
    fn an_unknown_congestion_control_is_an_error_that_names_the_option() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let options = SocketOptions { congestion: Some("no-such".into()), ..SocketOptions::default() };
        let error = options.apply(client.as_fd(), true).unwrap_err();
        assert!(error.to_string().contains("TCP_CONGESTION"), "{error}");
    }

    #[test]
    fn a_congestion_control_that_is_only_preferred_may_be_missing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let default = AppliedOptions::read(client.as_fd()).unwrap().congestion;
        let prefer = |name: &str| SocketOptions {
            congestion_preferred: Some(name.into()),
            ..SocketOptions::default()
        };
        prefer("no-such").apply(client.as_fd(), true).unwrap();
        assert_eq!(AppliedOptions::read(client.as_fd()).unwrap().congestion, default);
        prefer("reno").apply(client.as_fd(), true).unwrap();
        assert_eq!(AppliedOptions::read(client.as_fd()).unwrap().congestion.as_deref(), Some("reno"));
    }

    #[test]
    fn unread_bytes_are_counted_on_unix_sockets() {
        let (mut one, two) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(unacknowledged_bytes(one.as_fd()).unwrap(), 0);
        one.write_all(&[0; 5000]).unwrap();
        assert!(unacknowledged_bytes(one.as_fd()).unwrap() >= 5000);
        SocketOptions::for_hypervisors().apply(two.as_fd(), false).unwrap();
        let applied = AppliedOptions::read(two.as_fd()).unwrap();
        assert!(applied.receive_buffer_bytes >= 1 << 20, "{applied:?}");
        assert_eq!(applied.congestion, None);
    }
}
