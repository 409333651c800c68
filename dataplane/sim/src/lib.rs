//! Deterministic simulation: two gateways' sessions, the streams between them and the hypervisors around them, on
//! a virtual clock. Everything that is left to chance is drawn from one seed, so a seed is a run.
//!
//! What is real is the protocol ([`novacron_protocol::session::Session`], both sides). What is modelled is what
//! stands around it: the transport by its contract, a gateway by what it asks of a session and owes it, a
//! hypervisor by its sockets. What is checked after every step is what the project promises: bytes exact and in
//! order, nothing unbounded, a cut is not a failure, and no session without an end.

mod carry;
mod check;
mod faults;
mod gated;
mod gateway;
mod hypervisor;
mod network;
mod plan;
mod random;
mod sockets;
mod world;

pub use check::{Cause, Coverage, EDGES, Place};
pub use plan::{Plan, Sabotage, Scenario};
pub use random::Random;
pub use world::{Failure, Report, run};
