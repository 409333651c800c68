//! Sockets: the thin layer between this crate and glommio.

mod address;
mod connect;
mod error;
mod listener;
mod options;
mod readiness;
mod socket;

pub use address::{Address, AddressError};
pub use connect::connect;
pub use error::NetError;
pub use listener::Listener;
pub use options::{AppliedOptions, PathStats, SocketOptions};
pub use socket::{OpenSocket, Peer};

pub(crate) use readiness::wait_readable;
pub(crate) use socket::Socket;
