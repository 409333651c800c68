use proptest::prelude::*;

use super::*;
use crate::fixture;
use crate::record::Outcome;

fn verdict(comparison: &Comparison, scenario: &str, contender: &str, measure: Measure) -> Verdict {
    let scenario = comparison.scenarios.iter().find(|one| one.name == scenario).unwrap();
    let contender = scenario.contenders.iter().find(|one| one.name == contender).unwrap();
    contender.measures.iter().find(|one| one.measure == measure).unwrap().verdict
}

/// The same scenarios measured again, with other noise.
fn again(mut results: Results, seed: u64) -> Results {
    let mut next = fixture::noise(seed);
    for run in results.scenarios.iter_mut().flat_map(|scenario| &mut scenario.runs) {
        let mut stir = |value: &mut Option<f64>| *value = value.map(|value| value * (0.9 + 0.2 * next()));
        stir(&mut run.total_ms);
        stir(&mut run.downtime_ms);
        stir(&mut run.guest_pause_ms);
    }
    results
}

#[test]
fn what_got_slower_and_what_got_smaller_is_found_and_nothing_else() {
    let old = fixture::results();
    let mut new = again(fixture::results(), 5);
    new.host.commit = Some("another".to_owned());
    for run in &mut new.scenarios[0].runs {
        match run.contender.as_str() {
            "novacron" => run.total_ms = run.total_ms.map(|ms| ms * 2.0),
            "multifd-8" => run.wire_bytes_forward = run.wire_bytes_forward.map(|bytes| bytes / 2),
            _ => {}
        }
    }
    let found = compare(&old, &new);
    let lossy = |contender, measure| verdict(&found, "lossy-500mbit-50ms", contender, measure);
    assert_eq!(lossy("novacron", Measure::TotalTime), Verdict::Worse);
    assert_eq!(lossy("novacron", Measure::WireBytes), Verdict::Unclear);
    assert_eq!(lossy("multifd-8", Measure::WireBytes), Verdict::Better);
    assert_eq!(lossy("multifd-8", Measure::TotalTime), Verdict::Unclear);
    assert_eq!((found.verdicts.worse, found.verdicts.better), (1, 1), "{found}");
    let text = found.to_string();
    assert!(
        text.contains("WORSE: lossy-500mbit-50ms, novacron, Total time: 2.08x")
            && text.contains("no difference that these runs can show"),
        "{text}"
    );
}

#[test]
fn more_work_is_better() {
    let old = fixture::results();
    let mut new = fixture::results();
    for run in &mut new.scenarios[2].runs {
        if let Some(work) = &mut run.work {
            work.achieved *= if run.contender == "tcp" { 0.5 } else { 1.5 };
        }
    }
    let found = compare(&old, &new);
    assert_eq!(verdict(&found, "local-1gbit", "tcp", Measure::Work), Verdict::Worse);
    assert_eq!(verdict(&found, "local-1gbit", "novacron", Measure::Work), Verdict::Better);
}

#[test]
fn a_result_compared_with_itself_shows_nothing() {
    let results = fixture::results();
    let found = compare(&results, &results);
    assert_eq!((found.verdicts.better, found.verdicts.worse), (0, 0));
    assert!(found.verdicts.unclear > 20 && found.verdicts.expected_by_chance > 0.5);
    assert_eq!(found.missing, Missing::default());
}

#[test]
fn who_finishes_no_more_or_spoils_a_guest_got_worse() {
    let old = fixture::results();
    let mut new = fixture::results();
    for run in &mut new.scenarios[1].runs {
        if run.contender == "novacron" {
            (run.outcome, run.total_ms) = (Outcome::TimedOut, None);
        }
    }
    new.scenarios[2].runs[0].guest_verified = Some(false);
    let found = compare(&old, &new);
    let finishing =
        |scenario: usize, contender: usize| found.scenarios[scenario].contenders[contender].finishing;
    assert_eq!(finishing(1, 0), Verdict::Worse);
    assert_eq!(finishing(2, 0), Verdict::Worse);
    assert_eq!(finishing(1, 1), Verdict::Unclear);
    assert_eq!(verdict(&found, "narrow-100mbit", "novacron", Measure::TotalTime), Verdict::OneSided);
    assert_eq!(compare(&new, &old).scenarios[1].contenders[0].finishing, Verdict::Better);
    let text = found.to_string();
    assert!(
        text.contains("WORSE, it finishes no more") && text.contains("WORSE, guests found bad memory"),
        "{text}"
    );
}

#[test]
fn few_runs_say_that_they_are_few() {
    let mut old = fixture::results();
    old.scenarios[2].runs.truncate(8);
    let found = compare(&old, &fixture::results());
    // Two against five are enough, two against two are not.
    assert_eq!(verdict(&found, "local-1gbit", "tcp", Measure::TotalTime), Verdict::Unclear);
    let found = compare(&old, &old);
    assert_eq!(verdict(&found, "local-1gbit", "tcp", Measure::TotalTime), Verdict::TooFew);
}

#[test]
fn other_conditions_and_what_is_missing_are_named() {
    let old = fixture::results();
    let mut new = fixture::results();
    new.ended_at = None;
    new.host.kernel = "7.0".to_owned();
    new.host.load_average = 9.0;
    new.host.versions.remove("socat");
    new.scenarios[0].link = "another".to_owned();
    new.scenarios[0].memory_bytes = 1 << 30;
    new.scenarios[0].contenders[1].settings.insert("congestion_control".to_owned(), "bbr".to_owned());
    new.scenarios[0].contenders.remove(2);
    new.scenarios[3].name = "renamed".to_owned();
    let found = compare(&old, &new);
    let text = found.to_string();
    for part in [
        "warning: the new measurement was interrupted",
        "warning: kernel differs: 6.18.5 before, 7.0 now",
        "warning: version of socat differs: 1.7.4.4 before, absent now",
        "load average of 9.00",
        "  warning: link differs: 500 Mbit/s, 50 ms RTT, 0.1 % loss before, another now",
        "  warning: guest's memory differs: 512 MiB before, 1.00 GiB now",
        "    warning: congestion_control differs: cubic before, bbr now",
        "  only in old: contender multifd-2",
        "only in old: scenario loopback",
        "only in new: scenario renamed",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn files_that_are_no_results_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    let said = |text: &str| {
        std::fs::write(&path, text).unwrap();
        format!("{:#}", command::read(&path).unwrap_err())
    };
    assert!(said("{}").contains("is no results file"));
    assert!(said("{\"format\": 99}").contains("has format 99, this program reads format 1"));
    assert!(said("{\"format\": 1}").contains("missing field"));
    let results = fixture::results();
    std::fs::write(&path, serde_json::to_string(&results).unwrap()).unwrap();
    let read = command::read(&path).unwrap();
    assert!(read.host == results.host && read.scenarios[0].runs.len() == results.scenarios[0].runs.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_two_results_can_be_compared(old in fixture::any_results(), new in fixture::any_results()) {
        for (old, new) in [(&old, &new), (&old, &old)] {
            let found = compare(old, new);
            prop_assert!(!found.to_string().is_empty());
            prop_assert!(serde_json::to_string(&found).is_ok());
        }
    }
}
