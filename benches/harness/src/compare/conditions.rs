//! What differs between two results besides what they measured: each is a reason why a difference may mean nothing.

use std::collections::BTreeSet;

use crate::record::{Contender, Host, Results, Scenario};
use crate::units::{Unit, significant};

/// What differs between where and how both were measured.
pub(super) fn of_results(old: &Results, new: &Results) -> Vec<String> {
    let mut found = Vec::new();
    for (name, results) in [("old", old), ("new", new)] {
        if results.ended_at.is_none() {
            found.push(format!("the {name} measurement was interrupted"));
        }
        let host = &results.host;
        if host.load_average > f64::from(host.cpus) {
            let load = significant(host.load_average);
            found.push(format!(
                "the {name} measurement began with a load average of {load} on {} processors: others were at work",
                host.cpus
            ));
        }
        if host.changed {
            found.push(format!(
                "the {name} measurement was of a tree with changes that its commit does not have"
            ));
        }
    }
    of_hosts(&old.host, &new.host, &mut found);
    found
}

fn of_hosts(old: &Host, new: &Host, found: &mut Vec<String>) {
    let mut differ = |what: &str, old: &str, new: &str| {
        if old != new {
            found.push(format!("{what} differs: {old} before, {new} now"));
        }
    };
    differ("processor", &old.cpu, &new.cpu);
    differ("number of processors", &old.cpus.to_string(), &new.cpus.to_string());
    differ(
        "memory",
        &Unit::Memory.text(old.memory_bytes as f64),
        &Unit::Memory.text(new.memory_bytes as f64),
    );
    differ("kernel", &old.kernel, &new.kernel);
    let programs: BTreeSet<&String> = old.versions.keys().chain(new.versions.keys()).collect();
    for program in programs {
        let version = |host: &Host| host.versions.get(program).map_or("absent", String::as_str).to_owned();
        differ(&format!("version of {program}"), &version(old), &version(new));
    }
    if let (Some(before), Some(now)) = (&old.commit, &new.commit)
        && before == now
        && !old.changed
        && !new.changed
    {
        found.push(format!("both measured commit {before}: what differs is the machine's or chance"));
    }
}

/// What differs between two scenarios of one name.
pub(super) fn of_scenarios(old: &Scenario, new: &Scenario) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{what} differs: {old} before, {new} now"));
        }
    };
    let or = |value: Option<f64>, unit: Unit<'_>| value.map_or("none".to_owned(), |value| unit.text(value));
    differ("workload", old.workload.clone(), new.workload.clone());
    differ(
        "guest's memory",
        Unit::Memory.text(old.memory_bytes as f64),
        Unit::Memory.text(new.memory_bytes as f64),
    );
    differ("link", old.link.clone(), new.link.clone());
    differ("round trip", or(old.rtt_ms, Unit::Ms), or(new.rtt_ms, Unit::Ms));
    differ("rate", or(old.rate_bytes_per_s, Unit::BitRate), or(new.rate_bytes_per_s, Unit::BitRate));
    differ("limit", Unit::Ms.text(old.limit_ms), Unit::Ms.text(new.limit_ms));
    let work = |scenario: &Scenario| {
        let work = scenario.runs.iter().find_map(|run| run.work.as_ref());
        work.map(|work| (work.set, work.unit.clone()))
    };
    if let (Some((set, unit)), Some((now, unit_now))) = (work(old), work(new)) {
        differ("guest's set rate", or(set, Unit::PerSecond(&unit)), or(now, Unit::PerSecond(&unit_now)));
    }
    found
}

/// What differs between the settings of one contender.
pub(super) fn of_contenders(old: &Contender, new: &Contender) -> Vec<String> {
    let keys: BTreeSet<&String> = old.settings.keys().chain(new.settings.keys()).collect();
    let of = |contender: &Contender, key: &str| {
        contender.settings.get(key).map_or("not set", String::as_str).to_owned()
    };
    keys.into_iter()
        .filter(|key| old.settings.get(*key) != new.settings.get(*key))
        .map(|key| format!("{key} differs: {} before, {} now", of(old, key), of(new, key)))
        .collect()
}
