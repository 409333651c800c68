//! Available bandwidth from trains of probes: how far apart the path let them arrive (packet dispersion, Dovrolis,
//! Ramanathan and Moore, 2004). The responder's stamps are taken, so that the way back plays no part.

use crate::limits::TRAIN_PROBES_MAX;
use std::ops::Range;

/// Bytes that a datagram takes on an Ethernet wire beyond itself: UDP, IPv4 and Ethernet headers.
pub const WIRE_OVERHEAD_BYTES: usize = 8 + 20 + 14;

/// What a train came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dispersion {
    /// Bits a second, whole Ethernet frames counted.
    pub bits_per_s: f64,
    /// It was not the path that spread the train, but how fast it was sent: the path has at least that much.
    pub is_floor: bool,
    /// Probes that arrived.
    pub arrived: u64,
    /// Of those, how many a later one had overtaken (RFC 4737).
    pub reordered: u64,
}

/// A train on its way.
#[derive(Clone, Debug)]
pub struct Train {
    /// Names it in its probes; never 0.
    pub id: u32,
    first_sequence: u64,
    probes: u16,
    datagram_bytes: usize,
    /// When each left.
    sent_ns: Vec<u64>,
    /// Arrival of each by the responder's clock; 0: not heard of.
    arrivals: Vec<u64>,
    arrived: u16,
}

impl Train {
    /// One of `probes` datagrams, of which the first has this sequence number and leaves now.
    pub fn new(id: u32, first_sequence: u64, probes: u16, datagram_bytes: usize) -> Self {
        let probes = probes.min(TRAIN_PROBES_MAX);
        let arrivals = vec![0; usize::from(probes)];
        let sent_ns = Vec::with_capacity(usize::from(probes));
        Train { id, first_sequence, probes, datagram_bytes, sent_ns, arrivals, arrived: 0 }
    }

    /// The next of it left.
    pub fn sent(&mut self, now_ns: u64) {
        if self.sent_ns.len() < usize::from(self.probes) {
            self.sent_ns.push(now_ns);
        }
    }

    /// One of it arrived at the responder then.
    pub fn arrived(&mut self, sequence: u64, received_ns: u64) {
        let place = sequence.checked_sub(self.first_sequence).and_then(|at| usize::try_from(at).ok());
        if let Some(arrival) = place.and_then(|at| self.arrivals.get_mut(at)) {
            self.arrived += u16::from(*arrival == 0);
            *arrival = received_ns;
        }
    }

    /// Whether nothing more is to come.
    pub fn is_complete(&self) -> bool {
        self.arrived == self.probes
    }

    /// What it came to; `None` if too little of it arrived to say.
    pub fn dispersion(&self) -> Option<Dispersion> {
        let arrived = u64::from(self.arrived);
        let mut reordered = 0;
        let mut latest = 0;
        for arrival in self.arrivals.iter().filter(|arrival| **arrival != 0) {
            reordered += u64::from(*arrival < latest);
            latest = latest.max(*arrival);
        }
        if self.arrived < 8 {
            return None;
        }
        let mut sum = Spans::default();
        for (at, run) in self.runs().into_iter().enumerate() {
            // The first tenth may have passed on what a token bucket had saved.
            let skipped = if at == 0 { run.len() / 10 } else { 0 };
            sum.add(&self.sent_ns[run.clone()], &self.arrivals[run], skipped);
        }
        if sum.gaps < 7 || sum.arrived_ns == 0 {
            return None;
        }
        let bits = ((self.datagram_bytes + WIRE_OVERHEAD_BYTES) * 8) as f64;
        Some(Dispersion {
            bits_per_s: sum.gaps as f64 * bits * 1e9 / sum.arrived_ns as f64,
            is_floor: (sum.arrived_ns as f64) < 1.1 * sum.sent_ns as f64,
            arrived,
            reordered,
        })
    }

