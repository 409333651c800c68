//! A `novacron-control` process, and the gateway that it starts.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::limits::{ANSWER_WAIT, SOCKET_WAIT};
use crate::process::behind;
use crate::{Process, Rpc, Scratch, artefact, identity, port, wait};

/// One control process. When this is dropped it is killed, and so is the gateway that it started: that one would
/// outlive it.
#[derive(Debug)]
pub struct Control {
    process: Process,
    folder: PathBuf,
    file: PathBuf,
    prefix: Vec<String>,
    peer: String,
    health_port: u16,
    metrics_port: u16,
}

/// What of a configuration a test changes: `KEY: VALUE` lines of a section each, as YAML.
pub type Sections<'a> = &'a [(&'a str, &'a str)];

impl Control {
    /// Starts one with an identity of its own and waits until it is ready.
    ///
    /// # Errors
    /// When a binary is missing (says what to run) or it does not become ready (with its log).
    pub fn start(scratch: &Scratch, name: &str, more: Sections<'_>) -> Result<Self> {
        let mut control = Self::begin(scratch, name, more)?;
        control.wait_ready()?;
        Ok(control)
    }

    /// The same behind words of a command line, as for a clock of its own.
    ///
    /// # Errors
    /// Those of [`Control::start`].
    pub fn start_behind(
        prefix: &[String],
        scratch: &Scratch,
        name: &str,
        more: Sections<'_>,
    ) -> Result<Self> {
        let mut control = Self::begin_behind(prefix, scratch, name, more)?;
        control.wait_ready()?;
        Ok(control)
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// When a binary is missing, or the configuration cannot be written.
    pub fn begin(scratch: &Scratch, name: &str, more: Sections<'_>) -> Result<Self> {
        Self::begin_behind(&[], scratch, name, more)
    }

    fn begin_behind(prefix: &[String], scratch: &Scratch, name: &str, more: Sections<'_>) -> Result<Self> {
        let folder = scratch.file(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let (health_port, metrics_port, bind_port) = (port::free()?, port::free()?, port::free()?);
        let file = folder.join("novacron.yaml");
        let identity = identity::folder_of(scratch, name)?;
        let base = json!({
            "system": {
                "node_id": name,
                "data_dir": folder.join("data"),
                "control_socket": folder.join("control.sock"),
                "health_check_port": health_port,
                "log_format": "text",
            },
            "dwcp": {"gateway_socket": folder.join("gateway.sock")},
            "network": {"bind_port": bind_port},
            "monitoring": {"metrics_port": metrics_port},
            "security": {"identity_dir": identity},
        });
        fs::write(&file, configured(base, more)?).with_context(|| format!("writing {}", file.display()))?;
        let process = launch(prefix, scratch, name, &file)?;
        let peer = format!("tcp:127.0.0.1:{bind_port}");
        let prefix = prefix.to_vec();
        Ok(Self { process, folder, file, prefix, peer, health_port, metrics_port })
    }

    /// Waits until `/ready` says so.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        let port = self.health_port;
        let ready = wait::until("the control process to be ready", SOCKET_WAIT, || {
            self.process.must_run()?;
            Ok(get(port, "/ready").ok().filter(|(status, _)| *status == 200).map(drop))
        });
        ready.with_context(|| format!("its log: {}", self.process.log_tail()))
    }

    /// Kills it as `kill -9` does, and leaves its gateway.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, in the same place.
    ///
    /// # Errors
    /// Those of [`Control::start`].
    pub fn again(&mut self, scratch: &Scratch, name: &str) -> Result<()> {
        self.process = launch(&self.prefix, scratch, name, &self.file)?;
        self.wait_ready()
    }

    /// Changes sections of the configuration file: keys that are named replace those that stand there.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn configure(&self, more: Sections<'_>) -> Result<()> {
        let base = serde_json::from_str(&fs::read_to_string(&self.file)?)
            .context("the configuration is not JSON")?;
        let changed = self.file.with_extension("next");
        fs::write(&changed, configured(base, more)?)?;
        fs::rename(&changed, &self.file).context("replacing the configuration")
    }

    /// A connection to its control socket.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rpc(&self) -> Result<Rpc> {
        Rpc::connect(&self.socket())
    }

    /// A connection to its gateway's own control socket.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn gateway_rpc(&self) -> Result<Rpc> {
        Rpc::connect(&self.folder.join("gateway.sock"))
    }

    /// The path of its control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Where its gateway listens for other gateways.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The process number of the gateway that it started.
    ///
    /// # Errors
    /// When it noted none.
    pub fn gateway_pid(&self) -> Result<u32> {
        let note =
            fs::read_to_string(self.data_dir().join("gateway.json")).context("no gateway was noted")?;
        let note: Value = serde_json::from_str(&note).context("the note of the gateway is not JSON")?;
        note["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).context("the note names no process")
    }

    /// A page over HTTP: status and body.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        get(self.health_port, path)
    }

    /// The metrics.
    ///
    /// # Errors
    /// When nobody answers, or the answer is none.
    pub fn metrics(&self) -> Result<String> {
        let (status, text) = get(self.metrics_port, "/metrics")?;
        ensure!(status == 200, "/metrics answers {status}");
        Ok(text)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.process.kill();
        let Ok(pid) = self.gateway_pid() else { return };
        // The number may be another process's by now: only one that was started with our socket is ours.
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if words.contains(&self.folder.display().to_string())
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            // It has ended: then that is all that was wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn launch(prefix: &[String], scratch: &Scratch, name: &str, file: &Path) -> Result<Process> {
    let program = artefact::binary("novacron-control")?;
    artefact::binary("novacron-gateway")?;
    let (program, arguments) = behind(prefix, &program, &["--config".to_owned(), file.display().to_string()]);
    Process::start(scratch, name, &program, &arguments)
}

/// JSON with some sections changed; what stands there is JSON too, `section.key` by `section.key`.
fn configured(mut base: Value, more: Sections<'_>) -> Result<String> {
    for (path, value) in more {
        let mut at = &mut base;
        for part in path.split('.') {
            let members = if at.is_null() {
                at.take().as_object().cloned().unwrap_or_default()
            } else {
                at.as_object().cloned().with_context(|| format!("{path} is below a value"))?
            };
            *at = Value::Object(members);
            at = &mut at[part];
        }
        *at = serde_json::from_str(value).with_context(|| format!("{path}: {value} is not JSON"))?;
    }
    serde_json::to_string_pretty(&base).context("writing a configuration")
}

/// One GET of HTTP/1.0, whose end is the connection's.
fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("nobody serves HTTP")?;
    stream.set_read_timeout(Some(ANSWER_WAIT.min(Duration::from_secs(10))))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("reading HTTP")?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status =
        head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}
