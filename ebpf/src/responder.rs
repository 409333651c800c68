//! Loading the program and attaching it to an interface.

use crate::OBJECT;
use crate::abi::{PEER_SLOTS, Peer};
use crate::counters::Counters;
use crate::limits::PROCESSORS_MAX;
use crate::shared::Shared;
use aya::maps::{Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// How the program is to see frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// In the driver where it can and answers are sure to leave, else generic.
    #[default]
    Best,
    /// In the driver only.
    Driver,
    /// Generic only.
    Generic,
}

/// How it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// In the driver: before the kernel has made a socket buffer.
    Driver,
    /// Behind it.
    Generic,
}

/// Where the responder is. Others' frames pass it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// UDP port.
    pub port: u16,
    /// Address, IPv4 mapped into IPv6; all zero: any.
    pub address: [u8; 16],
}

/// What to attach.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Name of the interface.
    pub interface: String,
    /// How.
    pub want: Want,
    /// Where the responder is.
    pub place: Place,
}

/// Why the kernel does not answer probes. Nothing stays attached; a socket can answer instead.
#[derive(Debug)]
pub struct Unavailable {
    what: &'static str,
    why: String,
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the kernel cannot answer probes here: {}: {}", self.what, self.why)
    }
}

impl std::error::Error for Unavailable {}

fn unavailable<E: std::error::Error>(what: &'static str) -> impl Fn(E) -> Unavailable {
    move |error| {
        // The last cause is the kernel's own; the ones above repeat that something failed.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        // A refusal of the verifier is long; its first line says what it is.
        let why = cause.to_string().lines().next().unwrap_or_default().to_owned();
        Unavailable { what, why }
    }
}

/// The program, attached or only loaded. When it is dropped, or its process ends however that comes, nothing stays
/// attached: the kernel takes the program away with the last descriptor of its link.
#[derive(Debug)]
pub struct Responder {
    // Before the program, so that it goes first.
    _link: Option<FdLink>,
    ebpf: Ebpf,
    peers: Shared<Peer>,
    counters: Counters,
    driven: Driven,
    behind_why: Option<String>,
}

const PROGRAM: &str = "probe_responder";

impl Responder {
    /// Loads the program and attaches it.
    pub fn attach(attach: &Attach) -> Result<Responder, Unavailable> {
        let behind_why = (attach.want == Want::Best).then(|| loses_answers(&attach.interface)).flatten();
        let modes: &[(Driven, XdpMode)] = match attach.want {
            Want::Best if behind_why.is_none() => {
                &[(Driven::Driver, XdpMode::Driver), (Driven::Generic, XdpMode::Skb)]
            }
            Want::Driver => &[(Driven::Driver, XdpMode::Driver)],
            Want::Best | Want::Generic => &[(Driven::Generic, XdpMode::Skb)],
        };
        let mut refused = None;
        for (driven, mode) in modes {
            let mut responder = Responder::load(attach.place, *driven)?;
            match responder.link(&attach.interface, *mode) {
                Ok(()) => {
                    let refused = refused.map(|why: Unavailable| why.why);
                    responder.behind_why = behind_why.or(refused);
                    return Ok(responder);
                }
                Err(why) => refused = Some(why),
            }
        }
        Err(refused
            .unwrap_or(Unavailable { what: "attaching", why: "no way to attach was tried".to_owned() }))
    }

    /// Loads the program without attaching it, for test runs.
    pub fn load(place: Place, driven: Driven) -> Result<Responder, Unavailable> {
        let processors = processors().map_err(|why| Unavailable { what: "counting processors", why })?;
        // As the program reads it: the bytes of the network.
        let port = u16::from_ne_bytes(place.port.to_be_bytes());
        let words: [[u8; 4]; 4] =
            std::array::from_fn(|word| std::array::from_fn(|byte| place.address[4 * word + byte]));
        let address: [u32; 4] = words.map(u32::from_ne_bytes);
        let measured_by = match driven {
            Driven::Generic => 2_u8,
            Driven::Driver => 3_u8,
        };
        let mut ebpf = EbpfLoader::new()
            .override_global("probe_port", &port, true)
            .override_global("local_address", &address[..], true)
            .override_global("measured_by", &measured_by, true)
            .map_max_entries("counters", processors)
            .load(OBJECT)
            .map_err(unavailable("loading the maps (CAP_BPF and CAP_NET_ADMIN are needed)"))?;
        program(&mut ebpf)?.load().map_err(unavailable("loading the program"))?;
        let peers = shared(&ebpf, "peers", PEER_SLOTS)?;
        let counters = Counters::new(shared(&ebpf, "counters", processors as usize)?);
        Ok(Responder { _link: None, ebpf, peers, counters, driven, behind_why: None })
    }