    /// Where the train was sent without a stop: a sender that others keep from its processor leaves gaps of its own, which say
    /// nothing of the path.
    fn runs(&self) -> Vec<Range<usize>> {
        let mut gaps: Vec<u64> =
            self.sent_ns.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        let stops: Vec<u64> = gaps.clone();
        gaps.sort_unstable();
        let usual = gaps.get(gaps.len() / 2).copied().unwrap_or(0);
        let stop = usual.saturating_mul(8).max(STOP_NS);
        let mut runs = Vec::new();
        let mut start = 0;
        for (at, gap) in stops.iter().enumerate() {
            if *gap > stop {
                runs.push(start..at + 1);
                start = at + 1;
            }
        }
        runs.push(start..self.sent_ns.len());
        runs
    }
}

/// A sender stopped when nothing left for so long, and for eight times as long as usual.
const STOP_NS: u64 = 100_000;

/// How long runs of a train took to leave and to arrive.
#[derive(Default)]
struct Spans {
    gaps: u64,
    sent_ns: u64,
    arrived_ns: u64,
}

impl Spans {
    fn add(&mut self, sent_ns: &[u64], arrivals: &[u64], skipped: usize) {
        let mut arrived: Vec<u64> = arrivals.iter().copied().filter(|arrival| *arrival != 0).collect();
        arrived.sort_unstable();
        // A few say more of the receiver than of the path.
        let Some(counted) = arrived.get(skipped..).filter(|counted| counted.len() >= 8) else { return };
        self.gaps += counted.len() as u64 - 1;
        self.arrived_ns = self.arrived_ns.saturating_add(counted[counted.len() - 1] - counted[0]);
        let left = sent_ns.get(skipped.min(sent_ns.len())..).unwrap_or_default();
        if let (Some(first), Some(last)) = (left.first(), left.last()) {
            self.sent_ns = self.sent_ns.saturating_add(last.saturating_sub(*first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_trains_spread_is_the_links_rate() {
        for bits_per_s in [50e6, 500e6, 1e9] {
            let mut train = Train::new(1, 100, 200, 1472);
            let gap_ns = 1514.0 * 8.0 / bits_per_s * 1e9;
            for at in 0..200 {
                train.sent(1_000 + at * 500);
                // One in ten is lost, which leaves its gap.
                if at % 10 != 3 {
                    train.arrived(100 + at, 7_000_000 + (at as f64 * gap_ns) as u64);
                }
            }
            let said = train.dispersion().unwrap();
            assert!((said.bits_per_s / bits_per_s - 0.9).abs() < 0.02, "{said:?}");
            assert!(!said.is_floor && said.reordered == 0 && said.arrived == 180, "{said:?}");
        }
    }

    #[test]
    fn a_train_that_was_sent_slowly_says_at_least() {
        let mut train = Train::new(1, 0, 50, 1472);
        for at in 0..50 {
            train.sent(at * 30_000);
            train.arrived(at, 9_000 + at * 30_000);
        }
        assert!(train.dispersion().unwrap().is_floor);
    }

    #[test]
    fn a_stop_of_the_sender_is_not_the_paths() {
        // 1 Gbit/s; after half of it others had the processor for 20 ms, and the path stood idle.
        let mut train = Train::new(1, 0, 200, 1472);
        for at in 0..200 {
            let stopped = if at < 100 { 0 } else { 20_000_000 };
            train.sent(at * 3_000 + stopped);
            train.arrived(at, 5_000_000 + at * 12_112 + stopped);
        }
        let said = train.dispersion().unwrap();
        assert!((said.bits_per_s / 1e9 - 1.0).abs() < 0.02 && !said.is_floor, "{said:?}");
    }

    proptest! {
        #[test]
        fn any_answers_give_a_finite_rate_or_none(
            answers in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..100),
            first in any::<u64>(),
        ) {
            let mut train = Train::new(1, first, 64, 1472);
            for sent in 0..64 {
                train.sent(sent * 3);
            }
            for (at, received) in answers {
                train.arrived(first.wrapping_add(at % 80), received);
            }
            if let Some(said) = train.dispersion() {
                prop_assert!(said.bits_per_s.is_finite() && said.bits_per_s > 0.0);
                prop_assert!(said.reordered <= said.arrived);
            }
        }
    }
}
