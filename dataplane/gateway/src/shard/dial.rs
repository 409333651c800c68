//! Keeping streams to a peer that this gateway dials.

use super::peer::{Peer, Stream};
use super::{Shard, stream, transport_address};
use crate::limits::{DIAL_TIMEOUT, HANDSHAKE_TIMEOUT, PEER_IDLE, REDIAL_WAIT};
use crate::trust::{Known, Refused, Trust};
use novacron_control_api::{Endpoint, ErrorCode, PeerDirection, PeerIdentity};
use novacron_protocol::session::Ends;
use novacron_protocol::wire::{
    FRAME_HEADER_BYTES, FrameHeader, Hello, HelloAccept, HelloRefuse, Kind, Reason, ReasonCode, gateway_named,
};
use novacron_transport::contract::{Event, Transport};
use novacron_transport::shard::{race, sleep, spawn, timeout};
use novacron_transport::{OpenSocket, TcpTransport};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Instant;

/// Why no stream to a peer could be made.
pub(super) enum DialError {
    /// Nobody answered; trying again may help.
    Unreachable(String),
    /// The peer, or what answered in its place, said no.
    Refused(String),
}

/// Keeps as many streams to `peer` as its sessions want, until nobody has wanted any for a while.
pub(super) async fn keep(shard: Rc<Shard>, peer: Rc<Peer>, endpoint: Endpoint) {
    let mut wait = REDIAL_WAIT.0;
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
        idle_since = None;
        if peer.stream_count() >= peer.want.get() {
            changed.await;
            continue;
        }
        match dial(&shard, &endpoint, peer.expected.as_ref()).await {
            Ok((transport, ends, known)) => {
                wait = REDIAL_WAIT.0;
                let opened = Stream::new(shard.next_stream(), ends, known);
                let (shard, peer) = (Rc::clone(&shard), Rc::clone(&peer));
                tracing::debug!(peer = %peer.name, stream = opened.id.0, "stream open");
                // Known before the next look at how many there are.
                let serving = {
                    let opened = Rc::clone(&opened);
                    async move { stream::serve(&shard, &peer, &opened, transport).await }
                };
                spawn(serving).detach();
                novacron_transport::shard::yield_now().await;
            }
            Err(error) => {
                report(&peer, &endpoint, &error);
                race(peer.changed.notified(), sleep(wait)).await;
                wait = (wait * 2).min(REDIAL_WAIT.1);
            }
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
    endpoint: &Endpoint,
    expected: Option<&PeerIdentity>,
) -> Result<(TcpTransport, Ends, Option<Known>), DialError> {
    let unreachable = |why: String| DialError::Unreachable(why);
    let address = transport_address(endpoint).map_err(unreachable)?;
    let socket =
        novacron_transport::connect(&address, DIAL_TIMEOUT).await.map_err(|e| unreachable(e.to_string()))?;
    let (socket, known) = secure(shard, socket, expected).await?;
    let mut transport = shard.transport(socket).map_err(unreachable)?;
    let hello = Hello::new(shard.identity, shard.group());
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
            Ok((transport, Ends { dialler: shard.identity, acceptor: accept.identity }, known))
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
        DialError::Refused(refused.why)
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
