//! Estimates, each with an interval that holds the truth 95 times of 100 where its assumptions do.

/// The normal distribution's 97.5 % point.
const Z: f64 = 1.959_964;

/// A value and where the truth lies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The most likely one.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    /// The same in another unit.
    pub fn scaled(self, factor: f64) -> Estimate {
        Estimate { value: self.value * factor, low: self.low * factor, high: self.high * factor }
    }
}

/// The smallest of ascending samples. What lies below is bounded by the distance of the two smallest (Robson and Whitlock,
/// "Estimation of a truncation point", 1964), and by 0.
pub fn minimum(ascending: &[u64]) -> Option<Estimate> {
    let first = *ascending.first()? as f64;
    let second = *ascending.get(1)? as f64;
    Some(Estimate { value: first, low: (first - 19.0 * (second - first)).max(0.0), high: first })
}

/// A quantile of ascending samples, with the order statistics that enclose it (the normal approximation of the binomial
/// distribution of how many samples lie below). With few samples the interval is all of them.
pub fn quantile(ascending: &[u64], q: f64) -> Option<Estimate> {
    let count = ascending.len();
    let last = count.checked_sub(1)?;
    let (n, spread) = (count as f64, Z * (count as f64 * q * (1.0 - q)).sqrt());
    let at = |rank: f64| ascending[(rank.max(0.0) as usize).min(last)] as f64;
    Some(Estimate { value: at(n * q), low: at((n * q - spread).floor()), high: at((n * q + spread).ceil()) })
}

/// The mean of samples, with its standard error.
pub fn mean(samples: impl Iterator<Item = f64> + Clone) -> Option<Estimate> {
    let count = samples.clone().count();
    if count < 2 {
        return None;
    }
    let n = count as f64;
    let value = samples.clone().sum::<f64>() / n;
    let variance = samples.map(|sample| (sample - value).powi(2)).sum::<f64>() / (n - 1.0);
    let error = Z * (variance / n).sqrt();
    Some(Estimate { value, low: (value - error).max(0.0), high: value + error })
}

/// The share of `count` among `of`, by Wilson's interval (1927), which holds near 0 as well. Losses that come in bursts tell
/// less than their number: `of` counts as `1 / design_effect` of it.
pub fn share(count: u64, of: u64, design_effect: f64) -> Option<Estimate> {
    if of == 0 {
        return None;
    }
    let n = of as f64 / design_effect.max(1.0);
    let p = (count as f64 / of as f64).clamp(0.0, 1.0);
    let z2 = Z * Z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    Some(Estimate { value: p, low: (centre - half).clamp(0.0, p), high: (centre + half).clamp(p, 1.0) })
}

/// By how much correlation between neighbours widens an interval: `(1 + r) / (1 - r)` of the first autocorrelation, as of a
/// two-state chain (Gilbert, 1960); at least 1, at most 50.
pub fn design_effect(lost: impl Iterator<Item = bool> + Clone) -> f64 {
    let value = |lost| if lost { 1.0 } else { 0.0 };
    let n = lost.clone().count() as f64;
    let p = lost.clone().map(value).sum::<f64>() / n.max(1.0);
    let variance = p * (1.0 - p);
    if n < 2.0 || variance <= 0.0 {
        return 1.0;
    }
    let pairs = lost.clone().zip(lost.skip(1));
    let covariance = pairs.map(|(a, b)| (value(a) - p) * (value(b) - p)).sum::<f64>() / (n - 1.0);
    let r = (covariance / variance).clamp(0.0, 0.96);
    ((1.0 + r) / (1.0 - r)).clamp(1.0, 50.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of numbers below 2^32 (splitmix64); the seed is fixed, so that a failure repeats.
    fn random(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    #[test]
    fn losses_interval_holds_the_truth_as_often_as_it_says() {
        let mut random = random(11);
        for (truth, bursts) in [(0.001, false), (0.01, false), (0.05, false), (0.01, true), (0.05, true)] {
            let trials = 400;
            let mut covered = 0;
            for _ in 0..trials {
                // Bursts: a chain that stays lost with probability 0.7.
                let enter = truth * 0.3 / (1.0 - truth);
                let mut state = random() < truth;
                let lost: Vec<bool> = (0..3000)
                    .map(|_| {
                        let at = random();
                        state = if !bursts {
                            at < truth
                        } else if state {
                            at < 0.7
                        } else {
                            at < enter
                        };
                        state
                    })
                    .collect();
                let count = lost.iter().filter(|lost| **lost).count() as u64;
                let said = share(count, 3000, design_effect(lost.iter().copied())).unwrap();
                covered += u32::from((said.low..=said.high).contains(&truth));
            }
            assert!(covered >= trials * 90 / 100, "{truth} bursts {bursts}: {covered} of {trials}");
        }
    }

    #[test]
    fn a_quantiles_interval_holds_the_truth_as_often_as_it_says() {
        let mut random = random(12);
        for q in [0.5, 0.99] {
            let covered = (0..300).filter(|_| {
                let mut samples: Vec<u64> = (0..1000).map(|_| (random() * 1e6) as u64).collect();
                samples.sort_unstable();
                let said = quantile(&samples, q).unwrap();
                (said.low..=said.high).contains(&(q * 1e6))
            });
            let covered = covered.count();
            assert!(covered >= 270, "{q}: {covered} of 300");
        }
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        assert_eq!(minimum(&[5]), None);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(share(0, 0, 1.0), None);
        assert_eq!(mean([1.0].into_iter()), None);
        let none_lost = share(0, 1000, 1.0).unwrap();
        assert!(none_lost.value == 0.0 && none_lost.high > 0.003 && none_lost.high < 0.005, "{none_lost:?}");
    }
}
