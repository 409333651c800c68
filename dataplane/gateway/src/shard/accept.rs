//! Streams that peers dial: accepted and introduced on the first shard, served by the shard of their group.

use super::admission::{Admission, Next, Origin};
use super::budget::Budget;
use super::{Command, Shard, ShardHandle, dial, peer_address, serving, stream};
use crate::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, PEER_STREAMS_MAX, REFUSAL_LINES};
use crate::path::Pairs;
use crate::registry::Registry;
use crate::trust::{Known, NOT_ALLOWED, Refusals, Refused, Trust};
use novacron_control_api::PeerDirection;
use novacron_protocol::limits::HELLO_AUTH_MAX;
use novacron_protocol::session::Ends;
use novacron_protocol::wire::{
    FrameHeader, Hello, HelloAccept, HelloRefuse, Identity, RefuseCode, answer_hello, gateway_named,
};
use novacron_transport::contract::{Event, Transport};
use novacron_transport::shard::{Either, Notify, race, sleep, spawn, timeout, yield_now};
use novacron_transport::{FramePool, Listener, OpenSocket, Peer as TransportPeer, TcpConfig, TcpTransport};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a refusal may take to leave.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);

/// Largest payload of a handshake: its fields, and a proof of identity.
const HELLO_PAYLOAD_MAX: usize = HELLO_AUTH_MAX + 256;

/// A stream whose dialler has introduced itself, on its way to the shard that will serve it.
pub(crate) struct Handshaken {
    socket: OpenSocket,
    known: Option<Known>,
    hello: Hello,
    accept: HelloAccept,
}

/// What accepting streams needs.
pub(crate) struct Listening {
    pub(crate) identity: Identity,
    pub(crate) registry: Arc<Registry>,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) trust: Option<Arc<Trust>>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) pairs: Arc<Pairs>,
}

/// How a stranger that is being admitted hears what became of it.
#[derive(Default)]
struct Stranger {
    /// It may begin its handshake.
    may_begin: Cell<bool>,
    begins: Notify,
    displaced: Notify,
}

impl Stranger {
    fn admit(&self) {
        self.may_begin.set(true);
        self.begins.notify();
    }

    async fn admitted(&self) {
        while !self.may_begin.get() {
            self.begins.notified().await;
        }
    }
}

/// Those that are being admitted.
struct Strangers {
    admission: RefCell<Admission<Rc<Stranger>>>,
    /// Somebody waits for its turn.
    waiting: Notify,
    lines: RefCell<Lines>,
}

/// Accepts streams for as long as the process runs. A stranger costs a bounded handshake and nothing more, and waits for its
/// turn to cost that.
pub(crate) async fn listen(listening: Rc<Listening>, listener: Listener) {
    let now = Instant::now();
    let strangers = Rc::new(Strangers {
        admission: RefCell::new(Admission::new(now)),
        waiting: Notify::new(),
        lines: RefCell::new(Lines { budget: Budget::new(REFUSAL_LINES, now), left_out: 0 }),
    });
    let pool = FramePool::new(2 * HANDSHAKES_MAX * HELLO_PAYLOAD_MAX.next_power_of_two());
    spawn(admit(Rc::clone(&strangers))).detach();
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "peer gateways cannot be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let stranger = Rc::new(Stranger::default());
        let displaced = stranger.displaced.notified();
        let origin = Origin::of(peer_address(&socket.peer()));
        let (place, displaces) = strangers.admission.borrow_mut().enter(origin, Rc::clone(&stranger));
        if let Some(other) = displaces {
            other.displaced.notify();
        }
        let (listening, strangers) = (Rc::clone(&listening), Rc::clone(&strangers));
        let pool = pool.clone();
        spawn(async move {
            let from = socket.peer();
            let turn = async {
                strangers.admission.borrow_mut().knock(place);
                strangers.waiting.notify();
                stranger.admitted().await;
            };
            let why = match race(introduce(&listening, socket, &pool, turn), displaced).await {
                Either::Left(Ok(())) => None,
                Either::Left(Err(why)) => Some(why),
                Either::Right(()) => {
                    listening.refusals.count("displaced");
                    Some("it made room for another before it introduced itself".to_owned())
                }
            };
            strangers.admission.borrow_mut().leave(place);
            if let Some(why) = why {
                strangers.lines.borrow_mut().refused(&from, &why);
            }
        })
        .detach();
        // Whoever has said its first word already is heard before a flood of others can displace it.
        yield_now().await;
    }
}

/// Gives those that wait their turns.
async fn admit(strangers: Rc<Strangers>) {
    loop {
        let waiting = strangers.waiting.notified();
        let next = strangers.admission.borrow_mut().next(Instant::now());
        match next {
            Next::Begins(stranger) => stranger.admit(),
            Next::In(wait) => sleep(wait).await,
            Next::Nobody => waiting.await,
        }
    }
}

/// What is said of strangers that were refused: so many lines, and of the others how many they were.
struct Lines {
    budget: Budget,
    left_out: u64,
}

impl Lines {
    fn refused(&mut self, from: &TransportPeer, why: &str) {
        if self.budget.take(Instant::now()).is_err() {
            self.left_out += 1;
            return;
        }
        match std::mem::take(&mut self.left_out) {
            0 => tracing::warn!(%from, %why, "a stream was refused"),
            others => tracing::warn!(%from, %why, others, "a stream was refused, and others before it"),
        }
    }
}

