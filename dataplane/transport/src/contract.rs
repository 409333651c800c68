//! What a transport promises, whatever carries it.
//!
//! Whole frames are delivered reliably and in order, or the stream is dead and says why. [`crate::conformance`] is this
//! contract as a test.

use crate::frame::Oversize;
use crate::pool::FrameBuffer;
use bytes::Bytes;
use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a kind of transport can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// What was accepted arrives, or the stream dies.
    pub reliable: bool,
    /// Frames arrive in the order in which they were submitted.
    pub ordered: bool,
    /// Payloads reach the network without a copy by the processor.
    pub zero_copy: bool,
    /// The transport keeps frames secret and authentic by itself; where it does not, frames must be sealed.
    pub encrypted: bool,
    /// Largest frame, header included, in bytes, that any configuration of this transport carries.
    pub frame_bytes_max: usize,
}

/// What [`Transport::poll`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// One whole frame, header first. Its memory returns to the transport's pool when the last clone is dropped.
    Received(Bytes),
    /// After a [`Refused::Full`], or after the queue was above its low-water mark: there is room again.
    Writable {
        /// Bytes still queued in this process.
        queued_bytes: usize,
    },
    /// The stream is dead. Nothing comes after this: it is reported again by each further `poll`.
    Closed(CloseReason),
}

/// Why a frame was not accepted. The frame comes back unchanged; nothing was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full. Submit again after [`Event::Writable`].
    Full {
        /// The frame.
        frame: Bytes,
        /// Bytes already queued.
        queued_bytes: usize,
    },
    /// The payload is larger than this stream's configuration allows. Split it.
    Oversize {
        /// The frame.
        frame: Bytes,
        /// What was announced and what is allowed.
        oversize: Oversize,
    },
    /// The frame's length and the length in its header differ, or it has no whole header. A bug of the caller.
    Malformed {
        /// The frame.
        frame: Bytes,
    },
    /// The stream is dead or was finished. Submit on another stream.
    Closed {
        /// The frame.
        frame: Bytes,
    },
}

impl Refused {
    /// The frame that was refused.
    pub fn into_frame(self) -> Bytes {
        match self {
            Self::Full { frame, .. }
            | Self::Oversize { frame, .. }
            | Self::Malformed { frame }
            | Self::Closed { frame } => frame,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { queued_bytes, .. } => {
                write!(
                    f,
                    "the stream's queue is full ({queued_bytes} bytes); submit again when it is writable"
                )
            }
            Self::Oversize { oversize, .. } => write!(f, "{oversize}; send it in smaller frames"),
            Self::Malformed { frame } => {
                write!(f, "the header's length does not match the frame of {} bytes", frame.len())
            }
            Self::Closed { .. } => write!(f, "the stream is closed; submit the frame on another one"),
        }
    }
}

impl std::error::Error for Refused {}

/// Why a stream died. Frames submitted and not acknowledged by the peer's protocol may be lost in every case: send them
/// again on another stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer finished at a frame boundary: every frame it sent has been received.
    Finished,
    /// The peer's bytes ended inside a frame. The part was discarded.
    Truncated {
        /// Bytes of the frame that arrived.
        received_bytes: usize,
    },
    /// The peer announced a payload larger than is accepted here: it speaks something else, or is hostile.
    Oversize(Oversize),
    /// A header is not what its sender wrote: where the next frame begins is not known any more.
    Damaged,
    /// The operating system gave up on the connection.
    Io {
        /// The kind of failure.
        kind: std::io::ErrorKind,
        /// What was being done, and the system's words.
        detail: String,
    },
    /// This side closed the stream.
    Local,
}

impl CloseReason {
    pub(crate) fn io(doing: &str, error: &std::io::Error) -> Self {
        Self::Io { kind: error.kind(), detail: format!("{doing}: {error}") }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => write!(f, "the peer finished the stream"),
            Self::Truncated { received_bytes } => {
                write!(f, "the stream ended {received_bytes} bytes into a frame")
            }
            Self::Oversize(oversize) => write!(f, "{oversize}"),
            Self::Damaged => write!(f, "a frame's header was damaged on its way"),
            Self::Io { detail, .. } => write!(f, "{detail}"),
            Self::Local => write!(f, "this side closed the stream"),
        }
    }
}

impl std::error::Error for CloseReason {}

/// How a stream stands: what is under way on it, and what its path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Bytes submitted so far that the peer's system has not acknowledged, those that wait in this process included.
    pub outstanding_bytes: usize,
    /// Of them, bytes that have crossed the path all the same: they wait at the peer's system for something lost before them.
    pub beyond_bytes: usize,
    /// Of them, bytes that have not been sent.
    pub unsent_bytes: usize,
    /// What the path takes at present, bytes a second: the congestion window in each round trip.
    pub rate_bytes_per_s: u64,
    /// Smoothed round trip.
    pub round_trip: Duration,
    /// The shortest round trip of late: the path's own, without queues and late machines.
    pub round_trip_min: Duration,
    /// Segments sent again since the stream began.
    pub retransmits: u32,
}

/// One stream between two gateways. One task owns it: it submits and polls.
pub trait Transport {
    /// What this kind of transport can do.
    const CAPS: Caps;

    /// Memory for a frame of `len` bytes, header included, of the kind that this transport sends best. `None`: the
    /// budget is spent (frames in flight must be released first) or `len` exceeds every buffer class.
    fn alloc(&mut self, len: usize) -> Option<FrameBuffer>;

    /// Queues a whole frame; never blocks and never writes. The task that polls is woken.
    fn submit(&mut self, frame: Bytes) -> Result<(), Refused>;

    /// Moves bytes in both directions and reports the next event. `Pending` arranges for a wake-up whenever there is
    /// something to do in either direction. Frames that were submitted leave only while somebody polls.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event>;

    /// No more frames will be submitted: once the queue is empty, the peer is told, and sees
    /// [`CloseReason::Finished`] after the last frame. Receiving goes on.
    fn finish(&mut self);

    /// Ends the stream at once; what is queued is discarded. The next `poll` reports [`CloseReason::Local`] unless the
    /// stream was dead already.
    fn close(&mut self);

    /// Bytes that were submitted and have not been handed to the network yet.
    fn queued_bytes(&self) -> usize;

    /// Bytes handed to the operating system or device that the peer's has not acknowledged. Zero where that cannot be
    /// known. Costs a system call on TCP.
    fn unacknowledged_bytes(&self) -> usize;

    /// How the stream stands; `None` where that cannot be known. Costs two system calls on TCP.
    fn flow(&self) -> Option<Flow>;

    /// How many bytes may wait below this process without being sent; the system may round. Beyond it, frames wait in this
    /// process.
    fn bound_unsent(&mut self, bytes: usize);

    /// Asks for another congestion control, for what leaves from now on: what is under way stays so, and nothing stops. One that
    /// the system does not have, or does not grant, changes nothing; [`Transport::congestion`] says what came of it. Transports
    /// that have none leave it at that.
    fn prefer_congestion(&mut self, name: &str);

    /// The congestion control that the stream has, as its system says; `None`: none, or it is not known yet, or the stream is dead.
    fn congestion(&self) -> Option<String>;
}
