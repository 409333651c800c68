//! Where something listens or is reached: `unix:/path`, `tcp:host:port`, `tcp:[::1]:port`.
//!
//! The spelling is QEMU's for migration URIs (QEMU `qapi/migration.json`, `migrate`), so that one string serves
//! the hypervisor and the gateway.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{HOST_BYTES_MAX, UNIX_PATH_BYTES_MAX};

/// The address of a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A unix stream socket at an absolute path of at most [`UNIX_PATH_BYTES_MAX`] bytes.
    Unix(PathBuf),
    /// A TCP socket. The host is an IPv4 address, an IPv6 address (kept without its brackets) or a name.
    Tcp {
        /// Address or name.
        host: String,
        /// Port; 0 lets a listener choose.
        port: u16,
    },
}

/// A text that is not an endpoint. Nothing was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No known scheme in front.
    #[error("'{0}' must start with 'unix:' or 'tcp:', as in 'unix:/run/vm.sock' or 'tcp:192.0.2.1:7400'")]
    Scheme(String),
    /// The unix path does not start with a slash.
    #[error("'{0}' must name an absolute path, as in 'unix:/run/vm.sock'")]
    PathRelative(String),
    /// The unix path does not fit into a socket address.
    #[error("the socket path is {bytes} bytes long; the system allows {UNIX_PATH_BYTES_MAX}")]
    PathLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The unix path holds a NUL byte.
    #[error("a socket path cannot hold a NUL byte")]
    PathNul,
    /// No colon between host and port.
    #[error("'{0}' must be 'tcp:host:port'")]
    PortMissing(String),
    /// The port is not a number from 0 to 65535.
    #[error("'{0}' is not a port: it must be a number from 0 to 65535")]
    Port(String),
    /// An IPv6 address without brackets, or brackets around something else.
    #[error("'{0}' is not an IPv6 address in brackets, as in 'tcp:[::1]:7400'")]
    Brackets(String),
    /// The host is empty, too long or holds a character no host name has.
    #[error("'{0}' is not a host name or an address")]
    Host(String),
}

impl Endpoint {
    /// A TCP endpoint at a socket address.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::Tcp { host: address.ip().to_string(), port: address.port() }
    }

    /// The path of a unix endpoint.
    pub fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp { .. } => None,
        }
    }

    /// The socket address of a TCP endpoint whose host needs no name service: a literal address, or `localhost`,
    /// which is 127.0.0.1 whatever the host's files say (RFC 6761, section 6.3).
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { host, port } => Some(SocketAddr::new(literal(host)?, *port)),
        }
    }

    /// Whether only processes of this host can reach it: a unix socket or a loopback address.
    ///
    /// Any other name is not loopback, whatever it might resolve to: who resolves it must check the result.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => literal(host).is_some_and(|ip| ip.to_canonical().is_loopback()),
        }
    }

    /// Whether it can be dialled: a TCP endpoint of port 0 cannot.
    pub fn is_dialable(&self) -> bool {
        !matches!(self, Self::Tcp { port: 0, .. })
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.parse().ok()
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            unix(path)
        } else if let Some(address) = text.strip_prefix("tcp:") {
            tcp(address)
        } else {
            Err(EndpointError::Scheme(text.to_owned()))
        }
    }
}

fn unix(path: &str) -> Result<Endpoint, EndpointError> {
    if !path.starts_with('/') {
        return Err(EndpointError::PathRelative(path.to_owned()));
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(EndpointError::PathLong { bytes: path.len() });
    }
    if path.contains('\0') {
        return Err(EndpointError::PathNul);
    }
    Ok(Endpoint::Unix(PathBuf::from(path)))
}

fn tcp(address: &str) -> Result<Endpoint, EndpointError> {
    let (host, port) =
        address.rsplit_once(':').ok_or_else(|| EndpointError::PortMissing(address.to_owned()))?;
    // `u16::from_str` takes a leading '+', which QEMU does not.
    let port = if port.bytes().all(|byte| byte.is_ascii_digit()) { port.parse().ok() } else { None }
        .ok_or_else(|| EndpointError::Port(port.to_owned()))?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .filter(|inner| inner.parse::<Ipv6Addr>().is_ok())
            .ok_or_else(|| EndpointError::Brackets(host.to_owned()))?,
        None if host.contains(':') => return Err(EndpointError::Brackets(host.to_owned())),
        None => host,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(plain) {
        return Err(EndpointError::Host(host.to_owned()));
    }
    Ok(Endpoint::Tcp { host: host.to_owned(), port })
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
