//! Frames stay until they are acknowledged as verified, so that a lost stream loses nothing.
//!
//! A stream tells when the far side's system has acknowledged what it carried: the frame has *arrived*. That is less than
//! verified, since a gateway may die with what it has not read, but it says which stream a missing frame is stuck on.

use super::buffers::Buffers;
use super::sorted::Sorted;
use crate::limits::REPEATS_WAITING_MAX;
use crate::schedule::{FrameKey, SendQueue};
use crate::time::Instant;
use crate::wire::Lane;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};

/// One transport connection between two gateways, as the gateway numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// The frame of a connection's lane to which a frame belongs: itself, or the index of a part.
pub(super) type Owner = (u16, u64);

/// A frame that has not been verified yet.
#[derive(Debug)]
struct Retained {
    frame: Bytes,
    owner: Owner,
    /// The stream that took it last; `None` while it waits for one.
    stream: Option<StreamId>,
    /// Where it was repeated: the stream on which it was stuck.
    before: Option<StreamId>,
    taken_at: Instant,
    /// The stream by which it arrived first.
    arrived: Option<StreamId>,
}

/// What [`Retention::arrived`] learned.
pub(super) struct Arrival {
    pub(super) owner: Owner,
    /// When it was taken, unless it was repeated: then nobody knows which of both arrived.
    pub(super) taken_at: Option<Instant>,
}

/// Frames that have not been verified yet, those that wait for a stream in the order in which they leave.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// By lane, which come to stay, and by sequence.
    lanes: BTreeMap<Lane, Sorted<u64, Retained>>,
    /// Where the memory of frames goes that have been verified.
    buffers: Buffers,
    bytes: u64,
    arrived_bytes: u64,
    queue: SendQueue,
    /// Frames that are stuck on a stream, for any other one.
    repeats: VecDeque<FrameKey>,
}

impl Retention {
    /// Nothing kept yet; memory comes from `buffers`, where there is some of theirs.
    pub(super) fn new(buffers: Buffers) -> Self {
        Retention { buffers, ..Self::default() }
    }

    /// An empty buffer for a frame of so many bytes.
    pub(super) fn buffer(&self, bytes: usize) -> BytesMut {
        self.buffers.take(bytes)
    }

    /// A frame that is not to leave after all.
    pub(super) fn give_back(&self, frame: Bytes) {
        self.buffers.give_back(frame);
    }

    /// Keeps a frame, which waits for a stream.
    pub(super) fn keep(&mut self, key: FrameKey, owner: Owner, frame: Bytes) {
        self.bytes += frame.len() as u64;
        self.queue.push(key, frame.len());
        let retained =
            Retained { frame, owner, stream: None, before: None, taken_at: Instant::START, arrived: None };
        self.lanes.entry(key.0).or_default().insert(key.1, retained);
    }

    fn get(&self, (lane, sequence): &FrameKey) -> Option<&Retained> {
        self.lanes.get(lane)?.get(sequence)
    }

    fn get_mut(&mut self, (lane, sequence): &FrameKey) -> Option<&mut Retained> {
        self.lanes.get_mut(lane)?.get_mut(sequence)
    }

    /// The next frame for `stream`, and whether another stream carries it already.
    pub(super) fn next(&mut self, stream: StreamId, now: Instant) -> Option<(Bytes, bool)> {
        let elsewhere = self
            .repeats
            .iter()
            .position(|key| self.get(key).is_some_and(|retained| retained.stream != Some(stream)));
        if let Some(key) = elsewhere.and_then(|place| self.repeats.remove(place))
            && let Some(retained) = self.get_mut(&key)
        {
            (retained.before, retained.stream, retained.taken_at) = (retained.stream, Some(stream), now);
            return Some((retained.frame.clone(), true));
        }
        while let Some(key) = self.queue.pop() {
            // A frame that was verified while its repetition waited needs no stream.
            if let Some(frame) = self.take(&key, stream, now) {
                return Some((frame, false));
            }
        }
        None
    }

    /// The next small frame for `stream`.
    pub(super) fn next_small(&mut self, stream: StreamId, now: Instant) -> Option<Bytes> {
        while let Some(key) = self.queue.pop_small() {
            if let Some(frame) = self.take(&key, stream, now) {
                return Some(frame);
            }
        }
        None
    }

    fn take(&mut self, key: &FrameKey, stream: StreamId, now: Instant) -> Option<Bytes> {
        let retained = self.get_mut(key)?;
        (retained.stream, retained.taken_at) = (Some(stream), now);
        Some(retained.frame.clone())
    }

    /// The sequence of the oldest frame of a lane that has not been verified.
    pub(super) fn oldest(&self, lane: Lane) -> Option<u64> {
        self.lanes.get(&lane)?.first().map(|(sequence, _)| *sequence)
    }

    /// A frame has been verified.
    pub(super) fn release(&mut self, key: &FrameKey) {
        let lane = self.lanes.get_mut(&key.0);
        if let Some(retained) = lane.and_then(|lane| lane.remove(&key.1)) {
            self.bytes -= retained.frame.len() as u64;
            if retained.arrived.is_some() {
                self.arrived_bytes -= retained.frame.len() as u64;
            }
            self.repeats.retain(|other| other != key);
            self.buffers.give_back(retained.frame);
        }
    }

    /// Everything has been verified.
    pub(super) fn release_all(&mut self) {
        self.lanes.clear();
        self.repeats.clear();
        (self.bytes, self.arrived_bytes) = (0, 0);
    }

