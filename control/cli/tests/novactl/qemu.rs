//! A scripted QEMU: QMP on a unix socket, one client at a time, and the states of a migration.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Shared, State, locked, unlink};

/// One virtual machine.
#[derive(Clone, Debug)]
pub(crate) struct Vm {
    pub(crate) alive: bool,
    pub(crate) status: String,
    pub(crate) migration: Option<String>,
    pub(crate) machine: &'static str,
    pub(crate) version: [i64; 3],
    pub(crate) memory: u64,
    pub(crate) cpus: usize,
    /// `query-migrate`s since the migration began.
    looks: u32,
    /// Whether it would start an incoming guest by itself: true without `-S`.
    autostart: bool,
}

impl Vm {
    pub(crate) fn new(status: &str, migration: Option<&str>) -> Self {
        Self {
            alive: true,
            status: status.into(),
            migration: migration.map(Into::into),
            machine: "pc-q35-10.0-machine",
            version: [10, 0, 2],
            memory: 256 << 20,
            cpus: 1,
            looks: 0,
            autostart: true,
        }
    }
}

/// Serves one VM's QMP socket until it is no longer alive.
pub(crate) fn serve(name: &'static str, path: &Path, state: &Shared) {
    let listener = UnixListener::bind(path).expect("a socket");
    listener.set_nonblocking(true).expect("non-blocking");
    let (path, state) = (path.to_owned(), state.clone());
    std::thread::spawn(move || {
        while vm(&mut locked(&state), name).alive {
            match listener.accept() {
                Ok((stream, _)) => session(name, &stream, &state),
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(2)),
                Err(error) => panic!("{error}"),
            }
        }
        unlink(&path);
    });
}

fn vm<'a>(state: &'a mut State, name: &str) -> &'a mut Vm {
    if name == "source" { &mut state.source } else { &mut state.destination }
}

fn session(name: &'static str, stream: &UnixStream, state: &Shared) {
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    let mut writer = stream.try_clone().expect("a clone");
    let mut send = |value: Value| writer.write_all(format!("{value}\r\n").as_bytes()).is_ok();
    let [major, minor, micro] = vm(&mut locked(state), name).version;
    let version = json!({"qemu": {"major": major, "minor": minor, "micro": micro}, "package": ""});
    if !send(json!({"QMP": {"version": version, "capabilities": ["oob"]}})) {
        return;
    }
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        if !vm(&mut locked(state), name).alive {
            return;
        }
        match reader.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        }
        let request: Value = serde_json::from_str(&line).expect("a QMP command");
        line.clear();
        let id = request["id"].clone();
        let command = request["execute"].as_str().expect("a command").to_owned();
        // An event that no schema knows, before every answer: real QEMUs grow them.
        let event = json!({"event": "X_LATER_QEMU", "timestamp": {"seconds": 1, "microseconds": 1}});
        let answer = execute(name, &command, &request["arguments"], &mut locked(state));
        match answer {
            Answer::Ok(value) => {
                if !send(event) || !send(json!({"return": value, "id": id})) {
                    return;
                }
            }
            Answer::Refused(why) => {
                if !send(json!({"error": {"class": "GenericError", "desc": why}, "id": id})) {
                    return;
                }
            }
            Answer::Lost => return,
        }
    }
}

