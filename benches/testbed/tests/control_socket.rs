//! The gateway's control socket against callers that are wrong, large, many or patient, and what a gateway refuses.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::{ANSWER_WAIT, EXIT_WAIT};
use novacron_testbed::rpc::Refused;
use novacron_testbed::session::{Session, unix};
use novacron_testbed::{Gateway, GatewayOptions, Process, Scratch, artefact, port, wait};
use serde_json::{Value, json};

/// The longest line that a gateway takes.
const LINE_BYTES_MAX: usize = 4 << 20;
/// How many clients it serves at once.
const CLIENTS_MAX: usize = 64;

/// A client that says what it likes.
struct Raw {
    reader: BufReader<UnixStream>,
}

impl Raw {
    fn connect(gateway: &Gateway) -> Result<Self> {
        let socket = UnixStream::connect(gateway.control()).context("connecting to the control socket")?;
        socket.set_read_timeout(Some(ANSWER_WAIT))?;
        socket.set_write_timeout(Some(ANSWER_WAIT))?;
        Ok(Self { reader: BufReader::new(socket) })
    }

    fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.get_mut().write_all(bytes).context("writing to the control socket")
    }

    fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.reader.read_line(&mut line).context("reading the control socket")?;
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line:?}"))
    }

    /// Nothing more comes: the gateway has closed.
    fn must_be_closed(&mut self) -> Result<()> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => ensure!(rest.is_empty(), "more was said: {:?}", String::from_utf8_lossy(&rest)),
            // It closed with bytes of ours unread.
            Err(error) => ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}"),
        }
        Ok(())
    }
}

fn start(scratch: &Scratch) -> Result<Gateway> {
    Gateway::start(scratch, "gateway", &GatewayOptions::default())
}

/// The code of a call's refusal; says what was lost and what to do, or it is none of ours.
fn refusal(gateway: &Gateway, method: &str, params: Value) -> Result<(i64, String)> {
    match gateway.rpc()?.call(method, params) {
        Ok(result) => anyhow::bail!("{method} was not refused: {result}"),
        Err(error) => {
            let refused = error.downcast::<Refused>()?;
            for name in ["code", "lost", "next"] {
                let text = refused.data[name].as_str().unwrap_or_default();
                ensure!(!text.is_empty(), "an error without {name}: {refused}");
            }
            Ok((refused.code, refused.message))
        }
    }
}

#[test]
fn wrong_requests_are_answered_and_the_connection_goes_on() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let gateway = start(scratch)?;
        let mut client = Raw::connect(&gateway)?;
        let cases: [(&str, i64); 16] = [
            ("no JSON", -32700),
            ("{\"jsonrpc\":\"2.0\",\"id\":1", -32700),
            ("\u{0}\u{1}", -32700),
            ("[]", -32600),
            ("17", -32600),
            ("{}", -32600),
            (r#"{"jsonrpc":"1.0","id":1,"method":"gateway.info"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":{},"method":"gateway.info"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"gateway.explode"}"#, -32601),
            (r#"{"jsonrpc":"2.0","id":1,"method":"session.get"}"#, -32602),
            (r#"{"jsonrpc":"2.0","id":1,"method":"session.get","params":{"session":7}}"#, -32602),
            (r#"{"jsonrpc":"2.0","id":1,"method":"session.get","params":{"session":"xyz"}}"#, -32602),
            (r#"{"jsonrpc":"2.0","id":1,"method":"session.get","params":[1,2]}"#, -32602),
            (r#"{"jsonrpc":"2.0","id":1,"method":"gateway.drain","params":{"timeout_ms":-1}}"#, -32602),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"session.get","params":{"session":"00000000000000ff"}}"#,
                -32002,
            ),
        ];
        for (line, code) in cases {
            client.say(format!("{line}\n").as_bytes())?;
            let answer = client.hear()?;
            assert_eq!(answer["error"]["code"], code, "{line:?} was answered with {answer}");
            assert!(answer["error"]["data"]["next"].is_string(), "{answer}");
        }
        // In pieces, among empty lines, two at once: all the same to it.
        client.say(b"\n\r\n{\"jsonrpc\":\"2.0\",\"id\":\"a\",")?;
        thread::sleep(Duration::from_millis(20));
        client.say(b"\"method\":\"gateway.info\"}\r\n{\"jsonrpc\":\"2.0\",\"id\":\"b\",\"method\":\"session.list\"}\n")?;
        let (info, list) = (client.hear()?, client.hear()?);
        assert_eq!((&info["id"], &list["id"]), (&json!("a"), &json!("b")));
        assert_eq!(info["result"]["wire_versions"], json!([1]));
        assert_eq!(info["result"]["listen"], json!([gateway.peer()?]));
        assert_eq!(list["result"]["sessions"], json!([]));
        Ok(())
    })
}

#[test]
fn an_endless_line_ends_its_connection_alone() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut gateway = start(scratch)?;
        let mut other = gateway.rpc()?;
        let mut client = Raw::connect(&gateway)?;
        let piece = vec![b'x'; 64 << 10];
        let mut said = 0;
        // It stops listening some time after the longest line; that the rest is not taken is the point.
        while said < 4 * LINE_BYTES_MAX && client.say(&piece).is_ok() {
            said += piece.len();
        }
        assert!(said >= LINE_BYTES_MAX - piece.len(), "a line of {said} bytes was refused");
        assert!(said < 2 * LINE_BYTES_MAX, "{said} bytes of one line were taken");
        assert_eq!(client.hear()?["error"]["code"], -32700);
        client.must_be_closed()?;
        other.call("gateway.info", json!({}))?;
        let usage = gateway.process().usage()?;
        assert!(usage.rss_bytes_max < 64 << 20, "{usage:?}");
        Ok(())
    })
}

