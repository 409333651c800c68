//! What can go wrong before a socket carries bytes. Nothing is ever lost by these.

use super::Address;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A socket could not be made, bound, connected or accepted.
#[derive(Debug)]
pub enum NetError {
    /// The host's name has no address.
    Resolve {
        /// What was to be reached.
        address: Address,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Nobody answered, or the answer was no.
    Connect {
        /// What was to be reached.
        address: Address,
        /// The system's answer.
        source: io::Error,
    },
    /// No answer in time.
    ConnectTimeout {
        /// What was to be reached.
        address: Address,
        /// How long was waited.
        timeout: Duration,
    },
    /// The address cannot be listened on.
    Bind {
        /// The address.
        address: Address,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody listens on that unix socket already.
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something that is not a socket has that path, and it is left alone.
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The listening socket failed.
    Accept {
        /// Where it listened.
        address: Address,
        /// The system's answer.
        source: io::Error,
    },
    /// A socket option was refused.
    Option {
        /// The option, as the system's documentation names it.
        option: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// This crate was told something that contradicts its own limits.
    Config {
        /// What does not fit.
        problem: &'static str,
    },
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { address, .. } => {
                write!(f, "the name in {address} could not be resolved; check it and the resolver")
            }
            Self::Connect { address, .. } => {
                write!(f, "no connection to {address}; check that something listens there")
            }
            Self::ConnectTimeout { address, timeout } => {
                write!(f, "no answer from {address} within {timeout:?}; check the route and any firewall")
            }
            Self::Bind { address, .. } => write!(f, "cannot listen on {address}"),
            Self::InUse { path } => {
                write!(f, "somebody listens on {} already; choose another path or stop it", path.display())
            }
            Self::NotASocket { path } => {
                write!(
                    f,
                    "{} exists and is not a socket; it was left alone, choose another path",
                    path.display()
                )
            }
            Self::Accept { address, .. } => write!(f, "the listener on {address} failed"),
            Self::Option { option, .. } => write!(f, "the socket option {option} was refused"),
            Self::Config { problem } => write!(f, "{problem}"),
        }
    }
}

impl std::error::Error for NetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source, .. }
            | Self::Connect { source, .. }
            | Self::Bind { source, .. }
            | Self::Accept { source, .. }
            | Self::Option { source, .. } => Some(source),
            Self::ConnectTimeout { .. }
            | Self::InUse { .. }
            | Self::NotASocket { .. }
            | Self::Config { .. } => None,
        }
    }
}

impl NetError {
    /// Whether trying again later, unchanged, could succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout { .. } | Self::Resolve { .. })
    }
}