/// Reads a dialler's first frame and hands the stream on, or refuses it with the reason. A dialler says nothing
/// more before it is answered, so that nothing is left behind when the stream moves to its shard.
async fn introduce(
    listening: &Listening,
    socket: OpenSocket,
    pool: &FramePool,
    turn: impl Future<Output = ()>,
) -> Result<(), String> {
    let config = TcpConfig {
        payload_bytes_max: HELLO_PAYLOAD_MAX,
        header_check: FrameHeader::is_intact,
        ..TcpConfig::default()
    };
    let (socket, known) = secure(listening, socket, turn).await?;
    let mut transport = TcpTransport::attach(socket, config, pool.clone(), pool.clone())
        .map_err(|error| error.to_string())?;
    let first = timeout(HANDSHAKE_TIMEOUT, dial::first_frame(&mut transport)).await.ok_or_else(|| {
        listening.refusals.count("silent");
        "the dialler did not introduce itself in time"
    })?;
    let refused = match first {
        Ok(_) if listening.registry.is_draining() => {
            HelloRefuse::new(RefuseCode::Draining, "the gateway is shutting down")
        }
        Ok(frame) => match answer_hello(&frame, listening.identity, crate::random()?) {
            Ok((hello, mut accept)) => {
                if let Err(refuse) = authorise(listening, known.as_ref(), &hello) {
                    return Err(say(&mut transport, refuse).await);
                }
                let shard = usize::from(hello.group) % listening.shards.len();
                let socket = transport.detach().map_err(|error| error.to_string())?;
                if let (Some(offer), Some(known)) = (&hello.probe, &known)
                    && let Some(at) = peer_address(&socket.peer())
                {
                    let (peer, runs) = ((at, &known.identity), (listening.identity, hello.identity));
                    accept.probe = listening.pairs.answer(socket.local(), offer, peer, runs);
                }
                return listening.shards[shard]
                    .send(Command::Adopt(Box::new(Handshaken { socket, known, hello, accept })))
                    .map_err(|_| "the shard takes no more streams".to_owned());
            }
            Err(refuse) => refuse,
        },
        Err(error) => HelloRefuse::new(RefuseCode::NotDwcp, error),
    };
    listening.refusals.count(match refused.code {
        RefuseCode::Version => "version",
        RefuseCode::Draining => "draining",
        _ => "not_dwcp",
    });
    Err(say(&mut transport, refused).await)
}

/// Refuses a stream in words; returns the words.
async fn say(transport: &mut TcpTransport, refused: HelloRefuse) -> String {
    // Whoever speaks another protocol may not wait for the answer.
    if transport.submit(refused.to_frame()).is_ok() {
        transport.finish();
        let _ = timeout(REFUSAL_WAIT, closed(transport)).await;
    }
    refused.text
}

/// Encrypts a connection that was accepted, unless this gateway was told not to, and finds out who dialled.
async fn secure(
    listening: &Listening,
    socket: OpenSocket,
    turn: impl Future<Output = ()>,
) -> Result<(OpenSocket, Option<Known>), String> {
    let Some(trust) = &listening.trust else { return Ok((socket, None)) };
    let refused = |refused: Refused| {
        trust.refusals.count(refused.what);
        refused.why
    };
    let secured = timeout(HANDSHAKE_TIMEOUT, trust.accepted(socket, turn)).await.ok_or_else(|| {
        trust.refusals.count("silent");
        "the dialler did not complete the TLS handshake in time".to_owned()
    })?;
    let socket = secured.map_err(refused)?;
    let known = Trust::known(&socket, PeerDirection::From).map_err(refused)?;
    Ok((socket, Some(known)))
}

/// Whether who dialled may, and is who it says (DWCP-60).
fn authorise(listening: &Listening, known: Option<&Known>, hello: &Hello) -> Result<(), HelloRefuse> {
    let (Some(trust), Some(known)) = (&listening.trust, known) else { return Ok(()) };
    let name = known.identity.to_string();
    let allowed = if hello.identity.gateway == gateway_named(&name) {
        trust.allows(known)
    } else {
        let why = format!("{name} calls itself otherwise than its certificate does");
        Err(Refused { what: NOT_ALLOWED, why })
    };
    allowed.map_err(|refused| {
        trust.refusals.count(refused.what);
        HelloRefuse::new(RefuseCode::NotAuthorised, refused.why)
    })
}

async fn closed(transport: &mut TcpTransport) {
    while !matches!(poll_fn(|cx| transport.poll(cx)).await, Event::Closed(_)) {}
}

/// Serves a stream that was introduced.
pub(super) fn adopt(shard: &Rc<Shard>, handshaken: Handshaken) {
    let Handshaken { socket, known, hello, accept } = handshaken;
    let name = format!("tcp:{}", socket.peer());
    let nonces = [hello.nonce, accept.nonce];
    let ends = Ends { dialler: hello.identity, acceptor: accept.identity, nonces };
    let peer = shard
        .accepted_peer(hello.identity, hello.group, name)
        .filter(|peer| peer.stream_count() < PEER_STREAMS_MAX);
    let Some(peer) = peer else {
        tracing::warn!("a stream was closed: too many peers, or too many streams of one");
        return;
    };
    shard.displace_strangers(&peer);
    let opened = serving::serve(shard, socket).and_then(|mut transport| {
        transport.submit(accept.to_frame()).map_err(|refused| refused.to_string())?;
        Ok(transport)
    });
    match opened {
        Ok(transport) => {
            let opened = shard.stream(&transport, ends, known);
            let shard = Rc::clone(shard);
            spawn(async move { stream::serve(&shard, &peer, &opened, transport).await }).detach();
        }
        Err(error) => tracing::warn!(%error, "a stream was lost before it was served"),
    }
}