#[test]
fn idle_clients_are_bounded_and_make_room_when_they_go() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let gateway = start(scratch)?;
        // The start's own client may still be on its way out.
        thread::sleep(Duration::from_millis(200));
        let idle: Vec<Raw> = (0..CLIENTS_MAX - 1).map(|_| Raw::connect(&gateway)).collect::<Result<_>>()?;
        let mut last = gateway.rpc()?;
        last.call("gateway.info", json!({}))?;
        let mut refused = Raw::connect(&gateway)?;
        assert_eq!(refused.hear()?["error"]["code"], -32007);
        refused.must_be_closed()?;
        last.call("gateway.info", json!({}))?;
        drop(idle);
        wait::until("room for a client", EXIT_WAIT, || {
            Ok(gateway.rpc()?.call("gateway.info", json!({})).is_ok().then_some(()))
        })
    })
}

#[test]
fn a_watched_session_tells_its_progress_and_once_its_end() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let gateway = start(scratch)?;
        let session = Session::new()?;
        let mut watcher = gateway.rpc()?;
        let parameters = json!({"session": session.id, "interval_ms": 20});
        assert_eq!(refusal(&gateway, "session.watch", parameters.clone())?.0, -32002);
        let connect = unix(&scratch.file("nobody.sock"));
        gateway.rpc()?.call("session.open", session.at_destination(&connect, &json!({})))?;
        assert_eq!(watcher.call("session.watch", parameters)?, json!({"watching": true}));
        let mut elapsed = 0;
        for _ in 0..5 {
            let told = watcher.notification(ANSWER_WAIT)?.context("no progress")?;
            assert_eq!(told["method"], "session.progress", "{told}");
            assert_eq!(told["params"]["state"], "waiting", "{told}");
            let now = told["params"]["elapsed_ms"].as_u64().context("no time")?;
            assert!(now >= elapsed);
            elapsed = now;
        }
        let cancelled =
            gateway.rpc()?.call("session.cancel", json!({"session": session.id, "reason": "enough"}))?;
        assert_eq!(cancelled["state"], "failed");
        let ended = loop {
            let told = watcher.notification(ANSWER_WAIT)?.context("no end")?;
            if told["method"] != "session.progress" {
                break told;
            }
        };
        assert_eq!(ended["method"], "session.ended");
        assert_eq!(ended["params"]["reason"], json!({"code": "cancelled", "message": "enough"}));
        assert!(ended["params"]["ended_at"].is_string(), "{ended}");
        assert!(watcher.notification(Duration::from_millis(200))?.is_none(), "told once");
        watcher.call("gateway.info", json!({})).map(drop)
    })
}

