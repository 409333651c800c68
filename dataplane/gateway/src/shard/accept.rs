//! Streams that peers dial: accepted and introduced on the first shard, served by the shard of their group.

use super::{Command, Shard, ShardHandle, dial, stream};
use crate::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, PEER_STREAMS_MAX, STRANGER_HANDSHAKES};
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
use novacron_transport::{FramePool, Listener, OpenSocket, TcpConfig, TcpTransport};
use std::cell::RefCell;
use std::collections::VecDeque;
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
}

/// Accepts streams for as long as the process runs. A stranger costs a bounded handshake and nothing more: where there
/// are too many, the one that has been silent longest makes room, since a gateway introduces itself at once.
pub(crate) async fn listen(listening: Rc<Listening>, listener: Listener) {
    let handshakes: Rc<RefCell<VecDeque<Rc<Notify>>>> = Rc::default();
    let mut budget = Budget::new(Instant::now());
    let pool = FramePool::new(2 * HANDSHAKES_MAX * HELLO_PAYLOAD_MAX.next_power_of_two());
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "peer gateways cannot be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if listening.trust.is_some() && !budget.take(Instant::now()) {
            // Cheaper than any answer; who is a gateway dials again.
            listening.refusals.count("too_many");
            drop(socket);
            yield_now().await;
            continue;
        }
        let notify = Rc::new(Notify::new());
        let displaced = notify.notified();
        let oldest = {
            let mut handshakes = handshakes.borrow_mut();
            handshakes.push_back(Rc::clone(&notify));
            if handshakes.len() > HANDSHAKES_MAX { handshakes.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            oldest.notify();
        }
        let (listening, handshakes) = (Rc::clone(&listening), Rc::clone(&handshakes));
        let pool = pool.clone();
        spawn(async move {
            let from = socket.peer();
            let why = match race(introduce(&listening, socket, &pool), displaced).await {
                Either::Left(Ok(())) => None,
                Either::Left(Err(why)) => Some(why),
                Either::Right(()) => {
                    listening.refusals.count("displaced");
                    Some("it made room for another before it introduced itself".to_owned())
                }
            };
            if let Some(why) = why {
                tracing::warn!(%from, %why, "a stream was refused");
            }
            handshakes.borrow_mut().retain(|other| !Rc::ptr_eq(other, &notify));
        })
        .detach();
        // Whoever has said its first word already is heard before a flood of others can displace it.
        yield_now().await;
    }
}

/// Reads a dialler's first frame and hands the stream on, or refuses it with the reason. A dialler says nothing
/// more before it is answered, so that nothing is left behind when the stream moves to its shard.
async fn introduce(listening: &Listening, socket: OpenSocket, pool: &FramePool) -> Result<(), String> {
    let config = TcpConfig {
        payload_bytes_max: HELLO_PAYLOAD_MAX,
        header_check: FrameHeader::is_intact,
        ..TcpConfig::default()
    };
    let (socket, known) = secure(listening, socket).await?;
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
            Ok((hello, accept)) => {
                if let Err(refuse) = authorise(listening, known.as_ref(), &hello) {
                    return Err(say(&mut transport, refuse).await);
                }
                let shard = usize::from(hello.group) % listening.shards.len();
                let socket = transport.detach().map_err(|error| error.to_string())?;
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
async fn secure(listening: &Listening, socket: OpenSocket) -> Result<(OpenSocket, Option<Known>), String> {
    let Some(trust) = &listening.trust else { return Ok((socket, None)) };
    let refused = |refused: Refused| {
        trust.refusals.count(refused.what);
        refused.why
    };
    let secured = timeout(HANDSHAKE_TIMEOUT, trust.accepted(socket)).await.ok_or_else(|| {
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

/// How many handshakes of strangers may begin.
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Budget { left: f64::from(STRANGER_HANDSHAKES.1), at: now }
    }

    /// Whether one more may begin now.
    fn take(&mut self, now: Instant) -> bool {
        let (rate, burst) = STRANGER_HANDSHAKES;
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate);
        (self.left, self.at) = ((self.left + earned).min(f64::from(burst)), now);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
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
    let opened = shard.transport(socket).and_then(|mut transport| {
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
