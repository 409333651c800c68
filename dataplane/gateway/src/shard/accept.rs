//! Streams that peers dial: accepted and introduced on the first shard, served by the shard of their group.

use super::peer::Stream;
use super::{Command, Shard, ShardHandle, dial, stream};
use crate::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, PEER_STREAMS_MAX};
use crate::registry::Registry;
use novacron_protocol::limits::HELLO_AUTH_MAX;
use novacron_protocol::session::Ends;
use novacron_protocol::wire::{
    FrameHeader, Hello, HelloAccept, HelloRefuse, Identity, RefuseCode, answer_hello,
};
use novacron_transport::contract::{Event, Transport};
use novacron_transport::shard::{Either, Notify, race, sleep, spawn, timeout, yield_now};
use novacron_transport::{FramePool, Listener, OpenSocket, TcpConfig, TcpTransport};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a refusal may take to leave.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);

/// Largest payload of a handshake: its fields, and a proof of identity.
const HELLO_PAYLOAD_MAX: usize = HELLO_AUTH_MAX + 256;

/// A stream whose dialler has introduced itself, on its way to the shard that will serve it.
pub(crate) struct Handshaken {
    socket: OpenSocket,
    hello: Hello,
    accept: HelloAccept,
}

/// What accepting streams needs.
pub(crate) struct Listening {
    pub(crate) identity: Identity,
    pub(crate) registry: Arc<Registry>,
    pub(crate) shards: Vec<ShardHandle>,
}

/// Accepts streams for as long as the process runs. A stranger costs a bounded handshake and nothing more: where there
/// are too many, the one that has been silent longest makes room, since a gateway introduces itself at once.
pub(crate) async fn listen(listening: Rc<Listening>, listener: Listener) {
    let handshakes: Rc<RefCell<VecDeque<Rc<Notify>>>> = Rc::default();
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
                Either::Right(()) => Some("it made room for another before it introduced itself".to_owned()),
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
    let mut transport = TcpTransport::attach(socket, config, pool.clone(), pool.clone())
        .map_err(|error| error.to_string())?;
    let first = timeout(HANDSHAKE_TIMEOUT, dial::first_frame(&mut transport))
        .await
        .ok_or("the dialler did not introduce itself in time")?;
    let refused = match first {
        Ok(_) if listening.registry.is_draining() => {
            HelloRefuse::new(RefuseCode::Draining, "the gateway is shutting down")
        }
        Ok(frame) => match answer_hello(&frame, listening.identity) {
            Ok((hello, accept)) => {
                let shard = usize::from(hello.group) % listening.shards.len();
                let socket = transport.detach().map_err(|error| error.to_string())?;
                return listening.shards[shard]
                    .send(Command::Adopt(Box::new(Handshaken { socket, hello, accept })))
                    .map_err(|_| "the shard takes no more streams".to_owned());
            }
            Err(refuse) => refuse,
        },
        Err(error) => HelloRefuse::new(RefuseCode::NotDwcp, error),
    };
    // Whoever speaks another protocol may not wait for the answer.
    if transport.submit(refused.to_frame()).is_ok() {
        transport.finish();
        let _ = timeout(REFUSAL_WAIT, closed(&mut transport)).await;
    }
    Err(refused.text)
}

async fn closed(transport: &mut TcpTransport) {
    while !matches!(poll_fn(|cx| transport.poll(cx)).await, Event::Closed(_)) {}
}

/// Serves a stream that was introduced.
pub(super) fn adopt(shard: &Rc<Shard>, handshaken: Handshaken) {
    let Handshaken { socket, hello, accept } = handshaken;
    let name = format!("tcp:{}", socket.peer());
    let ends = Ends { dialler: hello.identity, acceptor: accept.identity };
    let peer = shard
        .accepted_peer(hello.identity.instance, hello.group, name)
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
            let opened = Stream::new(shard.next_stream(), ends);
            let shard = Rc::clone(shard);
            spawn(async move { stream::serve(&shard, &peer, &opened, transport).await }).detach();
        }
        Err(error) => tracing::warn!(%error, "a stream was lost before it was served"),
    }
}
