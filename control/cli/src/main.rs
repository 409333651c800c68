//! `novactl`: what people and scripts type.
//!
//! `migrate` moves a running VM through two gateways and `recover` settles what a crash or a cut left; both hold
//! the hypervisors' QMP sockets and keep promise 2, one guest: never none, never two. The pure table behind it is
//! [`recover::decide`]; the order of the commit is [`commit`]. The other commands are one call on a gateway each.
#![forbid(unsafe_code)]

mod args;
mod commit;
mod config;
mod doctor;
mod ends;
mod journal;
mod keys;
mod limits;
mod lines;
mod migrate;
mod node;
mod outcome;
mod pair;
mod paths;
mod qmp;
mod recover;
mod remote;
mod report;
mod rpc;
mod session;
mod sessions;
mod shell;
mod watch;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

use args::{Cli, Command, MigrateArgs};
use report::{EXIT_DONE, EXIT_FAILED, EXIT_REFUSED};
use rpc::GatewayError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(match &cli.command {
        Command::Migrate(args) => migrate(args),
        Command::Recover(args) => {
            let report = recover::run(args);
            if args.json {
                print(&sessions::json(&report));
            } else {
                print(&report.sentences());
            }
            report.exit()
        }
        Command::Sessions(args) => one_call(sessions::list(args)),
        Command::Show(args) => one_call(sessions::show(args)),
        Command::Cancel(args) => one_call(sessions::cancel(args)),
        Command::Session(command) => {
            let said = session::run(command);
            if said.exit == EXIT_DONE {
                print(&said.text)
            } else {
                tell(&said.text)
            }
            said.exit
        }
        Command::Info(args) => one_call(sessions::info(args)),
        Command::Paths(args) => one_call(paths::list(args)),
        Command::Probe(args) => one_call(paths::probe(args, print)),
        Command::Keys(args) => said(keys::run(args)),
        Command::Pair(args) => said(pair::run(args)),
        Command::Doctor(args) => said(Ok(doctor::run(args))),
        Command::Config(args) => said(Ok(config::run(args))),
        Command::Status(args) => said(node::status(args)),
        Command::Health(args) => said(node::health(args)),
        Command::Events(args) => said(node::events(args)),
        Command::History(command) => said(node::history(command)),
        Command::Audit(command) => said(node::audit(command)),
        Command::Node(command) => said(node::node(command)),
        Command::Token(command) => said(node::token(command)),
        Command::Completion(args) => said(Ok(shell::completion(args))),
        Command::Man(args) => said(shell::man(args)),
    })
}

fn migrate(args: &MigrateArgs) -> u8 {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first one cancels cleanly; a second one, should that take too long, ends the process at once, and
        // `recover` settles the rest. Registered in this order, so that the first does not count as the second.
        let registered = signal_hook::flag::register_conditional_default(signal, interrupted.clone())
            .and_then(|_| signal_hook::flag::register(signal, interrupted.clone()));
        if let Err(error) = registered {
            tell(&format!("signals cannot be caught ({error}); nothing was changed\n"));
            return EXIT_REFUSED;
        }
    }
    let report = migrate::run(args, &interrupted);
    let sentences = report.sentences(args.state_dir.as_deref());
    if args.json {
        print(&(serde_json::to_string(&report).unwrap_or_default() + "\n"));
        if report.exit() != EXIT_DONE {
            tell(&sentences);
        }
    } else if report.exit() == EXIT_DONE {
        print(&sentences);
    } else {
        tell(&sentences);
    }
    report.exit()
}

fn said(result: Result<keys::Said, keys::Failed>) -> u8 {
    match result {
        Ok(said) => {
            print(&said.text);
            said.exit
        }
        Err(error) => {
            tell(&format!("{error}\n"));
            keys::Failed::EXIT
        }
    }
}

fn one_call(result: Result<String, GatewayError>) -> u8 {
    match result {
        Ok(text) => {
            print(&text);
            EXIT_DONE
        }
        Err(error) => {
            tell(&format!("{error}\n"));
            EXIT_FAILED
        }
    }
}

/// Writes to stdout. A reader that went away (`| head`) is no reason to fail, let alone to panic.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes to stderr. `eprintln!` panics where that fails, and a full disk must not kill a migration at its commit.
pub(crate) fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("novactl: {text}").as_bytes());
}
