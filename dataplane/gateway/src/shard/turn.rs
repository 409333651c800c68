//! Whose turn it is where several sessions share a path: fair queueing by weight.
//!
//! Each session has a clock that runs by the bytes that it sent, slower the more it weighs, and whoever's clock is behind is next
//! (start-time fair queueing; Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM 1996). Who had nothing to send for a while is
//! not owed what it did not ask for: its clock goes on from where the others' are.

use std::cell::Cell;

/// The weight of a session that says nothing.
const USUAL: u64 = 100;

/// One session's clock.
pub(crate) struct Turn {
    weight: u64,
    served: Cell<u64>,
}

impl Turn {
    pub(crate) fn new(weight: u32) -> Turn {
        Turn { weight: u64::from(weight.max(1)), served: Cell::new(0) }
    }

    /// Where its clock stands.
    pub(crate) fn at(&self) -> u64 {
        self.served.get()
    }

    /// It sent so many bytes. `now`: where the clock of whoever was served last began.
    pub(crate) fn sent(&self, bytes: usize, now: &Cell<u64>) {
        let began = self.served.get().max(now.get());
        now.set(began);
        self.served.set(began + bytes as u64 * USUAL / self.weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that each of some sessions gets out of so many frames, all of which always have one to send.
    fn share(sessions: &[(u32, usize)], frames: usize) -> Vec<usize> {
        let turns: Vec<Turn> = sessions.iter().map(|(weight, _)| Turn::new(*weight)).collect();
        let now = Cell::new(0);
        let mut got = vec![0; sessions.len()];
        for _ in 0..frames {
            let next = (0..turns.len()).min_by_key(|index| turns[*index].at()).unwrap();
            turns[next].sent(sessions[next].1, &now);
            got[next] += sessions[next].1;
        }
        got
    }

    #[test]
    fn bytes_are_shared_by_weight_whatever_the_size_of_frames() {
        let got = share(&[(100, 270_000), (100, 20_000), (300, 60_000)], 100_000);
        let all: usize = got.iter().sum();
        for (bytes, part) in got.iter().zip([0.2, 0.2, 0.6]) {
            let is = *bytes as f64 / all as f64;
            assert!((is - part).abs() < 0.01, "{is} instead of {part}");
        }
    }

    #[test]
    fn who_comes_later_takes_turns_from_then_on() {
        let (old, new, now) = (Turn::new(100), Turn::new(100), Cell::new(0));
        for _ in 0..1000 {
            old.sent(100_000, &now);
        }
        let mut turns = [0_u32, 0];
        for _ in 0..100 {
            // The clock of one that has not sent is behind: it is next, and only that once.
            let index = usize::from(new.at() < old.at());
            [&old, &new][index].sent(100_000, &now);
            turns[index] += 1;
        }
        assert!(turns[0].abs_diff(turns[1]) <= 2, "{turns:?}");
    }
}
