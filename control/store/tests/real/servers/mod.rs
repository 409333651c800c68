//! Servers that belong to one test run.

pub(crate) mod certificates;
pub(crate) mod postgres;
pub(crate) mod redis;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A port that nobody used a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The program, where it is installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places =
        std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|path| path.is_file())
}

/// Whether this process may become somebody else, as servers that refuse to run as root ask for.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Starts a program that gets `signal` when this test process ends, however it ends.
///
/// The kernel ties that signal to the thread that starts the program, and tests' threads end before the process: so
/// one thread starts everything, and lives as long as the process.
pub(crate) fn start(signal: &str, user: Option<(u32, u32)>, command: &[&std::ffi::OsStr]) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: std::sync::OnceLock<mpsc::Sender<Order>> = std::sync::OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let mut whole = Command::new("setpriv");
    whole.args(["--pdeathsig", signal]);
    if let Some((user, group)) = user {
        whole.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
    }
    whole.arg("--").args(command);
    let (reply, child) = mpsc::channel();
    starter.send((whole, reply)).unwrap();
    child.recv().unwrap().unwrap()
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "after two minutes still not: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Gives a file or folder to the user that a server runs as.
pub(crate) fn give(path: &Path, user: Option<(u32, u32)>) {
    if let Some((user, group)) = user {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}
