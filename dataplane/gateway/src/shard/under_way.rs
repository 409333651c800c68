//! Frames given to a stream, until the peer's system has them: which have arrived, and what of the others has crossed the path.

use novacron_protocol::wire::{FrameHeader, Lane};
use std::collections::VecDeque;

/// What a stream carries of one session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) session: u64,
    /// Bytes under way.
    bytes: u64,
    /// Of them, bytes that have crossed the path, as far as can be known: they wait there for something lost before them.
    pub(crate) beyond: u64,
    /// Frames that have arrived since the last look, by lane and sequence.
    pub(crate) arrived: Vec<(Lane, u64)>,
}

/// A frame on its way.
struct Carried {
    /// Where it ends among all bytes given.
    end: u64,
    bytes: u64,
    session: u64,
    key: (Lane, u64),
}

/// Frames given to a stream's transport, in order, until the peer's system has them.
#[derive(Default)]
pub(crate) struct UnderWay {
    given_bytes: u64,
    arrived_bytes: u64,
    frames: VecDeque<Carried>,
    parts: Vec<Part>,
}

impl UnderWay {
    /// The transport took a frame. What is in no order is nobody's to repeat.
    pub(crate) fn given(&mut self, frame: &[u8]) {
        self.given_bytes += frame.len() as u64;
        if let Ok(header) = FrameHeader::read(frame)
            && header.lane != Lane::Unordered
        {
            let (session, bytes) = (header.session, frame.len() as u64);
            let key = (header.lane, header.sequence);
            self.frames.push_back(Carried { end: self.given_bytes, bytes, session, key });
            self.part(session).bytes += bytes;
        }
    }

    fn part(&mut self, session: u64) -> &mut Part {
        let place = self.parts.iter().position(|part| part.session == session).unwrap_or_else(|| {
            self.parts.push(Part { session, ..Part::default() });
            self.parts.len() - 1
        });
        &mut self.parts[place]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// So many bytes have not arrived, and of them so many have crossed the path all the same. Returns how many have arrived that
    /// had not before, and what is new of each session.
    pub(crate) fn arrived(&mut self, outstanding_bytes: u64, beyond_bytes: u64) -> (u64, Vec<Part>) {
        let arrived_bytes = self.given_bytes.saturating_sub(outstanding_bytes).max(self.arrived_bytes);
        let new = arrived_bytes - std::mem::replace(&mut self.arrived_bytes, arrived_bytes);
        while self.frames.front().is_some_and(|frame| frame.end <= arrived_bytes) {
            let Some(frame) = self.frames.pop_front() else { break };
            let part = self.part(frame.session);
            part.bytes -= frame.bytes;
            part.arrived.push(frame.key);
        }
        let under_way = self.given_bytes - arrived_bytes;
        // Of the frame that arrives at present, so much has.
        let begun = self.frames.front().map(|frame| (frame.session, arrived_bytes + frame.bytes - frame.end));
        let mut news = Vec::new();
        for part in &mut self.parts {
            // Whose bytes are beyond a gap, nobody says: of each session alike.
            let share = u128::from(part.bytes) * u128::from(beyond_bytes) / u128::from(under_way.max(1));
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            let begun = begun.filter(|(session, _)| *session == part.session).map_or(0, |(_, bytes)| bytes);
            let beyond = share.saturating_add(begun).min(part.bytes);
            if std::mem::replace(&mut part.beyond, beyond) != beyond || !part.arrived.is_empty() {
                news.push(Part { arrived: std::mem::take(&mut part.arrived), ..*part });
            }
        }
        self.parts.retain(|part| part.bytes > 0);
        (new, news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_protocol::wire::{FRAME_HEADER_BYTES, Kind};

    /// A frame of `bytes` bytes.
    fn frame(session: u64, sequence: u64, bytes: usize) -> Vec<u8> {
        let mut frame = vec![0; bytes];
        let lane = Lane::Connection(0);
        let header = FrameHeader { kind: Kind::Batch, lane, session, epoch: 1, sequence };
        header.write(bytes - FRAME_HEADER_BYTES, &mut frame[..FRAME_HEADER_BYTES]);
        frame
    }

    fn two_sessions() -> UnderWay {
        let mut under_way = UnderWay::default();
        under_way.given(&frame(1, 0, 1000));
        under_way.given(&frame(2, 0, 3000));
        under_way.given(&frame(1, 1, 4000));
        under_way
    }

    #[test]
    fn frames_arrive_in_order_and_a_part_of_one_crosses() {
        let mut under_way = two_sessions();
        assert_eq!(under_way.arrived(8000, 0), (0, Vec::new()));
        // The first whole, and half of the second.
        let (new, news) = under_way.arrived(5500, 0);
        let arrived = vec![(Lane::Connection(0), 0)];
        assert_eq!(new, 2500);
        assert_eq!(news[0], Part { session: 1, bytes: 4000, beyond: 0, arrived });
        assert_eq!(news[1], Part { session: 2, bytes: 3000, beyond: 1500, arrived: Vec::new() });
        let (new, news) = under_way.arrived(0, 0);
        assert_eq!((new, news.len()), (5500, 2));
        assert!(news.iter().all(|part| part.arrived.len() == 1 && (part.bytes, part.beyond) == (0, 0)));
        assert!(under_way.is_empty() && under_way.parts.is_empty());
    }

    #[test]
    fn what_is_beyond_a_gap_is_shared_by_what_is_under_way() {
        let mut under_way = two_sessions();
        let (new, news) = under_way.arrived(8000, 4000);
        assert_eq!(new, 0);
        assert_eq!((news[0].session, news[0].beyond), (1, 2500));
        assert_eq!((news[1].session, news[1].beyond), (2, 1500));
        assert_eq!(under_way.arrived(8000, 4000), (0, Vec::new()), "nothing new");
        // Never more than there is, whatever a system says.
        let (_, news) = under_way.arrived(8000, u64::MAX);
        assert_eq!(news.iter().map(|part| part.beyond).sum::<u64>(), 8000);
    }
}
