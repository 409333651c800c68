//! What the control process remembers, with real gateways and databases: through kill -9 in the middle of a migration, a
//! database that is locked, full or away, and a log that somebody changed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::control::Control;
use novacron_testbed::limits::ANSWER_WAIT;
use novacron_testbed::postgres::Postgres;
use novacron_testbed::rpc::Refused;
use novacron_testbed::session::unix;
use novacron_testbed::{Gateway, GatewayOptions, Scratch, Session, novactl, port, wait};
use rusqlite::Connection;
use serde_json::{Value, json};

/// How soon a change of a session must stand in the store, on a machine that builds beside this test.
const RECORDED: Duration = Duration::from_secs(20);
/// How soon a sample of a path must stand there: one is kept every half minute.
const SAMPLED: Duration = Duration::from_secs(60);
/// How soon records that waited for a database must be in it after its return.
const DRAINED: Duration = Duration::from_secs(40);

fn code(result: Result<Value>) -> Result<String> {
    let error = result.err().context("it should have been refused")?;
    let refused = error.downcast_ref::<Refused>().with_context(|| format!("no refusal: {error:#}"))?;
    Ok(refused.data["code"].as_str().unwrap_or_default().to_owned())
}

fn component(control: &Control, name: &str) -> Result<Value> {
    let health = control.rpc()?.call("node.health", json!({}))?;
    let mut all = health["components"].as_array().into_iter().flatten();
    all.find(|one| one["name"] == name).cloned().with_context(|| format!("no {name}: {health}"))
}

fn part(component: &Value, name: &str) -> Value {
    let mut all = component["parts"].as_array().into_iter().flatten();
    all.find(|one| one["name"] == name).cloned().unwrap_or_default()
}

fn migration(control: &Control, session: &Session) -> Result<Option<Value>> {
    let page = control.rpc()?.call("history.migrations", json!({}))?;
    let all = page["migrations"].as_array().context("no migrations")?;
    Ok(all.iter().find(|one| one["session"] == session.id.as_str()).cloned())
}

fn stored(control: &Control, session: &Session) -> Result<Option<Value>> {
    let page = control.rpc()?.call("history.sessions", json!({}))?;
    let all = page["sessions"].as_array().context("no sessions")?;
    Ok(all.iter().find(|one| one["record"]["session"] == session.id.as_str()).cloned())
}

/// A migration from the control process's gateway to `b`; the hypervisors are sockets of the test.
struct Under {
    session: Session,
    source: UnixStream,
    destination: UnixStream,
}

fn migrate(
    scratch: &Scratch,
    control: &Control,
    b: &Gateway,
    name: &str,
    key: Option<&str>,
) -> Result<Under> {
    let session = Session::new()?;
    let (from, to) = (scratch.file(&format!("s{name}")), scratch.file(&format!("d{name}")));
    let listener = UnixListener::bind(&to)?;
    b.rpc()?.call("session.open", session.at_destination(&unix(&to), &json!({})))?;
    let mut params = session.at_source(b.peer()?, &unix(&from), &json!({}));
    if let Some(key) = key {
        params["idempotency_key"] = json!(key);
    }
    params["label"] = json!(name);
    control.rpc()?.call("session.open", params)?;
    let mut source = UnixStream::connect(&from)?;
    source.write_all(b"begun")?;
    let (mut destination, _) = listener.accept()?;
    destination.set_read_timeout(Some(ANSWER_WAIT))?;
    let mut begun = [0; 5];
    destination.read_exact(&mut begun)?;
    ensure!(&begun == b"begun");
    Ok(Under { session, source, destination })
}

impl Under {
    /// Carries the rest and closes in order.
    fn finish(mut self, bytes: usize) -> Result<Session> {
        let mut source = self.source;
        let writer = thread::spawn(move || -> Result<()> {
            source.write_all(&vec![7; bytes])?;
            source.shutdown(std::net::Shutdown::Write)?;
            let mut rest = Vec::new();
            source.read_to_end(&mut rest)?;
            ensure!(rest.is_empty());
            Ok(())
        });
        let mut arrived = Vec::new();
        self.destination.read_to_end(&mut arrived)?;
        drop(self.destination);
        writer.join().ok().context("the writer panicked")??;
        ensure!(arrived.len() == bytes && arrived.iter().all(|byte| *byte == 7), "{} bytes", arrived.len());
        Ok(self.session)
    }
}

