//! `novactl migrate`: the order of the commit, and what every failure leaves.

use std::time::Duration;

use crate::world::{Ended, Faults, World, ended, finish, until};

fn position(log: &[String], entry: &str) -> usize {
    log.iter().position(|line| line == entry).unwrap_or_else(|| panic!("no {entry} in {log:#?}"))
}

fn assert_never(log: &[String], entries: &[&str]) {
    for entry in entries {
        assert!(!log.iter().any(|line| line == entry), "{entry} in {log:#?}");
    }
}

/// The guest runs at the source, nothing was started, the destination is gone.
fn assert_at_source(world: &World, ended: &Ended, outcome: &str) {
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(ended.json["outcome"], outcome, "{}", ended.json);
    assert_eq!(ended.json["guest_running_at"], "source");
    assert_eq!(world.running(), ["source"]);
    assert_never(&world.log(), &["destination:cont", "source:cont", "source:quit"]);
    assert!(!world.state().destination.alive, "a useless destination is ended");
    assert_eq!(world.steps().last().map(String::as_str), Some("failed"));
    assert_eq!(world.left_behind(), [""; 0].map(std::path::PathBuf::from));
}

/// Nothing was quit, and the message names the command that settles it.
fn assert_unknown(world: &World, ended: &Ended) {
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert_eq!(ended.json["outcome"], "unknown", "{}", ended.json);
    let command = format!("novactl recover {}", ended.json["migration"].as_str().expect("its name"));
    assert!(ended.stderr.contains(&command), "{}", ended.stderr);
    assert_never(&world.log(), &["source:quit", "destination:quit", "source:cont"]);
    assert!(!["done", "failed"].contains(&world.steps().last().map_or("", String::as_str)));
}

