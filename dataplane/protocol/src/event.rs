//! What a session lets others observe: the one list that feeds metrics, logs, records and progress.

use crate::wire::Reason;

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
    /// Every connection has ended in both directions, and all of it was verified.
    Finished,
    /// The session has failed. Every hypervisor socket of it is to be closed, but for those that
    /// [`crate::session::Session::holds_source_sockets`] says to keep.
    Failed(Reason),
}
