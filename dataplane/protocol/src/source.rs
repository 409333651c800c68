//! The source's side of a session: it opens the session at the peer, and hypervisors connect to it.

use crate::event::Event;
use crate::limits::OPEN_REPEAT;
use crate::session::{Ends, Role, Session, SessionConfig, State};
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

    /// Opens the session on whichever stream comes first, and again if nobody answers (DWCP-10, DWCP-18).
    pub(crate) fn say_open(&mut self, now: Instant) {
        if let State::Opening { say_again_at, .. } = &mut self.state {
            *say_again_at = now.after(OPEN_REPEAT);
            self.open_due = Some(false);
        }
    }

    /// What opens the session on a stream between these ends; `resume`: both sides know it already.
    pub(crate) fn open_frame(&self, ends: &Ends, resume: bool) -> Bytes {
        let config = &self.config;
        let proof = config.token.proof("dwcp open", config.session, config.epoch, ends);
        let open = Open {
            lanes: config.lanes,
            digest: config.digest,
            connections_max: config.connections_max,
            receive_window: config.receive_window,
            outage_ms: u32::try_from(config.outage.as_millis()).unwrap_or(u32::MAX),
            resume,
            proof: *proof.as_bytes(),
        };
        open.to_frame(config.session, config.epoch)
    }

    /// The peer agreed (DWCP-11). A repeated answer to a repeated opening is no news.
    pub(crate) fn take_accept(
        &mut self,
        accept: &Accept,
        ends: Option<Ends>,
        now: Instant,
    ) -> Result<(), Reason> {
        if self.config.role != Role::Source {
            return Err(Reason::new(ReasonCode::Protocol, "an Accept came to the side that accepts"));
        }
        let Some(ends) = ends else { return Ok(()) };
        let expected = self.config.token.proof("dwcp accept", self.config.session, self.config.epoch, &ends);
        // `blake3::Hash` compares in constant time.
        if expected != accept.proof {
            return Err(Reason::new(
                ReasonCode::NotAuthorised,
                "the peer gateway does not know the session's token",
            ));
        }
        if matches!(self.state, State::Opening { .. }) {
            self.outbound.grant(accept.receive_window);
            self.state = State::Running;
            self.peers = Some(ends);
            self.opened_at = Some(now);
            self.running_since = now;
            self.events.push_back(Event::Opened);
            self.events.push_back(Event::Writable);
        }
        Ok(())
    }
}
