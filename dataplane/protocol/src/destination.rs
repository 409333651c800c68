//! The destination's side of a session: its own caller announced it, the peer opens it, and it connects to the
//! hypervisor that its caller named, never to one that the peer names.

use crate::event::Event;
use crate::limits::MEMORY_BYTES_MAX;
use crate::session::{Ends, Role, Session, SessionConfig, State, Word};
use crate::stream::{Inbound, Outbound, Reservation, StreamId};
use crate::time::Instant;
use crate::wire::{Accept, Open, Reason, ReasonCode};
use bytes::Bytes;

impl Session {
    /// A session that waits for the peer to open it.
    pub fn destination(config: SessionConfig, now: Instant) -> Session {
        debug_assert_eq!(config.role, Role::Destination);
        let deadline = now.after(config.expect_timeout);
        Session::new(config, State::Expecting { deadline })
    }

    /// The peer opens the session, or takes it up again (DWCP-10, DWCP-11).
    pub(crate) fn take_open(&mut self, open: &Open, stream: StreamId, now: Instant) -> Result<(), Reason> {
        if self.config.role != Role::Destination {
            return Err(Reason::new(ReasonCode::Protocol, "an Open came to the side that opens"));
        }
        let Some(ends) = self.streams.ends(stream) else { return Ok(()) };
        let (session, epoch) = (self.config.session, self.config.epoch);
        if !self.config.witness().is_opened_by(open, &ends) {
            return Err(Reason::new(
                ReasonCode::NotAuthorised,
                "the peer gateway does not know the session's token, or its words were changed on the way",
            ));
        }
        self.check_peers(&ends)?;
        if matches!(self.state, State::Expecting { .. }) {
            if open.resume {
                let text =
                    "the peer takes up a session that this gateway has not begun: one of them restarted";
                return Err(Reason::new(ReasonCode::SessionUnknown, text));
            }
            self.config.lanes = open.lanes;
            self.config.digest = open.digest;
            self.config.connections_max = self.config.connections_max.min(open.connections_max);
            self.outbound =
                Outbound::new(session, epoch, open.digest, None, 1).with_buffers(self.config.buffers.clone());
            self.outbound.grant(open.receive_window);
            self.inbound = Inbound::new(
                open.digest,
                open.lanes,
                self.config.receive_window,
                self.config.connections_max,
                true,
            )
            .with_memory(self.config.receive_memory.clone(), self.first_promise)
            .with_buffers(self.config.buffers.clone())
            .with_codec_workers(self.config.codec_workers);
            let memory = self.config.memory_budget.reserve(self.config.memory_bytes.min(open.memory_bytes));
            self.memory = Some(memory);
            // Without memory no part could refer to anything.
            let terms = self.agreed_terms();
            self.inbound.remember(terms, self.config.content_store.clone().filter(|_| terms.is_some()));
            self.state = State::Running;
            self.peers = Some(ends);
            self.opened_at = Some(now);
            self.running_since = now;
            self.events.push_back(Event::Opened);
            self.events.push_back(Event::Writable);
        }
        self.streams.say(stream, Word::Opening);
        self.proven(stream, now);
        Ok(())
    }

    /// The answer to an opening, on a stream between these ends.
    pub(crate) fn accept_frame(&self, ends: &Ends) -> Bytes {
        let config = &self.config;
        let store = config.content_store.as_ref().filter(|_| self.agreed_terms().is_some());
        let accept = Accept {
            receive_window: self.first_promise,
            memory_bytes: self.memory.as_ref().map_or(0, Reservation::bytes),
            content_key: store.map_or([0; 32], |store| *store.key().bytes()),
            content_bytes: store.map_or(0, |store| store.bytes().1.min(MEMORY_BYTES_MAX)),
            proof: [0; 32],
        };
        config.witness().prove_accept(accept, ends).to_frame(config.session, config.epoch)
    }

    /// The source's hypervisor opened a connection: the way back opens here, the gateway connects.
    pub(crate) fn take_connection(
        &mut self,
        connection: u16,
        label: String,
        now: Instant,
    ) -> Result<(), Reason> {
        if self.config.role != Role::Destination {
            return Err(Reason::new(ReasonCode::Protocol, "the destination's side opened a connection"));
        }
        self.outbound.open(connection, None, now);
        self.count_connection(connection, label, now);
        self.connect_in_order();
        Ok(())
    }
}
