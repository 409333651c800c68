//! Where to listen or connect: `unix:/path` or `tcp:host:port`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a unix socket in bytes, without its final zero (Linux `UNIX_PATH_MAX`).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address as people write it. A name is resolved when it is used, not before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix stream socket.
    Unix(PathBuf),
    /// A TCP port. `host` is a name, or an address without brackets.
    Tcp {
        /// Name or address.
        host: String,
        /// Port; 0 lets the system choose when listening.
        port: u16,
    },
}

/// The text is not an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an address: {}; write unix:/path or tcp:host:port", self.text, self.problem)
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = |problem| AddressError { text: text.chars().take(200).collect(), problem };
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(bad("the path is not absolute"));
            }
            if path.len() > UNIX_PATH_BYTES_MAX {
                return Err(bad("the path is longer than 107 bytes, which Linux does not allow"));
            }
            if path.contains('\0') {
                return Err(bad("the path contains a zero byte"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let Some(rest) = text.strip_prefix("tcp:") else {
            return Err(bad("it begins with neither unix: nor tcp:"));
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let port = port.parse().map_err(|_| bad("the port is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => inner,
            None if host.contains(':') => return Err(bad("an IPv6 address needs brackets")),
            None => host,
        };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl Address {
    /// Whether bytes sent there stay on this machine: unix sockets, `localhost`, and literal loopback addresses. Any
    /// other name counts as remote, whatever it resolves to today.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in ["unix:/run/x", "tcp:127.0.0.1:0", "tcp:[::1]:65535", "tcp:example.net:4000"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_it_cannot_mean() {
        let long = format!("unix:/{}", "a".repeat(107));
        for text in [
            "",
            "unix:",
            "unix:x",
            "tcp:",
            "tcp:1",
            "tcp::1",
            "tcp:h:65536",
            "tcp:::1:1",
            "tcp:[]:1",
            "h:1",
            &long,
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn local_means_it_never_leaves_the_machine() {
        for (text, local) in [
            ("unix:/x", true),
            ("tcp:127.3.4.5:1", true),
            ("tcp:[::1]:1", true),
            ("tcp:[::ffff:127.0.0.1]:1", true),
            ("tcp:localhost:1", true),
            ("tcp:0.0.0.0:1", false),
            ("tcp:10.0.0.1:1", false),
            ("tcp:localhost.example.net:1", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_local(), local, "{text}");
        }
    }
}
