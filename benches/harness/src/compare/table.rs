//! The comparison for people.

use std::fmt::{self, Display, Formatter};

use super::{Comparison, ContenderCompared, MeasureCompared, Missing, Side, Verdict};
use crate::units::ratio;

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, side) in [("old", &self.old), ("new", &self.new)] {
            writeln!(f, "{name}  {}", begun(side))?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        missing(f, "scenario", &self.missing, "")?;
        for scenario in &self.scenarios {
            writeln!(f, "\n{}", scenario.name)?;
            for warning in &scenario.warnings {
                writeln!(f, "  warning: {warning}")?;
            }
            missing(f, "contender", &scenario.missing, "  ")?;
            for contender in &scenario.contenders {
                self::contender(f, contender)?;
            }
        }
        writeln!(f)?;
        findings(f, self)?;
        let count = &self.verdicts;
        let shown = count.better + count.worse + count.unclear;
        writeln!(
            f,
            "{} better, {} worse, {} without a difference that these runs can show, {} with too few runs to tell, {} on one side only.",
            count.better, count.worse, count.unclear, count.too_few, count.one_sided
        )?;
        if shown > 0 {
            writeln!(
                f,
                "Were nothing different, chance alone would show about {:.0} of these {shown} as better or worse.",
                count.expected_by_chance
            )?;
        }
        if self.scenarios.is_empty() {
            writeln!(f, "The two have no scenario in common: nothing was compared.")?;
        }
        Ok(())
    }
}

fn begun(side: &Side) -> String {
    format!("{}, commit {}", side.started_at, side.commit.as_deref().unwrap_or("unknown"))
}

fn missing(f: &mut Formatter<'_>, what: &str, missing: &Missing, indent: &str) -> fmt::Result {
    for (names, which) in [(&missing.only_old, "old"), (&missing.only_new, "new")] {
        if !names.is_empty() {
            writeln!(f, "{indent}only in {which}: {what} {}", names.join(", "))?;
        }
    }
    Ok(())
}

fn contender(f: &mut Formatter<'_>, contender: &ContenderCompared) -> fmt::Result {
    let same = contender.old == contender.new;
    let runs = if same {
        contender.new.text()
    } else {
        format!("{}; before: {}", contender.new.text(), contender.old.text())
    };
    writeln!(f, "  {}, runs that count: {runs}{}", contender.name, finishing(contender))?;
    for warning in &contender.warnings {
        writeln!(f, "    warning: {warning}")?;
    }
    for measure in &contender.measures {
        self::measure(f, measure)?;
    }
    Ok(())
}

/// What became of its finishing, where that is a finding.
fn finishing(contender: &ContenderCompared) -> &'static str {
    match contender.finishing {
        Verdict::Better if contender.old.unverified > 0 => ": better, its guests are whole again",
        Verdict::Better => ": better, it finishes now",
        Verdict::Worse if contender.new.unverified > 0 => ": WORSE, guests found bad memory",
        Verdict::Worse => ": WORSE, it finishes no more",
        Verdict::Unclear | Verdict::TooFew | Verdict::OneSided => "",
    }
}

/// Everything that got better or worse, again, where a long table ends.
fn findings(f: &mut Formatter<'_>, comparison: &Comparison) -> fmt::Result {
    for verdict in [Verdict::Better, Verdict::Worse] {
        for scenario in &comparison.scenarios {
            for contender in &scenario.contenders {
                let name = format!("{}, {}", scenario.name, contender.name);
                if contender.finishing == verdict {
                    writeln!(
                        f,
                        "{}: {name}{}",
                        verdict.text(),
                        finishing(contender).replace(" WORSE,", "").replace(" better,", "")
                    )?;
                }
                for measure in contender.measures.iter().filter(|measure| measure.verdict == verdict) {
                    let by = measure.shift.map_or_else(String::new, |shift| ratio(shift.ratio));
                    writeln!(f, "{}: {name}, {}: {by}", verdict.text(), measure.measure.title())?;
                }
            }
        }
    }
    Ok(())
}

fn measure(f: &mut Formatter<'_>, measure: &MeasureCompared) -> fmt::Result {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let shift = measure.shift.map_or_else(String::new, |shift| {
        let range = format!("{}..{}", ratio(shift.low), ratio(shift.high));
        match measure.verdict {
            Verdict::TooFew => ratio(shift.ratio),
            _ => format!("{} ({range}, {:.0} %)", ratio(shift.ratio), shift.level * 100.0),
        }
    });
    writeln!(
        f,
        "    {:<27}{:>28} -> {:<28} {shift:<32} {}",
        measure.measure.title(),
        or_none(&measure.text.old),
        or_none(&measure.text.new),
        measure.verdict.text()
    )
}
