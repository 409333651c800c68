//! What lies between this gateway and its peers: probes that it sends and answers, the mode of each path.
//!
//! Two threads, and no guest byte on them: one answers where the kernel does not, and gives the kernel its keys; the other probes.

mod answering;
mod modes;
mod pairs;
mod probing;
mod record;

use crate::args::{Args, Xdp};
use crate::registry::Registry;
use crate::shard::ShardHandle;
use answering::Answering;
pub(crate) use modes::{Current, Modes};
use novacron_control_api::{ErrorCode, PathList, PathMode, PathRecord, PeerIdentity, RpcError};
use novacron_ebpf::{Attach, Driven, Want};
use novacron_protocol::mode::{Mode, Thresholds};
use novacron_protocol::probe::frame::mapped;
use novacron_protocol::probe::key::{Name, Secret, Side, epoch_at, pair};
use novacron_protocol::probe::peers::Peers;
use novacron_transport::shard::Shutdown;
pub(crate) use pairs::Pairs;
use probing::Probed;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// One peer that is probed and answered.
struct Known {
    address: SocketAddr,
    secret: Secret,
    /// Which side this gateway is.
    side: Side,
    /// Who it has shown to be; `None`: it is known by a shared secret alone.
    identity: Option<PeerIdentity>,
}

/// Everything that needs rights which this process gives up, done before it does.
pub(crate) struct Prepared {
    listen: SocketAddr,
    answers: UdpSocket,
    probes: UdpSocket,
    known: Vec<Known>,
    peers: Peers,
    kernel: Option<(novacron_ebpf::Responder, String)>,
    limits: Vec<String>,
    /// Peers that their streams tell of.
    pairs: Arc<Pairs>,
    /// What paths that are found later begin with.
    begin: Begin,
}

/// What every path begins with.
#[derive(Clone, Copy)]
struct Begin {
    thresholds: Thresholds,
    forced: Option<Mode>,
}

/// What is known of paths; shared with the control socket.
pub(crate) struct Paths {
    state: Mutex<State>,
    /// Where sessions learn of modes; `None`: nothing is probed.
    modes: Option<Arc<Modes>>,
}

#[derive(Default)]
struct State {
    probed: Vec<Probed>,
    answering: Option<Answering>,
}

