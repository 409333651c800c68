//! One connection's outgoing direction: where it stands, and what of it is under way.

use super::pace::Pace;
use super::times::Wait;
use crate::hypervisor::{Parser, StreamProgress};
use crate::schedule::FrameKey;
use crate::time::Instant;
use crate::wire::BatchFields;
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

/// A frame of a connection's lane that is under way, with the parts that belong to it.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) end: u64,
    pub(super) parts: Vec<FrameKey>,
    /// When it was read.
    pub(super) sent_at: Instant,
    /// When it was ready for a stream.
    pub(super) left_at: Instant,
    pub(super) encoded_bytes: u64,
    /// Guest bytes that it stands for.
    pub(super) length: u64,
    /// Frames of it that have not arrived: the parts and itself.
    pub(super) missing: usize,
    /// Fingerprints of pages that it carries whole: the far side holds them once it is verified.
    pub(super) content: Vec<u64>,
}

impl UnderWay {
    /// A frame that leaves now, with its parts.
    pub(super) fn new(end: u64, length: u64, parts: Vec<FrameKey>, encoded_bytes: u64, now: Instant) -> Self {
        let missing = 1 + parts.len();
        UnderWay {
            end,
            parts,
            sent_at: now,
            left_at: now,
            encoded_bytes,
            length,
            missing,
            content: Vec::new(),
        }
    }
}

/// One connection's outgoing direction.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) parser: Option<Parser>,
    /// An incomplete record that waits for its rest.
    pub(super) carry: Vec<u8>,
    pub(super) carry_since: Instant,
    pub(super) position: u64,
    pub(super) hasher: blake3::Hasher,
    pub(super) frames: u64,
    pub(super) verified_frames: u64,
    pub(super) verified: u64,
    pub(super) consumed: u64,
    pub(super) limit: u64,
    pub(super) under_way: VecDeque<UnderWay>,
    /// Encoded bytes of them.
    pub(super) encoded_under_way: u64,
    /// Verified, but the far hypervisor has not taken it yet.
    pub(super) verified_under_way: VecDeque<UnderWay>,
    /// Guest bytes of `under_way` that have arrived whole.
    arrived: u64,
    pub(super) pace: Pace,
    /// Of what waited behind a hole, bytes that the far hypervisor has not caught up with.
    late: Cell<u64>,
    /// Why the hypervisor was not read, since the last batch.
    pub(super) wait: Cell<Wait>,
    pub(super) ended: bool,
}

impl Sending {
    /// A direction that begins now, with what the peer has granted it. Its lane is numbered from the opening frame,
    /// announced or not, so that the first batch is always sequence 1.
    pub(super) fn new(parse: bool, limit: u64, now: Instant) -> Self {
        Sending {
            parser: parse.then(Parser::new),
            carry: Vec::new(),
            carry_since: now,
            position: 0,
            hasher: blake3::Hasher::new(),
            frames: 1,
            verified_frames: 1,
            verified: 0,
            consumed: 0,
            limit,
            under_way: VecDeque::new(),
            encoded_under_way: 0,
            verified_under_way: VecDeque::new(),
            arrived: 0,
            pace: Pace::default(),
            late: Cell::new(0),
            wait: Cell::new(Wait::Source),
            ended: false,
        }
    }

    /// Moves the position and the digest over `bytes`.
    pub(super) fn advance(&mut self, bytes: &[u8], digest: bool) -> BatchFields {
        let position = self.position;
        self.position += bytes.len() as u64;
        let digest = if digest {
            self.hasher.update(bytes);
            *self.hasher.finalize().as_bytes()
        } else {
            [0; 32]
        };
        BatchFields { position, length: bytes.len() as u32, digest }
    }

    /// The next frame of this connection's lane, with the parts that belong to it: `encoded_bytes` in all.
    pub(super) fn next_frame(&mut self, parts: Vec<FrameKey>, encoded_bytes: u64, now: Instant) -> u64 {
        let sequence = self.frames;
        self.frames += 1;
        self.pace.sent(self.position.saturating_sub(self.consumed), now);
        let length = self.position - self.under_way.back().map_or(self.verified, |last| last.end);
        self.encoded_under_way += encoded_bytes;
        self.under_way.push_back(UnderWay::new(self.position, length, parts, encoded_bytes, now));
        sequence
    }

