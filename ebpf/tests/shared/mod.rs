//! Frames for the program and its twin, and both side by side.

use novacron_ebpf::abi::{Keys, Peer};
use novacron_ebpf::test_run::Action;
use novacron_ebpf::{Driven, Responder};
use novacron_protocol::probe::frame::{Place, Verdict, mapped, respond};
use novacron_protocol::probe::key::{Secret, Side, keys, tag};
use novacron_protocol::probe::packet::{Header, Kind, MeasuredBy};
use novacron_protocol::probe::peers::{Peers, Slot};
use novacron_protocol::probe::responder::{self, Outcome};

pub(crate) const PORT: u16 = 7402;
pub(crate) const EPOCH: u32 = 480_000;
pub(crate) const PROBER_4: [u8; 4] = [192, 0, 2, 1];
pub(crate) const HERE_4: [u8; 4] = [192, 0, 2, 2];

pub(crate) fn v6(last: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[1], address[15]) = (0xfd, 0, last);
    address
}

pub(crate) fn secret() -> Secret {
    Secret::new([0x5a; 32])
}

pub(crate) fn secret_6() -> Secret {
    Secret::new([0x66; 32])
}

/// A probe's frame, of which a fixture changes what it is about.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) vlans: Vec<u16>,
    pub(crate) is_v4: bool,
    pub(crate) options: usize,
    pub(crate) header: Header,
    pub(crate) key: [u64; 2],
    pub(crate) port: u16,
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    /// Bytes after the datagram, as short frames are filled up.
    pub(crate) filled: usize,
    pub(crate) udp_length: Option<u16>,
    pub(crate) ip_length: Option<u16>,
    pub(crate) fragment: u16,
    pub(crate) ipv6_fragment: bool,
}

impl Frame {
    pub(crate) fn v4(sequence: u64) -> Frame {
        let header = Header {
            kind: Kind::Probe,
            measured_by: MeasuredBy::Nobody,
            length: 64,
            tag: tag(&secret(), Side::Dialler),
            epoch: EPOCH,
            train: 0,
            sequence,
            sent_ns: 12_345_678_901,
            received_ns: 0,
            heard: 0,
        };
        Frame {
            vlans: Vec::new(),
            is_v4: true,
            options: 0,
            header,
            key: keys(&secret(), Side::Dialler, EPOCH).probe,
            port: PORT,
            source: mapped(PROBER_4),
            destination: mapped(HERE_4),
            filled: 0,
            udp_length: None,
            ip_length: None,
            fragment: 0,
            ipv6_fragment: false,
        }
    }

    pub(crate) fn v6(sequence: u64) -> Frame {
        let mut frame = Frame::v4(sequence);
        frame.is_v4 = false;
        frame.header.tag = tag(&secret_6(), Side::Acceptor);
        frame.key = keys(&secret_6(), Side::Acceptor, EPOCH).probe;
        (frame.source, frame.destination) = (v6(1), v6(2));
        frame
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut datagram = self.header.write(self.key).to_vec();
        datagram.resize(usize::from(self.header.length).max(64), 0xee);
        let udp_length = (8 + datagram.len()) as u16;
        let mut udp = Vec::new();
        udp.extend_from_slice(&40_000_u16.to_be_bytes());
        udp.extend_from_slice(&self.port.to_be_bytes());
        udp.extend_from_slice(&self.udp_length.unwrap_or(udp_length).to_be_bytes());
        udp.extend_from_slice(&[0xab, 0xcd]);
        udp.extend_from_slice(&datagram);
        let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for (place, vlan) in self.vlans.iter().enumerate() {
            out.extend_from_slice(if place + 1 < self.vlans.len() { &[0x88, 0xa8] } else { &[0x81, 0] });
            out.extend_from_slice(&vlan.to_be_bytes());
        }
        if self.is_v4 {
            out.extend_from_slice(&[8, 0]);
            let header = 20 + 4 * self.options;
            let total = self.ip_length.unwrap_or((header + udp.len()) as u16);
            let mut ip = vec![0x40 | (header / 4) as u8, 0];
            ip.extend_from_slice(&total.to_be_bytes());
            ip.extend_from_slice(&[0x12, 0x34]);
            ip.extend_from_slice(&self.fragment.to_be_bytes());
            ip.extend_from_slice(&[61, 17, 0, 0]);
            ip.extend_from_slice(&self.source[12..]);
            ip.extend_from_slice(&self.destination[12..]);
            ip.resize(header, 1);
            let check = !internet_sum(&ip);
            ip[10..12].copy_from_slice(&check.to_be_bytes());
            out.extend_from_slice(&ip);
        } else {
            out.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            let extra = if self.ipv6_fragment { 8 } else { 0 };
            out.extend_from_slice(&self.ip_length.unwrap_or((udp.len() + extra) as u16).to_be_bytes());
            out.extend_from_slice(&[if self.ipv6_fragment { 44 } else { 17 }, 61]);
            out.extend_from_slice(&self.source);
            out.extend_from_slice(&self.destination);
            if self.ipv6_fragment {
                out.extend_from_slice(&[17, 0]);
                out.extend_from_slice(&self.fragment.to_be_bytes());
                out.extend_from_slice(&[0, 0, 0, 9]);
            }
        }
        out.extend_from_slice(&udp);
        out.resize(out.len() + self.filled, 0x77);
        out
    }
}

