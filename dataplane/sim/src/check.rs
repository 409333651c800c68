//! What must hold at every step of a run.

use novacron_protocol::session::{Role, Session, State};
use std::collections::BTreeMap;

/// A state without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// [`State::Opening`]
    Opening,
    /// [`State::Expecting`]
    Expecting,
    /// [`State::Running`]
    Running,
    /// [`State::Interrupted`]
    Interrupted,
    /// [`State::Finished`]
    Finished,
    /// [`State::Failed`]
    Failed,
}

impl Place {
    pub(crate) fn of(state: &State) -> Self {
        match state {
            State::Opening { .. } => Place::Opening,
            State::Expecting { .. } => Place::Expecting,
            State::Running => Place::Running,
            State::Interrupted { .. } => Place::Interrupted,
            State::Finished => Place::Finished,
            State::Failed(_) => Place::Failed,
        }
    }
}

/// What was done to a session when it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A stream came up.
    StreamOpened,
    /// A stream was lost.
    StreamLost,
    /// A frame came.
    Receive,
    /// The other side's system has a frame.
    Arrived,
    /// A hypervisor closed its writing side.
    IngestEnd,
    /// A hypervisor took bytes.
    Consumed,
    /// Time passed.
    Tick,
    /// A codec worker was done with a job.
    JobDone,
    /// This side's gateway or caller gave up.
    Fail,
}

/// Every edge that the session's documentation draws: who may move from where to where, and through what.
pub const EDGES: &[(Role, Place, Place, &[Cause])] = {
    use Cause::*;
    use Place::*;
    &[
        (Role::Source, Opening, Running, &[Receive]),
        (Role::Source, Opening, Failed, &[Receive, Tick, Fail]),
        (Role::Source, Running, Interrupted, &[StreamLost]),
        (Role::Source, Running, Finished, &[Receive, Consumed]),
        (Role::Source, Running, Failed, &[StreamOpened, Receive, Tick, Fail]),
        (Role::Source, Interrupted, Running, &[Receive]),
        (Role::Source, Interrupted, Finished, &[Receive, Consumed]),
        (Role::Source, Interrupted, Failed, &[StreamOpened, Receive, Tick, Fail]),
        (Role::Destination, Expecting, Running, &[Receive]),
        (Role::Destination, Expecting, Failed, &[Receive, Tick, Fail]),
        (Role::Destination, Running, Interrupted, &[StreamLost]),
        (Role::Destination, Running, Finished, &[StreamOpened, Receive, Consumed, Tick]),
        (Role::Destination, Running, Failed, &[StreamOpened, Receive, Tick, Fail, JobDone]),
        (Role::Destination, Interrupted, Running, &[Receive]),
        (Role::Destination, Interrupted, Finished, &[StreamOpened, Receive, Consumed, Tick]),
        (Role::Destination, Interrupted, Failed, &[StreamOpened, Receive, Tick, Fail, JobDone]),
    ]
};

/// How often each edge was taken.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<(u8, Place, Place, Cause), u64>,
}

impl Coverage {
    /// Counts a move; an error where nothing documents it.
    pub(crate) fn count(&mut self, role: Role, from: Place, to: Place, cause: Cause) -> Result<(), String> {
        let documented =
            EDGES.iter().any(|(r, f, t, causes)| (*r, *f, *t) == (role, from, to) && causes.contains(&cause));
        if !documented {
            return Err(format!("{role:?} moved from {from:?} to {to:?} through {cause:?}: no such edge"));
        }
        *self.counts.entry((role as u8, from, to, cause)).or_default() += 1;
        Ok(())
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Coverage) {
        for (edge, count) in &other.counts {
            *self.counts.entry(*edge).or_default() += count;
        }
    }

    /// How often an edge was taken, through each cause that may take it.
    pub fn of(&self, role: Role, from: Place, to: Place) -> u64 {
        self.counts
            .iter()
            .filter(|((r, f, t, _), _)| (*r, *f, *t) == (role as u8, from, to))
            .map(|(_, count)| count)
            .sum()
    }

    /// A table of every documented edge.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (role, from, to, causes) in EDGES {
            let by_cause: Vec<String> = causes
                .iter()
                .map(|cause| {
                    let count = self.counts.get(&(*role as u8, *from, *to, *cause)).copied().unwrap_or(0);
                    format!("{cause:?} {count}")
                })
                .collect();
            let (role, from, to) = (format!("{role:?}"), format!("{from:?}"), format!("{to:?}"));
            let total: String = by_cause.join(", ");
            out += &format!("{role:<12}{from:<12}-> {to:<12}{total}\n");
        }
        out
    }
}

/// Looks at one side after anything was done to it.
pub(crate) fn bounds(session: &Session, window_of_peer: u64) -> Result<(), String> {
    use novacron_protocol::limits::{
        BATCHES_UNDER_WAY_MAX, FRAME_PAYLOAD_MAX, REPEATED_BYTES_FREE, REPEATED_SHARE, REPEATS_WAITING_MAX,
    };
    // What waited when the share was spent may still leave.
    let sent = session.outbound().bytes();
    let waiting = (REPEATS_WAITING_MAX * FRAME_PAYLOAD_MAX) as u64;
    if sent.repeated > REPEATED_BYTES_FREE + sent.wire / REPEATED_SHARE + waiting {
        return Err(format!("{} of {} bytes were repeated", sent.repeated, sent.wire));
    }
    let (retained, _) = session.outbound().retained_bytes();
    let mut allowed = 0u64;
    for sending in session.outbound().states() {
        let under_way = sending.position - sending.consumed;
        if under_way > window_of_peer {
            return Err(format!(
                "connection {}: {under_way} bytes under way, the receiver reserves {window_of_peer}",
                sending.connection
            ));
        }
        // The fields of each frame, beside the guest's bytes; an end and an opening more.
        let frames = BATCHES_UNDER_WAY_MAX as u64 + 2;
        allowed += (sending.position - sending.verified) + frames.min(sending.position + 2) * 256;
    }
    if retained as u64 > allowed {
        return Err(format!("{retained} bytes retained, {allowed} are explained by what is under way"));
    }
    // What is held came within the credit of its connection, and frames add their fields to it.
    let (window, held) = (session.config().receive_window, session.inbound().held_bytes());
    let frames = (BATCHES_UNDER_WAY_MAX as u64).min(window);
    let connections = session.inbound().states().count() as u64;
    let reserved = connections * (window + window / 32 + 4 * 1024 * (1 + frames / 16));
    if held > reserved {
        return Err(format!("{held} bytes held, {reserved} are explained by what was reserved"));
    }
    Ok(())
}
