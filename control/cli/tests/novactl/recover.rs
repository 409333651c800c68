//! `novactl recover`: what is left when `novactl` is killed, and what is not certain.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::world::{Ended, Faults, World, ended, until};

/// Kills `novactl` where it holds.
fn killed_at(world: &World, hold: &str) {
    let mut child = world
        .migrate()
        .args(["--hold-at", hold])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("novactl");
    wait_held(&mut child);
    child.kill().expect("killed");
    child.wait().expect("gone");
}

/// Reads stderr until it says that it holds; the stream's end when it never does.
fn wait_held(child: &mut Child) {
    let stderr = BufReader::new(child.stderr.as_mut().expect("a pipe"));
    assert!(stderr.lines().map_while(Result::ok).any(|line| line.contains("held at")), "it never held");
}

fn assert_at_destination(world: &World, ended: &Ended) {
    assert_eq!(ended.code, 0, "{} {}", ended.json, ended.stderr);
    assert_eq!(ended.json["guest_running_at"], "destination");
    assert_eq!(ended.json["settled"], true);
    assert_eq!(world.running(), ["destination"]);
    assert!(!world.state().source.alive);
    assert_eq!(world.steps().last().map(String::as_str), Some("done"));
    assert!(world.left_behind().is_empty());
}

fn assert_refused(world: &World, ended: &Ended, says: &str) {
    assert_eq!(ended.code, 4, "{} {}", ended.json, ended.stderr);
    let reason = ended.json["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(says), "{says}: {reason}");
    assert!(
        !world.log().iter().any(|entry| entry.ends_with(":quit") || entry.ends_with(":cont")),
        "nothing done"
    );
}

#[test]
fn a_death_between_completed_and_cont_is_settled() {
    let world = World::new(Faults::default());
    killed_at(&world, "completed");
    assert_eq!(world.running(), [""; 0], "the guest stands still");
    let looked = ended(world.recover().arg("--dry-run"));
    assert_eq!((looked.code, &looked.json["settled"]), (0, &false.into()), "{}", looked.json);
    assert_eq!(world.running(), [""; 0], "a dry run changes nothing");
    assert_at_destination(&world, &ended(&mut world.recover()));
    assert_eq!(ended(&mut world.recover()).code, 0, "once more finds nothing");
    assert_eq!(world.log().iter().filter(|entry| *entry == "destination:cont").count(), 1);
}

#[test]
fn a_death_between_cont_and_its_answer_is_settled() {
    let world = World::new(Faults::default());
    killed_at(&world, "cont-sent");
    until("what was sent arrives", || world.running() == ["destination"]);
    assert_at_destination(&world, &ended(&mut world.recover()));
    assert_eq!(world.log().iter().filter(|entry| *entry == "destination:cont").count(), 1, "not sent again");
}

#[test]
fn a_death_before_quit_is_settled() {
    let world = World::new(Faults::default());
    killed_at(&world, "running");
    assert_at_destination(&world, &ended(&mut world.recover()));
}

#[test]
fn recover_keeps_away_from_a_live_migration() {
    let world = World::new(Faults::default());
    let mut child =
        world.migrate().args(["--hold-at", "completed"]).stdin(Stdio::piped()).spawn().expect("novactl");
    wait_held(&mut child);
    let refused = ended(&mut world.recover());
    assert_eq!(refused.code, 4, "{}", refused.json);
    assert!(
        refused.json["reason"].as_str().is_some_and(|text| text.contains("still runs")),
        "{}",
        refused.json
    );
    // Its stdin closes: it goes on where it stood.
    drop(child.stdin.take());
    let ended = crate::world::finish(child);
    assert_eq!((ended.code, world.running()), (0, vec!["destination"]), "{}", ended.stderr);
}

#[test]
fn a_death_in_precopy_is_waited_out() {
    let world = World::new(Faults { stuck: true, ..Faults::default() });
    let mut child = world.migrate().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("novactl");
    until("the migration is active", || world.state().source.migration.as_deref() == Some("active"));
    child.kill().expect("killed");
    child.wait().expect("gone");
    let waiting = ended(
        crate::world::novactl()
            .args(["recover", "--json", "--wait", "0", "--state-dir"])
            .arg(world.path("state")),
    );
    assert_refused(&world, &waiting, "still under way");
    world.state().faults.stuck = false;
    assert_at_destination(&world, &ended(&mut world.recover()));
}

#[test]
fn a_failed_source_goes_on_and_its_destination_is_ended() {
    let world = World::new(Faults::default());
    killed_at(&world, "completed");
    // As if the last return-path message had been lost before it was seen: no journal, and the source went on.
    world.state().source.status = "running".into();
    world.state().source.migration = Some("failed".into());
    let mut command = crate::world::novactl();
    command.args(["recover", "--json", "--source-qmp"]).arg(world.path("source.qmp"));
    let recovered = ended(command.arg("--destination-qmp").arg(world.path("destination.qmp")));
    assert_eq!(
        (recovered.code, &recovered.json["guest_running_at"]),
        (0, &"source".into()),
        "{}",
        recovered.json
    );
    assert_eq!(world.running(), ["source"]);
    assert!(!world.state().destination.alive);
}

#[test]
fn what_is_not_certain_is_refused() {
    let world = World::new(Faults::default());
    killed_at(&world, "completed");
    world.state().destination.alive = false;
    until("it is gone", || !world.path("destination.qmp").exists());
    let refused = ended(&mut world.recover());
    assert_refused(&world, &refused, "resume the source by hand");

    let world = World::new(Faults::default());
    killed_at(&world, "completed");
    world.state().source.status = "running".into();
    world.state().destination.status = "running".into();
    let refused = ended(&mut world.recover());
    assert_refused(&world, &refused, "both sides");
    assert_eq!(world.running(), ["source", "destination"], "left alone");
}

#[test]
fn a_source_that_is_gone_does_not_keep_a_loaded_guest_still() {
    let world = World::new(Faults::default());
    killed_at(&world, "completed");
    world.state().source.alive = false;
    until("it is gone", || !world.path("source.qmp").exists());
    assert_at_destination(&world, &ended(&mut world.recover()));
}

#[test]
fn nothing_to_recover_and_unknown_names_are_told_apart() {
    let world = World::new(Faults::default());
    assert_eq!(ended(&mut world.recover()).code, 0);
    assert_eq!(ended(world.recover().arg("0123456789abcdef")).code, 4);
    assert_eq!(ended(world.recover().arg("xyz")).code, 2);
}
