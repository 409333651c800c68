//! What tests, the demonstration and benchmarks need to run real guests: a hypervisor with our guest in it, gateways
//! as processes, and what both of them did.
//!
//! ```text
//! Scratch     a directory that goes away
//! Process     a child that cannot outlive us, with its log
//! Qemu        Process + Qmp + Serial + Guest: a source or a destination
//! Guest       ready? verify your memory; heartbeats
//! Gateway     Process + Rpc: novacron-gateway and its control socket
//! control     novacron-control, its gateway, and its pages over HTTP
//! identity    keys and certificates of gateways
//! Session     what is said to two gateways by hand
//! postgres    a PostgreSQL of the test's own
//! Novactl     Process: a migration as a person starts it, and its report
//! Opaque      a session whose ends are sockets of the test
//! Stage       a guest, where it is to go, and both gateways
//! Relay       a path between two gateways that goes wrong when a test wants it to
//! migration   drives two Qemus over QMP, with every capability that contenders use
//! pause       how long the guest stood still, by its own heartbeat
//! capture     keeps the stream of a migration in a file
//! Workload    what a guest does while it is moved
//! Host        on what machine and of what build something was measured
//! stats       what repeated measurements say
//! ```
//!
//! Everything is synchronous and every wait has an end. The crate builds nothing: [`artefact`] says where the guest
//! and the binaries are looked for and which make target builds them.

pub mod artefact;
pub mod capture;
pub mod control;
pub mod gateway;
pub mod guest;
pub mod host;
pub mod identity;
pub mod initramfs;
pub mod limits;
pub mod migration;
pub mod novactl;
pub mod opaque;
pub mod pause;
pub mod port;
pub mod postgres;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod relay;
pub mod rpc;
pub mod scratch;
pub mod serial;
pub mod session;
pub mod stage;
pub mod stats;
pub mod threads;
pub mod usage;
pub mod wait;
pub mod workload;

pub use capture::{CaptureOptions, Captured};
pub use gateway::{Gateway, GatewayOptions, Security};
pub use guest::{Guest, GuestOptions, Verified, Work};
pub use host::Host;
pub use migration::{Compression, Migration, MigrationReport, Postcopy, TimedOut};
pub use novactl::{Between, Novactl};
pub use opaque::Opaque;
pub use pause::Pause;
pub use process::Process;
pub use qemu::{Qemu, QemuOptions};
pub use qmp::Qmp;
pub use relay::{Fate, Passing, Relay, Way};
pub use rpc::Rpc;
pub use scratch::Scratch;
pub use serial::{Beat, Serial};
pub use session::Session;
pub use stage::Stage;
pub use usage::Usage;
pub use workload::Workload;
