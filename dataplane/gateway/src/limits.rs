//! Every bound of the gateway process that is not the protocol's.

use std::time::Duration;

/// Most sessions at once, expected ones included.
pub(crate) const SESSIONS_MAX: usize = 256;

/// Most clients of the control socket at once; each is a thread that sleeps.
pub(crate) const CONTROL_CLIENTS_MAX: usize = 64;

/// Most sessions that one control client watches at once.
pub(crate) const WATCHES_MAX: usize = 64;

/// How long a client of the control socket may take to accept an answer.
pub(crate) const CONTROL_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a shard tells the registry how its sessions stand: progress is visible within this and a watcher's
/// own interval.
pub(crate) const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// Most commands that wait for a shard.
pub(crate) const SHARD_COMMANDS_MAX: usize = 1024;

/// Most records that wait to be written to the records file; more are dropped and counted.
pub(crate) const RECORDS_PENDING_MAX: usize = 1024;

/// Most accepted streams whose handshake is not complete; more are closed at once.
pub(crate) const HANDSHAKES_MAX: usize = 64;

/// How long a stream's handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long dialling a peer or a hypervisor may take.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// First and longest wait between two attempts to reach a peer.
pub(crate) const REDIAL_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Most streams of one peer at one shard.
pub(crate) const PEER_STREAMS_MAX: usize = 512;

/// Most peers at one shard.
pub(crate) const PEERS_MAX: usize = 1024;

/// How long streams to a peer stay open once no session uses them.
pub(crate) const PEER_IDLE: Duration = Duration::from_secs(10);

/// How long a failed session's last word may take to leave before its streams forget it.
pub(crate) const LAST_WORD_WAIT: Duration = Duration::from_secs(2);

/// Bytes that one stream's transport queues before it takes no more frames: what fills the pipe is the kernel's
/// buffer; what waits here cannot move to another stream.
pub(crate) const STREAM_QUEUE_BYTES: usize = 512 * 1024;

const _: () = assert!(REDIAL_WAIT.0.as_millis() < REDIAL_WAIT.1.as_millis());

/// Memory for frames of all shards together, for sending and the same again for receiving. Sessions are held far
/// below it by their windows; this is what holds when a peer ignores them.
pub(crate) const POOL_BYTES: usize = 96 * 1024 * 1024;