/// Waits until the migration is recorded as delivered, with the source's session as it ended.
fn must_be_delivered(control: &Control, session: &Session, bytes: u64) -> Result<Value> {
    let found = wait::until("the migration's record", RECORDED, || {
        Ok(migration(control, session)?.filter(|one| one["outcome"] != "running"))
    })?;
    ensure!(found["outcome"] == "delivered" && found["reason"].is_null(), "{found}");
    ensure!(found["source"]["state"] == "finished" && found["source"]["guest_bytes"] == bytes, "{found}");
    ensure!(found["ended_at"].is_string(), "{found}");
    wait::until("the session's record", RECORDED, || {
        Ok(stored(control, session)?.filter(|seen| seen["record"]["state"] == "finished"))
    })?;
    Ok(found)
}

#[test]
fn records_are_complete_after_kill_9_in_the_middle_of_migrations() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let b = Gateway::start(scratch, "b", &GatewayOptions::default())?;
        let mut control = Control::start(scratch, "a", &[])?;
        // One ends while nobody looks; one goes on after.
        let ends = migrate(scratch, &control, &b, "ends", Some("k1"))?;
        let goes_on = migrate(scratch, &control, &b, "goes-on", None)?;
        let early = migration(&control, &goes_on.session)?;
        control.kill();
        let ended = ends.finish(300_000)?;
        control.again(scratch, "a-again")?;
        let found = must_be_delivered(&control, &ended, 300_005)?;
        ensure!(found["actor"] == "uid:0" || !rustix::process::geteuid().is_root(), "{found}");
        let running = wait::until("the other's record", RECORDED, || migration(&control, &goes_on.session))?;
        ensure!(running["outcome"] == "running" && running["label"] == "goes-on", "{running} {early:?}");
        let over = goes_on.finish(100_000)?;
        must_be_delivered(&control, &over, 100_005)?;

        // What the gateway loses with its process is still there, and said to callers.
        let gateway = control.gateway_pid()?;
        control.kill();
        ensure!(Command::new("kill").args(["-9", &gateway.to_string()]).status()?.success());
        control.again(scratch, "a-third")?;
        let record = control.rpc()?.call("session.get", json!({"session": ended.id}))?;
        ensure!(record["state"] == "finished" && record["guest_bytes"] == 300_005, "{record}");
        control.rpc()?.call("session.get", json!({"session": ended.id}))?;
        wait::until("the second answer to come from the cache", ANSWER_WAIT, || {
            let cache = component(&control, "cache")?;
            Ok((cache["state"] == "up" && cache["detail"].to_string().contains(", 1 hits")).then_some(()))
        })?;

        let told = |what: &[&str]| -> Result<String> {
            let socket = control.socket().display().to_string();
            let mut arguments = what.to_vec();
            arguments.extend(["--control", &socket]);
            let (status, text) = novactl::run(scratch, "novactl-history", &arguments)?;
            ensure!(status.success(), "{what:?}: {text}");
            Ok(text)
        };
        let text = told(&["history", "migrations"])?;
        ensure!(text.contains("delivered") && text.contains("goes-on"), "{text}");
        let lines = told(&["history", "sessions", "--json"])?;
        ensure!(lines.lines().count() == 2, "{lines}");
        let log = told(&["audit", "list"])?;
        ensure!(log.matches("session.open").count() == 4 && log.contains(&ended.id), "{log}");
        let whole = told(&["audit", "verify"])?;
        ensure!(whole.contains("whole: 4 entries"), "{whole}");
        Ok(())
    })
}

#[test]
fn a_session_that_ended_with_its_gateway_while_nobody_looked_is_told_so() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let b = Gateway::start(scratch, "b", &GatewayOptions::default())?;
        let mut control = Control::start(scratch, "a", &[])?;
        let under = migrate(scratch, &control, &b, "lost", None)?;
        wait::until("its record", RECORDED, || stored(&control, &under.session))?;
        let gateway = control.gateway_pid()?;
        control.kill();
        ensure!(Command::new("kill").args(["-9", &gateway.to_string()]).status()?.success());
        control.again(scratch, "a-again")?;
        let found = wait::until("its end", RECORDED, || {
            Ok(migration(&control, &under.session)?.filter(|one| one["outcome"] != "running"))
        })?;
        ensure!(found["outcome"] == "unknown" && found["reason"]["code"] == "unseen_end", "{found}");
        let seen = stored(&control, &under.session)?.context("no record")?;
        ensure!(seen["record"]["state"] == "failed" && seen["record"]["ended_at"].is_string(), "{seen}");
        Ok(())
    })
}

