//! `pair` as two processes: with a code, with a wrong one, with a no, and by files.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use novacron_control_api::{PeerDirection, Peers};
use serde_json::Value;

use crate::keys::KeysWorld;
use crate::world::{Ended, ended, finish, novactl};

fn pair(command: &str, identity: &Path) -> Command {
    let mut novactl = novactl();
    novactl.args(["pair", command, "--json", "--identity"]).arg(identity);
    novactl
}

/// A running offer, where it listens, and its code.
struct Offer {
    child: Child,
    at: String,
    code: PathBuf,
}

fn offer(site: &KeysWorld, identity: &Path, more: &[&str]) -> Offer {
    let code = site.path("code");
    let mut command = pair("offer", identity);
    command.args(["--listen", "tcp:127.0.0.1:0"]).args(more).arg("--code-file").arg(&code);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("novactl");
    let mut line = String::new();
    // The first line of its answer; the rest stays in the pipe for the end.
    let stdout = child.stdout.take().expect("a pipe");
    let mut stdout = BufReader::with_capacity(1, stdout);
    stdout.read_line(&mut line).expect("a line");
    child.stdout = Some(stdout.into_inner());
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line:?}"));
    Offer { child, at: said["listen"].as_str().expect("an address").into(), code }
}

impl Offer {
    fn says(mut self, answer: &str) -> Ended {
        let _ = self.child.stdin.take().expect("a pipe").write_all(answer.as_bytes());
        finish(self.child)
    }
}

fn accept(identity: &Path, at: &str, code: &str, answer: &str) -> Child {
    let mut command = pair("accept", identity);
    let mut child = command.args(["--connect", at]).stdin(Stdio::piped()).spawn().expect("novactl");
    child.stdin.take().expect("a pipe").write_all(format!("{code}\n{answer}\n").as_bytes()).expect("typed");
    child
}

fn blocks(folder: &Path, file: &str) -> usize {
    std::fs::read_to_string(folder.join(file)).expect("a file").matches("-----BEGIN").count()
}

fn peers(folder: &Path) -> Peers {
    Peers::parse(&std::fs::read_to_string(folder.join("peers.toml")).expect("a file")).expect("peers")
}

fn snapshot(folder: &Path) -> Vec<Vec<u8>> {
    ["authorities.pem", "revoked.pem", "peers.toml"]
        .map(|file| std::fs::read(folder.join(file)).expect("a file"))
        .into()
}

#[test]
fn two_sites_pair_with_a_code_and_both_show_the_same_fingerprints() {
    let (a, b) = (KeysWorld::site("site-a"), KeysWorld::site("site-b"));
    let (gw_a, gw_b) = (a.issue("gw-1"), b.issue("gw-1"));
    let offer = offer(&b, &gw_b, &["--directions", "from", "--tenants", "red,blue"]);
    let code = std::fs::read_to_string(&offer.code).expect("a code");
    let accepting = accept(&gw_a, &offer.at, code.trim(), "yes");
    let code_file = offer.code.clone();
    let offered = offer.says("yes\n");
    let accepted = finish(accepting);
    assert_eq!((offered.code, accepted.code), (0, 0), "{}\n{}", offered.stderr, accepted.stderr);
    for (mine, theirs) in [(&offered, &accepted), (&accepted, &offered)] {
        assert_eq!(mine.json["event"], "paired");
        assert_eq!(mine.json["peer_fingerprints"], theirs.json["fingerprints"]);
        let print = theirs.json["fingerprints"][0].as_str().expect("a fingerprint");
        assert!(mine.stderr.contains(print), "the people see what is compared: {}", mine.stderr);
    }
    for folder in [&gw_a, &gw_b] {
        assert_eq!((blocks(folder, "authorities.pem"), blocks(folder, "revoked.pem")), (2, 2));
    }
    let rules = peers(&gw_b).peers;
    assert_eq!((rules.len(), rules[0].tenants.join(" ")), (1, "red blue".to_owned()));
    let pattern = rules[0].identity.to_string();
    assert_eq!(
        (pattern.as_str(), rules[0].directions.as_slice()),
        ("novacron://site-a/gateway/*", &[PeerDirection::From][..])
    );
    assert_eq!(peers(&gw_a).peers[0].directions.len(), 2);
    assert!(!code_file.exists(), "a used code is nothing to keep");
    assert!(!offered.stderr.contains(code.trim()), "with --code-file the code is shown nowhere");

    // A list that the other site's operator sends is taken; a stranger's is not.
    let revoked = ended(b.keys("revoke").arg("gateway/gw-1"));
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    let list = b.path("keys/gateway/revoked.pem");
    let taken = ended(pair("revocations", &gw_a).arg(&list));
    assert_eq!((taken.code, &taken.json["newer"]), (0, &Value::from(1)), "{}", taken.stderr);
    let stranger = KeysWorld::site("site-b");
    let refused = ended(pair("revocations", &gw_a).arg(stranger.path("keys/gateway/revoked.pem")));
    assert!(refused.code == 4 && refused.stderr.contains("nothing was changed"), "{}", refused.stderr);
}

