//! Who won a scenario, by how much, and how sure that is.

use novacron_testbed::stats::{Spread, paired_ratio};

use crate::measure::{Measure, Tally, runs_of, spread};
use crate::record::{Contender, Run, Scenario};

/// A contender and what it needed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed<'a> {
    pub(super) contender: &'a Contender,
    /// Total time of the runs that count.
    pub(super) total: Spread,
}

/// What a scenario says of ours against the others.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing<'a> {
    /// Both finished every time. The ratio is the other's time over ours, repetition by repetition.
    Measured { ours: Placed<'a>, other: Placed<'a>, ratio: Spread },
    /// Ours finished every time, none of the others did.
    OnlyOurs { ours: Placed<'a> },
    /// The other way round.
    OnlyOthers { other: Placed<'a> },
    /// Nobody finished every time.
    Nobody,
    /// There is nobody of ours in it, or nobody else.
    OneSided { fastest: Option<Placed<'a>> },
}

/// How a measured ratio is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Ours took less time in every repetition.
    Faster,
    /// Ours took more time in every repetition.
    Slower,
    /// Sometimes one, sometimes the other.
    Level,
}

/// Reads a ratio of other over ours.
pub(super) fn reading(ratio: &Spread) -> Reading {
    if ratio.min > 1.0 {
        Reading::Faster
    } else if ratio.max < 1.0 {
        Reading::Slower
    } else {
        Reading::Level
    }
}

/// Whether the contender moved a guest, and not only bytes: what shows the link's limit is no rival.
fn moves_a_guest(scenario: &Scenario, contender: &str) -> bool {
    let is_sign =
        |run: &Run| run.guest_verified.is_some() || run.downtime_ms.is_some() || run.guest_pause_ms.is_some();
    runs_of(scenario, contender).any(is_sign)
}

impl<'a> Standing<'a> {
    /// Of one scenario.
    pub(super) fn of(scenario: &'a Scenario) -> Standing<'a> {
        let guests = scenario.contenders.iter().any(|one| one.ours && moves_a_guest(scenario, &one.name));
        let compared = |one: &&Contender| !guests || moves_a_guest(scenario, &one.name);
        let fastest = |ours: bool| {
            let side = scenario.contenders.iter().filter(compared).filter(|one| one.ours == ours);
            let finishers = side.filter(|one| Tally::of(scenario, &one.name).always_completed());
            let placed = finishers.filter_map(|contender| {
                Some(Placed { contender, total: spread(scenario, &contender.name, Measure::TotalTime)? })
            });
            placed.min_by(|a, b| a.total.median.total_cmp(&b.total.median))
        };
        let (ours, other) = (fastest(true), fastest(false));
        let has = |ours: bool| scenario.contenders.iter().any(|one| one.ours == ours);
        if !has(true) || !has(false) {
            return Standing::OneSided { fastest: ours.or(other) };
        }
        match (ours, other) {
            (Some(ours), Some(other)) => {
                match against(scenario, &other.contender.name, &ours.contender.name, Measure::TotalTime) {
                    Some(ratio) => Standing::Measured { ours, other, ratio },
                    // No repetition in which both count: nothing to set side by side but the medians.
                    None => {
                        let medians = Spread::of([other.total.median / ours.total.median]);
                        match medians.filter(|ratio| ratio.median.is_finite()) {
                            Some(ratio) => Standing::Measured { ours, other, ratio },
                            None => Standing::Nobody,
                        }
                    }
                }
            }
            (Some(ours), None) => Standing::OnlyOurs { ours },
            (None, Some(other)) => Standing::OnlyOthers { other },
            (None, None) => Standing::Nobody,
        }
    }
}

/// One contender's values over another's, of the repetitions in which both count: runs are interleaved, and what slowed one
/// slowed the other.
pub(super) fn against(scenario: &Scenario, above: &str, below: &str, measure: Measure) -> Option<Spread> {
    let value = |contender: &str, repetition: u32| {
        let mut counted = runs_of(scenario, contender).filter(|run| run.counts());
        measure.of(scenario, counted.find(|run| run.repetition == repetition)?)
    };
    let repetitions = runs_of(scenario, above).map(|run| run.repetition);
    let pairs = repetitions.filter_map(|at| Some((value(above, at)?, value(below, at)?)));
    let (above, below): (Vec<f64>, Vec<f64>) = pairs.filter(|(_, below)| *below > 0.0).unzip();
    paired_ratio(&above, &below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::record::Outcome;

    /// Ours, two others; total times by repetition, 0 for one that timed out.
    fn scenario(ours: [f64; 3], tcp: [f64; 3], multifd: [f64; 3]) -> Scenario {
        let mut scenario = fixture::scenario("s");
        scenario.contenders =
            vec![fixture::ours("novacron"), fixture::other("tcp"), fixture::other("multifd")];
        scenario.runs.clear();
        for at in 0..3 {
            for (name, times) in [("novacron", ours), ("tcp", tcp), ("multifd", multifd)] {
                let mut run = fixture::run(name, at, times[at as usize]);
                if times[at as usize] == 0.0 {
                    (run.outcome, run.total_ms) = (Outcome::TimedOut, None);
                }
                scenario.runs.push(run);
            }
        }
        scenario
    }

    #[test]
    fn ours_is_set_against_the_fastest_of_the_others_pair_by_pair() {
        let scenario = scenario([100.0, 200.0, 100.0], [900.0; 3], [200.0, 300.0, 150.0]);
        let Standing::Measured { other, ratio, .. } = Standing::of(&scenario) else { panic!() };
        assert_eq!(other.contender.name, "multifd");
        assert_eq!(ratio.all, [2.0, 1.5, 1.5]);
        assert_eq!(reading(&ratio), Reading::Faster);
    }

    #[test]
    fn a_ratio_on_both_sides_of_one_is_level() {
        let scenario = scenario([100.0; 3], [90.0, 120.0, 80.0], [300.0; 3]);
        let Standing::Measured { ratio, .. } = Standing::of(&scenario) else { panic!() };
        assert_eq!(reading(&ratio), Reading::Level);
    }

    #[test]
    fn who_does_not_always_finish_has_not_won() {
        let scenario = scenario([500.0; 3], [100.0, 0.0, 100.0], [900.0; 3]);
        let Standing::Measured { other, ratio, .. } = Standing::of(&scenario) else { panic!() };
        assert_eq!((other.contender.name.as_str(), reading(&ratio)), ("multifd", Reading::Faster));
        let scenario = self::scenario([500.0; 3], [0.0; 3], [1.0, 2.0, 0.0]);
        assert!(matches!(Standing::of(&scenario), Standing::OnlyOurs { .. }));
    }

    #[test]
    fn the_links_limit_is_no_rival() {
        let mut scenario = scenario([500.0; 3], [100.0; 3], [900.0; 3]);
        for run in scenario.runs.iter_mut().filter(|run| run.contender == "tcp") {
            (run.guest_verified, run.downtime_ms, run.guest_pause_ms) = (None, None, None);
        }
        let Standing::Measured { other, .. } = Standing::of(&scenario) else { panic!() };
        assert_eq!(other.contender.name, "multifd");
    }

    #[test]
    fn without_one_of_ours_or_without_others_nobody_is_compared() {
        let mut scenario = scenario([1.0; 3], [2.0; 3], [3.0; 3]);
        scenario.contenders.remove(0);
        let Standing::OneSided { fastest } = Standing::of(&scenario) else { panic!() };
        assert_eq!(fastest.unwrap().contender.name, "tcp");
        scenario.contenders.clear();
        assert_eq!(Standing::of(&scenario), Standing::OneSided { fastest: None });
    }
}
