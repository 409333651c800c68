//! Available bandwidth from trains of probes: how far apart the path let them arrive (packet dispersion, Dovrolis,
//! Ramanathan and Moore, 2004). The responder's stamps are taken, so that the way back plays no part.

use crate::limits::TRAIN_PROBES_MAX;

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
    sent_ns: (u64, u64),
    /// Arrival of each by the responder's clock; 0: not heard of.
    arrivals: Vec<u64>,
    arrived: u16,
}

impl Train {
    /// One of `probes` datagrams, of which the first has this sequence number and leaves now.
    pub fn new(id: u32, first_sequence: u64, probes: u16, datagram_bytes: usize, now_ns: u64) -> Self {
        let probes = probes.min(TRAIN_PROBES_MAX);
        let arrivals = vec![0; usize::from(probes)];
        Train { id, first_sequence, probes, datagram_bytes, sent_ns: (now_ns, now_ns), arrivals, arrived: 0 }
    }

    /// One of it left.
    pub fn sent(&mut self, now_ns: u64) {
        self.sent_ns.1 = now_ns;
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
        let mut arrivals: Vec<u64> = self.arrivals.iter().copied().filter(|arrival| *arrival != 0).collect();
        arrivals.sort_unstable();
        if arrivals.len() < 8 {
            return None;
        }
        // The first tenth may have passed on what a token bucket had saved.
        let skipped = arrivals.len() / 10;
        let (first, last) = (arrivals[skipped], *arrivals.last()?);
        let gaps = (arrivals.len() - 1 - skipped) as f64;
        let span_ns = last.checked_sub(first).filter(|span| *span > 0)? as f64;
        let bits = ((self.datagram_bytes + WIRE_OVERHEAD_BYTES) * 8) as f64;
        let sent_span_ns = self.sent_ns.1.saturating_sub(self.sent_ns.0) as f64;
        let whole_span_ns = (last - arrivals[0]) as f64;
        Some(Dispersion {
            bits_per_s: gaps * bits * 1e9 / span_ns,
            is_floor: whole_span_ns < 1.1 * sent_span_ns,
            arrived,
            reordered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_trains_spread_is_the_links_rate() {
        for bits_per_s in [50e6, 500e6, 1e9] {
            let mut train = Train::new(1, 100, 200, 1472, 1_000);
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
        let mut train = Train::new(1, 0, 50, 1472, 0);
        for at in 0..50 {
            train.sent(at * 30_000);
            train.arrived(at, 9_000 + at * 30_000);
        }
        assert!(train.dispersion().unwrap().is_floor);
    }

    proptest! {
        #[test]
        fn any_answers_give_a_finite_rate_or_none(
            answers in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..100),
            first in any::<u64>(),
        ) {
            let mut train = Train::new(1, first, 64, 1472, 5);
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
