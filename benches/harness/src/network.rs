//! The two sites of a scenario: namespaces joined by the lab's link, or this machine's loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use novacron_lab::{Conditions, Lab, LabReport, Site, Topology, WayReport};
use rustix::net::sockopt::tcp_congestion;

use crate::limits::CONNECT_WAIT;
use crate::record::LabHealth;
use crate::scenario::{Link, Scenario};

/// Where one side's processes run.
#[derive(Clone, Debug)]
pub struct Place {
    /// `source` or `destination`, as records call it.
    pub name: &'static str,
    /// Words before every command line there.
    pub prefix: Vec<String>,
    /// Where others reach it.
    pub address: IpAddr,
}

/// Both sites and what joins them. Dropping it removes them.
pub struct Network {
    /// Where guests come from.
    pub source: Place,
    /// Where they go.
    pub destination: Place,
    /// The congestion control of connections between them, read back.
    pub congestion_control: String,
    wire: Wire,
}

/// The lab's link as it is watched; `None` inside: loopback, or ctrl-C has taken it away.
#[derive(Clone, Default)]
pub struct Wire(Arc<Mutex<Option<Lab>>>);

/// What the link carried since the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes of whole frames towards the destination, lost ones included.
    pub forward: u64,
    /// The same towards the source.
    pub back: u64,
}

impl Network {
    /// Makes the sites of a scenario.
    ///
    /// # Errors
    /// When the lab cannot be made, or the kernel has no such congestion control.
    pub fn of(scenario: &Scenario) -> Result<Self> {
        match &scenario.link {
            Some(link) => Self::joined(link, scenario.congestion_control.as_deref()),
            None => Self::loopback(),
        }
    }

    /// Two sites joined by a link; `congestion_control` of every connection between them, `None`: the kernel's own.
    ///
    /// # Errors
    /// When the lab cannot be made, or the kernel has no such congestion control.
    pub fn joined(link: &Link, congestion_control: Option<&str>) -> Result<Self> {
        let wanted = congestion_control;
        let mut topology = Topology::two_sites(&Conditions::default());
        let joint = topology.links.first_mut().context("the lab's two sites have no link")?;
        (joint.forward, joint.back) = (link.forward.clone(), link.back.clone());
        for site in &mut topology.sites {
            site.congestion_control = wanted.map(str::to_owned);
        }
        let lab = Lab::start(&topology).context("making the lab")?;
        let [source, destination] = lab.sites() else {
            anyhow::bail!("the lab made {} sites instead of two", lab.sites().len())
        };
        let congestion_control = congestion_control_between(source, destination)?;
        if let Some(wanted) = wanted {
            ensure!(congestion_control == wanted, "connections use {congestion_control} instead of {wanted}");
        }
        let place = |name, site: &Site| Place { name, prefix: site.enter(), address: site.address() };
        Ok(Self {
            source: place("source", source),
            destination: place("destination", destination),
            congestion_control,
            wire: Wire(Arc::new(Mutex::new(Some(lab)))),
        })
    }

    /// Both sites on this machine's loopback, which counts nothing.
    ///
    /// # Errors
    /// When the kernel does not say what congestion control it uses.
    pub fn loopback() -> Result<Self> {
        let place = |name| Place { name, prefix: Vec::new(), address: Ipv4Addr::LOCALHOST.into() };
        Ok(Self {
            source: place("source"),
            destination: place("destination"),
            congestion_control: default_congestion_control()?,
            wire: Wire::default(),
        })
    }

    /// The link, to watch.
    pub fn wire(&self) -> Wire {
        self.wire.clone()
    }
}

/// What a connection between two sites uses, read off one.
fn congestion_control_between(source: &Site, destination: &Site) -> Result<String> {
    let at = SocketAddr::new(destination.address(), 0);
    let listener = destination.within(|| TcpListener::bind(at).context("listening at the destination"))?;
    let at = listener.local_addr().context("asking for a port")?;
    source.within(|| {
        let socket = TcpStream::connect_timeout(&at, CONNECT_WAIT).context("connecting over the link")?;
        tcp_congestion(&socket).context("asking for a connection's congestion control")
    })
}

/// What connections on loopback use: what the kernel does by default.
fn default_congestion_control() -> Result<String> {
    let path = "/proc/sys/net/ipv4/tcp_congestion_control";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Option<Lab>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The emulator's process; `None` on loopback.
    pub fn process(&self) -> Option<u32> {
        self.lock().as_ref().map(Lab::pid)
    }

    /// Counters and lateness start again.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn reset(&self) -> Result<()> {
        self.lock().as_ref().map_or(Ok(()), Lab::reset)
    }

    /// What was carried; `None` on loopback.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn carried(&self) -> Result<Option<Carried>> {
        // What was lost on the way has taken its share of the rate all the same; what found the queue full has not.
        let bytes = |way: &WayReport| way.counters.delivered.bytes + way.counters.lost.bytes;
        Ok(self.report()?.map(|(forward, back)| Carried { forward: bytes(&forward), back: bytes(&back) }))
    }

    /// How the lab did; `None` on loopback.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn health(&self) -> Result<Option<LabHealth>> {
        Ok(self.report()?.map(|(forward, back)| {
            let worst = |of: fn(&WayReport) -> f64| of(&forward).max(of(&back));
            let sum = |of: fn(&WayReport) -> u64| of(&forward) + of(&back);
            LabHealth {
                lateness_p50_ms: worst(|way| way.lateness.p50_ms),
                lateness_p99_ms: worst(|way| way.lateness.p99_ms),
                lateness_max_ms: worst(|way| way.lateness.max_ms),
                lost_frames: sum(|way| way.counters.lost.frames),
                queue_dropped_frames: sum(|way| way.counters.queue_dropped.frames),
            }
        }))
    }

    fn report(&self) -> Result<Option<(WayReport, WayReport)>> {
        let lab = self.lock();
        let Some(report) = lab.as_ref().map(Lab::report).transpose()? else { return Ok(None) };
        let LabReport { links, .. } = report;
        let link = links.into_iter().next().context("the lab reports no link")?;
        Ok(Some((link.forward, link.back)))
    }

    /// Removes the lab now, whoever still wants it.
    pub fn remove(&self) {
        drop(self.lock().take());
    }
}
