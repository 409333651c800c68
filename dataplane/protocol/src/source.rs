//! The source's side of a session: it opens the session at the peer, and hypervisors connect to it.

use crate::event::Event;
use crate::limits::OPEN_REPEAT;
use crate::page::ContentKey;
use crate::session::{Ends, Role, Session, SessionConfig, State, Word};
use crate::stream::{Reservation, StreamId};
use crate::time::Instant;
use crate::wire::{Accept, Open, Reason, ReasonCode};
use bytes::Bytes;

impl Session {
    /// A session that opens itself at the peer as soon as a stream is there.
    pub fn source(config: SessionConfig, now: Instant) -> Session {
        debug_assert_eq!(config.role, Role::Source);
        let deadline = now.after(config.open_timeout);
        Session::new(config, State::Opening { say_again_at: now.after(OPEN_REPEAT), deadline })
    }

    /// Opens the session on a stream, as on every one that it uses (DWCP-10, DWCP-19).
    pub(crate) fn say_open(&mut self, stream: StreamId, now: Instant) {
        self.streams.say(stream, Word::Opening);
        if let State::Opening { say_again_at, .. } = &mut self.state {
            *say_again_at = now.after(OPEN_REPEAT);
        }
    }

    /// Nobody has answered yet: says it again (DWCP-18).
    pub(crate) fn say_open_again(&mut self, now: Instant) {
        self.streams.say_unproven(Word::Opening);
        if let State::Opening { say_again_at, .. } = &mut self.state {
            *say_again_at = now.after(OPEN_REPEAT);
        }
    }

    /// What opens the session on a stream between these ends, or takes it up there.
    pub(crate) fn open_frame(&self, ends: &Ends) -> Bytes {
        let config = &self.config;
        let open = Open {
            lanes: config.lanes,
            digest: config.digest,
            connections_max: config.connections_max,
            receive_window: self.first_promise,
            memory_bytes: self.memory.as_ref().map_or(0, Reservation::bytes),
            outage_ms: u32::try_from(config.outage.as_millis()).unwrap_or(u32::MAX),
            resume: !matches!(self.state, State::Opening { .. }),
            proof: [0; 32],
        };
        config.witness().prove_open(open, ends).to_frame(config.session, config.epoch)
    }

    /// The peer agreed (DWCP-11), and the stream may carry the session. A repeated answer to a repeated opening is no news.
    pub(crate) fn take_accept(
        &mut self,
        accept: &Accept,
        stream: StreamId,
        now: Instant,
    ) -> Result<(), Reason> {
        if self.config.role != Role::Source {
            return Err(Reason::new(ReasonCode::Protocol, "an Accept came to the side that accepts"));
        }
        let Some(ends) = self.streams.ends(stream) else { return Ok(()) };
        if !self.config.witness().is_accepted_by(accept, &ends) {
            return Err(Reason::new(
                ReasonCode::NotAuthorised,
                "the peer gateway does not know the session's token, or its words were changed on the way",
            ));
        }
        self.check_peers(&ends)?;
        if matches!(self.state, State::Opening { .. }) {
            let proposed = self.memory.as_ref().map_or(0, Reservation::bytes);
            if accept.memory_bytes > proposed {
                let text = "the peer would remember more of what it receives than was proposed";
                return Err(Reason::new(ReasonCode::Protocol, text));
            }
            if let Some(memory) = &mut self.memory {
                memory.shrink(accept.memory_bytes);
            }
            let (key, bytes) = (accept.content_key, accept.content_bytes);
            let known = (key != [0; 32]).then(|| self.config.known_stores.of(ContentKey::new(key), bytes));
            self.outbound.remember(self.agreed_terms(), known);
            self.outbound.grant(accept.receive_window);
            self.state = State::Running;
            self.peers = Some(ends);
            self.opened_at = Some(now);
            self.running_since = now;
            self.events.push_back(Event::Opened);
            self.events.push_back(Event::Writable);
        }
        self.proven(stream, now);
        Ok(())
    }
}
