//! Real labs: namespaces, devices and frames. Where they cannot be made, each test says why and passes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use novacron_lab::{Conditions, Lab, Topology, Way, available};

/// Skips the test that says so where a lab cannot be made.
macro_rules! needs_a_lab {
    () => {
        if let Err(missing) = available() {
            eprintln!("skipped: {missing}");
            return;
        }
    };
}

fn socket(lab: &Lab, site: &str) -> UdpSocket {
    let site = lab.site(site).unwrap();
    let address = site.address();
    let socket = site.within(|| Ok(UdpSocket::bind((address, 0))?)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

#[test]
fn a_frame_takes_the_delay_that_was_asked_for_each_way() {
    needs_a_lab!();
    let lab =
        Lab::start(&Topology::two_sites(&Conditions { delay_ms: 20.0, ..Conditions::default() })).unwrap();
    let (a, b) = (socket(&lab, "a"), socket(&lab, "b"));
    let mut least = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        a.send_to(b"there", address(&b)).unwrap();
        let mut bytes = [0; 16];
        let (length, from) = b.recv_from(&mut bytes).unwrap();
        b.send_to(&bytes[..length], from).unwrap();
        assert_eq!(a.recv(&mut bytes).unwrap(), 5);
        least = least.min(began.elapsed());
    }
    assert!(least >= Duration::from_millis(40), "{least:?}");
    assert!(least < Duration::from_millis(80), "{least:?} of 40 ms on the best of ten");

    lab.set("wan", Way::Forward, &Conditions::default()).unwrap();
    let mut least = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        a.send_to(b"there", address(&b)).unwrap();
        b.recv(&mut [0; 16]).unwrap();
        least = least.min(began.elapsed());
    }
    assert!(least < Duration::from_millis(20), "{least:?} with no delay, on the best of ten");

    let report = lab.report().unwrap();
    let wan = report.link("wan").unwrap();
    assert!(
        wan.forward.counters.delivered.frames >= 20 && wan.back.counters.delivered.frames >= 10,
        "{wan:?}"
    );
    lab.reset().unwrap();
    assert_eq!(lab.report().unwrap().link("wan").unwrap().forward.counters.delivered.frames, 0);
}

#[test]
fn what_a_lab_made_is_gone_with_it_and_another_is_not_disturbed() {
    needs_a_lab!();
    let topology = Topology::find("three-sites").unwrap();
    let stays = Lab::start(&topology).unwrap();
    let goes = Lab::start(&topology).unwrap();
    assert_ne!(stays.id(), goes.id());
    let file = |lab: &Lab| Path::new("/run/netns").join(lab.site("c").unwrap().namespace());
    let (staying, gone) = (file(&stays), file(&goes));
    assert!(staying.exists() && gone.exists());
    let state = Path::new("/run/novacron-lab").join(goes.id());
    assert!(state.exists());
    drop(goes);
    assert!(staying.exists() && !gone.exists() && !state.exists());
    // What stays still works, and its site c has two links.
    let site = stays.site("c").unwrap();
    assert_eq!(site.address_on("a-b"), None);
    assert_ne!(site.address_on("b-c"), site.address_on("a-c"));
    let (a, c) = (socket(&stays, "a"), stays.site("c").unwrap());
    let to: IpAddr = c.address_on("a-c").unwrap();
    let c = c.within(|| Ok(UdpSocket::bind((to, 0))?)).unwrap();
    c.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // One in ten thousand is lost on this link.
    for _ in 0..3 {
        a.send_to(b"there", address(&c)).unwrap();
    }
    c.recv(&mut [0; 16]).unwrap();
}

