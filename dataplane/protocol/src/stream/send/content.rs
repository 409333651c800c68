//! Pages of which only references are under way: kept until they are verified, and sent if the far side asks for them.

use super::Outbound;
use crate::page::{KnownContent, Referred};
use crate::stream::retain::{Owner, StreamId};
use crate::wire::{PartFields, Reason, ReasonCode, Wanted};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Where a page stands that was referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nobody asked for it.
    Unasked,
    /// It waits for a stream.
    Due,
    /// This stream took it.
    Left(StreamId),
}

#[derive(Debug)]
struct Reference {
    referred: Referred,
    answer: Answer,
}

/// Pages of which only references are under way, by connection, batch and lane. Each is sent at most once for every stream that is
/// lost, however often it is asked for.
#[derive(Debug, Default)]
pub(super) struct References {
    parts: BTreeMap<(Owner, u16), Vec<Reference>>,
    /// Parts with pages that wait for a stream; the oldest leaves first.
    due: BTreeSet<(Owner, u16)>,
    pages: usize,
}

impl References {
    /// Keeps what the part of a batch on this lane refers to.
    pub(super) fn keep(&mut self, batch: Owner, lane: u16, referred: Vec<Referred>) {
        if referred.is_empty() {
            return;
        }
        self.pages += referred.len();
        let references = referred.into_iter().map(|referred| Reference { referred, answer: Answer::Unasked });
        self.parts.insert((batch, lane), references.collect());
    }

    /// A batch has been verified: what its parts carried whole the far side has, what they referred to is not asked for any more.
    pub(super) fn verified(&mut self, batch: Owner, carried: &[u64], known: Option<&KnownContent>) {
        if let Some(known) = known {
            carried.iter().for_each(|fingerprint| known.learn(*fingerprint));
        }
        self.release(batch);
    }

    fn release(&mut self, batch: Owner) {
        while let Some((key, _)) = self.parts.range((batch, 0)..=(batch, u16::MAX)).next() {
            let key = *key;
            self.due.remove(&key);
            self.pages -= self.parts.remove(&key).map_or(0, |references| references.len());
        }
    }

    /// The far side asks for pages; returns the fingerprints of those that it had not asked for before. `None`: it asks for what is
    /// no reference.
    fn ask(&mut self, wanted: &Wanted) -> Option<Vec<u64>> {
        let key = ((wanted.part.connection, wanted.part.batch), wanted.lane);
        let references = self.parts.get_mut(&key)?;
        let at = |place: u16, references: &[Reference]| {
            references.binary_search_by_key(&place, |reference| reference.referred.place).ok()
        };
        let places: Vec<usize> =
            wanted.places.iter().map(|place| at(*place, references)).collect::<Option<_>>()?;
        let mut new = Vec::new();
        for place in places {
            let reference = &mut references[place];
            if reference.answer == Answer::Unasked {
                reference.answer = Answer::Due;
                new.push(reference.referred.fingerprint);
                self.due.insert(key);
            }
        }
        Some(new)
    }

    /// What answers the oldest question; `stream` takes it.
    fn next(&mut self, stream: StreamId) -> Option<(Wanted, Vec<u8>)> {
        let key = self.due.pop_first()?;
        let ((connection, batch), lane) = key;
        let mut wanted = Wanted { part: PartFields { connection, batch }, lane, places: Vec::new() };
        let mut bodies = Vec::new();
        for reference in self.parts.get_mut(&key)?.iter_mut().filter(|r| r.answer == Answer::Due) {
            reference.answer = Answer::Left(stream);
            wanted.places.push(reference.referred.place);
            bodies.extend_from_slice(&*reference.referred.page);
        }
        Some((wanted, bodies))
    }

    /// A stream died: the answers that it took leave again.
    pub(super) fn stream_lost(&mut self, stream: StreamId) {
        for (key, references) in &mut self.parts {
            for reference in references.iter_mut().filter(|r| r.answer == Answer::Left(stream)) {
                reference.answer = Answer::Due;
                self.due.insert(*key);
            }
        }
    }

    pub(super) fn any_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Bytes of pages kept.
    pub(super) fn bytes(&self) -> usize {
        self.pages * crate::limits::PAGE_BYTES
    }
}

