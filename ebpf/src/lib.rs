//! Programs for the kernel, and what loads them.
//!
//! The probe responder (`bpf/probe.bpf.c`) answers probes of the path on the network interface, before the stack sees them
//! (`docs/spec/probe.md`). Its object is built ahead and embedded: neither building nor running this crate needs a
//! compiler of BPF. Where it cannot be loaded, [`Unavailable`] says why, and the caller answers from a socket instead.
//!
//! Once attached, nothing here calls bpf(2) again: peers and counters are shared memory, so that a process can give that
//! call up.
#![allow(unsafe_code)]

pub mod abi;
mod counters;
mod driver;
mod interface;
pub mod limits;
mod shared;
pub mod test_run;

mod responder;

pub use counters::Counters;
pub use interface::{addresses, holding};
pub use responder::{Attach, Driven, Place, Responder, Unavailable, Want};

/// The compiled program; `make ebpf` builds it anew.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/probe.bpf.o");
