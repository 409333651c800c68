//! `novactl` as a process, against scripted peers: two QEMUs and two gateways that fail on demand.
//!
//! These fakes stand in for peers on error paths; what real QEMU does is tested with real QEMU elsewhere. Every
//! command any fake carries out goes into one log, so that tests can say what came before what.

mod doctor;
mod gateway;
mod keys;
mod migrate;
mod outcome;
mod pair;
mod qemu;
mod recover;
mod session;
mod sessions;
mod world;
