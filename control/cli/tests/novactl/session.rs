//! `session open`, `token`, `close`: without a hypervisor's monitor.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use novacron_control_api::{SessionOpen, SessionSide};

use crate::world::{Ended, Faults, World, ended, finish, novactl};

const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn open(arguments: &[&str]) -> Command {
    let mut command = novactl();
    command.args(["session", "open", "--json"]).args(arguments).env_remove("NOVACRON_SESSION_TOKEN");
    command
}

/// The same at both gateways of a world.
fn open_both(world: &World, arguments: &[&str]) -> Ended {
    let mut command = open(&["--peer", "tcp:127.0.0.1:7400"]);
    command.arg("--source-gateway").arg(world.path("source.gateway"));
    command.arg("--destination-gateway").arg(world.path("destination.gateway"));
    ended(command.args(arguments))
}

fn opened(world: &World) -> Vec<(String, SessionOpen)> {
    world.state().session.opened.clone()
}

#[test]
fn both_gateways_hear_of_one_session_and_the_lines_name_its_addresses() {
    let world = World::new(Faults::default());
    let said = open_both(
        &world,
        &[
            "--at",
            "unix:/run/m.sock",
            "--disk",
            "vda=unix:/run/a.sock",
            "--disk",
            "vdb=unix:/run/b.sock",
            "--connect-disk",
            "vdb=tcp:127.0.0.1:10809",
            "--control",
            "unix:/run/c.sock",
            "--from",
            "uid:107",
            "--tenant",
            "blue",
            "--connections",
            "9",
            "--accept-timeout",
            "7",
            "--idle-timeout",
            "11",
            "--destination-stopped",
        ],
    );
    assert_eq!(said.code, 0, "{}", said.stderr);
    let [(first, destination), (second, source)] = &opened(&world)[..] else { panic!("two openings") };
    assert_eq!((first.as_str(), second.as_str()), ("destination", "source"));
    assert_eq!((source.session, &source.token), (destination.session, &destination.token));
    let at = "unix:/run/m.sock".parse().unwrap();
    assert!(matches!(&source.side, SessionSide::Source { listen, .. } if *listen == at));
    assert!(matches!(&destination.side, SessionSide::Destination { connect } if *connect == at));
    let labels = |open: &SessionOpen| -> Vec<String> {
        open.labelled.iter().map(|named| format!("{} {}", named.label, named.endpoint)).collect()
    };
    assert_eq!(
        labels(source),
        ["disk-vda unix:/run/a.sock", "disk-vdb unix:/run/b.sock", "control unix:/run/c.sock"]
    );
    assert_eq!(
        labels(destination),
        ["disk-vda unix:/run/a.sock", "disk-vdb tcp:127.0.0.1:10809", "control unix:/run/c.sock"]
    );
    assert_eq!(source.from, ["uid:107".parse().unwrap()]);
    assert!(destination.from.is_empty() && source.tenant == "blue");
    let options = &source.options;
    assert_eq!(
        (options.connections_max, options.accept_timeout_ms, options.idle_timeout_ms),
        (9, 7000, 11_000)
    );
    assert!(!options.destination_may_start);

    assert_eq!(said.json["session"], source.session.to_string());
    assert_eq!(said.json["source_qmp"][1]["arguments"]["uri"], "unix:/run/m.sock");
    assert_eq!(said.json["source"]["labelled"][2]["label"], "control");
    assert_eq!(said.json["virsh"], serde_json::Value::Null, "one of the disks has two names");
}

