//! What the peer says of how far it is: frames are released, windows move.

use super::{FAR_BATCHES, Outbound};
use crate::limits::BATCHES_UNDER_WAY_MAX;
use crate::time::Instant;
use crate::wire::{Lane, ProgressEntry, Reason, ReasonCode};

impl Outbound {
    /// Takes the peer's word on a connection (DWCP-30). Entries may be late or repeated; a word about what was
    /// never sent is a violation.
    pub fn progress(&mut self, entry: &ProgressEntry, now: Instant) -> Result<(), Reason> {
        let violation = |text: String| Err(Reason::new(ReasonCode::Protocol, text));
        let share = self.crossed_share();
        let Some(sending) = self.connections.get_mut(&entry.connection) else {
            // The peer repeats that nothing came back yet on a connection whose opening is still on its way.
            if entry.verified_frames <= 1 && entry.consumed == 0 {
                return Ok(());
            }
            return violation(format!(
                "the peer reports progress on connection {}, which is not open",
                entry.connection
            ));
        };
        let never_sent = self.encoding.holds_before(entry.connection, entry.verified_frames);
        if never_sent || entry.verified_frames > sending.frames || entry.consumed > sending.position {
            return violation(format!(
                "the peer acknowledges more of connection {} than was sent",
                entry.connection
            ));
        }
        while sending.verified_frames < entry.verified_frames {
            let own = (Lane::Connection(entry.connection), sending.verified_frames);
            let Some(mut under_way) = sending.verify_next() else { break };
            for key in under_way.parts.iter().chain(std::iter::once(&own)) {
                self.retained.release(key);
            }
            let batch = (entry.connection, own.1);
            self.references.verified(batch, &under_way.content, self.known.as_deref());
            self.verified_at = now;
            self.link.acknowledged(under_way.left_at, now);
            let mut keys = std::mem::take(&mut under_way.parts);
            if keys.capacity() > 0 && self.spare_keys.len() < BATCHES_UNDER_WAY_MAX {
                keys.clear();
                self.spare_keys.push(keys);
            }
            sending.verified_under_way.push_back(under_way);
        }
        sending.taken(entry.consumed);
        while sending.verified_under_way.front().is_some_and(|batch| batch.end <= sending.consumed) {
            let Some(batch) = sending.verified_under_way.pop_front() else { break };
            sending.pace.taken(batch.sent_at, now);
        }
        sending.pace.arrived(sending.crossed_total(share), now);
        sending.limit = sending.limit.max(entry.limit);
        let to_take = sending.verified - sending.consumed.min(sending.verified);
        self.link.far_side(to_take > FAR_BATCHES * sending.pace.batch());
        self.link.arrived(self.encoded_arrived(), now);
        Ok(())
    }

    /// Encoded bytes that have crossed since the beginning, each once.
    pub(super) fn encoded_arrived(&self) -> u64 {
        self.bytes.encoded - self.bytes_to_cross()
    }
}
