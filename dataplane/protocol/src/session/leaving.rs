//! What leaves on a stream, in which order: the session's own words, then frames; and what is known to have arrived.

use super::{Role, Session, State, Word};
use crate::event::Event;
use crate::stream::StreamId;
use crate::time::Instant;
use crate::wire::{Lane, Progress};
use bytes::Bytes;

impl Session {
    /// The far side's system has these frames, which `stream` carried: lanes and sequences, as their headers have them. Where a
    /// gateway cannot know, it does not say, and what is stuck on a stream waits for it.
    pub fn arrived(&mut self, stream: StreamId, frames: &[(Lane, u64)], now: Instant) {
        if self.outbound.arrived(stream, frames, now) {
            self.events.push_back(Event::Writable);
        }
    }

    /// What `stream` carries arrives, in its order. Told whenever more has.
    pub fn advanced(&mut self, stream: StreamId, now: Instant) {
        self.outbound.advanced(stream, now);
    }

    /// What `stream` carries arrives so slowly that other streams would deliver it sooner from the beginning. Holds until it advances.
    pub fn crawls(&mut self, stream: StreamId) {
        self.outbound.crawls(stream);
    }

    /// Of what is under way on `stream` so many bytes have crossed the path and wait there for something lost before them: they
    /// need nothing more of it. Told anew whenever it changes, and before the frames that have arrived meanwhile.
    pub fn crossed(&mut self, stream: StreamId, bytes: u64, now: Instant) {
        if self.outbound.crossed(stream, bytes, now) {
            self.events.push_back(Event::Writable);
        }
    }

    /// The next frame that `stream` should carry; `None`: nothing waits, or the stream is not this session's.
    pub fn next_frame(&mut self, stream: StreamId, now: Instant) -> Option<Bytes> {
        self.next_word(stream)
            .or_else(|| self.carries(stream).then(|| self.outbound.next_frame(stream, now)).flatten())
    }

    /// The next frame of few bytes that `stream` should carry: what opens, reports or ends, and what a return path or a
    /// device says. It overtakes the bulk of all sessions that share the stream.
    pub fn next_small_frame(&mut self, stream: StreamId, now: Instant) -> Option<Bytes> {
        self.next_word(stream)
            .or_else(|| self.carries(stream).then(|| self.outbound.next_small_frame(stream, now)).flatten())
    }

    /// What is left to say after a failure was in `last_words`; but a finished side still acknowledges.
    fn carries(&self, stream: StreamId) -> bool {
        self.streams.is_proven(stream) && !matches!(self.state, State::Failed(_))
    }

    /// The session's own words: openings and ends first, then how far it is.
    fn next_word(&mut self, stream: StreamId) -> Option<Bytes> {
        let ends = self.streams.ends(stream)?;
        if let Some((kind, reason)) = self.last_words.pop_front() {
            return Some(self.config.witness().last_word(kind, &reason, &ends));
        }
        match (self.streams.take_due(stream), self.config.role) {
            (Some(Word::Opening), Role::Source) => return Some(self.open_frame(&ends)),
            (Some(Word::Opening), Role::Destination) => return Some(self.accept_frame(&ends)),
            (Some(Word::Greeting), _) => {
                return Some(Progress::default().to_frame(self.config.session, self.config.epoch));
            }
            (None, _) => {}
        }
        if self.carries(stream) && (std::mem::take(&mut self.greeting_due) || self.inbound.has_progress()) {
            self.inbound.take_progress(self.said.progress());
            return Some(self.said.frame(self.config.session, self.config.epoch, &self.config.buffers));
        }
        let want = if self.carries(stream) { self.inbound.take_want() } else { None };
        want.map(|want| want.to_want(self.config.session, self.config.epoch))
    }

    /// Whether a frame waits for a stream.
    pub fn has_frames(&self) -> bool {
        if !self.last_words.is_empty() || self.streams.any_due() {
            return true;
        }
        let carries = self.streams.any_proven() && !matches!(self.state, State::Failed(_));
        let speaks = self.greeting_due || self.inbound.has_progress() || self.inbound.has_wants();
        carries && (speaks || self.outbound.has_frames())
    }
}