/// The Internet checksum's sum, folded (RFC 1071).
pub(crate) fn internet_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for word in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The kernel's program and its twin.
pub(crate) struct Both {
    pub(crate) kernel: Responder,
    pub(crate) twin: responder::Responder,
    place: Place,
    /// The last instant that the kernel told.
    now_ns: u64,
}

impl Both {
    /// `None`, with the reason on stderr: the program cannot be loaded here.
    pub(crate) fn new(address: [u8; 16]) -> Option<Both> {
        let place = novacron_ebpf::Place { port: PORT, address };
        let mut kernel = match Responder::load(place, Driven::Driver) {
            Ok(kernel) => kernel,
            Err(why) => {
                eprintln!("skipped: {why}");
                return None;
            }
        };
        let mut peers = Peers::new(EPOCH);
        for (secret, side, address) in
            [(secret(), Side::Dialler, mapped(PROBER_4)), (secret_6(), Side::Acceptor, v6(1))]
        {
            let at = peers.add(&secret, side, address).unwrap();
            kernel.set_peer(at, &for_kernel(&peers.slot(at)));
        }
        let twin = responder::Responder::new(peers, MeasuredBy::XdpDriver);
        Some(Both { kernel, twin, place: Place { port: PORT, address }, now_ns: 1 })
    }

    /// Both answer a frame, and have to agree in verdict, bytes and counters.
    pub(crate) fn agree(&mut self, frame: &[u8]) -> Verdict {
        let (action, out, _) = self.kernel.test_run(frame, 1).unwrap();
        if action == Action::Transmit {
            let datagram = &out[out.len() - 64..];
            self.now_ns = Header::read(datagram).map_or(0, |header| header.received_ns);
            assert!(self.now_ns > 0);
        }
        let verdict = respond(frame, self.place, &mut self.twin, self.now_ns);
        let (expected_action, expected) = match &verdict {
            Verdict::Pass => (Action::Pass, frame),
            Verdict::Drop(_) => (Action::Drop, frame),
            Verdict::Transmit(answer) => (Action::Transmit, answer.as_slice()),
        };
        assert_eq!(action, expected_action, "the twin says {verdict:?} of {frame:02x?}");
        assert_eq!(out, expected, "of {frame:02x?}");
        assert_eq!(self.kernel.counters().read(), self.twin.counts());
        verdict
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.kernel.counters().read()[outcome as usize]
    }
}

pub(crate) fn for_kernel(slot: &Slot) -> Peer {
    let keys = slot.keys.map(|keys| Keys { probe: keys.probe, answer: keys.answer });
    Peer { tag: slot.tag, address: slot.address, epoch: slot.epoch, keys }
}
