//! Children that cannot outlive us.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{io, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::limits::{EXIT_WAIT, LOG_TAIL_BYTES};
use crate::usage::Usage;
use crate::{Scratch, wait};

/// A child process. It is killed when this is dropped, and by the kernel when we die without dropping anything.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with what it prints going to `<name>.log` in `scratch`.
    ///
    /// # Errors
    /// When it cannot be started. That it fails later is seen by [`Process::exited`].
    pub fn start(scratch: &Scratch, name: &str, program: &Path, arguments: &[String]) -> Result<Self> {
        let log = scratch.file(&format!("{name}.log"));
        File::create(&log).with_context(|| format!("making {}", log.display()))?;
        Self::start_into(&log, name, program, arguments, Stdio::null())
    }

    /// The same behind the words of `prefix`, a command that becomes the program and keeps its number, as
    /// `nsenter --net=/run/netns/x --` does. An empty one changes nothing.
    ///
    /// # Errors
    /// Those of [`Process::start`].
    pub fn start_behind(
        prefix: &[String],
        scratch: &Scratch,
        name: &str,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        let (program, arguments) = behind(prefix, program, arguments);
        Self::start(scratch, name, &program, &arguments)
    }

    /// Starts `program` with `stdin`, and with what it prints going to `log`, which exists: a file, or `/dev/full`.
    ///
    /// # Errors
    /// Those of [`Process::start`].
    pub fn start_into(
        log: &Path,
        name: &str,
        program: &Path,
        arguments: &[String],
        stdin: Stdio,
    ) -> Result<Self> {
        let output = File::options().append(true).open(log);
        let output = output.with_context(|| format!("opening {}", log.display()))?;
        let errors = output.try_clone().context("sharing the log")?;
        let mut command = tied(program);
        command.args(arguments).stdin(stdin).stdout(output).stderr(errors);
        let child = spawn(command).with_context(|| format!("starting {name} ({})", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Starts `program` behind `prefix` as a part of a pipeline: it reads from `stdin` and writes to `stdout`. What it
    /// says of itself goes to `<name>.log` in `scratch`.
    ///
    /// # Errors
    /// Those of [`Process::start`].
    pub fn start_piped(
        prefix: &[String],
        scratch: &Scratch,
        name: &str,
        (program, arguments): (&Path, &[String]),
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Self> {
        let log = scratch.file(&format!("{name}.log"));
        let errors = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let (program, arguments) = behind(prefix, program, arguments);
        let mut command = tied(&program);
        command.args(arguments).stdin(stdin).stdout(stdout).stderr(errors);
        let child = spawn(command).with_context(|| format!("starting {name} ({})", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// What the process is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("asking after {}", self.name))
    }

    /// Fails if the process has ended, with the end of its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({}): {}", self.name, describe(status), self.log_tail()),
        }
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`; it is left running.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, || self.exited())
    }

    /// Kills it as `kill -9` does and waits until it is gone. Nothing happens when it has ended already.
    pub fn kill(&mut self) {
        // An error means that it has ended; the wait reaps it either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it still runs after [`EXIT_WAIT`].
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(EXIT_WAIT)
    }

    /// Closes the standard input that it was given as a pipe.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Asked first, so that the number is still this child's: it is free for others only after the wait.
        self.must_run()?;
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("the process number is not one")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Memory and processor time.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid()).with_context(|| format!("reading the usage of {}", self.name))
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its output, for messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command line behind the words of another.
pub(crate) fn behind(prefix: &[String], program: &Path, arguments: &[String]) -> (PathBuf, Vec<String>) {
    let Some((first, rest)) = prefix.split_first() else { return (program.to_owned(), arguments.to_vec()) };
    let program = program.display().to_string();
    let words = rest.iter().cloned().chain([program]).chain(arguments.iter().cloned());
    (PathBuf::from(first), words.collect())
}

/// "exit status: 1" or "signal 9".
pub fn describe(status: ExitStatus) -> String {
    status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"))
}

/// The end of a text file, or "(empty)".
pub(crate) fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(if text.is_empty() { "(empty)".to_owned() } else { text })
}

type Order = (Command, Sender<io::Result<Child>>);

/// A command that runs `program` under `setpriv --pdeathsig KILL`, which becomes the program and keeps its number:
/// the kernel kills it when we are gone. To be started by [`spawn`].
pub fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command made by [`tied`].
///
/// The kernel sends that signal when the *thread* that started the child ends (prctl(2)). So one thread that never
/// ends starts them all: a test may then start a process in a helper thread and keep it.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, received) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in received {
                // The one who asked may be gone; then the child is dropped here and lives as long as we do.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = channel();
    let gone = || io::Error::other("the thread that starts processes has ended");
    let orders = spawner.lock().unwrap_or_else(PoisonError::into_inner).clone();
    orders.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}
