//! A fleet manager on another host, over mutual TLS and with tokens: papers made by `novactl keys`, calls by `novactl`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::control::Control;
use novacron_testbed::{Scratch, novactl, port, wait};
use serde_json::{Value, json};

/// Exit code of a command that was refused.
const REFUSED: i32 = 4;
/// How long an old token is taken beside its successor here.
const OVERLAP: &str = "15s";
/// How long it may take until it is not: a machine that builds beside this test is slow.
const ENDED: Duration = Duration::from_secs(60);

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn quoted(path: &Path) -> String {
    json!(path).to_string()
}

/// A site's keys, and folders of papers.
struct Papers<'a> {
    scratch: &'a Scratch,
}

impl Papers<'_> {
    fn keys(&self, site: &str) -> PathBuf {
        self.scratch.file(&format!("keys-{site}"))
    }

    /// Runs a command that must succeed.
    fn must(&self, arguments: &[&str]) -> Result<String> {
        let (status, said) = novactl::run(self.scratch, "novactl-keys", arguments)?;
        ensure!(status.success(), "{arguments:?}: {said}");
        Ok(said)
    }

    fn site(&self, site: &str) -> Result<()> {
        self.must(&["keys", "init", site, "--keys", &text(&self.keys(site))]).map(drop)
    }

    /// A folder with the papers of `holder`, e.g. `caller/fleet`.
    fn issue(&self, site: &str, holder: &str) -> Result<PathBuf> {
        let folder = self.scratch.file(&format!("{site}-{}", holder.replace('/', "-")));
        self.must(&[
            "keys",
            "issue",
            holder,
            "--keys",
            &text(&self.keys(site)),
            "--identity",
            &text(&folder),
        ])?;
        Ok(folder)
    }
}

/// A node that answers remote callers.
struct Remote<'a> {
    scratch: &'a Scratch,
    control: Control,
    at: String,
}

impl<'a> Remote<'a> {
    fn start(scratch: &'a Scratch, more: &[(&str, &str)]) -> Result<Self> {
        let papers = Papers { scratch };
        papers.site("site-x")?;
        let identity = quoted(&papers.issue("site-x", "gateway/gw-1")?);
        let callers = quoted(&papers.keys("site-x").join("caller/authority.crt"));
        let at = format!("tcp:127.0.0.1:{}", port::free()?);
        let listen = json!(at).to_string();
        let base = [
            ("security.identity_dir", identity.as_str()),
            ("security.caller_authorities", callers.as_str()),
            ("network.control_listen", listen.as_str()),
        ];
        let control = Control::start(scratch, "a", &[&base, more].concat())?;
        Ok(Self { scratch, control, at })
    }

    /// What `novactl ... --control tcp:...` comes to.
    fn call(&self, words: &[&str], more: &[&str]) -> Result<(Option<i32>, String)> {
        let arguments = [words, &["--control", &self.at], more].concat();
        let (status, said) = novactl::run(self.scratch, "novactl-remote", &arguments)?;
        Ok((status.code(), said))
    }

    fn audit(&self) -> Result<Vec<Value>> {
        let log = self.control.rpc()?.call("audit.list", json!({}))?;
        Ok(log["entries"].as_array().context("no entries")?.clone())
    }
}