#[test]
fn sessions_that_cannot_be_are_refused_with_the_reason() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let gateway = start(scratch)?;
        let peer = Gateway::start(scratch, "peer", &GatewayOptions::default())?;
        let (listen, connect) = (unix(&scratch.file("in.sock")), unix(&scratch.file("out.sock")));
        let none = json!({});
        let open = |params: Value| refusal(&gateway, "session.open", params);
        let session = Session::new()?;

        let wrong = |change: &dyn Fn(&mut Value)| {
            let mut params = session.at_destination(&connect, &none);
            change(&mut params);
            params
        };
        for params in [
            wrong(&|p| p["role"] = json!("spectator")),
            wrong(&|p| p["token"] = json!("00")),
            wrong(&|p| p["connect"] = json!("tcp:127.0.0.1:0")),
            wrong(&|p| p["connect"] = json!("http://127.0.0.1")),
            wrong(&|p| p["listen"] = json!(listen)),
            wrong(&|p| p["options"] = json!({"lanes": 65})),
            wrong(&|p| p["options"] = json!({"lains": 1})),
            wrong(&|p| p["label"] = json!("x".repeat(513))),
        ] {
            assert_eq!(open(params.clone())?.0, -32602, "{params}");
        }

        // Nobody there; somebody who has not heard of the session; who has heard another secret.
        let nobody = format!("tcp:127.0.0.1:{}", port::free()?);
        assert_eq!(open(session.at_source(&nobody, &listen, &none))?.0, -32003);
        assert_eq!(open(session.at_source(peer.peer()?, &listen, &none))?.0, -32004);
        let session = Session::new()?;
        let other = Session { id: session.id.clone(), ..Session::new()? };
        peer.rpc()?.call("session.open", other.at_destination(&connect, &none))?;
        let (code, message) = open(session.at_source(peer.peer()?, &listen, &none))?;
        assert_eq!(code, -32004, "{message}");

        // What was refused leaves nothing behind: the same address serves a session that is right.
        let session = Session::new()?;
        let opened = session.open(&gateway, &peer, (&listen, &connect), &none)?;
        assert_eq!(opened, listen);
        assert_eq!(open(session.at_source(peer.peer()?, &listen, &none))?.0, -32001);
        let next = Session::new()?;
        peer.rpc()?.call("session.open", next.at_destination(&connect, &none))?;
        assert_eq!(open(next.at_source(peer.peer()?, &listen, &none))?.0, -32005);
        Ok(())
    })
}

#[test]
fn a_gateway_does_not_start_where_it_must_not() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let program = artefact::binary("novacron-gateway")?;
        let control = scratch.file("refused.sock");
        let run = |name: &str, control: &std::path::Path, more: &[&str]| -> Result<(Option<i32>, String)> {
            let mut arguments = vec!["--control".to_owned(), control.display().to_string()];
            arguments.extend(more.iter().map(ToString::to_string));
            let mut process = Process::start(scratch, name, &program, &arguments)?;
            Ok((process.wait(EXIT_WAIT)?.code(), process.log_tail()))
        };
        // Without keys, not even on loopback: unless it is said that nothing is to be encrypted.
        for listen in [&[][..], &["--listen", "tcp:127.0.0.1:0"], &["--listen", "tcp:0.0.0.0:0"]] {
            let (code, said) = run("no-keys", &control, listen)?;
            assert_eq!(code, Some(2), "{said}");
            assert!(said.contains("novactl keys") && said.contains("--insecure-plaintext"), "{said}");
            assert!(!control.exists());
        }
        let nowhere = scratch.file("nowhere").display().to_string();
        let (code, said) = run("no-folder", &control, &["--identity", &nowhere])?;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("gateway.crt"), "{said}");

        let gateway = start(scratch)?;
        let mode = fs::metadata(gateway.control())?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others could command the gateway");
        let (code, said) = run("second", gateway.control(), &["--insecure-plaintext"])?;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("another gateway listens there"), "{said}");
        let (code, said) = run("taken", &control, &["--insecure-plaintext", "--listen", gateway.peer()?])?;
        assert_eq!(code, Some(1), "{said}");
        gateway.rpc()?.call("gateway.info", json!({}))?;

        let file = scratch.file("precious");
        fs::write(&file, "not a socket")?;
        let (code, said) = run("file", &file, &["--insecure-plaintext"])?;
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(fs::read_to_string(&file)?, "not a socket");
        Ok(())
    })
}

