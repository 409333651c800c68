//! A lab that runs as a process of its own and ends with us.

use std::env;
use std::io::{BufReader, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::addresses::End;
use crate::conditions::Conditions;
use crate::control::{Answer, Client, Greeting, Request, SiteReport, Way, read_line};
use crate::limits::{POLL, START_WAIT, STOP_WAIT};
use crate::report::LabReport;
use crate::topology::Topology;
use crate::{namespace, state};

/// A lab. Dropping it removes all that it made. If this process dies without dropping it, the lab notices (its standard
/// input ends) and removes itself; if the lab is killed, whatever it left is removed by the next one that starts.
#[derive(Debug)]
pub struct Lab {
    id: String,
    child: Child,
    /// Open for as long as the lab shall live.
    stdin: Option<ChildStdin>,
    sites: Vec<Site>,
    client: Mutex<Client>,
}

/// A site: a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    name: String,
    namespace: String,
    ends: Vec<End>,
}

impl Lab {
    /// Makes the topology's sites and links, with a seed of its own.
    ///
    /// # Errors
    /// What is missing or could not be made; nothing is left behind.
    pub fn start(topology: &Topology) -> Result<Self> {
        Self::start_with(topology, fastrand::u64(..))
    }

    /// The same with a seed: chance takes the same course.
    ///
    /// # Errors
    /// Those of [`Lab::start`].
    pub fn start_with(topology: &Topology, seed: u64) -> Result<Self> {
        namespace::available().map_err(anyhow::Error::msg)?;
        topology.check()?;
        let program = program()?;
        let mut child = Command::new(&program)
            .args(["up", "--hosted", "--seed", &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The terminal's ctrl-C is for us; we end the lab when we have done with it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let started = greet(&mut child, topology);
        let (stdin, greeting) = match started {
            Ok(started) => started,
            Err(error) => {
                // Its input ended with the error: it removes what it has made so far.
                let _ = end(&mut child);
                return Err(error);
            }
        };
        let (id, sites) = match greeting {
            Greeting::Up { id, sites, .. } => (id, sites),
            Greeting::Error(error) => {
                drop(stdin);
                let _ = end(&mut child);
                bail!("the lab did not start: {error}");
            }
        };
        let client = match Client::connect(&state::socket(&id)) {
            Ok(client) => Mutex::new(client),
            Err(error) => {
                drop(stdin);
                let _ = end(&mut child);
                return Err(error);
            }
        };
        let sites = sites.into_iter().map(Site::from).collect();
        Ok(Self { id, child, stdin: Some(stdin), sites, client })
    }

    /// Its ID, as `novacron-lab show` wants it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The process that moves frames.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A site.
    ///
    /// # Errors
    /// When there is none of this name: says which there are.
    pub fn site(&self, name: &str) -> Result<&Site> {
        self.sites.iter().find(|site| site.name == name).with_context(|| {
            let names: Vec<&str> = self.sites.iter().map(Site::name).collect();
            format!("there is no site {name:?} in this lab; expected one of {}", names.join(", "))
        })
    }

    /// All sites, in the topology's order.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Changes a link while it runs. It has changed when this returns.
    ///
    /// # Errors
    /// When there is no such link, or a condition is out of range; nothing was changed then.
    pub fn set(&self, link: &str, way: Way, conditions: &Conditions) -> Result<()> {
        self.ask(&Request::Set { link: link.to_owned(), way, conditions: Box::new(conditions.clone()) })
    }

    /// What became of frames, and how late, since the start or the last [`Lab::reset`].
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn report(&self) -> Result<LabReport> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).report()
    }

    /// Starts counters and lateness again.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn reset(&self) -> Result<()> {
        self.ask(&Request::Reset {})
    }

    fn ask(&self, request: &Request) -> Result<()> {
        match self.client.lock().unwrap_or_else(PoisonError::into_inner).ask(request)? {
            Answer::Done => Ok(()),
            other => bail!("the lab answered something else: {other:?}"),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stdin = None;
        if end(&mut self.child).is_err() {
            // It had to be killed: what it left is a dead lab's.
            if let Err(error) = state::sweep() {
                crate::tell(&format!("{error:#}; the next lab that starts tries again"));
            }
        }
    }
}

