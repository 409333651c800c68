//! Keeping streams to a peer that this gateway dials.

use super::peer::Peer;
use super::serving::{self, Served};
use super::{Shard, peer_address, stream, transport_address};
use crate::clock;
use crate::limits::{
    BROKEN_HANDSHAKES_MAX, COUNT_LOOK, DIAL_TIMEOUT, DIALS_MAX, HANDSHAKE_TIMEOUT, PEER_IDLE,
    PEER_STREAMS_MAX, REDIAL_WAIT,
};
use crate::trust::{Known, Refused, Trust};
use novacron_control_api::{Endpoint, ErrorCode, PeerDirection, PeerIdentity};
use novacron_protocol::session::Ends;
use novacron_protocol::stream::StreamCount;
use novacron_protocol::wire::{
    FRAME_HEADER_BYTES, FrameHeader, Hello, HelloAccept, HelloRefuse, Kind, Reason, ReasonCode, gateway_named,
};
use novacron_transport::OpenSocket;
use novacron_transport::contract::{Event, Transport};
use novacron_transport::shard::{race, sleep, spawn, timeout};
use novacron_transport::tls::Refusal;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Why no stream to a peer could be made.
pub(super) enum DialError {
    /// Nobody answered; trying again may help.
    Unreachable(String),
    /// The connection ended in the TLS handshake without a word: so does a gateway that has no room for more strangers.
    Broken(String),
    /// The peer, or what answered in its place, said no.
    Refused(String),
}

/// Attempts to dial one peer that are under way, and when the next may begin.
struct Dialling {
    under_way: Cell<usize>,
    wait: Cell<Duration>,
    retry_at: Cell<Instant>,
    /// Rounds of attempts in a row that ended in the handshake without a word.
    broken: Cell<u32>,
    /// The path's round trip, as long as no stream is open that knows it better.
    round_trip: Cell<Duration>,
}

impl Dialling {
    fn new() -> Dialling {
        Dialling {
            under_way: Cell::new(0),
            wait: Cell::new(REDIAL_WAIT.0),
            retry_at: Cell::new(Instant::now()),
            broken: Cell::new(0),
            round_trip: Cell::default(),
        }
    }

    /// A stream was opened.
    fn succeeded(&self) {
        self.wait.set(REDIAL_WAIT.0);
        self.broken.set(0);
    }

    /// Whether such an error is to be told: a handshake that broke off means nothing until it has done so again and again.
    fn tells(&self, error: &DialError) -> bool {
        let broken = if matches!(error, DialError::Broken(_)) { self.broken.get() + 1 } else { 0 };
        self.broken.set(broken);
        broken == 0 || broken >= BROKEN_HANDSHAKES_MAX
    }

    /// None was: the next attempt waits, longer each time, and not as long as those of other gateways that lost the same path.
    /// False: others that were under way have failed just now.
    fn failed(&self) -> bool {
        let now = Instant::now();
        if self.retry_at.get() > now {
            return false;
        }
        let wait = self.wait.get();
        self.retry_at.set(now + jittered(wait, random()));
        self.wait.set((wait * 2).min(REDIAL_WAIT.1));
        true
    }
}

