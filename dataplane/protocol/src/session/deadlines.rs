//! What becomes due by itself: how long a session waits, and for what.

use super::{Role, Session, State};
use crate::event::Event;
use crate::hypervisor::StreamPhase;
use crate::limits::{LAST_WORD_TIMEOUT, OUTAGE_SWITCHOVER, REPORT_WAIT, STALL_MIN};
use crate::time::Instant;
use crate::wire::{Reason, ReasonCode};
use std::time::Duration;

impl Session {
    /// When a side whose hypervisors are all done stops waiting for its peer's last word. Where only the peer's
    /// agreement is missing, soon; where bytes are unverified, a stream may have died unnoticed: as long as an
    /// outage may last.
    fn last_word_deadline(&self) -> Option<Instant> {
        let since = self.ended_here_at?.max(self.heard_at);
        if self.nothing_missing() {
            return Some(since.after(LAST_WORD_TIMEOUT));
        }
        let running = matches!(self.state, State::Running);
        running.then(|| since.after(LAST_WORD_TIMEOUT.max(self.config.outage)))
    }

    /// When a session without streams gives up. Without need of its peer it does not.
    fn outage_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Interrupted { since } if !self.peer_finished => Some(since.after(self.outage())),
            _ => None,
        }
    }

    /// How long this session may be without any stream: briefly while the guest is stopped.
    fn outage(&self) -> Duration {
        match self.outbound.migration_progress() {
            // In postcopy the guest runs at the destination, and waits for pages.
            Some(progress) if progress.stopped && progress.phase != StreamPhase::Postcopy => {
                OUTAGE_SWITCHOVER.min(self.config.outage)
            }
            _ => self.config.outage,
        }
    }

    /// When [`Session::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        if self.state.is_over() {
            return None;
        }
        let state = match self.state {
            State::Opening { say_again_at, deadline } => Some(deadline.min(say_again_at)),
            State::Expecting { deadline } => Some(deadline),
            State::Interrupted { .. } => self.outage_deadline(),
            State::Running | State::Finished | State::Failed(_) => None,
        };
        let own = [
            self.last_word_deadline(),
            self.first_byte_deadline(),
            self.stall_deadline(),
            self.report_deadline(),
        ];
        [state, self.outbound.deadline(self.streams.several_proven())].into_iter().chain(own).flatten().min()
    }

    /// When a source's hypervisor that connected has to have sent something. Only while it is read from: not before
    /// the session is open, nor while it has no stream.
    fn first_byte_deadline(&self) -> Option<Instant> {
        let waits = self.config.role == Role::Source
            && matches!(self.state, State::Running)
            && !self.outbound.any_delivered(|_| true)
            && !self.outbound.all_closed();
        let since = self.first_connection_at.filter(|_| waits)?.max(self.running_since);
        Some(since.after(self.config.first_byte_timeout))
    }

    /// How long what was sent may stay unverified while there are streams (DWCP-43). They may be open to a process that hangs,
    /// and a part that was damaged on its way may keep its batch waiting for ever.
    fn stall(&self) -> Duration {
        self.config.outage.max(STALL_MIN)
    }

    /// When a session gives up whose peer verifies nothing. A hypervisor that is slow is no reason for that: what it
    /// has not taken yet is verified all the same.
    fn stall_deadline(&self) -> Option<Instant> {
        if !matches!(self.state, State::Running) {
            return None;
        }
        let since = self.outbound.unverified_since()?.max(self.running_since);
        Some(since.after(self.stall()))
    }

    /// When the peer is told what was verified although a hypervisor has not taken it: it must not take a slow
    /// hypervisor for a gateway that hangs.
    fn report_deadline(&self) -> Option<Instant> {
        self.inbound.owes_report().then(|| self.heard_at.after(REPORT_WAIT))
    }

    /// Does what has become due.
    pub fn tick(&mut self, now: Instant) {
        if self.state.is_over() {
            return;
        }
        if self.outbound.tick(self.streams.several_proven(), now) {
            self.events.push_back(Event::Writable);
        }
        let due = |at: Instant| now >= at;
        if self.report_deadline().is_some_and(due) {
            self.inbound.report_verified();
        }
        match self.state {
            State::Opening { deadline, .. } if due(deadline) => {
                let text =
                    "the peer gateway did not answer the opening of the session in time; no byte was sent";
                self.fail(Reason::new(ReasonCode::Timeout, text));
            }
            State::Opening { say_again_at, .. } if due(say_again_at) => {
                self.say_open_again(now);
            }
            State::Expecting { deadline } if due(deadline) => {
                let text = "the peer gateway did not open the session in time; no byte arrived";
                self.fail(Reason::new(ReasonCode::Timeout, text));
            }
            State::Interrupted { since } if self.outage_deadline().is_some_and(due) => {
                if self.nothing_missing() {
                    return self.finish();
                }
                let text =
                    format!("no stream to the peer gateway for {:.1} s", now.since(since).as_secs_f64());
                self.fail(Reason::new(ReasonCode::Outage, text));
            }
            _ => {}
        }
        if self.first_byte_deadline().is_some_and(due) {
            let text = format!(
                "the source's hypervisor connected but sent nothing for {} ms",
                self.config.first_byte_timeout.as_millis()
            );
            self.fail(Reason::new(ReasonCode::Timeout, text));
        }
        if self.stall_deadline().is_some_and(due) && self.outbound.waits_for_encoding() {
            let text = format!(
                "this gateway has not encoded within {} s what it read: one of its shards hangs; the peer gateway has what \
                 was sent before",
                self.stall().as_secs()
            );
            self.fail(Reason::new(ReasonCode::Timeout, text));
        } else if self.stall_deadline().is_some_and(due) {
            let text = format!(
                "the peer gateway has verified nothing for {} s of what was sent to it, although streams to it are open: \
                 it hangs, or lost a part of it",
                self.stall().as_secs()
            );
            self.fail(Reason::new(ReasonCode::Timeout, text));
        }
        if self.last_word_deadline().is_some_and(due) {
            // The source has confirmed every byte; where it cannot be asked any more, that is enough.
            if self.nothing_missing() {
                return self.finish();
            }
            let text = "every connection ended here, but the peer gateway did not confirm the last bytes";
            self.fail(Reason::new(ReasonCode::Timeout, text));
        }
    }
}