#[test]
fn each_site_opens_its_own_side_with_one_secret() {
    let world = World::new(Faults { refusals_before_open: 1, ..Faults::default() });
    let file = world.path("token");
    std::fs::write(&file, format!("{SECRET}\n")).expect("a file");
    let name = ["--session", "00c0ffee00c0ffee", "--at", "tcp:127.0.0.1:49200"];

    let mut destination = open(&name);
    destination.arg("--destination-gateway").arg(world.path("destination.gateway"));
    let said = ended(destination.arg("--token-file").arg(&file));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.json["virsh"].as_str().is_some_and(|line| line.ends_with("--migrateuri tcp://127.0.0.1:49200"))
    );

    // The source's gateway is asked again until its peer has heard of the session.
    let mut source = open(&name);
    source.args(["--peer", "tcp:127.0.0.1:7400", "--token-file", "-", "--source-gateway"]);
    let mut child = source.arg(world.path("source.gateway")).stdin(Stdio::piped()).spawn().expect("novactl");
    child.stdin.take().expect("its input").write_all(SECRET.as_bytes()).expect("a pipe");
    let said = finish(child);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("trying"), "{}", said.stderr);

    let opened = opened(&world);
    let tokens: Vec<_> = opened.iter().map(|(_, open)| &open.token).collect();
    assert!(tokens.len() == 2 && tokens[0] == tokens[1] && *tokens[0] == SECRET.parse().unwrap());

    let mut variable = open(&name);
    variable.env("NOVACRON_SESSION_TOKEN", "tooshort").arg("--destination-gateway");
    let said = ended(variable.arg(world.path("destination.gateway")));
    assert!(
        said.code == 4 && said.stderr.contains("64 hex") && !said.stderr.contains("tooshort"),
        "{}",
        said.stderr
    );
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_opened() {
    let world = World::new(Faults::default());
    let at = ["--at", "tcp:127.0.0.1:49200"];
    let refused = |arguments: &[&str], code: i32, why: &str| {
        let said = open_both(&world, arguments);
        assert!(
            said.code == code && said.stderr.contains(why),
            "{arguments:?}: {} {}",
            said.code,
            said.stderr
        );
    };
    refused(&[], 4, "--at or --listen");
    refused(&["--listen", "unix:/run/x"], 4, "--at or --connect");
    refused(&["--at", "unix:/run/x", "--listen", "unix:/run/y"], 2, "cannot be used with");
    refused(&["--at", "tcp:192.0.2.1:49200"], 4, "--from");
    refused(&[at[0], at[1], "--from", "any", "--from", "192.0.2.7"], 4, "not both");
    refused(&[at[0], at[1], "--from", "uid:7"], 4, "nothing listens on unix");
    refused(&[at[0], at[1], "--connect-disk", "unix:/run/d"], 4, "no --disk");
    refused(&[at[0], at[1], "--disk", "a b=unix:/run/d"], 2, "label");
    refused(&[at[0], at[1], "--token-file", "/nonexistent/token"], 4, "token file");
    let mut one = open(&at);
    one.arg("--destination-gateway").arg(world.path("destination.gateway"));
    assert!(ended(&mut one).stderr.contains("--session"));
    assert!(ended(one.args(["--session", "00c0ffee00c0ffee"])).stderr.contains("session token"));
    let said = ended(&mut open(&at));
    assert!(said.code == 2 && said.stderr.contains("--source-gateway"), "{}", said.stderr);

    world.state().api_version = 1;
    refused(&at, 1, "upgrade the gateway");
    assert_eq!(world.log(), [] as [&str; 0]);
}

#[test]
fn a_source_that_cannot_be_opened_takes_the_announcement_back() {
    let world = World::new(Faults { open_refused: Some(("source", -32004)), ..Faults::default() });
    let said = open_both(&world, &["--at", "unix:/run/m.sock"]);
    assert!(said.code == 1 && said.stderr.contains("peer_refused"), "{}", said.stderr);
    assert_eq!(
        world.log(),
        ["destination:session.open", "source:session.open", "destination:session.cancel"]
    );

    let world = World::new(Faults { open_refused: Some(("destination", -32007)), ..Faults::default() });
    let said = open_both(&world, &["--at", "unix:/run/m.sock"]);
    assert!(said.code == 4 && said.stderr.contains("limit_reached"), "{}", said.stderr);
    assert_eq!(world.log(), ["destination:session.open"]);
}

#[test]
fn secrets_are_made_for_their_owner_alone() {
    let world = World::new(Faults::default());
    let file = world.path("new.token");
    let make = || ended(novactl().args(["session", "token"]).arg(&file));
    assert_eq!(make().code, 0);
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).expect("text");
    assert!(text.trim().parse::<novacron_control_api::Token>().is_ok());
    assert_eq!(make().code, 4, "an existing file is somebody's secret");
    assert_eq!(std::fs::read_to_string(&file).expect("text"), text);
}

#[test]
fn closing_asks_before_it_lets_a_held_source_go() {
    let world = World::new(Faults::default());
    assert_eq!(open_both(&world, &["--at", "unix:/run/m.sock"]).code, 0);
    let id = world.state().session.id.expect("a session").to_string();
    let close = |extra: &[&str]| {
        let mut command = novactl();
        command.args(["session", "close", &id, "--json", "--gateway"]).arg(world.path("source.gateway"));
        ended(command.args(extra))
    };
    world.state().session.hold();
    let said = close(&[]);
    assert!(said.code == 4 && said.stderr.contains("--release"), "{}", said.stderr);
    assert_eq!(close(&["--release"]).json["state"], "failed");
    assert_eq!(world.log()[2..], ["source:session.release"]);
    assert_eq!(close(&[]).code, 0);
    assert_eq!(world.log().len(), 3, "what has ended is left alone");
}
