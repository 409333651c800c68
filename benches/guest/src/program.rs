//! Programs of the image as children of this process.

use std::fs::OpenOptions;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Where programs write what is meant for people: the second serial port, which the host keeps as a file.
const CONSOLE: &str = "/dev/ttyS1";

/// A command whose messages go to the console, with an environment that depends on nothing.
pub(crate) fn command(program: &str) -> Result<Command> {
    let console = || OpenOptions::new().write(true).open(CONSOLE).context(CONSOLE);
    let mut command = Command::new(program);
    command.env_clear().envs([("PATH", "/usr/bin:/usr/sbin"), ("HOME", "/run"), ("LC_ALL", "C.UTF-8")]);
    command.stdin(Stdio::null()).stdout(console()?).stderr(console()?);
    Ok(command)
}

/// Starts a command.
///
/// # Errors
/// When the image has no such program.
pub(crate) fn start(command: &mut Command) -> Result<Child> {
    let name = command.get_program().to_owned();
    command.spawn().with_context(|| format!("starting {}", name.display()))
}
