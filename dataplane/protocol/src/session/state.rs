//! Where a session stands.

use crate::time::Instant;
use crate::wire::Reason;

/// Where a session stands. [`super`] draws the transitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Source: the peer has not answered yet.
    Opening {
        /// When the opening is said again.
        say_again_at: Instant,
        /// When the session gives up.
        deadline: Instant,
    },
    /// Destination: the peer has not opened the session yet.
    Expecting {
        /// When the session gives up.
        deadline: Instant,
    },
    /// Hypervisor bytes flow.
    Running,
    /// Every proven stream is lost; hypervisor sockets stay open.
    Interrupted {
        /// When the last stream was lost.
        since: Instant,
    },
    /// Everything was carried and verified.
    Finished,
    /// It failed, for this reason.
    Failed(Reason),
}

impl State {
    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        matches!(self, State::Finished | State::Failed(_))
    }
}
