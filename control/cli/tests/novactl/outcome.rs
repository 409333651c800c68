//! What control processes are told of a migration's end, and that nothing of it depends on whether they are.

use serde_json::{Value, json};

use crate::world::{Faults, World, ended};

fn books() -> Faults {
    Faults { keeps_books: true, ..Faults::default() }
}

/// The reports of both sides; each must say the same.
fn reported(world: &World) -> Vec<Value> {
    let reports = world.state().reports.clone();
    let of = |side: &str| -> Vec<Value> {
        reports.iter().filter(|(role, _)| *role == side).map(|(_, told)| told.clone()).collect()
    };
    let (source, destination) = (of("source"), of("destination"));
    assert_eq!(source, destination);
    source
}

#[test]
fn a_migration_that_completed_is_reported_after_its_commit() {
    let world = World::new(books());
    let ended = ended(&mut world.migrate());
    assert_eq!((ended.code, &ended.json["warnings"]), (0, &json!([])), "{}", ended.stderr);
    let told = reported(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    let (told, report) = (&told[0], &ended.json);
    assert_eq!((&told["session"], &told["outcome"]), (&report["migration"], &json!("completed")));
    assert_eq!((&told["downtime_ms"], &told["total_ms"]), (&json!(7), &report["total_ms"]));
    assert!(told["reason"].is_null() && told["total_ms"].is_u64(), "{told}");
    let session = report["migration"].as_str().unwrap_or_default();
    assert_eq!(told["idempotency_key"], format!("novactl-migrate-{session}-completed"));
    let log = world.log();
    let place = |entry: &str| log.iter().position(|line| line == entry).unwrap_or_else(|| panic!("{log:#?}"));
    assert!(place("source:quit") < place("source:migration.report completed"), "{log:#?}");
}

#[test]
fn a_report_that_is_refused_is_a_warning() {
    let world = World::new(Faults { reports_refused: true, ..books() });
    let ended = ended(&mut world.migrate());
    assert_eq!((ended.code, &ended.json["outcome"]), (0, &json!("completed")), "{}", ended.stderr);
    assert_eq!(world.running(), ["destination"]);
    let warnings = ended.json["warnings"].as_array().cloned().unwrap_or_default();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.to_string().contains("is for operators")), "{warnings:?}");
}

#[test]
fn a_gateway_keeps_no_books_and_is_not_asked_to() {
    let world = World::new(Faults::default());
    let ended = ended(&mut world.migrate());
    assert_eq!((ended.code, &ended.json["warnings"]), (0, &json!([])), "{}", ended.stderr);
    assert!(!world.log().iter().any(|line| line.contains("migration.report")), "{:#?}", world.log());
}

#[test]
fn failures_are_reported_with_their_reason() {
    let world = World::new(Faults { session_fails: true, ..books() });
    let failed = ended(&mut world.migrate());
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let told = reported(&world);
    assert_eq!((told.len(), &told[0]["outcome"]), (1, &json!("failed")), "{told:?}");
    assert_eq!(
        (&told[0]["reason"]["code"], &told[0]["downtime_ms"]),
        (&json!("digest_mismatch"), &Value::Null)
    );

    // A refused command moved nothing: nobody hears of it.
    let world = World::new(books());
    world.state().draining = true;
    assert_eq!(ended(&mut world.migrate()).code, 4);
    assert_eq!(reported(&world), [Value::Null; 0]);
}

#[test]
fn what_was_unknown_is_reported_again_once_it_is_settled() {
    let world = World::new(Faults { cont_lost: true, ..books() });
    let unknown = ended(&mut world.migrate());
    assert_eq!(unknown.code, 3, "{}", unknown.stderr);
    let told = reported(&world);
    assert_eq!((told.len(), &told[0]["outcome"]), (1, &json!("unknown")), "{told:?}");
    world.state().faults.cont_lost = false;
    let settled = ended(&mut world.recover());
    assert_eq!(
        (settled.code, &settled.json["settled"]),
        (0, &json!(true)),
        "{} {}",
        settled.json,
        settled.stderr
    );
    let told = reported(&world);
    assert_eq!(
        (told.len(), &told[1]["outcome"], &told[1]["total_ms"]),
        (2, &json!("completed"), &Value::Null)
    );
    let session = unknown.json["migration"].as_str().unwrap_or_default();
    assert_eq!(told[1]["idempotency_key"], format!("novactl-recover-{session}-completed"));
}
