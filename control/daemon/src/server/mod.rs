//! The control socket: JSON-RPC 2.0, one object a line, for callers on this host and, over TLS, for a remote fleet.
//!
//! ```text
//! listen ── who (SO_PEERCRED, certificate, token) ── client: lines, watches, events
//!                                                       │ envelope, role
//!                                                     calls ── books: entries before and after, answers for repeats
//!                                                       └ node, features, gateway
//! ```

mod access;
mod books;
mod calls;
mod client;
mod discover;
mod listen;
mod tls;
mod tokens;

pub(crate) use books::Books;
pub(crate) use calls::Status;
pub(crate) use listen::Server;