impl Outbound {
    /// What is under way at `sequence` carries pages of these fingerprints whole.
    pub(super) fn carries(&mut self, connection: u16, sequence: u64, content: Vec<u64>) {
        if let Some(sending) = self.connections.get_mut(&connection) {
            sending.carries(sequence, content);
        }
    }

    /// The peer has not got what was referred to, and asks for it (DWCP-77). What it asked for before is no news; what was never
    /// referred to is a violation.
    pub fn wanted(&mut self, wanted: &Wanted) -> Result<(), Reason> {
        let PartFields { connection, batch } = wanted.part;
        let sending = self.connections.get(&connection);
        if sending.is_some_and(|sending| batch < sending.verified_frames) {
            return Ok(());
        }
        let Some(new) = self.references.ask(wanted) else {
            let text = format!(
                "the peer asks for pages of batch {batch} of connection {connection}, lane {}, that were not referred to",
                wanted.lane
            );
            return Err(Reason::new(ReasonCode::Protocol, text));
        };
        self.bytes.repaired_pages += new.len() as u64;
        if let Some(known) = &self.known {
            new.iter().for_each(|fingerprint| known.forget(*fingerprint));
        }
        Ok(())
    }

    /// The next answer for `stream`. The far side's batch waits for nothing else, so it leaves before all other frames.
    pub(super) fn next_repair(&mut self, stream: StreamId) -> Option<Bytes> {
        let (wanted, bodies) = self.references.next(stream)?;
        let frame = wanted.to_repair(&bodies, self.session, self.epoch);
        self.bytes.wire += frame.len() as u64;
        self.bytes.repair += frame.len() as u64;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PAGE_BYTES;

    const A: StreamId = StreamId(1);
    const B: StreamId = StreamId(2);

    fn kept() -> References {
        let page = |place: u16| Referred {
            place,
            fingerprint: u64::from(place),
            page: Box::new([place as u8; PAGE_BYTES]),
        };
        let mut references = References::default();
        references.keep((0, 5), 1, vec![page(2), page(7)]);
        references.keep((0, 6), 0, vec![page(0)]);
        references
    }

    fn wanted(batch: u64, lane: u16, places: &[u16]) -> Wanted {
        Wanted { part: PartFields { connection: 0, batch }, lane, places: places.to_vec() }
    }

    /// DWCP-77: a page leaves once, however often it is asked for, and again only where its stream died.
    #[test]
    fn a_flood_of_questions_gets_one_answer() {
        let mut references = kept();
        assert_eq!(references.ask(&wanted(5, 1, &[7])), Some(vec![7]));
        for _ in 0..1000 {
            assert_eq!(references.ask(&wanted(5, 1, &[7])), Some(vec![]));
        }
        let (answer, bodies) = references.next(A).unwrap();
        assert_eq!((answer, bodies), (wanted(5, 1, &[7]), vec![7; PAGE_BYTES]));
        assert_eq!(references.ask(&wanted(5, 1, &[2, 7])), Some(vec![2]));
        assert_eq!(references.next(B).unwrap().0, wanted(5, 1, &[2]));
        assert!(references.next(A).is_none() && !references.any_due());
        references.stream_lost(A);
        assert_eq!(references.next(B).unwrap().0, wanted(5, 1, &[7]));
        references.stream_lost(A);
        assert!(!references.any_due());
    }

    #[test]
    fn what_was_not_referred_to_is_not_sent() {
        let mut references = kept();
        for asked in [wanted(5, 1, &[3]), wanted(5, 0, &[2]), wanted(7, 1, &[2]), wanted(5, 1, &[2, 3])] {
            assert_eq!(references.ask(&asked), None, "{asked:?}");
        }
        assert!(!references.any_due(), "nothing of a question that is wrong");
    }

    #[test]
    fn what_is_verified_is_kept_no_longer() {
        let mut references = kept();
        references.ask(&wanted(5, 1, &[7]));
        assert_eq!(references.bytes(), 3 * PAGE_BYTES);
        references.release((0, 5));
        assert_eq!(references.bytes(), PAGE_BYTES);
        assert!(references.next(A).is_none());
        references.release((0, 6));
        assert_eq!((references.bytes(), references.parts.len()), (0, 0));
    }
}
