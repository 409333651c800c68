//! The program on real devices: the lab's TAP devices and a pair of veth. Needs root, `/dev/net/tun`, `ip` and `nsenter`; where
//! a lab cannot be made or a program not be loaded, each test says why and passes.

use novacron_ebpf::abi::{Keys, Peer};
use novacron_ebpf::{Attach, Driven, Place, Responder, Want};
use novacron_lab::{Conditions, Lab, Site, Topology, available};
use novacron_protocol::probe::frame::mapped;
use novacron_protocol::probe::key::{Secret, Side, epoch_at};
use novacron_protocol::probe::packet::MeasuredBy;
use novacron_protocol::probe::peers::{Peers, Slot};
use novacron_protocol::probe::prober::Prober;
use novacron_protocol::probe::responder::Outcome;
use novacron_protocol::time::Instant as ProbeInstant;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Names the device to a child of this test that is to hold the program, and then to be killed.
const HOLD: &str = "NOVACRON_EBPF_HOLD";

const PORT: u16 = 7402;

fn secret() -> Secret {
    Secret::new([0x5a; 32])
}

fn for_kernel(slot: &Slot) -> Peer {
    let keys = slot.keys.map(|keys| Keys { probe: keys.probe, answer: keys.answer });
    Peer { tag: slot.tag, address: slot.address, epoch: slot.epoch, keys }
}

fn lab() -> Option<Lab> {
    if let Err(missing) = available() {
        eprintln!("skipped: {missing}");
        return None;
    }
    let conditions = Conditions { delay_ms: 5.0, ..Conditions::default() };
    Some(Lab::start(&Topology::two_sites(&conditions)).unwrap())
}

fn mapped_address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn attach(device: &str, want: Want) -> Result<Responder, novacron_ebpf::Unavailable> {
    let place = Place { port: PORT, address: [0; 16] };
    Responder::attach(&Attach { interface: device.to_owned(), want, place })
}

