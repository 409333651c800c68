//! Answering peers' probes from a socket, and the kernel's keys.

use super::{Paths, bytes, epoch};
use crate::clock;
use crate::limits::PROBE_LOOK_INTERVAL;
use novacron_control_api::ResponderRecord;
use novacron_ebpf::abi::{Keys, Peer};
use novacron_protocol::limits::PROBE_BYTES_MAX;
use novacron_protocol::probe::packet::MeasuredBy;
use novacron_protocol::probe::peers::{Peers, Slot};
use novacron_protocol::probe::responder::{Counts, Outcome, Responder};
use novacron_transport::shard::Shutdown;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Who answers, as callers are told.
pub(super) struct Answering {
    pub(super) listen: SocketAddr,
    pub(super) by: &'static str,
    pub(super) interface: Option<String>,
    pub(super) limits: Vec<String>,
    pub(super) userspace: Counts,
    pub(super) kernel: Counts,
}

impl Answering {
    pub(super) fn record(&self) -> ResponderRecord {
        let sum = |outcome: &Outcome| {
            let at = *outcome as usize;
            (outcome.name().to_owned(), self.userspace[at] + self.kernel[at])
        };
        ResponderRecord {
            listen: self.listen,
            by: self.by.to_owned(),
            interface: self.interface.clone(),
            limits: self.limits.clone(),
            counts: Outcome::ALL.iter().map(sum).collect(),
        }
    }
}

fn for_kernel(slot: &Slot) -> Peer {
    let keys = slot.keys.map(|keys| Keys { probe: keys.probe, answer: keys.answer });
    Peer { tag: slot.tag, address: slot.address, epoch: slot.epoch, keys }
}

/// Answers until the gateway ends. Where the kernel answers, probes do not come here, unless by an interface that it is not
/// attached to.
pub(super) fn run(
    socket: &UdpSocket,
    peers: Peers,
    mut kernel: Option<novacron_ebpf::Responder>,
    paths: &Paths,
    ending: &Shutdown,
) {
    let mut responder = Responder::new(peers, MeasuredBy::Userspace);
    if let Err(error) = socket.set_read_timeout(Some(PROBE_LOOK_INTERVAL)) {
        tracing::error!(%error, "probes are not answered; migrations go on");
        return;
    }
    tell(&mut kernel, responder.peers());
    let mut looked = Instant::now();
    // One byte more than any probe, so that a longer one shows.
    let mut datagram = [0; PROBE_BYTES_MAX + 1];
    while !ending.is_requested() {
        match socket.recv_from(&mut datagram) {
            Ok((length, from)) => {
                let now_ns = clock::now().as_nanos();
                if let Ok(answer) = responder.answer(&datagram[..length], bytes(from.ip()), now_ns) {
                    // A full buffer loses the answer as the path might have.
                    let _ = socket.send_to(&answer, from);
                }
            }
            Err(error) if is_silence(&error) => {}
            Err(error) => {
                // An ICMP error of an earlier answer, say: none of ours.
                tracing::debug!(%error, "a probe could not be read");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if looked.elapsed() >= PROBE_LOOK_INTERVAL {
            looked = Instant::now();
            if responder.peers_mut().rotate(epoch()) {
                tell(&mut kernel, responder.peers());
            }
            let counted = kernel.as_ref().map(|kernel| kernel.counters().read());
            let mut state = paths.state();
            if let Some(answering) = &mut state.answering {
                answering.userspace = responder.counts();
                answering.kernel = counted.unwrap_or_default();
            }
        }
    }
}

fn is_silence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// Gives the kernel every peer's present keys.
fn tell(kernel: &mut Option<novacron_ebpf::Responder>, peers: &Peers) {
    if let Some(kernel) = kernel {
        for at in peers.taken() {
            kernel.set_peer(at, &for_kernel(&peers.slot(at)));
        }
    }
}
