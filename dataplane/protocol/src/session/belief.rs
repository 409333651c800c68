//! What a session believes, of whom, on which stream (DWCP-12, DWCP-15, DWCP-19, DWCP-63, DWCP-64).

use super::{Ends, Session, State};
use crate::event::Event;
use crate::stream::StreamId;
use crate::time::Instant;
use crate::wire::{FrameHeader, Reason, ReasonCode};

impl Session {
    /// Who opens or answers is the process that the session was opened with, if it was (DWCP-15).
    pub(crate) fn check_peers(&self, ends: &Ends) -> Result<(), Reason> {
        if self.peers.is_none_or(|peers| peers.same_processes(ends)) { Ok(()) } else { Err(forgotten()) }
    }

    /// The peer has proven on a stream that it knows the session: the stream carries it from now on (DWCP-19).
    pub(crate) fn proven(&mut self, stream: StreamId, now: Instant) {
        self.streams.prove(stream);
        if matches!(self.state, State::Interrupted { .. }) {
            self.state = State::Running;
            (self.running_since, self.heard_at) = (now, now);
            self.repeat_progress();
            self.events.push_back(Event::Resumed);
            self.events.push_back(Event::Writable);
        }
    }

    /// The peer on a stream that has proven nothing broke the protocol there: the stream is given up, and nothing else.
    pub(super) fn distrust(&mut self, stream: StreamId, reason: Reason, now: Instant) {
        if self.streams.ends(stream).is_some() {
            self.stream_lost(stream, now);
            self.events.push_back(Event::Distrusted { stream, reason });
        }
    }

    /// Only what opens or ends a session, and that nothing is known, may come on a stream whose peer has not proven
    /// that it knows the session (DWCP-14, DWCP-19).
    pub(super) fn check_proven(&self, stream: StreamId) -> Result<(), Reason> {
        if self.streams.is_proven(stream) {
            return Ok(());
        }
        let text = "frames of the session came on a stream before the session was opened on it";
        Err(Reason::new(ReasonCode::Protocol, text))
    }

    /// Who ends a session that has begun must have shown, on this stream or with this word, that it was told of it (DWCP-64).
    /// Before that there is nothing to lose: who does not know a session can prove nothing, and has to be able to say so.
    pub(super) fn check_last_word(
        &self,
        stream: StreamId,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<(), Reason> {
        let fits = |ends| self.config.witness().is_ended_by(header.kind, payload, &ends);
        let believed = self.peers.is_none()
            || self.streams.is_proven(stream)
            || self.streams.ends(stream).is_some_and(fits);
        if believed {
            return Ok(());
        }
        let text = "somebody ended the session who has not proven to know it";
        Err(Reason::new(ReasonCode::NotAuthorised, text))
    }
}

pub(super) fn forgotten() -> Reason {
    Reason::new(ReasonCode::SessionUnknown, "the peer gateway restarted and has forgotten the session")
}
