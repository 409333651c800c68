//! A stream that another shard serves.
//!
//! A session belongs to one shard; its streams need not. Sealing, system calls and reassembly are work that other shards
//! can do for it. The session's shard holds a [`Relayed`], a [`Transport`] like any other; the shard that serves the socket
//! runs its [`Carrier`].
//!
//! ```text
//!  session's shard                          serving shard
//!  Relayed ──── Outward: frames ─────────▶ Carrier ── submit, poll ─▶ Transport ─▶ socket
//!     ▲                                        │
//!     └── Homeward: frames, what left, flow ◀──┘
//! ```
//!
//! Frames are moved, never copied, and travel in batches: whatever came together in one turn. Both mailboxes are bounded;
//! a home that takes nothing stops the receiving, a network that takes nothing fills the home's queue, which refuses more.

mod carrier;
mod near;

pub use carrier::Carrier;
pub use near::Relayed;

use crate::contract::{CloseReason, Flow, Transport};
use crate::limits::RELAY_BATCHES_MAX;
use crate::pool::FramePool;
use crate::shard::mailbox;
use bytes::Bytes;

/// What the session's side of a relayed stream may queue; the same as the transport behind it would.
#[derive(Debug, Clone, Copy)]
pub struct RelayConfig {
    /// Largest payload that is accepted, bytes.
    pub payload_bytes_max: usize,
    /// Bytes that were submitted and have not left the process.
    pub queue_bytes_max: usize,
    /// Frames of them.
    pub queue_frames_max: usize,
    /// [`crate::Event::Writable`] comes when the queue falls to this many bytes.
    pub queue_low_water_bytes: usize,
}

/// The two ends of a relayed stream: what its session's shard holds, and what the shard that serves it runs. Frames to send
/// come from `send_pool`.
pub fn relay<T: Transport>(config: RelayConfig, send_pool: FramePool) -> (Relayed<T>, Carrier) {
    let (outward, outward_received) = mailbox(RELAY_BATCHES_MAX);
    let (homeward, homeward_received) = mailbox(RELAY_BATCHES_MAX);
    (Relayed::new(config, send_pool, outward, homeward_received), Carrier::new(outward_received, homeward))
}

/// From the session's shard.
#[derive(Debug, Default)]
struct Outward {
    /// Frames to send, in order.
    frames: Vec<Bytes>,
    /// What [`Transport::bound_unsent`] was asked for.
    unsent_bound: Option<usize>,
    /// What [`Transport::prefer_congestion`] was asked for, the last of so many times.
    congestion: Option<(u32, String)>,
    /// Nothing more will be sent.
    finish: bool,
}

impl Outward {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.unsent_bound.is_none() && self.congestion.is_none() && !self.finish
    }
}

/// From the shard that serves the stream.
#[derive(Debug, Default)]
struct Homeward {
    /// Frames received, in order.
    frames: Vec<Bytes>,
    /// Bytes of the frames submitted that have left the process.
    gone_bytes: u64,
    /// How the stream stands, if it was looked at.
    stands: Option<Stands>,
    /// The stream is dead; nothing follows.
    ended: Option<CloseReason>,
}

/// How a stream stood when its transport had been given so much.
#[derive(Debug)]
struct Stands {
    given_bytes: u64,
    flow: Option<Flow>,
    /// Its congestion control after it was asked for one so many times, where that has not been said before.
    congestion: Option<(u32, String)>,
}

#[cfg(test)]
mod tests;