#[test]
fn a_remote_caller_has_the_role_of_its_certificate_and_others_have_none() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let node = Remote::start(
            scratch,
            &[
                ("security.admins", r#"["uid:0", "novacron://site-x/caller/boss"]"#),
                ("security.viewers", r#"["novacron://site-x/caller/eye"]"#),
            ],
        )?;
        let papers = Papers { scratch };
        let folder = |holder: &str| papers.issue("site-x", holder).map(|folder| text(&folder));
        let (boss, eye, nobody) = (folder("caller/boss")?, folder("caller/eye")?, folder("caller/nobody")?);

        for who in [&boss, &eye] {
            let (code, said) = node.call(&["status", "--json"], &["--identity", who])?;
            ensure!(code == Some(0) && said.contains("\"node_id\": \"a\""), "{said}");
        }
        let (code, said) = node.call(&["audit", "list"], &["--identity", &boss])?;
        ensure!(code == Some(0), "{said}");
        // A viewer that tries to change something is refused, and that is written down.
        let (code, said) = node.call(&["token", "revoke", "fleet"], &["--identity", &eye])?;
        ensure!(
            code == Some(REFUSED) && said.contains("is for admins") && said.contains("is a viewer"),
            "{said}"
        );
        let log = node.audit()?;
        let last = log.last().context("no entry")?;
        ensure!(
            last["actor"] == "novacron://site-x/caller/eye"
                && last["outcome"] == "refused"
                && last["origin"] == "tls"
                && last["method"] == "token.revoke",
            "{last}"
        );
        let (code, said) = node.call(&["status"], &["--identity", &nobody])?;
        ensure!(code == Some(REFUSED) && said.contains("has no role here"), "{said}");

        // Another site's caller; the node's name; another site's node; no certificate at all.
        papers.site("site-y")?;
        let foreign = papers.issue("site-y", "caller/boss")?;
        let (code, said) = node.call(&["status"], &["--identity", &text(&foreign)])?;
        ensure!(code == Some(REFUSED) && said.contains("the node is not believed"), "{said}");
        // One that believes the node, and is not believed.
        fs::copy(Path::new(&boss).join("authorities.pem"), foreign.join("authorities.pem"))?;
        let (code, said) = node.call(&["status"], &["--identity", &text(&foreign)])?;
        ensure!(code == Some(REFUSED) && said.contains("of another site"), "{said}");
        let (code, said) = node.call(&["status"], &["--identity", &boss, "--node-name", "gw-2"])?;
        ensure!(code == Some(REFUSED) && said.contains("and not gw-2"), "{said}");
        let (code, said) = node.call(&["status"], &["--identity", &boss, "--node-name", "gw-1"])?;
        ensure!(code == Some(0), "{said}");
        // A caller of the right name, by an authority that the node does not know.
        let forged = Papers { scratch };
        let keys = scratch.file("keys-forged");
        forged.must(&["keys", "init", "site-x", "--keys", &text(&keys)])?;
        let folder = scratch.file("forged");
        forged.must(&[
            "keys",
            "issue",
            "caller/boss",
            "--keys",
            &text(&keys),
            "--identity",
            &text(&folder),
        ])?;
        fs::copy(Path::new(&boss).join("authorities.pem"), folder.join("authorities.pem"))?;
        let (code, said) = node.call(&["status"], &["--identity", &text(&folder)])?;
        ensure!(code == Some(REFUSED) && said.contains("turned this caller away"), "{said}");
        let bare = scratch.file("bare");
        fs::create_dir(&bare)?;
        fs::copy(Path::new(&boss).join("authorities.pem"), bare.join("authorities.pem"))?;
        let (code, said) = node.call(&["status"], &["--identity", &text(&bare)])?;
        ensure!(code == Some(REFUSED) && said.contains("caller.crt"), "{said}");
        // One that has none to show, and says so by naming a token.
        let token = scratch.file("guessed");
        fs::write(&token, "0123456789abcdef0123456789abcdef")?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        let arguments = ["--identity", &text(&bare), "--token-file", &text(&token)];
        let (code, said) = node.call(&["status"], &arguments)?;
        ensure!(code == Some(REFUSED) && said.contains("turned this caller away"), "{said}");
        Ok(())
    })
}