#[test]
fn a_locked_database_refuses_keys_keeps_the_rest_and_loses_nothing() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let b = Gateway::start(scratch, "b", &GatewayOptions::default())?;
        let mut control = Control::start(scratch, "a", &[])?;
        let holder = Connection::open(control.data_dir().join("store.sqlite"))?;
        holder.execute_batch("BEGIN EXCLUSIVE")?;
        // A key cannot be looked up, so nothing is done under it, and the caller hears why.
        let keyed = control.rpc()?.call("config.reload", json!({"idempotency_key": "k1"}));
        ensure!(code(keyed)? == "not_recorded", "a key was taken without the database");
        // Migrations do not wait for the database.
        let under = migrate(scratch, &control, &b, "locked", None)?;
        let database = wait::until("the lock to be told", ANSWER_WAIT, || {
            Ok(Some(component(&control, "database")?).filter(|one| one["state"] == "degraded"))
        })?;
        ensure!(database["detail"].to_string().contains("locked"), "{database}");
        ensure!(part(&database, "spool")["detail"].to_string().contains("on disk"), "{database}");
        ensure!(control.health("/ready")?.0 == 200, "a node without its database is degraded, not down");
        let session = under.finish(50_000)?;
        wait::until("the session's end", ANSWER_WAIT, || {
            let record = control.rpc()?.call("session.get", json!({"session": session.id}))?;
            Ok((record["state"] == "finished").then_some(()))
        })?;
        // Killed with everything in the spool: the next process takes it up.
        control.kill();
        holder.execute_batch("COMMIT")?;
        drop(holder);
        control.again(scratch, "a-again")?;
        wait::until("an empty spool", DRAINED, || {
            let database = component(&control, "database")?;
            Ok((database["state"] == "up").then_some(()))
        })?;
        must_be_delivered(&control, &session, 50_005)?;
        // The key was never used up.
        control.rpc()?.call("config.reload", json!({"idempotency_key": "k2"}))?;
        let whole = control.rpc()?.call("audit.verify", json!({}))?;
        ensure!(whole["entries"] == 4, "{whole}");
        Ok(())
    })
}

#[test]
fn a_postgres_that_goes_away_and_returns_loses_nothing() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let Some(mut postgres) = Postgres::start(scratch)? else {
            println!(
                "skipped: PostgreSQL is not installed, or cannot be run by this user (benches/install.sh --tests)"
            );
            return Ok(());
        };
        let b = Gateway::start(scratch, "b", &GatewayOptions::default())?;
        let given = postgres.configuration();
        let given: Vec<(&str, &str)> = given.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let control = Control::start(scratch, "a", &given)?;
        let database = component(&control, "database")?;
        ensure!(
            database["state"] == "up" && database["detail"].to_string().contains("postgres"),
            "{database}"
        );
        let first = control.rpc()?.call("config.reload", json!({"idempotency_key": "k1"}))?;
        let under = migrate(scratch, &control, &b, "away", None)?;
        postgres.kill()?;
        wait::until("the loss to be told", ANSWER_WAIT, || {
            Ok((component(&control, "database")?["state"] == "degraded").then_some(()))
        })?;
        ensure!(
            code(control.rpc()?.call("config.reload", json!({"idempotency_key": "k1"})))? == "not_recorded"
        );
        ensure!(
            control.rpc()?.call("history.migrations", json!({})).is_err(),
            "a database that is away answers"
        );
        // Calls without a key, and migrations, go on.
        control.rpc()?.call("config.reload", json!({}))?;
        let session = under.finish(70_000)?;
        wait::until("records in the spool", ANSWER_WAIT, || {
            let spool = part(&component(&control, "database")?, "spool");
            Ok(spool["detail"].to_string().contains("on disk").then_some(()))
        })?;
        postgres.again(scratch)?;
        wait::until("the return to be seen", DRAINED, || {
            Ok((component(&control, "database")?["state"] == "up").then_some(()))
        })?;
        must_be_delivered(&control, &session, 70_005)?;
        let again = control.rpc()?.call("config.reload", json!({"idempotency_key": "k1"}))?;
        ensure!(again == first, "a repeat was carried out: {again}");
        let whole = control.rpc()?.call("audit.verify", json!({}))?;
        ensure!(whole["entries"] == 6, "{whole}");
        let count = postgres.order("novacron", "SELECT COUNT(*) FROM audit")?;
        ensure!(count == "6", "{count}");
        Ok(())
    })
}

