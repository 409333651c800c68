//! A `novacron-gateway` process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::limits::SOCKET_WAIT;
use crate::process::behind;
use crate::{Process, Rpc, Scratch, artefact, identity, port, wait};

/// How a gateway's streams are protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// By keys of its own; all gateways of a scratch directory trust each other.
    #[default]
    Tls,
    /// By the keys in this identity folder.
    Identity(PathBuf),
    /// Not at all: for tests that look at, or change, what crosses the network.
    Plaintext,
}

/// How to start a gateway.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Listen for other gateways on a free port of `address`. A gateway that does not listen only dials.
    pub listen: bool,
    /// Where it listens: loopback, unless it stands in a network of its own.
    pub address: IpAddr,
    /// Words before its command line; see [`Process::start_behind`].
    pub prefix: Vec<String>,
    /// Where its messages go, e.g. `/dev/full`; `None`: to a log of their own.
    pub log: Option<PathBuf>,
    /// How its streams are protected.
    pub security: Security,
    /// More arguments.
    pub extra: Vec<String>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            listen: true,
            address: Ipv4Addr::LOCALHOST.into(),
            prefix: Vec::new(),
            log: None,
            security: Security::default(),
            extra: Vec::new(),
        }
    }
}

impl GatewayOptions {
    /// The same without encryption.
    #[must_use]
    pub fn plaintext() -> Self {
        Self { security: Security::Plaintext, ..Self::default() }
    }

    /// The same with one stream to each peer and no more, however little it carries.
    #[must_use]
    pub fn with_one_stream(mut self) -> Self {
        self.extra.extend(["--streams-max", "1"].map(String::from));
        self
    }
}

/// One gateway. It is killed when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    control: PathBuf,
    listen: Option<String>,
}

impl Gateway {
    /// Starts a gateway and waits until its control socket answers.
    ///
    /// # Errors
    /// When the binary is missing (says what to run) or the gateway does not come up (with its log).
    pub fn start(scratch: &Scratch, name: &str, options: &GatewayOptions) -> Result<Self> {
        let control = scratch.file(&format!("{name}.sock"));
        let mut arguments = vec!["--control".to_owned(), control.display().to_string()];
        let listen = if options.listen {
            // Free on our loopback; in a network of its own all are.
            Some(format!("tcp:{}", SocketAddr::new(options.address, port::free()?)))
        } else {
            None
        };
        if let Some(listen) = &listen {
            arguments.extend(["--listen".to_owned(), listen.clone()]);
        }
        let folder = match &options.security {
            // Said by hand.
            _ if options.extra.iter().any(|argument| argument == "--insecure-plaintext") => None,
            Security::Tls => Some(identity::folder_of(scratch, name)?),
            Security::Identity(folder) => Some(folder.clone()),
            Security::Plaintext => {
                arguments.push("--insecure-plaintext".to_owned());
                None
            }
        };
        if let Some(folder) = folder {
            arguments.extend(["--identity".to_owned(), folder.display().to_string()]);
        }
        arguments.extend(options.extra.iter().cloned());
        let program = artefact::binary("novacron-gateway")?;
        let (program, arguments) = behind(&options.prefix, &program, &arguments);
        let mut process = match &options.log {
            None => Process::start(scratch, name, &program, &arguments)?,
            Some(log) => Process::start_into(log, name, &program, &arguments, Stdio::null())?,
        };
        // One that has ended will never answer.
        let up = wait::until("its control socket", SOCKET_WAIT, || {
            process.must_run()?;
            Ok(UnixStream::connect(&control).is_ok().then_some(()))
        });
        let asked =
            up.and_then(|()| Rpc::connect(&control)?.call("gateway.info", serde_json::json!({})).map(drop));
        if let Err(error) = asked {
            process.must_run()?;
            return Err(error)
                .with_context(|| format!("{name} does not answer; its log: {}", process.log_tail()));
        }
        Ok(Self { process, control, listen })
    }

    /// The path of the control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// Where it listens for other gateways, e.g. `tcp:127.0.0.1:4711`.
    ///
    /// # Errors
    /// When it was started without listening.
    pub fn peer(&self) -> Result<&str> {
        self.listen.as_deref().with_context(|| format!("{} was started to dial only", self.process.name()))
    }

    /// A new connection to the control socket.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rpc(&self) -> Result<Rpc> {
        Rpc::connect(&self.control)
    }

    /// The process: to kill it, to ask what it used.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
