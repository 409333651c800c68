//! Sessions on which nothing moves: a hypervisor that stalls for ever must not keep one for ever.

use novacron_control_api::{ConnectionDirection, SessionRecord};
use novacron_protocol::wire::{Reason, ReasonCode};
use std::time::{Duration, Instant};

/// Since when no byte has moved on any of a session's connections.
pub(super) struct Idle {
    since: Instant,
    /// Everything that was ever read, verified and taken.
    moved: u64,
}

impl Idle {
    pub(super) fn new() -> Self {
        Idle { since: Instant::now(), moved: 0 }
    }

    /// Looks at how a session stands now: why it has to end, if nothing has moved for `limit`.
    pub(super) fn over(&mut self, record: &SessionRecord, limit: Duration) -> Option<Reason> {
        let moved = record.connections.iter().fold(0_u64, |sum, connection| {
            let ends = 1 + u64::from(connection.ended);
            sum.wrapping_add(connection.position + connection.verified + connection.consumed + ends)
        });
        if moved != self.moved {
            *self = Idle { since: Instant::now(), moved };
            return None;
        }
        (self.since.elapsed() >= limit).then(|| Reason::new(ReasonCode::Timeout, text(record, limit)))
    }
}

/// Says which connections hold the session up.
fn text(record: &SessionRecord, limit: Duration) -> String {
    let waiting: Vec<String> = record
        .connections
        .iter()
        .filter(|connection| connection.position > connection.consumed)
        .map(|connection| {
            let taker = match connection.direction {
                ConnectionDirection::Forward => "destination",
                ConnectionDirection::Return => "source",
            };
            let bytes = connection.position - connection.consumed;
            format!(
                "the {taker}'s hypervisor does not take {bytes} bytes of connection {} ({})",
                connection.connection, connection.label
            )
        })
        .take(4)
        .collect();
    let why = if waiting.is_empty() { "no hypervisor says anything".to_owned() } else { waiting.join(", ") };
    format!("no byte has moved on any connection for {} s: {why}", limit.as_secs_f64())
}