#[test]
fn a_migration_commits_in_order() {
    let world = World::new(Faults { loading_looks: 3, ..Faults::default() });
    let ended =
        ended(world.migrate().args(["--codec", "zstd", "--level", "5", "--streams", "2", "--outage", "7"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(world.running(), ["destination"]);
    assert!(!world.state().source.alive);
    let log = world.log();
    let order = [
        "destination:session.open",
        "source:session.open",
        "destination:stop",
        "destination:migrate-incoming",
        "source:migrate",
        "destination:cont",
        "source:quit",
    ];
    let positions: Vec<_> = order.iter().map(|entry| position(&log, entry)).collect();
    assert!(positions.is_sorted(), "{log:#?}");
    let steps = ["prepared", "started", "completed-seen", "cont-sent", "running-seen", "quit-sent", "done"];
    assert_eq!(world.steps(), steps);
    for end in ["source", "destination"] {
        let set = format!("{end}:migrate-set-parameters {{\"downtime-limit\":300,\"max-bandwidth\":0}}");
        assert!(position(&log, &set) < position(&log, "source:migrate"));
        let set = log.iter().find(|line| line.starts_with(&format!("{end}:migrate-set-capabilities")));
        assert!(set.is_some_and(|line| line.contains("return-path") && line.contains("events")), "{log:#?}");
    }
    let options = world.state().session.options.clone();
    assert_eq!((&options["codec"], &options["level"]), (&"zstd".into(), &5.into()));
    assert_eq!((&options["streams"], &options["outage_ms"]), (&2.into(), &7000.into()));
    assert_eq!(options["destination_may_start"], false);
    let json = &ended.json;
    assert_eq!(json["outcome"], "completed");
    assert_eq!(json["guest_running_at"], "destination");
    assert_eq!((&json["guest_bytes"], &json["encoded_bytes"]), (&4000.into(), &1500.into()));
    assert_eq!((&json["wire_bytes"], &json["digest_equal"]), (&2000.into(), &true.into()));
    assert_eq!(
        (&json["downtime_ms"], &json["setup_ms"], &json["iterations"]),
        (&7.into(), &1.into(), &3.into())
    );
    assert_eq!(json["source"]["status"], "gone");
    assert_eq!(json["destination"]["status"], "running");
    assert_eq!(json["source"]["record"]["role"], "source");
    assert!(world.left_behind().is_empty());
}

#[test]
fn the_hop_may_be_loopback_tcp() {
    let world = World::new(Faults::default());
    assert_eq!(ended(world.migrate().args(["--via", "tcp"])).code, 0);
    assert_eq!(world.running(), ["destination"]);
}

#[test]
fn a_destination_that_starts_by_itself_is_not_told_again() {
    let world = World::new(Faults { autostart: true, ..Faults::default() });
    let ended = ended(&mut world.migrate());
    assert_eq!((ended.code, world.running()), (0, vec!["destination"]), "{}", ended.stderr);
    assert_never(&world.log(), &["destination:cont"]);
}

#[test]
fn failures_before_completed_leave_the_guest_at_the_source() {
    let world = World::new(Faults { source_fails: true, ..Faults::default() });
    assert_at_source(&world, &ended(&mut world.migrate()), "failed");

    let world = World::new(Faults { session_fails: true, ..Faults::default() });
    let failed = ended(&mut world.migrate());
    assert_at_source(&world, &failed, "failed");
    assert_eq!(failed.json["reason"]["code"], "digest_mismatch");

    let world = World::new(Faults { gateway_vanishes: true, ..Faults::default() });
    let failed = ended(&mut world.migrate());
    assert_at_source(&world, &failed, "failed");
    assert_eq!(failed.json["reason"]["code"], "gateway_gone");

    let world = World::new(Faults { stuck: true, ..Faults::default() });
    let failed = ended(world.migrate().args(["--timeout", "1"]));
    assert_at_source(&world, &failed, "failed");
    assert_eq!(failed.json["reason"]["code"], "timeout");
    let log = world.log();
    assert!(position(&log, "source:migrate_cancel") < position(&log, "destination:quit"));
    position(&log, "source:session.cancel");
    position(&log, "destination:session.cancel");
}

/// A source that still cleans up after a migration that failed is asked again; one that is not done in time, not for ever.
#[test]
fn a_source_that_cleans_up_is_asked_again() {
    let world = World::new(Faults { cleans_up: 3, ..Faults::default() });
    let completed = ended(&mut world.migrate());
    assert_eq!(completed.json["outcome"], "completed", "{}", completed.stderr);
    assert_eq!(world.log().iter().filter(|entry| *entry == "source:migrate").count(), 4);

    let world = World::new(Faults { cleans_up: u32::MAX, ..Faults::default() });
    let failed = ended(&mut world.migrate());
    assert_at_source(&world, &failed, "failed");
    let why = failed.json["reason"]["message"].as_str().expect("why");
    assert!(why.contains("migration process in progress") || why.contains("duplicate yank"), "{why}");
}

#[test]
fn a_refused_session_leaves_the_destination_unused() {
    for (who, number, code) in [
        ("source", -32003, "peer_unreachable"),
        ("source", -32004, "peer_refused"),
        ("destination", -32007, "limit_reached"),
    ] {
        let world = World::new(Faults { open_refused: Some((who, number)), ..Faults::default() });
        let failed = ended(&mut world.migrate());
        assert_eq!((failed.code, &failed.json["reason"]["code"]), (1, &code.into()), "{}", failed.stderr);
        assert_eq!(failed.json["guest_running_at"], "source");
        assert_eq!(world.running(), ["source"]);
        assert!(world.state().destination.alive, "it can be used again");
        assert_never(&world.log(), &["destination:quit", "destination:migrate-incoming", "source:migrate"]);
        assert!(world.left_behind().is_empty());
    }
}

#[test]
fn a_signal_cancels_cleanly() {
    let world = World::new(Faults { stuck: true, ..Faults::default() });
    let child = world.migrate().spawn().expect("novactl");
    until("the migration is active", || world.state().source.migration.as_deref() == Some("active"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    assert_at_source(&world, &finish(child), "cancelled");
}

#[test]
fn a_cancel_that_comes_too_late_is_a_completed_migration() {
    let world = World::new(Faults { stuck: true, cancel_too_late: true, ..Faults::default() });
    let ended = ended(world.migrate().args(["--timeout", "1"]));
    assert_eq!((ended.code, &ended.json["outcome"]), (0, &"completed".into()), "{}", ended.stderr);
    assert_eq!(world.running(), ["destination"]);
    let log = world.log();
    assert!(position(&log, "destination:cont") < position(&log, "source:quit"));
}

#[test]
fn a_lost_answer_to_cont_is_unknown_and_recover_settles_it() {
    for (faults, before, runs) in [
        (Faults { cont_answer_lost: true, ..Faults::default() }, vec!["destination"], "destination"),
        (Faults { cont_lost: true, ..Faults::default() }, vec![], "destination"),
        (Faults { cont_refused: true, ..Faults::default() }, vec![], "destination"),
    ] {
        let world = World::new(faults.clone());
        assert_unknown(&world, &ended(&mut world.migrate()));
        assert_eq!(world.running(), before, "{faults:?}");
        assert_eq!(world.steps().last().map(String::as_str), Some("cont-sent"));
        world.state().faults = Faults::default();
        let recovered = ended(&mut world.recover());
        assert_eq!(recovered.code, 0, "{} {}", recovered.json, recovered.stderr);
        assert_eq!(recovered.json["guest_running_at"], runs);
        assert_eq!(world.running(), [runs]);
        assert!(!world.state().source.alive);
        assert!(world.left_behind().is_empty());
    }
}

#[test]
fn a_guest_that_stops_after_cont_leaves_the_source_untouched() {
    let world = World::new(Faults { guest_stops: true, ..Faults::default() });
    let ended = ended(&mut world.migrate());
    assert_unknown(&world, &ended);
    assert!(ended.stderr.contains("io-error"), "{}", ended.stderr);
    assert!(world.state().source.alive);
}

#[test]
fn an_end_that_vanishes_at_the_wrong_time_is_unknown() {
    let world = World::new(Faults { source_vanishes: true, ..Faults::default() });
    assert_unknown(&world, &ended(&mut world.migrate()));
    let world = World::new(Faults { destination_vanishes: true, ..Faults::default() });
    assert_unknown(&world, &ended(&mut world.migrate()));
    assert!(world.state().source.alive, "the only whole copy");
}

#[test]
fn a_source_that_stays_is_a_warning() {
    let world = World::new(Faults { source_stays: true, ..Faults::default() });
    let ended = ended(&mut world.migrate());
    assert_eq!((ended.code, &ended.json["outcome"]), (0, &"completed".into()), "{}", ended.stderr);
    assert!(
        ended.json["warnings"][0].as_str().is_some_and(|text| text.contains("recover")),
        "{}",
        ended.json
    );
    assert_eq!(world.steps().last().map(String::as_str), Some("quit-sent"));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_changed() {
    type Change = fn(&mut crate::world::State);
    let changes: [(&str, Change); 9] = [
        ("not running", |state| state.source.status = "paused".into()),
        ("in a migration", |state| state.source.migration = Some("active".into())),
        ("-incoming defer", |state| state.destination.status = "running".into()),
        ("-incoming defer", |state| state.destination.migration = Some("setup".into())),
        ("machine type", |state| state.destination.machine = "pc-i440fx-10.0-machine"),
        ("RAM size", |state| state.destination.memory = 1 << 30),
        ("CPUs", |state| state.destination.cpus = 2),
        ("older", |state| state.destination.version = [9, 2, 0]),
        ("draining", |state| state.draining = true),
    ];
    for (says, change) in changes {
        let world = World::new(Faults::default());
        change(&mut world.state());
        let refused = ended(&mut world.migrate());
        assert_eq!(refused.code, 4, "{says}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
        assert_eq!(refused.json["reason"]["code"], "refused");
        assert_eq!(world.log(), [""; 0], "{says}");
        assert_eq!(world.steps(), [""; 0], "{says}");
    }
    let world = World::new(Faults::default());
    world.state().destination.version = [10, 1, 0];
    assert_eq!(ended(&mut world.migrate()).code, 0, "a newer destination is fine");
}

#[test]
fn absent_peers_are_refused_by_name() {
    for missing in ["source.qmp", "destination.qmp", "source.gateway", "destination.gateway"] {
        let world = World::new(Faults::default());
        std::fs::remove_file(world.path(missing)).expect("removed");
        let refused = ended(&mut world.migrate());
        assert_eq!(refused.code, 4, "{missing}: {}", refused.stderr);
        assert!(refused.stderr.contains(missing), "{missing}: {}", refused.stderr);
        assert_eq!(world.running(), ["source"]);
    }
    let world = World::new(Faults::default());
    let same = world.path("source.qmp");
    let refused = ended(world.migrate().arg("--destination-qmp").arg(&same));
    assert_eq!(refused.code, 2, "given twice is wrong usage: {}", refused.stderr);
}

#[test]
fn a_journal_that_cannot_be_made_stops_it_before_it_begins() {
    let world = World::new(Faults::default());
    std::fs::write(world.path("state"), "a file, not a directory").expect("written");
    let refused = ended(&mut world.migrate());
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("--state-dir"), "{}", refused.stderr);
    assert_eq!(world.log(), [""; 0]);
    assert!(world.left_behind().is_empty());
}

#[test]
fn progress_has_every_figure() {
    let world = World::new(Faults { stuck: true, ..Faults::default() });
    let child = world.migrate().args(["--timeout", "5"]).spawn().expect("novactl");
    std::thread::sleep(Duration::from_millis(10));
    let stderr = finish(child).stderr;
    let line = stderr.lines().find(|line| line.contains("precopy")).unwrap_or_else(|| panic!("{stderr}"));
    for figure in
        ["precopy", "iteration 3", "guest 3.91 KiB", "wire 1.95 KiB", "ratio 2.00x", "1000 B/s", "ETA "]
    {
        assert!(line.contains(figure), "{figure}: {line}");
    }
}