#[test]
fn a_command_runs_in_its_site() {
    needs_a_lab!();
    let lab = Lab::start(&Topology::two_sites(&Conditions::default())).unwrap();
    let prefix = lab.site("b").unwrap().enter();
    let output =
        Command::new(&prefix[0]).args(&prefix[1..]).args(["ip", "-brief", "address"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("wan") && said.contains(&lab.site("b").unwrap().address().to_string()), "{said}");
}

#[test]
fn a_transfer_is_no_faster_than_the_rate_and_every_frame_is_accounted_for() {
    needs_a_lab!();
    // 1 MB at 20 Mbit/s takes 400 ms, headers aside; with losses it takes longer.
    let conditions =
        Conditions { rate_mbit: Some(20.0), delay_ms: 2.0, loss_percent: 0.5, ..Conditions::default() };
    let lab = Lab::start_with(&Topology::two_sites(&conditions), 7).unwrap();
    let (a, b) = (lab.site("a").unwrap(), lab.site("b").unwrap());
    let listener = b.within(|| Ok(TcpListener::bind((b.address(), 0))?)).unwrap();
    let to = listener.local_addr().unwrap();
    let began = Instant::now();
    let sender = a.within(move || Ok(TcpStream::connect(to)?)).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let writer = thread::spawn(move || (&sender).write_all(&[7; 1_000_000]).unwrap());
    let mut bytes = Vec::new();
    receiver.read_to_end(&mut bytes).unwrap();
    writer.join().unwrap();
    assert_eq!(bytes.len(), 1_000_000);
    assert!(began.elapsed() >= Duration::from_millis(390), "{:?}", began.elapsed());
    let report = lab.report().unwrap();
    let way = &report.link("wan").unwrap().forward;
    let is = way.counters;
    assert!(is.delivered.frames > 660, "{is:?}");
    assert!(is.delivered.bytes > 1_000_000, "{is:?}");
    let went = is.delivered.frames + is.lost.frames + is.queue_dropped.frames + is.refused.frames;
    assert_eq!(is.entered.frames + is.duplicated.frames, went + way.inside, "{is:?}");
    assert!(is.entered.bytes <= is.entered.frames * 1514, "whole frames, none larger: {is:?}");
}

#[test]
fn a_site_behind_another_is_reached_through_it() {
    needs_a_lab!();
    let lab = Lab::start_with(&Topology::find("slow-site").unwrap(), 7).unwrap();
    let (slow, a) = (lab.site("slow").unwrap(), lab.site("a").unwrap());
    let far = a.within(|| Ok(UdpSocket::bind((a.address(), 0))?)).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let near = socket(&lab, "slow");
    // The slow link loses some in runs, so not all of them need arrive.
    for _ in 0..50 {
        near.send_to(b"there", address(&far)).unwrap();
    }
    let (_, from) = far.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from.ip(), slow.address());
}

#[test]
fn a_site_uses_the_congestion_control_that_its_topology_names() {
    needs_a_lab!();
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(name)).unwrap();
    let (known, default) = (read("tcp_available_congestion_control"), read("tcp_congestion_control"));
    let Some(other) = known.split_whitespace().find(|control| *control != default.trim()) else {
        eprintln!("skipped: this kernel has no other congestion control than {default}");
        return;
    };
    let mut topology = Topology::two_sites(&Conditions::default());
    topology.sites[0].congestion_control = Some(other.to_owned());
    let lab = Lab::start(&topology).unwrap();
    let (a, b) = (lab.site("a").unwrap(), lab.site("b").unwrap());
    let v6: IpAddr = b.end("wan").unwrap().v6.into();
    for address in [b.address(), v6] {
        if address.is_ipv6() && !Path::new("/proc/sys/net/ipv6").exists() {
            eprintln!("skipped for IPv6: this kernel has none");
            continue;
        }
        let listener = b.within(|| Ok(TcpListener::bind((address, 0))?)).unwrap();
        let to = listener.local_addr().unwrap();
        let near = a.within(move || Ok(TcpStream::connect(to)?)).unwrap();
        assert_eq!(rustix::net::sockopt::tcp_congestion(&near).unwrap(), other, "to {address}");
    }
}