/// What `ip` says of a site's devices.
fn devices(site: &Site) -> String {
    let enter = site.enter();
    let output =
        Command::new(&enter[0]).args(&enter[1..]).args(["ip", "-d", "link", "show"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn has_program(site: &Site) -> bool {
    devices(site).contains("xdp")
}

/// Probes from `a` to `b` for a second; returns the prober.
fn probe(a: &Site, b: IpAddr) -> Prober {
    probe_from(a, a.address(), b)
}

/// The same from an address of `a`.
fn probe_from(a: &Site, address: IpAddr, b: IpAddr) -> Prober {
    let socket = a.within(|| Ok(UdpSocket::bind((address, 0))?)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let began = Instant::now();
    let now = || ProbeInstant::from_nanos(1 + began.elapsed().as_nanos() as u64);
    let mut prober = Prober::new(secret(), Side::Dialler, 1_000, now());
    while began.elapsed() < Duration::from_millis(1_200) {
        while let Some(datagram) = prober.poll(now(), epoch_at(0)) {
            socket.send_to(&datagram, SocketAddr::new(b, PORT)).unwrap();
        }
        let mut datagram = [0; 2048];
        while let Ok(length) = socket.recv(&mut datagram) {
            prober.received(&datagram[..length], now());
        }
    }
    prober
}

#[test]
fn the_program_answers_on_a_link_and_goes_with_its_owner() {
    let Some(lab) = lab() else { return };
    let (a, b) = (lab.site("a").unwrap(), lab.site("b").unwrap());
    let device = b.end("wan").unwrap().link.clone();
    for (want, measured_by) in [(Want::Best, MeasuredBy::XdpDriver), (Want::Generic, MeasuredBy::XdpGeneric)]
    {
        let attached = b.within(|| Ok(attach(&device, want))).unwrap();
        let mut kernel = match attached {
            Ok(kernel) => kernel,
            Err(why) => {
                eprintln!("skipped: {why}");
                return;
            }
        };
        assert!(has_program(b));
        let mut peers = Peers::new(epoch_at(0));
        let at = peers.add(&secret(), Side::Dialler, mapped_address(a.address())).unwrap();
        // Nobody is answered before the kernel knows the peer.
        let unknown = probe(a, b.address());
        assert_eq!(unknown.estimates(ProbeInstant::from_nanos(9_000_000_000)).answers, 0);
        assert!(kernel.counters().read()[Outcome::UnknownPeer as usize] > 20);

        kernel.set_peer(at, &for_kernel(&peers.slot(at)));
        let prober = probe(a, b.address());
        let said = prober.estimates(ProbeInstant::from_nanos(1_250_000_000));
        assert!(said.answers >= 30, "{said:?}");
        assert_eq!(said.measured_by, measured_by);
        let rtt_ms = said.rtt_min_ns.unwrap().value / 1e6;
        assert!((10.0..30.0).contains(&rtt_ms), "{rtt_ms} ms of 10");
        let counts = kernel.counters().read();
        assert!(counts[Outcome::Answered as usize] >= said.answers, "{counts:?}");
        assert_eq!(kernel.driven() == Driven::Driver, measured_by == MeasuredBy::XdpDriver);
        drop(kernel);
        assert!(!has_program(b), "{}", devices(b));
    }
}

/// What a veth's driver sends back is lost unless the other end is ready for it, which nobody here can know.
#[test]
fn answers_leave_by_a_veth_whose_other_end_has_no_program() {
    let Some(lab) = lab() else { return };
    let (a, b) = (lab.site("a").unwrap(), lab.site("b").unwrap());
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().unwrap().success());
    let peer = ["type", "veth", "peer", "name", "veth-b", "netns", b.namespace()];
    ip(&[&["link", "add", "veth-a", "netns", a.namespace()][..], &peer].concat());
    for (site, device, address) in [(a, "veth-a", "10.98.0.1/30"), (b, "veth-b", "10.98.0.2/30")] {
        ip(&["-n", site.namespace(), "address", "add", address, "dev", device]);
        ip(&["-n", site.namespace(), "link", "set", device, "up"]);
    }
    let attached = b.within(|| Ok(attach("veth-b", Want::Best))).unwrap();
    let mut kernel = match attached {
        Ok(kernel) => kernel,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    assert_eq!(kernel.driven(), Driven::Generic);
    assert!(kernel.behind_why().is_some_and(|why| why.contains("veth")), "{:?}", kernel.behind_why());
    let (own, there) = (IpAddr::from([10, 98, 0, 1]), IpAddr::from([10, 98, 0, 2]));
    let mut peers = Peers::new(epoch_at(0));
    let at = peers.add(&secret(), Side::Dialler, mapped_address(own)).unwrap();
    kernel.set_peer(at, &for_kernel(&peers.slot(at)));
    let said = probe_from(a, own, there).estimates(ProbeInstant::from_nanos(1_250_000_000));
    assert!(said.answers >= 30 && said.measured_by == MeasuredBy::XdpGeneric, "{said:?}");
    // A TAP device's driver has no other end: it is told apart.
    let device = b.end("wan").unwrap().link.clone();
    assert!(b.within(|| Ok(attach(&device, Want::Best))).unwrap().unwrap().behind_why().is_none());
}

/// The child of the next test; alone it has nothing to do.
#[test]
fn child_that_holds_the_program() {
    let Ok(device) = std::env::var(HOLD) else { return };
    let _kernel = attach(&device, Want::Best).unwrap();
    println!("attached");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn nothing_stays_attached_after_a_crash() {
    let Some(lab) = lab() else { return };
    let b = lab.site("b").unwrap();
    let device = b.end("wan").unwrap().link.clone();
    if let Err(why) = b.within(|| Ok(attach(&device, Want::Best))).unwrap() {
        eprintln!("skipped: {why}");
        return;
    }
    let enter = b.enter();
    let mut child = Command::new(&enter[0])
        .args(&enter[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_the_program", "--nocapture"])
        .env(HOLD, &device)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let attached = lines.map_while(Result::ok).any(|line| line.contains("attached"));
    let had = has_program(b);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(attached && had);
    // The kernel closes the link when it has buried the process.
    let began = Instant::now();
    while has_program(b) && began.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!has_program(b), "{}", devices(b));
    // The next start finds nothing in its way.
    b.within(|| Ok(attach(&device, Want::Best))).unwrap().unwrap();
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    match Responder::load(Place { port: PORT, address: [0; 16] }, Driven::Driver) {
        Err(why) => eprintln!("skipped: {why}"),
        Ok(_) => {
            let why = attach("no-such-0", Want::Best).map(drop).unwrap_err().to_string();
            assert!(why.contains("no-such-0") || why.contains("interface"), "{why}");
        }
    }
}
