//! What a session lets others observe: the one list that feeds metrics, logs, records and progress.

use crate::stream::StreamId;
use crate::wire::{Reason, ReasonCode};

/// Something happened in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both gateways have agreed; hypervisor bytes may flow.
    Opened,
    /// The source's side opened a connection; the destination's gateway connects to its hypervisor now.
    ConnectionOpened {
        /// The connection.
        connection: u16,
        /// What the source's caller named it.
        label: String,
    },
    /// Verified bytes, or an end, wait for a connection's hypervisor.
    Readable {
        /// The connection.
        connection: u16,
    },
    /// Credit or window came back: a connection's hypervisor may be read again.
    Writable,
    /// Every proven stream is lost. Nothing else is: the session waits for a new one.
    Interrupted,
    /// A stream is there again, and the peer has proven on it that it knows the session.
    Resumed,
    /// On a stream that has proven nothing the peer said what only who was told of the session may say, or what makes no sense.
    /// The stream is to be closed; the session goes on without it.
    Distrusted {
        /// The stream.
        stream: StreamId,
        /// What was wrong.
        reason: Reason,
    },
    /// The peer broke the protocol, or sent what is not what the source wrote: the session fails for it.
    Violated {
        /// How.
        code: ReasonCode,
    },
    /// Every connection has ended in both directions, and all of it was verified.
    Finished,
    /// The session has failed. Every hypervisor socket of it is to be closed, but for those that
    /// [`crate::session::Session::holds_source_sockets`] says to keep.
    Failed(Reason),
}
