//! The process that is a lab: namespaces, devices, a thread for each direction of a link, and the control socket.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use anyhow::{Context, Result};

use crate::addresses;
use crate::conditions::Conditions;
use crate::control::{Answer, Request, SiteReport, Way, limit, read_line, write_line};
use crate::direction::{Direction, State};
use crate::lateness::LatenessLog;
use crate::limits::{CLIENT_SILENCE, CLIENTS_MAX, POLL};
use crate::namespace;
use crate::report::{LabReport, LinkReport, WayReport};
use crate::state::Claim;
use crate::topology::{LinkSpec, Topology};

/// A lab in this process. Dropping it removes all that it made.
#[derive(Debug)]
pub(crate) struct Emulator {
    shared: Arc<RwLock<Option<Running>>>,
    claim: Claim,
    sites: Vec<SiteReport>,
}

#[derive(Debug)]
struct Running {
    id: String,
    topology: Topology,
    seed: u64,
    sites: Vec<SiteReport>,
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    spec: LinkSpec,
    forward: Direction,
    back: Direction,
}

/// Why a lab ends.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to.
    Told,
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl Emulator {
    /// Makes sites and links; `end` hears when one of them cannot go on.
    ///
    /// # Errors
    /// What could not be made; nothing is left of the rest.
    pub(crate) fn start(topology: &Topology, seed: u64, end: &Sender<End>) -> Result<Self> {
        namespace::available().map_err(anyhow::Error::msg)?;
        topology.check()?;
        let (claim, sites) = Claim::take(|id| make_sites(id, topology))?;
        let mut links = Vec::new();
        for (number, spec) in topology.links.iter().enumerate() {
            let (near, far) = addresses::ends(topology, number);
            let device = |site: &str, end| {
                namespace::tap(&namespace::name(claim.id(), site), end, spec.mtu).map(Arc::new)
            };
            let (from, to) = (device(&spec.from, &near)?, device(&spec.to, &far)?);
            let start = |devices, conditions: &Conditions, way: u64| {
                let (name, end) = (spec.name.clone(), end.clone());
                let thread = format!("{name}{}", if way == 0 { '>' } else { '<' });
                // Directions must not lose the same frames.
                let seed = seed.wrapping_add((number as u64 * 2 + way).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                Direction::start(&thread, devices, (conditions.clone(), seed, spec.mtu), move |error| {
                    let _ = end.send(End::Failed(error.context(format!("link {name}"))));
                })
            };
            let forward = start((from.clone(), to.clone()), &spec.forward, 0)?;
            let back = start((to, from), &spec.back, 1)?;
            links.push(Link { spec: spec.clone(), forward, back });
        }
        for site in &sites {
            let ends: Vec<_> = (0..topology.links.len())
                .map(|number| addresses::ends(topology, number))
                .zip(&topology.links)
                .filter_map(|((near, far), link)| match () {
                    () if link.from == site.name => Some((near, far)),
                    () if link.to == site.name => Some((far, near)),
                    () => None,
                })
                .collect();
            let routes = addresses::routes(topology, &site.name);
            let spec = topology.sites.iter().find(|spec| spec.name == site.name);
            let control = spec.and_then(|spec| spec.congestion_control.as_deref());
            namespace::address(&site.namespace, &ends, &routes, control)?;
        }
        let running = Running {
            id: claim.id().to_owned(),
            topology: topology.clone(),
            seed,
            sites: sites.clone(),
            links,
        };
        running.reset()?;
        let shared = Arc::new(RwLock::new(Some(running)));
        listen(&claim, shared.clone())?;
        Ok(Self { shared, claim, sites })
    }

    /// The lab's ID.
    pub(crate) fn id(&self) -> &str {
        self.claim.id()
    }

    pub(crate) fn sites(&self) -> &[SiteReport] {
        &self.sites
    }

    /// Commands that enter the sites, for people.
    pub(crate) fn entrances(&self) -> BTreeMap<String, String> {
        let entrance =
            |site: &SiteReport| (site.name.clone(), format!("ip netns exec {} bash", site.namespace));
        self.sites.iter().map(entrance).collect()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Threads and devices end here; clients that still ask are told so. The claim removes the rest.
        self.shared.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn make_sites(id: &str, topology: &Topology) -> Result<Vec<SiteReport>> {
    let mut sites = Vec::new();
    for site in &topology.sites {
        let namespace = namespace::name(id, &site.name);
        namespace::add(&namespace, site)?;
        let mut ends = Vec::new();
        for (number, link) in topology.links.iter().enumerate() {
            let (near, far) = addresses::ends(topology, number);
            if link.from == site.name {
                ends.push(near);
            } else if link.to == site.name {
                ends.push(far);
            }
        }
        sites.push(SiteReport { name: site.name.clone(), namespace, ends });
    }
    Ok(sites)
}

fn listen(claim: &Claim, shared: Arc<RwLock<Option<Running>>>) -> Result<()> {
    let path = claim.socket();
    let listener = UnixListener::bind(&path).with_context(|| format!("listening on {}", path.display()))?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))
        .context("closing the control socket to others")?;
    let clients = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        for stream in listener.incoming() {
            while clients.load(Ordering::Acquire) >= CLIENTS_MAX {
                thread::sleep(POLL);
            }
            let Ok(stream) = stream else {
                thread::sleep(POLL);
                continue;
            };
            let (shared, clients) = (shared.clone(), clients.clone());
            clients.fetch_add(1, Ordering::AcqRel);
            thread::spawn(move || {
                // A client that breaks off is no concern of the others.
                let _ = serve(stream, &shared);
                clients.fetch_sub(1, Ordering::AcqRel);
            });
        }
    };
    thread::Builder::new().name("control".to_owned()).spawn(accept).context("starting the control thread")?;
    Ok(())
}

