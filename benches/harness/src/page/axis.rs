//! Where a value stands on a line, and which values are written under it.

/// A scale that covers all of its values: from zero, or logarithmic where the greatest would push all others together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    from: f64,
    to: f64,
    log: bool,
    ticks: Vec<f64>,
}

/// Beyond this ratio of greatest to least an axis is logarithmic.
const LINEAR_RATIO_MAX: f64 = 25.0;
/// Steps between ticks, about.
const STEPS: f64 = 4.0;
/// Powers of ten that get a tick of their own; wider axes skip some.
const DECADES_MAX: i32 = 6;

impl Axis {
    /// `None` of no values. Values that are not finite, or negative, are no values.
    pub(super) fn over(values: impl IntoIterator<Item = f64>) -> Option<Axis> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite() && *v >= 0.0).collect();
        let most = values.iter().copied().reduce(f64::max)?;
        let least = values.iter().copied().reduce(f64::min)?;
        // Sizes that no measurement has are drawn at the edge instead of breaking the arithmetic.
        let (least, most) = (least.clamp(0.0, 1e30), most.clamp(0.0, 1e30));
        Some(if least > 1e-9 && most / least >= LINEAR_RATIO_MAX {
            Axis::logarithmic(least, most)
        } else {
            Axis::linear(most)
        })
    }

    /// From zero to at least `most`.
    pub(super) fn linear(most: f64) -> Axis {
        let most = if most > 1e-9 { most } else { 1.0 };
        let raw = most / STEPS;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999);
        let step = step.unwrap_or(power * 10.0);
        let count = (most / step * 0.999).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|i| f64::from(i) * step).collect();
        Axis { from: 0.0, to: count * step, log: false, ticks }
    }

    fn logarithmic(least: f64, most: f64) -> Axis {
        let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        let every = ((high - low) / DECADES_MAX).max(1);
        let between: &[f64] = if high - low <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let all = (low..=high).step_by(every as usize).flat_map(|power| {
            let decade = 10f64.powi(power);
            between.iter().map(move |m| m * decade)
        });
        let all: Vec<f64> = all.collect();
        // From the last tick that all values reach to the first that none exceeds.
        let from = all.iter().copied().filter(|t| *t <= least * 1.001).reduce(f64::max).unwrap_or(least);
        let to = all.iter().copied().filter(|t| *t >= most * 0.999).reduce(f64::min).unwrap_or(most);
        let ticks = all.into_iter().filter(|tick| (from..=to).contains(tick)).collect();
        Axis { from, to, log: true, ticks }
    }

    /// Whether equal distances are equal ratios.
    pub(super) fn is_logarithmic(&self) -> bool {
        self.log
    }

    /// The values to write.
    pub(super) fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// From 0 at its beginning to 1 at its end; what is beyond stands at the edge.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = if self.log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_covers_all() {
        let axis = Axis::over([900.0, 4123.0]).unwrap();
        assert!(!axis.is_logarithmic());
        assert_eq!(axis.ticks(), [0.0, 2000.0, 4000.0, 6000.0]);
        assert_eq!((axis.place(0.0), axis.place(3000.0), axis.place(6000.0)), (0.0, 0.5, 1.0));
    }

    #[test]
    fn one_slow_contender_does_not_push_the_others_together() {
        let axis = Axis::over([1.0, 60.0, 3000.0]).unwrap();
        assert!(axis.is_logarithmic());
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0, 1000.0, 10000.0]);
        assert_eq!(axis.place(100.0), 0.5);
    }

    #[test]
    fn nothing_and_zeros() {
        assert_eq!(Axis::over([]), None);
        assert_eq!(Axis::over([f64::NAN]), None);
        assert_eq!(Axis::over([0.0]).unwrap().place(0.0), 0.0);
    }

    proptest! {
        #[test]
        fn any_values_have_a_place_and_a_bounded_number_of_ticks(
            values in prop::collection::vec(any::<f64>(), 1..8),
        ) {
            if let Some(axis) = Axis::over(values.iter().copied()) {
                prop_assert!((2..=30).contains(&axis.ticks().len()), "{axis:?}");
                for value in values.into_iter().filter(|v| *v >= 0.0) {
                    prop_assert!((0.0..=1.0).contains(&axis.place(value)), "{value} on {axis:?}");
                }
            }
        }
    }
}
