//! `sessions`, `show`, `cancel`, `info`.

use novacron_control_api::SessionId;

use crate::world::{Faults, World, ended, novactl};

fn text(command: &mut std::process::Command) -> (i32, String) {
    let output = command.output().expect("novactl");
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.code().unwrap_or(-1), String::from_utf8(said).expect("text"))
}

#[test]
fn sessions_are_listed_shown_and_cancelled() {
    let world = World::new(Faults::default());
    world.state().session.id = Some(SessionId(0xc0ffee));
    let gateway = world.path("source.gateway");
    let command = |name: &str| {
        let mut command = novactl();
        command.arg(name).arg("--gateway").arg(&gateway);
        command
    };
    let (code, table) = text(&mut command("sessions"));
    assert_eq!(code, 0, "{table}");
    assert!(table.contains("0000000000c0ffee") && table.contains("running"), "{table}");
    assert!(!table.contains('\u{1b}'), "a label moves no cursor");
    let json = ended(command("sessions").arg("--json")).json;
    assert_eq!(json["sessions"][0]["session"], "0000000000c0ffee");

    let (code, shown) = text(command("show").arg("0000000000c0ffee"));
    assert!(
        code == 0 && shown.contains("2 pages, 1 zero") && shown.contains("equal on both sides"),
        "{shown}"
    );
    for part in [
        "tenant     blue",
        "disk       unix:/run/d.sock",
        "from       uid:107",
        "3 connections",
        "0 migration forward",
    ] {
        assert!(shown.contains(part), "no '{part}' in {shown}");
    }
    assert_eq!(ended(command("show").args(["0000000000c0ffee", "--json"])).json["guest_bytes"], 4000);

    let (code, cancelled) = text(command("cancel").arg("0000000000c0ffee"));
    assert!(code == 0 && cancelled.contains("is cancelled"), "{cancelled}");
    assert_eq!(world.log(), ["source:session.cancel"]);

    let (code, info) = text(&mut command("info"));
    assert!(code == 0 && info.contains("tcp:127.0.0.1:7400"), "{info}");
    assert_eq!(ended(command("info").arg("--json")).json["wire_versions"][0], 1);
}

#[test]
fn errors_say_what_to_do() {
    let world = World::new(Faults::default());
    let gateway = world.path("source.gateway");
    let (code, said) = text(novactl().args(["show", "0000000000c0ffee", "--gateway"]).arg(&gateway));
    assert!(code == 1 && said.contains("session_unknown") && said.contains("next:"), "{said}");
    let (code, said) = text(novactl().args(["info", "--gateway"]).arg(world.path("nobody")));
    assert!(code == 1 && said.contains("no gateway listens") && said.contains("start it"), "{said}");
    assert_eq!(text(novactl().args(["show", "c0ffee", "--gateway"]).arg(&gateway)).0, 2);
}

#[test]
fn every_command_explains_itself() {
    for command in ["migrate", "recover", "sessions", "show", "cancel", "info", "doctor"] {
        let (code, help) = text(novactl().args([command, "--help"]));
        assert!(code == 0 && help.contains("Example") && help.contains("Usage"), "{help}");
    }
    for command in ["open", "token", "list", "show", "close"] {
        let (code, help) = text(novactl().args(["session", command, "--help"]));
        assert!(code == 0 && help.contains("Example") && help.contains("Usage"), "{help}");
    }
    let (code, help) = text(novactl().arg("--help"));
    assert!(code == 0 && help.contains("Exit codes"), "{help}");
}
