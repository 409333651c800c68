//! `keys` as a process: authorities, certificates, requests, rotation, revocation.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::world::{Ended, ended, novactl};

/// A folder with one site's keys in it.
pub(crate) struct KeysWorld {
    pub(crate) dir: TempDir,
}

impl KeysWorld {
    /// A site with authorities.
    pub(crate) fn site(name: &str) -> Self {
        let world = Self { dir: tempfile::tempdir().expect("a folder") };
        let made = ended(world.keys("init").arg(name));
        assert_eq!(made.code, 0, "{}", made.stderr);
        world
    }

    /// `novactl keys COMMAND` on this site's keys.
    pub(crate) fn keys(&self, command: &str) -> Command {
        let mut novactl = novactl();
        novactl.env_remove("NOVACRON_KEYS_PASSPHRASE").env_remove("CREDENTIALS_DIRECTORY");
        novactl.args(["keys", command, "--json", "--keys"]).arg(self.path("keys"));
        novactl
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Issues a gateway's certificate into a folder of its name.
    pub(crate) fn issue(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        let issued = ended(self.keys("issue").arg(format!("gateway/{name}")).arg("--identity").arg(&folder));
        assert_eq!(issued.code, 0, "{}", issued.stderr);
        folder
    }

    fn list(&self, within: &str) -> Ended {
        ended(self.keys("list").args(["--expiring-within", within]))
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

fn standings(list: &Value) -> Vec<&str> {
    let entries = list["certificates"].as_array().expect("entries");
    entries.iter().map(|entry| entry["standing"].as_str().expect("a standing")).collect()
}

#[test]
fn a_gateway_gets_what_it_needs_and_nobody_else_its_key() {
    let world = KeysWorld::site("site-a");
    let folder = world.issue("gw-1");
    for (file, expected) in [
        ("gateway.crt", 0o644),
        ("gateway.key", 0o600),
        ("authorities.pem", 0o644),
        ("revoked.pem", 0o644),
        ("peers.toml", 0o644),
    ] {
        assert_eq!(mode(&folder.join(file)), expected, "{file}");
    }
    assert_eq!(mode(&folder), 0o700);
    let peers = std::fs::read_to_string(folder.join("peers.toml")).expect("peers");
    assert_eq!(
        novacron_control_api::Peers::parse(&peers),
        Ok(novacron_control_api::Peers::default()),
        "nobody may yet"
    );
    for key in ["keys/gateway/authority.key", "keys/caller/authority.key"] {
        assert_eq!(mode(&world.path(key)), 0o600, "{key}");
    }
    let again = ended(world.keys("issue").arg("gateway/gw-1").arg("--identity").arg(world.path("other")));
    assert!(again.code == 4 && again.stderr.contains("keys rotate"), "{}", again.stderr);
    let shown = ended(world.keys("show").arg("gateway/gw-1")).json;
    assert_eq!(shown["certificates"][0]["holder"], "novacron://site-a/gateway/gw-1");
    let of_file = ended(world.keys("show").arg(folder.join("gateway.crt"))).json;
    assert_eq!(of_file["certificates"][0]["serial"], shown["certificates"][0]["serial"]);
    let caller = ended(world.keys("issue").arg("caller/alice").arg("--identity").arg(world.path("alice")));
    assert_eq!(caller.code, 0, "{}", caller.stderr);
    assert_eq!(mode(&world.path("alice/caller.key")), 0o600);
    assert!(!world.path("alice/peers.toml").exists());
}

#[test]
fn monitoring_sees_what_ends_soon_and_rotation_settles_it() {
    let world = KeysWorld::site("site-a");
    let folder = world.path("gw-1");
    let issue = |command: &str, days: &str| {
        let done =
            ended(world.keys(command).args(["gateway/gw-1", "--days", days, "--identity"]).arg(&folder));
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.json["certificate"]["serial"].as_str().expect("a serial").to_owned()
    };
    let first = issue("issue", "10");
    let list = world.list("9d");
    assert_eq!((list.code, standings(&list.json)), (0, vec!["valid"]), "{}", list.json);
    let list = world.list("14d");
    assert_eq!((list.code, standings(&list.json)), (1, vec!["expiring"]), "{}", list.json);
    assert!(list.json["act"][0].as_str().expect("advice").contains("novactl keys rotate gateway/gw-1"));

    let key = std::fs::read(folder.join("gateway.key")).expect("a key");
    let second = issue("rotate", "30");
    assert_ne!(first, second);
    assert_ne!(std::fs::read(folder.join("gateway.key")).expect("a key"), key, "the key is new too");
    let list = world.list("14d");
    assert_eq!((list.code, standings(&list.json)), (0, vec!["superseded", "valid"]), "{}", list.json);
    let revoked = std::fs::read_to_string(world.path("keys/gateway/revoked.json")).expect("books");
    assert!(!revoked.contains(&first), "rotating takes nothing back: sessions go on");
}

#[test]
fn what_is_taken_back_is_on_the_list_that_gateways_get() {
    let world = KeysWorld::site("site-a");
    let (one, two) = (world.issue("gw-1"), world.issue("gw-2"));
    let list = |folder: &Path| std::fs::read(folder.join("revoked.pem")).expect("a list");
    let before = (list(&one), list(&two));
    let mut revoke = world.keys("revoke");
    let done = ended(revoke.args(["gateway/gw-2", "--reason", "key-compromise", "--identity"]).arg(&one));
    assert_eq!((done.code, done.json["revoked"].as_array().map(Vec::len)), (0, Some(1)), "{}", done.stderr);
    assert_ne!(list(&one), before.0);
    assert_eq!(list(&two), before.1, "the other gateway gets it from its own operator");
    let seen = world.list("14d");
    let mut found = standings(&seen.json);
    found.sort_unstable();
    assert_eq!((seen.code, found), (0, vec!["revoked", "valid"]), "{}", seen.json);
    let unknown = ended(world.keys("revoke").arg("00ff"));
    assert!(unknown.code == 4 && unknown.stderr.contains("Nothing was changed"), "{}", unknown.stderr);
    world.issue("gw-2");
}

#[test]
fn the_authority_and_the_gateway_can_be_on_two_hosts() {
    let world = KeysWorld::site("site-a");
    let (folder, csr, answer) = (world.path("gw-1"), world.path("gw-1.csr"), world.path("gw-1.pem"));
    let on_gateway = |args: &[&str]| {
        let mut command = novactl();
        command.arg("keys").args(args).arg("--identity").arg(&folder);
        ended(command.arg("--json"))
    };
    let text = |path: &PathBuf| path.display().to_string();
    let asked = on_gateway(&["request", "site-a/gateway/gw-1", "--out", &text(&csr)]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert_eq!(mode(&folder.join("gateway.key.next")), 0o600);
    let issued =
        ended(world.keys("issue").arg("gateway/gw-1").arg("--request").arg(&csr).arg("--out").arg(&answer));
    assert_eq!(issued.code, 0, "{}", issued.stderr);
    assert!(!std::fs::read_to_string(&answer).expect("an answer").contains("PRIVATE"));
    let installed = on_gateway(&["install", &text(&answer)]);
    assert_eq!(installed.code, 0, "{}", installed.stderr);
    assert!(folder.join("gateway.key").exists() && !folder.join("gateway.key.next").exists());

    let elsewhere =
        ended(novactl().args(["keys", "install"]).arg(&answer).arg("--identity").arg(world.path("gw-9")));
    assert!(elsewhere.code == 4 && elsewhere.stderr.contains("not in this folder"), "{}", elsewhere.stderr);
    assert!(!world.path("gw-9/gateway.crt").exists());
}

#[test]
fn an_encrypted_authority_needs_its_passphrase_from_a_place_that_is_no_argument() {
    let world = KeysWorld { dir: tempfile::tempdir().expect("a folder") };
    let secret = "a passphrase of some length";
    let made = ended(world.keys("init").arg("site-a").env("NOVACRON_KEYS_PASSPHRASE", secret));
    assert!(made.code == 0 && made.json["encrypted"] == true, "{}", made.stderr);
    let issue = || {
        let mut command = world.keys("issue");
        command.arg("gateway/gw-1").arg("--identity").arg(world.path("gw-1"));
        command
    };
    let none = ended(&mut issue());
    assert!(none.code == 4 && none.stderr.contains("--passphrase-file"), "{}", none.stderr);
    let wrong = ended(issue().env("NOVACRON_KEYS_PASSPHRASE", "mistaken text of some length"));
    assert!(wrong.code == 4 && !wrong.stderr.contains("mistaken text"), "{}", wrong.stderr);
    assert_eq!(world.list("14d").json["certificates"], serde_json::json!([]), "nothing was issued");

    let file = world.path("novacron-keys-passphrase");
    std::fs::write(&file, format!("{secret}\n")).expect("a file");
    let open = ended(issue().arg("--passphrase-file").arg(&file));
    assert!(open.code == 4 && open.stderr.contains("chmod 600"), "{}", open.stderr);
    // systemd's folder of credentials is guarded by the folder.
    let done = ended(issue().env("CREDENTIALS_DIRECTORY", world.dir.path()));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn keys_explain_themselves() {
    for command in ["init", "request", "issue", "rotate", "install", "list", "show", "revoke"] {
        let output = novactl().args(["keys", command, "--help"]).output().expect("novactl");
        let help = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && help.contains("Example"), "{help}");
    }
}