    fn link(&mut self, interface: &str, mode: XdpMode) -> Result<(), Unavailable> {
        let program = program(&mut self.ebpf)?;
        let what = "attaching to the interface";
        let id = program.attach(interface, mode).map_err(unavailable(what))?;
        let link = program.take_link(id).map_err(unavailable(what))?;
        // A program attached by netlink would outlive a crash of this process; the link's descriptor does not.
        let link = FdLink::try_from(link).map_err(|_| Unavailable {
            what,
            why: "this kernel has no BPF links for XDP: it is older than 5.9".to_owned(),
        })?;
        self._link = Some(link);
        Ok(())
    }

    /// How it sees frames.
    pub fn driven(&self) -> Driven {
        self.driven
    }

    /// Why it runs behind the driver, where the driver was wanted if it can.
    pub fn behind_why(&self) -> Option<&str> {
        self.behind_why.as_deref()
    }

    /// Writes a place of the table of peers. Probes that come meanwhile may find their key half written, and are dropped.
    pub fn set_peer(&mut self, slot: usize, peer: &Peer) {
        self.peers.set(slot, peer);
    }

    /// What became of probes so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Nanoseconds that the program has run, and how often, where the kernel counts that
    /// (`sysctl kernel.bpf_stats_enabled`).
    pub fn run_time(&mut self) -> std::io::Result<(u64, u64)> {
        let fd = self.program_fd().map_err(std::io::Error::other)?.as_raw_fd();
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim_start_matches(':').trim().parse().ok())
                .ok_or_else(|| std::io::Error::other(format!("the kernel does not say {name}")))
        };
        Ok((field("run_time_ns")?, field("run_cnt")?))
    }

    pub(crate) fn program_fd(&mut self) -> Result<BorrowedFd<'_>, Unavailable> {
        Ok(program(&mut self.ebpf)?.fd().map_err(unavailable("loading the program"))?.as_fd())
    }
}

/// Why what the program sends back from this interface's driver may be lost, though the driver takes the program.
fn loses_answers(interface: &str) -> Option<String> {
    // An interface that has no driver to name is no veth.
    let is_veth = crate::driver::driver(interface).is_ok_and(|driver| driver == "veth");
    // `veth_xdp_xmit` of Linux drops all that comes from the other end's program while its own end has neither.
    let why = "the other end of a veth takes answers of the driver's program only while it has a program or GRO itself";
    is_veth.then(|| why.to_owned())
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Unavailable> {
    let missing = || Unavailable { what: "the embedded object", why: format!("it has no {PROGRAM}") };
    let program = ebpf.program_mut(PROGRAM).ok_or_else(missing)?;
    program.try_into().map_err(unavailable("the embedded object"))
}

fn shared<T: crate::shared::Entry>(
    ebpf: &Ebpf,
    name: &str,
    entries: usize,
) -> Result<Shared<T>, Unavailable> {
    let data: Option<&MapData> = match ebpf.map(name) {
        Some(Map::Array(data)) => Some(data),
        _ => None,
    };
    let missing = || Unavailable { what: "the embedded object", why: format!("it has no array `{name}`") };
    Shared::map(data.ok_or_else(missing)?.fd().as_fd(), entries).map_err(unavailable("sharing a map"))
}

/// Processors that there may ever be; their numbers are below that.
fn processors() -> Result<u32, String> {
    let path = "/sys/devices/system/cpu/possible";
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok());
    let count = last.map(|last| last.saturating_add(1)).filter(|count| *count <= PROCESSORS_MAX);
    count.ok_or_else(|| format!("{path} says {}", text.trim()))
}