/// Waits for a lab whose input has ended; kills it if it does not end.
fn end(child: &mut Child) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < STOP_WAIT {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => bail!("the lab ended with {status}"),
            Ok(None) => thread::sleep(POLL),
            Err(error) => return Err(error).context("waiting for the lab"),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    bail!("the lab did not end within {} s and was killed", STOP_WAIT.as_secs())
}

/// Hands the topology over and waits for the first line.
fn greet(child: &mut Child, topology: &Topology) -> Result<(ChildStdin, Greeting)> {
    let mut stdin = child.stdin.take().context("the lab has no standard input")?;
    let stdout = child.stdout.take().context("the lab has no standard output")?;
    let mut line = serde_json::to_vec(topology).context("writing the topology")?;
    line.push(b'\n');
    stdin.write_all(&line).context("handing the topology to the lab")?;
    let (said, greeting) = sync_channel(1);
    // Ends with the lab at the latest.
    thread::spawn(move || {
        let _ = said.send(read_line(&mut BufReader::new(stdout)));
    });
    let line = greeting.recv_timeout(START_WAIT);
    let line = line.with_context(|| format!("the lab was not up within {} s", START_WAIT.as_secs()))??;
    let line = line.context("the lab ended without a word")?;
    Ok((stdin, serde_json::from_str(&line).with_context(|| format!("the lab said {line:?}"))?))
}

impl From<SiteReport> for Site {
    fn from(site: SiteReport) -> Self {
        Self { name: site.name, namespace: site.namespace, ends: site.ends }
    }
}

impl Site {
    /// Its name in the topology.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace, as `ip netns` knows it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its IPv4 address on its first link.
    pub fn address(&self) -> IpAddr {
        // A topology in which a site has no link is refused.
        self.ends.first().map_or(IpAddr::from([0, 0, 0, 0]), |end| end.v4.into())
    }

    /// Its IPv4 address on a link; `None`: it has no end there.
    pub fn address_on(&self, link: &str) -> Option<IpAddr> {
        self.end(link).map(|end| end.v4.into())
    }

    /// Its end of a link: both addresses, and the device's Ethernet address.
    pub fn end(&self, link: &str) -> Option<&End> {
        self.ends.iter().find(|end| end.link == link)
    }

    /// Its ends of links, in the topology's order.
    pub fn ends(&self) -> &[End] {
        &self.ends
    }

    /// What to put before a command so that it runs in this site. The process keeps its number.
    pub fn enter(&self) -> Vec<String> {
        let file = namespace::path(&self.namespace);
        vec!["nsenter".to_owned(), format!("--net={}", file.display()), "--".to_owned()]
    }

    /// Does something in this site, on a thread of its own. Sockets opened there stay there.
    ///
    /// # Errors
    /// When the site cannot be entered, and those of `work`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        namespace::within(&self.namespace, work)
    }
}

/// `novacron-lab`: in `$NOVACRON_BIN_DIR`, else beside us, else in the release profile next to ours.
fn program() -> Result<PathBuf> {
    const NAME: &str = "novacron-lab";
    if let Some(folder) = env::var_os("NOVACRON_BIN_DIR") {
        let program = Path::new(&folder).join(NAME);
        ensure!(program.is_file(), "{} is missing: run `make build`", program.display());
        return Ok(program);
    }
    let this = env::current_exe().context("finding out which program this is")?;
    if this.file_name().is_some_and(|name| name == NAME) {
        return Ok(this);
    }
    let mut folder = this.parent().context("this program has no directory")?;
    if folder.file_name().is_some_and(|name| name == "deps" || name == "examples") {
        folder = folder.parent().unwrap_or(folder);
    }
    let beside = folder.join(NAME);
    let release = folder.parent().unwrap_or(folder).join("release").join(NAME);
    let found = [&beside, &release].into_iter().find(|program| program.is_file());
    found.cloned().with_context(|| format!("{} is missing: run `make build`", beside.display()))
}
