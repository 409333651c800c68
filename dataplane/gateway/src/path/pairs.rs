//! Peers that are known by their streams: in a stream's handshake, inside TLS, both gateways say a half of the secret that they
//! probe each other under (DWCP-100).
//!
//! ```text
//!  shard::dial    offer ──> Hello ──> shard::accept    answer
//!         agreed <── HelloAccept <──┘      │
//!            └────────> news <─────────────┘ ──> the threads that probe and answer
//! ```
//!
//! One stream at a time offers, and the acceptor takes it where it has no secret that is young and answered to: a gateway that was
//! started anew knows nobody, and its peers need not find out.

use crate::limits::{PAIR_CLAIM, PAIR_SECRET_AGE, PATHS_MAX};
use novacron_control_api::PeerIdentity;
use novacron_protocol::probe::key::{Secret, Side, agreed};
use novacron_protocol::wire::{Identity, ProbeOffer};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the threads that probe and answer are told.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// There is a secret for a peer; an older one is replaced.
    Agreed(Agreed),
    /// The peer at an address is not believed any more.
    Forgotten(IpAddr),
}

/// A secret, and whom it is for.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    /// Where the peer answers probes, and probes from.
    pub(super) address: SocketAddr,
    pub(super) secret: Secret,
    /// Which side this gateway is.
    pub(super) side: Side,
    /// Who the peer has shown to be.
    pub(super) peer: PeerIdentity,
}

/// A peer that there is a secret for.
struct Pair {
    /// The run of its process that said its half.
    instance: [u8; 16],
    agreed_at: Instant,
    /// When its answers were last heard; at first, when it was agreed.
    answered_at: Instant,
}

#[derive(Default)]
struct State {
    pairs: HashMap<IpAddr, Pair>,
    /// Offers that wait for an answer.
    claims: HashMap<IpAddr, Instant>,
    for_answers: VecDeque<News>,
    for_probes: VecDeque<News>,
}

/// Whom this gateway shares a secret with.
pub(crate) struct Pairs {
    /// Where this gateway answers probes; `None`: it does not.
    listen: Option<SocketAddr>,
    state: Mutex<State>,
}

impl Pairs {
    /// Nobody is offered anything.
    pub(crate) fn off() -> Self {
        Pairs { listen: None, state: Mutex::default() }
    }

