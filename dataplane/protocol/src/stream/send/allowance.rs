//! How many encoded bytes a second a session's caller lets it send.
//!
//! What was sent is a debt that time pays off, as in the generic cell rate algorithm (ITU-T I.371). While there is debt nothing is
//! read from a hypervisor: so it is held up by this as by a slow link, and nothing waits in between. What streams repeat does not
//! count; it is a twentieth at most.

use crate::time::Instant;
use std::time::Duration;

/// So much of what it did not send a session may send at once, in time: a timer that is late must not make it slower.
const BURST: Duration = Duration::from_millis(10);

/// The debt of one session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    /// Bytes a second; `None`: whatever the path takes.
    rate: Option<f64>,
    /// Bytes that time has not paid off; less than nothing: what may be sent at once.
    debt: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Allowance { rate: rate.map(|rate| rate.max(1) as f64), ..Allowance::default() }
    }

    /// So many bytes were made ready for streams.
    pub(super) fn spend(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.debt += bytes as f64;
        }
    }

    /// Takes into account what time has passed. True: there was debt, and none is left.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let Some(rate) = self.rate else { return false };
        let spent = self.is_spent();
        let paid = rate * now.since(self.at).as_secs_f64();
        self.debt = (self.debt - paid).max(-rate * BURST.as_secs_f64());
        self.at = now;
        spent && !self.is_spent()
    }

    /// Nothing more may be read now.
    pub(super) fn is_spent(&self) -> bool {
        self.debt > 0.0
    }

    /// When something may be read again.
    pub(super) fn free_at(&self) -> Option<Instant> {
        let rate = self.rate.filter(|_| self.is_spent())?;
        Some(self.at.after(Duration::from_secs_f64(self.debt / rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::send::{INGEST_HEADROOM, Outbound};
    use proptest::prelude::*;

    fn at(us: u64) -> Instant {
        Instant::START.after(Duration::from_micros(us))
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut allowance = Allowance::new(None);
        allowance.spend(u64::MAX);
        assert!(!allowance.is_spent() && !allowance.settle(at(1)));
        assert_eq!(allowance.free_at(), None);
    }

    #[test]
    fn a_debt_is_paid_by_time() {
        let mut allowance = Allowance::new(Some(1_000_000));
        allowance.settle(at(0));
        allowance.spend(5_000);
        assert_eq!(allowance.free_at(), Some(at(5_000)));
        assert!(!allowance.settle(at(4_000)) && allowance.is_spent());
        assert!(allowance.settle(at(5_000)) && !allowance.is_spent());
        assert!(!allowance.settle(at(6_000)), "nothing changed");
        // A long silence is no credit but for the burst.
        allowance.settle(at(60_000_000));
        allowance.spend(10_000);
        assert!(!allowance.is_spent());
        allowance.spend(1);
        assert!(allowance.is_spent());
    }

    /// A session whose allowance is spent reads nothing, says when it will, and wakes whoever waits then.
    #[test]
    fn a_session_reads_no_more_than_it_may_send() {
        let mut outbound = Outbound::new(1, 1, true, None, 1).with_rate_limit(Some(1_000_000));
        outbound.open(0, None, at(0));
        assert!(!outbound.tick(false, at(0)) && outbound.read_budget(0) > 0);
        let bytes = 100_000;
        outbound.ingest(0, vec![7; INGEST_HEADROOM + bytes], bytes, &at(0));
        assert_eq!(outbound.read_budget(0), 0);
        let due = outbound.deadline(false).unwrap();
        assert!((at(90_000)..at(101_000)).contains(&due), "{due:?}");
        assert!(!outbound.tick(false, at(80_000)) && outbound.read_budget(0) == 0);
        assert!(outbound.tick(false, due), "whoever waits is to be woken");
        assert!(outbound.read_budget(0) > 0 && outbound.deadline(false).is_none());
    }

    proptest! {
        /// However batches and looks fall, no more is sent than the rate, the burst and the last batch.
        #[test]
        fn the_rate_holds(steps in proptest::collection::vec((1u64..300_000, 0u64..20_000), 1..200)) {
            let rate = 2_500_000;
            let mut allowance = Allowance::new(Some(rate));
            let (mut sent, mut now, mut last) = (0u64, 0u64, 0u64);
            for (bytes, wait_us) in steps {
                now += wait_us;
                allowance.settle(at(now));
                if !allowance.is_spent() {
                    allowance.spend(bytes);
                    (sent, last) = (sent + bytes, bytes);
                }
                let most = rate as f64 * (now as f64 / 1e6 + BURST.as_secs_f64());
                prop_assert!((sent - last) as f64 <= most + 1.0, "{} of {most}", sent - last);
            }
        }
    }
}
