//! The control socket: JSON-RPC 2.0, one object a line, on threads of its own, away from the shards.

mod caller;
mod calls;
mod server;

pub(crate) use caller::read as read_callers;
pub(crate) use calls::{Answer, Calls};
pub(crate) use server::Server;
