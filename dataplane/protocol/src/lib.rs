//! DWCP, the gateway-to-gateway protocol, as pure state machines.
//!
//! Nothing here owns a clock, a socket, a thread or a runtime: bytes and instants come in, bytes and events go
//! out. The modules stand in the order in which data flows.
#![forbid(unsafe_code)]

pub mod hypervisor;
pub mod page;
pub mod schedule;
pub mod stream;
pub mod wire;

pub mod destination;
pub mod session;
pub mod source;

pub mod mode;
pub mod probe;

pub mod event;
pub mod limits;
pub mod time;
