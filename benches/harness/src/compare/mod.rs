//! What got better or worse between two results: a pure function of both, its table, and the command that prints it.
//!
//! ```text
//! shift        by which factor two sets of runs differ, and how sure that is
//! conditions   what else differs
//! table        the comparison for people
//! command      novacron-bench compare
//! ```

mod command;
mod conditions;
mod shift;
mod table;
#[cfg(test)]
mod tests;

use novacron_testbed::stats::Spread;
use serde::Serialize;

pub use command::{Arguments, run};
pub use shift::Shift;

use crate::measure::{Measure, Tally, spread};
use crate::record::{Contender, Results, Scenario};
use shift::Direction;

/// Two results, side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// When and of which commit.
    pub old: Side,
    /// The same of the other.
    pub new: Side,
    /// What differs besides what was measured.
    pub warnings: Vec<String>,
    /// Scenarios that both have, in the new one's order.
    pub scenarios: Vec<Compared>,
    /// Scenarios that only one has.
    pub missing: Missing,
    /// How often each verdict was given.
    pub verdicts: Verdicts,
}

/// One of the two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// When its measurement began.
    pub started_at: String,
    /// What it measured.
    pub commit: Option<String>,
}

/// What stands on one side only.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Missing {
    /// Names that the new one lacks.
    pub only_old: Vec<String>,
    /// Names that the old one lacks.
    pub only_new: Vec<String>,
}

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Its name.
    pub name: String,
    /// What differs between both besides what was measured.
    pub warnings: Vec<String>,
    /// Contenders that both have.
    pub contenders: Vec<ContenderCompared>,
    /// Contenders that only one has.
    pub missing: Missing,
}

/// One contender of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContenderCompared {
    /// Its name.
    pub name: String,
    /// One of ours.
    pub ours: bool,
    /// Settings that differ.
    pub warnings: Vec<String>,
    /// How its runs ended.
    pub old: Tally,
    /// How they end now.
    pub new: Tally,
    /// Whether it finishes as it did, and whether its guests are whole.
    pub finishing: Verdict,
    /// Measures that runs which count have on at least one side.
    pub measures: Vec<MeasureCompared>,
}

/// One measure of one contender.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasureCompared {
    /// Which.
    pub measure: Measure,
    /// Its unit spelled out with each number.
    pub text: Texts,
    /// Runs of before; `None`: none that counts has it.
    pub old: Option<Spread>,
    /// Runs of now.
    pub new: Option<Spread>,
    /// New over old.
    pub shift: Option<Shift>,
    /// What that means.
    pub verdict: Verdict,
}

/// Numbers as people read them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Texts {
    /// "4.21 s (3.32..4.28 s)".
    pub old: Option<String>,
    /// The same.
    pub new: Option<String>,
}

/// What the runs say of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It got better.
    Better,
    /// It got worse.
    Worse,
    /// No difference that these runs can show.
    Unclear,
    /// So few runs cannot show any.
    TooFew,
    /// One side has no run that counts.
    OneSided,
}

impl Verdict {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::Unclear => "no difference that these runs can show",
            Verdict::TooFew => "too few runs to tell",
            Verdict::OneSided => "nothing to compare with",
        }
    }
}

/// How often each was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Verdicts {
    /// Got better.
    pub better: usize,
    /// Got worse.
    pub worse: usize,
    /// No difference that the runs can show.
    pub unclear: usize,
    /// Too few runs.
    pub too_few: usize,
    /// Nothing on one side.
    pub one_sided: usize,
    /// How many differences chance alone would show, were there none: of all comparisons with runs enough, each at its own
    /// level.
    pub expected_by_chance: f64,
}

/// Sets two results side by side.
pub fn compare(old: &Results, new: &Results) -> Comparison {
    let pairs = new.scenarios.iter().filter_map(|now| {
        let before = old.scenarios.iter().find(|before| before.name == now.name)?;
        Some(scenario(before, now))
    });
    let scenarios: Vec<Compared> = pairs.collect();
    let names = |results: &Results| results.scenarios.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    Comparison {
        old: side(old),
        new: side(new),
        warnings: conditions::of_results(old, new),
        missing: missing(&names(old), &names(new)),
        verdicts: verdicts(&scenarios),
        scenarios,
    }
}

fn side(results: &Results) -> Side {
    Side { started_at: results.started_at.clone(), commit: results.host.commit.clone() }
}

fn missing(old: &[String], new: &[String]) -> Missing {
    let without = |these: &[String], those: &[String]| {
        these.iter().filter(|name| !those.contains(name)).cloned().collect::<Vec<_>>()
    };
    Missing { only_old: without(old, new), only_new: without(new, old) }
}