#[test]
fn a_wrong_code_changes_nothing_and_the_right_one_still_works() {
    let (a, b) = (KeysWorld::site("site-a"), KeysWorld::site("site-b"));
    let (gw_a, gw_b) = (a.issue("gw-1"), b.issue("gw-1"));
    let before = (snapshot(&gw_a), snapshot(&gw_b));
    let offer = offer(&b, &gw_b, &[]);
    let code = std::fs::read_to_string(&offer.code).expect("a code");
    // Another offer's code is well-formed, and wrong here.
    let other = self::offer(&a, &gw_a, &[]);
    let wrong = std::fs::read_to_string(&other.code).expect("a code");
    let mut other = other.child;
    other.kill().expect("ended");
    other.wait().expect("ended");

    let refused = finish(accept(&gw_a, &offer.at, wrong.trim(), "yes"));
    assert!(refused.code == 4 && refused.stderr.contains("nothing was changed here"), "{}", refused.stderr);
    let mistyped = finish(accept(&gw_a, &offer.at, "7f3k-9x2m", "yes"));
    assert!(mistyped.code == 4 && mistyped.stderr.contains("nothing was sent"), "{}", mistyped.stderr);
    assert!(snapshot(&gw_a) == before.0 && snapshot(&gw_b) == before.1);

    // Then both know the code, and one person says no: nobody is trusted on either side.
    let at = offer.at.clone();
    let accepting = accept(&gw_a, &at, code.trim(), "yes");
    let offered = offer.says("no\n");
    let accepted = finish(accepting);
    assert_eq!((offered.code, accepted.code), (4, 4), "{}\n{}", offered.stderr, accepted.stderr);
    assert!(
        accepted.stderr.contains("said no") && offered.stderr.contains("codes differ"),
        "{}",
        offered.stderr
    );
    assert!(snapshot(&gw_a) == before.0 && snapshot(&gw_b) == before.1);
    let late = finish(accept(&gw_a, &at, code.trim(), "yes"));
    assert!(late.code == 4 && late.stderr.contains("does not answer"), "{}", late.stderr);
}

#[test]
fn an_offer_that_nobody_takes_ends_by_itself() {
    let b = KeysWorld::site("site-b");
    let gw_b = b.issue("gw-1");
    let offered = offer(&b, &gw_b, &["--lifetime", "1s", "--yes"]).says("");
    assert!(offered.code == 4 && offered.stderr.contains("too old"), "{}", offered.stderr);
}

#[test]
fn two_sites_pair_by_files_and_fingerprints() {
    let (a, b) = (KeysWorld::site("site-a"), KeysWorld::site("site-b"));
    let (gw_a, gw_b) = (a.issue("gw-1"), b.issue("gw-1"));
    let file = b.path("site-b.pem");
    let exported = ended(pair("export", &gw_b).arg("--out").arg(&file));
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    assert!(!std::fs::read_to_string(&file).expect("a file").contains("PRIVATE"));
    let print = exported.json["fingerprints"][0].as_str().expect("a fingerprint").to_owned();
    let before = snapshot(&gw_a);
    let import = |print: &str| ended(pair("import", &gw_a).arg(&file).args(["--fingerprint", print]));
    let refused = import(&print.replace(|digit: char| digit.is_ascii_hexdigit(), "0"));
    assert!(
        refused.code == 4 && refused.stderr.contains("not what --fingerprint says"),
        "{}",
        refused.stderr
    );
    assert!(snapshot(&gw_a) == before);
    let imported = import(&print.to_lowercase());
    assert_eq!((imported.code, &imported.json["peer"]), (0, &Value::from("site-b")), "{}", imported.stderr);
    assert_eq!((blocks(&gw_a, "authorities.pem"), peers(&gw_a).peers.len()), (2, 1));
    let itself = ended(pair("import", &gw_b).arg(&file).args(["--fingerprint", &print]));
    assert!(itself.code == 4 && itself.stderr.contains("this one"), "{}", itself.stderr);
}

#[test]
fn pairing_explains_itself() {
    for command in ["offer", "accept", "export", "import", "revocations"] {
        let output = novactl().args(["pair", command, "--help"]).output().expect("novactl");
        let help = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && help.contains("Example"), "{help}");
    }
}