    /// The far side's system has a frame that `stream` carried. `None`: nothing new.
    pub(super) fn arrived(&mut self, key: &FrameKey, stream: StreamId) -> Option<Arrival> {
        let retained = self.lanes.get_mut(&key.0)?.get_mut(&key.1)?;
        let carried = retained.stream == Some(stream) || retained.before == Some(stream);
        if !carried || retained.arrived.is_some() {
            return None;
        }
        retained.arrived = Some(stream);
        self.arrived_bytes += retained.frame.len() as u64;
        self.repeats.retain(|other| other != key);
        let taken_at = retained.before.is_none().then_some(retained.taken_at);
        Some(Arrival { owner: retained.owner, taken_at })
    }

    /// On which stream a frame is on its way for the first time, and since when; `None`: it is not, it has arrived, or it was repeated.
    pub(super) fn on_its_way(&self, key: &FrameKey) -> Option<(StreamId, Instant)> {
        let retained = self.get(key)?;
        let fresh = retained.before.is_none() && retained.arrived.is_none() && !self.repeats.contains(key);
        retained.stream.filter(|_| fresh).map(|stream| (stream, retained.taken_at))
    }

    /// Whether more stuck frames may wait for another stream.
    pub(super) fn takes_repeats(&self) -> bool {
        self.repeats.len() < REPEATS_WAITING_MAX
    }

    /// A frame is stuck: another stream is to carry it as well.
    pub(super) fn repeat(&mut self, key: FrameKey) {
        if self.takes_repeats() && self.get(&key).is_some() {
            self.repeats.push_back(key);
        }
    }

    /// A stream died: what it alone carried leaves again (DWCP-31), arrived or not, since nobody knows what of it was read.
    /// Returns the owners of those that had arrived.
    pub(super) fn stream_lost(&mut self, stream: StreamId) -> Vec<Owner> {
        let mut owners = Vec::new();
        let frames = self.lanes.iter_mut().flat_map(|(lane, frames)| {
            frames.iter_mut().map(move |(sequence, retained)| ((*lane, *sequence), retained))
        });
        for (key, retained) in frames {
            if retained.stream != Some(stream) && retained.before != Some(stream) {
                continue;
            }
            let other = [retained.stream, retained.before].into_iter().flatten().find(|id| *id != stream);
            if retained.arrived.is_some_and(|by| by == stream) {
                retained.arrived = None;
                self.arrived_bytes -= retained.frame.len() as u64;
                owners.push(retained.owner);
            }
            (retained.stream, retained.before) = (other, None);
            if other.is_none() {
                self.repeats.retain(|waiting| *waiting != key);
                self.queue.push_again(key, retained.frame.len());
            }
        }
        owners
    }

    /// Whether a frame waits for a stream.
    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.repeats.is_empty()
    }

    /// Bytes kept, and bytes of them that wait for a stream.
    pub(super) fn bytes(&self) -> (u64, usize) {
        (self.bytes, self.queue.bytes())
    }

    /// Bytes kept that have not arrived.
    pub(super) fn bytes_to_arrive(&self) -> u64 {
        self.bytes - self.arrived_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamId = StreamId(1);
    const B: StreamId = StreamId(2);
    const KEY: FrameKey = (Lane::Connection(0), 1);

    fn kept() -> Retention {
        let mut retention = Retention::default();
        retention.keep(KEY, (0, 1), Bytes::from_static(&[0; 100]));
        retention
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_stuck_frame_leaves_on_another_stream_and_never_twice_on_its_own() {
        let mut retention = kept();
        assert_eq!(retention.on_its_way(&KEY), None, "it has not left");
        assert!(matches!(retention.next(A, at(1)), Some((_, false))));
        assert_eq!(retention.on_its_way(&KEY), Some((A, at(1))));
        retention.repeat(KEY);
        assert_eq!(retention.on_its_way(&KEY), None, "once is enough");
        assert!(retention.next(A, at(2)).is_none());
        assert!(matches!(retention.next(B, at(2)), Some((_, true))));
        assert!(!retention.has_waiting());
        assert_eq!(retention.on_its_way(&KEY), None);
    }

    #[test]
    fn what_arrives_is_not_repeated_and_counts_once() {
        let mut retention = kept();
        retention.next(A, at(1));
        retention.repeat(KEY);
        assert!(retention.arrived(&KEY, B).is_none(), "that stream did not carry it");
        assert_eq!(retention.arrived(&KEY, A).unwrap().taken_at, Some(at(1)));
        assert!(retention.arrived(&KEY, A).is_none());
        assert_eq!((retention.bytes_to_arrive(), retention.has_waiting()), (0, false));
        retention.release(&KEY);
        assert_eq!((retention.bytes(), retention.bytes_to_arrive()), ((0, 0), 0));
    }

    #[test]
    fn a_lost_stream_takes_back_what_had_arrived_by_it() {
        let mut retention = kept();
        retention.next(A, at(1));
        retention.arrived(&KEY, A);
        assert_eq!(retention.stream_lost(A), [(0, 1)]);
        assert_eq!(retention.bytes_to_arrive(), 100);
        assert!(retention.next(B, at(2)).is_some(), "it leaves again");
    }

    #[test]
    fn while_another_stream_carries_it_a_lost_one_changes_nothing() {
        let mut retention = kept();
        retention.next(A, at(1));
        retention.repeat(KEY);
        retention.next(B, at(2));
        assert!(retention.stream_lost(A).is_empty());
        assert!(!retention.has_waiting());
        assert!(retention.stream_lost(B).is_empty());
        assert!(retention.next(A, at(3)).is_some());
    }
}
