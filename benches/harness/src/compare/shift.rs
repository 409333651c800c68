//! By which factor one set of measurements differs from another, and how sure that is.
//!
//! The interval is that of Hodges and Lehmann: every new value over every old one, sorted, cut at both ends by what the
//! distribution of Mann and Whitney's U allows. It supposes nothing about how measurements scatter but that both sets scatter
//! alike, which suits a handful of runs with an outlier among them; and it needs no random numbers, so that the same two files
//! always say the same.

use serde::Serialize;

/// How sure an interval is meant to be.
const LEVEL: f64 = 0.95;
/// How sure it must be to claim a difference. Three runs against three reach exactly this and no more.
pub(super) const LEVEL_MIN: f64 = 0.90;
/// Up to so many values on each side U is counted out; its counts are whole numbers that a float holds exactly. Beyond, it is
/// normal.
const EXACT_MAX: usize = 20;
/// Values on each side that are looked at: their pairs are sorted.
const VALUES_MAX: usize = 1000;

/// New over old.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shift {
    /// The median of all ratios of a new value over an old one.
    pub ratio: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// The probability that such an interval holds the true ratio.
    pub level: f64,
}

/// What an interval says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// New is less.
    Less,
    /// New is more.
    More,
    /// The interval holds 1: these runs cannot show a difference.
    Unclear,
    /// So few runs could not show any difference, however large.
    TooFew,
}

impl Shift {
    /// Of two sets of measurements, none negative; `None` where one is empty.
    pub(super) fn of(old: &[f64], new: &[f64]) -> Option<Shift> {
        let (old, new) = (&old[..old.len().min(VALUES_MAX)], &new[..new.len().min(VALUES_MAX)]);
        let mut ratios: Vec<f64> =
            old.iter().flat_map(|old| new.iter().map(move |new| over(*new, *old))).collect();
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.len() / 2;
        let ratio = match ratios.len() {
            0 => return None,
            odd if odd % 2 == 1 => ratios[middle],
            _ => f64::midpoint(ratios[middle - 1], ratios[middle]),
        };
        let (cut, level) = cut(old.len(), new.len());
        Some(Shift { ratio, low: ratios[cut], high: ratios[ratios.len() - 1 - cut], level })
    }

    pub(super) fn direction(&self) -> Direction {
        // 1 - 2/20 is a hair below 0.9 in binary.
        if self.level < LEVEL_MIN - 1e-9 {
            Direction::TooFew
        } else if self.high < 1.0 {
            Direction::Less
        } else if self.low > 1.0 {
            Direction::More
        } else {
            Direction::Unclear
        }
    }
}

/// A ratio that exists for zeros as well: nothing against nothing is the same.
fn over(new: f64, old: f64) -> f64 {
    if new == old { 1.0 } else { new / old }
}

/// How many ratios to leave out at each end, and how sure the interval between is.
fn cut(old: usize, new: usize) -> (usize, f64) {
    let tail = (1.0 - LEVEL) / 2.0;
    if old.max(new) > EXACT_MAX {
        let (m, n) = (old as f64, new as f64);
        let deviation = (m * n * (m + n + 1.0) / 12.0).sqrt();
        // 1.96 deviations hold 95 %.
        let cut = (m * n / 2.0 - 1.96 * deviation - 0.5).floor();
        if cut >= 0.0 {
            return (cut as usize, LEVEL);
        }
        // Very few against very many: the widest interval, and too little claimed for it rather than too much.
        return (0, if old.min(new) >= 2 { LEVEL_MIN } else { 0.0 });
    }
    let counts = ranks(old, new);
    let all: f64 = counts.iter().sum();
    let (mut below, mut cut, mut level) = (0.0, 0, 1.0 - 2.0 * counts[0] / all);
    for (index, count) in counts.iter().enumerate() {
        below += count / all;
        if below > tail {
            break;
        }
        (cut, level) = (index, 1.0 - 2.0 * below);
    }
    (cut, level)
}

