//! Probes that follow up on an answer at once, for the least round trip.
//!
//! A probe every 20 ms finds processors asleep, here and at the far side, and waking them takes as long as a fast path does. One that
//! leaves when an answer has just come finds them awake, as `ping -A`'s do.
//!
//! They are sent only after an answer, so that where losses come in bursts they meet fewer: they say nothing of loss (DWCP-101). Nor are they
//! evenly spaced: the median and what is derived from it are of the others alone.

use crate::limits::{FOLLOW_UP_SAMPLES_MAX, FOLLOW_UPS, FOLLOW_UPS_EVERY};
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// What stands in place of their train. It is not 0, so that responders leave them out of what they heard.
pub(super) const FOLLOW_UP: u32 = u32::MAX;

/// When one is to be sent, and what came of them.
#[derive(Clone, Debug, Default)]
pub(super) struct FollowUps {
    /// Answers to evenly spaced probes since the last of these.
    answers: u32,
    /// How many are still to be sent, one after another.
    left: u32,
    /// The one that waits for its answer.
    under_way: Option<(u64, Instant)>,
    /// When each was answered, and its round trip in nanoseconds.
    rtts: VecDeque<(Instant, u64)>,
}

impl FollowUps {
    /// Whether one is to be sent now.
    pub(super) fn is_due(&self) -> bool {
        self.left > 0 && self.under_way.is_none()
    }

    /// It was sent.
    pub(super) fn sent(&mut self, sequence: u64, now: Instant) {
        self.left = self.left.saturating_sub(1);
        self.under_way = Some((sequence, now));
    }

    /// An evenly spaced probe was answered.
    pub(super) fn single_answered(&mut self) {
        self.answers += 1;
        if self.answers >= FOLLOW_UPS_EVERY {
            // What is under way by now is lost, or the path is so slow that it does not matter.
            (self.answers, self.left, self.under_way) = (0, FOLLOW_UPS, None);
        }
    }

    /// One was answered; returns whether it was asked.
    pub(super) fn answered(&mut self, sequence: u64, now: Instant) -> bool {
        let Some((_, sent)) = self.under_way.take_if(|(asked, _)| *asked == sequence) else { return false };
        if self.rtts.len() >= FOLLOW_UP_SAMPLES_MAX {
            self.rtts.pop_front();
        }
        self.rtts.push_back((now, u64::try_from(now.since(sent).as_nanos()).unwrap_or(u64::MAX)));
        true
    }

    /// Those that are still to be sent or answered do not count.
    pub(super) fn give_up(&mut self) {
        (self.left, self.under_way) = (0, None);
    }

    /// Round trips of a window that ends now, nanoseconds.
    pub(super) fn since(&self, now: Instant, window: Duration) -> impl Iterator<Item = u64> {
        self.rtts.iter().filter(move |(at, _)| now.since(*at) < window).map(|(_, rtt_ns)| *rtt_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn they_follow_one_after_another_and_each_counts_once() {
        let mut follow_ups = FollowUps::default();
        for _ in 1..FOLLOW_UPS_EVERY {
            follow_ups.single_answered();
            assert!(!follow_ups.is_due());
        }
        follow_ups.single_answered();
        for sequence in 0..u64::from(FOLLOW_UPS) {
            assert!(follow_ups.is_due());
            follow_ups.sent(sequence, at(10 * sequence));
            assert!(!follow_ups.is_due(), "the one before is not answered");
            assert!(!follow_ups.answered(sequence + 1, at(10 * sequence + 1)), "nobody asked that");
            assert!(follow_ups.answered(sequence, at(10 * sequence + 2)));
            assert!(!follow_ups.answered(sequence, at(10 * sequence + 3)), "once");
        }
        assert!(!follow_ups.is_due());
        let rtts: Vec<u64> = follow_ups.since(at(100), Duration::from_secs(1)).collect();
        assert_eq!(rtts, [2_000_000; FOLLOW_UPS as usize]);
        assert_eq!(
            follow_ups.since(at(5_000), Duration::from_secs(1)).count(),
            0,
            "that was before the window"
        );
    }

    #[test]
    fn a_lost_one_ends_them_until_it_is_their_turn_again() {
        let mut follow_ups = FollowUps::default();
        let turn =
            |follow_ups: &mut FollowUps| (0..FOLLOW_UPS_EVERY).for_each(|_| follow_ups.single_answered());
        turn(&mut follow_ups);
        follow_ups.sent(1, at(1));
        follow_ups.single_answered();
        assert!(!follow_ups.is_due());
        turn(&mut follow_ups);
        assert!(follow_ups.is_due());
        assert!(!follow_ups.answered(1, at(900)), "it came when nobody waited for it any more");
        follow_ups.give_up();
        assert!(!follow_ups.is_due());
    }

    proptest! {
        /// However answers come, follow-ups are at most their share of the others, and at most one is under way.
        #[test]
        fn they_keep_to_their_share(answered in proptest::collection::vec(any::<bool>(), 0..2_000)) {
            let mut follow_ups = FollowUps::default();
            let (mut sequence, mut singles) = (0_u64, 0_u64);
            for (step, is_answered) in answered.into_iter().enumerate() {
                while follow_ups.is_due() {
                    sequence += 1;
                    follow_ups.sent(sequence, at(step as u64));
                    if is_answered {
                        prop_assert!(follow_ups.answered(sequence, at(step as u64 + 1)));
                    }
                }
                if is_answered {
                    singles += 1;
                    follow_ups.single_answered();
                }
                prop_assert!(sequence * u64::from(FOLLOW_UPS_EVERY) <= singles * u64::from(FOLLOW_UPS));
            }
            prop_assert!(follow_ups.rtts.len() <= FOLLOW_UP_SAMPLES_MAX);
        }
    }
}