/// Set where this test runs in a mount namespace with a small disk.
const FULL: &str = "NOVACRON_TESTBED_FULL";

#[test]
fn a_full_disk_refuses_what_cannot_be_written_down_and_loses_nothing() -> Result<()> {
    if let Some(disk) = std::env::var_os(FULL) {
        return on_a_full_disk(Path::new(&disk));
    }
    let scratch = Scratch::new()?;
    let disk = scratch.file("disk");
    fs::create_dir(&disk)?;
    let name = "a_full_disk_refuses_what_cannot_be_written_down_and_loses_nothing";
    let script =
        format!("mount -t tmpfs -o size=24m tmpfs \"${FULL}\" && exec \"$0\" --exact {name} --nocapture");
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", &script])
        .arg(std::env::current_exe()?)
        .env(FULL, &disk)
        .output()
        .context("starting unshare")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || said.contains("mount:") {
        println!("skipped: no mount namespace can be made here: {said}");
        return Ok(());
    }
    let out = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && out.contains("1 passed"), "{said}{out}");
    Ok(())
}

fn on_a_full_disk(disk: &Path) -> Result<()> {
    Scratch::with_logs(|scratch| {
        fs::create_dir(scratch.file("a"))?;
        std::os::unix::fs::symlink(disk, scratch.file("a").join("data"))?;
        let control = Control::start(scratch, "a", &[])?;
        let ballast = disk.join("ballast");
        let full = std::io::copy(&mut std::io::repeat(1), &mut fs::File::create(&ballast)?);
        ensure!(full.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull));
        // Until SQLite needs another page, it writes into those that it has; so does the spool beside it.
        let mut done = 0;
        let refused = wait::until("a refusal", ANSWER_WAIT, || {
            match control.rpc()?.call("config.reload", json!({})) {
                Ok(_) => {
                    done += 1;
                    Ok(None)
                }
                Err(error) => Ok(Some(code(Err(error))?)),
            }
        })?;
        ensure!(refused == "not_recorded", "{refused}");
        wait::until("the full disk to be told", ANSWER_WAIT, || {
            Ok((component(&control, "database")?["state"] == "degraded").then_some(()))
        })?;
        ensure!(control.health("/ready")?.0 == 200, "what only looks still works");
        fs::remove_file(&ballast)?;
        wait::until("the database to write again", DRAINED, || {
            Ok((component(&control, "database")?["state"] == "up").then_some(()))
        })?;
        control.rpc()?.call("config.reload", json!({}))?;
        // Every call that was done has both entries; every other one says that nothing came of it.
        let (mut after, mut outcomes) = (0, std::collections::BTreeMap::<String, usize>::new());
        loop {
            let page = control.rpc()?.call("audit.list", json!({"after": after}))?;
            for entry in page["entries"].as_array().context("no entries")? {
                *outcomes.entry(entry["outcome"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => break,
            }
        }
        let count = |name: &str| outcomes.get(name).copied().unwrap_or_default();
        println!("{done} calls before the disk was full: {outcomes:?}");
        ensure!(count("done") == done + 1 && count("failed") == 0, "{outcomes:?}");
        ensure!(count("begun") == count("done") + count("refused"), "{outcomes:?}");
        control.rpc()?.call("audit.verify", json!({}))?;
        Ok(())
    })
}

#[test]
fn a_log_that_was_changed_ends_the_start_and_a_head_kept_elsewhere_finds_a_cut() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut control = Control::start(scratch, "a", &[])?;
        control.rpc()?.call("config.reload", json!({}))?;
        let head = control.rpc()?.call("audit.verify", json!({}))?["head"].clone();
        let socket = control.socket().display().to_string();
        let (status, lines) =
            novactl::run(scratch, "novactl-export", &["audit", "export", "--control", &socket])?;
        ensure!(status.success(), "{lines}");
        let entries: Vec<Value> = lines
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(serde_json::from_str)
            .collect::<serde_json::Result<_>>()?;
        ensure!(entries.len() == 2 && entries[0]["outcome"] == "begun", "{lines}");
        ensure!(
            head.as_str().is_some_and(|head| head.starts_with("2:")
                && head.ends_with(entries[1]["hash"].as_str().unwrap_or("none"))),
            "{head} {lines}"
        );
        // A head that the log never had.
        let other = format!("2:{}", "0".repeat(64));
        ensure!(code(control.rpc()?.call("audit.verify", json!({"kept": [other]})))? == "internal_error");
        // Only the caller's word: the node goes on.
        control.rpc()?.call("config.reload", json!({}))?;
        let kept = control.rpc()?.call("audit.verify", json!({"kept": [head]}))?;
        ensure!(kept["entries"] == 4, "{kept}");
        control.process().terminate()?;

        let file = control.data_dir().join("store.sqlite");
        Connection::open(&file)?.execute("UPDATE audit SET actor = 'uid:7' WHERE seq = 2", [])?;
        let error = control.again(scratch, "a-again").err().context("a changed audit log was taken")?;
        ensure!(format!("{error:#}").contains("was changed"), "{error:#}");
        Ok(())
    })
}

