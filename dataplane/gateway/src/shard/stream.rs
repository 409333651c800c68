//! Serving one stream: frames out as it has room, frames in to their sessions.

use super::Shard;
use super::peer::{Peer, Stream};
use crate::limits::STREAM_QUEUE_BYTES;
use crate::record;
use crate::registry::Known;
use bytes::Bytes;
use novacron_protocol::wire::{FRAME_HEADER_BYTES, FrameHeader, Kind, Open, Reason, ReasonCode};
use novacron_transport::contract::{CloseReason, Event, Refused, Transport};
use novacron_transport::shard::yield_now;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// After this many bytes received in a row, whoever takes them gets a turn, while they are still in the cache.
const RECEIVE_TURN_BYTES: usize = 128 * 1024;

/// Serves a stream until it dies.
pub(super) async fn serve<T: Transport>(
    shard: &Rc<Shard>,
    peer: &Rc<Peer>,
    stream: &Rc<Stream>,
    mut transport: T,
) {
    peer.stream_opened(stream);
    let reason = exchange(shard, peer, stream, &mut transport).await;
    tracing::debug!(peer = %peer.name, stream = stream.id.0, %reason, "stream closed");
    peer.stream_lost(stream.id);
}

async fn exchange<T: Transport>(
    shard: &Rc<Shard>,
    peer: &Rc<Peer>,
    stream: &Rc<Stream>,
    transport: &mut T,
) -> CloseReason {
    let mut received_bytes = 0;
    let mut woken = Box::pin(stream.wake.notified());
    loop {
        let event = poll_fn(|cx| {
            loop {
                if stream.closing.get() {
                    transport.finish();
                    return Poll::Ready(Event::Closed(CloseReason::Local));
                }
                fill(peer, stream, transport);
                if let Poll::Ready(event) = transport.poll(cx) {
                    return Poll::Ready(event);
                }
                if woken.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                woken.set(stream.wake.notified());
            }
        })
        .await;
        match event {
            Event::Received(frame) => {
                received_bytes += frame.len();
                if let Err(reason) = dispatch(shard, peer, stream, frame) {
                    transport.close();
                    return reason;
                }
                if received_bytes >= RECEIVE_TURN_BYTES {
                    received_bytes = 0;
                    yield_now().await;
                }
            }
            Event::Writable { .. } => {}
            Event::Closed(reason) => return reason,
        }
    }
}

/// Hands frames to the transport while it has room. Frames that stay behind may still take another stream.
fn fill<T: Transport>(peer: &Peer, stream: &Stream, transport: &mut T) {
    stream.idle.set(false);
    while transport.queued_bytes() < STREAM_QUEUE_BYTES {
        let Some(frame) = peer.next_frame(stream) else {
            stream.idle.set(true);
            break;
        };
        match transport.submit(frame) {
            Ok(()) => {}
            // The session keeps the frame until it is verified, and sends it again when this stream is lost.
            Err(refused @ (Refused::Malformed { .. } | Refused::Oversize { .. } | Refused::Full { .. })) => {
                tracing::error!(peer = %peer.name, error = %refused, "a frame was refused by its own transport");
                transport.close();
                return;
            }
            Err(Refused::Closed { .. }) => return,
        }
    }
    peer.wake_streams_after(stream);
}

/// Takes a frame to its session. An error: what came is no frame, and nothing after it can be trusted.
fn dispatch(shard: &Rc<Shard>, peer: &Rc<Peer>, stream: &Stream, frame: Bytes) -> Result<(), CloseReason> {
    let header = FrameHeader::read(&frame).map_err(|error| {
        tracing::warn!(peer = %peer.name, %error, "stream closed: its frames cannot be read; sessions go on elsewhere");
        CloseReason::Io { kind: std::io::ErrorKind::InvalidData, detail: error.to_string() }
    })?;
    let running = match shard.session(header.session) {
        Some(running) if Rc::ptr_eq(&running.peer, peer) => Some(running),
        Some(_) => None,
        None if header.kind == Kind::Open => {
            let opening = Open::read(&frame[FRAME_HEADER_BYTES..]).map_err(Reason::from);
            let begun = opening
                .and_then(|opening| shard.begin_expected(header.session, &opening, stream, peer).transpose());
            match begun {
                Ok(begun) => begun,
                Err(reason) => {
                    let session = record::name(header.session);
                    tracing::warn!(%session, peer = %peer.name, %reason, "a session was not opened");
                    stream.answer(reason.to_frame(Kind::Refuse, header.session, header.epoch));
                    return Ok(());
                }
            }
        }
        None => None,
    };
    match running {
        Some(running) => running.receive(stream.id, header, shard.settled(frame)),
        None if matches!(header.kind, Kind::Refuse | Kind::Fail | Kind::Accept) => {}
        None => stream.answer(unknown(shard, &header)),
    }
    Ok(())
}

fn unknown(shard: &Shard, header: &FrameHeader) -> Bytes {
    let reason = match shard.registry.known(header.session) {
        Known::Finished => Reason::new(ReasonCode::Finished, "the session has finished here"),
        // This answer may overtake, on its stream, the `Fail` that went out on another: it says the same.
        Known::Failed(reason) => {
            let (code, why) = reason.map_or_else(Default::default, |reason| (reason.code, reason.message));
            let code = ReasonCode::from_name(&code).unwrap_or(ReasonCode::SessionUnknown);
            Reason::new(code, format!("the session has ended here: {why}"))
        }
        Known::Never => {
            let text = "no such session was announced at this gateway, or it restarted and has forgotten it";
            Reason::new(ReasonCode::SessionUnknown, text)
        }
    };
    reason.to_frame(Kind::Refuse, header.session, header.epoch)
}
