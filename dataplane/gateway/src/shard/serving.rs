//! Streams on other shards than their sessions': they are spread over all of them ([`super::placing`]), so that sealing and system
//! calls of a single hot session are not one processor's work. The session stays where it is; its frames go to and fro in batches.

use super::placing::Place;
use super::{Command, Shard, peer_address};
use crate::limits::STREAM_SILENCE_MAX;
use bytes::Bytes;
use novacron_protocol::limits::FRAME_PAYLOAD_MAX;
use novacron_protocol::wire::FrameHeader;
use novacron_transport::contract::{CloseReason, Event, Flow, Refused};
use novacron_transport::relay::{Carrier, RelayConfig, Relayed, relay};
use novacron_transport::{
    Caps, FrameBuffer, FramePool, NetError, OpenSocket, SocketOptions, TcpConfig, TcpTransport, Transport,
};
use std::net::IpAddr;
use std::task::{Context, Poll};

/// A stream that this shard is to serve for another.
pub(crate) struct Carriage {
    socket: OpenSocket,
    carrier: Carrier,
    config: TcpConfig,
    /// Of the session's shard: its streams share one bound wherever they are served.
    send_pool: FramePool,
    receive_pool: FramePool,
}

/// Serves it until it ends.
pub(super) async fn carry(carriage: Carriage) {
    let Carriage { socket, carrier, config, send_pool, receive_pool } = carriage;
    match TcpTransport::attach(socket, config, send_pool, receive_pool) {
        Ok(transport) => carrier.carry(transport).await,
        Err(error) => carrier.fail(unserved(&error)).await,
    }
}

fn unserved(error: &NetError) -> CloseReason {
    CloseReason::Io { kind: std::io::ErrorKind::Other, detail: format!("it cannot be served: {error}") }
}

/// A stream's transport, where its other end is, and the shard that serves it.
pub(super) struct Served {
    pub(super) place: Place,
    pub(super) address: Option<IpAddr>,
    transport: Way,
}

enum Way {
    Here(Box<TcpTransport>),
    Elsewhere(Box<Relayed<TcpTransport>>),
}

/// The same question to whichever there is.
macro_rules! ask {
    ($served:expr, $transport:ident => $answer:expr) => {
        match $served {
            Way::Here($transport) => $answer,
            Way::Elsewhere($transport) => $answer,
        }
    };
}

impl Transport for Served {
    const CAPS: Caps = TcpTransport::CAPS;

    fn alloc(&mut self, len: usize) -> Option<FrameBuffer> {
        ask!(&mut self.transport, transport => transport.alloc(len))
    }

    fn submit(&mut self, frame: Bytes) -> Result<(), Refused> {
        ask!(&mut self.transport, transport => transport.submit(frame))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        ask!(&mut self.transport, transport => transport.poll(cx))
    }

    fn finish(&mut self) {
        ask!(&mut self.transport, transport => transport.finish());
    }

    fn close(&mut self) {
        ask!(&mut self.transport, transport => transport.close());
    }

    fn queued_bytes(&self) -> usize {
        ask!(&self.transport, transport => transport.queued_bytes())
    }

    fn unacknowledged_bytes(&self) -> usize {
        ask!(&self.transport, transport => transport.unacknowledged_bytes())
    }

    fn flow(&self) -> Option<Flow> {
        ask!(&self.transport, transport => transport.flow())
    }

    fn bound_unsent(&mut self, bytes: usize) {
        ask!(&mut self.transport, transport => transport.bound_unsent(bytes));
    }

    fn prefer_congestion(&mut self, name: &str) {
        ask!(&mut self.transport, transport => transport.prefer_congestion(name));
    }

    fn congestion(&self) -> Option<String> {
        ask!(&self.transport, transport => transport.congestion())
    }
}

/// What a stream over `socket` is configured with.
fn configured(shard: &Shard, socket: &OpenSocket) -> TcpConfig {
    // A gateway reads its streams whatever its hypervisors do: credit holds senders back, not the socket. Bytes
    // that stay unacknowledged therefore mean a dead path.
    let mut options =
        SocketOptions { user_timeout: Some(STREAM_SILENCE_MAX), ..SocketOptions::for_streams() };
    let congestion = peer_address(&socket.peer()).and_then(|address| shard.congestion_to(address));
    options.congestion_preferred = congestion.map(str::to_owned);
    TcpConfig {
        socket: options,
        payload_bytes_max: FRAME_PAYLOAD_MAX,
        header_check: FrameHeader::is_intact,
        queue_low_water_bytes: crate::limits::STREAM_QUEUE_BYTES,
        ..TcpConfig::default()
    }
}

/// A stream's transport over a connected socket, on the shard whose turn it is.
pub(super) fn serve(shard: &Shard, socket: OpenSocket) -> Result<Served, String> {
    let config = configured(shard, &socket);
    let address = peer_address(&socket.peer());
    let (send_pool, receive_pool) = (shard.pool.clone(), shard.receive_pool.clone());
    let steered = socket.local().is_some_and(|local| shard.spread.covers(local.ip().to_canonical()));
    let place = shard.placing.place(steered.then(|| socket.incoming_cpu()).flatten());
    let serving = place.shard;
    if serving != shard.index {
        let relayed = RelayConfig {
            payload_bytes_max: config.payload_bytes_max,
            queue_bytes_max: config.queue_bytes_max,
            queue_frames_max: config.queue_frames_max,
            queue_low_water_bytes: config.queue_low_water_bytes,
        };
        let (near, carrier) = relay(relayed, send_pool.clone());
        let carriage = Carriage { socket, carrier, config, send_pool, receive_pool };
        shard.shards[serving]
            .send(Command::Carry(Box::new(carriage)))
            .map_err(|_| format!("shard {serving} takes no more streams"))?;
        return Ok(Served { place, address, transport: Way::Elsewhere(Box::new(near)) });
    }
    TcpTransport::attach(socket, config, send_pool, receive_pool)
        .map(|transport| Served { place, address, transport: Way::Here(Box::new(transport)) })
        .map_err(|error| error.to_string())
}