/// Between half of `wait` and one and a half of it.
fn jittered(wait: Duration, random: u64) -> Duration {
    wait / 2 + wait * u32::try_from(random % 1024).unwrap_or_default() / 1024
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without random bytes gateways would only dial together.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Keeps as many streams to `peer` as help, until nobody has wanted any for a while.
pub(super) async fn keep(shard: Rc<Shard>, peer: Rc<Peer>, endpoint: Endpoint) {
    let dialling = Rc::new(Dialling::new());
    let mut bounds = shard.stream_bounds(&peer);
    let mut count = StreamCount::new(bounds.0, bounds.1, clock::now());
    let mut idle_since = None;
    loop {
        let changed = peer.changed.notified();
        if peer.sessions().is_empty() {
            let since = *idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= PEER_IDLE || shard.ending.get() {
                peer.close_streams();
                shard.forget_peer(&endpoint, peer.expected.as_ref());
                return;
            }
            race(changed, sleep(PEER_IDLE / 10)).await;
            continue;
        }
        if idle_since.take().is_some() {
            count = StreamCount::new(bounds.0, bounds.1, clock::now());
        }
        let before = std::mem::replace(&mut bounds, shard.stream_bounds(&peer));
        if before != bounds {
            count.bound(bounds.0, bounds.1, clock::now());
        }
        count.ask(peer.want.get());
        let mut seen = peer.seen();
        if seen.round_trip.is_zero() {
            seen.round_trip = dialling.round_trip.get();
        }
        let want = count.look(&seen, clock::now()).min(PEER_STREAMS_MAX);
        peer.retire_beyond(want);
        let missing = want.saturating_sub(peer.serving_count() + dialling.under_way.get());
        if missing > 0 && Instant::now() >= dialling.retry_at.get() {
            for _ in 0..missing.min(DIALS_MAX.saturating_sub(dialling.under_way.get())) {
                dialling.under_way.set(dialling.under_way.get() + 1);
                let (shard, peer, endpoint) = (Rc::clone(&shard), Rc::clone(&peer), endpoint.clone());
                let dialling = Rc::clone(&dialling);
                spawn(async move { dial_one(&shard, &peer, &endpoint, &dialling).await }).detach();
            }
        }
        race(changed, sleep(COUNT_LOOK)).await;
    }
}

/// Dials once, and serves the stream that comes of it.
async fn dial_one(shard: &Rc<Shard>, peer: &Rc<Peer>, endpoint: &Endpoint, dialling: &Dialling) {
    let dialled = dial(shard, peer, endpoint, dialling).await;
    dialling.under_way.set(dialling.under_way.get().saturating_sub(1));
    match dialled {
        Ok((transport, ends, known)) => {
            dialling.succeeded();
            let opened = shard.stream(&transport, ends, known);
            tracing::debug!(peer = %peer.name, stream = opened.id.0, "stream open");
            stream::serve(shard, peer, &opened, transport).await;
        }
        Err(error) => {
            if dialling.failed() && dialling.tells(&error) {
                report(peer, endpoint, &error);
            }
            peer.changed.notify();
        }
    }
}

/// Sessions that have never had a stream fail at once; others wait as long as they are configured to.
fn report(peer: &Peer, endpoint: &Endpoint, error: &DialError) {
    let (code, reason) = match error {
        DialError::Unreachable(why) => {
            let text = format!("the peer gateway {endpoint} cannot be reached: {why}");
            (ErrorCode::PeerUnreachable, Reason::new(ReasonCode::Timeout, text))
        }
        DialError::Broken(why) => {
            let text = format!(
                "the peer gateway {endpoint} refused the stream: {why}, {BROKEN_HANDSHAKES_MAX} times in a row: it has no room \
                 for new peers, or something else listens there; `novactl doctor` tells which"
            );
            (ErrorCode::PeerRefused, Reason::new(ReasonCode::Protocol, text))
        }
        DialError::Refused(why) => {
            let text = format!("the peer gateway {endpoint} refused the stream: {why}");
            (ErrorCode::PeerRefused, Reason::new(ReasonCode::Protocol, text))
        }
    };
    tracing::warn!(peer = %peer.name, %reason, "no new stream");
    if peer.stream_count() > 0 {
        return;
    }
    for running in peer.sessions() {
        if running.is_opening() {
            running.fail_opening(code, reason.clone());
        }
    }
}

async fn dial(
    shard: &Shard,
    peer: &Peer,
    endpoint: &Endpoint,
    dialling: &Dialling,
) -> Result<(Served, Ends, Option<Known>), DialError> {
    let unreachable = |why: String| DialError::Unreachable(why);
    let address = transport_address(endpoint).map_err(unreachable)?;
    let socket =
        novacron_transport::connect(&address, DIAL_TIMEOUT).await.map_err(|e| unreachable(e.to_string()))?;
    if let Some(round_trip) = socket.handshake_round_trip() {
        // Whether more streams are to begin depends on it, and they need not wait for this one's handshake.
        dialling.round_trip.set(round_trip);
        peer.changed.notify();
    }
    let (socket, known) = secure(shard, socket, peer.expected.as_ref()).await?;
    // Halves of a secret are said where it is proven who hears them.
    let at = known.as_ref().and(peer_address(&socket.peer()));
    let offer = at.and_then(|at| shard.pairs.offer(socket.local(), Some(at)));
    let mut transport = serving::serve(shard, socket).map_err(unreachable)?;
    let nonce = crate::random().map_err(unreachable)?;
    let hello = Hello { probe: offer, ..Hello::new(shard.identity, shard.group(), nonce) };
    transport.submit(hello.to_frame()).map_err(|refused| unreachable(refused.to_string()))?;
    let answer = timeout(HANDSHAKE_TIMEOUT, first_frame(&mut transport)).await;
    let frame = answer
        .ok_or_else(|| {
            DialError::Refused("it accepted the connection but did not answer the handshake in time".into())
        })?
        .map_err(DialError::Refused)?;
    let header = FrameHeader::read(&frame).map_err(|error| DialError::Refused(error.to_string()))?;
    let payload = &frame[FRAME_HEADER_BYTES..];
    match header.kind {
        Kind::HelloAccept => {
            let accept = HelloAccept::read(payload).map_err(|error| DialError::Refused(error.to_string()))?;
            if known
                .as_ref()
                .is_some_and(|known| accept.identity.gateway != gateway_named(&known.identity.to_string()))
            {
                return Err(DialError::Refused(
                    "it calls itself otherwise than its certificate does".to_owned(),
                ));
            }
            if let (Some(offer), Some(at), Some(known)) = (&offer, at, &known) {
                shard.pairs.answered(offer, accept.probe.as_ref(), (at, &known.identity), accept.identity);
            }
            let nonces = [nonce, accept.nonce];
            Ok((transport, Ends { dialler: shard.identity, acceptor: accept.identity, nonces }, known))
        }
        Kind::HelloRefuse => {
            let refuse = HelloRefuse::read(payload).map_err(|error| DialError::Refused(error.to_string()))?;
            Err(DialError::Refused(refuse.text))
        }
        kind => Err(DialError::Refused(format!("it answered the handshake with a {kind:?} frame"))),
    }
}

/// Encrypts a connection that was made, unless this gateway was told not to, and finds out whom it reached.
async fn secure(
    shard: &Shard,
    socket: OpenSocket,
    expected: Option<&PeerIdentity>,
) -> Result<(OpenSocket, Option<Known>), DialError> {
    let Some(trust) = &shard.trust else { return Ok((socket, None)) };
    let refused = |refused: Refused| {
        trust.refusals.count(refused.what);
        match refused.what == Refusal::Broken.name() {
            true => DialError::Broken(refused.why),
            false => DialError::Refused(refused.why),
        }
    };
    let secured = timeout(HANDSHAKE_TIMEOUT, trust.dialled(socket, expected)).await.ok_or_else(|| {
        DialError::Refused("it accepted the connection but did not answer the TLS handshake in time".into())
    })?;
    let socket = secured.map_err(refused)?;
    let known = Trust::known(&socket, PeerDirection::To).map_err(refused)?;
    Ok((socket, Some(known)))
}

/// The first frame that arrives on a new stream.
pub(super) async fn first_frame<T: Transport>(transport: &mut T) -> Result<bytes::Bytes, String> {
    loop {
        match poll_fn(|cx| transport.poll(cx)).await {
            Event::Received(frame) => return Ok(frame),
            Event::Writable { .. } => {}
            Event::Closed(reason) => return Err(format!("the stream closed during the handshake: {reason}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_that_breaks_off_is_told_when_it_goes_on_doing_so() {
        let dialling = Dialling::new();
        let broken = DialError::Broken(String::new());
        let before: Vec<bool> = (1..BROKEN_HANDSHAKES_MAX).map(|_| dialling.tells(&broken)).collect();
        assert!(before.iter().all(|tells| !tells), "{before:?}");
        assert!(dialling.tells(&broken), "it goes on for ever");
        // What says no is believed at once, and what has opened has put an end to it.
        assert!(dialling.tells(&DialError::Refused(String::new())) && !dialling.tells(&broken));
        dialling.succeeded();
        assert!(!dialling.tells(&broken));
    }

    #[test]
    fn waits_differ_by_up_to_half() {
        let wait = Duration::from_millis(1024);
        let (least, most) = (jittered(wait, 0), jittered(wait, 1023));
        assert_eq!((least, most), (wait / 2, wait / 2 + Duration::from_millis(1023)));
        for seed in 0..5000 {
            assert!((least..=most).contains(&jittered(wait, seed)));
        }
    }

    #[test]
    fn a_round_of_attempts_that_failed_together_waits_once() {
        let dialling = Dialling::new();
        assert!(dialling.failed());
        assert!(!dialling.failed(), "the second of the same round");
        assert_eq!(dialling.wait.get(), REDIAL_WAIT.0 * 2);
        dialling.succeeded();
        assert_eq!(dialling.wait.get(), REDIAL_WAIT.0);
    }
}
