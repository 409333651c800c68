//! Probes of a path between two gateways (`docs/spec/probe.md`): what is sent, who may be answered, what follows from it.
//!
//! ```text
//!  Prober ── probe ──> responder: in the kernel (ebpf/) or here, with the same verdicts and bytes
//!    ^                     │ stamps when it came, counts what it heard
//!    └────── answer ───────┘
//!  Prober ── samples ──> Estimates (RTT, jitter, loss each way, reordering, bandwidth), each with an interval ──> mode
//! ```
//!
//! Probes advise. What a hypervisor is told of the bandwidth comes from acknowledged bytes alone (`stream::pace`).

pub mod estimate;
mod follow_up;
pub mod frame;
pub mod key;
pub mod packet;
pub mod peers;
pub mod prober;
pub mod responder;
pub mod train;