#[test]
fn tokens_follow_each_other_with_an_overlap_and_are_nowhere() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let file = scratch.file("tokens");
        fs::write(&file, "# callers of a\n")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let given = quoted(&file);
        let mut node = Remote::start(
            scratch,
            &[
                ("security.auth_method", r#""token""#),
                ("security.token_file", &given),
                ("security.viewers", r#"["token:fleet"]"#),
            ],
        )?;
        let papers = Papers { scratch };
        let bare = scratch.file("bare");
        fs::create_dir(&bare)?;
        let known = papers.issue("site-x", "caller/any")?.join("authorities.pem");
        fs::copy(known, bare.join("authorities.pem"))?;
        let socket = text(&node.control.socket());
        let here = |words: &[&str]| -> Result<(Option<i32>, String)> {
            let arguments = [words, &["--control", &socket]].concat();
            let (status, said) = novactl::run(scratch, "novactl-token", &arguments)?;
            Ok((status.code(), said))
        };
        let rotate = |out: &Path, overlap: &str| {
            here(&["token", "rotate", "fleet", "--out", &text(out), "--overlap", overlap])
        };
        let shows =
            |out: &Path| node.call(&["status"], &["--identity", &text(&bare), "--token-file", &text(out)]);
        let (first, second) = (scratch.file("first"), scratch.file("second"));

        let (code, said) = rotate(&first, OVERLAP)?;
        ensure!(code == Some(0) && said.contains("fleet"), "{said}");
        ensure!(fs::metadata(&first)?.permissions().mode() & 0o777 == 0o600);
        ensure!(shows(&first)?.0 == Some(0), "{:?}", shows(&first)?);
        // The file of a token is never overwritten, and then no token is made.
        let (code, said) = rotate(&first, OVERLAP)?;
        ensure!(code == Some(REFUSED) && said.contains("cannot be made"), "{said}");

        let (code, said) = rotate(&second, OVERLAP)?;
        ensure!(code == Some(0) && said.matches("fleet ").count() >= 2, "{said}");
        let overlapping = (shows(&first)?, shows(&second)?);
        ensure!(overlapping.0.0 == Some(0) && overlapping.1.0 == Some(0), "{overlapping:?}");
        wait::until("the end of the overlap", ENDED, || {
            let (code, said) = shows(&first)?;
            let over = code == Some(REFUSED) && said.contains("nobody's, or its time is over");
            ensure!(over || code == Some(0), "{said}");
            Ok(over.then_some(()))
        })?;
        ensure!(shows(&second)?.0 == Some(0));

        // An open connection loses what its token gave.
        let secret = fs::read_to_string(&second)?;
        let mut open = node.control.rpc()?;
        open.call("caller.identify", json!({"token": secret.trim()}))?;
        open.call("node.info", json!({}))?;
        let (code, said) = here(&["token", "revoke", "fleet"])?;
        ensure!(code == Some(0), "{said}");
        let refused = open.call("node.info", json!({})).err().map(|refused| format!("{refused:#}"));
        let refused = refused.context("a token that was taken back still gives a role")?;
        ensure!(refused.contains("nobody's, or its time is over"), "{refused}");
        ensure!(shows(&second)?.0 == Some(REFUSED));
        let (code, said) = here(&["token", "revoke", "fleet"])?;
        ensure!(code == Some(REFUSED) && said.contains("none of these tokens"), "{said}");

        let log = node.audit()?;
        let of = |method: &str, outcome: &str| {
            log.iter().filter(|entry| entry["method"] == method && entry["outcome"] == outcome).count()
        };
        ensure!(
            (of("token.rotate", "done"), of("token.revoke", "done"), of("token.revoke", "failed"))
                == (2, 1, 1),
            "{log:?}"
        );
        let kept = fs::read_to_string(&file)?;
        ensure!(kept.starts_with("# callers of a\n") && !kept.contains("fleet"), "{kept}");
        let written = format!("{log:?}{}{kept}", fs::read_to_string(node.control.process().log())?);
        for out in [&first, &second] {
            let secret = fs::read_to_string(out)?;
            ensure!(
                secret.trim().len() == 64 && !written.contains(secret.trim()),
                "a token was written down"
            );
        }
        Ok(())
    })
}
