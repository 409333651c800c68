//! Medians and spreads.

use serde::Serialize;

/// What repeated measurements of one thing say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one; of an even number the mean of the middle two.
    pub median: f64,
    /// The greatest.
    pub max: f64,
    /// Every measurement, in the order of the rounds.
    pub all: Vec<f64>,
}

impl Spread {
    /// `None` of no measurements.
    pub fn of(all: impl IntoIterator<Item = f64>) -> Option<Self> {
        let all: Vec<f64> = all.into_iter().collect();
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { min, median, max, all })
    }

    /// "median (min..max)" with `digits` after the point.
    pub fn text(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}..{:.digits$})", self.median, self.min, self.max)
    }
}

/// Rounds of two contenders, divided pair by pair: what slows the whole machine for a while slows both.
pub fn paired_ratio(above: &[f64], below: &[f64]) -> Option<Spread> {
    Spread::of(above.iter().zip(below).map(|(above, below)| above / below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(odd.all, [3.0, 1.0, 2.0]);
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
        assert_eq!(odd.text(1), "2.0 (1.0..3.0)");
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        assert_eq!(paired_ratio(&[1.0, 4.0], &[2.0, 2.0]).unwrap().all, [0.5, 2.0]);
    }
}