/// In how many orders of `m` and `n` values U is 0, 1, ... m x n: the coefficients of the Gaussian binomial, the product of
/// (1 - q^(n+i)) / (1 - q^i) for i from 1 to m.
fn ranks(m: usize, n: usize) -> Vec<f64> {
    let mut counts = vec![0.0; m * n + 1];
    counts[0] = 1.0;
    for i in 1..=m {
        for power in (n + i..counts.len()).rev() {
            counts[power] -= counts[power - n - i];
        }
        for power in i..counts.len() {
            counts[power] += counts[power - i];
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::noise;

    #[test]
    fn orders_are_counted_out() {
        assert_eq!(ranks(2, 2), [1.0, 1.0, 2.0, 1.0, 1.0]);
        assert_eq!(ranks(3, 3).iter().sum::<f64>(), 20.0);
        // The largest that is counted, C(40, 20), and its mirror.
        let counts = ranks(20, 20);
        assert_eq!(counts.iter().sum::<f64>(), 137_846_528_820.0);
        assert!(counts.iter().zip(counts.iter().rev()).all(|(a, b)| a == b && *a >= 1.0));
    }

    #[test]
    fn intervals_are_those_of_the_tables() {
        // Critical values of U at 5 %, two-sided: 4 against 4: 0; 5 and 5: 2; 8 and 8: 13; 20 and 20: 127.
        for (m, n, critical) in [(4, 4, 0), (5, 5, 2), (8, 8, 13), (20, 20, 127)] {
            let (cut, level) = cut(m, n);
            assert_eq!(cut, critical, "{m} against {n}");
            assert!((LEVEL..0.98).contains(&level));
        }
        let (three, level) = cut(3, 3);
        assert_eq!(three, 0);
        assert!((level - 0.9).abs() < 1e-12);
        // Where counting ends the normal distribution goes on.
        assert!(cut(21, 20).0.abs_diff(132) <= 3, "{:?}", cut(21, 20));
    }

    #[test]
    fn three_runs_apart_are_a_difference_and_two_are_too_few() {
        let shift = Shift::of(&[10.0, 11.0, 12.0], &[20.0, 21.0, 25.0]).unwrap();
        assert_eq!(shift.direction(), Direction::More);
        assert_eq!((shift.low, shift.high), (20.0 / 12.0, 2.5));
        assert_eq!(Shift::of(&[10.0, 11.0], &[20.0, 21.0]).unwrap().direction(), Direction::TooFew);
        assert_eq!(Shift::of(&[10.0], &[2.0; 500]).unwrap().direction(), Direction::TooFew);
        assert_eq!(Shift::of(&[], &[1.0]), None);
    }

    #[test]
    fn the_same_runs_do_not_differ() {
        let same = [3.0, 4.0, 5.0, 6.0, 7.0];
        let shift = Shift::of(&same, &same).unwrap();
        assert_eq!((shift.ratio, shift.direction()), (1.0, Direction::Unclear));
        let zeros = Shift::of(&[0.0; 4], &[0.0; 4]).unwrap();
        assert_eq!((zeros.ratio, zeros.direction()), (1.0, Direction::Unclear));
        assert_eq!(Shift::of(&[0.0; 4], &[5.0; 4]).unwrap().direction(), Direction::More);
    }

    /// Skewed noise with an outlier now and then, as times have.
    fn sample(seed: u64, count: usize, size: f64) -> Vec<f64> {
        let mut next = noise(seed);
        let mut one = || size * (1.0 + 0.3 * next().powi(2) + if next() > 0.95 { 1.0 } else { 0.0 });
        (0..count).map(|_| one()).collect()
    }

    fn claims(count: usize, factor: f64) -> (f64, f64) {
        let rounds = 2000;
        let (mut less, mut more) = (0, 0);
        for round in 0..rounds {
            let old = sample(2 * round + 1, count, 100.0);
            match Shift::of(&old, &sample(2 * round + 2, count, 100.0 * factor)).unwrap().direction() {
                Direction::Less => less += 1,
                Direction::More => more += 1,
                Direction::Unclear | Direction::TooFew => {}
            }
        }
        (f64::from(less) / rounds as f64, f64::from(more) / rounds as f64)
    }

    #[test]
    fn noise_is_called_a_difference_no_more_often_than_is_said() {
        for (count, most) in [(3, 0.12), (5, 0.06), (9, 0.06)] {
            let (less, more) = claims(count, 1.0);
            assert!(less + more <= most, "{count} runs: {less} + {more}");
        }
    }

    #[test]
    fn a_true_difference_is_found_and_never_the_wrong_way_round() {
        let (less, more) = claims(5, 1.5);
        assert!(more > 0.75 && less == 0.0, "{less}, {more}");
        let (less, more) = claims(5, 0.5);
        assert!(less > 0.9 && more == 0.0, "{less}, {more}");
    }
}