    pub(super) fn at(listen: SocketAddr) -> Self {
        Pairs { listen: Some(listen), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is ever half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this gateway answers, if a stream that begins at `local` comes from there: a peer answers no other address.
    fn port(&self, local: Option<SocketAddr>) -> Option<u16> {
        let listen = self.listen?;
        (local?.ip().to_canonical() == listen.ip().to_canonical()).then_some(listen.port())
    }

    /// This side's half for a stream that it dials, if it is to say one.
    pub(crate) fn offer(&self, local: Option<SocketAddr>, peer: Option<IpAddr>) -> Option<ProbeOffer> {
        let (port, peer) = (self.port(local)?, peer?.to_canonical());
        let now = Instant::now();
        let mut state = self.state();
        state.claims.retain(|_, since| now.duration_since(*since) < PAIR_CLAIM);
        let has_room = state.pairs.len() < PATHS_MAX || state.pairs.contains_key(&peer);
        if state.claims.contains_key(&peer) || !has_room {
            return None;
        }
        let share = crate::random().ok()?;
        state.claims.insert(peer, now);
        Some(ProbeOffer { port, share })
    }

    /// What the peer said to this side's offer.
    pub(crate) fn answered(
        &self,
        offer: &ProbeOffer,
        answer: Option<&ProbeOffer>,
        (peer, identity): (IpAddr, &PeerIdentity),
        instance: Identity,
    ) {
        let peer = peer.to_canonical();
        let Some(answer) = answer else {
            self.state().claims.remove(&peer);
            return;
        };
        let secret = agreed(&offer.share, &answer.share);
        let address = SocketAddr::new(peer, answer.port);
        let agreed = Agreed { address, secret, side: Side::Dialler, peer: identity.clone() };
        self.agree(agreed, instance);
    }

    /// This side's half for a stream that a peer dialled and offered one on. `None`: this gateway does not probe, knows the peer
    /// well already, or is about to say its own half first.
    pub(crate) fn answer(
        &self,
        local: Option<SocketAddr>,
        offer: &ProbeOffer,
        (peer, identity): (IpAddr, &PeerIdentity),
        (own, instance): (Identity, Identity),
    ) -> Option<ProbeOffer> {
        let (port, peer) = (self.port(local)?, peer.to_canonical());
        let now = Instant::now();
        {
            let state = self.state();
            let same = |pair: &&Pair| pair.instance == instance.instance && pair.is_good(now);
            // Of two that offer at the same time, the greater one's counts.
            let claims = state.claims.get(&peer).is_some_and(|since| now.duration_since(*since) < PAIR_CLAIM);
            let mine = claims && own.gateway > instance.gateway;
            let has_room = state.pairs.len() < PATHS_MAX || state.pairs.contains_key(&peer);
            if state.pairs.get(&peer).is_some_and(|pair| same(&pair)) || mine || !has_room {
                return None;
            }
        }
        let share = crate::random().ok()?;
        let secret = agreed(&offer.share, &share);
        let address = SocketAddr::new(peer, offer.port);
        self.agree(Agreed { address, secret, side: Side::Acceptor, peer: identity.clone() }, instance);
        Some(ProbeOffer { port, share })
    }

    fn agree(&self, agreed: Agreed, instance: Identity) {
        let (now, peer) = (Instant::now(), agreed.address.ip());
        let mut state = self.state();
        state.claims.remove(&peer);
        let pair = Pair { instance: instance.instance, agreed_at: now, answered_at: now };
        state.pairs.insert(peer, pair);
        state.tell(&News::Agreed(agreed));
    }

    /// The peer at an address is not believed any more: nothing of it is answered, and it is not probed.
    pub(crate) fn forget(&self, peer: IpAddr) {
        let mut state = self.state();
        if state.pairs.remove(&peer.to_canonical()).is_some() {
            state.tell(&News::Forgotten(peer.to_canonical()));
        }
    }

    /// A peer's answers are heard.
    pub(super) fn is_heard(&self, peer: IpAddr) {
        if let Some(pair) = self.state().pairs.get_mut(&peer.to_canonical()) {
            pair.answered_at = Instant::now();
        }
    }

    /// What the thread that answers has not been told yet.
    pub(super) fn for_answers(&self) -> VecDeque<News> {
        std::mem::take(&mut self.state().for_answers)
    }

    /// What the thread that probes has not been told yet.
    pub(super) fn for_probes(&self) -> VecDeque<News> {
        std::mem::take(&mut self.state().for_probes)
    }
}

impl Pair {
    /// Whether its secret is young, and answered to.
    fn is_good(&self, now: Instant) -> bool {
        now.duration_since(self.agreed_at) < PAIR_SECRET_AGE
            && now.duration_since(self.answered_at) < PAIR_CLAIM
    }
}

impl State {
    /// Of a peer the last news is what counts, so that there are never more than peers.
    fn tell(&mut self, news: &News) {
        let peer = news.peer();
        for list in [&mut self.for_answers, &mut self.for_probes] {
            list.retain(|other| other.peer() != peer);
            if list.len() >= 2 * PATHS_MAX {
                list.pop_front();
            }
            list.push_back(news.clone());
        }
    }
}

impl News {
    fn peer(&self) -> IpAddr {
        match self {
            News::Agreed(agreed) => agreed.address.ip(),
            News::Forgotten(peer) => *peer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Identity = Identity { gateway: [1; 16], instance: [2; 16] };
    const B: Identity = Identity { gateway: [3; 16], instance: [4; 16] };

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7402))
    }

    /// As the stream's socket has it: another port.
    fn stream(last: u8) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 0, 2, last], 40_000)))
    }

    fn name(site: &str) -> PeerIdentity {
        format!("novacron://{site}/gateway/one").parse().unwrap()
    }

    fn agreed_of(news: &VecDeque<News>) -> &Agreed {
        match news.back() {
            Some(News::Agreed(agreed)) => agreed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_ends_of_a_stream_come_to_one_secret_and_two_sides() {
        let (a, b) = (Pairs::at(at(1)), Pairs::at(at(2)));
        let offer = a.offer(stream(1), Some(at(2).ip())).unwrap();
        assert_eq!(a.offer(stream(1), Some(at(2).ip())), None, "one stream of many does");
        let answer = b.answer(stream(2), &offer, (at(1).ip(), &name("a")), (B, A)).unwrap();
        a.answered(&offer, Some(&answer), (at(2).ip(), &name("b")), B);
        let (of_a, of_b) = (a.for_probes(), b.for_probes());
        let (of_a, of_b) = (agreed_of(&of_a), agreed_of(&of_b));
        assert_eq!((of_a.address, of_a.side), (at(2), Side::Dialler));
        assert_eq!((of_b.address, of_b.side), (at(1), Side::Acceptor));
        assert_eq!(of_a.secret, of_b.secret);
        assert_eq!(agreed_of(&b.for_answers()).peer, name("a"));
        // It is young, and answered to: the next offer is not taken, and the one after that may be made.
        let next = a.offer(stream(1), Some(at(2).ip())).unwrap();
        assert_eq!(b.answer(stream(2), &next, (at(1).ip(), &name("a")), (B, A)), None);
        a.answered(&next, None, (at(2).ip(), &name("b")), B);
        assert!(a.offer(stream(1), Some(at(2).ip())).is_some() && a.for_probes().is_empty());
        assert_eq!(b.answer(stream(2), &offer, (at(1).ip(), &name("a")), (B, A)), None);
        // Another run of the same gateway has forgotten it.
        let again = Identity { instance: [9; 16], ..A };
        assert!(b.answer(stream(2), &offer, (at(1).ip(), &name("a")), (B, again)).is_some());
        b.forget(at(1).ip());
        assert!(matches!(b.for_answers().back(), Some(News::Forgotten(peer)) if *peer == at(1).ip()));
    }

    #[test]
    fn a_peer_that_stopped_answering_gets_another() {
        let b = Pairs::at(at(2));
        let offer = ProbeOffer { port: 7402, share: [5; 32] };
        let take = || b.answer(stream(2), &offer, (at(1).ip(), &name("a")), (B, A)).is_some();
        assert!(take() && !take());
        let long_ago = Instant::now().checked_sub(PAIR_CLAIM).unwrap();
        b.state().pairs.get_mut(&at(1).ip()).unwrap().answered_at = long_ago;
        b.is_heard(at(1).ip());
        assert!(!take());
        b.state().pairs.get_mut(&at(1).ip()).unwrap().answered_at = long_ago;
        assert!(take());
        // And an offer that was never answered is made again after a while.
        assert!(
            b.offer(stream(2), Some(at(3).ip())).is_some() && b.offer(stream(2), Some(at(3).ip())).is_none()
        );
        b.state().claims.insert(at(3).ip(), long_ago);
        assert!(b.offer(stream(2), Some(at(3).ip())).is_some());
    }

    #[test]
    fn of_two_offers_at_once_the_greater_ones_counts() {
        let (a, b) = (Pairs::at(at(1)), Pairs::at(at(2)));
        let of_a = a.offer(stream(1), Some(at(2).ip())).unwrap();
        let of_b = b.offer(stream(2), Some(at(1).ip())).unwrap();
        assert_eq!(b.answer(stream(2), &of_a, (at(1).ip(), &name("a")), (B, A)), None);
        assert!(a.answer(stream(1), &of_b, (at(2).ip(), &name("b")), (A, B)).is_some());
    }

    #[test]
    fn nothing_is_offered_from_another_address_or_by_who_does_not_probe() {
        assert_eq!(Pairs::off().offer(stream(1), Some(at(2).ip())), None);
        let a = Pairs::at(at(1));
        assert_eq!(a.offer(stream(7), Some(at(2).ip())), None);
        assert_eq!(a.offer(None, Some(at(2).ip())), None);
        assert_eq!(a.offer(stream(1), None), None);
    }

    #[test]
    fn there_are_at_most_as_many_as_paths() {
        let b = Pairs::at(at(250));
        let offer = ProbeOffer { port: 7402, share: [5; 32] };
        let answered = (0..=PATHS_MAX as u8)
            .filter(|host| b.answer(stream(250), &offer, (at(*host).ip(), &name("a")), (B, A)).is_some())
            .count();
        assert_eq!(answered, PATHS_MAX);
        assert_eq!(b.for_answers().len(), PATHS_MAX);
    }
}