fn epoch() -> u32 {
    epoch_at(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// An address as probes name it.
fn name(address: SocketAddr) -> Name {
    (bytes(address.ip()), address.port())
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Prepared {
    /// Opens sockets and attaches the kernel's program; `None`: no probes were asked for.
    pub(crate) fn new(args: &Args) -> Result<Option<Prepared>, String> {
        let Some(listen) = args.probe_listen else { return Ok(None) };
        let shared = args.probe_secret.as_deref().map(read_secret).transpose()?;
        let bind = |address: SocketAddr| {
            UdpSocket::bind(address).map_err(|error| format!("probes cannot use {address}: {error}"))
        };
        let (answers, probes) = (bind(listen)?, bind(SocketAddr::new(listen.ip(), 0))?);
        let mut peers = Peers::new(epoch());
        let mut known: Vec<Known> = Vec::new();
        for address in &args.probe_peer {
            let Some(shared) = &shared else { break };
            if known.iter().any(|known| known.address == *address) {
                continue;
            }
            let (secret, side) = pair(shared, name(listen), name(*address));
            peers
                .add(&secret, side.other(), bytes(address.ip()))
                .map_err(|why| format!("--probe-peer {address}: {why}"))?;
            known.push(Known { address: *address, secret, side, identity: None });
        }
        let (kernel, limits) = attach(args, listen)?;
        let begin = Begin { thresholds: args.thresholds(), forced: args.mode.forced() };
        // Who nobody proves to be anybody agrees on nothing.
        let pairs = Arc::new(if args.identity.is_some() { Pairs::at(listen) } else { Pairs::off() });
        Ok(Some(Prepared { listen, answers, probes, known, peers, kernel, limits, pairs, begin }))
    }

    /// Whom streams tell of.
    pub(crate) fn pairs(&self) -> Arc<Pairs> {
        Arc::clone(&self.pairs)
    }

    /// Starts probing and answering, on threads of their own. Shards are told of modes.
    pub(crate) fn start(
        self,
        registry: &Arc<Registry>,
        modes: &Arc<Modes>,
        shards: &[ShardHandle],
        shutdown: &Shutdown,
    ) -> Result<Arc<Paths>, String> {
        modes.announce_to(shards);
        let by = match &self.kernel {
            Some((kernel, _)) if kernel.driven() == Driven::Driver => "xdp_driver",
            Some(_) => "xdp_generic",
            None => "userspace",
        };
        tracing::info!(listen = %self.listen, by, peers = self.known.len(), "probes of the path are answered");
        for limit in &self.limits {
            tracing::info!("probes: {limit}");
        }
        let interface = self.kernel.as_ref().map(|(_, interface)| interface.clone());
        let answering = Answering {
            listen: self.listen,
            by,
            interface,
            limits: self.limits,
            userspace: Default::default(),
            kernel: Default::default(),
        };
        let begin = self.begin;
        let probed = self.known.iter().map(|known| Probed::new(known, begin, modes)).collect();
        let state = State { probed, answering: Some(answering) };
        let paths = Arc::new(Paths { state: Mutex::new(state), modes: Some(Arc::clone(modes)) });
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let failed = |error: std::io::Error| format!("no thread for probes: {error}");
        let kernel = self.kernel.map(|(kernel, _)| kernel);
        let (shared, ending) = (Arc::clone(&paths), shutdown.clone());
        let (answers, peers, pairs) = (self.answers, self.peers, Arc::clone(&self.pairs));
        thread("probe-answers")
            .spawn(move || answering::run(&answers, peers, kernel, &shared, &pairs, &ending))
            .map_err(failed)?;
        let (shared, ending, registry) = (Arc::clone(&paths), shutdown.clone(), Arc::clone(registry));
        let (probes, pairs, modes) = (self.probes, self.pairs, Arc::clone(modes));
        thread("probes")
            .spawn(move || {
                let found = probing::Found { pairs: &pairs, modes: &modes, begin };
                probing::run(&probes, &shared, &registry, &found, &ending);
            })
            .map_err(failed)?;
        Ok(paths)
    }
}

impl Paths {
    /// None are probed, and nobody is answered.
    pub(crate) fn none() -> Arc<Paths> {
        Arc::new(Paths { state: Mutex::default(), modes: None })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every path, without samples.
    pub(crate) fn list(&self) -> PathList {
        let state = self.state();
        PathList {
            paths: state.probed.iter().map(|probed| probed.record(false)).collect(),
            responder: state.answering.as_ref().map(Answering::record),
        }
    }

    /// One path, with samples.
    pub(crate) fn get(&self, peer: SocketAddr) -> Result<PathRecord, RpcError> {
        let state = self.state();
        let probed = state.probed.iter().find(|probed| probed.peer() == peer);
        probed.map(|probed| probed.record(true)).ok_or_else(|| unknown(peer))
    }

    /// A path's mode is this one from now on.
    pub(crate) fn force(&self, peer: SocketAddr, mode: Option<PathMode>) -> Result<PathRecord, RpcError> {
        let mut state = self.state();
        let probed =
            state.probed.iter_mut().find(|probed| probed.peer() == peer).ok_or_else(|| unknown(peer))?;
        probed.force(mode.map(record::core_mode));
        let record = probed.record(false);
        drop(state);
        if let Some(modes) = &self.modes {
            modes.tell();
        }
        Ok(record)
    }
}

fn unknown(peer: SocketAddr) -> RpcError {
    let next = "`novactl paths` lists those that are probed: peers with whom there have been streams since the gateway started, and \
                those of --probe-peer";
    RpcError::new(ErrorCode::InvalidParams, format!("no path to {peer} is probed"), "nothing", next)
}

type Kernel = Option<(novacron_ebpf::Responder, String)>;

/// Attaches the kernel's program, or says why not.
fn attach(args: &Args, listen: SocketAddr) -> Result<(Kernel, Vec<String>), String> {
    let want = match args.xdp {
        Xdp::Off => return Ok((None, vec!["the kernel does not answer probes: --xdp off".to_owned()])),
        Xdp::Auto => Want::Best,
        Xdp::Driver => Want::Driver,
        Xdp::Generic => Want::Generic,
    };
    let place = novacron_ebpf::Place { port: listen.port(), address: bytes(listen.ip()) };
    let attached =
        args.xdp_interface.clone().map_or_else(|| novacron_ebpf::holding(listen.ip()), Ok).and_then(
            |interface| {
                if args.xdp == Xdp::Auto && listen.ip().is_loopback() {
                    return Err(format!("{listen} is loopback, where it would gain nothing"));
                }
                let attach = Attach { interface: interface.clone(), want, place };
                let kernel =
                    novacron_ebpf::Responder::attach(&attach).map_err(|why| format!("{interface}: {why}"))?;
                Ok((kernel, interface))
            },
        );
    match attached {
        Ok(kernel) if kernel.0.driven() == Driven::Generic && args.xdp == Xdp::Auto => {
            let why = kernel.0.behind_why().unwrap_or("the driver takes none");
            let limit = format!("the XDP program runs behind the driver of {}: {why}", kernel.1);
            Ok((Some(kernel), vec![limit]))
        }
        Ok(kernel) => Ok((Some(kernel), Vec::new())),
        Err(why) if args.xdp == Xdp::Auto => {
            Ok((None, vec![format!("a socket answers probes, since the kernel does not: {why}")]))
        }
        Err(why) => Err(format!("--xdp: {why}; with --xdp auto a socket answers instead")),
    }
}

/// The shared secret: 64 hexadecimal digits in a file that only its owner can read.
fn read_secret(file: &Path) -> Result<[u8; 32], String> {
    let wrong = |why: String| format!("--probe-secret {}: {why}", file.display());
    let mode = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(wrong("others than its owner can read it: chmod 600".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    parse_secret(text.trim()).ok_or_else(|| wrong("it must hold 64 hexadecimal digits".to_owned()))
}

fn parse_secret(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = [0; 32];
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_64_digits() {
        assert_eq!(parse_secret(&"5a".repeat(32)), Some([0x5a; 32]));
        for wrong in
            ["", &"5a".repeat(31), &"5a".repeat(33), &"5g".repeat(32), &"+5".repeat(32), &"é".repeat(32)]
        {
            assert_eq!(parse_secret(wrong), None, "{wrong}");
        }
    }
}
