//! What there is to run, and what of it can run here.

use serde::Serialize;

use crate::ability::Ability;
use crate::contender::KNOWN;
use crate::scenario::Scenario;

/// Everything that can be named.
#[derive(Debug, Serialize)]
pub struct Listing {
    scenarios: Vec<Listed>,
    contenders: Vec<ListedContender>,
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    why: String,
    workload: String,
    link: String,
    contenders: Vec<String>,
    repetitions: u32,
    short_repetitions: Option<u32>,
    missing: Option<String>,
}

#[derive(Debug, Serialize)]
struct ListedContender {
    name: &'static str,
    what: &'static str,
    missing: Option<String>,
}

impl Listing {
    /// Of these scenarios and every known contender.
    pub fn of(scenarios: &[Scenario], ability: &Ability) -> Self {
        let listed = |scenario: &Scenario| Listed {
            name: scenario.name.clone(),
            why: scenario.why.clone(),
            workload: scenario.workload(),
            link: crate::run::record(scenario).link,
            contenders: scenario.contenders.iter().map(|contender| contender.name.clone()).collect(),
            repetitions: scenario.repetitions,
            short_repetitions: scenario.short.as_ref().map(|short| short.repetitions),
            missing: ability.missing_for(scenario).map(str::to_owned),
        };
        let contenders = KNOWN.iter().map(|known| ListedContender {
            name: known.name,
            what: known.what,
            missing: ability.missing_of_kind(known.kind).map(str::to_owned),
        });
        Self {
            scenarios: scenarios.iter().map(listed).collect(),
            contenders: contenders.collect(),
            missing: ability.lacks().into_iter().map(str::to_owned).collect(),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = "Scenarios (* is a part of the short run):\n".to_owned();
        let width = self.scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
        for scenario in &self.scenarios {
            let mark = if scenario.short_repetitions.is_some() { '*' } else { ' ' };
            text += &format!(
                "{mark} {:<width$}  {}\n  {:<width$}    {}; {}; {} x {}\n",
                scenario.name,
                scenario.why,
                "",
                scenario.workload,
                scenario.link,
                scenario.repetitions,
                scenario.contenders.join(", ")
            );
            if let Some(missing) = &scenario.missing {
                text += &format!("  {:<width$}    cannot run here: {missing}\n", "");
            }
        }
        text += "\nContenders:\n";
        let width = self.contenders.iter().map(|contender| contender.name.len()).max().unwrap_or(0);
        for contender in &self.contenders {
            text += &format!("  {:<width$}  {}\n", contender.name, contender.what);
            if let Some(missing) = &contender.missing {
                text += &format!("  {:<width$}  cannot run here: {missing}\n", "");
            }
        }
        if !self.missing.is_empty() {
            text += &format!("\nMissing here: {}\n", self.missing.join("; "));
        }
        text
    }
}