#[test]
fn redis_is_no_database_and_a_configuration_says_what_is_wrong_with_it() -> Result<()> {
    Scratch::with_logs(|scratch| {
        for (name, given, expected) in [
            ("a", vec![("storage.backend", "\"redis\"")], "storage.cache_url for Redis"),
            ("b", vec![("storage.backend", "\"postgres\"")], "expected postgres://USER@HOST/DATABASE"),
            (
                "c",
                vec![("storage.backend", "\"postgres\""), ("storage.url", "\"postgres://u:secret@h/d\"")],
                "holds a password",
            ),
        ] {
            let mut control = Control::begin(scratch, name, &given)?;
            let status = control.process().wait(ANSWER_WAIT)?;
            let log = control.process().log_tail();
            ensure!(status.code() == Some(2) && log.contains(expected), "{status}: {log}");
            ensure!(!log.contains("secret"), "a password was shown: {log}");
        }
        Ok(())
    })
}

/// What models are to learn from: a peer that has streams is probed, what is measured is shown at once and kept soon after.
#[test]
fn paths_of_a_real_gateway_are_shown_and_kept() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (port_a, port_b) = (port::free()?, port::free()?);
        let control = Control::start(scratch, "a", &[("dwcp.probe_port", &port_a.to_string())])?;
        let extra = vec!["--probe-listen".to_owned(), format!("127.0.0.1:{port_b}")];
        let b = Gateway::start(scratch, "b", &GatewayOptions { extra, ..GatewayOptions::default() })?;
        let under = migrate(scratch, &control, &b, "path", None)?;
        let peer = format!("127.0.0.1:{port_b}");
        let shown = wait::until("metrics of the path", RECORDED, || {
            let text = control.metrics()?;
            let wanted = [
                format!("novacron_path_round_trip_seconds{{peer=\"{peer}\",which=\"median\"}} 0.0"),
                format!("novacron_path_loss_ratio{{peer=\"{peer}\",way=\"forward\"}}"),
                format!("novacron_path_bandwidth_bytes_per_second{{peer=\"{peer}\"}}"),
                format!("novacron_path_measured_by{{peer=\"{peer}\",by=\"userspace\"}} 1"),
                "novacron_probes_total{outcome=\"answered\"}".to_owned(),
            ];
            Ok(wanted.iter().all(|line| text.contains(line)).then_some(text))
        })?;
        let modes: Vec<_> = shown.lines().filter(|line| line.starts_with("novacron_path_mode{")).collect();
        ensure!(modes.iter().filter(|line| line.ends_with(" 1")).count() == 1, "one mode of {modes:?}");
        let kept = wait::until("a sample in the store", SAMPLED, || {
            let page = control.rpc()?.call("history.paths", json!({"peer": peer}))?;
            let mut samples = page["samples"].as_array().context("no samples")?.iter();
            Ok(samples.find(|sample| sample["peer"] == peer.as_str()).cloned())
        })?;
        ensure!(kept["rtt_us"].is_u64() && kept["loss_ppm"].is_u64(), "{kept}");
        ensure!(kept["bandwidth_bytes_per_s"].as_u64() > Some(0), "{kept}");
        under.finish(1)?;
        Ok(())
    })
}