fn scenario(old: &Scenario, new: &Scenario) -> Compared {
    let names =
        |scenario: &Scenario| scenario.contenders.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let pairs = new.contenders.iter().filter_map(|now| {
        let before = old.contenders.iter().find(|before| before.name == now.name)?;
        Some(contender(old, before, new, now))
    });
    Compared {
        name: new.name.clone(),
        warnings: conditions::of_scenarios(old, new),
        contenders: pairs.collect(),
        missing: missing(&names(old), &names(new)),
    }
}

fn contender(old: &Scenario, before: &Contender, new: &Scenario, now: &Contender) -> ContenderCompared {
    let tallies = (Tally::of(old, &before.name), Tally::of(new, &now.name));
    let measures = Measure::ALL.into_iter().filter_map(|measure| {
        let (before, now) = (spread(old, &before.name, measure), spread(new, &now.name, measure));
        (before.is_some() || now.is_some()).then(|| compared(measure, (old, before), (new, now)))
    });
    ContenderCompared {
        name: now.name.clone(),
        ours: now.ours,
        warnings: conditions::of_contenders(before, now),
        old: tallies.0,
        new: tallies.1,
        finishing: finishing(&tallies.0, &tallies.1),
        measures: measures.collect(),
    }
}

/// A guest with bad memory is worse than any number. Else who always finished and now never does has got worse; what lies
/// between are too few runs to tell.
fn finishing(old: &Tally, new: &Tally) -> Verdict {
    let share = |tally: &Tally| (tally.tried() > 0).then(|| tally.completed as f64 / tally.tried() as f64);
    if new.unverified > 0 && old.unverified == 0 {
        return Verdict::Worse;
    }
    if old.unverified > 0 && new.unverified == 0 && new.completed > 0 {
        return Verdict::Better;
    }
    match (share(old), share(new)) {
        (None, _) | (_, None) => Verdict::OneSided,
        (Some(before), Some(now)) if before == 1.0 && now == 0.0 => Verdict::Worse,
        (Some(before), Some(now)) if before == 0.0 && now == 1.0 => Verdict::Better,
        (Some(before), Some(now)) if before == now => Verdict::Unclear,
        _ => Verdict::TooFew,
    }
}

fn compared(
    measure: Measure,
    (before, old): (&Scenario, Option<Spread>),
    (now, new): (&Scenario, Option<Spread>),
) -> MeasureCompared {
    let shift = old.as_ref().zip(new.as_ref()).and_then(|(old, new)| Shift::of(&old.all, &new.all));
    let verdict = match shift.map(|shift| shift.direction()) {
        None => Verdict::OneSided,
        Some(Direction::TooFew) => Verdict::TooFew,
        Some(Direction::Unclear) => Verdict::Unclear,
        Some(Direction::Less) if measure.less_is_better() => Verdict::Better,
        Some(Direction::More) if measure.less_is_better() => Verdict::Worse,
        Some(Direction::More) => Verdict::Better,
        Some(Direction::Less) => Verdict::Worse,
    };
    let text = |scenario: &Scenario, spread: &Spread| {
        let unit = measure.unit(scenario);
        match spread.all.len() {
            1 => unit.text(spread.median),
            _ => format!("{} ({})", unit.text(spread.median), unit.range(spread.min, spread.max)),
        }
    };
    let text = Texts {
        old: old.as_ref().map(|spread| text(before, spread)),
        new: new.as_ref().map(|spread| text(now, spread)),
    };
    MeasureCompared { measure, text, old, new, shift, verdict }
}

fn verdicts(scenarios: &[Compared]) -> Verdicts {
    let mut sum = Verdicts::default();
    let contenders = scenarios.iter().flat_map(|scenario| &scenario.contenders);
    for contender in contenders {
        // Who finishes as before is no finding.
        if contender.finishing != Verdict::Unclear && contender.finishing != Verdict::OneSided {
            sum.count(contender.finishing);
        }
        for measure in &contender.measures {
            sum.count(measure.verdict);
            if let (Verdict::Better | Verdict::Worse | Verdict::Unclear, Some(shift)) =
                (measure.verdict, measure.shift)
            {
                sum.expected_by_chance += 1.0 - shift.level;
            }
        }
    }
    sum
}

impl Verdicts {
    fn count(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Better => &mut self.better,
            Verdict::Worse => &mut self.worse,
            Verdict::Unclear => &mut self.unclear,
            Verdict::TooFew => &mut self.too_few,
            Verdict::OneSided => &mut self.one_sided,
        } += 1;
    }
}