/// What a gateway answers to another user of this host.
fn asked_by(uid: u32, gateway: &Gateway, method: &str, params: &Value) -> Result<Value> {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let socket = format!("UNIX-CONNECT:{}", gateway.control().display());
    let mut child = Command::new("setpriv")
        .args([&format!("--reuid={uid}"), "--clear-groups", "--", "socat", "-t5", "-", &socket])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("setpriv is of util-linux, and socat comes with `make setup`")?;
    writeln!(child.stdin.take().context("no pipe")?, "{request}")?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(said.lines().next().unwrap_or_default())
        .with_context(|| format!("not JSON: {said:?}"))
}

/// What a gateway says to another user of this host before it is asked anything: nothing, unless it refuses.
fn greeting_of(uid: u32, gateway: &Gateway) -> Result<String> {
    let socket = format!("UNIX-CONNECT:{}", gateway.control().display());
    let reuid = format!("--reuid={uid}");
    let output = Command::new("setpriv")
        .args([&reuid, "--clear-groups", "--", "socat", "-u", &socket, "-"])
        .stdin(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_user_speaks_for_the_tenants_that_the_file_names() -> Result<()> {
    const RED: u32 = 61_001;
    const BOTH: u32 = 61_002;
    const NOBODY: u32 = 61_003;
    if fs::metadata("/proc/self")?.uid() != 0 {
        println!("skipped: only root can be other users");
        return Ok(());
    }
    Scratch::with_logs(|scratch| {
        // They must reach the socket.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711))?;
        let callers = scratch.file("callers.toml");
        let rules = format!(
            "[[caller]]\nuid = {RED}\ntenants = [\"red\"]\n\n[[caller]]\nuid = {BOTH}\ntenants = [\"red\", \"blue\"]\n"
        );
        fs::write(&callers, rules)?;
        let extra = vec!["--callers".to_owned(), callers.display().to_string()];
        let gateway =
            Gateway::start(scratch, "gateway", &GatewayOptions { extra, ..GatewayOptions::default() })?;

        let announce = |uid: u32, tenant: Option<&str>| -> Result<(Session, Value)> {
            let session = Session::new()?;
            let mut call = session.at_destination(&unix(&scratch.file("out.sock")), &json!({}));
            if let Some(tenant) = tenant {
                call["tenant"] = json!(tenant);
            }
            let answer = asked_by(uid, &gateway, "session.open", &call)?;
            Ok((session, answer))
        };
        // One that names no tenant is of the caller's only one; of several, none is guessed.
        let (red, answer) = announce(RED, None)?;
        ensure!(answer["result"]["session"] == red.id, "{answer}");
        ensure!(red.record(&gateway)?["tenant"] == "red");
        let (_, answer) = announce(BOTH, None)?;
        ensure!(answer["error"]["data"]["next"].to_string().contains("red, blue"), "{answer}");
        let (blue, answer) = announce(BOTH, Some("blue"))?;
        ensure!(answer["result"]["session"] == blue.id, "{answer}");
        let (_, answer) = announce(RED, Some("blue"))?;
        ensure!(answer["error"]["message"].to_string().contains("tenant blue"), "{answer}");

        // What is another tenant's is not there.
        let mine = asked_by(RED, &gateway, "session.list", &json!({}))?["result"]["sessions"].clone();
        ensure!(mine.as_array().is_some_and(|all| all.len() == 1 && all[0]["session"] == red.id), "{mine}");
        for method in ["session.get", "session.cancel", "session.release"] {
            let answer = asked_by(RED, &gateway, method, &json!({"session": blue.id}))?;
            ensure!(answer["error"]["data"]["code"] == "session_unknown", "{method}: {answer}");
        }
        ensure!(blue.record(&gateway)?["state"] == "waiting", "another tenant ended it");
        let answer = asked_by(RED, &gateway, "gateway.drain", &json!({}))?;
        ensure!(answer["error"]["message"].to_string().contains("own user"), "{answer}");
        let answer = greeting_of(NOBODY, &gateway)?;
        ensure!(answer.contains("may not command"), "{answer:?}");

        let refused = gateway.rpc()?.call("gateway.info", json!({}))?["security"]["refused"].clone();
        ensure!(refused["unknown_caller"] == 1 && refused["wrong_caller"] == 3, "{refused}");
        Ok(())
    })
}