enum Answer {
    Ok(Value),
    Refused(&'static str),
    /// The connection closes instead.
    Lost,
}

fn execute(name: &'static str, command: &str, arguments: &Value, state: &mut State) -> Answer {
    if matches!(command, "stop" | "cont" | "quit" | "migrate" | "migrate_cancel" | "migrate-incoming") {
        state.log.push(format!("{name}:{command}"));
    }
    let faults = state.faults.clone();
    match command {
        "qmp_capabilities" => Answer::Ok(json!({})),
        "query-status" => {
            let vm = vm(state, name);
            Answer::Ok(json!({"status": vm.status, "running": vm.status == "running"}))
        }
        "query-migrate" => query_migrate(name, state),
        "qom-get" => Answer::Ok(json!(vm(state, name).machine)),
        "query-memory-size-summary" => {
            Answer::Ok(json!({"base-memory": vm(state, name).memory, "plugged-memory": 0}))
        }
        "query-cpus-fast" => Answer::Ok(json!(vec![json!({"cpu-index": 0}); vm(state, name).cpus])),
        "migrate-set-capabilities" | "migrate-set-parameters" => {
            state.log.push(format!("{name}:{command} {arguments}"));
            Answer::Ok(json!({}))
        }
        "stop" => {
            let vm = vm(state, name);
            vm.autostart = false;
            if vm.status == "running" {
                vm.status = "paused".into();
            }
            Answer::Ok(json!({}))
        }
        "migrate-incoming" => {
            vm(state, name).migration = Some("setup".into());
            Answer::Ok(json!({}))
        }
        "migrate" if state.faults.cleans_up > 0 => {
            state.faults.cleans_up -= 1;
            let why = ["There's a migration process in progress", "duplicate yank instance"];
            Answer::Refused(why[state.faults.cleans_up as usize % 2])
        }
        "migrate" => {
            state.source.migration = Some("setup".into());
            state.destination.migration = Some("active".into());
            Answer::Ok(json!({}))
        }
        "migrate_cancel" if faults.cancel_too_late => {
            complete(state);
            Answer::Ok(json!({}))
        }
        "migrate_cancel" => {
            fail(state, "cancelled");
            Answer::Ok(json!({}))
        }
        "cont" if name == "destination" && faults.cont_refused => {
            Answer::Refused("Failed to get shared \"write\" lock")
        }
        "cont" if name == "destination" && faults.cont_lost => Answer::Lost,
        "cont" => {
            // What a real QEMU does in 'inmigrate': arm the autostart. No test may ever see it.
            assert_ne!(vm(state, name).status, "inmigrate", "cont before the guest is there");
            let stops = name == "destination" && faults.guest_stops;
            vm(state, name).status = if stops { "io-error" } else { "running" }.into();
            if name == "destination" && faults.cont_answer_lost {
                Answer::Lost
            } else {
                Answer::Ok(json!({}))
            }
        }
        "quit" if name == "source" && faults.source_stays => Answer::Ok(json!({})),
        "quit" => {
            vm(state, name).alive = false;
            Answer::Ok(json!({}))
        }
        _ => Answer::Refused("The command has not been found"),
    }
}

fn query_migrate(name: &str, state: &mut State) -> Answer {
    let faults = state.faults.clone();
    let active = |vm: &Vm| matches!(vm.migration.as_deref(), Some("setup" | "active"));
    if name == "source" && active(&state.source) {
        state.source.looks += 1;
        match state.source.looks {
            1 => {}
            2 => state.source.migration = Some("active".into()),
            _ if faults.source_vanishes => {
                state.source.alive = false;
                return Answer::Lost;
            }
            _ if faults.source_fails => fail(state, "failed"),
            _ if faults.stuck || faults.session_fails || faults.gateway_vanishes => {}
            _ => complete(state),
        }
    }
    // The destination is loaded a moment after the source completed.
    if name == "destination" && state.source.migration.as_deref() == Some("completed") {
        if state.faults.loading_looks > 0 {
            state.faults.loading_looks -= 1;
        } else if state.destination.status == "inmigrate" {
            load(state);
        }
    }
    let vm = vm(state, name);
    let Some(status) = &vm.migration else { return Answer::Ok(json!({})) };
    Answer::Ok(json!({"status": status, "total-time": 10, "downtime": 7, "setup-time": 1,
        "ram": {"transferred": 1000, "remaining": 500, "total": 2000, "dirty-sync-count": 3, "mbps": 8.5,
            "a-member-of-a-later-qemu": 1}}))
}

fn complete(state: &mut State) {
    state.source.migration = Some("completed".into());
    state.source.status = "postmigrate".into();
    if state.faults.destination_vanishes {
        state.destination.alive = false;
    } else if state.faults.loading_looks == 0 {
        load(state);
    }
    state.session.end("finished", None);
}

fn load(state: &mut State) {
    state.destination.migration = Some("completed".into());
    let starts = state.faults.autostart || state.destination.autostart;
    state.destination.status = if starts { "running" } else { "paused" }.into();
}

/// As QEMU does: the guest goes on at the source, the incoming QEMU exits.
fn fail(state: &mut State, how: &str) {
    state.source.migration = Some(how.into());
    state.source.status = "running".into();
    state.session.end("failed", None);
}
