//! The responder of probes for a socket, and the twin that the kernel's program is compared with.

use super::packet::{HEADER_BYTES, Header, Kind, MAGIC, MeasuredBy, is_authentic};
use super::peers::{EPOCHS, Peers};
use crate::limits::{PROBE_BURST_NS, PROBE_BYTES_MAX, PROBE_COST_NS, PROBE_REPLAY_BITS};

const WORDS: usize = PROBE_REPLAY_BITS / 64;

/// What became of a probe. The order is that of the kernel's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// Its code does not fit, or its epoch is none that is valid.
    BadCookie,
    /// Nobody knows its tag, or it comes from elsewhere than the peer's address.
    UnknownPeer,
    /// It ends before it should, or says that it is longer than it is.
    Truncated,
    /// It came in fragments; only seen where whole frames are.
    Fragmented,
    /// The peer has sent too many.
    RateLimited,
    /// Longer than any probe.
    Oversize,
    /// It was answered before, or is older than what can be remembered.
    Replayed,
    /// Neither magic nor kind nor empty fields are a probe's.
    Malformed,
}

impl Outcome {
    /// Each, in the order of the counters.
    pub const ALL: [Outcome; 9] = [
        Outcome::Answered,
        Outcome::BadCookie,
        Outcome::UnknownPeer,
        Outcome::Truncated,
        Outcome::Fragmented,
        Outcome::RateLimited,
        Outcome::Oversize,
        Outcome::Replayed,
        Outcome::Malformed,
    ];

    /// Its name in metrics and results.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::BadCookie => "bad_cookie",
            Outcome::UnknownPeer => "unknown_peer",
            Outcome::Truncated => "truncated",
            Outcome::Fragmented => "fragmented",
            Outcome::RateLimited => "rate_limited",
            Outcome::Oversize => "oversize",
            Outcome::Replayed => "replayed",
            Outcome::Malformed => "malformed",
        }
    }
}

/// How many probes came to what, as [`Outcome::ALL`] orders them.
pub type Counts = [u64; Outcome::ALL.len()];

/// What is remembered of a peer: replays (RFC 6479) and rate (GCRA, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    tag: u64,
    highest: u64,
    heard: u64,
    due_ns: u64,
    seen: [u64; WORDS],
}

impl Memory {
    fn admit(&mut self, probe: &Header, now_ns: u64) -> Outcome {
        if self.tag != probe.tag {
            *self = Memory { tag: probe.tag, ..Memory::default() };
        }
        let (sequence, highest) = (probe.sequence, self.highest);
        let (word, bit) = (sequence >> 6, 1_u64 << (sequence & 63));
        let at = |word: u64| (word % WORDS as u64) as usize;
        let due_ns = self.due_ns.max(now_ns);
        let old = highest.saturating_sub(sequence) >= (PROBE_REPLAY_BITS - 64) as u64;
        if sequence <= highest && (old || self.seen[at(word)] & bit != 0) {
            return Outcome::Replayed;
        }
        if due_ns - now_ns > PROBE_BURST_NS {
            return Outcome::RateLimited;
        }
        self.due_ns = due_ns.saturating_add(PROBE_COST_NS);
        if sequence > highest {
            let ahead = word - (highest >> 6);
            for step in 1..=ahead.min(WORDS as u64) {
                self.seen[at((highest >> 6) + step)] = 0;
            }
            self.highest = sequence;
        }
        self.seen[at(word)] |= bit;
        self.heard += u64::from(probe.train == 0);
        Outcome::Answered
    }
}

/// Answers probes; holds no socket and no clock.
#[derive(Clone, Debug)]
pub struct Responder {
    peers: Peers,
    memory: Vec<Memory>,
    counts: Counts,
    measured_by: MeasuredBy,
}

impl Responder {
    /// One that answers these peers, and says so as `measured_by`.
    pub fn new(peers: Peers, measured_by: MeasuredBy) -> Self {
        let memory = vec![Memory::default(); crate::limits::PROBE_PEER_SLOTS];
        Responder { peers, memory, counts: Counts::default(), measured_by }
    }

    /// Whom it answers.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Whom it answers, to change that.
    pub fn peers_mut(&mut self) -> &mut Peers {
        &mut self.peers
    }

    /// What became of probes so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts what was seen of a probe outside, as a fragment is.
    pub fn count(&mut self, outcome: Outcome) {
        self.counts[outcome as usize] += 1;
    }

    /// The answer to a datagram that came `from` an address at `now_ns` of this machine's clock, or what is wrong with it
    /// (DWCP-93 to DWCP-97). An answer is never longer than what it answers.
    pub fn answer(
        &mut self,
        datagram: &[u8],
        from: [u8; 16],
        now_ns: u64,
    ) -> Result<[u8; HEADER_BYTES], Outcome> {
        let answered = self.decide(datagram, from, now_ns);
        self.count(answered.as_ref().err().copied().unwrap_or(Outcome::Answered));
        answered
    }

    fn decide(
        &mut self,
        datagram: &[u8],
        from: [u8; 16],
        now_ns: u64,
    ) -> Result<[u8; HEADER_BYTES], Outcome> {
        if datagram.len() < HEADER_BYTES {
            return Err(Outcome::Truncated);
        }
        if datagram.len() > PROBE_BYTES_MAX {
            return Err(Outcome::Oversize);
        }
        debug_assert!(datagram.starts_with(&MAGIC.to_le_bytes()) || Header::read(datagram).is_none());
        let probe = Header::read(datagram)
            .filter(|probe| probe.kind == Kind::Probe && probe.measured_by == MeasuredBy::Nobody)
            .filter(|probe| probe.received_ns == 0 && probe.heard == 0)
            .ok_or(Outcome::Malformed)?;
        if usize::from(probe.length) != datagram.len() {
            return Err(Outcome::Truncated);
        }
        let at = self.peers.find(probe.tag).ok_or(Outcome::UnknownPeer)?;
        let slot = self.peers.slot(at);
        if slot.address != from {
            return Err(Outcome::UnknownPeer);
        }
        let turn = probe.epoch as usize % EPOCHS;
        let keys = slot.keys[turn];
        if probe.epoch == 0 || slot.epoch[turn] != probe.epoch || !is_authentic(keys.probe, datagram) {
            return Err(Outcome::BadCookie);
        }
        match self.memory[at].admit(&probe, now_ns) {
            Outcome::Answered => Ok(Header {
                kind: Kind::Answer,
                measured_by: self.measured_by,
                received_ns: now_ns,
                heard: self.memory[at].heard,
                ..probe
            }
            .write(keys.answer)),
            refused => Err(refused),
        }
    }
}
