//! The gateway, seen from here: calls on its control socket, its process, its sessions.

mod calls;
mod process;
mod sessions;

pub(crate) use calls::Gateway;
pub(crate) use process::{Launch, Supervisor, is_lost, program};
pub(crate) use sessions::Sessions;
