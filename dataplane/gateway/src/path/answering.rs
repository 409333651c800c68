//! Answering peers' probes from a socket, and the kernel's keys.

use super::pairs::{News, Pairs};
use super::{Paths, bytes, epoch};
use crate::clock;
use crate::limits::{ANSWERS_LOOK_INTERVAL, PAIR_OLD_SECRET, PROBE_LOOK_INTERVAL};
use novacron_control_api::ResponderRecord;
use novacron_ebpf::abi::{Keys, Peer};
use novacron_protocol::limits::PROBE_BYTES_MAX;
use novacron_protocol::probe::key::{Secret, Side};
use novacron_protocol::probe::packet::MeasuredBy;
use novacron_protocol::probe::peers::{Peers, Slot};
use novacron_protocol::probe::responder::{Counts, Outcome, Responder};
use novacron_transport::shard::Shutdown;
use std::net::{IpAddr, SocketAddr, UdpSocket};
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
    pairs: &Pairs,
    ending: &Shutdown,
) {
    let mut found = Found::default();
    let mut responder = Responder::new(peers, MeasuredBy::Userspace);
    if let Err(error) = socket.set_read_timeout(Some(ANSWERS_LOOK_INTERVAL)) {
        tracing::error!(%error, "probes are not answered; migrations go on");
        return;
    }
    tell(&mut kernel, responder.peers());
    let (mut looked, mut heard_news) = (Instant::now(), Instant::now());
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
        if heard_news.elapsed() >= ANSWERS_LOOK_INTERVAL {
            heard_news = Instant::now();
            for at in found.follow(pairs, responder.peers_mut()) {
                if let Some(kernel) = &mut kernel {
                    kernel.set_peer(at, &for_kernel(&responder.peers().slot(at)));
                }
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

/// Peers that their streams told of.
#[derive(Default)]
struct Found {
    secrets: Vec<Answered>,
}

/// A secret under which a peer is answered.
struct Answered {
    peer: IpAddr,
    secret: Secret,
    prober: Side,
    /// Since when there is another one.
    replaced: Option<Instant>,
}

impl Found {
    /// Takes what is new. Returns the places of the table that are other than they were.
    fn follow(&mut self, pairs: &Pairs, peers: &mut Peers) -> Vec<usize> {
        let mut changed = Vec::new();
        for news in pairs.for_answers() {
            match news {
                News::Agreed(agreed) => {
                    let (peer, prober) = (agreed.address.ip(), agreed.side.other());
                    for older in self.secrets.iter_mut().filter(|other| other.peer == peer) {
                        older.replaced.get_or_insert_with(Instant::now);
                    }
                    match peers.add(&agreed.secret, prober, bytes(peer)) {
                        Ok(at) => changed.push(at),
                        Err(why) => {
                            tracing::warn!(peer = %agreed.peer, %why, "its probes are not answered; migrations go on");
                        }
                    }
                    tracing::debug!(peer = %agreed.peer, address = %agreed.address, "probes are answered");
                    self.secrets.push(Answered { peer, secret: agreed.secret, prober, replaced: None });
                }
                News::Forgotten(peer) => self.remove(|other| other.peer == peer, peers, &mut changed),
            }
        }
        let old = |other: &Answered| other.replaced.is_some_and(|since| since.elapsed() > PAIR_OLD_SECRET);
        self.remove(old, peers, &mut changed);
        changed
    }

    fn remove(&mut self, which: impl Fn(&Answered) -> bool, peers: &mut Peers, changed: &mut Vec<usize>) {
        self.secrets.retain(|answered| {
            let goes = which(answered);
            if goes {
                changed.extend(peers.remove(&answered.secret, answered.prober));
            }
            !goes
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_protocol::probe::key::tag;
    use novacron_protocol::wire::{Identity, ProbeOffer};

    #[test]
    fn a_replaced_secret_is_answered_for_a_while_and_a_forgotten_one_is_not() {
        let pairs = Pairs::at("192.0.2.1:7402".parse().unwrap());
        let local = Some("192.0.2.1:9".parse().unwrap());
        let peer: IpAddr = "192.0.2.2".parse().unwrap();
        let identity = "novacron://b/gateway/one".parse().unwrap();
        let own = Identity { gateway: [1; 16], instance: [1; 16] };
        let (mut found, mut peers) = (Found::default(), Peers::new(5));
        let agree = |run: u8, found: &mut Found, peers: &mut Peers| {
            let offer = ProbeOffer { port: 7402, share: [run; 32] };
            let instance = Identity { gateway: [2; 16], instance: [run; 16] };
            pairs.answer(local, &offer, (peer, &identity), (own, instance)).unwrap();
            found.follow(&pairs, peers)
        };
        assert_eq!(agree(1, &mut found, &mut peers).len(), 1);
        assert_eq!(agree(2, &mut found, &mut peers).len(), 1);
        let known = |found: &Found, peers: &Peers| {
            let known = |answered: &&Answered| peers.find(tag(&answered.secret, answered.prober)).is_some();
            found.secrets.iter().filter(known).count()
        };
        assert_eq!((peers.taken().count(), known(&found, &peers)), (2, 2));
        let old = Instant::now().checked_sub(2 * PAIR_OLD_SECRET).unwrap();
        found.secrets[0].replaced = Some(old);
        assert_eq!(found.follow(&pairs, &mut peers).len(), 1);
        assert_eq!((peers.taken().count(), known(&found, &peers)), (1, 1));
        pairs.forget(peer);
        assert_eq!(found.follow(&pairs, &mut peers).len(), 1);
        assert_eq!((peers.taken().count(), found.secrets.len()), (0, 0));
    }
}