    fn at(&mut self, sequence: u64) -> Option<&mut UnderWay> {
        let place = sequence.checked_sub(self.verified_frames).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.under_way.get_mut(place))
    }

    /// What is under way at `sequence` carries pages of these fingerprints whole.
    pub(super) fn carries(&mut self, sequence: u64, content: Vec<u64>) {
        if let Some(under_way) = self.at(sequence) {
            under_way.content = content;
        }
    }

    /// A frame of what is under way at `sequence` has arrived. Returns when that batch left.
    pub(super) fn arrived(&mut self, sequence: u64) -> Option<Instant> {
        let under_way = self.at(sequence)?;
        let left_at = under_way.left_at;
        under_way.missing = under_way.missing.saturating_sub(1);
        if under_way.missing == 0 {
            self.arrived += under_way.length;
        }
        Some(left_at)
    }

    /// Guest bytes that have arrived whole since the beginning.
    pub(super) fn arrived_total(&self) -> u64 {
        self.verified + self.arrived
    }

    /// One that had arrived may have been lost after all.
    pub(super) fn lost(&mut self, sequence: u64) {
        let Some(under_way) = self.at(sequence) else { return };
        under_way.missing += 1;
        if under_way.missing == 1 {
            self.arrived -= under_way.length;
        }
    }

    /// The oldest frame under way has been verified.
    pub(super) fn verify_next(&mut self) -> Option<UnderWay> {
        let under_way = self.under_way.pop_front()?;
        self.verified_frames += 1;
        self.verified = under_way.end;
        self.encoded_under_way = self.encoded_under_way.saturating_sub(under_way.encoded_bytes);
        if under_way.missing == 0 {
            self.arrived -= under_way.length;
        }
        Some(under_way)
    }

    /// All that is under way has been verified.
    pub(super) fn verify_all(&mut self) {
        self.under_way.clear();
        (self.arrived, self.encoded_under_way) = (0, 0);
        (self.verified_frames, self.verified) = (self.frames, self.position);
    }

    /// Guest bytes that have crossed the path and wait there for something that has not: they need nothing more of it.
    pub(super) fn behind_a_hole(&self) -> u64 {
        let in_order = self.under_way.iter().take_while(|under_way| under_way.missing == 0);
        self.arrived - in_order.map(|under_way| under_way.length).sum::<u64>()
    }

    /// What does not count against the window, of `across` bytes that wait across the path. When a hole is closed all that waited
    /// behind it counts at once, and until the far hypervisor had taken it nothing would leave: so what was more than a `window` goes
    /// on not to count, and less so with every byte that is taken.
    pub(super) fn across_or_late(&self, across: u64, window: u64) -> u64 {
        self.late.set(self.late.get().max(across.saturating_sub(window)));
        across.max(self.late.get())
    }

    /// The far hypervisor has taken everything up to `consumed`.
    pub(super) fn taken(&mut self, consumed: u64) {
        let new = consumed.saturating_sub(self.consumed);
        self.consumed += new;
        self.late.set(self.late.get().saturating_sub(new / 2));
    }

    /// The first that has not arrived whole, and its sequence, where something after it has.
    pub(super) fn hole(&self) -> Option<(u64, &UnderWay)> {
        if self.behind_a_hole() == 0 {
            return None;
        }
        let sequences = self.verified_frames..;
        sequences.zip(&self.under_way).find(|(_, under_way)| under_way.missing > 0)
    }

    /// A frame that is under way, whose encoding was handed out, leaves only now: with these parts, `encoded_bytes` in all.
    pub(super) fn became(&mut self, sequence: u64, parts: Vec<FrameKey>, encoded_bytes: u64, now: Instant) {
        if let Some(under_way) = self.at(sequence) {
            under_way.missing = 1 + parts.len();
            let before = std::mem::replace(&mut under_way.encoded_bytes, encoded_bytes);
            under_way.parts = parts;
            // How long encoding took is not how long the link takes.
            under_way.left_at = now;
            self.encoded_under_way = (self.encoded_under_way + encoded_bytes).saturating_sub(before);
        }
    }
}

/// What one connection's direction has done, for records and progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendingState {
    /// The connection.
    pub connection: u16,
    /// Bytes read from the hypervisor and put into batches.
    pub position: u64,
    /// Bytes that the far side has verified.
    pub verified: u64,
    /// Bytes that the far hypervisor has taken.
    pub consumed: u64,
    /// BLAKE3 of the bytes up to `position`; `None` where the session carries no digest.
    pub digest: Option<[u8; 32]>,
    /// The direction has ended here, and the far side has verified everything including the end.
    pub ended: bool,
    /// What the stream's parser found.
    pub parsed: Option<StreamProgress>,
    /// Guest bytes that may be under way at present.
    pub window: u64,
    /// Highest recent rate at which the far hypervisor takes bytes, bytes a second.
    pub rate: Option<u64>,
    /// Shortest recent time from ingress to the far hypervisor's taking it and back.
    pub round_trip: Option<Duration>,
}
