//! Whole frames between two gateways, hypervisor sockets, and shards.
//!
//! ```mermaid
//! flowchart LR
//!   gateway[gateway glue] --> contract[contract: Transport]
//!   contract --> tcp[tcp: TcpTransport]
//!   gateway --> hypervisor[hypervisor: HypervisorStream]
//!   gateway --> relay[relay: Relayed, Carrier]
//!   relay --> contract
//!   relay --> shard
//!   tcp --> tls[tls: Channel, TlsCredentials]
//!   tls --> net[net: Socket, Listener, connect]
//!   hypervisor --> net
//!   gateway --> shard[shard: run_shards, timers, mailbox, shutdown]
//!   net --> glommio
//!   shard --> glommio
//!   tcp --> pool[pool: FramePool]
//!   hypervisor --> pool
//! ```
//!
//! Only `net::socket`, `net::connect` and `shard` name glommio, so that it can be replaced without touching a caller
//! (docs/adr/0002-glommio-behind-a-thin-layer.md). Nothing here knows what a frame means: only that its first
//! [`limits::FRAME_HEADER_BYTES`] bytes begin with the little-endian length of what follows them.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod contract;
pub mod frame;
pub mod hypervisor;
pub mod limits;
pub mod net;
pub mod pool;
pub mod privacy;
pub mod relay;
pub mod shard;
pub mod tcp;
pub mod tls;
mod waiters;

pub use contract::{Caps, CloseReason, Event, Refused, Transport};
pub use hypervisor::HypervisorStream;
pub use net::{Address, Listener, NetError, OpenSocket, Peer, SocketOptions, connect};
pub use pool::{FrameBuffer, FramePool, PoolStats};
pub use tcp::{HeaderCheck, TcpConfig, TcpTransport};
pub use tls::{CredentialError, TlsCredentials, TlsFailure, TlsFiles, TlsPeer};