fn serve(stream: UnixStream, shared: &RwLock<Option<Running>>) -> Result<()> {
    limit(&stream, CLIENT_SILENCE)?;
    let mut stream = BufReader::new(stream);
    while let Some(line) = read_line(&mut stream)? {
        let answer = match serde_json::from_str::<Request>(&line) {
            Err(error) => Answer::Error(format!("no request: {error}")),
            Ok(request) => match &*shared.read().unwrap_or_else(PoisonError::into_inner) {
                None => Answer::Error("the lab is ending".to_owned()),
                Some(running) => {
                    running.answer(request).unwrap_or_else(|error| Answer::Error(format!("{error:#}")))
                }
            },
        };
        write_line(stream.get_mut(), &answer)?;
    }
    Ok(())
}

impl Running {
    fn answer(&self, request: Request) -> Result<Answer> {
        Ok(match request {
            Request::Set { link, way, conditions } => {
                self.set(&link, way, &conditions)?;
                Answer::Done
            }
            Request::Report {} => Answer::Report(self.report()?),
            Request::Reset {} => {
                self.reset()?;
                Answer::Done
            }
            Request::Sites {} => Answer::Sites(self.sites.clone()),
        })
    }

    fn set(&self, link: &str, way: Way, conditions: &Conditions) -> Result<()> {
        conditions.check().map_err(anyhow::Error::msg)?;
        self.topology.link(link)?;
        for link in self.links.iter().filter(|known| known.spec.name == link) {
            if way != Way::Back {
                link.forward.set(conditions.clone())?;
            }
            if way != Way::Forward {
                link.back.set(conditions.clone())?;
            }
        }
        Ok(())
    }

    fn reset(&self) -> Result<()> {
        for link in &self.links {
            link.forward.reset()?;
            link.back.reset()?;
        }
        Ok(())
    }

    fn report(&self) -> Result<LabReport> {
        let mut links = Vec::new();
        let mut all = LatenessLog::new()?;
        for link in &self.links {
            let overrun = |site: &str| namespace::overrun(&namespace::name(&self.id, site), &link.spec.name);
            let mut way = |state: State, overrun| {
                all.merge(&state.lateness);
                WayReport {
                    conditions: state.conditions,
                    counters: state.counters,
                    inside: state.inside,
                    overrun,
                    lateness: state.lateness.lateness(),
                }
            };
            links.push(LinkReport {
                name: link.spec.name.clone(),
                from: link.spec.from.clone(),
                to: link.spec.to.clone(),
                forward: way(link.forward.state()?, overrun(&link.spec.from)?),
                back: way(link.back.state()?, overrun(&link.spec.to)?),
            });
        }
        let topology = self.topology.name.clone();
        let (id, lateness) = (self.id.clone(), all.lateness());
        Ok(LabReport { id, topology, pid: process::id(), seed: self.seed, lateness, links })
    }
}
